"""Packets: RTP, header extensions, RTCP, and the whole plane from datagram to frame."""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from fuzz.harness import Harness, parts
from isotrack_api.base import MediaKind
from isotrack_recorder.codecs.registry import CODECS
from isotrack_recorder.errors import ParseError
from isotrack_recorder.media import CodecInfo
from isotrack_recorder.rtp.feedback import FeedbackSettings
from isotrack_recorder.rtp.lines import ExtensionIds, MediaLine, PayloadFormat
from isotrack_recorder.rtp.packet import HEADER, build_packet, iterate_extensions, parse_packet
from isotrack_recorder.rtp.plane import Plane
from isotrack_recorder.rtp.rtcp import Bye, Dlrr, ReferenceTime, SenderReport, parse_compound
from isotrack_recorder.spool.records import MAX_FRAME_BYTES

_MS = 1_000_000


def harnesses() -> Iterator[Harness]:
    """All of this module."""
    yield Harness("rtp", fuzz_rtp, max_bytes=1500)
    yield Harness("rtp-extensions", fuzz_extensions, max_bytes=300)
    yield Harness("rtcp", fuzz_rtcp, max_bytes=1500)
    yield Harness("plane", fuzz_plane, share=0.2)


def fuzz_rtp(data: bytes) -> None:
    """What parses is within its datagram, and survives being written and parsed again."""
    try:
        packet = parse_packet(data)
    except ParseError:
        return
    assert len(packet.payload) <= len(data) - HEADER.size
    assert sum(map(len, packet.extensions.values())) <= len(data)
    assert parse_packet(build_packet(packet)) == packet
    assert parse_packet(build_packet(packet, padding=7)) == packet


def fuzz_extensions(data: bytes) -> None:
    """No extension reaches beyond the packet, wherever that lies in a receive buffer."""
    if len(data) < HEADER.size + 1:
        return
    start = data[0] % 32
    packet = data[1:]
    arena = bytes(start) + packet + b"\xff" * 64
    end = start + len(packet)
    for number, at, size in iterate_extensions(arena, start, end):
        assert 0 < number < 256
        assert size >= 0
        assert start + HEADER.size < at
        assert at + size <= end


def fuzz_rtcp(data: bytes) -> None:
    """A compound yields no more than it has room for."""
    reports = byes = times = delays = 0
    for packet in parse_compound(data):
        if isinstance(packet, SenderReport):
            reports += 1
            assert 0 <= packet.ntp < 1 << 64
        elif isinstance(packet, Bye):
            assert len(packet.ssrcs) <= 31
            byes += 1
        elif isinstance(packet, ReferenceTime):
            assert 0 <= packet.ntp < 1 << 64
            times += 1
        else:
            assert isinstance(packet, Dlrr)
            delays += 1
    assert 28 * reports + 4 * byes + 12 * times + 12 * delays <= len(data)


# -- the plane ---------------------------------------------------------------------------------------------------------

_AUDIO = [name for name, spec in CODECS.items() if spec.kind is MediaKind.AUDIO]
_VIDEO = [name for name, spec in CODECS.items() if spec.kind is MediaKind.VIDEO]
_EXTENSIONS = ExtensionIds(mid=1, transport_cc=3, orientation=4, audio_level=5, rid=6, repaired_rid=7)
_HEAD = struct.Struct("!BBbhB")
"""What a packet operation begins with: line, payload type, steps of sequence number and timestamp, flags."""


def _line(index: int, kind: MediaKind, names: list[str]) -> MediaLine:
    formats = {
        96 + number: PayloadFormat(CodecInfo(name, CODECS[name].clock_rate), CODECS[name], nack=True, pli=True, remb=True)
        for number, name in enumerate(names)
    }  # fmt: skip
    ssrc = 1000 * (index + 1)
    repairs = {payload_type + 15: payload_type for payload_type in formats}
    announced = {} if index == 2 else {"ssrcs": (ssrc,), "repair_ssrcs": {ssrc + 1: ssrc}}
    return MediaLine(str(index), f"TR_{index}", kind, formats, repairs, measures=index > 0, **announced)  # type: ignore[arg-type]


_LINES = (
    _line(0, MediaKind.AUDIO, _AUDIO),
    _line(1, MediaKind.VIDEO, _VIDEO),
    _line(2, MediaKind.VIDEO, _VIDEO[::-1]),  # announces no SSRC: found by its MID
)


@dataclass
class _Sink:
    """Takes frames and checks what a spool relies on."""

    codecs: int = 0
    sources: int = 0
    taken: int = 0

    def codec(self, codec: CodecInfo) -> None:
        assert codec.name in CODECS
        self.codecs += 1

    def source_changed(self, ssrc: int, timestamp: int) -> None:
        assert self.codecs, "the codec comes before its source"
        assert -(1 << 62) < timestamp < 1 << 62
        self.sources += 1

    def frame(self, timestamp: int, arrival_ns: int, flags: int, data: bytes) -> None:
        assert self.sources, "the source comes before its frames"
        assert type(data) is bytes
        assert 0 < len(data) <= MAX_FRAME_BYTES
        assert -(1 << 62) < timestamp < 1 << 62
        assert arrival_ns >= 0
        assert 0 <= flags < 1 << 16
        self.taken += len(data)

    def gap(self, packets: int, after: int, before: int, at_ns: int) -> None:
        assert packets > 0

    def size(self, timestamp: int, width: int, height: int, rotation: int) -> None:
        assert 0 < width <= 65536
        assert 0 < height <= 65536
        assert rotation in (0, 90, 180, 270)

    def levels(self, at_ns: int, packets: int, loudest: int, mean: int, voiced: int) -> None:
        assert 0 <= loudest <= mean <= 127
        assert 0 <= voiced <= packets
        assert packets

    def sender_report(self, ntp: int, timestamp: int, arrival_ns: int) -> None:
        assert self.sources


@dataclass
class _Listener:
    sinks: dict[str, _Sink] = field(default_factory=dict)
    wanted: bool = True

    def open_track(self, track_id: str, kind: MediaKind) -> _Sink | None:
        return self.sinks.setdefault(track_id, _Sink()) if self.wanted else None

    def track_unsupported(self, track_id: str, kind: MediaKind, offered: str) -> None:
        raise AssertionError("the plane does not negotiate")


class _Caught(logging.Handler):
    """The plane survives a defect of a stream and logs it: here that is a finding."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.error: BaseException | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and self.error is None:
            self.error = record.exc_info[1]


_caught = _Caught()
logging.getLogger("isotrack_recorder.rtp.plane").addHandler(_caught)
logging.getLogger("isotrack_recorder.rtp.plane").propagate = False


def fuzz_plane(data: bytes) -> None:
    """A sequence of datagrams, ticks and changes: nothing fails, frames are whole, feedback is well-formed."""
    _caught.error = None
    listener = _Listener()
    plane = Plane(listener, FeedbackSettings(), 60 * _MS, 250 * _MS)
    now = 1_000 * _MS
    plane.bind(_LINES, _EXTENSIONS, now)
    clocks = [[65_530, 0xFFFF_F000] for _ in _LINES]
    for operation, _ in parts(data):
        if not operation:
            continue
        now += (operation[0] >> 4) * 7 * _MS
        _operate(plane, listener, operation[0] & 15, operation[1:], clocks, now)
        if _caught.error is not None:
            raise _caught.error
        plane.tick(now, _check_feedback)
    plane.flush(now)
    if _caught.error is not None:
        raise _caught.error
    total = sum(sink.taken for sink in listener.sinks.values())
    assert total <= 64 * len(data) + 4096, f"{len(data)} bytes became {total}"
    plane.track_counters()


def _operate(plane: Plane, listener: _Listener, kind: int, body: bytes, clocks: list[list[int]], now: int) -> None:
    if kind < 10:
        packet = _packet(body, clocks, repair=kind == 9)
        if len(packet) >= HEADER.size:
            arena = bytearray(b"\xee" * 3 + packet + b"\xee" * 5)
            plane.rtp(arena, 3, 3 + len(packet), now)
    elif kind == 10:
        if len(body) >= HEADER.size:
            plane.rtp(body, 0, len(body), now)
    elif kind == 11:
        plane.rtcp(body, now)
    elif kind == 12:
        ssrc = 1000 * (1 + (body[0] if body else 0) % len(_LINES))
        plane.rtcp(struct.pack("!BBHL", 0x80, 200, 6, ssrc) + body[:20].ljust(20, b"\0"), now)
    elif kind == 13:
        chosen = body[0] if body else 0
        plane.bind([line for index, line in enumerate(_LINES) if chosen >> index & 1], _EXTENSIONS, now)
    elif kind == 14:
        listener.wanted = bool(body and body[0] & 1)
        plane.forget_track(f"TR_{(body[0] >> 1) % 3 if body else 0}", now)
        plane.reconsider(now)
    else:
        plane.request_key_frame("TR_1")
        plane.flush(now)


def _packet(body: bytes, clocks: list[list[int]], *, repair: bool) -> bytes:
    """A packet of one line: the input says how sequence number and timestamp go on, and what follows the header."""
    if len(body) < _HEAD.size:
        return b""
    line, payload_type, step, ticks, flags = _HEAD.unpack_from(body)
    index = line % len(_LINES)
    clock = clocks[index]
    clock[0] = (clock[0] + step) & 0xFFFF
    clock[1] = (clock[1] + ticks * (1 + (flags >> 4) * 40)) & 0xFFFFFFFF
    rest = body[_HEAD.size :]
    payload_type = 96 + payload_type % 4
    if repair:
        payload_type += 15
        rest = struct.pack("!H", clock[0]) + rest
    extension = b"\xbe\xde\x00\x01" + bytes((0x10, 0x30 + index, 0, 0)) if flags & 2 or index == 2 else b""
    first = 0x80 | (0x10 if extension or flags & 4 else 0) | (0x20 if flags & 8 else 0)
    head = HEADER.pack(first, (flags & 1) << 7 | payload_type, clock[0], clock[1], 1000 * (index + 1) + repair)
    return head + extension + rest


def _check_feedback(packet: bytes) -> None:
    """A compound is a whole number of packets and fits one datagram."""
    assert len(packet) <= 1300
    at = 0
    while at < len(packet):
        first, _, words = struct.unpack_from("!BBH", packet, at)
        assert first >> 6 == 2
        at += 4 + 4 * words
    assert at == len(packet)
