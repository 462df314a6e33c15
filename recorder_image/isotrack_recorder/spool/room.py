"""Measure how much room a spool has: what lies in its folder against its limit and the disk's free space.

Files are measured as the kubelet measures an emptyDir (blocks taken, folders included), or by their size where that is more:
some file systems assign blocks late.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .watermarks import NOTHING_KNOWN, Usage
from .writer import SpoolWriter

PACE: Final = 100
"""Of the time between two measurements, one takes this part at most."""
_BLOCK: Final = 512
"""Unit of st_blocks (stat(2)), whatever the file system's own block is."""


@dataclass(frozen=True, slots=True)
class Room:
    """Where a spool lies and what bounds it."""

    folder: Path
    limit: int | None = None
    """Bytes after which somebody would take the volume away; None = the disk alone bounds it."""
    copies: int = 1
    """How often the disk must hold what is captured: twice where the files will lie on it, too."""

    def measure(self) -> Usage:
        """Look at the disk. Cheap: one stat per file.

        Raises:
            OSError: the folder is not there.
        """
        used = folder_bytes(self.folder)
        disk = os.statvfs(self.folder)
        capacity = (used + disk.f_bavail * disk.f_frsize) // self.copies
        return Usage(used, capacity if self.limit is None else min(capacity, self.limit))


class WatchedRoom:
    """The room of a spool that is being written, for whoever must not wait for its disk.

    A recording of days has tens of thousands of files, and a disk that stalls holds up who looks into the folder in which it makes one.
    So the writing thread measures, for a hundredth of the time at most; until it has done so once more, what was taken since counts as
    if it lay there.
    """

    def __init__(self, measure: Callable[[], Usage], spool: SpoolWriter) -> None:
        self._measure = measure
        self._spool = spool
        self._usage = NOTHING_KNOWN
        self._taken = 0
        """`taken` as the newest figures were asked for."""
        self._pending: Future[tuple[Usage, float]] | None = None
        self._asked = 0
        """`taken` as the pending ones were."""
        self._began = 0.0
        self._seconds = 0.0
        """That measuring took last."""

    def __call__(self) -> Usage:
        """Figures of now. The first call waits for them.

        Raises:
            OSError: the folder is not there.
        """
        if self._usage is NOTHING_KNOWN:
            self._take(*self._timed(), self._spool.taken)
        elif self._pending is not None and self._pending.done():
            found, self._pending = self._pending, None
            self._take(*found.result(), self._asked)
        if self._pending is None and time.monotonic() - self._began >= PACE * self._seconds:
            self._began, self._asked = time.monotonic(), self._spool.taken
            self._pending = self._spool.aside(self._timed)
        return self._usage.grown_by(self._spool.taken - self._taken)

    def _take(self, usage: Usage, seconds: float, taken: int) -> None:
        self._usage, self._seconds, self._taken = usage, seconds, taken

    def _timed(self) -> tuple[Usage, float]:
        began = time.monotonic()
        return self._measure(), time.monotonic() - began


def folder_bytes(folder: Path) -> int:
    """Room that a folder takes with all below it; what vanishes meanwhile counts nothing."""
    total = 0
    folders = [os.fspath(folder)]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    info = entry.stat(follow_symlinks=False)
                    total += max(info.st_size, info.st_blocks * _BLOCK)
        except OSError:
            continue
    return total
