"""The agent's end of the control socket: the newest State of the recorder in, the newest Command out.

The recorder listens; it may start after the agent, crash, and come back as another incarnation. So the link connects for ever,
says Hello and the present command on each connection, and again whenever the command changes. Nothing is queued: both
directions are level-based.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from isotrack_recorder.control import MAX_LINE_BYTES, Command, Hello, State, decode, encode
from isotrack_recorder.errors import ParseError

log = logging.getLogger(__name__)

RECONNECT_SECONDS: Final = 0.25


class RecorderLink:
    """One recorder, through all its restarts. `run` owns the connection."""

    def __init__(self, socket: Path, changed: Callable[[], None]) -> None:
        self._socket = socket
        self._changed = changed
        self._command = Command()
        self._command_news = asyncio.Event()
        self.state: State | None = None
        """What the recorder said last, over whatever connection."""
        self.connected = False
        self.incarnation = 0
        """Number of the newest process of the recorder, from 1; 0 before the first."""
        self.lost_at: float | None = time.monotonic()
        """time.monotonic() at which the recorder was last there; None while it is."""

    @property
    def restarts(self) -> int:
        """How often the recorder had to begin again."""
        return max(0, self.incarnation - 1)

    def command(self, command: Command) -> None:
        """Tell the recorder what is wanted from now on."""
        if command != self._command:
            self._command = command
            self._command_news.set()

    async def run(self) -> None:
        """Keep the connection, for ever."""
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(str(self._socket), limit=MAX_LINE_BYTES)
            except OSError:
                await asyncio.sleep(RECONNECT_SECONDS)
                continue
            try:
                await self._converse(reader, writer)
            finally:
                writer.close()
                self._lost()
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sending = asyncio.create_task(self._send(writer), name="recorder-commands")
        try:
            while True:
                try:
                    line = await reader.readuntil(b"\n")
                except (OSError, asyncio.IncompleteReadError):
                    return
                except asyncio.LimitOverrunError:
                    log.warning("recorder sent an over long line")
                    return
                self._take(line)
        finally:
            sending.cancel()
            await asyncio.wait((sending,))  # NB: awaiting the task itself would mistake our own cancellation for its

    def _take(self, line: bytes) -> None:
        try:
            message = decode(line)
        except ParseError as error:
            log.warning("recorder sent no message", extra={"fields": {"detail": str(error)}})
            return
        if isinstance(message, Hello):
            self.connected, self.lost_at = True, None
            if message.incarnation > self.incarnation:
                if self.incarnation:
                    log.warning("recorder began again", extra={"fields": {"incarnation": message.incarnation}})
                self.incarnation = message.incarnation
            self._changed()
        elif isinstance(message, State):
            self.state = message
            self._changed()

    async def _send(self, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            writer.write(encode(Hello(role="agent")))
            while True:
                self._command_news.clear()
                writer.write(encode(self._command))
                await writer.drain()
                await self._command_news.wait()

    def _lost(self) -> None:
        if self.connected:
            self.connected, self.lost_at = False, time.monotonic()
            self._changed()
