"""How fast a spool drains after an outage: `python -m bench.drain [--participants 4] [--minutes 5]` in `tests/`.

A call of people who each send 720p30's 1.5 Mbit/s and Opus lies in the spool, as after an outage that began with it; the S3
server (versitygw on loopback) is back. Measured is one delivery: plan, mux, upload in parts, verification, manifests. The
pause before the first try after an outage (up to 30 s) comes on top.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import tempfile
import time
from pathlib import Path

from isotrack_dev.servers import s3_server
from isotrack_recorder.ship.credentials import FileCredentials
from isotrack_recorder.ship.deliver import NOBODY
from isotrack_recorder.ship.standalone import finish_recording
from support.media import opus_packets
from support.shipping import a_shipping_intent
from support.spools import Call, Sender, steady, tone
from support.stores import destination, write_secret

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


async def drain(folder: Path, participants: int, minutes: float) -> dict[str, float]:
    """Write, deliver, and say what it took."""
    await asyncio.to_thread(write_spool, folder / "spool", participants, minutes)
    with s3_server(folder / "server") as server:
        secret = write_secret(folder / "secret", server.access_key, server.secret_key)
        intent = a_shipping_intent(storage=destination(server))
        began, busy = time.monotonic(), _cpu_seconds()
        delivered = await finish_recording(folder / "spool", intent, FileCredentials(secret), NOBODY)
        took, busy = time.monotonic() - began, _cpu_seconds() - busy
    assert delivered.recording is not None
    assert delivered.recording.manifest.complete
    stored = sum(file.bytes for file in delivered.files)
    return {
        "participants": participants,
        "callSeconds": minutes * 60,
        "megabytes": round(stored / 1e6),
        "files": len(delivered.files),
        "drainSeconds": round(took, 1),
        "timesRealtime": round(minutes * 60 / took, 1),
        "megabytesPerSecond": round(stored / took / 1e6, 1),
        "cpuSeconds": round(busy, 1),
    }


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--participants", type=int, default=4)
    parser.add_argument("--minutes", type=float, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="isotrack-drain-") as folder:
        print(json.dumps(asyncio.run(drain(Path(folder), options.participants, options.minutes))))


if __name__ == "__main__":
    main()
