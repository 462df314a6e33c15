"""Bytes of files on their way to the bucket, on the disk: one file per part.

    <folder>/<hash of the name>.00001        part 1, waits for its head until the file is finished
    <folder>/<hash of the name>.00002 …      go away when the storage has acknowledged them

So memory holds a part only while it is sent, and what was muxed outlives the process.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from isotrack_recorder.finalise.model import Progress

from .store import PART_BYTES


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

    def read(self, name: str, part: int, size: int) -> bytearray:
        """One part: its first `size` bytes. OSError when it is not here whole."""
        path = self._path(name, part)
        body = bytearray(size)
        with path.open("rb", buffering=0) as file:
            view = memoryview(body)
            while view:
                count = file.readinto(view)
                if not count:
                    raise OSError(f"{path} ends before its {size} bytes")
                view = view[count:]
        return body

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


def part_sizes(size: int) -> Iterator[tuple[int, int]]:
    """Number and size of each part of a file."""
    for number, start in enumerate(range(0, size, PART_BYTES), 1):
        yield number, min(PART_BYTES, size - start)


def _hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:24]
