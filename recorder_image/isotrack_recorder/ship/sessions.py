"""Saved states of sessions: what lets the next process go on with files that are half made.

One file per session, `<hash of the peer's id>.json`: `<crc32 as 8 hex digits> <JSON>`. A state is replaced as a whole, and lasts
before anything that relies on it is done. The volume is shared with the container that parses hostile bytes, so a state is data that
is checked, and names no path.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from pathlib import Path
from typing import Final

MAX_STATE_BYTES: Final = 64 * 1024 * 1024


class SavedSessions:
    """Owns one folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    def save(self, peer_id: str, state: bytes) -> None:
        """Replace a session's state. OSError when the disk is full; then the one before stays."""
        path = self._path(peer_id)
        temporary = path.with_suffix(".part")
        with temporary.open("wb") as file:
            file.write(b"%08x " % zlib.crc32(state))
            file.write(state)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)

    def load(self, peer_id: str) -> bytes | None:
        """A session's state; None when there is none, or it is damaged."""
        try:
            with self._path(peer_id).open("rb") as file:
                data = file.read(MAX_STATE_BYTES + 1)
        except FileNotFoundError:
            return None
        crc, _, state = data.partition(b" ")
        return state if len(data) <= MAX_STATE_BYTES and crc == b"%08x" % zlib.crc32(state) else None

    def drop(self, peer_id: str) -> None:
        """Forget a session."""
        self._path(peer_id).unlink(missing_ok=True)

    def _path(self, peer_id: str) -> Path:
        return self._folder / f"{hashlib.sha256(peer_id.encode()).hexdigest()[:24]}.json"
