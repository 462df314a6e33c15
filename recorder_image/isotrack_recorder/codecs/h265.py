"""H.265 in RTP (RFC 7798): NAL units of one access unit in, one Annex B byte stream out.

Single NAL units, aggregation packets and fragmentation units are read, with decoding order numbers where
sprop-max-don-diff announces them: units are then put into decoding order within their access unit. Parameter sets are
remembered, from the session description and from the stream, and put before a random access picture that comes without
them. What the sender sent is never changed or left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from isotrack_recorder.codecs.base import Frame, Octets
from isotrack_recorder.codecs.h265_sps import read_sps
from isotrack_recorder.codecs.nal import MAX_PARAMETER_SET_BYTES, announced_units, byte_stream, first_code
from isotrack_recorder.errors import ParseError

# ITU-T H.265 table 7-1
NAL_FIRST_IRAP: Final = 16
NAL_LAST_IRAP: Final = 21
"""BLA, IDR and CRA: a decoder can start here."""
NAL_LAST_VCL: Final = 31
NAL_VPS: Final = 32
NAL_SPS: Final = 33
NAL_PPS: Final = 34
NAL_AUD: Final = 35
NAL_PREFIX_SEI: Final = 39
NAL_FIRST_RESERVED: Final = 41
NAL_LAST_RESERVED: Final = 44
"""These begin an access unit, too (section 7.4.2.4.4)."""
# RFC 7798 section 4.4
AP: Final = 48
FU: Final = 49

MAX_PARAMETER_SETS: Final = 64
"""H.265 has ids up to 15 for video and sequences and 63 for pictures."""

_SPROP = re.compile(r"(?:^|;)\s*sprop-(?:vps|sps|pps)=([A-Za-z0-9+/=,]{1,4096})")
_DON_DIFF = re.compile(r"(?:^|;)\s*sprop-max-don-diff=0*[1-9]")


class H265Depacketizer:
    """Joins the NAL units of one access unit and remembers parameter sets."""

    __slots__ = ("_don_bytes", "_pps", "_sends_sets", "_sps", "_vps")

    def __init__(self, fmtp: str = "") -> None:
        """Take the parameter sets of a=fmtp; unreadable ones are ignored."""
        self._don_bytes = 2 if _DON_DIFF.search(fmtp) else 0
        self._vps = b""
        self._sps = b""
        self._pps: dict[bytes, None] = {}
        self._sends_sets = False
        """A key frame came with parameter sets of its own."""
        for unit in announced_units(_SPROP, fmtp):
            self._remember(unit)

    def starts_frame(self, payload: Octets) -> bool:
        """Parameter sets, delimiter, SEI, or the first slice segment of a picture."""
        if len(payload) < 3:
            return False
        kind = payload[0] >> 1 & 0x3F
        if kind == AP:
            at = 4 + self._don_bytes
            return len(payload) > at + 2 and _opens(payload[at] >> 1 & 0x3F, payload[at + 2])
        if kind == FU:
            at = 3 + self._don_bytes
            return len(payload) > at and bool(payload[2] & 0x80) and _opens(payload[2] & 0x3F, payload[at])
        at = 2 + self._don_bytes
        return len(payload) > at and _opens(kind, payload[at])

    def frame(self, payloads: Sequence[Octets]) -> Frame:
        """See Depacketizer."""
        units = self._nal_units(payloads)
        kinds = {_kind(unit) for unit in units}
        for unit in units:
            self._remember(unit)
        pictures = [kind for kind in kinds if kind <= NAL_LAST_VCL]
        if not pictures:
            # NB: with the video parameter set, which comes before: a film may begin with these (VideoAssembler.begins_film)
            width, height = _size(self._sps) if {NAL_VPS, NAL_SPS} <= kinds else (0, 0)
            return Frame(b"", False, width, height)
        random_access = all(NAL_FIRST_IRAP <= kind <= NAL_LAST_IRAP for kind in pictures)
        if not random_access or not self._vps or not self._sps or not self._pps:
            return Frame(byte_stream(units), False)
        complete = {NAL_SPS, NAL_PPS} <= kinds
        self._sends_sets |= complete
        width, height = _size(self._sps)
        data = byte_stream(self._completed(units, kinds))
        return Frame(data, True, width, height, borrows=self._sends_sets and not complete)

    def _completed(self, units: list[bytes], kinds: set[int]) -> list[bytes]:
        """Put remembered parameter sets where a picture lacks them: sequences first, pictures before the slices."""
        if NAL_PPS not in kinds:
            first = next(index for index, unit in enumerate(units) if _kind(unit) <= NAL_LAST_VCL)
            units[first:first] = self._pps
        first = 1 if _kind(units[0]) == NAL_AUD else 0
        if NAL_SPS not in kinds:
            units.insert(first, self._sps)
        if NAL_VPS not in kinds:
            units.insert(first, self._vps)
        return units

    def _remember(self, unit: bytes) -> None:
        """Keep a parameter set; one with the same id replaces the earlier one."""
        kind = _kind(unit) if 2 < len(unit) <= MAX_PARAMETER_SET_BYTES else -1
        if kind == NAL_VPS:
            self._vps = unit
        elif kind == NAL_SPS:
            self._sps = unit
        elif kind == NAL_PPS and unit not in self._pps:
            self._pps = {known: None for known in self._pps if first_code(known, 2) != first_code(unit, 2)}
            if len(self._pps) < MAX_PARAMETER_SETS:
                self._pps[unit] = None

    def _nal_units(self, payloads: Sequence[Octets]) -> list[bytes]:
        """Undo RFC 7798 section 4.4.1 (single), 4.4.2 (aggregation), 4.4.3 (fragmentation)."""
        units: list[bytes] = []
        dons: list[int] = []
        fragments: list[Octets] = []
        skip = self._don_bytes
        for payload in payloads:
            # |F|   Type    |  LayerId  | TID | DONL (2, if announced) | …
            least = 3 if fragments else 3 + skip  # the first fragment of a unit alone has a DONL
            if len(payload) < least:
                raise ParseError(f"H.265 payload needs {least} bytes, got {len(payload)}")
            kind = payload[0] >> 1 & 0x3F
            if fragments and kind != FU:
                raise ParseError("H.265 fragmented unit is interrupted")
            if kind < AP:
                units.append(bytes(payload[:2] + payload[2 + skip :]))
                dons.append(_don(payload, 2, skip))
            elif kind == AP:
                self._split_aggregate(payload, units, dons)
            elif kind == FU:
                # | PayloadHdr (2) |S|E|  FuType   | DONL (2, if announced and S) | …
                if bool(payload[2] & 0x80) == bool(fragments):
                    raise ParseError("H.265 fragment out of place")
                if not fragments:
                    fragments.append(bytes((payload[0] & 0x81 | (payload[2] & 0x3F) << 1, payload[1])))
                    fragments.append(payload[3 + skip :])
                    dons.append(_don(payload, 3, skip))
                else:
                    fragments.append(payload[3:])
                if payload[2] & 0x40:
                    units.append(b"".join(fragments))
                    fragments = []
            else:
                raise ParseError(f"H.265 payload of type {kind} is not used")
        if fragments:
            raise ParseError("H.265 fragmented unit has no end")
        return _in_decoding_order(units, dons) if skip else units

    def _split_aggregate(self, payload: Octets, units: list[bytes], dons: list[int]) -> None:
        """Take the units of an aggregation packet: DONL before the first size, DOND (1 byte) before the others."""
        offset = 2
        don = 0
        while offset < len(payload):
            if self._don_bytes:
                first = offset == 2
                don = _don(payload, 2, 2) if first else don + payload[offset] + 1 & 0xFFFF
                offset += 2 if first else 1
            size = int.from_bytes(payload[offset : offset + 2], "big")
            offset += 2
            if size < 2 or offset + size > len(payload):
                raise ParseError(f"H.265 aggregated unit of {size} bytes, {len(payload) - offset} are there")
            units.append(bytes(payload[offset : offset + size]))
            dons.append(don)
            offset += size


def _kind(unit: bytes) -> int:
    return unit[0] >> 1 & 0x3F


def _don(payload: Octets, at: int, size: int) -> int:
    return int.from_bytes(payload[at : at + size], "big")


def _in_decoding_order(units: list[bytes], dons: list[int]) -> list[bytes]:
    """Sort by 16-bit decoding order numbers that may run over; units of equal number stay as they came."""
    base = dons[0] if dons else 0
    order = sorted(range(len(units)), key=lambda index: (dons[index] - base + 0x8000) & 0xFFFF)
    return [units[index] for index in order]


def _size(sps: bytes) -> tuple[int, int]:
    """Picture size; 0x0 where the set cannot be read: the stream is kept as it came all the same."""
    try:
        found = read_sps(sps)
    except ParseError:
        return 0, 0
    return found.width, found.height


def _opens(kind: int, first: int) -> bool:
    # first_slice_segment_in_pic_flag is the first bit of a slice segment header (ITU-T H.265 section 7.3.6.1)
    if kind <= NAL_LAST_VCL:
        return first >= 0x80
    return NAL_VPS <= kind <= NAL_AUD or kind == NAL_PREFIX_SEI or NAL_FIRST_RESERVED <= kind <= NAL_LAST_RESERVED
