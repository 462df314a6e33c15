"""AV1 in RTP (RTP Payload Format For AV1, version 1.0 of the Alliance for Open Media): OBUs of one temporal unit in, out as
files have them.

In RTP units come without size and in fragments; here each is whole again and carries its size. Temporal delimiters, tile
lists and padding are left out, as the payload format and the Matroska mapping ask. A sequence header is remembered and
put before a key frame that comes without it. All spatial layers of a temporal unit stay in it; the size is that of the
sequence header, the largest of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from isotrack_recorder.codecs.av1_obu import (
    OBU_FRAME,
    OBU_FRAME_HEADER,
    OBU_PADDING,
    OBU_REDUNDANT_FRAME_HEADER,
    OBU_SEQUENCE_HEADER,
    OBU_TEMPORAL_DELIMITER,
    OBU_TILE_GROUP,
    OBU_TILE_LIST,
    Obu,
    SequenceHeader,
    is_key_frame,
    read_leb128,
    read_sequence_header,
    split_header,
    with_size,
)
from isotrack_recorder.codecs.base import Frame, Octets
from isotrack_recorder.errors import ParseError

_DROPPED: Final = frozenset({OBU_TEMPORAL_DELIMITER, OBU_TILE_LIST, OBU_PADDING})
_INSIDE: Final = frozenset({OBU_TILE_GROUP, OBU_REDUNDANT_FRAME_HEADER, OBU_TILE_LIST, OBU_PADDING})
"""Never first in a temporal unit."""

# Aggregation header, section 4.4:
#  0 1 2 3 4 5 6 7
# +-+-+-+-+-+-+-+-+
# |Z|Y| W |N|-|-|-|
# +-+-+-+-+-+-+-+-+
_Z: Final = 0x80
"""The first element goes on with the last one of the packet before."""
_Y: Final = 0x40
"""The last element goes on in the next packet."""


class Av1Depacketizer:
    """Joins the units of one temporal unit and remembers the sequence header."""

    __slots__ = ("_sends_sequences", "_sequence", "_sequence_unit")

    def __init__(self, fmtp: str = "") -> None:  # noqa: ARG002 - what a DepacketizerFactory takes
        """Profile, level and tier are in the sequence header, too."""
        self._sequence: SequenceHeader | None = None
        self._sequence_unit = b""
        self._sends_sequences = False
        """A key frame came with a sequence header of its own."""

    def starts_frame(self, payload: Octets) -> bool:
        """A whole unit or its first part, of a type that can be first. A layer that stands alone looks like a further one."""
        if len(payload) < 2 or payload[0] & _Z:
            return False
        try:
            at = 1 if payload[0] >> 4 & 3 == 1 else read_leb128(payload, 1)[1]
        except ParseError:
            return False
        return at < len(payload) and payload[at] >> 3 & 15 not in _INSIDE

    def frame(self, payloads: Sequence[Octets]) -> Frame:
        """See Depacketizer."""
        units = [unit for unit in map(split_header, _elements(payloads)) if unit.type not in _DROPPED]
        own_sequence = self._remember(units)
        first = next((unit for unit in units if unit.type in (OBU_FRAME, OBU_FRAME_HEADER)), None)
        if first is None:
            return Frame(b"", False)
        data = b"".join(map(with_size, units))
        if self._sequence is None or not is_key_frame(first, self._sequence):
            return Frame(data, False)
        self._sends_sequences |= own_sequence
        if not own_sequence:
            data = self._sequence_unit + data
        borrows = self._sends_sequences and not own_sequence
        return Frame(data, True, self._sequence.width, self._sequence.height, borrows=borrows)

    def _remember(self, units: Sequence[Obu]) -> bool:
        """Keep the sequence header, if there is one."""
        for unit in units:
            if unit.type == OBU_SEQUENCE_HEADER:
                whole = with_size(unit)
                if whole != self._sequence_unit:
                    self._sequence = read_sequence_header(unit.payload)
                    self._sequence_unit = whole
                return True
        return False


def _elements(payloads: Sequence[Octets]) -> list[bytes]:
    """Join OBU elements over packets (section 4.3)."""
    found: list[bytes] = []
    parts: list[Octets] = []
    for payload in payloads:
        if len(payload) < 2:
            raise ParseError(f"AV1 payload needs 2 bytes, got {len(payload)}")
        if bool(payload[0] & _Z) != bool(parts):
            raise ParseError("AV1 fragment out of place")
        elements = _split(payload)
        last = len(elements) - 1
        for number, element in enumerate(elements):
            parts.append(element)
            if number < last or not payload[0] & _Y:
                unit = b"".join(parts)
                parts = []
                if unit:
                    found.append(unit)
    if parts:
        raise ParseError("AV1 fragmented unit has no end")
    return found


def _split(payload: Octets) -> list[Octets]:
    """OBU elements of one packet: as many as W says, the last one without a size; W = 0: any number, all with sizes."""
    count = payload[0] >> 4 & 3
    elements: list[Octets] = []
    at, end = 1, len(payload)
    while at < end:
        if len(elements) + 1 == count:
            size = end - at
        else:
            size, at = read_leb128(payload, at)
            if size > end - at:
                raise ParseError(f"AV1 element of {size} bytes, {end - at} are there")
        elements.append(payload[at : at + size])
        at += size
    if count and len(elements) != count:
        raise ParseError(f"AV1 payload of {len(elements)} elements instead of {count}")
    return elements
