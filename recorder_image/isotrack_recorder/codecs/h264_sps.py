"""Picture size from an H.264 sequence parameter set (ITU-T H.264 sections 7.3.2.1.1 and 7.4.2.1.1)."""

from __future__ import annotations

from typing import Final

from isotrack_recorder.codecs.bits import Bits, without_emulation_prevention
from isotrack_recorder.errors import ParseError

MAX_SPS_BYTES: Final = 1024
MAX_PIXELS: Final = 16384
"""Width or height; level 6.2 allows 16,880 at most."""

_CHROMA_PROFILES: Final = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})


def sample_format(sps: bytes) -> tuple[int, int, int]:
    """chroma_format_idc, bit depth of luma, bit depth of chroma of the pictures that this NAL unit announces.

    Raises:
        ParseError: Not a sequence parameter set, cut short, or values that cannot be.
    """
    bits = _open(sps)
    bits.golomb()  # seq_parameter_set_id
    if sps[1] not in _CHROMA_PROFILES:
        return 1, 8, 8
    chroma = bits.golomb()
    if chroma == 3:
        bits.read(1)  # separate_colour_plane_flag
    luma, of_chroma = bits.golomb() + 8, bits.golomb() + 8
    if chroma > 3 or luma > 14 or of_chroma > 14:
        raise ParseError(f"H.264 samples of chroma format {chroma} with {luma} and {of_chroma} bits")
    return chroma, luma, of_chroma


def picture_size(sps: bytes) -> tuple[int, int]:
    """Width and height in pixels, after cropping, of the pictures that this NAL unit announces.

    Raises:
        ParseError: Not a sequence parameter set, cut short, or a size outside 1 to 16,384.
    """
    bits = _open(sps)
    profile = sps[1]
    bits.golomb()  # seq_parameter_set_id
    chroma = 1
    separate_planes = 0
    if profile in _CHROMA_PROFILES:
        chroma = bits.golomb()
        if chroma == 3:
            separate_planes = bits.read(1)
        bits.golomb()  # bit_depth_luma_minus8
        bits.golomb()  # bit_depth_chroma_minus8
        bits.read(1)  # qpprime_y_zero_transform_bypass_flag
        if bits.read(1):
            _skip_scaling_matrix(bits, 12 if chroma == 3 else 8)
    bits.golomb()  # log2_max_frame_num_minus4
    _skip_order_count(bits)
    bits.golomb()  # max_num_ref_frames
    bits.read(1)  # gaps_in_frame_num_value_allowed_flag
    width = (bits.golomb() + 1) * 16
    units = bits.golomb() + 1
    frames_only = bits.read(1)
    height = (2 - frames_only) * units * 16
    if not frames_only:
        bits.read(1)  # mb_adaptive_frame_field_flag
    bits.read(1)  # direct_8x8_inference_flag
    if bits.read(1):
        left, right, top, bottom = (bits.golomb() for _ in range(4))
        # table 6-1: 4:2:0, 4:2:2, 4:4:4; monochrome and separate planes crop by single pixels
        x, y = {1: (2, 2), 2: (2, 1)}.get(0 if separate_planes else chroma, (1, 1))
        width -= x * (left + right)
        height -= y * (2 - frames_only) * (top + bottom)
    if not (0 < width <= MAX_PIXELS and 0 < height <= MAX_PIXELS):
        raise ParseError(f"H.264 picture of {width}x{height}")
    return width, height


def _open(sps: bytes) -> Bits:
    """Bits behind the level."""
    if not 5 <= len(sps) <= MAX_SPS_BYTES or sps[0] & 0x1F != 7:
        raise ParseError(f"H.264 sequence parameter set of {len(sps)} bytes cannot be read")
    return Bits(without_emulation_prevention(sps[4:]), "H.264 parameter set")


def _skip_scaling_matrix(bits: Bits, lists: int) -> None:
    for index in range(lists):
        if not bits.read(1):
            continue
        last = following = 8
        for _ in range(16 if index < 6 else 64):
            if following:
                following = (last + bits.signed_golomb()) % 256
            last = following or last


def _skip_order_count(bits: Bits) -> None:
    kind = bits.golomb()
    if kind == 0:
        bits.golomb()  # log2_max_pic_order_cnt_lsb_minus4
    elif kind == 1:
        bits.read(1)
        bits.signed_golomb()
        bits.signed_golomb()
        cycle = bits.golomb()
        if cycle > 255:
            raise ParseError(f"H.264 picture order cycle of {cycle}")
        for _ in range(cycle):
            bits.signed_golomb()
