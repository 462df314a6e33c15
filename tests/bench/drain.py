"""How fast a spool drains after an outage: `python -m bench.drain [--participants 4] [--minutes 5]` in `tests/`.

A call of people who each send 720p30's 1.5 Mbit/s and Opus lies in the spool, as after an outage that began with it; the S3
server (versitygw on loopback) is back. Measured is one delivery: plan, mux, upload in parts, verification, manifests. The
pause before the first try after an outage (up to 30 s) comes on top.

The floor is the same server, which takes from the same client files of the same sizes in the same parts, prepared before and
as many at once as a delivery sends: what no agent can be faster than. CPU is of this process, user and system.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from isotrack_dev.servers import s3_server
from isotrack_recorder.pod.heap import share_one_heap
from isotrack_recorder.ship.bodies import Bodies, part_sizes
from isotrack_recorder.ship.deliver import FILES_AT_ONCE, OVER, Delivery
from isotrack_recorder.ship.lanes import Lanes
from isotrack_recorder.ship.layout import layout_of
from isotrack_recorder.ship.preflight import check_storage
from isotrack_recorder.ship.store import PART_BYTES, Store
from support.media import opus_packets
from support.shipping import a_shipping_intent
from support.spools import Call, Sender, steady, tone
from support.stores import a_store, destination, write_secret

FPS = 30
VIDEO_BYTES_PER_SECOND = 1_500_000 // 8
KEY_FRAME_SECONDS = 20
WIDTH, HEIGHT = 1280, 720


def write_spool(folder: Path, participants: int, minutes: float) -> Path:
    """A call of so many people; the bytes of pictures are random behind a VP8 header, since nobody decodes them here."""
    call = Call(folder)
    packets = opus_packets(50 * 10)
    head = bytes([0x10, 0, 0, 0x9D, 0x01, 0x2A]) + WIDTH.to_bytes(2, "little") + HEIGHT.to_bytes(2, "little")
    size = VIDEO_BYTES_PER_SECOND // FPS
    frames = int(minutes * 60 * FPS)
    for person in range(participants):
        peer, user, sound, picture = f"PA_{person}", f"user{person}", f"t{2 * person + 1:04}", f"t{2 * person + 2:04}"
        call.person(peer, user, 0.0)
        call.track(sound, peer, user, "microphone", "opus", 0.0)
        spoken = (packets[number % len(packets)] for number in range(int(minutes * 60 * 50)))
        call.frames(sound, Sender(), 48000, tone(spoken, 0.0), reports=range(1, int(minutes * 60), 5))
        call.track(picture, peer, user, "camera", "vp8", 0.0)
        random = os.urandom(size * 8)
        shown = (
            (head + random[(n % 7) * size : (n % 7 + 1) * size - len(head)], True)
            if n % (KEY_FRAME_SECONDS * FPS) == 0
            else (b"\x11" + random[(n % 7) * size : (n % 7 + 1) * size - 1], False)
            for n in range(frames)
        )
        reports = range(1, int(minutes * 60), 5)
        call.frames(picture, Sender(), 90000, steady(shown, 0.0, 1 / FPS), reports=reports)
        call.event("size", 0.0, track=picture, timestamp=0, width=WIDTH, height=HEIGHT, rotation=0)
    return call.write(stop=minutes * 60)


@dataclass
class Cost:
    """What a stretch of work took."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    """Of this process, user and system."""


@contextmanager
def measured() -> Iterator[Cost]:
    """Measure what is done inside, behind all that was to be written before."""
    os.sync()
    cost, began, busy = Cost(), time.monotonic(), _cpu_seconds()
    yield cost
    cost.seconds, cost.cpu_seconds = time.monotonic() - began, _cpu_seconds() - busy


async def drain(folder: Path, participants: int, minutes: float) -> dict[str, float]:
    """Write, deliver, and say what it took."""
    await asyncio.to_thread(write_spool, folder / "spool", participants, minutes)
    with s3_server(folder / "server") as server:
        secret = write_secret(folder / "secret", server.access_key, server.secret_key)
        store = a_store(server, secret, seconds=3600)
        intent = a_shipping_intent(storage=destination(server))
        with closing(Lanes()) as lanes:
            # NB: as an agent does at its start; it loads the client library, too
            await lanes.request(check_storage, store, layout_of(intent), intent)
            delivery = Delivery(folder / "spool", intent, store, lanes)
            with measured() as agent:
                delivered = await delivery.finish(OVER)
        assert delivered.recording is not None
        assert delivered.recording.manifest.complete
        sizes = [file.bytes for file in delivered.files]
        bodies = await asyncio.to_thread(_prepare, folder / "floor", sizes)
        with measured() as floor:
            await asyncio.to_thread(send_all, store, bodies, sizes)
    stored = sum(sizes)
    return {
        "participants": participants,
        "callSeconds": minutes * 60,
        "megabytes": round(stored / 1e6),
        "files": len(sizes),
        "drainSeconds": round(agent.seconds, 1),
        "timesRealtime": round(minutes * 60 / agent.seconds, 1),
        "megabytesPerSecond": round(stored / agent.seconds / 1e6, 1),
        "cpuSeconds": round(agent.cpu_seconds, 1),
        "cpuSecondsPerParticipantMinute": round(agent.cpu_seconds / participants / minutes, 3),
        "floorSeconds": round(floor.seconds, 1),
        "floorMegabytesPerSecond": round(stored / floor.seconds / 1e6, 1),
        "floorCpuSeconds": round(floor.cpu_seconds, 1),
        "timesFloor": round(agent.seconds / floor.seconds, 2),
    }


def _prepare(folder: Path, sizes: Sequence[int]) -> Bodies:
    """Files of these sizes, by their numbers."""
    bodies, random = Bodies(folder), os.urandom(PART_BYTES)
    for number, size in enumerate(sizes):
        for part, length in part_sizes(size):
            bodies.write(str(number), (part - 1) * PART_BYTES, random[:length])
    return bodies


def send_all(store: Store, bodies: Bodies, sizes: Sequence[int]) -> None:
    """Send files and nothing else, several at a time."""

    def send(number: int) -> None:
        key, kind = f"floor/{number}", "video/matroska"
        upload = store.create_upload(key, kind)
        parts = [
            store.upload_part(key, upload, part, bodies.part(str(number), part, length))
            for part, length in part_sizes(sizes[number])
        ]
        store.complete_upload(key, upload, parts)

    with ThreadPoolExecutor(FILES_AT_ONCE) as threads:
        list(threads.map(send, range(len(sizes))))


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--participants", type=int, default=4)
    parser.add_argument("--minutes", type=float, default=5)
    options = parser.parse_args()
    share_one_heap()
    with tempfile.TemporaryDirectory(prefix="isotrack-drain-") as folder:
        print(json.dumps(asyncio.run(drain(Path(folder), options.participants, options.minutes))))


if __name__ == "__main__":
    main()
