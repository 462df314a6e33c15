"""One turn over sessions that something is due of: the next ones are muxed while the others are sent.

    waiting ─▶ muxed, in the file lane ─▶ little came of it: waiting again, if there is more
                                      └─▶ saved, in the disk lane ─▶ sent, in the request lane ─▶ waiting again, if there is more

A session is either muxed, saved or sent: what a failed upload undoes is what muxing goes on from. The first ones come first again and
again, so that few files are open at a time. Whatever fails costs its session the rest of this turn, and no other one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from .session import Errand, Session


@dataclass(frozen=True, slots=True)
class Muxed:
    """What came of one job in the file lane: it ends where something is to be saved and sent, or where room or sessions do."""

    session: Session | None = None
    """What is to be saved, or has something to be sent."""
    bytes: int = 0
    """That were made of it."""
    failures: Sequence[BaseException] = ()
    has_begun: bool = True
    """False: there was no room for anything."""


NO_ROOM: Final = Muxed(has_begun=False)
Mux = Callable[[Sequence[Session], Mapping[str, int]], Awaitable[Muxed]]
"""Mux some of these sessions; others are on their way, with so many bytes each."""
Save = Callable[[Session], Awaitable[Sequence[Errand]]]
"""Save a session; what can be sent of it then."""
Send = Callable[[Errand], Awaitable[int]]
"""Do an errand; how many files it finished."""


class Turn:
    """One turn. `run` it once."""

    def __init__(
        self, sessions: Sequence[Session], mux: Mux, save: Save, send: Send, given_up: Collection[str]
    ) -> None:
        """`given_up`: sessions that are over here; it may grow meanwhile."""
        self._sessions = sessions
        self._mux = mux
        self._save = save
        self._send = send
        self._given_up = given_up
        self._sending: dict[str, int] = {}
        """Session that is being saved and sent → bytes that wait for that."""
        self._stuck: set[str] = set()
        self._is_broken = False
        """The spool is of no use at this moment: nothing more is muxed."""
        self._sent = asyncio.Event()
        self.failures: list[BaseException] = []
        self.finished = 0
        """Files that are in the bucket now."""

    async def run(self) -> None:
        """Bring all sessions forward until nothing is left to do, or what is left failed."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._sent.clear()
                waiting = self._waiting()
                muxed = await self._muxed(waiting) if waiting else NO_ROOM
                self.failures += muxed.failures
                if (session := muxed.session) is not None:
                    self._sending[session.peer_id] = muxed.bytes
                    tasks.create_task(self._save_and_send(session), name=f"send {session.peer_id}")
                elif not muxed.has_begun:
                    if not self._sending:
                        return
                    await self._sent.wait()

    def _waiting(self) -> list[Session]:
        if self._is_broken:
            return []
        busy = self._sending.keys() | self._stuck | set(self._given_up)
        return [session for session in self._sessions if session.more and session.peer_id not in busy]

    async def _muxed(self, waiting: Sequence[Session]) -> Muxed:
        try:
            return await self._mux(waiting, dict(self._sending))
        except Exception as error:  # noqa: BLE001 - told when everything is over that is on its way
            self._is_broken = True
            return Muxed(failures=(error,))

    async def _save_and_send(self, session: Session) -> None:
        failures: list[BaseException] = []
        try:
            errands = await self._save(session)
        except Exception as error:  # noqa: BLE001 - told when everything is over that is on its way
            failures.append(error)
        else:
            results = await asyncio.gather(*map(self._send, errands), return_exceptions=True)
            failures += [result for result in results if isinstance(result, BaseException)]
            self.finished += sum(result for result in results if isinstance(result, int))
        if failures:
            self._stuck.add(session.peer_id)
        self.failures += failures
        del self._sending[session.peer_id]
        self._sent.set()
