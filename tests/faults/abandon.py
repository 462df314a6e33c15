"""A recording whose only pod was lost with its spool, made once and kept for the trials that finish copies of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from .evidence import Kill
from .people import Ledger
from .pods import Pod


@dataclass(frozen=True, slots=True)
class Left:
    """What is left of it."""

    pod: Pod
    """With the logs of its processes; its spool is gone."""
    ledger: Ledger
    obliged: tuple[float, float]
    lost: Kill
    objects: Mapping[str, bytes]
    """Everything below its prefix in the bucket, by key."""


class Abandoned:
    """Makes it when it is first asked for. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left: Left | None = None

    def get(self, make: Callable[[], Left]) -> Left:
        """The one recording."""
        with self._lock:
            if self._left is None:
                self._left = make()
            return self._left
