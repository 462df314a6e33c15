"""The recorder's end of the control socket: States out at each change and every second, Commands in.

The server lives as long as the recorder's process, capture or not: the agent must be able to read a final State at any
later time. A peer that sends nonsense or does not read is dropped; capture never waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from isotrack_recorder.control import MAX_LINE_BYTES, SOCKET_NAME, Command, Hello, State, encode, read_command

log = logging.getLogger(__name__)

MIN_INTERVAL_SECONDS: Final = 0.1
"""Between two States to one agent: a busy minute of a big call is a few hundred changes."""
MAX_BUFFER_BYTES: Final = 16 * 1024 * 1024
MAX_PEERS: Final = 8


class ControlServer:
    """Serves `<run>/control.sock`. `state` tells what to send, `command` takes what comes."""

    def __init__(
        self, run: Path, incarnation: int, state: Callable[[], State], command: Callable[[Command], None]
    ) -> None:
        self._path = run / SOCKET_NAME
        self._incarnation = incarnation
        self._state = state
        self._command = command
        self._server: asyncio.Server | None = None
        self._peers: set[asyncio.Task[None]] = set()
        self._wakers: set[asyncio.Event] = set()

    async def start(self) -> None:
        """Listen. A socket file of an earlier process is replaced.

        Raises:
            OSError: The folder cannot be written.
        """
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, path=self._path, limit=MAX_LINE_BYTES)
        self._path.chmod(0o600)

    def changed(self) -> None:
        """There is a new state to tell."""
        for waker in self._wakers:
            waker.set()

    async def close(self) -> None:
        """Tell the last state and hang up."""
        if self._server is not None:
            self._server.close()
        for task in self._peers:
            task.cancel()
        await asyncio.gather(*self._peers, return_exceptions=True)
        self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._peers) >= MAX_PEERS:
            writer.close()
            return
        self._peers.add(task)
        waker = asyncio.Event()
        self._wakers.add(waker)
        sending = asyncio.create_task(self._send_states(writer, waker), name="control-send")
        try:
            await self._read_commands(reader)
        except (OSError, ValueError) as error:  # ValueError: a line beyond the limit, or ParseError
            log.warning("control connection dropped", extra={"fields": {"why": str(error)[:200]}})
        finally:
            self._peers.discard(task)
            self._wakers.discard(waker)
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            with contextlib.suppress(OSError):
                writer.close()

    async def _read_commands(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            command = read_command(line)
            if command is not None:
                self._command(command)

    async def _send_states(self, writer: asyncio.StreamWriter, waker: asyncio.Event) -> None:
        with contextlib.suppress(OSError):
            writer.write(encode(Hello(role="recorder", incarnation=self._incarnation)))
            try:
                while True:
                    waker.clear()
                    writer.write(encode(self._state()))
                    if writer.transport.get_write_buffer_size() > MAX_BUFFER_BYTES:
                        writer.transport.abort()
                        return
                    await writer.drain()
                    await asyncio.sleep(MIN_INTERVAL_SECONDS)
                    await waker.wait()
            finally:
                writer.write(encode(self._state()))
