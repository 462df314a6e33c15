"""The plane as a whole, fed with packets and times: frames, gaps, routing, key frames, feedback."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.load import requests
from isotrack_api.base import MediaKind
from isotrack_recorder.codecs.registry import CODECS
from isotrack_recorder.errors import ParseError
from isotrack_recorder.media import CodecInfo
from isotrack_recorder.rtp.assembler import MAX_TURNS
from isotrack_recorder.rtp.feedback import FeedbackSettings
from isotrack_recorder.rtp.lines import ExtensionIds, MediaLine, PayloadFormat
from isotrack_recorder.rtp.packet import WIDE_HEADER, Packet, build_packet, parse_packet
from isotrack_recorder.rtp.plane import ALERT_WAIT_NS, CALM_WAIT_NS, FEEDBACK_WAIT_NS, Plane
from isotrack_recorder.rtp.router import MAX_PARKED
from isotrack_recorder.rtp.rtcp import Dlrr, parse_compound
from isotrack_recorder.rtp.track import Track
from isotrack_recorder.spool.records import Flag
from support.media import video_frames
from support.payloads import h264_payloads
from support.rtp import Listening, Recorded, packetize, sender_report, vp8_frame, vp8_packets

MS = 1_000_000
SECOND = 1000 * MS
EXTENSIONS = ExtensionIds(mid=4, transport_cc=5, orientation=6, audio_level=7, rid=8, repaired_rid=9)

VP8 = PayloadFormat(CodecInfo("vp8", 90_000), CODECS["vp8"], nack=True, pli=True, remb=True)
OPUS = PayloadFormat(CodecInfo("opus", 48_000, 2), CODECS["opus"])
CAMERA = MediaLine("1", "TR_cam", MediaKind.VIDEO, {96: VP8}, {97: 96}, (2001,), {2002: 2001})
MICROPHONE = MediaLine("0", "TR_mic", MediaKind.AUDIO, {111: OPUS}, {}, (1001,))


class Bench:
    """A plane with a clock that moves 1 ms per packet."""

    def __init__(self, *lines: MediaLine, wants: set[str] | None = None, key_interval_ns: int = 0) -> None:
        self.listener = Listening(lambda track_id: wants is None or track_id in wants)
        self.plane = Plane(self.listener, FeedbackSettings(key_interval_ns=key_interval_ns), 200 * MS, 500 * MS)
        self.now = 10 * SECOND
        self.sent: list[bytes] = []
        self.bind(*lines)

    def bind(self, *lines: MediaLine) -> None:
        self.plane.bind(lines, EXTENSIONS, self.now)

    def rtp(self, *packets: Packet) -> None:
        for packet in packets:
            self.now += MS
            data = build_packet(packet)
            self.plane.rtp(data, 0, len(data), self.now)

    def batch(self, written: Sequence[bytes], arrivals: Iterable[int]) -> None:
        """As a Drain hands datagrams on: each in a slot."""
        slots = b"".join(data.ljust(2048, b"\0") for data in written)
        starts = range(0, len(slots), 2048)
        ends = [start + len(data) for start, data in zip(starts, written)]
        self.plane.batch(slots, starts, ends, arrivals, [WIDE_HEADER.unpack_from(slots, start) for start in starts])

    def video(self, frame: bytes, *, sequence: int, timestamp: int, ssrc: int = 2001, mid: str = "") -> list[Packet]:
        payloads = vp8_packets(frame, picture_id=sequence)
        packets = packetize(payloads, payload_type=96, sequence=sequence, timestamp=timestamp, ssrc=ssrc)
        return [packet._replace(extensions={4: mid.encode()} if mid else {}) for packet in packets]

    def audio(self, payload: bytes, *, sequence: int, timestamp: int, ssrc: int = 1001) -> Packet:
        return Packet(111, sequence & 0xFFFF, timestamp & 0xFFFFFFFF, ssrc, False, {}, payload)

    def tick(self, milliseconds: int = 0) -> list[bytes]:
        self.now += milliseconds * MS
        self.sent = []
        self.plane.tick(self.now, self.sent.append)
        return self.sent

    def plis(self) -> list[int]:
        return [struct.unpack_from("!L", packet, 8)[0] for packet in self.sent if packet[:2] == b"\x81\xce"]

    @property
    def camera(self) -> Recorded:
        return self.listener.sinks["TR_cam"]

    @property
    def microphone(self) -> Recorded:
        return self.listener.sinks["TR_mic"]


@settings(max_examples=60)
@given(
    sequence=st.integers(0, 0xFFFF),
    timestamp=st.integers(0, 0xFFFFFFFF),
    sizes=st.lists(st.integers(10, 4000), min_size=2, max_size=12),
    seed=st.integers(0, 2**32),
    loss=st.sampled_from([0.0, 0.05, 0.3]),
)
def test_video_frames_come_whole_in_order_and_flagged(
    sequence: int, timestamp: int, sizes: list[int], seed: int, loss: float
) -> None:
    """From any sequence number and timestamp, under loss: what comes was sent, the rest is told of."""
    rng = random.Random(seed)
    bench = Bench(CAMERA)
    frames = [vp8_frame(n, key=n == 0, size=max(10, size)) for n, size in enumerate(sizes)]
    whole: list[int] = []
    gone = 0
    for number, frame in enumerate(frames):
        packets = bench.video(frame, sequence=sequence, timestamp=timestamp + number * 3000)
        sequence += len(packets)
        kept = [packet for packet in packets if number in (0, len(frames) - 1) or rng.random() >= loss]
        gone += len(packets) - len(kept)
        if len(kept) == len(packets):
            whole.append(number)
        bench.rtp(*kept)
    bench.tick(600)
    assert bench.camera.data == [frames[n] for n in whole]
    assert [frame[0] for frame in bench.camera.frames] == [timestamp + n * 3000 for n in whole]
    assert sum(gap[0] for gap in bench.camera.gaps) == gone == bench.plane.track_counters()["TR_cam"].lost
    flagged = [frame[0] for frame in bench.camera.frames if frame[2] & Flag.AFTER_GAP]
    assert flagged == [gap[2] for gap in bench.camera.gaps]
    for _, after, before, _ in bench.camera.gaps:
        assert after < before
    assert bench.plane.counters.malformed == 0


@pytest.mark.parametrize("cut", [0, 1, 2])
def test_pictures_made_from_what_is_missing_are_flagged_until_the_next_key_frame(cut: int) -> None:
    """Whichever packet of a frame it was, and also where the stream says BYE in between."""
    bench = Bench(CAMERA)
    sequence = 0
    for number in range(9):
        size = 3000 if number == 2 else 600
        packets = bench.video(
            vp8_frame(number, key=number in (0, 6), size=size), sequence=sequence, timestamp=3000 * number
        )
        sequence += len(packets)
        if number == 2:
            del packets[cut]
        bench.rtp(*packets)
        if number == 4:
            bench.plane.rtcp(b"\x81\xcb\x00\x01" + struct.pack("!L", 2001), bench.now)
    bench.tick(600)
    flagged = [frame[0] // 3000 for frame in bench.camera.frames if frame[2] & Flag.UNDECODABLE]
    assert [frame[0] // 3000 for frame in bench.camera.frames] == [0, 1, 3, 4, 5, 6, 7, 8]
    assert flagged == [3, 4, 5]


@pytest.mark.parametrize(
    ("pictures", "cut", "lost"),
    [
        pytest.param([1, 2, 3], {}, 0, id="no-picture-is-missing"),
        pytest.param([1, 2, 4], {}, 2, id="a-picture-is-missing"),
        pytest.param([1, 2, 3], {2: slice(-1)}, 3, id="the-end-of-the-picture-before"),
        pytest.param([1, 2, 3], {3: slice(1, None)}, 3, id="the-begin-of-the-picture-behind"),
    ],
)
def test_packets_that_never_come_between_pictures_that_follow_each_other_are_of_none(
    pictures: list[int], cut: dict[int, slice], lost: int
) -> None:
    """A publisher on a bad way to the SFU leaves holes in which only padding was. Nobody is asked for a key frame for that."""
    bench = Bench(CAMERA)
    sequence = 10
    for number in pictures:
        payloads = vp8_packets(vp8_frame(number, key=number == 1, size=3000), picture_id=number)
        packets = packetize(payloads, payload_type=96, sequence=sequence, timestamp=3000 * number, ssrc=2001)
        bench.rtp(*packets[cut.get(number, slice(None))])
        sequence += len(packets) + (2 if number == 2 else 0)
    requests = sum(len(bench.plis()) for _ in range(60) if bench.tick(20) is not None)
    bench.rtp(*bench.video(vp8_frame(5, key=True), sequence=sequence, timestamp=90_000))
    assert sum(gap[0] for gap in bench.camera.gaps) == lost == bench.plane.track_counters()["TR_cam"].lost
    flags = [frame[2] for frame in bench.camera.frames]
    assert any(flag & (Flag.AFTER_GAP | Flag.UNDECODABLE) for flag in flags) is bool(lost)
    assert bool(requests) is bool(lost)


def test_a_frame_that_does_not_parse_spoils_those_behind_it() -> None:
    bench = Bench(CAMERA)
    bench.rtp(*bench.video(vp8_frame(0, key=True), sequence=0, timestamp=0))
    bench.rtp(*packetize([b"\x10"], payload_type=96, sequence=1, timestamp=3000, ssrc=2001))
    for number in range(2, 5):
        bench.rtp(*bench.video(vp8_frame(number, key=number == 4), sequence=number, timestamp=number * 3000))
    assert [bool(frame[2] & Flag.UNDECODABLE) for frame in bench.camera.frames] == [False, True, True, False]


@pytest.mark.parametrize("bound", ["MAX_FRAME_BYTES", "MAX_FRAME_PACKETS"])
@pytest.mark.parametrize("at_once", [False, True], ids=["packet by packet", "in batches"])
def test_a_frame_beyond_the_bounds_is_counted_and_spoils_those_behind_it(
    bound: str, at_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"isotrack_recorder.rtp.assembler.{bound}", {"MAX_FRAME_BYTES": 5000}.get(bound, 6))
    bench = Bench(CAMERA)
    bench.plane.bind([CAMERA], ExtensionIds(), bench.now)  # batches gather runs where no extension is read
    sequence = 0
    for number in range(6):
        if number == 4:
            bench.tick(2000)
            assert bench.plis() == [2001], "a key frame is asked for"
        size = 12_000 if number == 2 else 600
        packets = bench.video(
            vp8_frame(number, key=number in (0, 4), size=size), sequence=sequence, timestamp=3000 * number
        )
        sequence += len(packets)
        if at_once:
            bench.now += MS
            bench.batch([build_packet(packet) for packet in packets], [bench.now] * len(packets))
        else:
            bench.rtp(*packets)
    flags = {timestamp // 3000: bits for timestamp, _, bits, _ in bench.camera.frames}
    assert sorted(flags) == [0, 1, 3, 4, 5]
    assert [number for number, bits in flags.items() if bits & Flag.UNDECODABLE] == [3]
    assert [number for number, bits in flags.items() if bits & Flag.AFTER_GAP] == [3]
    counters = bench.plane.track_counters()["TR_cam"]
    assert (counters.damaged, counters.frames) == (1, 5)


def test_tracks_beyond_the_bound_are_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isotrack_recorder.rtp.plane.MAX_TRACKS", 3)
    lines = [replace(MICROPHONE, mid=str(n), track_id=f"TR_{n}", ssrcs=(5000 + n,)) for n in range(5)]
    bench = Bench(*lines)
    bench.rtp(*(bench.audio(b"\xf8", sequence=1, timestamp=0, ssrc=5000 + n) for n in range(5)))
    heard = [track_id for track_id, sink in bench.listener.sinks.items() if sink.frames]
    assert list(bench.listener.sinks) == heard == ["TR_0", "TR_1", "TR_2"]
    bench.bind(*(replace(line, track_id=line.track_id + "x") for line in lines[:3]))
    bench.bind(*(replace(line, track_id=line.track_id + "y") for line in lines[:3]))
    assert list(bench.plane.track_counters()) == ["TR_0x", "TR_1x", "TR_2x", "TR_0y", "TR_1y", "TR_2y"], (
        "of the past, the newest"
    )


def test_sources_beyond_the_bound_find_no_place_and_those_that_are_known_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """An SFU that invents SSRCs fills the table, not the memory."""
    monkeypatch.setattr("isotrack_recorder.rtp.router.MAX_SSRCS", 10)
    bench = Bench(MICROPHONE, replace(CAMERA, ssrcs=(), repair_ssrcs={}), wants={"TR_mic"})
    for ssrc in range(20_000, 20_100):
        bench.rtp(*bench.video(vp8_frame(1, key=False), sequence=1, timestamp=0, ssrc=ssrc, mid="1"))
    bench.rtp(bench.audio(b"\xf8", sequence=1, timestamp=0))
    assert len(bench.plane._routes) == 10
    assert bench.plane._router.unrouted == 91
    assert len(bench.microphone.frames) == 1
    assert bench.plane.counters.malformed == 0


def test_audio_packets_are_frames_and_a_gap_is_told_once() -> None:
    bench = Bench(MICROPHONE)
    for step in (0, 1, 2, 5, 6):
        bench.rtp(bench.audio(bytes([0xF8, step]), sequence=65534 + step, timestamp=2**32 - 960 + 960 * step))
    bench.tick(300)
    base = 2**32 - 960
    assert [frame[0] for frame in bench.microphone.frames] == [base + 960 * step for step in (0, 1, 2, 5, 6)]
    assert [gap[:3] for gap in bench.microphone.gaps] == [(2, base + 2 * 960, base + 5 * 960)]
    assert [frame[2] for frame in bench.microphone.frames] == [
        Flag.KEY | Flag.DISCONTINUITY,
        Flag.KEY,
        Flag.KEY,
        Flag.KEY | Flag.AFTER_GAP,
        Flag.KEY,
    ]


def test_a_gap_that_no_frame_follows_is_told_at_the_end() -> None:
    bench = Bench(CAMERA)
    bench.rtp(*bench.video(vp8_frame(0, key=True), sequence=0, timestamp=0))
    head, *_, tail = bench.video(vp8_frame(1, key=False, size=4000), sequence=1, timestamp=3000)
    bench.rtp(head, tail)
    bench.plane.forget_track("TR_cam", bench.now)
    assert [gap[:3] for gap in bench.camera.gaps] == [(2, 0, 3000)]


def test_nothing_is_delivered_before_a_key_frame_and_it_is_asked_for() -> None:
    bench = Bench(replace(CAMERA, formats={96: replace(VP8, nack=False)}))
    bench.tick(200)
    assert bench.plis() == [], "an SFU begins with a key frame by itself"
    for number in range(4):
        bench.rtp(*bench.video(vp8_frame(number, key=False), sequence=number, timestamp=number * 3000))
    bench.tick(150)
    assert bench.plis() == [2001], "but this one did not"
    bench.tick(290)
    assert bench.plis() == []
    bench.tick(20)
    assert bench.plis() == [2001], "and again, until one comes"
    bench.rtp(*bench.video(vp8_frame(9, key=True), sequence=4, timestamp=12000))
    bench.tick(5000)
    assert bench.plis() == []
    assert [frame[0] for frame in bench.camera.frames] == [12000]
    assert bench.plane.track_counters()["TR_cam"].plis == 2


def test_a_source_that_sends_nothing_is_asked_for_a_key_frame_after_a_while() -> None:
    bench = Bench(CAMERA)
    bench.now += 5000 * MS  # until there is a connection
    asked = [at for at in range(0, 3000, 10) if (bench.tick(10), bench.plis())[1]]
    assert asked == [1100, 2200]


def test_a_source_that_begins_with_a_key_frame_is_asked_for_nothing() -> None:
    """LiveKit repeats no packet from a request on until the next key frame passes."""
    bench = Bench(CAMERA)
    bench.tick(1000)
    bench.rtp(*bench.video(vp8_frame(0, key=True), sequence=0, timestamp=0))
    for number in range(1, 100):
        bench.rtp(*bench.video(vp8_frame(number, key=False), sequence=number, timestamp=number * 3000))
        bench.tick(32)
        assert bench.plis() == []


def test_a_key_frame_of_which_a_part_may_still_be_repeated_is_not_asked_for_again() -> None:
    bench = Bench(CAMERA)
    bench.rtp(*bench.video(vp8_frame(0, key=True), sequence=0, timestamp=0))
    bench.plane.request_key_frame("TR_cam")
    bench.tick()
    assert bench.plis() == [2001]
    first, lost, last = bench.video(vp8_frame(1, key=True, size=3000), sequence=1, timestamp=3000)
    bench.rtp(first, last)
    for _ in range(45):
        bench.tick(10)
        assert bench.plis() == []
    repeat = lost._replace(payload_type=97, ssrc=2002, payload=struct.pack("!H", lost.sequence) + lost.payload)
    bench.rtp(repeat)
    bench.tick(2000)
    assert bench.plis() == []
    assert bench.camera.data == [vp8_frame(0, key=True), vp8_frame(1, key=True, size=3000)]


class Regular:
    """Cameras that send ten pictures a second for a while and answer each request with a key frame; when they were asked."""

    def __init__(self, *lines: MediaLine, interval: int) -> None:
        self.bench = Bench(*lines, key_interval_ns=interval * SECOND)
        self.sources = [line.ssrcs[0] for line in lines]
        self.asked: dict[int, list[int]] = {ssrc: [] for ssrc in self.sources}
        self._number = 0
        self._start = self.bench.now
        self._due = set(self.sources)

    def flow(self, seconds: int, *, silent: bool = False) -> None:
        for _ in range(10 * seconds):
            if not silent:
                for ssrc in self.sources:
                    frame = vp8_frame(self._number, key=ssrc in self._due)
                    self.bench.rtp(
                        *self.bench.video(frame, sequence=self._number, timestamp=self._number * 9000, ssrc=ssrc)
                    )
                self._number += 1
                self._due.clear()
            self.bench.tick(100 - (0 if silent else len(self.sources)))
            self._due.update(self.bench.plis())
            for ssrc in self.bench.plis():
                self.asked[ssrc].append((self.bench.now - self._start) // SECOND)


CAMERAS = [replace(CAMERA, mid=str(n), track_id=f"TR_{n}", ssrcs=(5000 + n,), repair_ssrcs={}) for n in range(8)]


def test_key_frames_are_asked_for_at_the_interval_and_not_of_all_at_once() -> None:
    regular = Regular(*CAMERAS, interval=20)
    regular.flow(61)
    for times in regular.asked.values():
        assert 10 <= times[0] <= 21
        assert all(after - before in (20, 21) for before, after in pairwise(times)), "looked at once a second"
        assert len(times) in (2, 3)
    assert len({times[0] for times in regular.asked.values()}) >= 4


def test_interval_0_asks_for_key_frames_only_when_one_is_needed() -> None:
    regular = Regular(CAMERA, interval=0)
    regular.flow(60)
    assert regular.asked == {2001: []}


def test_a_camera_that_sends_nothing_is_not_asked() -> None:
    """A muted camera has nothing to show; it is asked when its pictures are back."""
    regular = Regular(CAMERA, interval=4)
    regular.flow(1)
    regular.flow(30, silent=True)
    assert regular.asked == {2001: []}
    regular.flow(2)
    assert regular.asked[2001] != []


def test_a_publisher_with_key_frames_of_its_own_is_left_alone() -> None:
    regular = Regular(CAMERA, interval=4)
    for _ in range(15):
        regular._due = {2001}
        regular.flow(2)
    assert regular.asked == {2001: []}


def test_a_lost_frame_brings_a_request_at_once_and_deltas_go_on() -> None:
    bench = Bench(CAMERA)
    bench.rtp(*bench.video(vp8_frame(0, key=True), sequence=0, timestamp=0))
    bench.tick(2000)
    for number in (2, 3, 4):
        bench.rtp(*bench.video(vp8_frame(number, key=False), sequence=number, timestamp=number * 3000))
    bench.tick(600)
    assert bench.plis() == [2001]
    assert [frame[0] for frame in bench.camera.frames] == [0, 6000, 9000, 12000]
    bench.tick(10)
    assert bench.plis() == []


@pytest.mark.parametrize(
    ("rtt", "hold", "pause"),
    [
        pytest.param(0, 500, 1100, id="unknown"),
        pytest.param(100, 700, 1100, id="short"),
        pytest.param(400, 1000, 1600, id="long"),
    ],
)
def test_where_packets_are_repeated_a_key_frame_is_asked_for_again_when_it_cannot_come_any_more(
    rtt: int, hold: int, pause: int
) -> None:
    track = Track(CAMERA, Recorded(), set())
    track.want_key()
    asked = [at for at in range(0, 5000, 10) if track.key_request_due(at * MS, rtt * MS, hold * MS)]
    assert [after - before for before, after in pairwise(asked)][:2] == [pause] * 2


@pytest.mark.parametrize(
    ("rtt", "pauses"),
    [
        pytest.param(0, [300, 300, 300, 450, 675, 1000, 1000, 1000, 1000, 5000, 5000], id="unknown"),
        pytest.param(100, [300, 300, 300, 450, 675, 1000, 1000, 1000, 1000, 5000], id="short"),
        pytest.param(400, [600, 600, 600, 900, 1000, 1000, 1000, 1000, 1000, 5000], id="long"),
        pytest.param(900, [1000, 1000, 1000, 1000], id="very-long"),
    ],
)
def test_requests_for_a_key_frame_are_repeated_ever_more_slowly(rtt: int, pauses: list[int]) -> None:
    track = Track(CAMERA, Recorded(), set())
    track.want_key()
    asked = [at for at in range(0, 20_000, 25) if track.key_request_due(at * MS, rtt * MS)]
    assert [after - before for before, after in pairwise(asked)][: len(pauses)] == pauses


def test_of_a_camera_that_sends_a_key_frame_is_asked_for_each_second_until_one_is_whole() -> None:
    """A large one hardly ever is on a path that loses much, and a camera that was muted at first has used up its quick requests."""
    bench = Bench(CAMERA)
    asked = []
    for number in range(1500):
        if number >= 750:
            bench.rtp(*bench.video(vp8_frame(number, key=False), sequence=number, timestamp=number * 3600))
        bench.tick(40)
        if bench.plis():
            asked.append(number * 40)
    pauses = [after - before for before, after in pairwise(asked)]
    silent = sum(at < 30_000 for at in asked)
    assert pauses[silent - 2] >= 5000
    assert max(pauses[silent:]) <= 1300
    bench.rtp(*bench.video(vp8_frame(1500, key=True), sequence=1500, timestamp=1500 * 3600))
    assert len(bench.camera.frames) == 1


def test_a_request_after_a_key_frame_is_a_first_one_again() -> None:
    track = Track(CAMERA, Recorded(), set())
    track.want_key()
    asked = [at for at in range(0, 20_000, 25) if track.key_request_due(at * MS, 0)]
    assert len(asked) > 8
    track.key_frame(20_000 * MS)
    track.want_key()
    assert track.key_request_due(20_001 * MS, 0)
    assert not track.key_request_due(20_300 * MS, 0)
    assert track.key_request_due(20_301 * MS, 0)


def test_lost_packets_are_asked_for_and_rtx_brings_them() -> None:
    bench = Bench(CAMERA)
    frame = vp8_frame(0, key=True, size=4000)
    first, second, *rest = bench.video(frame, sequence=100, timestamp=0)
    bench.rtp(first, *rest)
    nacks = [packet for packet in bench.tick(10) if packet[:2] == b"\x81\xcd"]
    assert [struct.unpack("!BBHLLHH", packet)[4:] for packet in nacks] == [(2001, 101, 0)]
    original = struct.pack("!H", second.sequence) + second.payload
    bench.rtp(second._replace(payload_type=97, ssrc=2002, sequence=1, payload=original))
    assert bench.camera.data == [frame]
    counters = bench.plane.track_counters()["TR_cam"]
    assert (counters.recovered, counters.lost, counters.nacks) == (1, 0, 1)


def test_losses_of_many_streams_are_asked_for_in_one_datagram() -> None:
    """Each datagram that is sent costs the process more than the requests in it."""
    lines = [replace(CAMERA, mid=str(n), track_id=f"TR_{n}", ssrcs=(n,), repair_ssrcs={}) for n in range(1, 6)]
    bench = Bench(*lines)
    for line in lines:
        (ssrc,) = line.ssrcs
        first, _, third = bench.video(vp8_frame(0, key=True, size=3000), sequence=ssrc, timestamp=0, ssrc=ssrc)
        bench.rtp(first, third)
    (asked,) = [packet for packet in bench.tick(10) if packet[1] == 205]
    assert set(requests(asked)) == {(ssrc, ssrc + 1) for ssrc in range(1, 6)}


def extended(packets: list[bytes]) -> list[bytes]:
    return [packet for packet in packets if packet[1] == 207]


def test_the_round_trip_is_measured_and_paces_requests_for_key_frames() -> None:
    """RFC 3611: we state a time, and are told when it came and for how long it lay there."""
    bench = Bench(replace(CAMERA, formats={96: replace(VP8, nack=False)}, measures=True))
    bench.rtp(*bench.video(vp8_frame(0, key=True), sequence=0, timestamp=0))
    (stated,) = extended(bench.tick(1000))
    sender, ntp = struct.unpack_from("!L4xQ", stated, 4)
    assert extended(bench.tick(500)) == []
    bench.now += 300 * MS  # 800 ms later, of which it lay there for 400
    bench.plane.rtcp(
        struct.pack("!BBHLBBHLLL", 0x80, 207, 5, 7, 5, 0, 3, sender, ntp >> 16 & 0xFFFFFFFF, 65536 * 2 // 5), bench.now
    )
    assert bench.plane._feedback.rtt_ns == pytest.approx(400 * MS, abs=MS)
    bench.plane.request_key_frame("TR_cam")
    asked = [at for at in range(0, 2000, 10) if (bench.tick(10), bench.plis())[1]]
    assert len(asked) == 4
    assert all(600 <= after - before <= 610 for before, after in pairwise(asked)), "one and a half round trips"


@pytest.mark.parametrize("measures", [True, False])
def test_a_stated_time_is_told_back_once_where_that_was_negotiated(measures: bool) -> None:
    bench = Bench(replace(CAMERA, measures=measures))
    bench.rtp(*bench.video(vp8_frame(0, key=True), sequence=0, timestamp=0))
    bench.tick(1000)
    for ssrc in range(300):
        bench.plane.rtcp(struct.pack("!BBHLBBHQ", 0x80, 207, 4, ssrc, 4, 0, 2, 0x11223344_55667788), bench.now)
    told = [row for packet in extended(bench.tick(1000)) for row in parse_compound(packet) if isinstance(row, Dlrr)]
    assert told == [Dlrr(ssrc, 0x3344_5566, 65536) for ssrc in range(90)] * measures
    assert [len(packet) for packet in extended(bench.tick(1000))] == [20] * measures
    assert bench.plane._feedback.rtt_ns == 0


@pytest.mark.parametrize(
    ("ssrc", "last", "delay"),
    [pytest.param(1, None, 0, id="of-another"), pytest.param(0, 0, 0, id="none-yet"), pytest.param(0, None, 65536 * 20, id="from-the-future")],
)  # fmt: skip
def test_an_answer_that_cannot_be_one_changes_nothing(ssrc: int, last: int | None, delay: int) -> None:
    bench = Bench(replace(CAMERA, formats={96: replace(VP8, nack=False)}, measures=True))
    bench.rtp(*bench.video(vp8_frame(0, key=True), sequence=0, timestamp=0))
    (stated,) = extended(bench.tick(1000))
    sender, ntp = struct.unpack_from("!L4xQ", stated, 4)
    row = (sender + ssrc & 0xFFFFFFFF, ntp >> 16 & 0xFFFFFFFF if last is None else last, delay)
    bench.plane.rtcp(struct.pack("!BBHLBBHLLL", 0x80, 207, 5, 7, 5, 0, 3, *row), bench.now + 100 * MS)
    assert bench.plane._feedback.rtt_ns == 0


SIMULCAST = replace(CAMERA, ssrcs=(), repair_ssrcs={})
"""An m-line whose encodings are told apart by header extensions alone."""


class Layers(Bench):
    """Encodings of one camera, each a stream with a key frame of five packets of which the second is lost, and its RTX stream."""

    def media(self, rid: str, ssrc: int, *, timestamp: int = 0) -> Packet:
        """Send an encoding but for the lost packet, which is returned."""
        packets = self.video(self.picture(ssrc), sequence=100, timestamp=timestamp, ssrc=ssrc)
        named = [packet._replace(extensions={4: b"1", 8: rid.encode()}) for packet in packets]
        self.rtp(named[0], *named[2:])
        return named[1]

    def repeat(self, lost: Packet, rid: str | None, ssrc: int) -> None:
        original = struct.pack("!H", lost.sequence) + lost.payload
        named = {4: b"1"} if rid is None else {4: b"1", 9: rid.encode()}
        self.rtp(lost._replace(payload_type=97, ssrc=ssrc, payload=original, extensions=named))

    @staticmethod
    def picture(ssrc: int) -> bytes:
        return vp8_frame(ssrc, key=True, size=5000)


def test_rtx_finds_the_encoding_that_it_names() -> None:
    bench = Layers(SIMULCAST)
    lost = bench.media("h", 3001)
    bench.repeat(lost, "h", 9001)
    assert bench.camera.data == [bench.picture(3001)]
    assert bench.plane.track_counters()["TR_cam"].recovered == 1


def test_rtx_of_another_encoding_is_not_taken_for_that_of_the_one_that_flows() -> None:
    """Its sequence numbers would fit, its contents would not."""
    bench = Layers(SIMULCAST)
    lost = bench.media("h", 3001)
    bench.repeat(lost._replace(payload=b"\x10 of another encoding"), "l", 9002)
    assert bench.camera.data == []
    bench.repeat(lost, "h", 9001)
    assert bench.camera.data == [bench.picture(3001)]


def test_rtx_follows_when_another_encoding_flows() -> None:
    bench = Layers(SIMULCAST)
    lost = bench.media("h", 3001)
    bench.repeat(lost, "h", 9001)
    lost = bench.media("l", 3002, timestamp=90_000)
    bench.repeat(lost, "l", 9002)
    assert bench.camera.data == [bench.picture(3001), bench.picture(3002)]
    lost = bench.media("h", 3003, timestamp=180_000)  # the first one under a new number
    bench.repeat(lost, "h", 9001)
    assert bench.camera.data == [bench.picture(3001), bench.picture(3002), bench.picture(3003)]


def test_rtx_that_names_its_m_line_alone_repairs_what_flows_there() -> None:
    """Neither its SSRC nor an encoding is told (RFC 8852 is for senders of several); beside it flows another camera."""
    other = replace(SIMULCAST, mid="2", track_id="TR_other")
    bench = Layers(SIMULCAST, other)
    lost = bench.media("h", 3001)
    beside = bench.video(bench.picture(4001), sequence=100, timestamp=0, ssrc=4001, mid="2")
    bench.rtp(beside[0], *beside[2:])
    bench.repeat(lost, None, 9001)
    assert bench.camera.data == [bench.picture(3001)]
    assert bench.listener.sinks["TR_other"].data == []
    counters = bench.plane.track_counters()
    assert (counters["TR_cam"].recovered, counters["TR_other"].recovered) == (1, 0)


def test_rtx_that_names_its_m_line_alone_is_dropped_where_nothing_flows() -> None:
    bench = Layers(SIMULCAST)
    lost = bench.video(bench.picture(3001), sequence=100, timestamp=0, ssrc=3001)[1]
    bench.repeat(lost, None, 9001)
    assert bench.plane._router.unrouted == 1
    assert 9001 not in bench.plane._routes
    lost = bench.media("h", 3001)
    bench.repeat(lost, None, 9001)  # once something does, it is found
    assert bench.camera.data == [bench.picture(3001)]


def test_rtx_that_names_an_encoding_repairs_an_announced_source() -> None:
    """Its packets go by their SSRC, so what they name themselves is not looked at."""
    bench = Layers(replace(SIMULCAST, ssrcs=(3001,)))
    lost = bench.media("h", 3001)
    bench.repeat(lost, "h", 9001)
    assert bench.camera.data == [bench.picture(3001)]


def test_nothing_is_asked_for_where_nack_was_not_negotiated() -> None:
    bench = Bench(MICROPHONE)
    bench.rtp(*(bench.audio(b"\xf8", sequence=n, timestamp=n * 960) for n in (0, 2)))
    assert not [packet for packet in bench.tick(30) if packet[1] == 205]


def test_a_reused_m_line_with_a_new_source_is_a_new_track() -> None:
    bench = Bench(CAMERA)
    bench.rtp(*bench.video(vp8_frame(0, key=True), sequence=0, timestamp=0))
    second = replace(CAMERA, track_id="TR_new", ssrcs=(3001,), repair_ssrcs={3002: 3001})
    bench.bind(second)
    bench.rtp(*bench.video(vp8_frame(1, key=True), sequence=7, timestamp=500, ssrc=3001))
    bench.rtp(*bench.video(vp8_frame(2, key=False), sequence=1, timestamp=3000))
    assert bench.camera.data == [vp8_frame(0, key=True)]
    assert bench.listener.sinks["TR_new"].data == [vp8_frame(1, key=True)]
    assert bench.plane.track_counters()["TR_cam"].frames == 1, "totals of an ended track stay"


def test_a_track_with_a_new_source_goes_on_in_the_same_sink() -> None:
    bench = Bench(CAMERA)
    bench.rtp(*bench.video(vp8_frame(0, key=True), sequence=0, timestamp=5000))
    bench.bind(replace(CAMERA, ssrcs=(3001,), repair_ssrcs={}))
    bench.tick()
    bench.tick(1100)
    assert bench.plis() == [3001]
    bench.rtp(*bench.video(vp8_frame(1, key=True), sequence=9000, timestamp=77, ssrc=3001))
    assert bench.camera.sources == [(2001, 5000), (3001, 77)]
    assert bench.camera.frames[1][2] == Flag.KEY | Flag.DISCONTINUITY
    counters = bench.plane.track_counters()["TR_cam"]
    assert (counters.packets, counters.frames) == (2, 2)


def test_an_unannounced_source_is_found_by_its_mid_and_takes_the_track_over() -> None:
    unnamed = replace(CAMERA, ssrcs=(), repair_ssrcs={})
    bench = Bench(unnamed, MICROPHONE)
    bench.rtp(*bench.video(vp8_frame(0, key=True), sequence=0, timestamp=0, ssrc=71, mid="1"))
    bench.rtp(*bench.video(vp8_frame(1, key=True), sequence=0, timestamp=9, ssrc=72, mid="1"))
    assert bench.camera.sources == [(71, 0), (72, 9)]


def test_sources_that_flow_at_once_do_not_take_turns() -> None:
    """An SFU that sends simulcast layers side by side: the last to appear is kept."""
    bench = Bench(replace(CAMERA, ssrcs=(71, 72), repair_ssrcs={}))
    for number in range(4):
        for ssrc in (71, 72):
            frame = vp8_frame(number, key=True)
            bench.rtp(*bench.video(frame, sequence=number, timestamp=number * 3000, ssrc=ssrc))
    assert [ssrc for ssrc, _ in bench.camera.sources] == [71, 72]
    assert len(bench.camera.frames) == 5


def test_an_unannounced_source_is_found_by_a_payload_type_that_is_unique() -> None:
    unnamed = replace(CAMERA, ssrcs=(), repair_ssrcs={})
    bench = Bench(unnamed, MICROPHONE)
    bench.rtp(*bench.video(vp8_frame(0, key=True), sequence=0, timestamp=0, ssrc=71))
    assert len(bench.camera.frames) == 1
    bench = Bench(unnamed, replace(unnamed, mid="2", track_id="TR_other"))
    bench.rtp(*bench.video(vp8_frame(0, key=True), sequence=0, timestamp=0, ssrc=71))
    assert not bench.camera.frames, "two m-lines use it"


def test_what_still_comes_of_a_person_who_left_is_nobody_else_s() -> None:
    """Signalling overtakes media: with two people, one payload type is then left, and it is that of the other one."""
    other = replace(CAMERA, mid="2", track_id="TR_other", ssrcs=(3001,), repair_ssrcs={3002: 3001})
    bench = Bench(CAMERA, other)
    bench.rtp(*bench.video(vp8_frame(0, key=True), sequence=10, timestamp=0))
    bench.rtp(*bench.video(vp8_frame(1, key=True), sequence=90, timestamp=0, ssrc=3001))
    bench.bind(CAMERA)
    bench.rtp(*bench.video(vp8_frame(2, key=True), sequence=200, timestamp=3000, ssrc=3001))
    bench.rtp(*bench.video(vp8_frame(3, key=True), sequence=11, timestamp=3000))
    assert bench.camera.data == [vp8_frame(0, key=True), vp8_frame(3, key=True)]
    assert bench.listener.sinks["TR_other"].data == [vp8_frame(1, key=True)]


def test_what_waited_too_long_for_signalling_makes_room() -> None:
    """Or what came of people who had left would stand in the place of who comes next."""
    bench = Bench(CAMERA)
    bench.rtp(*(bench.audio(b"late", sequence=n, timestamp=n * 960, ssrc=4001) for n in range(MAX_PARKED)))
    bench.tick(3000)
    bench.bind(CAMERA)
    bench.rtp(bench.audio(b"early", sequence=1, timestamp=0))
    bench.bind(CAMERA, MICROPHONE)
    assert bench.microphone.data == [b"early"]


def test_media_that_overtakes_signalling_waits_for_it() -> None:
    bench = Bench(MICROPHONE)
    packets = bench.video(vp8_frame(0, key=True, size=5000), sequence=0, timestamp=0)
    bench.rtp(*packets)
    bench.bind(MICROPHONE, CAMERA)
    assert bench.camera.data == [vp8_frame(0, key=True, size=5000)]


def test_what_waits_for_signalling_is_bounded() -> None:
    bench = Bench()
    for number in range(MAX_PARKED + 50):
        bench.rtp(bench.audio(b"\xf8", sequence=number, timestamp=number, ssrc=5000 + number))
    assert len(bench.plane._router.unpark(bench.now)) == MAX_PARKED
    assert bench.plane._router.unrouted == 50


def test_unwanted_tracks_are_dropped_until_the_listener_changes_its_mind() -> None:
    wants = {"TR_mic"}
    bench = Bench(CAMERA, MICROPHONE, wants=wants)
    bench.rtp(*bench.video(vp8_frame(0, key=True), sequence=0, timestamp=0))
    bench.tick()
    assert bench.plis() == []
    wants.add("TR_cam")
    bench.plane.reconsider(bench.now)
    bench.rtp(*bench.video(vp8_frame(1, key=False), sequence=1, timestamp=3000))
    bench.tick(150)
    assert bench.plis() == [2001]
    bench.rtp(*bench.video(vp8_frame(2, key=True), sequence=2, timestamp=6000))
    assert bench.camera.data == [vp8_frame(2, key=True)]


def test_a_key_frame_whose_parameter_sets_are_lost_is_asked_for_again() -> None:
    """A camera that changes its size sends new ones before that key frame: with those of before it would be nonsense, and called good."""
    h264 = PayloadFormat(CodecInfo("h264", 90_000), CODECS["h264"], pli=True)
    bench = Bench(replace(CAMERA, formats={125: h264}, repairs_of={}, repair_ssrcs={}))
    frames = [frame for frame, _ in video_frames(2, "h264", key_every=1)]
    large = video_frames(1, "h264", 320, 240)[0][0]
    sequence = 0

    def send(frame: bytes, at: int, lost: int = 0) -> None:
        nonlocal sequence
        packets = packetize(
            h264_payloads(frame, 400), payload_type=125, sequence=sequence, timestamp=at * 3000, ssrc=2001
        )
        sequence += len(packets)
        bench.rtp(*packets[lost:])

    send(frames[0], 0)
    sets = next(n for n, payload in enumerate(h264_payloads(large, 400)) if payload[0] & 0x1F in (5, 28))
    send(large, 1, lost=sets)
    bench.tick(500)
    assert bench.plis() == [2001]
    send(large, 2)
    assert [(frame[0], frame[2] & Flag.KEY) for frame in bench.camera.frames] == [(0, Flag.KEY), (6000, Flag.KEY)]
    assert [size[:3] for size in bench.camera.sizes] == [(0, 160, 120), (6000, 320, 240)]


def test_a_film_that_begins_with_parameter_sets_waits_for_nothing_before_them() -> None:
    h264 = PayloadFormat(CodecInfo("h264", 90_000), CODECS["h264"], nack=True)
    bench = Bench(replace(CAMERA, formats={125: h264}, repairs_of={}, repair_ssrcs={}))
    sps, *rest = h264_payloads(video_frames(1, "h264")[0][0], 400)
    assert sps[0] & 0x1F == 7
    bench.rtp(*packetize([sps, *rest], payload_type=125, sequence=0, timestamp=0, ssrc=2001))
    assert len(bench.camera.frames) == 1
    assert not bench.plane.lacks_packets


@pytest.mark.parametrize("flowed", [False, True])
def test_pictures_of_another_source_that_cannot_be_kept_for_want_of_a_key_frame_are_told_to_be_missing(
    flowed: bool,
) -> None:
    bench = Bench(UNANNOUNCED)
    first = 5 * flowed
    for number in range(40):
        frame = vp8_frame(number, key=number in (0, 25) if flowed else number == 25)
        ssrc = 1 if number < first else 2
        bench.rtp(*bench.video(frame, sequence=number, timestamp=number * 3000, ssrc=ssrc, mid="3"))
    bench.tick(200)
    flags = {frame[0] // 3000: frame[2] & Flag.AFTER_GAP for frame in bench.camera.frames}
    assert list(flags) == [*range(first), *range(25, 40)]
    assert [number for number, flag in flags.items() if flag] == ([25] if flowed else [])


UNANNOUNCED = MediaLine("3", "TR_cam", MediaKind.VIDEO, {96: VP8}, {97: 96})
"""An SFU may name the m-line in each packet instead of the source in its description."""


@pytest.mark.parametrize("ends", [False, True])
def test_an_unannounced_source_that_was_not_wanted_for_a_while_is_taken_again(ends: bool) -> None:
    """Of an SFU that goes on with the same source: a pause, or a disk that was nearly full, is not for ever."""
    wants = {"TR_cam"}
    bench = Bench(UNANNOUNCED, wants=wants)

    def key_frame(number: int) -> None:
        frame = vp8_frame(number, key=True)
        bench.rtp(*bench.video(frame, sequence=number, timestamp=number * 3000, ssrc=77, mid="3"))

    key_frame(0)
    wants.clear()
    bench.plane.forget_track("TR_cam", bench.now)
    key_frame(1)
    wants.add("TR_cam")
    if ends:
        bench.bind()
        bench.bind(UNANNOUNCED)
    else:
        bench.plane.reconsider(bench.now)
    key_frame(2)
    assert bench.camera.data == [vp8_frame(0, key=True), vp8_frame(2, key=True)]


@pytest.mark.parametrize("announced", [True, False])
def test_a_stream_that_another_one_takes_over_from_takes_its_repeats_with_it(announced: bool) -> None:
    line = CAMERA if announced else UNANNOUNCED
    bench = Bench(line)
    mid = "" if announced else "3"
    (first,) = bench.video(vp8_frame(0, key=True), sequence=0, timestamp=0, ssrc=2001, mid=mid)
    bench.rtp(first)
    repeat = Packet(97, 0, 3000, 2002, True, {4: mid.encode()} if mid else {}, b"\0\1" + first.payload)
    bench.rtp(repeat)
    assert len(bench.camera.frames) == 2, "a repeat of what was never missed is as good as any"
    bench.bind(replace(line, ssrcs=(2003,), repair_ssrcs={2004: 2003}))
    bench.rtp(*bench.video(vp8_frame(1, key=True), sequence=0, timestamp=0, ssrc=2003))
    assert len(bench.camera.frames) == 3
    bench.rtp(repeat._replace(sequence=1, payload=b"\0\2" + first.payload, extensions={}))
    assert len(bench.camera.frames) == 3
    totals = bench.plane.totals_of("TR_cam")
    assert totals == bench.plane.track_counters()["TR_cam"]
    assert totals is not None
    assert totals.packets == 2
    assert bench.plane.totals_of("TR_else") is None


def test_sources_of_tracks_that_ended_leave_room_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources that another one took over from, on m-lines that come and go all day."""
    monkeypatch.setattr("isotrack_recorder.rtp.router.MAX_SSRCS", 8)
    bench = Bench()
    for number in range(20):
        line = replace(UNANNOUNCED, track_id=f"TR_{number}")
        bench.bind(line)
        for ssrc in (100 + 2 * number, 101 + 2 * number):
            bench.rtp(*bench.video(vp8_frame(ssrc, key=True), sequence=0, timestamp=0, ssrc=ssrc, mid="3"))
        assert len(bench.listener.sinks[line.track_id].frames) == 2


def test_a_forgotten_track_gets_what_was_held_and_nothing_more() -> None:
    wants = {"TR_mic"}
    bench = Bench(MICROPHONE, wants=wants)
    bench.rtp(*(bench.audio(b"\xf8", sequence=n, timestamp=n * 960) for n in (0, 1, 3)))
    assert len(bench.microphone.frames) == 2
    wants.clear()
    bench.plane.forget_track("TR_mic", bench.now)
    assert len(bench.microphone.frames) == 3
    bench.rtp(bench.audio(b"\xf8", sequence=4, timestamp=4 * 960))
    bench.bind(MICROPHONE)
    bench.rtp(bench.audio(b"\xf8", sequence=5, timestamp=5 * 960))
    assert len(bench.microphone.frames) == 3
    assert bench.plane.track_counters()["TR_mic"].packets == 3


def test_sender_reports_are_placed_on_the_extended_clock() -> None:
    bench = Bench(MICROPHONE)
    base = 2**32 - 480
    bench.plane.rtcp(sender_report(1001, 111, base), bench.now)
    for step in range(3):
        bench.rtp(bench.audio(b"\xf8", sequence=step, timestamp=base + 960 * step))
    bench.plane.rtcp(sender_report(1001, 222, base + 960), bench.now)
    bench.plane.rtcp(sender_report(1001, 333, base + 96000), bench.now)
    assert [report[:2] for report in bench.microphone.reports] == [
        (111, base),
        (222, base + 960),
        (333, base + 96000),
    ]
    assert bench.microphone.sources == [(1001, base)]


@pytest.mark.parametrize(
    ("step", "pause_ms", "jumped"),
    [
        pytest.param(960, 20, False, id="steady"),
        pytest.param(960 * 50 * 60, 60_000, False, id="silence of a minute that the clock counted"),
        pytest.param(960, 3_000, False, id="network stall"),
        pytest.param(960, 60_000, True, id="clock stood still for a minute"),
        pytest.param(48_000 * 30, 20, True, id="jump ahead"),
        pytest.param(-48_000, 20, True, id="jump back"),
    ],
)
def test_a_new_timestamp_base_is_told_from_a_pause(step: int, pause_ms: int, jumped: bool) -> None:
    bench = Bench(MICROPHONE)
    bench.rtp(bench.audio(b"\xf8", sequence=0, timestamp=100_000))
    bench.now += (pause_ms - 1) * MS
    bench.rtp(bench.audio(b"\xf8", sequence=1, timestamp=100_000 + step))
    timestamp, _, flags, _ = bench.microphone.frames[1]
    assert timestamp == 100_000 + step
    assert bool(flags & Flag.DISCONTINUITY) is jumped
    assert len(bench.microphone.sources) == 1 + jumped


def test_filler_of_the_sfu_is_dropped_and_counted() -> None:
    bench = Bench(CAMERA, MICROPHONE)
    silence = b"\xf8\xff\xfe" + bytes(77)
    for number, payload in enumerate([b"\xf8\xff\xfe", silence, silence, silence + b"\x00"]):
        bench.rtp(bench.audio(payload, sequence=number, timestamp=number * 960))
    assert bench.microphone.data == [b"\xf8\xff\xfe", silence + b"\x00"]
    bench.rtp(*bench.video(vp8_frame(0, key=True), sequence=0, timestamp=0))
    bench.rtp(*bench.video(vp8_frame(1, key=True, width=8, height=8), sequence=1, timestamp=3000))
    assert len(bench.camera.frames) == 1
    assert bench.camera.sizes == [(0, 640, 360, 0)]
    counters = bench.plane.track_counters()
    assert (counters["TR_mic"].filler, counters["TR_cam"].filler) == (2, 1)


def test_picture_size_and_rotation_are_told_when_they_change() -> None:
    bench = Bench(CAMERA)
    for number, (width, turn, key) in enumerate([(640, 0, True), (640, 1, False), (320, 1, True), (320, 1, True)]):
        frame = vp8_frame(number, key=key, width=width)
        packets = bench.video(frame, sequence=number, timestamp=number * 3000)
        bench.rtp(*(packet._replace(extensions={6: bytes([turn])}) for packet in packets))
    assert bench.camera.sizes == [(0, 640, 360, 0), (3000, 640, 360, 90), (6000, 320, 360, 90)]
    assert bench.plane.track_counters()["TR_cam"].size_changes == 2


class Turning(Bench):
    """A camera whose frames are of three packets each; the last one says how the picture is turned, where it says so."""

    def __init__(self) -> None:
        super().__init__(CAMERA)
        self.rtp(*self.picture(0, 0, key=True))

    def picture(self, number: int, turn: int | None = None, *, key: bool = False) -> list[Packet]:
        packets = self.video(vp8_frame(number, key=key, size=3000), sequence=3 * number, timestamp=3000 * number)
        assert len(packets) == 3
        if turn is not None:
            packets[2] = packets[2]._replace(extensions={6: bytes([turn])})
        return packets

    def repeat(self, *lost: Packet) -> None:
        for number, packet in enumerate(lost):
            original = struct.pack("!H", packet.sequence) + packet.payload
            self.rtp(packet._replace(payload_type=97, ssrc=2002, sequence=number, payload=original))

    @property
    def turns(self) -> list[tuple[int, int]]:
        """From which frame on the picture is turned by how many degrees."""
        return [(timestamp // 3000, rotation) for timestamp, _, _, rotation in self.camera.sizes]


def test_a_turn_whose_packet_is_lost_comes_with_its_repeat() -> None:
    """An SFU says it once and with key frames: what is not taken from the repeat is wrong until the next one."""
    bench = Turning()
    first, second, last = bench.picture(1, 1)
    bench.rtp(first, second, *bench.picture(2))
    bench.repeat(last)
    bench.rtp(*bench.picture(3))
    assert len(bench.camera.frames) == 4
    assert bench.turns == [(0, 0), (1, 90)]


def test_a_turn_behind_a_hole_is_that_of_its_frame() -> None:
    bench = Turning()
    first, second, last = bench.picture(1)
    bench.rtp(first, last, *bench.picture(2), *bench.picture(3, 1), *bench.picture(4), *bench.picture(5, 3))
    assert bench.turns == [(0, 0)]
    bench.repeat(second)
    assert len(bench.camera.frames) == 6
    assert bench.turns == [(0, 0), (3, 90), (5, 270)]


def test_a_turn_back_behind_a_lost_turn_is_kept_though_it_changes_nothing_yet() -> None:
    bench = Turning()
    first, second, last = bench.picture(1, 1)
    bench.rtp(first, second, *bench.picture(2), *bench.picture(3, 0))
    bench.repeat(last)
    bench.rtp(*bench.picture(4))
    assert bench.turns == [(0, 0), (1, 90), (3, 0)]


def test_a_turn_of_a_frame_that_is_given_up_holds_for_those_behind_it() -> None:
    bench = Turning()
    _, second, last = bench.picture(1, 2)
    bench.rtp(second, last, *bench.picture(2))
    bench.tick(600)
    assert len(bench.camera.frames) == 2
    assert bench.turns == [(0, 0), (2, 180)]


def test_a_repeat_of_an_older_turn_does_not_undo_a_newer_one() -> None:
    bench = Turning()
    old = bench.picture(1, 1)
    bench.rtp(*old, *bench.picture(2, 2))
    bench.repeat(old[2])
    bench.rtp(*bench.picture(3))
    assert bench.turns == [(0, 0), (1, 90), (2, 180)]


def test_turns_of_frames_that_never_come_are_bounded_and_forgotten() -> None:
    bench = Turning()
    stray = [packet._replace(timestamp=packet.timestamp + 1) for n in range(2, 202) for packet in bench.picture(n, 1)]
    bench.rtp(*stray)
    assert len(bench.plane._streams[2001].assembler._turns) <= MAX_TURNS
    bench.rtp(*bench.picture(1))  # what was missing: now all goes on
    bench.tick(600)
    bench.rtp(*bench.picture(202, 0))
    assert not bench.plane._streams[2001].assembler._turns
    assert bench.turns[-1] == (202, 0)


def test_a_turn_holds_where_the_sender_begins_a_new_clock() -> None:
    """A frame of one packet: its turn is read before the new clock is known."""
    bench = Turning()
    bench.rtp(*bench.picture(1, 1))
    again = bench.video(vp8_frame(2, key=True, size=500), sequence=6, timestamp=2**31 + 7)
    bench.rtp(*(packet._replace(extensions={6: b"\x00"}) for packet in again))
    assert [rotation for *_, rotation in bench.camera.sizes] == [0, 90, 0]


def test_loudness_is_told_once_a_second_and_at_the_end() -> None:
    bench = Bench(MICROPHONE)
    octets = [0x80 | 20, 0x80 | 30, 100, 127]  # two packets of speech, two of silence
    for number in range(60):
        packet = bench.audio(b"\xf8\xff\xfe", sequence=number, timestamp=number * 960)
        bench.rtp(packet._replace(extensions={7: bytes([octets[number % 4]])}))
        bench.tick(19)
    assert [row[1:] for row in bench.microphone.loudness] == [(50, 20, 67, 26)]
    bench.plane.flush(bench.now)
    assert [row[1:] for row in bench.microphone.loudness][1:] == [(10, 20, 78, 4)]


def test_loudness_of_a_picture_or_of_no_octet_means_nothing() -> None:
    bench = Bench(CAMERA, MICROPHONE)
    for number in range(3):
        bench.now += SECOND
        bench.rtp(
            *(
                p._replace(extensions={7: b"\x80"})
                for p in bench.video(vp8_frame(number, key=True), sequence=number, timestamp=number)
            )
        )
        bench.rtp(bench.audio(b"\xf8", sequence=number, timestamp=number * 960)._replace(extensions={7: b""}))
    bench.plane.flush(bench.now)
    assert bench.camera.loudness == bench.microphone.loudness == []
    assert bench.plane.counters.malformed == 0


def test_a_payload_type_change_starts_a_codec_anew() -> None:
    h264 = PayloadFormat(CodecInfo("h264", 90_000), CODECS["h264"], nack=True, pli=True)
    bench = Bench(replace(CAMERA, formats={96: VP8, 125: h264}))
    bench.rtp(*bench.video(vp8_frame(0, key=True), sequence=0, timestamp=0))
    bench.tick(2000)
    slice_of_p = Packet(125, 1, 180_000, 2001, True, {}, b"\x41\x9a\x00")
    bench.rtp(slice_of_p)
    bench.tick()
    assert bench.plis() == [2001]
    sps = bytes.fromhex("6742c01fd9005005bb011000000300100000030320f1832480")
    parts = [sps, b"\x68\xcb\x83\xcb\x20", b"\x65\x88\x84\x00"]
    bench.rtp(
        *(Packet(125, 2 + n, 183_000, 2001, n == 2, {}, part) for n, part in enumerate(parts)),
        Packet(13, 5, 183_000, 2001, True, {}, b"unknown payload type"),
    )
    assert [codec.name for codec in bench.camera.codecs] == ["vp8", "h264"]
    assert bench.camera.data[1] == b"".join(b"\0\0\0\1" + part for part in parts)
    assert bench.camera.frames[1][2] & Flag.DISCONTINUITY


def test_padding_packets_fill_numbers_and_are_no_frames() -> None:
    bench = Bench(CAMERA)
    bench.rtp(*bench.video(vp8_frame(0, key=True), sequence=0, timestamp=0))
    padding = build_packet(Packet(96, 1, 0, 2001, True, {}, b""), padding=200)
    bench.plane.rtp(padding, 0, len(padding), bench.now)
    bench.rtp(*bench.video(vp8_frame(1, key=False), sequence=2, timestamp=3000))
    assert len(bench.camera.frames) == 2
    assert not bench.camera.gaps


@given(
    sources=st.integers(0, 15),
    extension=st.none() | st.integers(0, 6),
    padding=st.integers(0, 20),
    payload=st.binary(min_size=1, max_size=40),
    cut=st.integers(0, 30),
)
def test_reading_in_place_agrees_with_parse_packet(
    sources: int, extension: int | None, padding: int, payload: bytes, cut: int
) -> None:
    """Contributing sources, extensions and padding, whole or cut: the payload is parse_packet's or there is none."""
    first = 0x80 | sources | (0x10 if extension is not None else 0) | (0x20 if padding else 0)
    data = struct.pack("!BBHLL", first, 111, 5, 960, 1001) + bytes(4 * sources)
    if extension is not None:
        data += struct.pack("!HH", 0xBEDE, extension) + bytes(4 * extension)
    data += payload + (bytes(padding - 1) + bytes([padding]) if padding else b"")
    data = data[: max(12, len(data) - cut)]
    bench = Bench(MICROPHONE)
    arena = bytearray(b"\xff" * 7) + data + b"\xff" * 80
    bench.plane.rtp(arena, 7, 7 + len(data), bench.now)
    try:
        expected = [parse_packet(data).payload] if parse_packet(data).payload else []
    except ParseError:
        expected = []
    sinks = bench.listener.sinks
    assert sinks["TR_mic"].data == expected
    if not expected:
        assert bench.plane.counters.malformed == (0 if _parses(data) else 1)


def _parses(data: bytes) -> bool:
    try:
        parse_packet(data)
    except ParseError:
        return False
    return True


def test_a_sink_that_fails_stops_its_own_stream_at_most() -> None:
    bench = Bench(CAMERA, MICROPHONE)

    def fail(*_: object) -> None:
        raise RuntimeError("sink")

    bench.listener.sinks["TR_cam"].frame = fail  # type: ignore[method-assign, assignment]
    bench.rtp(*bench.video(vp8_frame(0, key=True), sequence=0, timestamp=0))
    bench.rtp(*bench.video(vp8_frame(1, key=True), sequence=2, timestamp=3000))
    bench.rtp(bench.audio(b"\xf8", sequence=0, timestamp=0))
    bench.tick(600)
    bench.plane.flush(bench.now)
    assert len(bench.microphone.frames) == 1
    assert bench.plane.counters.malformed == 2


def test_one_bad_source_does_not_stop_the_others() -> None:
    bench = Bench(CAMERA, MICROPHONE)
    rng = random.Random(5)
    for number in range(200):
        junk = bytearray(struct.pack("!BBHLL", 0xBF, 96, number, number, 2001) + rng.randbytes(rng.randrange(60)))
        bench.plane.rtp(junk, 0, len(junk), bench.now)
        bench.rtp(Packet(96, number + 1000, number * 3000, 2001, True, {}, b"\x90"))
        bench.rtp(bench.audio(b"\xf8", sequence=number, timestamp=number * 960))
    assert len(bench.microphone.frames) == 200
    assert bench.plane.counters.malformed > 0


def test_reports_estimate_and_transport_feedback_go_out_in_time() -> None:
    bench = Bench(CAMERA, MICROPHONE)
    packets = bench.video(vp8_frame(0, key=True, size=3000), sequence=0, timestamp=0)
    bench.rtp(
        *(packet._replace(extensions={5: struct.pack("!H", 65535 + n & 0xFFFF)}) for n, packet in enumerate(packets))
    )
    kinds = [(packet[0] & 0x1F, packet[1]) for packet in bench.tick()]
    assert (1, 201) in kinds, "RR"
    assert (15, 206) in kinds, "REMB"
    assert (15, 205) in kinds, "TWCC"
    assert bench.tick(10) == []
    assert [(packet[0] & 0x1F, packet[1]) for packet in bench.tick(1000)] == [(1, 201), (15, 206)]


def test_a_bye_gives_what_is_held() -> None:
    bench = Bench(MICROPHONE)
    bench.rtp(*(bench.audio(b"\xf8", sequence=n, timestamp=n * 960) for n in (0, 2)))
    bench.plane.rtcp(struct.pack("!BBHL", 0x81, 203, 1, 1001), bench.now)
    assert len(bench.microphone.frames) == 2


@settings(max_examples=200)
@given(st.lists(st.tuples(st.sampled_from([2001, 2002, 1001, 77]), st.binary(max_size=80)), max_size=30))
def test_hostile_packets_never_raise(packets: list[tuple[int, bytes]]) -> None:
    bench = Bench(CAMERA, MICROPHONE)
    for ssrc, junk in packets:
        head = bytes([0x80 | junk[0] & 0x3F]) if junk else b"\x80"
        body = head + junk[1:8].ljust(7, b"\x60") + struct.pack("!L", ssrc) + junk[8:]
        bench.now += MS
        bench.plane.rtp(body, 0, len(body), bench.now)
        bench.plane.rtcp(junk, bench.now)
        bench.tick()
    bench.plane.flush(bench.now)


def test_reading_pauses_briefly_while_packets_are_missing_and_for_a_time_after() -> None:
    bench = Bench(MICROPHONE)
    bench.plane.bind([MICROPHONE], ExtensionIds(), bench.now)
    pauses = []
    for number, wait in ((0, 0), (2, 0), (3, 300), (4, 1000), (5, 10_000)):
        bench.now += wait * MS
        bench.rtp(bench.audio(b"\xf8", sequence=number, timestamp=number * 960))
        pauses.append(bench.plane.tick(bench.now, bench.sent.append))
    assert pauses == [CALM_WAIT_NS, ALERT_WAIT_NS, ALERT_WAIT_NS, ALERT_WAIT_NS, CALM_WAIT_NS]


def test_transport_wide_feedback_keeps_reading_frequent() -> None:
    bench = Bench(MICROPHONE)
    assert bench.plane.tick(bench.now, bench.sent.append) == FEEDBACK_WAIT_NS


def test_a_batch_is_what_its_packets_are_one_by_one() -> None:
    """Padding, extensions, an unknown source and a broken packet among whole ones."""
    bench, other = Bench(CAMERA, MICROPHONE), Bench(CAMERA, MICROPHONE)
    packets = [
        *bench.video(vp8_frame(0, key=True, size=3000), sequence=7, timestamp=90, mid="1"),
        bench.audio(b"\xf8", sequence=3, timestamp=960),
        bench.audio(b"\xf8\x01", sequence=4, timestamp=1920),
        Packet(80, 1, 1, 999, False, {}, b"x"),
    ]
    written = [build_packet(packet, padding=4 * (index % 2)) for index, packet in enumerate(packets)]
    written.insert(3, b"\xb0" + written[0][1:12])  # says that it has extensions and ends
    arrivals = range(bench.now, bench.now + len(written))
    bench.batch(written, arrivals)
    for data, arrival in zip(written, arrivals):
        other.plane.rtp(data, 0, len(data), arrival)
    assert bench.camera.frames == other.camera.frames != []
    assert bench.listener.sinks["TR_mic"].frames == other.listener.sinks["TR_mic"].frames != []
    assert bench.plane.counters == other.plane.counters
    assert bench.plane.counters.malformed == 1


@given(data=st.data())
def test_any_batch_is_what_its_packets_are_one_by_one(data: st.DataObject) -> None:
    """Whatever is lost, repeated, overtaken or mixed up between pictures and sound, and however the packets are cut into batches."""
    bench, other = Bench(CAMERA, MICROPHONE), Bench(CAMERA, MICROPHONE)
    start = data.draw(st.sampled_from([0, 1, 1000, 65_500, 65_535]))
    packets: list[Packet] = []
    for number in range(data.draw(st.integers(1, 8))):
        frame = vp8_frame(number, key=number % 4 == 0, size=data.draw(st.integers(30, 400)))
        payloads = vp8_packets(frame, picture_id=number, size=60)
        sequence = start + sum(packet.ssrc == 2001 for packet in packets)
        packets += packetize(payloads, payload_type=96, sequence=sequence, timestamp=3000 * number, ssrc=2001)
        packets.append(bench.audio(b"\xf8" + bytes([number]), sequence=start + number, timestamp=960 * number))
    for _ in range(data.draw(st.integers(0, 6))):
        index = data.draw(st.integers(0, len(packets) - 1))
        packet = packets[index]
        spoiled = data.draw(st.sampled_from(["lost", "twice", "late", "early", "bare", "endless", "other"]))
        if spoiled == "lost" and len(packets) > 1:
            del packets[index]
        elif spoiled == "twice":
            packets.insert(index, packet)
        elif spoiled in ("late", "early"):
            packets.insert(data.draw(st.integers(0, len(packets) - 1)), packets.pop(index))
        elif spoiled == "bare":
            packets[index] = packet._replace(payload=b"")
        elif spoiled == "endless":
            packets[index] = packet._replace(marker=not packet.marker)
        elif spoiled == "other":
            packets[index] = packet._replace(payload_type=data.draw(st.sampled_from([96, 97, 111, 50])))
    written = [build_packet(packet, padding=data.draw(st.sampled_from([0, 0, 0, 4]))) for packet in packets]
    arrival = bench.now + MS
    for datagram in written:
        other.plane.rtp(datagram, 0, len(datagram), arrival)
    while written:
        most = data.draw(st.integers(1, len(written)))
        batch, written = written[:most], written[most:]
        bench.batch(batch, [arrival] * most)
    for one in (bench, other):
        one.tick(600)
        one.plane.flush(one.now)
    for track_id, sink in bench.listener.sinks.items():
        assert vars(sink) == vars(other.listener.sinks[track_id]) | {"changed": sink.changed}
    assert bench.plane.counters == other.plane.counters
    assert bench.plane.track_counters() == other.plane.track_counters()


def test_a_source_that_takes_over_amid_a_batch_costs_nothing_of_the_one_before() -> None:
    """However mixed with sound: packets of different sources are put together only where all of them are known."""
    bench = Bench(replace(CAMERA, ssrcs=(), repair_ssrcs={}), MICROPHONE)
    bench.rtp(*bench.video(vp8_frame(0, key=True), sequence=0, timestamp=0, ssrc=9000, mid="1"))
    packets: list[Packet] = []
    for number in range(1, 12):
        ssrc = 9000 if number < 6 else 5
        frame = vp8_frame(number, key=number == 6)
        packets += bench.video(frame, sequence=number, timestamp=3000 * number, ssrc=ssrc, mid="1")
        packets.append(bench.audio(b"\xf8" + bytes([number]), sequence=number, timestamp=960 * number))
    written = [build_packet(packet) for packet in packets]
    bench.batch(written, [bench.now + MS] * len(written))
    assert bench.camera.data == [vp8_frame(number, key=number in (0, 6)) for number in range(12)]
    assert len(bench.microphone.frames) == 11
