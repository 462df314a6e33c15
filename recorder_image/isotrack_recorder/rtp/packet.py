"""Layout of RTP packets: header, header extensions, padding (RFC 3550 section 5.1, RFC 8285).

     0                   1                   2                   3
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |V=2|P|X|  CC   |M|     PT      |       sequence number         |
    |                           timestamp                           |
    |                             SSRC                              |
    |                  CC contributing sources, 32 bits each        |
    |      extension profile        |   length in 32-bit words      |
    |                       extensions, payload, padding            |

The packet loop (rtp.plane) reads header and bounds in place, without a call or an object per packet; `parse_packet` is
the same reading as a value, for tests and tools, and tests hold the two together.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

from isotrack_recorder.codecs.base import Octets
from isotrack_recorder.errors import ParseError

Buffer = bytes | bytearray | mmap.mmap
"""Where packets lie: one datagram, or the memory of a batch. Slices of a mapping are bytes."""
Header = tuple[int, int, int, int, int]
"""The first 16 bytes as WIDE_HEADER reads them: two octets as one number, sequence number, timestamp, SSRC; and, where an extension follows
at once, how many 32-bit words it has. The last number means nothing in other packets, which may also be shorter."""
HEADER: Final = struct.Struct("!BBHLL")
WIDE_HEADER: Final = struct.Struct("!HHLLxxH")
MARKER: Final = 0x80
"""Of the first number."""
ONE_BYTE_PROFILE: Final = 0xBEDE
TWO_BYTE_PROFILE: Final = 0x1000
"""Upper 12 bits; the lower 4 are the application's (RFC 8285 section 4.3)."""


class Packet(NamedTuple):
    """One RTP packet."""

    payload_type: int
    sequence: int
    timestamp: int
    ssrc: int
    marker: bool
    extensions: dict[int, bytes]
    payload: bytes


def parse_packet(data: Octets) -> Packet:
    """Read a whole packet.

    Raises:
        ParseError: Not version 2, or lengths that do not fit.
    """
    if len(data) < HEADER.size:
        raise ParseError(f"RTP header needs {HEADER.size} bytes, got {len(data)}")
    first, second, sequence, timestamp, ssrc = HEADER.unpack_from(data)
    if first >> 6 != 2:
        raise ParseError(f"RTP version {first >> 6}, 2 is expected")
    offset, end = payload_bounds(data, 0, len(data))
    extensions = {number: bytes(data[at : at + size]) for number, at, size in iterate_extensions(data, 0, len(data))}
    return Packet(second & 0x7F, sequence, timestamp, ssrc, bool(second >> 7), extensions, bytes(data[offset:end]))


def payload_bounds(data: Buffer, start: int, end: int) -> tuple[int, int]:
    """Where the payload of the packet `data[start:end]` (header complete) lies.

    Raises:
        ParseError: Sources, extensions or padding reach beyond the packet.
    """
    first = data[start]
    offset = start + 12 + 4 * (first & 0x0F)
    if first & 0x10:
        if offset + 4 > end:
            raise ParseError("RTP packet ends before its extension header")
        offset += 4 + 4 * (data[offset + 2] << 8 | data[offset + 3])
    if first & 0x20 and end > start:
        padding = data[end - 1]
        if not padding:
            raise ParseError("RTP packet with padding of 0 bytes")
        end -= padding
    if offset > end:
        raise ParseError(f"RTP packet lacks {offset - end} bytes")
    return offset, end


def iterate_extensions(data: Buffer, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield (id, offset, size) of each header extension; stops at the first that does not fit."""
    if not data[start] & 0x10:
        return
    position = start + 12 + 4 * (data[start] & 0x0F)
    if position + 4 > end:
        return
    profile = data[position] << 8 | data[position + 1]
    limit = min(end, position + 4 + 4 * (data[position + 2] << 8 | data[position + 3]))
    position += 4
    if profile == ONE_BYTE_PROFILE:
        while position < limit:
            head = data[position]
            position += 1
            if not head:  # padding
                continue
            number, size = head >> 4, (head & 0x0F) + 1
            # RFC 8285 section 4.2: 0 is padding and has no length, 15 is reserved; behind either nothing is known
            if number in (0, 15) or position + size > limit:
                return
            yield number, position, size
            position += size
    elif profile & 0xFFF0 == TWO_BYTE_PROFILE:
        while position + 1 < limit:
            number = data[position]
            if not number:
                position += 1
                continue
            size = data[position + 1]
            position += 2
            if position + size > limit:
                return
            yield number, position, size
            position += size


def build_packet(packet: Packet, padding: int = 0) -> bytes:
    """Write a packet, its extensions in the one-byte form (the two-byte form where one is empty or long, or id > 14)."""
    extensions = b""
    if packet.extensions:
        short = all(0 < number < 15 and 0 < len(value) <= 16 for number, value in packet.extensions.items())
        if short:
            body = b"".join(
                bytes([number << 4 | len(value) - 1]) + value for number, value in packet.extensions.items()
            )
        else:
            body = b"".join(bytes([number, len(value)]) + value for number, value in packet.extensions.items())
        body += bytes(-len(body) % 4)
        profile = ONE_BYTE_PROFILE if short else TWO_BYTE_PROFILE
        extensions = struct.pack("!HH", profile, len(body) // 4) + body
    first = 0x80 | (0x20 if padding else 0) | (0x10 if extensions else 0)
    head = HEADER.pack(first, packet.marker << 7 | packet.payload_type, packet.sequence, packet.timestamp, packet.ssrc)
    tail = bytes(padding - 1) + bytes([padding]) if padding else b""
    return head + extensions + packet.payload + tail
