"""The recorder's end of the control socket, for tests of the agent: says what a test wants, keeps what the agent wants."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Self

from isotrack_recorder.control import MAX_LINE_BYTES, SOCKET_NAME, Command, Hello, State, decode, encode


class RecorderEnd:
    """Listens like a recorder; `say` sends a State to whoever is connected and to whoever connects later."""

    def __init__(self, run: Path, *, incarnation: int = 1) -> None:
        run.mkdir(parents=True, exist_ok=True)
        self._path = run / SOCKET_NAME
        self._incarnation = incarnation
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._news = asyncio.Condition()
        self.state = State(phase="Joining", incarnation=incarnation)
        self.commands: list[Command] = []
        self.hellos = 0

    async def __aenter__(self) -> Self:
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, str(self._path), limit=MAX_LINE_BYTES)
        return self

    async def __aexit__(self, *_: object) -> None:
        """As a process that dies: all connections break, the socket file stays."""
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()

    def say(self, phase: str, **fields: object) -> None:
        """Change the state and tell it."""
        values = {"incarnation": self._incarnation, "armed_at_ms": 1_760_000_000_000, "phase": phase, **fields}
        self.state = a_state(**values)
        for writer in self._writers:
            writer.write(encode(self.state))

    async def command(self, desired: str, *, seconds: float = 60) -> Command:
        """The newest command, once it wants `desired`."""
        async with asyncio.timeout(seconds), self._news:
            await self._news.wait_for(lambda: bool(self.commands) and self.commands[-1].desired == desired)
        return self.commands[-1]

    async def connected(self, *, seconds: float = 60) -> None:
        """Return once an agent said Hello."""
        async with asyncio.timeout(seconds), self._news:
            await self._news.wait_for(lambda: self.hellos > 0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        writer.write(encode(Hello(role="recorder", incarnation=self._incarnation)) + encode(self.state))
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                while line := await reader.readline():
                    message = decode(line)
                    async with self._news:
                        if isinstance(message, Command):
                            self.commands.append(message)
                        elif isinstance(message, Hello):
                            self.hellos += 1
                        self._news.notify_all()
        finally:
            self._writers.discard(writer)
            writer.close()


def a_state(**members: object) -> State:
    """A State as it is read from a line with these members."""
    state = decode(json.dumps({"type": "state", **members}).encode())
    assert isinstance(state, State)
    return state
