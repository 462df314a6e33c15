"""What it takes to read an abandoned recording's checkpoints: `python -m bench.recovery [--checkpoints 2000] [--latency-ms 20]`.

A call is checkpointed, again and again within seconds, to a real S3 server on loopback and read back through a proxy that lets each answer come late, first with
one read at a time, then as recovery does it. Printed: seconds for heads and for journals, and their ratio.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path
from unittest.mock import patch
from urllib.parse import urlsplit

from isotrack_api.intent import Intent
from isotrack_dev.servers import S3Info, s3_server
from isotrack_recorder.ship import lanes
from isotrack_recorder.ship.checkpoint import is_journal
from isotrack_recorder.ship.checkpoints import Checkpoints
from isotrack_recorder.ship.layout import layout_of
from isotrack_recorder.ship.rebuild import fetch, find_runs, follow
from support.fault_proxy import DISTANCE, FaultProxy
from support.live_spool import LiveSpool
from support.shipping import a_shipping_intent
from support.stores import a_store, destination, write_secret


def checkpointed(folder: Path, server: S3Info, secret: Path, count: int) -> Intent:
    """A call that left so many checkpoints."""
    intent = a_shipping_intent(storage=destination(server, prefix="bench-recovery"))
    call = LiveSpool(folder / "spool", picture_bytes=500, facts_per_tick=1)
    checkpoints = Checkpoints(call.path, intent, a_store(server, secret))
    for number in range(count):
        call.run((number + 1) / 50)
        checkpoints.ship()
    call.stop()
    return intent


def read_back(folder: Path, server: S3Info, secret: Path, intent: Intent, endpoint: str) -> tuple[float, float]:
    """Seconds for all heads, and for all journals."""
    store, layout = a_store(server, secret, endpoint=endpoint), layout_of(intent)
    [run] = find_runs(store.list_objects(layout.attempts), layout)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        began = time.monotonic()
        chain = follow(store, layout, run, Path(place))
        followed = time.monotonic()
        fetch(store, layout, chain, lambda path: Path(place) / path if is_journal(path) else None)
        return followed - began, time.monotonic() - followed


async def measure(count: int, latency: float) -> None:
    """Both ways, and what lies between them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with s3_server(folder / "s3") as server:
            secret = write_secret(folder / "storage", server.access_key, server.secret_key)
            intent = await asyncio.to_thread(checkpointed, folder, server, secret, count)
            url = urlsplit(server.endpoint)
            assert url.hostname
            assert url.port
            async with FaultProxy(url.hostname, url.port) as proxy:
                proxy.always, proxy.latency_seconds = DISTANCE, latency
                rows = []
                for at_once in (1, lanes.READS_AT_ONCE):
                    with patch.object(lanes, "READS_AT_ONCE", at_once):
                        row = await asyncio.to_thread(read_back, folder, server, secret, intent, proxy.url)
                    rows.append(row)
                    print(f"{at_once:3} at once: heads {row[0]:7.1f} s   journals {row[1]:7.1f} s", flush=True)
    print(f"      ratio: heads {rows[0][0] / rows[1][0]:7.1f}     journals {rows[0][1] / rows[1][1]:7.1f}")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="bench.recovery")
    parser.add_argument("--checkpoints", type=int, default=2000)
    parser.add_argument("--latency-ms", type=float, default=20.0)
    arguments = parser.parse_args()
    asyncio.run(measure(arguments.checkpoints, arguments.latency_ms / 1000))
    return 0


if __name__ == "__main__":
    sys.exit(main())
