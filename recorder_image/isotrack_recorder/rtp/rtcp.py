"""RTCP: read what an SFU sends, write the feedback that a receiver owes (RFC 3550 section 6, RFC 3611, RFC 4585, RFC 5104).

Reading is tolerant: unknown packet types and profile-specific extensions are passed over, a packet whose length does
not fit ends the compound. Writing keeps every compound below the 1,200 bytes that pass any path and SRTCP buffer.
Transport-wide feedback is in rtp.twcc.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from isotrack_recorder.codecs.base import Octets

# RFC 3550 section 12.1, RFC 4585 section 6.1
SENDER_REPORT: Final = 200
RECEIVER_REPORT: Final = 201
SOURCE_DESCRIPTION: Final = 202
BYE: Final = 203
TRANSPORT_FEEDBACK: Final = 205
PAYLOAD_FEEDBACK: Final = 206
# RFC 3611 section 2 and 4
EXTENDED_REPORT: Final = 207
BLOCK_RECEIVER_REFERENCE_TIME: Final = 4
BLOCK_DLRR: Final = 5

# RFC 4585 section 6.2.1 and 6.3.1, RFC 5104 section 4.3.1, draft-alvestrand-rmcat-remb-03
FMT_NACK: Final = 1
FMT_PLI: Final = 1
FMT_FIR: Final = 4
FMT_REMB: Final = 15

MAX_COMPOUND_BYTES: Final = 1200
MAX_REPORT_BLOCKS: Final = 31
MAX_NACK_ENTRIES: Final = 250
MAX_REMB_SSRCS: Final = 250
MAX_DLRR: Final = 90
CNAME: Final = 1

_HEADER: Final = struct.Struct("!BBH")
_SENDER_INFO: Final = struct.Struct("!LQLLL")
_BLOCK: Final = struct.Struct("!LLLLLL")


class SenderReport(NamedTuple):
    """RFC 3550 section 6.4.1; `ntp` is in 2**-32 s since 1900."""

    ssrc: int
    ntp: int
    timestamp: int
    packets: int
    octets: int


class Bye(NamedTuple):
    """RFC 3550 section 6.6."""

    ssrcs: tuple[int, ...]


class ReferenceTime(NamedTuple):
    """What a receiver's clock said as it sent this (RFC 3611 section 4.4); `ntp` counts 2**-32 s."""

    ssrc: int
    ntp: int


class Dlrr(NamedTuple):
    """When the reference time of the receiver `ssrc` came, told back to it (RFC 3611 section 4.5)."""

    ssrc: int
    last: int
    """Middle 32 bits of the reference time."""
    delay: int
    """Since it came, in 1/65536 s."""


class ReportBlock(NamedTuple):
    """What we say of one source (RFC 3550 section 6.4.1)."""

    ssrc: int
    fraction_lost: int
    """Of 256, since the last report."""
    lost: int
    highest: int
    """Extended sequence number, 32 bits."""
    jitter: int
    """In ticks."""
    last_report: int
    """Middle 32 bits of the NTP time of the last SR; 0 where there was none."""
    delay: int
    """Since that SR, in 1/65536 s."""


def parse_compound(data: Octets) -> Iterator[SenderReport | Bye | ReferenceTime | Dlrr]:
    """Yield what concerns a receiver of one RTCP datagram."""
    offset = 0
    while offset + 8 <= len(data):
        first, kind, words = _HEADER.unpack_from(data, offset)
        end = offset + 4 + 4 * words
        if first >> 6 != 2 or end > len(data):
            return
        if kind == SENDER_REPORT and end - offset >= 4 + _SENDER_INFO.size:
            yield SenderReport(*_SENDER_INFO.unpack_from(data, offset + 4))
        elif kind == BYE:
            count = min(first & 0x1F, (end - offset - 4) // 4)
            yield Bye(struct.unpack_from(f"!{count}L", data, offset + 4))
        elif kind == EXTENDED_REPORT:
            yield from _parse_blocks(data, offset + 4, end)
        offset = end


def _parse_blocks(data: Octets, offset: int, end: int) -> Iterator[ReferenceTime | Dlrr]:
    """Blocks of an extended report; others than of time are passed over."""
    #  |     SSRC of the sender        |
    #  |  type  |        | words       | block, its contents
    (sender,) = struct.unpack_from("!L", data, offset)
    offset += 4
    while offset + 4 <= end:
        kind, _, words = _HEADER.unpack_from(data, offset)
        offset += 4
        size = min(4 * words, end - offset)
        if kind == BLOCK_RECEIVER_REFERENCE_TIME and size >= 8:
            yield ReferenceTime(sender, *struct.unpack_from("!Q", data, offset))
        elif kind == BLOCK_DLRR:
            for at in range(offset, offset + size - 11, 12):
                yield Dlrr(*struct.unpack_from("!LLL", data, at))
        offset += 4 * words


def build_extended_report(sender: int, ntp: int, told: Sequence[Dlrr]) -> bytes:
    """State our reference time, and answer those that others stated (RFC 3611 section 4.4 and 4.5)."""
    blocks = struct.pack("!BBHQ", BLOCK_RECEIVER_REFERENCE_TIME, 0, 2, ntp)
    if told:
        rows = b"".join(struct.pack("!LLL", *row) for row in told[:MAX_DLRR])
        blocks += struct.pack("!BBH", BLOCK_DLRR, 0, len(rows) // 4) + rows
    return struct.pack("!BBHL", 0x80, EXTENDED_REPORT, 1 + len(blocks) // 4, sender) + blocks


def build_receiver_reports(sender: int, blocks: Sequence[ReportBlock], cname: str) -> Iterator[bytes]:
    """Write RR + SDES compounds, 31 blocks in each; one without blocks where there are none."""
    description = _source_description(sender, cname)
    for start in range(0, max(1, len(blocks)), MAX_REPORT_BLOCKS):
        some = blocks[start : start + MAX_REPORT_BLOCKS]
        body = b"".join(
            _BLOCK.pack(b.ssrc, b.fraction_lost << 24 | b.lost & 0xFFFFFF, b.highest, b.jitter, b.last_report, b.delay)
            for b in some
        )
        head = struct.pack("!BBHL", 0x80 | len(some), RECEIVER_REPORT, 1 + 6 * len(some), sender)
        yield head + body + description


def _source_description(sender: int, cname: str) -> bytes:
    text = cname.encode()[:255]
    chunk = struct.pack("!LBB", sender, CNAME, len(text)) + text + b"\0"
    chunk += bytes(-len(chunk) % 4)
    return struct.pack("!BBH", 0x81, SOURCE_DESCRIPTION, len(chunk) // 4) + chunk


def build_nacks(sender: int, source: int, sequences: Iterable[int]) -> Iterator[bytes]:
    """Ask again for packets: `sequences` are 16-bit sequence numbers, ascending from the oldest (RFC 4585 section 6.2.1)."""
    entries: list[bytes] = []
    packet_id: int | None = None
    following = 0
    for sequence in sequences:
        if packet_id is not None:
            distance = (sequence - packet_id) & 0xFFFF
            if 1 <= distance <= 16:
                following |= 1 << (distance - 1)
                continue
            entries.append(struct.pack("!HH", packet_id, following))
        packet_id, following = sequence & 0xFFFF, 0
    if packet_id is not None:
        entries.append(struct.pack("!HH", packet_id, following))
    for start in range(0, len(entries), MAX_NACK_ENTRIES):
        some = b"".join(entries[start : start + MAX_NACK_ENTRIES])
        yield _feedback(TRANSPORT_FEEDBACK, FMT_NACK, sender, source, some)


def together(packets: Iterable[bytes]) -> Iterator[bytes]:
    """Put packets of feedback into as few datagrams as they fit in (RFC 5506): sending one costs more than what is in it."""
    compound = b""
    for packet in packets:
        if compound and len(compound) + len(packet) > MAX_COMPOUND_BYTES:
            yield compound
            compound = b""
        compound += packet
    if compound:
        yield compound


def build_pli(sender: int, source: int) -> bytes:
    """Ask for a key frame (RFC 4585 section 6.3.1)."""
    return _feedback(PAYLOAD_FEEDBACK, FMT_PLI, sender, source, b"")


def build_fir(sender: int, source: int, count: int) -> bytes:
    """Ask for a key frame of senders that offered `ccm fir` alone; `count` goes up with each new request (RFC 5104 section 4.3.1)."""
    return _feedback(PAYLOAD_FEEDBACK, FMT_FIR, sender, 0, struct.pack("!LB3x", source, count & 0xFF))


def build_remb(sender: int, bits_per_second: int, sources: Sequence[int]) -> Iterator[bytes]:
    """State how much we take (draft-alvestrand-rmcat-remb-03 section 2.2)."""
    exponent = max(0, bits_per_second.bit_length() - 18)
    for start in range(0, len(sources), MAX_REMB_SSRCS):
        some = sources[start : start + MAX_REMB_SSRCS]
        value = len(some) << 24 | exponent << 18 | bits_per_second >> exponent
        body = b"REMB" + struct.pack(f"!L{len(some)}L", value, *some)
        yield _feedback(PAYLOAD_FEEDBACK, FMT_REMB, sender, 0, body)


def _feedback(kind: int, fmt: int, sender: int, source: int, body: bytes) -> bytes:
    return struct.pack("!BBHLL", 0x80 | fmt, kind, 2 + len(body) // 4, sender, source) + body
