"""EBML primitives: variable-size integers and elements (RFC 8794)."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

from isotrack_recorder.errors import ParseError

MAX_SIZE_BYTES: Final = 8
UNKNOWN_SIZE: Final = -1
"""All value bits set: the element ends where an element of a higher level begins."""


def encode_size(value: int, width: int | None = None) -> bytes:
    """Encode an element's data size, in `width` bytes or as few as possible.

    Raises:
        ValueError: `value` does not fit.
    Source: RFC 8794 section 4 and 6.1; a value of all ones is reserved.
    """
    for length in (width,) if width else range(1, MAX_SIZE_BYTES + 1):
        if 0 <= value < (1 << 7 * length) - 1:
            return (value | 1 << 7 * length).to_bytes(length, "big")
    raise ValueError(f"{value} does not fit a size of {width or MAX_SIZE_BYTES} bytes")


def element(element_id: int, data: bytes) -> bytes:
    """One element: its ID as written in the specification (marker bits included), size, data."""
    return _id(element_id) + encode_size(len(data)) + data


def master(element_id: int, children: Iterable[bytes]) -> bytes:
    """An element that holds elements."""
    return element(element_id, b"".join(children))


def uint(element_id: int, value: int) -> bytes:
    """Unsigned integer element in as few bytes as possible."""
    return element(element_id, value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big"))


def sint(element_id: int, value: int) -> bytes:
    """Signed integer element of 8 bytes (DateUTC wants them all)."""
    return element(element_id, value.to_bytes(8, "big", signed=True))


def real(element_id: int, value: float) -> bytes:
    """Float element of 8 bytes."""
    return element(element_id, struct.pack("!d", value))


def text(element_id: int, value: str) -> bytes:
    """UTF-8 element."""
    return element(element_id, value.encode("utf-8", "replace"))


def void(size: int) -> bytes:
    """Padding of exactly `size` bytes, the element's own header included.

    Raises:
        ValueError: Fewer than 2 bytes cannot hold an element.
    """
    if size < 2:
        raise ValueError(f"padding of {size} bytes is impossible")
    width = 1 if size - 2 < 126 else MAX_SIZE_BYTES
    return b"\xec" + encode_size(size - 1 - width, width) + bytes(size - 1 - width)


class Header(NamedTuple):
    """ID and extent of one element."""

    id: int
    begin: int
    """Offset of the ID."""
    start: int
    """Offset of the data."""
    size: int
    """Bytes of data; UNKNOWN_SIZE."""


def read_header(data: bytes | memoryview, offset: int) -> Header:
    """Read an element's ID and size at `offset`.

    Raises:
        ParseError: `data` ends inside, or an ID longer than 4 or a size longer than 8 bytes.
    """
    id_width = _width(data, offset, 4)
    element_id = int.from_bytes(data[offset : offset + id_width], "big")
    width = _width(data, offset + id_width, MAX_SIZE_BYTES)
    start = offset + id_width + width
    size = int.from_bytes(data[offset + id_width : start], "big") & ((1 << 7 * width) - 1)
    return Header(element_id, offset, start, UNKNOWN_SIZE if size == (1 << 7 * width) - 1 else size)


def read_uint(data: bytes | memoryview) -> int:
    """Value of an unsigned integer element.

    Raises:
        ParseError: Longer than 8 bytes.
    """
    if len(data) > 8:
        raise ParseError(f"integer of {len(data)} bytes")
    return int.from_bytes(data, "big")


def read_real(data: bytes | memoryview) -> float:
    """Value of a float element.

    Raises:
        ParseError: Neither 0, 4 nor 8 bytes long.
    """
    if len(data) == 0:
        return 0.0
    if len(data) not in (4, 8):
        raise ParseError(f"float of {len(data)} bytes")
    return float(struct.unpack("!f" if len(data) == 4 else "!d", data)[0])


def _id(element_id: int) -> bytes:
    return element_id.to_bytes((element_id.bit_length() + 7) // 8, "big")


def _width(data: bytes | memoryview, offset: int, limit: int) -> int:
    """Length of the variable-size integer at `offset`; it must be there as a whole."""
    if not 0 <= offset < len(data):
        raise ParseError(f"element expected at {offset}, data ends at {len(data)}")
    width = 9 - data[offset].bit_length()
    if width > limit:
        raise ParseError(f"variable-size integer of more than {limit} bytes at {offset}")
    if offset + width > len(data):
        raise ParseError(f"variable-size integer at {offset} needs {width} bytes, data ends at {len(data)}")
    return width
