"""Let a VP9 picture of several spatial layers show its largest layer alone.

Senders code every spatial layer as a frame to be shown, for a receiver may get any number of them. libvpx shows the last frame
of a superframe; other decoders (FFmpeg's, and so most players) show all of them: small pictures flash up, and a conversion
takes the size of the smallest. So in a file the lower layers are marked as what they are, references that are not shown: the
bit show_frame is cleared and, in inter frames, the bit intra_only that is then due is put in. No coded sample changes, nor how
any frame is decoded: that show_frame of the frame before counts is only true between frames of one size (VP9 bitstream
specification section 7.2, LastShowFrame), and there it is left alone.
"""

from __future__ import annotations

import itertools
from typing import Final, NamedTuple

from isotrack_recorder.codecs.bits import Bits
from isotrack_recorder.codecs.vp9 import frames_of, superframe
from isotrack_recorder.codecs.vp9_header import FrameHeader, Size, SizeTracker
from isotrack_recorder.errors import ParseError

_MAX_HEADER_BYTES: Final = 256
"""The longest uncompressed header has about 130."""
_MAX_TILE_WIDTH: Final = 64
_MIN_TILE_WIDTH: Final = 4
"""In superblocks of 64 pixels."""
_FEATURE_BITS: Final = ((8, 1), (6, 1), (2, 0), (0, 0))
"""Bits of a segmentation feature's value and of its sign."""


class _Frame(NamedTuple):
    data: bytes
    header: FrameHeader
    end: int
    """Bits of the uncompressed header; 0 where it was not read that far."""


class LayerFilter:
    """Follows one stream from its first key frame on. What it remembers lies in `memory`, where one is given."""

    __slots__ = ("_sizes",)

    def __init__(self, memory: list[Size] | None = None) -> None:
        self._sizes = SizeTracker(memory)

    def __call__(self, chunk: bytes) -> bytes:
        """Return a picture that shows one frame. What cannot be read stays as it is."""
        try:
            frames = frames_of(chunk)
            if len(frames) == 1:
                self._sizes.read(frames[0])
                return chunk
            read = [self._read(frame) for frame in frames]
        except ParseError:
            return chunk
        if sum(frame.header.shown for frame in read) < 2:
            return chunk
        lower = [
            _hidden(frame) if frame.end and _may_hide(frame.header, upper.header) else frame.data
            for frame, upper in itertools.pairwise(read)
        ]
        return superframe([*lower, read[-1].data])

    def _read(self, data: bytes) -> _Frame:
        bits = Bits(data[:_MAX_HEADER_BYTES], "VP9 frame header")
        header = self._sizes.read_bits(bits)
        if not header.existing:
            _skip_rest(bits, header)
        return _Frame(data, header, 0 if header.existing else bits.position)


def _may_hide(frame: FrameHeader, following: FrameHeader) -> bool:
    return frame.shown and (not following.inter or following.resilient or following.size != frame.size)


def _hidden(frame: _Frame) -> bytes:
    """The frame with show_frame 0."""
    data, end = frame.data, frame.end
    head_bytes = -(-end // 8)
    bits = int.from_bytes(data[:head_bytes], "big") >> (head_bytes * 8 - end)
    # frame_marker (2), profile (2, 3 for profile 3), show_existing_frame, frame_type, show_frame, error_resilient_mode
    shown = end - (8 if data[0] >> 4 & 3 == 3 else 7)
    bits &= ~(1 << shown)
    if frame.header.inter:
        low = (1 << shown - 1) - 1  # behind error_resilient_mode
        bits = (bits & ~low) << 1 | bits & low
        end += 1
    length = -(-end // 8)
    return (bits << (length * 8 - end)).to_bytes(length, "big") + data[head_bytes:]


def _skip_rest(bits: Bits, header: FrameHeader) -> None:
    """Read from render_size() to the end of uncompressed_header()."""
    if bits.read(1):  # render_and_frame_size_different
        bits.read(32)
    if header.inter:
        bits.read(1)  # allow_high_precision_mv
        if not bits.read(1):  # is_filter_switchable
            bits.read(2)
    if not header.resilient:
        bits.read(2)  # refresh_frame_context, frame_parallel_decoding_mode
    bits.read(2)  # frame_context_idx
    _skip_loop_filter(bits)
    bits.read(8)  # base_q_idx
    for _ in range(3):
        if bits.read(1):  # delta_coded
            bits.read(5)
    _skip_segmentation(bits)
    _skip_tiles(bits, header.size[0])
    if not bits.read(16):  # header_size_in_bytes
        raise ParseError("VP9 frame without a compressed header")


def _skip_loop_filter(bits: Bits) -> None:
    bits.read(9)  # level, sharpness
    if bits.read(1) and bits.read(1):  # loop_filter_delta_enabled, loop_filter_delta_update
        for _ in range(6):
            if bits.read(1):
                bits.read(7)


def _skip_segmentation(bits: Bits) -> None:
    if not bits.read(1):  # segmentation_enabled
        return
    if bits.read(1):  # segmentation_update_map
        _skip_probabilities(bits, 7)
        if bits.read(1):  # segmentation_temporal_update
            _skip_probabilities(bits, 3)
    if bits.read(1):  # segmentation_update_data
        bits.read(1)  # segmentation_abs_or_delta_update
        for _ in range(8):
            for value, sign in _FEATURE_BITS:
                if bits.read(1):  # feature_enabled
                    bits.read(value + sign)


def _skip_probabilities(bits: Bits, count: int) -> None:
    for _ in range(count):
        if bits.read(1):  # prob_coded
            bits.read(8)


def _skip_tiles(bits: Bits, width: int) -> None:
    superblocks = -(-width // 64)
    columns = 0
    while _MAX_TILE_WIDTH << columns < superblocks:
        columns += 1
    most = 1
    while superblocks >> most >= _MIN_TILE_WIDTH:
        most += 1
    while columns < most - 1 and bits.read(1):  # increment_tile_cols_log2
        columns += 1
    if bits.read(1):  # tile_rows_log2
        bits.read(1)
