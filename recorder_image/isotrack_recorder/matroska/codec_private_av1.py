"""AV1: AV1CodecConfigurationRecord (AV1 Codec ISO Media File Format Binding section 2.3) from a temporal unit."""

from __future__ import annotations

from isotrack_recorder.codecs.av1_obu import OBU_SEQUENCE_HEADER, obus, read_sequence_header, with_size
from isotrack_recorder.errors import ParseError


def av1_configuration(unit: bytes) -> bytes:
    """Build the record, the sequence header in it.

    Args:
        unit: A temporal unit that begins a coded video sequence, every OBU with its size.
    Raises:
        ParseError: There is no sequence header, or it cannot be read.
    """
    obu = next((obu for obu in obus(unit) if obu.type == OBU_SEQUENCE_HEADER), None)
    if obu is None:
        raise ParseError("key frame without sequence header")
    header = read_sequence_header(obu.payload)
    #  0 1 2 3 4 5 6 7
    # +-+-+-+-+-+-+-+-+
    # |1| version 1   |
    # |profile|  level  |        3 and 5 bits
    # |T|H|W|M|X|Y|CSP|          tier, high bit depth, twelve bit, monochrome, subsampling x and y, chroma sample position
    # |- - -|0|- - - -|          no initial_presentation_delay
    samples = (
        header.tier << 7
        | header.high_bitdepth << 6
        | header.twelve_bit << 5
        | header.monochrome << 4
        | header.subsampling_x << 3
        | header.subsampling_y << 2
        | header.chroma_sample_position
    )
    return bytes((0x81, header.profile << 5 | header.level, samples, 0)) + with_size(obu)
