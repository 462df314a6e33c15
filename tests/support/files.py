"""A FileSink in memory."""

from __future__ import annotations

from collections import defaultdict


class MemoryFiles:
    """Keeps whole files by name."""

    def __init__(self) -> None:
        self.files: dict[str, bytearray] = defaultdict(bytearray)

    def write(self, name: str, offset: int, data: bytes) -> None:
        file = self.files[name]
        file.extend(bytes(max(0, offset + len(data) - len(file))))
        file[offset : offset + len(data)] = data
