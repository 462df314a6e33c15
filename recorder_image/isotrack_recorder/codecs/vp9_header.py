"""The uncompressed header of a VP9 frame as far as a recorder needs it (VP9 bitstream specification sections 6.2 and 7.2).

Sizes of inter frames may be told by reference: "as large as reference 2". A SizeTracker knows the size of each of the
eight reference slots; it lives as long as its stream. After a loss a slot may be stale until the next key frame.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from isotrack_recorder.codecs.bits import Bits
from isotrack_recorder.errors import ParseError

MAX_HEADER_BYTES: Final = 24
"""All that is read of a frame; the longest form up to the size has 21."""
SLOTS: Final = 8

_SYNC_CODE: Final = 0x498342
_RGB: Final = 7

Size = tuple[int, int]


class FrameHeader(NamedTuple):
    """One frame of a picture."""

    key: bool
    shown: bool
    size: Size
    """(0, 0) where it refers to a frame that never came."""
    inter: bool = False
    """Predicted from other frames."""
    resilient: bool = False
    """error_resilient_mode"""
    existing: bool = False
    """show_existing_frame: there is no frame, one that was decoded before is shown."""


@dataclass(frozen=True, slots=True)
class ColorConfig:
    """What a key frame says of its samples (section 7.2.2)."""

    profile: int
    bit_depth: int
    subsampling_x: int
    subsampling_y: int


class SizeTracker:
    """Follows the picture sizes of one stream. What it remembers lies in `memory`, where one is given."""

    __slots__ = ("_slots",)

    def __init__(self, memory: list[Size] | None = None) -> None:
        self._slots: list[Size] = [] if memory is None else memory
        if len(self._slots) != SLOTS:
            self._slots[:] = [(0, 0)] * SLOTS

    def read(self, frame: bytes) -> FrameHeader:
        """Read the header of the next frame.

        Raises:
            ParseError: No VP9 frame, or one that ends in its header.
        """
        return self.read_bits(Bits(frame[:MAX_HEADER_BYTES], "VP9 frame header"))

    def read_bits(self, bits: Bits) -> FrameHeader:
        """Read the header up to the frame's size; render_size() follows.

        Raises:
            ParseError: As `read`.
        """
        profile = _profile(bits)
        if bits.read(1):  # show_existing_frame
            return FrameHeader(key=False, shown=True, size=self._slots[bits.read(3)], existing=True)
        inter, shown, resilient = bits.read(1), bits.read(1), bits.read(1)
        if not inter:
            _color_config(bits, profile)
            size = _frame_size(bits)
            self._slots[:] = [size] * SLOTS
            return FrameHeader(key=True, shown=bool(shown), size=size, resilient=bool(resilient))
        intra_only = 0 if shown else bits.read(1)
        if not resilient:
            bits.read(2)  # reset_frame_context
        if intra_only:
            if profile:
                _color_config(bits, profile)
            else:
                _sync(bits)
            refreshed = bits.read(8)
            size = _frame_size(bits)
        else:
            refreshed = bits.read(8)
            references = [(bits.read(3), bits.read(1))[0] for _ in range(3)]  # index, sign bias
            size = self._size_with_references(bits, references)
        for slot in range(SLOTS):
            if refreshed >> slot & 1:
                self._slots[slot] = size
        return FrameHeader(False, bool(shown), size, inter=not intra_only, resilient=bool(resilient))

    def _size_with_references(self, bits: Bits, references: list[int]) -> Size:
        for slot in references:
            if bits.read(1):  # found_ref
                return self._slots[slot]
        return _frame_size(bits)


def color_config(frame: bytes) -> ColorConfig:
    """Read what a key frame says of its samples.

    Raises:
        ParseError: Not a key frame, or cut short.
    """
    bits = Bits(frame[:MAX_HEADER_BYTES], "VP9 frame header")
    profile = _profile(bits)
    if bits.read(2):  # show_existing_frame, frame_type
        raise ParseError("VP9 frame is no key frame")
    bits.read(2)  # show_frame, error_resilient_mode
    return _color_config(bits, profile)


def is_key_frame(frame: bytes) -> bool:
    """Tell whether this begins like a key frame."""
    try:
        color_config(frame)
    except ParseError:
        return False
    return True


def _profile(bits: Bits) -> int:
    if bits.read(2) != 2:  # frame_marker
        raise ParseError("VP9 frame has no frame marker")
    profile = bits.read(1) | bits.read(1) << 1
    if profile == 3 and bits.read(1):
        raise ParseError("VP9 frame of a reserved profile")
    return profile


def _sync(bits: Bits) -> None:
    if bits.read(24) != _SYNC_CODE:
        raise ParseError("VP9 frame has no sync code")


def _color_config(bits: Bits, profile: int) -> ColorConfig:
    """frame_sync_code and color_config"""
    _sync(bits)
    depth = (12 if bits.read(1) else 10) if profile >= 2 else 8
    if bits.read(3) == _RGB:
        if not profile & 1 or bits.read(1):
            raise ParseError("VP9 frame in RGB outside profiles 1 and 3")
        return ColorConfig(profile, depth, 0, 0)
    bits.read(1)  # color_range
    if not profile & 1:
        return ColorConfig(profile, depth, 1, 1)
    x, y, reserved = bits.read(1), bits.read(1), bits.read(1)
    if reserved:
        raise ParseError("VP9 frame with a reserved bit")
    return ColorConfig(profile, depth, x, y)


def _frame_size(bits: Bits) -> Size:
    return bits.read(16) + 1, bits.read(16) + 1
