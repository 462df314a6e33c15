"""What the receiving path takes per packet, without the noise of a machine: `python -m bench.replay [--load vp8]` in `tests/`.

The same call, packet for packet and in virtual time, goes through the real Drain, Plane and spool in one process: what a
pause of the call brought is put into a socket, then read, decrypted, assembled and kept. Only that is counted, as CPU time, and
of each step the least of several passes: what is left is the code's own cost. `--cold` walks through 8 MiB before each read,
since beside other processes that is how a recorder finds its caches. To judge a change, run it in two checkouts by turns.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import heapq
import itertools
import random
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Final

from pylibsrtp import Policy, Session

from bench.keeping import Keeps
from bench.load import KINDS, Kind, Source, requests, tracks
from bench.media import Media, prepare
from isotrack_recorder.rtp.packet import Buffer, Header
from isotrack_recorder.rtp.plane import Plane
from isotrack_recorder.spool.writer import SpoolWriter
from isotrack_recorder.webrtc.answer import plan_answer
from isotrack_recorder.webrtc.batch import enlarge_receive_buffer
from isotrack_recorder.webrtc.drain import Drain
from isotrack_recorder.webrtc.sdp import parse_offer
from isotrack_recorder.webrtc.session import MediaSession
from support.rtp import OfferedTrack, build_offer

KEY: Final = bytes(range(44))
FLUSH_SECONDS: Final = 0.5
PACE_SECONDS: Final = 0.0025
"""Between two packets of a frame: libwebrtc sends two and a half times as fast as it encodes."""
COLD_BYTES: Final = 8 << 20
TRANSPORT: Final = (
    "a=ice-ufrag:ufrag",
    "a=ice-pwd:" + "p" * 22,
    "a=setup:actpass",
    "a=fingerprint:sha-256 " + ":".join(["00"] * 32),
)


def srtp(direction: int) -> Session:
    """One end of a connection with AES-256-GCM, as aiortc sets it up."""
    policy = Policy(KEY, direction, srtp_profile=Policy.SRTP_PROFILE_AEAD_AES_256_GCM)
    policy.allow_repeat_tx = True
    policy.window_size = 1024
    return Session(policy)


@dataclass
class Taken:
    """CPU time of one pass in nanoseconds, step by step, and what was done in it."""

    read: list[int] = field(default_factory=list)
    """Receive, decrypt and assemble."""
    tick: list[int] = field(default_factory=list)
    """Feedback."""
    flush: list[int] = field(default_factory=list)
    """Write."""
    longest: list[int] = field(default_factory=list)
    """Of the portions of a read, between which the event loop does other work."""
    packets: int = 0
    frames: int = 0


@dataclass
class Network:
    """Packets on their way, in virtual time."""

    sources: list[Source]
    kind: Kind
    session: Session
    counter: Iterator[int] = field(default_factory=itertools.count)
    paced: bool = False
    repeats: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._waiting = [(source.due(), index, source) for index, source in enumerate(self.sources)]
        heapq.heapify(self._waiting)
        self._leaving: list[tuple[float, int, bytes]] = []
        self._free: dict[int, float] = {}
        self._order = itertools.count()
        self._by_ssrc = {source.ssrc: source for source in self.sources}

    def until(self, seconds: float) -> list[bytes]:
        """What arrives up to this moment of the call, encrypted."""
        while self._waiting[0][0] <= seconds:
            due, index, source = self._waiting[0]
            leaves = max(due, self._free.get(index, 0.0))
            for packet in source.packets(self.counter):
                if random.random() >= self.kind.loss:
                    heapq.heappush(self._leaving, (leaves, next(self._order), packet))
                leaves += PACE_SECONDS if self.paced else 0.0
            self._free[index] = leaves
            heapq.heapreplace(self._waiting, (source.due(), index, source))
        arriving = [self.session.protect(packet) for packet in self.repeats]
        self.repeats.clear()
        while self._leaving and self._leaving[0][0] <= seconds:
            arriving.append(self.session.protect(heapq.heappop(self._leaving)[2]))
        return arriving

    def ask(self, rtcp: bytes) -> None:
        """Answer requests for what was lost with the next packets."""
        if self.kind.loss:
            found = (self._by_ssrc[ssrc].repeat(sequence) for ssrc, sequence in requests(rtcp))
            self.repeats += [packet for packet in found if packet is not None and random.random() >= self.kind.loss]


class InVirtualTime:
    """Gives packets to a plane when they come in the call, not in the replay: what is missing is waited for in that time."""

    def __init__(self, plane: Plane) -> None:
        self.now_ns = 0
        self._plane = plane
        self.rtp, self.rtcp, self.refused, self.tick = plane.rtp, plane.rtcp, plane.refused, plane.tick

    @property
    def lacks_packets(self) -> bool:
        """See PacketReceiver."""
        return self._plane.lacks_packets

    def batch(
        self,
        data: Buffer,
        starts: Iterable[int],
        ends: Iterable[int],
        arrivals: Iterable[int],
        headers: Iterable[Header],
    ) -> None:
        """See PacketReceiver."""
        self._plane.batch(data, starts, ends, repeat(self.now_ns), headers)


def replay(
    offered: list[OfferedTrack], kind: Kind, media: Media, spool: SpoolWriter, options: argparse.Namespace
) -> Taken:
    """One pass over the call."""
    random.seed(7)
    network = Network(
        [Source(track, kind, media, transport_cc=options.twcc) for track in offered],
        kind,
        srtp(Policy.SSRC_ANY_OUTBOUND),
        paced=options.paced,
    )
    plane = offered_to(Keeps(spool), offered)
    plane.tick(time.monotonic_ns(), lambda _: None)
    taken = Taken()
    cpu = time.process_time_ns
    receiving, sending = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    receiving.bind(("127.0.0.1", 0))
    receiving.setblocking(False)
    enlarge_receive_buffer(receiving, 16 << 20)
    receiver = InVirtualTime(plane)
    drain = Drain(receiving, srtp(Policy.SSRC_ANY_INBOUND), receiver, lambda *_: None)
    address, began, flushed, at = receiving.getsockname(), time.monotonic_ns(), 0.0, 0.0
    gc.collect()
    gc.freeze()
    while at < options.seconds:
        at += options.pause
        arriving = network.until(at)
        for packet in arriving:
            sending.sendto(packet, address)
        if options.cold:
            bytearray(COLD_BYTES)
        receiver.now_ns = now_ns = began + int(at * 1e9)
        turns = [cpu()]
        while not drain.read()[1]:
            turns.append(cpu())
        turns.append(cpu())
        asked: list[bytes] = []
        plane.tick(now_ns, asked.append)
        taken.tick.append(cpu() - turns[-1])
        for rtcp in asked:
            network.ask(rtcp)
        taken.read.append(turns[-1] - turns[0])
        taken.longest.append(max(after - before for before, after in itertools.pairwise(turns)))
        taken.packets += len(arriving)
        if at - flushed >= FLUSH_SECONDS:
            flushed = at
            before = cpu()
            spool.flush()
            taken.flush.append(cpu() - before)
    counters = plane.track_counters().values()
    taken.frames = sum(found.frames for found in counters)
    lost = sum(found.lost for found in counters)
    if (lost and not kind.loss) or plane.counters.malformed or plane.counters.refused:
        raise SystemExit(f"replay: {lost} packets lost, {plane.counters}")
    drain.close()
    receiving.close()
    sending.close()
    return taken


def offered_to(listener: Keeps, offered: list[OfferedTrack]) -> Plane:
    """A session's plane once an SFU has offered these tracks."""
    session = MediaSession(listener)
    session._bind(plan_answer(parse_offer(build_offer(offered, TRANSPORT))), {})
    return session._plane


async def passes(options: argparse.Namespace, folder: Path) -> list[Taken]:
    """All of them."""
    kind, media = KINDS[options.load], prepare(options.media or folder / "media")
    offered = tracks(options.participants, kind, transport_cc=options.twcc)
    found = []
    for number in range(options.passes):
        spool = SpoolWriter(folder / f"spool{number}")
        found.append(replay(offered, kind, media, spool, options))
        spool.close()
        shutil.rmtree(spool.folder)
    return found


def main() -> None:
    """Print what the cheapest pass took."""
    parser = argparse.ArgumentParser(prog="python -m bench.replay", description=__doc__)
    parser.add_argument("--load", choices=[name for name, kind in KINDS.items() if not kind.silent], default="vp8")
    parser.add_argument("--participants", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=2, help="of the call")
    parser.add_argument("--pause", type=float, default=0.04, help="seconds between two reads")
    parser.add_argument("--passes", type=int, default=7)
    parser.add_argument("--cold", action="store_true", help="walk through 8 MiB before each read")
    parser.add_argument(
        "--paced", action="store_true", help="frames of different senders lie between each other, as on a network"
    )
    parser.add_argument("--twcc", action="store_true")
    parser.add_argument("--media", type=Path, help="where encoded frames are kept between runs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="isotrack-replay-") as name:
        found = asyncio.run(passes(options, Path(name)))
    steps = {"read": [t.read for t in found], "feedback": [t.tick for t in found], "write": [t.flush for t in found]}
    least = {what: [min(step) for step in zip(*passed)] for what, passed in steps.items()}
    each = {what: sum(values) / found[0].packets / 1000 for what, values in least.items()}
    sys.stdout.write(
        f"{options.load}, {options.participants} people, {found[0].packets} packets, {found[0].frames} frames; us per packet: "
        + ", ".join(f"{what} {value:.2f}" for what, value in each.items())
        + f", all {sum(each.values()):.2f}; longest turn {max(map(min, zip(*(t.longest for t in found)))) / 1e6:.1f} ms\n"
    )


if __name__ == "__main__":
    main()
