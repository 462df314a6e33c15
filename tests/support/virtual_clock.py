"""A Clock whose time passes only when a test says so."""

from __future__ import annotations

import asyncio
import heapq
from itertools import count

_NS = 1_000_000_000
TURNS = 20
"""Of the event loop after each step, so that whoever was woken gets through."""


class VirtualClock:
    """Starts at second 1000 of the monotonic clock and 2026-01-01 of the wall clock."""

    def __init__(self) -> None:
        self._now_ns = 1000 * _NS
        self._wall_offset_ns = 1_767_225_600 * _NS - self._now_ns
        self._order = count()
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []

    def monotonic_ns(self) -> int:
        """See Clock."""
        return self._now_ns

    def wall_ns(self) -> int:
        """See Clock."""
        return self._now_ns + self._wall_offset_ns

    def boot(self) -> str:
        """See Clock."""
        return "this-boot"

    def set_wall(self, seconds: float) -> None:
        """Somebody sets the wall clock, forwards or (below zero) backwards."""
        self._wall_offset_ns += int(seconds * _NS)

    async def sleep(self, seconds: float) -> None:
        """See Clock."""
        woken = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now_ns + int(seconds * _NS), next(self._order), woken))
        await woken

    async def advance(self, seconds: float) -> None:
        """Let time pass; sleepers wake in order, each at its moment."""
        await self.settle()
        until_ns = self._now_ns + int(seconds * _NS)
        while self._sleepers and self._sleepers[0][0] <= until_ns:
            self._now_ns, _, woken = heapq.heappop(self._sleepers)
            if not woken.done():
                woken.set_result(None)
            await self.settle()
        self._now_ns = until_ns

    async def settle(self) -> None:
        """Let everybody who can run do so, at this moment."""
        for _ in range(TURNS):
            await asyncio.sleep(0)
