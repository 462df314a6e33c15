"""What an H.265 sequence parameter set says (ITU-T H.265 sections 7.3.2.2, 7.3.3 and 7.4.3.2.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from isotrack_recorder.codecs.bits import Bits, without_emulation_prevention
from isotrack_recorder.errors import ParseError

MAX_SPS_BYTES: Final = 2048
MAX_PIXELS: Final = 16888
"""Width or height; level 6.2 allows no more (table A.8)."""

_PROFILE_BYTES: Final = 12
"""General part of profile_tier_level: space, tier, idc, compatibility, constraints, level."""


@dataclass(frozen=True, slots=True)
class SequenceParameters:
    """Of one sequence."""

    profile_tier_level: bytes
    """12 bytes from general_profile_space to general_level_idc: HEVCDecoderConfigurationRecord has them in this form."""
    temporal_layers: int
    temporal_id_nested: int
    chroma_format: int
    bit_depth_luma: int
    bit_depth_chroma: int
    width: int
    """Of what is shown: the conformance window."""
    height: int


def read_sps(unit: bytes) -> SequenceParameters:
    """Read a NAL unit of type 33, its header included.

    Raises:
        ParseError: No such unit, cut short, or values that cannot be.
    """
    if not 16 <= len(unit) <= MAX_SPS_BYTES or unit[0] >> 1 & 0x3F != 33:
        raise ParseError(f"H.265 sequence parameter set of {len(unit)} bytes cannot be read")
    rbsp = without_emulation_prevention(unit[2:])
    bits = Bits(rbsp, "H.265 parameter set")
    bits.read(4)  # sps_video_parameter_set_id
    sub_layers, nested = bits.read(3), bits.read(1)
    if sub_layers > 6:
        raise ParseError(f"H.265 sequence of {sub_layers + 1} temporal layers")
    profile = bits.read(8 * _PROFILE_BYTES).to_bytes(_PROFILE_BYTES, "big")
    _skip_sub_layers(bits, sub_layers)
    bits.golomb()  # sps_seq_parameter_set_id
    chroma = bits.golomb()
    if chroma > 3:
        raise ParseError(f"H.265 chroma format {chroma}")
    separate_planes = bits.read(1) if chroma == 3 else 0
    width, height = bits.golomb(), bits.golomb()
    if bits.read(1):  # conformance_window_flag
        left, right, top, bottom = (bits.golomb() for _ in range(4))
        # table 6-1; monochrome and separate planes crop by single pixels
        x, y = {1: (2, 2), 2: (2, 1)}.get(0 if separate_planes else chroma, (1, 1))
        width -= x * (left + right)
        height -= y * (top + bottom)
    luma, of_chroma = bits.golomb() + 8, bits.golomb() + 8
    if not (0 < width <= MAX_PIXELS and 0 < height <= MAX_PIXELS and luma <= 16 and of_chroma <= 16):
        raise ParseError(f"H.265 picture of {width}x{height} with {luma} and {of_chroma} bits")
    return SequenceParameters(profile, sub_layers + 1, nested, chroma, luma, of_chroma, width, height)


def _skip_sub_layers(bits: Bits, count: int) -> None:
    present = [(bits.read(1), bits.read(1)) for _ in range(count)]
    if count:
        bits.read(2 * (8 - count))  # reserved_zero_2bits
    for profile, level in present:
        bits.read(88 * profile + 8 * level)
