"""What a loss costs where nothing is repeated: the time until a whole key frame, over a simulated path, seed by seed.

The publisher makes a key frame of its next picture when a request reaches it. Loss and delay strike each packet of both ways.
A stretch is what a player cannot show: from the first picture that is missing, or made from one, to the next good one.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from isotrack_api.base import MediaKind
from isotrack_recorder.codecs.registry import CODECS
from isotrack_recorder.media import CodecInfo
from isotrack_recorder.rtp.feedback import FeedbackSettings
from isotrack_recorder.rtp.lines import ExtensionIds, MediaLine, PayloadFormat
from isotrack_recorder.rtp.packet import build_packet
from isotrack_recorder.rtp.plane import ALERT_WAIT_NS, Plane
from isotrack_recorder.spool.records import Flag
from support.rtp import Listening, packetize, vp8_frame, vp8_packets

MS = 1_000_000
SECOND = 1000 * MS
FRAME_NS = SECOND // 30
ONE_WAY_NS = 30 * MS
JITTER_NS = 100 * MS
KEY_BYTES, MOST_BYTES = 8_000, 2_500
"""Of a key frame, and at most of any other picture."""
KEY_PACKETS = -(-KEY_BYTES // 1100)
PLI = b"\x81\xce"

Loses = Callable[["Path", str, int], bool]
"""Whether a packet is lost, by what it belongs to ("pli", "key", "delta") and how many of that were sent before it."""


@dataclass
class Request:
    """One PLI."""

    sent_ns: int
    key: int | None = None
    """Number of the picture that was made a key frame for it; None: it never arrived."""


@dataclass
class Path:
    """A publisher, a path and the plane."""

    seed: int
    loses: Loses
    rtx: bool = False
    """Requests for packets and repeats were negotiated, and nobody answers."""
    requests: list[Request] = field(default_factory=list)
    sent: dict[int, bool] = field(default_factory=dict)
    """Number of each picture → whether it is a key frame."""
    gone: set[int] = field(default_factory=set)
    """Numbers of pictures that lack a packet."""

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        form = PayloadFormat(CodecInfo("vp8", 90_000), CODECS["vp8"], nack=self.rtx, pli=True)
        repairs = {97: 96} if self.rtx else {}
        line = MediaLine("1", "TR_cam", MediaKind.VIDEO, {96: form}, repairs, (2001,))
        self.listener = Listening()
        self.plane = Plane(self.listener, FeedbackSettings(), 500 * MS, 500 * MS)
        self.plane.bind([line], ExtensionIds(), 0)
        self._events: list[tuple[int, int, Callable[[int], None]]] = []
        self._order = itertools.count()
        self._counts: dict[str, int] = {}
        self._pending: list[Request] = []
        self._sequence = 0

    def run(self, seconds: float) -> None:
        """Play; the last second has no loss."""
        end = int(seconds * SECOND)
        for number in range(end // FRAME_NS):
            self._at(number * FRAME_NS, lambda now, number=number: self._publish(number, now))  # type: ignore[misc]
        for now in range(0, end, ALERT_WAIT_NS):
            self._at(now, self._tick)
        while self._events:
            now, _, event = heapq.heappop(self._events)
            event(now)
        self.plane.flush(end + SECOND)

    def _at(self, now: int, event: Callable[[int], None]) -> None:
        heapq.heappush(self._events, (now, next(self._order), event))

    def _send(self, now: int, what: str, arrive: Callable[[int], None]) -> bool:
        """Put a packet on the path; False where it is lost."""
        count = self._counts.get(what, 0)
        self._counts[what] = count + 1
        if self.loses(self, what, count):
            return False
        # Of a stream that begins, what is overtaken at once is not known to exist
        self._at(now + ONE_WAY_NS + (self.rng.randrange(JITTER_NS) if now > SECOND // 2 else 0), arrive)
        return True

    def _publish(self, number: int, now: int) -> None:
        key = not number or bool(self._pending)
        for request in self._pending:
            request.key = number
        self._pending.clear()
        self.sent[number] = key
        frame = vp8_frame(number, key=key, size=KEY_BYTES if key else self.rng.randrange(300, MOST_BYTES))
        packets = packetize(
            vp8_packets(frame, picture_id=number),
            payload_type=96,
            sequence=self._sequence,
            timestamp=number * 3000,
            ssrc=2001,
        )
        self._sequence += len(packets)
        for packet in packets:
            data = build_packet(packet)
            if not self._send(now, "key" if key else "delta", lambda at, data=data: self._receive(data, at)):  # type: ignore[misc]
                self.gone.add(number)

    def _receive(self, data: bytes, now: int) -> None:
        self.plane.rtp(data, 0, len(data), now)
        self._tick(now)

    def _tick(self, now: int) -> None:
        self.plane.tick(now, lambda data: self._feedback(data, now))

    def _feedback(self, data: bytes, now: int) -> None:
        if data[:2] == PLI:
            request = Request(now)
            self.requests.append(request)
            self._send(now, "pli", lambda _: self._pending.append(request))

    # ── what came of it ──────────────────────────────────────────────────────────────────────────────────────────────

    def good(self) -> list[int]:
        """Numbers of the pictures that the recorder takes for decodable."""
        return [row[0] // 3000 for row in self.listener.sinks["TR_cam"].frames if not row[2] & Flag.UNDECODABLE]

    def decodable(self) -> list[int]:
        """Numbers of those that are: whole, as are all since the last key frame."""
        found, intact = [], False
        for number, key in self.sent.items():
            intact = number not in self.gone and (key or intact)
            if intact:
                found.append(number)
        return found

    def stretches(self) -> list[tuple[int, int]]:
        """First picture that is no good and next one that is."""
        return [(a + 1, b) for a, b in itertools.pairwise(self.good()) if b > a + 1]

    def answered(self, begin: int, tries: int) -> bool:
        """Whether one of the first requests behind a loss got through, and the whole key frame back."""
        asked = [request for request in self.requests if request.sent_ns > begin * FRAME_NS + ONE_WAY_NS]
        return any(request.key is not None and request.key not in self.gone for request in asked[:tries])


def five_percent(path: Path, what: str, count: int) -> bool:
    """5 % of everything but the very first key frame."""
    return (what != "key" or count >= KEY_PACKETS) and path.rng.random() < 0.05


@pytest.mark.parametrize(
    ("rtx", "learnt"), [pytest.param(False, 0.5, id="no-nack"), pytest.param(True, 4, id="nobody-answers-a-nack")]
)
def test_a_second_is_lost_at_most_where_one_of_two_requests_is_answered(rtx: bool, learnt: float) -> None:
    """200 paths, a loss every half second: what takes longer was denied two key frames.

    Args:
        learnt: Seconds after which it is known that nobody repeats anything.
    """
    found: list[float] = []
    denied = 0
    for seed in range(200):
        path = Path(seed, five_percent, rtx=rtx)
        path.run(8)
        assert path.good() == path.decodable()
        for begin, end in path.stretches():
            if begin >= learnt * 30:
                found.append((end - begin) / 30)
                if not path.answered(begin, 2):
                    denied += 1
                else:
                    assert found[-1] <= 1, (seed, begin, end)
    found.sort()
    # A request and all 8 packets of the key frame arrive in 63 of 100 cases: 1 of 7 stretches is denied two
    assert len(found) > 500
    assert denied < len(found) // 5
    assert found[len(found) // 2] < 0.5
    assert found[len(found) * 99 // 100] < 2


def seconds_of(stretches: list[tuple[int, int]]) -> list[float]:
    """How long they last, the shortest first."""
    return sorted((end - begin) / 30 for begin, end in stretches)


def lost(what: str, *numbers: int) -> Loses:
    """Loses the packets of one kind with these numbers, and one packet of a picture 3 s in."""
    return lambda _, kind, count: (kind == what and count in numbers) or (kind == "delta" and count == 150)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(
    "loses",
    [
        pytest.param(lost("pli"), id="nothing-else"),
        pytest.param(lost("pli", 1), id="the-first-request"),
        pytest.param(lost("key", KEY_PACKETS), id="the-first-packet-of-the-key-frame"),
        pytest.param(lost("key", 2 * KEY_PACKETS - 1), id="its-last-packet"),
    ],
)
def test_a_lost_request_or_key_frame_is_made_good_within_the_second(loses: Loses, seed: int) -> None:
    path = Path(seed, loses)
    path.run(6)
    assert path.good() == path.decodable()
    assert path.stretches()
    assert seconds_of(path.stretches())[-1] <= 1
