"""H.265: HEVCDecoderConfigurationRecord (ISO/IEC 14496-15 section 8.3.3.1) from the parameter sets of a key frame."""

from __future__ import annotations

import struct
from typing import Final

from isotrack_recorder.codecs.h265 import NAL_PPS, NAL_SPS, NAL_VPS
from isotrack_recorder.codecs.h265_sps import MAX_SPS_BYTES, read_sps
from isotrack_recorder.errors import ParseError

from .codec_private import nal_units

_MAX_SETS: Final = {NAL_VPS: 1, NAL_SPS: 1, NAL_PPS: 4}
"""Kept of each kind, in the record's order; the head of a file must hold them. The frames keep all."""


def hevc_configuration(annex_b: bytes) -> bytes:
    """Build the record.

    Raises:
        ParseError: A kind of parameter set is missing, is implausibly long or cannot be read.
    """
    sets: dict[int, list[bytes]] = {kind: [] for kind in _MAX_SETS}
    for unit in nal_units(annex_b):
        found = sets.get(unit[0] >> 1 & 0x3F)
        if found is not None and unit not in found:
            if not 3 <= len(unit) <= MAX_SPS_BYTES:
                raise ParseError(f"H.265 parameter set of {len(unit)} bytes")
            found.append(unit)
    if not all(sets.values()):
        raise ParseError("key frame without VPS, SPS or PPS")
    sps = read_sps(sets[NAL_SPS][0])
    # configurationVersion; profile, tier, level; min_spatial_segmentation_idc and parallelismType 0 = unknown; chroma format;
    # bit depths; average frame rate 0 = unknown; constantFrameRate 0 = unknown, layers, lengths of 4 bytes; number of arrays
    record = b"\x01" + sps.profile_tier_level
    record += struct.pack("!HB", 0xF000, 0xFC)
    record += bytes((0xFC | sps.chroma_format, 0xF8 | sps.bit_depth_luma - 8 & 7, 0xF8 | sps.bit_depth_chroma - 8 & 7))
    record += struct.pack("!HBB", 0, sps.temporal_layers << 3 | sps.temporal_id_nested << 2 | 3, len(sets))
    for kind, units in sets.items():
        units = units[: _MAX_SETS[kind]]
        record += struct.pack("!BH", kind, len(units))  # array_completeness 0: the frames hold sets, too
        record += b"".join(struct.pack("!H", len(unit)) + unit for unit in units)
    return record
