"""Read slices of a spool's files: for checksums, and as the body of a request that is read while it is sent.

Files are opened when their bytes are due and hold at least what was measured: they grow at their ends only. One that became
shorter or went away (a disk that ran full, a segment that was given back) makes the whole body unusable, which is found before
a byte is sent: SpoolChangedError.
"""

from __future__ import annotations

import io
import os
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO, Final, cast

from isotrack_recorder.errors import IsotrackError

from .checkpoint import Slice
from .store import Streamed

_CHUNK: Final = 256 * 1024
_BUFFER: Final = 64 * 1024
"""Whoever reads more at a time has it right from the files."""
_IN_MEMORY_BYTES: Final = 4 * 1024 * 1024
"""Five seconds of twenty people."""


class SpoolChangedError(IsotrackError):
    """A file of the spool has no longer what it had a moment ago: measure again."""


def chunks(spool: Path, part: Slice) -> Iterator[bytes]:
    """The bytes of one slice, piece by piece.

    Raises:
        SpoolChangedError: they are not there.
    """
    left = part.length
    try:
        with io.FileIO(f"{spool}/{part.path}") as file:
            file.seek(part.offset)
            while left and (data := file.read(min(left, _CHUNK))):
                left -= len(data)
                yield data
    except OSError as error:
        raise SpoolChangedError(f"{part.path} cannot be read: {error.strerror}") from error
    if left:
        raise SpoolChangedError(f"{part.path} became shorter")


def summed(spool: Path, slices: Sequence[Slice]) -> tuple[tuple[Slice, ...], bytes | None]:
    """Slices with their CRC-32, and their bytes one behind the other where these are few: then they are read once.

    Raises:
        SpoolChangedError: some slice is not there.
    """
    keeps = sum(part.length for part in slices) <= _IN_MEMORY_BYTES
    kept: list[bytes] = []
    found = []
    for part in slices:
        crc = 0
        for data in chunks(spool, part):
            crc = zlib.crc32(data, crc)
            if keeps:
                kept.append(data)
        found.append(replace(part, crc32=crc))
    return tuple(found), b"".join(kept) if keeps else None


def streamed(spool: Path, head: bytes, slices: Sequence[Slice]) -> Streamed:
    """`head`, then the slices, as a body that is read from the disk at each try.

    `open` of the result raises SpoolChangedError where some slice is not there, and so does reading where one goes away meanwhile.
    """
    size = len(head) + sum(part.length for part in slices)
    # BufferedReader is what the client library knows; it fills what was asked for from as many slices as that takes.
    return Streamed(size, lambda: cast("BinaryIO", io.BufferedReader(_Reader(spool, head, slices), _BUFFER)))


class _Reader(io.RawIOBase):
    """Head and slices as one file. Holds one file of the spool open at a time."""

    def __init__(self, spool: Path, head: bytes, slices: Sequence[Slice]) -> None:
        super().__init__()
        self._spool, self._head, self._slices = spool, head, slices
        self._ends = list(accumulate((part.length for part in slices), initial=len(head)))
        self._at = 0
        self._open: tuple[int, io.FileIO] | None = None
        for part in slices:
            self._check(part)

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """A request that is repeated begins again."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to an offset."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._ends[-1]}[whence]
        self._at = max(0, base + offset)
        return self._at

    def tell(self) -> int:
        """The offset."""
        return self._at

    def readinto(self, buffer: object) -> int:
        """Read from one piece."""
        view = memoryview(cast("bytearray", buffer)).cast("B")
        if data := self._head[self._at : self._at + len(view)]:
            view[: len(data)] = data
        try:
            count = len(data) or self._of_slices(view)
        except OSError as error:
            raise SpoolChangedError(f"a slice cannot be read: {error.strerror or error}") from error
        self._at += count
        return count

    def close(self) -> None:
        """Close what is open."""
        if self._open is not None:
            self._open[1].close()
            self._open = None
        super().close()

    def _of_slices(self, view: memoryview) -> int:
        number = bisect_right(self._ends, self._at) - 1
        if number >= len(self._slices):
            return 0
        part, start = self._slices[number], self._ends[number]
        if self._open is None or self._open[0] != number:
            if self._open is not None:
                self._open[1].close()
            self._open = (number, io.FileIO(f"{self._spool}/{part.path}"))
        file = self._open[1]
        file.seek(part.offset + self._at - start)
        count = file.readinto(view[: self._ends[number + 1] - self._at])
        if not count:
            raise OSError(f"{part.path} became shorter")
        return count

    def _check(self, part: Slice) -> None:
        try:
            size = os.stat(f"{self._spool}/{part.path}").st_size  # noqa: PTH116 - a hundred times per checkpoint of forty people
        except OSError as error:
            raise SpoolChangedError(f"{part.path} cannot be read: {error.strerror}") from error
        if size < part.end:
            raise SpoolChangedError(f"{part.path} became shorter")
