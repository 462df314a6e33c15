"""Waiting for a storage without waiting: for tests of what watches a bucket for a time."""

from __future__ import annotations

import time
from collections.abc import Callable

from isotrack_recorder.ship.retry import Patience

from .memory_store import MemoryStore


class Waiting(Patience):
    """The patience of a store, and its clock: a pause is over at once, and what happens meanwhile is said beforehand."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__()
        self.now = 0.0
        """Seconds that were waited so far."""
        self._store = store
        self._events: list[tuple[float, Callable[[], object]]] = []
        store.patience = self
        store.now = lambda: time.time() + self.now

    def at(self, moment: float, event: Callable[[], object]) -> None:
        """Let something happen in the pause that contains a moment."""
        self._events.append((moment, event))

    def clock(self) -> float:
        """Seconds, steadily."""
        return self.now

    def goes_on(self, seconds: float) -> None:
        """Let time pass: nobody could do anything meanwhile."""
        self.now += seconds
        self._store.clock_skew_seconds = self.now

    def pause(self, seconds: float) -> bool:
        self.goes_on(seconds)
        due = [event for moment, event in self._events if moment <= self.now]
        self._events = [(moment, event) for moment, event in self._events if moment > self.now]
        for event in due:
            event()
        return self.left() > 0
