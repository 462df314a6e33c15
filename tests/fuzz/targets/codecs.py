"""Depacketizers, one harness per codec of the registry, and the parsers of what frames hold."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from fuzz.harness import Harness, parts
from isotrack_recorder.codecs.base import CodecSpec, Depacketizer, Octets
from isotrack_recorder.codecs.h264_sps import MAX_PIXELS, picture_size
from isotrack_recorder.codecs.opus import MAX_PACKET_SAMPLES, packet_samples
from isotrack_recorder.codecs.registry import CODECS
from isotrack_recorder.errors import ParseError
from isotrack_recorder.matroska.codec_private import length_prefixed, nal_units
from isotrack_recorder.matroska.codec_private_video import VIDEO_FORMS, VideoForm

MAX_KEPT = 256 * 1024
"""What a depacketizer may add to a frame of what it remembers (parameter sets)."""
MAX_PRIVATE = 14 * 1024
"""The head of a file, 16 KiB, must hold it."""
_START_CODES = (
    b"\0\0\1",
    b"\0\0\0\1",
    b"\0\0\3",
    b"\0\0\1\x67",
    b"\0\0\1\x68",
    b"\0\0\1\x40\1",
    b"\0\0\1\x42\1",
    b"\0\0\1\x44\1",
)


def harnesses() -> Iterator[Harness]:
    """All of this module."""
    for name, spec in CODECS.items():
        yield Harness(f"codec-{name}", partial(fuzz_depacketizer, spec))
    for name, form in VIDEO_FORMS.items():
        if form != VideoForm():  # VP8 has nothing to read
            yield Harness(f"private-{name}", partial(fuzz_private, form), tokens=_START_CODES)
    yield Harness("h264-sps", fuzz_sps, max_bytes=256)
    yield Harness("annex-b", fuzz_annex_b, tokens=_START_CODES)
    yield Harness("opus-toc", fuzz_opus, max_bytes=64)


def fuzz_depacketizer(spec: CodecSpec, data: bytes) -> None:
    """Any payloads, frame after frame: ParseError or a frame that is bounded by what came in.

    The first part is the format's parameters (a=fmtp); a marked part ends its frame.
    """
    pieces = parts(data)
    fmtp, _ = next(pieces, (b"", False))
    depacketizer = spec.make(fmtp.decode("utf-8", "replace")[:2048])
    payloads: list[Octets] = []
    for piece, ends in pieces:
        if piece:  # empty payloads (padding) never reach a depacketizer
            payload = bytearray(piece) if len(payloads) & 1 else piece
            assert depacketizer.starts_frame(payload) in (True, False)
            payloads.append(payload)
        if ends and payloads:
            _check_frame(depacketizer, payloads)
            payloads = []
    if payloads:
        _check_frame(depacketizer, payloads)


def _check_frame(depacketizer: Depacketizer, payloads: list[Octets]) -> None:
    before = [bytes(payload) for payload in payloads]
    try:
        frame = depacketizer.frame(payloads)
    except ParseError:
        return
    assert [bytes(payload) for payload in payloads] == before, "payloads belong to the caller"
    assert type(frame.data) is bytes
    assert len(frame.data) <= 4 * sum(map(len, payloads)) + MAX_KEPT
    assert 0 <= frame.width <= 65536
    assert 0 <= frame.height <= 65536
    assert bool(frame.width) == bool(frame.height)
    if frame.key and not frame.filler:
        assert frame.data, "a key frame that holds nothing"


def fuzz_sps(data: bytes) -> None:
    """A size, or ParseError."""
    try:
        width, height = picture_size(data)
    except ParseError:
        return
    assert 0 < width <= MAX_PIXELS
    assert 0 < height <= MAX_PIXELS


def fuzz_private(form: VideoForm, data: bytes) -> None:
    """CodecPrivate of any key frame is small or a ParseError; a block is as long as its frame, but for start codes."""
    assert len(form.writer([])(data)) <= 2 * len(data) + 8
    try:
        private = form.configuration(data)
    except ParseError:
        return
    assert len(private) <= MAX_PRIVATE


def fuzz_annex_b(data: bytes) -> None:
    """Units keep every byte that is not a start code or padding."""
    units = list(nal_units(data))
    assert sum(map(len, units)) <= len(data)
    assert all(b"\0\0\1" not in unit for unit in units)
    assert len(length_prefixed(data)) == sum(map(len, units)) + 4 * len(units)


def fuzz_opus(data: bytes) -> None:
    """A length of at most 120 ms, or ParseError."""
    try:
        samples = packet_samples(data)
    except ParseError:
        return
    assert 0 < samples <= MAX_PACKET_SAMPLES
