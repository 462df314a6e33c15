"""Calls that Recordings wait for: asked at once, then in rounds, one request per class and round.

A Recording that waits has no pod; when its call appears, its key is woken. What is kept here is rebuilt by the next reconcile of each
key, so a restart loses nothing but one round.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from .errors import SourceError
from .source import Access, existing_rooms
from .store import Place
from .view import Call

log = logging.getLogger(__name__)

ANSWER_VALID = 1.5
"""Seconds for which an answer of a round, good or bad, spares the next reconcile a request of its own."""


class Ask(Protocol):
    """Asks a server which of these rooms exist: `source.existing_rooms`."""

    async def __call__(self, access: Access, rooms: Sequence[str]) -> set[str]: ...


@dataclass(frozen=True, slots=True)
class _Waiting:
    class_name: str
    call_id: str
    access: Access


class Calls:
    """Who waits for which call."""

    def __init__(self, wake: Callable[[Place], None], ask: Ask = existing_rooms) -> None:
        self._wake = wake
        self._ask = ask
        self._waiting: dict[Place, _Waiting] = {}
        self._answers: dict[tuple[str, str], tuple[float, Call]] = {}

    async def look(self, class_name: str, call_id: str, access: Access) -> Call:
        """Whether the call exists now."""
        known = self._answers.pop((class_name, call_id), None)
        if known is not None and asyncio.get_running_loop().time() - known[0] < ANSWER_VALID:
            return known[1]
        try:
            found = await self._ask(access, [call_id])
        except SourceError as error:
            return Call(problem_reason=error.reason, problem=str(error))
        return Call(exists=call_id in found)

    def wait(self, place: Place, class_name: str, call_id: str, access: Access) -> None:
        """Wake this Recording when its call appears."""
        self._waiting[place] = _Waiting(class_name, call_id, access)

    def forget(self, place: Place) -> None:
        """It waits no longer."""
        self._waiting.pop(place, None)

    async def run(self, seconds: float) -> None:
        """Ask in rounds until cancelled; a slow server delays its own class only."""
        async with asyncio.TaskGroup() as tasks:
            asking: dict[str, asyncio.Task[None]] = {}
            while True:
                await asyncio.sleep(seconds)
                by_class: dict[str, dict[Place, _Waiting]] = defaultdict(dict)
                for place, waiting in self._waiting.items():
                    by_class[waiting.class_name][place] = waiting
                for name, places in by_class.items():
                    if name not in asking or asking[name].done():
                        asking[name] = tasks.create_task(self._round(places), name=f"rooms-{name}")

    async def _round(self, places: dict[Place, _Waiting]) -> None:
        first = next(iter(places.values()))
        rooms = sorted({waiting.call_id for waiting in places.values()})
        try:
            found = await self._ask(first.access, rooms)
        except SourceError as error:
            log.info("source does not answer", extra={"fields": {"class": first.class_name, "detail": str(error)}})
            self._answer(places, {room: Call(problem_reason=error.reason, problem=str(error)) for room in rooms})
            return
        self._answer(places, {room: Call(exists=True) for room in found})

    def _answer(self, places: dict[Place, _Waiting], answers: dict[str, Call]) -> None:
        now = asyncio.get_running_loop().time()
        for place, waiting in places.items():
            answer = answers.get(waiting.call_id)
            if answer is not None and self._waiting.get(place) == waiting:
                self._answers[waiting.class_name, waiting.call_id] = (now, answer)
                self._wake(place)
