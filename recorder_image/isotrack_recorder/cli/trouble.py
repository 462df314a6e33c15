"""Tell a person that the storage is away, and that it is back. Its calls are repeated for long: without a word that looks like a command
that hangs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TextIO

from .display import tell

if TYPE_CHECKING:
    from isotrack_recorder.ship.store import Trouble

QUIET_SECONDS: Final = 3.0
"""Failures that pass within such a time are not worth a line."""


class StorageTrouble:
    """Hears of every call to the storage how it went, and says once that they fail, and once that they do no more. Thread-safe.

    Args:
        meanwhile: What happens as long as the storage is away.
        clock: Seconds, steadily.
    """

    def __init__(self, stream: TextIO, meanwhile: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._meanwhile = meanwhile
        self._clock = clock
        self._lock = threading.Lock()
        self._since: float | None = None
        self._told = False

    def __call__(self, trouble: Trouble | None) -> None:
        """Take in one answer: what was wrong with it, or None."""
        with self._lock:
            line = self._line(trouble)
        if line:
            tell(self._stream, f"isotrack: {line}\n")

    def _line(self, trouble: Trouble | None) -> str:
        if trouble is None:
            was_told, self._since, self._told = self._told, None, False
            return "the storage answers again" if was_told else ""
        now = self._clock()
        if self._since is None:  # NB: what is final at once its caller tells
            self._since = now
        if self._told or now - self._since < QUIET_SECONDS:
            return ""
        self._told = True
        return f"{trouble.message}; {self._meanwhile}"
