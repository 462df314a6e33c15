"""H.264 in RTP (RFC 6184): NAL units of one access unit in, one Annex B byte stream out.

Single NAL units, STAP-A and FU-A are read (packetization modes 0 and 1). Parameter sets are remembered, from the
session description and from the stream, and put before an IDR picture that comes without them, so that each key
frame can be decoded by itself. What the sender sent is never changed or left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Final

from isotrack_recorder.codecs.base import Frame, Octets
from isotrack_recorder.codecs.h264_sps import picture_size
from isotrack_recorder.codecs.nal import MAX_PARAMETER_SET_BYTES, START_CODE, announced_units, byte_stream, first_code
from isotrack_recorder.errors import ParseError

FILLER_SIZE: Final = (2, 2)
"""Picture that LiveKit sends as key frames when it closes a track."""

# ITU-T H.264 table 7-1
NAL_SLICE: Final = 1
NAL_PARTITION_A: Final = 2
NAL_IDR: Final = 5
NAL_SEI: Final = 6
NAL_SPS: Final = 7
NAL_PPS: Final = 8
NAL_AUD: Final = 9
NAL_PREFIX: Final = 14
"""What scalable encoders put before each slice; this and the next four begin an access unit (section 7.4.1.2.3)."""
NAL_LAST_RESERVED: Final = 18
# RFC 6184 section 5.2
STAP_A: Final = 24
FU_A: Final = 28
_PICTURES: Final = frozenset((NAL_SLICE, NAL_PARTITION_A, NAL_IDR))
_KEYS: Final = frozenset((NAL_IDR, NAL_SPS, NAL_PPS))
"""What a key frame is made of, or those behind it."""

MAX_PARAMETER_SETS: Final = 32
"""Of each kind; H.264 has ids up to 31 for sequences and 255 for pictures, senders use one or two."""

_SPROP = re.compile(r"(?:^|;)\s*sprop-parameter-sets=([A-Za-z0-9+/=,]{1,2048})")


class H264Depacketizer:
    """Joins the NAL units of one access unit and remembers parameter sets."""

    __slots__ = ("_pps", "_sends_sets", "_sps")

    def __init__(self, fmtp: str = "") -> None:
        """Take the parameter sets of a=fmtp; unreadable ones are ignored."""
        self._sps: dict[bytes, None] = {}
        self._pps: dict[bytes, None] = {}
        self._sends_sets = False
        """A key frame came with parameter sets of its own."""
        for unit in announced_units(_SPROP, fmtp):
            self._remember(unit)

    def starts_frame(self, payload: Octets) -> bool:
        """Parameter sets, delimiter, SEI, a prefix, or a slice that begins with macroblock 0."""
        if len(payload) < 2:
            return False
        kind = payload[0] & 0x1F
        if kind == STAP_A:
            return len(payload) > 4 and _opens(payload[3] & 0x1F, payload[4])
        if kind == FU_A:
            return len(payload) > 2 and bool(payload[1] & 0x80) and _opens(payload[1] & 0x1F, payload[2])
        return _opens(kind, payload[1])

    def frame(self, payloads: Sequence[Octets]) -> Frame:
        """See Depacketizer."""
        pieces = _nal_units(payloads)
        kinds = {unit[1][0] & 0x1F for unit in pieces}
        if kinds.isdisjoint(_KEYS):  # nearly all
            return Frame(b"" if kinds.isdisjoint(_PICTURES) else b"".join(chain.from_iterable(pieces)), False)
        units = [b"".join(unit[1:]) for unit in pieces]
        own_sps = next((unit for unit in reversed(units) if unit[0] & 0x1F == NAL_SPS), None)
        size = _size(own_sps)
        if size == FILLER_SIZE:  # before anything of it is remembered
            return Frame(b"", False, filler=True)
        for unit in units:
            self._remember(unit)
        if kinds.isdisjoint(_PICTURES):
            return Frame(b"", False, *size)
        if NAL_IDR not in kinds or not self._sps or not self._pps:  # nothing can start without parameter sets
            return Frame(byte_stream(units), False)
        complete = {NAL_SPS, NAL_PPS} <= kinds
        self._sends_sets |= complete
        width, height = size if own_sps else _size(next(reversed(self._sps)))
        data = byte_stream(self._completed(units, kinds))
        return Frame(data, True, width, height, borrows=self._sends_sets and not complete)

    def _completed(self, units: list[bytes], kinds: set[int]) -> list[bytes]:
        """Put remembered parameter sets where an IDR picture lacks them: sequences first, pictures before the slices."""
        if NAL_PPS not in kinds:
            first = next(index for index, unit in enumerate(units) if unit[0] & 0x1F == NAL_IDR)
            units[first:first] = self._pps
        if NAL_SPS not in kinds:
            first = 1 if units[0][0] & 0x1F == NAL_AUD else 0
            units[first:first] = self._sps
        return units

    def _remember(self, unit: bytes) -> None:
        """Keep a parameter set; one with the same id replaces the earlier one."""
        kind = unit[0] & 0x1F if 0 < len(unit) <= MAX_PARAMETER_SET_BYTES else 0
        if kind == NAL_SPS:
            # A new sequence parameter set begins a new stream of pictures: keep it alone, its pictures' sets follow
            if unit not in self._sps:
                self._sps = {unit: None}
        elif kind == NAL_PPS:
            if unit in self._pps:
                return
            self._pps = {known: None for known in self._pps if first_code(known, 1) != first_code(unit, 1)}
            if len(self._pps) < MAX_PARAMETER_SETS:
                self._pps[unit] = None


def _size(sps: bytes | None) -> tuple[int, int]:
    """Picture size; 0x0 where there is no set or it cannot be read: the stream is kept as it came all the same."""
    try:
        return picture_size(sps) if sps else (0, 0)
    except ParseError:
        return 0, 0


def _opens(kind: int, first: int) -> bool:
    # first_mb_in_slice is the first ue(v) of a slice header: 0 is the single bit 1 (ITU-T H.264 section 7.3.3)
    return (
        kind in (NAL_SEI, NAL_SPS, NAL_PPS, NAL_AUD)
        or NAL_PREFIX <= kind <= NAL_LAST_RESERVED
        or (kind in (NAL_SLICE, NAL_PARTITION_A, NAL_IDR) and first >= 0x80)
    )


def _nal_units(payloads: Sequence[Octets]) -> list[list[Octets]]:
    """Undo RFC 6184 section 5.6 (single), 5.7.1 (STAP-A), 5.8 (FU-A). Of each unit its pieces, behind a start code."""
    units: list[list[Octets]] = []
    following = iter(payloads)
    for payload in following:
        if len(payload) < 2:
            raise ParseError(f"H.264 payload needs 2 bytes, got {len(payload)}")
        kind = payload[0] & 0x1F
        if kind == FU_A:
            units.append(_fragmented(payload, following))
        elif 0 < kind < STAP_A:
            units.append([START_CODE, payload])
        elif kind == STAP_A:
            units += ([START_CODE, unit] for unit in _aggregated(payload))
        else:
            raise ParseError(f"H.264 payload of type {kind} is not used in mode 0 or 1")
    return units


def _fragmented(first: Octets, following: Iterator[Octets]) -> list[Octets]:
    """Take the other fragments of a unit from those that follow its first one."""
    # | F |NRI|  28  | S | E | R | type | fragment …
    if not first[1] & 0x80:
        raise ParseError("H.264 fragment out of place")
    pieces = [START_CODE, bytes((first[0] & 0xE0 | first[1] & 0x1F,)), first[2:]]
    if first[1] & 0x40:
        return pieces
    amid = bytes((first[0], first[1] & 0x1F))  # how all but the last begin: S and E are 0
    for payload in following:
        if not payload.startswith(amid):
            if len(payload) < 2 or payload[0] & 0x1F != FU_A:
                raise ParseError("H.264 fragmented unit is interrupted")
            if payload[1] & 0x80:
                raise ParseError("H.264 fragment out of place")
            if payload[1] & 0x40:
                pieces.append(payload[2:])
                return pieces
        pieces.append(payload[2:])
    raise ParseError("H.264 fragmented unit has no end")


def _aggregated(payload: Octets) -> list[bytes]:
    units: list[bytes] = []
    offset = 1
    while offset < len(payload):
        size = int.from_bytes(payload[offset : offset + 2], "big")
        offset += 2
        if not size or offset + size > len(payload):
            raise ParseError(f"STAP-A unit of {size} bytes, {len(payload) - offset} are there")
        units.append(bytes(payload[offset : offset + size]))
        offset += size
    return units
