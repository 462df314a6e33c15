"""RTP payloads of VP9, H.264, H.265 and AV1 as senders make them, written from the payload formats alone."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence


def chunks(data: bytes, size: int) -> list[bytes]:
    """Cut data into pieces."""
    return [data[at : at + size] for at in range(0, len(data), size)]


def vp9_payloads(
    layers: Sequence[bytes],
    *,
    size: int = 1000,
    picture_id: int | None = 1,
    first_layer: int = 0,
    inter: bool = False,
    dependent: bool = True,
    structure: bytes = b"",
    flexible: Sequence[int] = (),
) -> list[bytes]:
    """One picture (RFC 9628 section 4.2).

    Args:
        layers: One frame per spatial layer.
        first_layer: Spatial layer of the first one: an SFU may leave lower ones out.
        inter: Pictures before are referred to.
        dependent: Upper layers refer to lower ones.
        structure: Scalability structure of the first packet.
        flexible: P_DIFFs; then the flexible mode is used.
    """
    payloads = []
    for number, frame in enumerate(layers):
        pieces = chunks(frame, size)
        for index, piece in enumerate(pieces):
            with_structure = structure if number == index == 0 else b""
            flags = (
                0x80 * (picture_id is not None)
                | 0x40 * inter
                | 0x20 * (len(layers) > 1 or first_layer > 0)
                | 0x10 * bool(flexible)
                | 0x08 * (index == 0)
                | 0x04 * (index == len(pieces) - 1)
                | 0x02 * bool(with_structure)
            )
            head = bytes((flags,))
            if picture_id is not None:
                head += struct.pack("!H", 0x8000 | picture_id) if picture_id > 127 else bytes((picture_id,))
            if flags & 0x20:
                head += bytes(((number + first_layer) << 1 | (dependent and number > 0),))
                head += b"" if flexible else b"\x07"  # TL0PICIDX
            if flexible and inter:
                more = len(flexible) - 1
                head += bytes(step << 1 | (at < more) for at, step in enumerate(flexible))
            payloads.append(head + with_structure + piece)
    return payloads


def h264_payloads(frame: bytes, size: int) -> list[bytes]:
    """One Annex B access unit: NAL units of at most `size` bytes alone (RFC 6184 section 5.6), others in fragments (5.8)."""
    payloads = []
    for unit in re.split(b"\0\0\0?\x01", frame)[1:]:
        if len(unit) <= size:
            payloads.append(unit)
            continue
        pieces = chunks(unit[1:], size - 2)
        for index, piece in enumerate(pieces):
            edges = 0x80 * (index == 0) | 0x40 * (index == len(pieces) - 1)
            payloads.append(bytes((unit[0] & 0xE0 | 28, edges | unit[0] & 0x1F)) + piece)
    return payloads


def h265_aggregate(*units: bytes, don: int | None = None) -> bytes:
    """Aggregation packet (RFC 7798 section 4.4.2); `don` of the first unit, each further one follows directly."""
    body = b""
    for index, unit in enumerate(units):
        if don is not None:
            body += struct.pack("!H", don) if index == 0 else b"\0"
        body += struct.pack("!H", len(unit)) + unit
    return b"\x60\x01" + body


def h265_fragments(unit: bytes, size: int, *, don: int | None = None) -> list[bytes]:
    """Fragmentation units (RFC 7798 section 4.4.3)."""
    pieces = chunks(unit[2:], size)
    kind = unit[0] >> 1 & 0x3F
    payloads = []
    for index, piece in enumerate(pieces):
        head = bytes((unit[0] & 0x81 | 49 << 1, unit[1]))
        head += bytes((kind | 0x80 * (index == 0) | 0x40 * (index == len(pieces) - 1),))
        payloads.append(head + (struct.pack("!H", don) if don is not None and index == 0 else b"") + piece)
    return payloads


def h265_single(unit: bytes, *, don: int) -> bytes:
    """Single NAL unit packet with its decoding order number (RFC 7798 section 4.4.1)."""
    return unit[:2] + struct.pack("!H", don) + unit[2:]


def leb128(value: int) -> bytes:
    """AV1 bitstream specification section 4.10.5."""
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*written, value))


def obu(kind: int, payload: bytes, *, size: bool = True, extension: int | None = None) -> bytes:
    """An OBU, with its size or without."""
    head = bytes((kind << 3 | 0x04 * (extension is not None) | 0x02 * size,))
    head += b"" if extension is None else bytes((extension,))
    return head + (leb128(len(payload)) if size else b"") + payload


def av1_payloads(units: Sequence[bytes], size: int, *, counted: bool = True, new_sequence: bool = False) -> list[bytes]:
    """Pack OBUs (without size) of one temporal unit, each packet filled up to `size` bytes (AV1 payload format section 4).

    Args:
        counted: Write W where it fits (up to 3 elements), so that the last element has no length.
        new_sequence: Set N on the first packet.
    """
    packets: list[list[bytes]] = [[]]
    continued = [False]
    room = size - 1
    for unit in units:
        rest, first = unit, True
        while rest or first:
            if room < 4:
                packets.append([])
                continued.append(not first)
                room = size - 1
            piece, rest = rest[: room - 3], rest[room - 3 :]
            packets[-1].append(piece)
            room -= len(piece) + 3
            first = False
    return [
        _av1_packet(
            elements,
            z=continued[index],
            y=index + 1 < len(packets) and continued[index + 1],
            n=new_sequence and index == 0,
            counted=counted,
        )
        for index, elements in enumerate(packets)
    ]


def _av1_packet(elements: Sequence[bytes], *, z: bool, y: bool, n: bool, counted: bool) -> bytes:
    count = len(elements) if counted and len(elements) <= 3 else 0
    body = b"".join(leb128(len(element)) + element for element in elements[: -1 if count else None])
    return bytes((0x80 * z | 0x40 * y | count << 4 | 0x08 * n,)) + body + (elements[-1] if count else b"")
