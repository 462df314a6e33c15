"""What a decoder must know before the first frame, and the form that Matroska wants frames in.

Opus: the identification header (RFC 7845 section 5.1) with pre-skip 0, for a stream that was joined midway has no start
to skip. H.264: AVCDecoderConfigurationRecord (ISO/IEC 14496-15 section 5.3.3.1) and length-prefixed NAL units instead of
Annex B start codes. VP8: nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from isotrack_recorder.codecs.h264_sps import sample_format
from isotrack_recorder.errors import ParseError

OPUS_RATE: Final = 48_000
_MAX_PARAMETER_SET_BYTES: Final = 2048
"""Real ones have tens of bytes. The head of a file must hold them."""
_NAL_SPS: Final = 7
_NAL_PPS: Final = 8
# Profiles whose record carries chroma format and bit depths (ISO/IEC 14496-15 section 5.3.3.1.2); 244 took 144's place.
_HIGH_PROFILES: Final = frozenset((100, 110, 122, 144, 244))


def opus_head(channels: int) -> bytes:
    """Identification header for 1 or 2 channels."""
    return b"OpusHead" + struct.pack("<BBHIhB", 1, channels, 0, OPUS_RATE, 0, 0)


def nal_units(annex_b: bytes) -> Iterator[bytes]:
    """Split an Annex B byte stream (ITU-T H.264 annex B) into NAL units without start codes; empty ones are skipped."""
    at = annex_b.find(b"\0\0\1")
    while at >= 0:
        start = at + 3
        at = annex_b.find(b"\0\0\1", start)
        end = len(annex_b) if at < 0 else at
        unit = annex_b[start:end].rstrip(b"\0") if at >= 0 else annex_b[start:end]
        if unit:
            yield unit


def length_prefixed(annex_b: bytes) -> bytes:
    """Turn start codes into four-byte lengths; every NAL unit stays as it is."""
    return b"".join(struct.pack("!I", len(unit)) + unit for unit in nal_units(annex_b))


def avc_configuration(annex_b: bytes) -> bytes:
    """Build the record from the parameter sets in a key frame.

    Raises:
        ParseError: There is no SPS or no PPS, or one is implausibly long or short, or cannot be read.
    """
    sequence: list[bytes] = []
    picture: list[bytes] = []
    for unit in nal_units(annex_b):
        sets = {_NAL_SPS: sequence, _NAL_PPS: picture}.get(unit[0] & 0x1F)
        if sets is not None and unit not in sets:
            if not 4 <= len(unit) + (sets is picture) * 2 <= _MAX_PARAMETER_SET_BYTES:
                raise ParseError(f"H.264 parameter set of {len(unit)} bytes")
            sets.append(unit)
    if not sequence or not picture:
        raise ParseError("key frame without SPS or PPS")
    sequence, picture = sequence[:1], picture[:4]
    profile, compatibility, level = sequence[0][1:4]
    record = bytes((1, profile, compatibility, level, 0xFC | 3, 0xE0 | len(sequence)))
    record += b"".join(struct.pack("!H", len(unit)) + unit for unit in sequence)
    record += bytes((len(picture),)) + b"".join(struct.pack("!H", len(unit)) + unit for unit in picture)
    if profile in _HIGH_PROFILES:
        chroma, luma_bits, chroma_bits = sample_format(sequence[0])
        record += bytes((0xFC | chroma, 0xF8 | luma_bits - 8, 0xF8 | chroma_bits - 8, 0))  # no SPS extension
    return record
