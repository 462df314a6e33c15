"""Bytes of files on their way to the bucket, on the disk: one file per part.

    <folder>/<hash of the name>.00001        part 1, waits for its head until the file is finished
    <folder>/<hash of the name>.00002 …      go away when the storage has acknowledged them

So no part is ever in memory as a whole, and what was muxed outlives the process.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from isotrack_recorder.finalise.model import Progress

from .store import PART_BYTES, Streamed


class Bodies:
    """A FileSink over one folder. Writing is one thread's business; whole parts may be read and dropped in others."""

    def __init__(self, folder: Path, progress: Progress | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._progress = progress
        self._unsynced: dict[str, set[int]] = {}
        self.written = 0
        """Bytes that were ever written."""

    def write(self, name: str, offset: int, data: bytes) -> None:
        """See FileSink. OSError when the disk is full."""
        view = memoryview(data)
        while view:
            part, at = divmod(offset, PART_BYTES)
            taken = view[: PART_BYTES - at]
            fd = os.open(self._path(name, part + 1), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                written = os.pwrite(fd, taken, at)
            finally:
                os.close(fd)
            self._unsynced.setdefault(name, set()).add(part + 1)
            view, offset = view[written:], offset + written
        self.written += len(data)
        if self._progress is not None and len(data) > 8:
            self._progress(name, offset)

    def sync(self, name: str) -> None:
        """Make what was written last."""
        for part in self._unsynced.pop(name, ()):
            fd = os.open(self._path(name, part), os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)

    def size(self, name: str, part: int) -> int:
        """Bytes of one part that are here; 0 when it is not."""
        try:
            return self._path(name, part).stat().st_size
        except FileNotFoundError:
            return 0

    def part(self, name: str, part: int, size: int) -> Streamed:
        """One part: its first `size` bytes, read as they are sent.

        Raises:
            OSError: it is not here whole.
        """
        path = self._path(name, part)
        _Beginning(path, size).close()
        return Streamed(size, lambda: cast("BinaryIO", _Beginning(path, size)))

    def drop(self, name: str, part: int) -> None:
        """Forget one part."""
        self._path(name, part).unlink(missing_ok=True)

    def drop_all(self, name: str) -> None:
        """Forget a file."""
        self._unsynced.pop(name, None)
        for path in self._folder.glob(f"{_hash(name)}.*"):
            path.unlink(missing_ok=True)

    def _path(self, name: str, part: int) -> Path:
        return self._folder / f"{_hash(name)}.{part:05}"


class _Beginning(io.FileIO):
    """The first `size` bytes of a file. OSError when it has fewer."""

    def __init__(self, path: Path, size: int) -> None:
        super().__init__(path)
        self._size = size
        if os.fstat(self.fileno()).st_size < size:
            self.close()
            raise OSError(f"{path} ends before its {size} bytes")

    def read(self, size: int | None = -1, /) -> bytes:
        """See RawIOBase."""
        left = max(0, self._size - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left)) or b""

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """See RawIOBase."""
        return super().seek(self._size + offset) if whence == io.SEEK_END else super().seek(offset, whence)


def part_sizes(size: int) -> Iterator[tuple[int, int]]:
    """Number and size of each part of a file."""
    for number, start in enumerate(range(0, size, PART_BYTES), 1):
        yield number, min(PART_BYTES, size - start)


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:24]
