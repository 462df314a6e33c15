"""AV1 open bitstream units (AV1 bitstream specification): headers, sizes, the sequence header, the kind of a frame.

    obu_header                       obu_extension_header (only if X)
     0 1 2 3 4 5 6 7                  0 1 2 3 4 5 6 7
    +-+-+-+-+-+-+-+-+                +-+-+-+-+-+-+-+-+
    |F| type  |X|S|-|                | TID |SID|- - -|
    +-+-+-+-+-+-+-+-+                +-+-+-+-+-+-+-+-+
S says that a size follows (leb128) before the payload: always in files, never in RTP.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from isotrack_recorder.codecs.bits import Bits
from isotrack_recorder.errors import ParseError

# Section 6.2.2
OBU_SEQUENCE_HEADER: Final = 1
OBU_TEMPORAL_DELIMITER: Final = 2
OBU_FRAME_HEADER: Final = 3
OBU_TILE_GROUP: Final = 4
OBU_FRAME: Final = 6
OBU_REDUNDANT_FRAME_HEADER: Final = 7
OBU_TILE_LIST: Final = 8
OBU_PADDING: Final = 15

HAS_EXTENSION: Final = 0x04
HAS_SIZE: Final = 0x02

MAX_SEQUENCE_HEADER_BYTES: Final = 1024
"""Real ones have about a dozen bytes; 32 operating points with decoder models come to some hundred."""

_MAX_SIZE_BYTES: Final = 8
_SELECT: Final = 2
"""SELECT_SCREEN_CONTENT_TOOLS, SELECT_INTEGER_MV"""
_KEY_FRAME: Final = 0


class Obu(NamedTuple):
    """One unit."""

    type: int
    header: bytes
    """One byte, or two with the extension."""
    payload: bytes


@dataclass(frozen=True, slots=True)
class SequenceHeader:
    """What a sequence header says of the stream (section 5.5)."""

    profile: int
    level: int
    """seq_level_idx of operating point 0."""
    tier: int
    still_only: bool
    """reduced_still_picture_header: each frame is a key frame and its header says nothing of it."""
    width: int
    """max_frame_width_minus_1 + 1: the largest of all spatial layers."""
    height: int
    high_bitdepth: int
    twelve_bit: int
    monochrome: int
    subsampling_x: int
    subsampling_y: int
    chroma_sample_position: int


def read_leb128(data: bytes | bytearray, at: int) -> tuple[int, int]:
    """Read leb128() (section 4.10.5).

    Returns:
        The value and the offset behind it.
    Raises:
        ParseError: It does not end within the data or 8 bytes, or is over 32 bits.
    """
    value = 0
    for number, byte in enumerate(data[at : at + _MAX_SIZE_BYTES]):
        value |= (byte & 0x7F) << 7 * number
        if not byte & 0x80:
            if value >> 32:
                raise ParseError(f"AV1 size of {value} bytes")
            return value, at + number + 1
    raise ParseError("AV1 size has no end")


def write_leb128(value: int) -> bytes:
    """The shortest form."""
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)


def split_header(unit: bytes) -> Obu:
    """Read one unit whose end is known; a size inside is checked and left out.

    Raises:
        ParseError: Empty, the forbidden bit is set, or its size is over what is there.
    """
    if not unit or unit[0] & 0x80:
        raise ParseError("AV1 unit without a valid header")
    first = unit[0]
    at = 2 if first & HAS_EXTENSION else 1
    if len(unit) < at:
        raise ParseError("AV1 unit ends in its header")
    header = bytes((first & ~HAS_SIZE,)) + unit[1:at]
    end = len(unit)
    if first & HAS_SIZE:
        size, at = read_leb128(unit, at)
        if size > end - at:
            raise ParseError(f"AV1 unit of {size} bytes, {end - at} are there")
        end = at + size
    return Obu(first >> 3 & 15, header, unit[at:end])


def with_size(obu: Obu) -> bytes:
    """Write a unit as files have it."""
    header = obu.header
    return b"".join((bytes((header[0] | HAS_SIZE,)), header[1:], write_leb128(len(obu.payload)), obu.payload))


def obus(data: bytes) -> Iterator[Obu]:
    """Walk a stream of units that all carry their size (low-overhead format, section 5.2).

    Raises:
        ParseError: A unit has no size, or more than is there.
    """
    at = 0
    while at < len(data):
        first = data[at]
        if not first & HAS_SIZE:
            raise ParseError("AV1 unit has no size")
        size, start = read_leb128(data, at + (2 if first & HAS_EXTENSION else 1))
        if size > len(data) - start:
            raise ParseError(f"AV1 unit of {size} bytes, {len(data) - start} are there")
        yield split_header(data[at : start + size])
        at = start + size


def is_key_frame(frame: Obu, sequence: SequenceHeader) -> bool:
    """Tell whether a frame (header) begins a sequence that can be decoded: a key frame that is shown (section 5.9.2)."""
    if sequence.still_only:
        return True
    if not frame.payload:
        raise ParseError("AV1 frame is empty")
    # show_existing_frame (1), frame_type (2), show_frame (1)
    first = frame.payload[0] >> 4
    return not first & 8 and first >> 1 & 3 == _KEY_FRAME and bool(first & 1)


def read_sequence_header(payload: bytes) -> SequenceHeader:
    """Read the payload of a sequence header.

    Raises:
        ParseError: Cut short, or a value that is reserved.
    """
    if len(payload) > MAX_SEQUENCE_HEADER_BYTES:
        raise ParseError(f"AV1 sequence header of {len(payload)} bytes")
    bits = Bits(payload, "AV1 sequence header")
    profile, _, reduced = bits.read(3), bits.read(1), bits.read(1)  # still_picture
    if profile > 2:
        raise ParseError(f"AV1 profile {profile}")
    level, tier = (bits.read(5), 0) if reduced else _operating_points(bits)
    width_bits, height_bits = bits.read(4) + 1, bits.read(4) + 1
    width, height = bits.read(width_bits) + 1, bits.read(height_bits) + 1
    if not reduced and bits.read(1):  # frame_id_numbers_present_flag
        bits.read(7)  # delta_frame_id_length_minus_2, additional_frame_id_length_minus_1
    bits.read(3)  # use_128x128_superblock, enable_filter_intra, enable_intra_edge_filter
    if not reduced:
        _skip_tools(bits)
    bits.read(3)  # enable_superres, enable_cdef, enable_restoration
    return SequenceHeader(profile, level, tier, bool(reduced), width, height, *_color_config(bits, profile))


def _operating_points(bits: Bits) -> tuple[int, int]:
    """Level and tier of operating point 0; reads everything of timing and operating points."""
    delay_length = 0
    decoder_model = 0
    if bits.read(1):  # timing_info_present_flag
        bits.read(64)  # num_units_in_display_tick, time_scale
        if bits.read(1):  # equal_picture_interval
            bits.golomb()  # num_ticks_per_picture_minus_1
        decoder_model = bits.read(1)
        if decoder_model:
            delay_length = bits.read(5) + 1
            bits.read(42)  # num_units_in_decoding_tick, buffer_removal_time_length and frame_presentation_time_length
    display_delay = bits.read(1)
    level, tier = -1, 0
    for _ in range(bits.read(5) + 1):
        bits.read(12)  # operating_point_idc
        this_level = bits.read(5)
        this_tier = bits.read(1) if this_level > 7 else 0
        if decoder_model and bits.read(1):
            bits.read(2 * delay_length + 1)  # operating_parameters_info
        if display_delay and bits.read(1):
            bits.read(4)
        if level < 0:
            level, tier = this_level, this_tier
    return level, tier


def _skip_tools(bits: Bits) -> None:
    bits.read(4)  # interintra, masked compound, warped motion, dual filter
    order_hint = bits.read(1)
    if order_hint:
        bits.read(2)  # enable_jnt_comp, enable_ref_frame_mvs
    screen_content = _SELECT if bits.read(1) else bits.read(1)
    if screen_content and not bits.read(1):
        bits.read(1)  # seq_force_integer_mv
    if order_hint:
        bits.read(3)  # order_hint_bits_minus_1


def _color_config(bits: Bits, profile: int) -> tuple[int, int, int, int, int, int]:
    """high_bitdepth, twelve_bit, mono_chrome, subsampling_x, subsampling_y, chroma_sample_position (section 5.5.2)"""
    high = bits.read(1)
    twelve = bits.read(1) if profile == 2 and high else 0
    mono = 0 if profile == 1 else bits.read(1)
    primaries, transfer, matrix = (bits.read(8), bits.read(8), bits.read(8)) if bits.read(1) else (2, 2, 2)
    if mono:
        bits.read(1)  # color_range
        return high, twelve, 1, 1, 1, 0
    if (primaries, transfer, matrix) == (1, 13, 0):  # BT.709, sRGB, identity
        return high, twelve, 0, 0, 0, 0
    bits.read(1)  # color_range
    if profile == 0:
        x, y = 1, 1
    elif profile == 1:
        x, y = 0, 0
    elif twelve:
        x = bits.read(1)
        y = bits.read(1) if x else 0
    else:
        x, y = 1, 0
    return high, twelve, 0, x, y, bits.read(2) if x and y else 0
