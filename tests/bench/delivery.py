"""What live delivery costs, and what is left at the stop: `python -m bench.delivery [--minutes 10 120] [--people 1] [--json FILE]`.

A recorder's spool grows faster than real time (720p30 VP8 at 1.5 Mbit/s and Opus per person), and a process of its own does with it
what the agent does: every five seconds of the call it copies a checkpoint to a real S3 server on loopback, delivers what is due and
gives it back; then the call stops. Printed are:

    CPU        of the delivering process per participant-minute, by what it was for; checkpoints copy all media a second time
    stop       seconds until `recording.json` is in the bucket, and until what was temporary is deleted (`end`)
    server     seconds that the server takes to complete an upload of the largest file's size, measured by itself right
               afterwards: the least that any stop can take
    RSS        of the delivering process, at its peak
    disk       the most that the spool held, bytes on their way included

`--json` has the wall time of jobs and requests after the stop, too.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from isotrack_api.intent import S3Destination
from isotrack_dev.servers import S3Info, s3_server
from isotrack_recorder.ship.credentials import AmbientCredentials
from isotrack_recorder.ship.retry import Patience
from isotrack_recorder.ship.s3 import S3Store
from isotrack_recorder.ship.store import PART_BYTES
from isotrack_recorder.spool.watermarks import segment_bytes
from support.live_spool import LiveSpool
from support.shipping import a_shipping_intent

STEP_SECONDS = 5
MB = 1_000_000


@dataclass(frozen=True)
class Delivered:
    """One call."""

    minutes: float
    people: int
    cpu: dict[str, float]
    """CPU seconds per participant-minute, the stop included: `mux`, `send`, `checkpoints`, `rest`."""
    stop_cpu: float
    """CPU seconds of that after the stop."""
    stop_seconds: float
    """From the stop until `recording.json` is in the bucket."""
    end_seconds: float
    """From the stop until the agent would exit: checkpoints are deleted."""
    server_seconds: float
    """For the completion of one upload of the largest file's size, by itself."""
    jobs: dict[str, float]
    """Wall time of jobs after the stop; several may run at a time."""
    requests: dict[str, float]
    """Wall time of requests after the stop, likewise."""
    stop_megabytes: float
    """Sent after the stop."""
    megabytes: float
    """Of all files."""
    rss_mb: int
    spool_megabytes: float


def deliver_call(minutes: float, people: int, server: S3Info, folder: Path, checkpoints: int) -> Delivered:
    """One call from its start to the end of its agent."""
    storage = S3Destination(
        bucket=server.bucket, prefix=f"bench/{minutes}-{people}", region=server.region, endpoint=server.endpoint,
        force_path_style=True, checkpoint_seconds=checkpoints,
    )  # fmt: skip
    intent = a_shipping_intent(storage=storage)
    call = LiveSpool(folder / "spool", people=people, segment_bytes=segment_bytes(10 * 1024**3))
    command = [sys.executable, "-m", "bench.delivering", str(call.path), intent.to_json()]
    most = 0
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as agent:
        for until in range(STEP_SECONDS, round(minutes * 60) + 1, STEP_SECONDS):
            call.run(until)
            most = max(most, sum(path.stat().st_size for path in call.path.rglob("*") if path.is_file()))
            _ask(agent, {"until": until})
        call.stop()
        found = _ask(agent, {"stop": True})
        assert agent.stdin is not None
        agent.stdin.close()
    largest = max(found["sizes"])
    return Delivered(
        minutes=minutes,
        people=people,
        cpu={share: round(seconds / minutes / people, 4) for share, seconds in found["cpu"].items()},
        stop_cpu=round(found["stop_cpu"], 2),
        stop_seconds=round(found["recorded_seconds"], 2),
        end_seconds=round(found["ended_seconds"], 2),
        server_seconds=round(_completion_seconds(storage, largest), 2),
        jobs=_largest(found["jobs"]),
        requests=_largest(found["requests"]),
        stop_megabytes=round(found["stop_bytes"] / MB, 1),
        megabytes=round(sum(found["sizes"]) / MB, 1),
        rss_mb=found["rss_mb"],
        spool_megabytes=round(most / MB, 1),
    )


def _ask(agent: subprocess.Popen[str], word: dict[str, object]) -> dict[str, Any]:
    assert agent.stdin is not None
    assert agent.stdout is not None
    agent.stdin.write(json.dumps(word) + "\n")
    agent.stdin.flush()
    answer: dict[str, Any] = json.loads(agent.stdout.readline())
    return answer


def _completion_seconds(storage: S3Destination, size: int) -> float:
    """How long the server takes to make an object of parts, with nothing else to do."""
    store, key = S3Store(storage, AmbientCredentials(), Patience(60)), f"{storage.prefix}/floor"
    upload = store.create_upload(key, "application/octet-stream")
    sizes = [min(PART_BYTES, size - start) for start in range(0, size, PART_BYTES)]
    parts = [store.upload_part(key, upload, number, os.urandom(length)) for number, length in enumerate(sizes, 1)]
    began = time.monotonic()
    store.complete_upload(key, upload, parts)
    took = time.monotonic() - began
    store.delete(key)
    return took


def _largest(seconds: dict[str, float]) -> dict[str, float]:
    """Rounded, the largest first, without what took next to nothing."""
    rows = sorted(seconds.items(), key=lambda row: -row[1])
    return {name: round(value, 3) for name, value in rows if value >= 0.001}


def table(rows: list[Delivered]) -> str:
    """One line per call."""
    lines = [
        f"{'minutes':>8}{'people':>8}{'CPU-s/person-min':>18}{'mux':>8}{'send':>8}{'ckpts':>8}{'rest':>8}"
        f"{'stop s':>9}{'end s':>8}{'server s':>10}{'x':>6}{'then MB':>9}{'all MB':>9}{'RSS MB':>8}{'disk MB':>9}"
    ]
    for row in rows:
        cpu = row.cpu
        lines.append(
            f"{row.minutes:8g}{row.people:8}{sum(cpu.values()):18.3f}{cpu['mux']:8.3f}{cpu['send']:8.3f}"
            f"{cpu['checkpoints']:8.3f}{cpu['rest']:8.3f}{row.stop_seconds:9.2f}{row.end_seconds:8.2f}"
            f"{row.server_seconds:10.2f}{row.stop_seconds / max(row.server_seconds, 0.01):6.1f}"
            f"{row.stop_megabytes:9.1f}{row.megabytes:9.1f}{row.rss_mb:8}{row.spool_megabytes:9.1f}"
        )
    return "\n".join(lines)


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m bench.delivery", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--minutes", type=float, nargs="+", default=[10, 120])
    parser.add_argument("--people", type=int, nargs="+", default=[1])
    parser.add_argument("--checkpoints", type=int, default=5, help="seconds between checkpoints; 0 = none")
    parser.add_argument("--json", type=Path, help="file for all figures")
    options = parser.parse_args()
    rows = []
    for people in options.people:
        for minutes in options.minutes:
            with tempfile.TemporaryDirectory(prefix="isotrack-bench-") as name, s3_server(Path(name) / "s3") as server:
                os.environ.update(AWS_ACCESS_KEY_ID=server.access_key, AWS_SECRET_ACCESS_KEY=server.secret_key)
                rows.append(deliver_call(minutes, people, server, Path(name), options.checkpoints))
                shutil.rmtree(Path(name) / "spool")
            sys.stderr.write(f"bench: {rows[-1]}\n")
    sys.stdout.write(table(rows) + "\n")
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
