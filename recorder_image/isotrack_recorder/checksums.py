"""Checksums of files as manifests state them (pure).

A file that is sent in parts while it grows has no plain SHA-256: the sum cannot be had out of order, nor be continued by another
process. It has the SHA-256 over the SHA-256 sums of its parts, and like every file the CRC-32 of the whole, which can be combined.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

_POLYNOMIAL: Final = 0xEDB88320
"""Of zlib.crc32, bits reversed."""


@dataclass(frozen=True, slots=True)
class FileDigest:
    """Checksums of a file. `sha256` or `parts_sha256`, or both."""

    crc32: int
    """Of the whole file."""
    sha256: str | None
    """Of the whole file, lower-case hex."""
    parts_sha256: str | None = None
    """SHA-256 over the SHA-256 sums (32 bytes each) of its parts of `part_bytes`, the last one what is left."""
    part_bytes: int | None = None


class FileSums:
    """Takes the bytes of a file in order."""

    def __init__(self, part_bytes: int | None = None) -> None:
        self.size = 0
        self._crc32 = 0
        self._whole = hashlib.sha256()
        self._part_bytes = part_bytes
        self._part, self._in_part = hashlib.sha256(), 0
        self._parts = hashlib.sha256()

    def update(self, data: bytes) -> None:
        """Take the next bytes."""
        self.size += len(data)
        self._crc32 = zlib.crc32(data, self._crc32)
        self._whole.update(data)
        view = memoryview(data)
        while self._part_bytes and view:
            taken = view[: self._part_bytes - self._in_part]
            self._part.update(taken)
            self._in_part += len(taken)
            view = view[len(taken) :]
            if self._in_part == self._part_bytes:
                self._end_part()

    def digest(self) -> FileDigest:
        """All sums. Nothing is taken afterwards."""
        if self._in_part:
            self._end_part()
        parts = self._parts.hexdigest() if self._part_bytes else None
        return FileDigest(self._crc32, self._whole.hexdigest(), parts, self._part_bytes)

    def _end_part(self) -> None:
        self._parts.update(self._part.digest())
        self._part, self._in_part = hashlib.sha256(), 0


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums of the same bytes."""

    sha256: bytes
    crc32: int = 0
    md5: bytes = b""
    """Empty where nobody asked for it."""


def sums_of(chunks: Iterable[bytes | memoryview], *, crc32: bool = True, md5: bool = True) -> Sums:
    """Take several sums in one walk. Chunks that fit into the processor's cache come from the memory once for all of them.

    Args:
        crc32, md5: Whether it is wanted; each costs as much as sending.
    """
    strong, old, crc = hashlib.sha256(), hashlib.md5(usedforsecurity=False) if md5 else None, 0
    for data in chunks:
        strong.update(data)
        if crc32:
            crc = zlib.crc32(data, crc)
        if old is not None:
            old.update(data)
    return Sums(strong.digest(), crc, old.digest() if old is not None else b"")


def crc32_combine(first: int, second: int, second_bytes: int) -> int:
    """CRC-32 of data whose beginning has the CRC `first` and whose rest, `second_bytes` long, has `second`.

    Source: zlib, crc32_combine(): appending a zero byte multiplies by x**8 modulo the polynomial.
    """
    return _multiply(_power_of_x(8 * second_bytes), first) ^ second


def _multiply(a: int, b: int) -> int:
    """Product of two polynomials over GF(2), modulo the CRC's; the highest bit is x**0."""
    product = 0
    for bit in range(31, -1, -1):
        if a >> bit & 1:
            product ^= b
        b = b >> 1 ^ (_POLYNOMIAL if b & 1 else 0)
    return product


def _power_of_x(exponent: int) -> int:
    """x**exponent modulo the CRC's polynomial."""
    result, square = 1 << 31, 1 << 30
    while exponent:
        if exponent & 1:
            result = _multiply(square, result)
        square = _multiply(square, square)
        exponent >>= 1
    return result
