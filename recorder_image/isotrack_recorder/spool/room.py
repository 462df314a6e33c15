"""Measure how much room a spool has: what lies in its folder against its limit and the disk's free space.

Files are measured as the kubelet measures an emptyDir (blocks taken, folders included), or by their size where that is more:
some file systems assign blocks late.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .watermarks import Usage

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
