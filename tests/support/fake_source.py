"""A source whose call is played by the test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

from isotrack_recorder.media import TrackCounters
from isotrack_recorder.sources.base import Event, SourceHandler


class FakeSource:
    """Stands for an SFU at the recorder's own seam (`sources.base.Source`)."""

    def __init__(self, handler: SourceHandler) -> None:
        self.handler = handler
        self.wanted: set[str] = set()
        self.totals: dict[str, TrackCounters] = {}
        self.left = False
        self.socket: list[Callable[[], None]] = []
        """What hands over what has come and was not read."""
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        await self._ended

    def tell(self, *events: Event) -> None:
        for event in events:
            self.handler.on_event(event)

    def end(self, event: Event) -> None:
        self.tell(event)
        self._ended.set_result(None)

    def fail(self, error: Exception) -> None:
        self._ended.set_exception(error)

    def subscribe(self, track_ids: Iterable[str]) -> None:
        self.wanted |= set(track_ids)

    def unsubscribe(self, track_ids: Iterable[str]) -> None:
        self.wanted -= set(track_ids)

    def request_key_frame(self, track_id: str) -> None: ...

    def counters(self) -> Mapping[str, TrackCounters]:
        return self.totals

    def totals_of(self, track_id: str) -> TrackCounters | None:
        return self.totals.get(track_id)

    def receive(self) -> None:
        while self.socket:
            self.socket.pop(0)()

    def flush(self) -> None: ...

    async def leave(self) -> None:
        self.left = True
        if not self._ended.done():
            self._ended.set_result(None)
