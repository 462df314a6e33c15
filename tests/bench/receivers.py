"""The receiving processes that are compared: our recorder, the C floor, aiortc's MediaRecorder.

Each connects to the load (bench.load), receives for a while and prints one JSON line: CPU seconds of the whole process
over the measured time, peak memory, and what proves that it did the work.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import json
import logging
import os
import resource
import selectors
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.media import FPS

LIMIT = 1 << 24


class Rounds(selectors.DefaultSelector):
    """Notes how long the event loop works between two looks at its sockets and timers: what came meanwhile waits as long."""

    def __init__(self) -> None:
        super().__init__()
        self.wall_ns: list[int] = []
        self.cpu_ns: list[int] = []
        """Of these, what we worked ourselves: the rest is time that the machine gave to others."""
        self._since = (0, 0)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """See Selector."""
        wall, cpu = self._since
        if wall:
            self.wall_ns.append(time.monotonic_ns() - wall)
            self.cpu_ns.append(time.thread_time_ns() - cpu)
        found = super().select(timeout)
        self._since = (time.monotonic_ns(), time.thread_time_ns())
        return found

    def clear(self) -> None:
        """Begin anew."""
        self.wall_ns.clear()
        self.cpu_ns.clear()

    def stalls(self) -> dict[str, float]:
        """Milliseconds that 999 of 1000 rounds stay within; of fewer than 1000 rounds, the longest."""
        return {
            "rounds": len(self.wall_ns),
            "stall_ms": round(_p999(self.wall_ns) / 1e6, 2),
            "stall_cpu_ms": round(_p999(self.cpu_ns) / 1e6, 2),
        }


def _p999(values: list[int]) -> int:
    return sorted(values)[len(values) * 999 // 1000] if values else 0


class Wire:
    """Signalling with the load."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, offer: str) -> None:
        self.offer = offer
        self._reader, self._writer = reader, writer

    @classmethod
    async def connect(cls, path: str) -> Wire:
        """Wait for the load and read its offer."""
        async with asyncio.timeout(60):
            while True:
                try:
                    reader, writer = await asyncio.open_unix_connection(path, limit=LIMIT)
                    break
                except OSError:
                    await asyncio.sleep(0.05)
            return cls(reader, writer, json.loads(await reader.readline())["offer"])

    async def answer(self, text: str) -> None:
        """Send our answer."""
        self._writer.write(json.dumps({"answer": text}).encode() + b"\n")
        await self._writer.drain()

    async def go(self) -> None:
        """Let packets flow."""
        self._writer.write(b"go\n")
        await self._writer.drain()

    def hang_up(self) -> None:
        """End the load."""
        self._writer.close()


async def measure(arguments: argparse.Namespace, packets: Callable[[], int]) -> dict[str, Any]:
    """Let it run warm, then take CPU and packets over the measured time."""
    await asyncio.sleep(arguments.warm)
    before, count, start = _cpu(), packets(), time.monotonic()
    await asyncio.sleep(arguments.seconds)
    cpu, received, seconds = _cpu() - before, packets() - count, time.monotonic() - start
    return {"cpu_seconds": cpu, "seconds": seconds, "packets": received}


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _memory() -> dict[str, Any]:
    # Not ru_maxrss: that begins at what the parent had at the fork
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {"rss_mb": int(status["VmHWM"].split()[0]) // 1024, "threads": int(status["Threads"])}


async def isotrack(arguments: argparse.Namespace) -> dict[str, Any]:
    """The real media session, track captures and spool, flushed every half second as in a capture."""
    from bench.keeping import Keeps
    from isotrack_recorder.spool.writer import SpoolWriter
    from isotrack_recorder.webrtc.session import MediaSession, MediaSettings

    spool = SpoolWriter(arguments.output / "spool")
    wire = await Wire.connect(arguments.socket)
    settings = MediaSettings(addresses=("127.0.0.1",), max_pause_seconds=arguments.pause)
    session = MediaSession(Keeps(spool), settings)
    await wire.answer(await session.handle_offer(wire.offer, {}))
    await session.connected.wait()

    longest_flush = 0.0

    async def flush() -> None:
        nonlocal longest_flush
        while True:
            await asyncio.sleep(0.5)
            start = time.monotonic()
            session.receive()
            spool.flush_soon()
            longest_flush = max(longest_flush, time.monotonic() - start)

    flusher = asyncio.create_task(flush())
    await wire.go()
    gc.freeze()  # as `isotrack-recorder capture` does
    if arguments.profile_to:
        import cProfile

        profile = cProfile.Profile()
        profile.enable()
    rounds = vars(asyncio.get_running_loop())["_selector"]
    assert isinstance(rounds, Rounds)

    stalls: dict[str, float] = {}

    def received() -> int:
        nonlocal stalls
        stalls = rounds.stalls()
        rounds.clear()
        return sum(c.packets for c in session.counters().values())

    result = await measure(arguments, received)
    if arguments.profile_to:
        profile.disable()
        profile.dump_stats(arguments.profile_to)
    if session.closed.done():
        raise SystemExit(f"the session ended: {session.closed.result()}")
    counters = session.counters().values()
    result |= _memory() | {
        "frames": sum(c.frames for c in counters),
        "lost": sum(c.lost for c in counters),
        "recovered": sum(c.recovered for c in counters),
        "nacks": sum(c.nacks for c in counters),
        "longest_flush_ms": round(longest_flush * 1000, 1),
        "refused": session._plane.counters.refused,
        **stalls,
    }
    flusher.cancel()
    await session.close()
    spool.close()
    wire.hang_up()
    return result


class _FloorResult(ctypes.Structure):
    _fields_ = (
        ("packets", ctypes.c_long),
        ("octets", ctypes.c_long),
        ("refused", ctypes.c_long),
        ("wakes", ctypes.c_long),
        ("cpu", ctypes.c_double),
        ("wall", ctypes.c_double),
    )


async def floor(arguments: argparse.Namespace) -> dict[str, Any]:
    """The least that any program must do, in C (floor.c): receive, decrypt, write. Handshakes by our own transport."""
    from aiortc.rtcdtlstransport import SRTP_PROFILES

    from isotrack_recorder.webrtc import transport
    from isotrack_recorder.webrtc.session import MediaSession, MediaSettings

    class Nobody:
        def open_track(self, *_: object) -> None:
            return None

        def track_unsupported(self, *_: object) -> None:
            return None

    vars(transport)["supported"] = lambda: False
    wire = await Wire.connect(arguments.socket)
    session = MediaSession(Nobody(), MediaSettings(addresses=("127.0.0.1",)))
    await wire.answer(await session.handle_offer(wire.offer, {}))
    await session.connected.wait()
    link: Any = session._transport
    dtls = link._dtls
    profile = next(p for p in SRTP_PROFILES if p.openssl_profile == dtls._ssl.get_selected_srtp_profile())
    view = dtls._ssl.export_keying_material(b"EXTRACTOR-dtls_srtp", 2 * (profile.key_length + profile.salt_length))
    key = profile.get_key_and_salt(view, 0 if dtls._role == "server" else 1)
    sock = link._gatherer._connection._nominated[1].protocol.transport.get_extra_info("socket")
    asyncio.get_running_loop()._remove_reader(sock.fileno())  # type: ignore[attr-defined]
    link._timer.cancel()
    library = ctypes.CDLL(str(arguments.floor))
    output = os.open(arguments.output / "floor.bin", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    await wire.go()
    found = _FloorResult()
    code = await asyncio.to_thread(
        library.receive,
        sock.fileno(),
        key,
        profile.libsrtp_profile,
        output,
        ctypes.c_double(arguments.warm),
        ctypes.c_double(arguments.seconds),
        int(arguments.pause * 1e6),
        ctypes.byref(found),
    )
    if code or found.refused:
        raise SystemExit(f"floor failed: {code}, {found.refused} packets refused")
    os.close(output)
    wire.hang_up()
    return {"cpu_seconds": found.cpu, "seconds": found.wall, "packets": found.packets, "wakes": found.wakes} | _memory()


async def mediarecorder(arguments: argparse.Namespace) -> dict[str, Any]:
    """aiortc as its documentation shows it: RTCPeerConnection and MediaRecorder, which decodes and encodes again.

    It may fall behind the call: its cost is stated per second of video that it has encoded.
    """
    import aioice.ice
    from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
    from aiortc.contrib.media import MediaRecorder
    from aiortc.rtcconfiguration import RTCBundlePolicy

    class Counted(MediaStreamTrack):
        kind = "video"

        def __init__(self, track: MediaStreamTrack) -> None:
            super().__init__()
            self.frames = 0
            self._track = track

        async def recv(self) -> Any:
            frame = await self._track.recv()
            self.frames += 1
            return frame

    aioice.ice.get_host_addresses = lambda **_: ["127.0.0.1"]
    wire = await Wire.connect(arguments.socket)
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[], bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
    received: list[Any] = []
    peer.on("track", received.append)
    await peer.setRemoteDescription(RTCSessionDescription(wire.offer, "offer"))
    await peer.setLocalDescription(await peer.createAnswer())
    await wire.answer(peer.localDescription.sdp)
    while peer.connectionState != "connected":  # noqa: ASYNC110 - aiortc has no event to await here
        await asyncio.sleep(0.02)
    recorder = MediaRecorder(str(arguments.output / "media.webm"))
    video = Counted(next(track for track in received if track.kind == "video"))
    for track in received:
        recorder.addTrack(video if track.kind == "video" else track)
    await recorder.start()
    await wire.go()
    dtls: Any = peer.getTransceivers()[0].receiver.transport
    frames = 0

    def processed() -> int:
        nonlocal frames
        frames, before = video.frames, frames
        recorded.append(frames - before)
        return int(dtls._RTCDtlsTransport__rx_packets)

    recorded: list[int] = []
    result = await measure(arguments, processed)
    result |= _memory() | {"media_seconds": recorded[-1] / FPS}
    wire.hang_up()
    return result


def main() -> None:
    """Entry point of the process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["isotrack", "floor", "mediarecorder"])
    parser.add_argument("--socket", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--floor", type=Path)
    parser.add_argument("--pause", type=float, default=0.04)
    parser.add_argument("--warm", type=float, default=2.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--profile-to", default="")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    run = {"isotrack": isotrack, "floor": floor, "mediarecorder": mediarecorder}[arguments.what]
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(Rounds())) as runner:
        sys.stdout.write(json.dumps(runner.run(run(arguments))) + "\n")
        sys.stdout.flush()
        os._exit(0)  # MediaRecorder's threads would decode on


if __name__ == "__main__":
    main()
