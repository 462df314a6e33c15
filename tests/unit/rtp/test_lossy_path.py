"""How much of a film repair brings back on a bad path, over ten minutes of it: simulated, the same each time.

Pictures of some packets each leave at once; every datagram of each way may be lost, and takes its own time. The SFU repeats what is
asked for under its own rules, and the stream is looked after as often as the plane does it.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from isotrack_api.base import MediaKind
from isotrack_recorder.codecs.base import Octets
from isotrack_recorder.rtp.assembler import Assembler
from isotrack_recorder.rtp.lines import MediaLine
from isotrack_recorder.rtp.plane import REPAIR_WAIT_NS
from isotrack_recorder.rtp.stream import Stream
from isotrack_recorder.rtp.track import Track
from support.rtp import VP8

MS = 1_000_000
FRAME_NS = 33_333_333
PACKETS = 4
"""Of a picture."""


class Counted(Assembler):
    """Counts the packets of each picture."""

    __slots__ = ("packets",)

    def __init__(self) -> None:
        line = MediaLine("0", "TR", MediaKind.VIDEO, {}, repairs_of={VP8.rtx: VP8.payload_type})
        super().__init__(Track(line, None, set()), 42)
        self.packets: Counter[int] = Counter()

    def take(self, payload_type: int, timestamp: int, marker: int, payload: Octets, arrival_ns: int) -> None:
        self.packets[timestamp] += 1

    def lost(self, packets: int, at_ns: int) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Repeating:
    """How an SFU answers requests."""

    most: int
    """Repeats of one packet."""
    apart_ns: int
    """From one to the next; what comes sooner is passed over."""


LIVEKIT = Repeating(3, 100 * MS)
"""pkg/sfu/sequencer.go of livekit-server 1.13: maxAck, ignoreRetransmission."""
WILLING = Repeating(100, 0)


@dataclass(slots=True)
class Kept:
    """A packet that the SFU remembers."""

    picture: int
    repeats: int = 0
    repeated_ns: int = -(10**18)


@dataclass
class Simulation:
    """One recorder, one SFU, and what lies between them."""

    loss: float
    delay_ns: int
    jitter_ns: int
    sfu: Repeating
    pictures: int = 18_000
    stream: Stream = field(init=False)
    order: Counted = field(init=False)
    lost: int = 0
    """Packets, at first."""
    repeated: int = 0

    def __post_init__(self) -> None:
        self.gappy: set[Stream] = set()
        self.order = Counted()
        self.stream = Stream(self.order, 500 * MS, self.gappy)
        self._chance = random.Random(1)
        self._events: list[tuple[int, int, Callable[[int], None]]] = []
        self._scheduled = 0
        self._kept: dict[int, Kept] = {}

    def run(self) -> Simulation:
        self._at(0, lambda now: self._picture(now, 0))
        self._at(0, self._look_after)
        end_ns = self.pictures * FRAME_NS + 3000 * MS
        while self._events[0][0] < end_ns:
            now, _, act = heapq.heappop(self._events)
            act(now)
        return self

    def broken(self) -> int:
        """Pictures that did not come whole."""
        return self.pictures - sum(count == PACKETS for count in self.order.packets.values())

    def _at(self, when_ns: int, act: Callable[[int], None]) -> None:
        self._scheduled += 1
        heapq.heappush(self._events, (when_ns, self._scheduled, act))

    def _send(self, now: int, arrives: Callable[[int], None]) -> bool:
        if self._chance.random() < self.loss:
            return False
        self._at(now + self.delay_ns + int(self._chance.random() * self.jitter_ns), arrives)
        return True

    def _picture(self, now: int, picture: int) -> None:
        for sequence in range(picture * PACKETS, (picture + 1) * PACKETS):
            self._kept[sequence & 0xFFFF] = Kept(picture)
            self.lost += not self._send(
                now, lambda at, number=sequence & 0xFFFF: self.stream.push(96, number, picture, 0, b"x", at)
            )
        if picture + 1 < self.pictures:
            self._at(now + FRAME_NS, lambda at: self._picture(at, picture + 1))

    def _look_after(self, now: int) -> None:
        if self.gappy:
            if numbers := self.stream.asks(now):
                self._send(now, lambda at: self._asked(at, numbers))
            self.stream.expire(now)
        self._at(now + REPAIR_WAIT_NS, self._look_after)

    def _asked(self, now: int, numbers: list[int]) -> None:
        for number in numbers:
            kept = self._kept[number]
            if kept.repeats < self.sfu.most and now - kept.repeated_ns > self.sfu.apart_ns:
                kept.repeats, kept.repeated_ns = kept.repeats + 1, now
                self.repeated += 1
                self._send(now, lambda at, n=number, p=kept.picture: self.stream.repair(96, n, p, 0, b"x", at))


@pytest.mark.parametrize("sfu", [LIVEKIT, WILLING], ids=["livekit", "willing"])
@pytest.mark.parametrize(
    ("loss", "delay_ms", "jitter_ms", "broken"),
    [
        pytest.param(0.05, 1, 100, 2 / 10_000, id="jitter"),
        pytest.param(0.05, 10, 10, 2 / 10_000, id="near"),
        pytest.param(0.05, 150, 50, 6 / 10_000, id="far"),
        pytest.param(0.20, 20, 20, 100 / 10_000, id="heavy-loss"),
    ],
)
def test_nearly_all_pictures_come_whole(
    loss: float, delay_ms: int, jitter_ms: int, broken: float, sfu: Repeating
) -> None:
    """Of 100 pictures 19 miss a packet with 5 % loss, 59 with 20 %. A second is the longest wait: three round trips of the far path."""
    simulation = Simulation(loss, delay_ms * MS, jitter_ms * MS, sfu).run()
    assert simulation.lost > 0.9 * loss * simulation.pictures * PACKETS
    assert simulation.broken() <= broken * simulation.pictures
    nacks = simulation.order.track.counters.nacks
    assert nacks <= 2.3 * simulation.lost, "what is on its way is not asked for again and again"
    assert simulation.repeated <= nacks


@pytest.mark.parametrize(("delay_ms", "jitter_ms"), [(1, 100), (10, 10), (150, 50)])
def test_the_round_trip_is_measured_where_requests_get_lost(delay_ms: int, jitter_ms: int) -> None:
    """Longer ones than our pauses, too; what is late is never taken for a long path."""
    simulation = Simulation(0.05, delay_ms * MS, jitter_ms * MS, LIVEKIT, pictures=3000).run()
    trip_ns = (2 * delay_ms + jitter_ms) * MS
    assert 0.7 * trip_ns < simulation.stream.rtt_ns < 1.8 * trip_ns
