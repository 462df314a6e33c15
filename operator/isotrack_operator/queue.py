"""Keys that want a reconcile: each at most once in the queue and at most once in work.

A key that is added while it is in work is worked again afterwards, so no event is lost and none runs beside itself. Nothing delays the
first run: apply → Job is one turn. Failures come back with growing, jittered pauses; `add_after` wakes a key at a later time, the
earliest wish wins. Keys live here only while there is something to do about them.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)

FIRST_PAUSE = 0.5
MAX_PAUSE = 60.0


class WorkQueue(Generic[K]):
    """A queue of keys with its workers."""

    def __init__(self, work: Callable[[K], Awaitable[None]]) -> None:
        self._work = work
        self._ready: asyncio.Queue[K] = asyncio.Queue()
        self._queued: set[K] = set()
        self._working: set[K] = set()
        self._again: set[K] = set()
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}

    def __len__(self) -> int:
        """Keys in the queue or in work."""
        return len(self._queued) + len(self._working)

    def add(self, key: K) -> None:
        """Work on the key as soon as possible."""
        if key in self._working:
            self._again.add(key)
        elif key not in self._queued:
            self._queued.add(key)
            self._ready.put_nowait(key)

    def add_after(self, key: K, seconds: float) -> None:
        """Work on the key in so many seconds, or earlier if it was to be woken earlier."""
        loop = asyncio.get_running_loop()
        when = loop.time() + max(0.0, seconds)
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= when:
                return
            timer.cancel()
        self._timers[key] = loop.call_at(when, self._wake, key)

    def _wake(self, key: K) -> None:
        self._timers.pop(key, None)
        self.add(key)

    async def run(self, workers: int, running: asyncio.Event) -> None:
        """Work until cancelled; `running` is set once all workers are there."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for number in range(workers):
                    tasks.create_task(self._serve(), name=f"worker-{number}")
                running.set()
        finally:
            for timer in self._timers.values():
                timer.cancel()

    async def _serve(self) -> None:
        while True:
            key = await self._ready.get()
            self._queued.discard(key)
            self._working.add(key)
            # NB: a timer that was set for an earlier state is void now; this run sets its own.
            timer = self._timers.pop(key, None)
            if timer is not None:
                timer.cancel()
            try:
                await self._work(key)
                self._failures.pop(key, None)
            except Exception as error:  # noqa: BLE001 - whatever it is, this key is tried again and the others go on
                self._failed(key, error)
            finally:
                self._working.discard(key)
                if key in self._again:
                    self._again.discard(key)
                    self.add(key)

    def _failed(self, key: K, error: Exception) -> None:
        count = self._failures[key] = self._failures.get(key, 0) + 1
        pause = min(MAX_PAUSE, FIRST_PAUSE * 2.0 ** min(count - 1, 10)) * random.uniform(0.5, 1.0)
        fields = {"key": str(key), "failures": count, "again_s": round(pause, 1), "detail": str(error)[:500]}
        expected = getattr(error, "exit_code", None) is not None  # of our tree
        log.warning("reconcile failed", extra={"fields": fields}, exc_info=None if expected else error)
        self.add_after(key, pause)
