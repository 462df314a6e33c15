"""A TCP proxy that makes a real server fail in ways that it cannot be made to: refused, cut off, late, slow, or with an error answer.

`async with FaultProxy(host, port) as proxy` listens on loopback. Each new connection takes the next fault of `proxy.faults`, or
`proxy.always` when none is left; without either it is passed on untouched. HTTP keep-alive would hide faults behind an open
connection, so a faulty connection is closed after its fault, and `drop` closes those that are open.

`proxy.fired` counts each fault at the moment at which it took effect: a test whose fault did not fire has shown nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import Counter, deque
from dataclasses import dataclass
from typing import Self

RESET = "reset"
"""The connection is reset as soon as the client has sent something."""
ANSWER_LOST = "answer lost"
"""The request reaches the server, its answer does not come back."""
REQUEST_CUT = "request cut"
"""The connection is reset on both sides once `cut_after` bytes of the request have reached the server."""
ANSWER_CUT = "answer cut"
"""The connection is reset once `cut_after` bytes of the answer have reached the client."""
LATENCY = "latency"
"""Nothing of the answer comes back before `latency_seconds`."""
DISTANCE = "distance"
"""As over a long way: every answer of the connection comes `latency_seconds` late."""
SLOW = "slow"
"""Both directions are held to `bytes_per_second`."""
UNAVAILABLE = "unavailable"
"""HTTP 503 with an S3 error body, without asking the server."""
INTERNAL_ERROR = "internal error"
"""The same with 500."""
DENIED = "denied"
"""The same with 403."""
NO_BUCKET = "no bucket"
"""The same with 404, as of a bucket that was removed."""
UNSUPPORTED = "unsupported"
"""The same with 501."""
NOT_S3 = "not s3"
"""502 with a web page, as of a load balancer in between."""
_ANSWERS = {
    NOT_S3: ("502 Bad Gateway", ""),
    UNAVAILABLE: ("503 Slow Down", "SlowDown"),
    INTERNAL_ERROR: ("500 Internal Server Error", "InternalError"),
    DENIED: ("403 Forbidden", "AccessDenied"),
    NO_BUCKET: ("404 Not Found", "NoSuchBucket"),
    UNSUPPORTED: ("501 Not Implemented", "NotImplemented"),
}
KINDS = (RESET, ANSWER_LOST, REQUEST_CUT, ANSWER_CUT, LATENCY, DISTANCE, SLOW, *_ANSWERS)
CHUNK = 65536


@dataclass(frozen=True, slots=True)
class _Way:
    """How one direction of a connection is treated."""

    fault: str = ""
    cut_after: int | None = None
    delay: float = 0.0
    """Before the first bytes of the connection, or with `always` before all of them."""
    always: bool = False
    bytes_per_second: float | None = None


class FaultProxy:
    """Owns a listening socket and its connections."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.faults: deque[str] = deque()
        """For the next connections, one each."""
        self.always = ""
        """For every connection once `faults` is empty: an outage. "" = none."""
        self.fired: Counter[str] = Counter()
        """How often each fault took effect."""
        self._news = asyncio.Event()
        self.connections = 0
        self.most_at_once = 0
        """Connections that were open at one time."""
        self.latency_seconds = 1.0
        self.bytes_per_second = 64 * 1024.0
        self.cut_after = 2048

    @property
    def url(self) -> str:
        """Where to connect to."""
        assert self._server is not None
        host, port = self._server.sockets[0].getsockname()
        return f"http://{host}:{port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.drop()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def has_fired(self, fault: str) -> None:
        """Return once `fault` took effect."""
        while not self.fired[fault]:
            self._news.clear()
            await self._news.wait()

    def _note(self, fault: str) -> None:
        self.fired[fault] += 1
        self._news.set()

    def drop(self) -> None:
        """Break all open connections."""
        for task in self._tasks:
            task.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        fault = self.faults.popleft() if self.faults else self.always
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.most_at_once = max(self.most_at_once, len(self._tasks))
        try:
            await self._serve(fault, reader, writer)
        except (OSError, asyncio.IncompleteReadError, _CutError):
            _reset(writer)
        except asyncio.CancelledError:  # by `drop`: nobody waits for this task
            _reset(writer)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve(self, fault: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if fault == RESET:
            await reader.readexactly(1)
            self._note(fault)
            _reset(writer)
            return
        if fault in _ANSWERS:
            await self._answer(fault, reader, writer)
            return
        there, back = await asyncio.open_connection(*self._target)
        request, answer = self._ways(fault)
        forward = asyncio.create_task(self._pump(reader, back, request), name="request")
        backward = asyncio.create_task(self._pump(there, writer, answer), name="answer")
        try:
            done, _ = await asyncio.wait((forward, backward), return_when=asyncio.FIRST_COMPLETED)
            if forward in done and forward.exception() is None:  # the client has said all
                done, _ = await asyncio.wait((backward,))
            for task in done:
                task.result()
        except _CutError:
            _reset(back)
            raise
        finally:
            for task in (forward, backward):
                task.cancel()
            await asyncio.gather(forward, backward, return_exceptions=True)
            back.close()

    def _ways(self, fault: str) -> tuple[_Way, _Way]:
        """How request and answer are treated under a fault."""
        if fault == ANSWER_LOST:
            return _Way(), _Way(fault, cut_after=0)
        if fault == REQUEST_CUT:
            return _Way(fault, cut_after=self.cut_after), _Way()
        if fault == ANSWER_CUT:
            return _Way(), _Way(fault, cut_after=self.cut_after)
        if fault == LATENCY:
            return _Way(), _Way(fault, delay=self.latency_seconds)
        if fault == DISTANCE:
            return _Way(), _Way(fault, delay=self.latency_seconds, always=True)
        if fault == SLOW:
            return _Way(fault, bytes_per_second=self.bytes_per_second), _Way(bytes_per_second=self.bytes_per_second)
        if fault:
            raise ValueError(f"no fault is called {fault!r}")
        return _Way(), _Way()

    async def _answer(self, fault: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        status, code = _ANSWERS[fault]
        head = await reader.readuntil(b"\r\n\r\n")
        body = b"" if head.startswith(b"HEAD ") else _error_body(code)
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body)
        self._note(fault)
        await writer.drain()
        writer.write_eof()
        # NB: read what the client still sends. Closing a socket with unread bytes resets it, and the answer may be lost.
        while await reader.read(CHUNK):
            pass

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: _Way) -> None:
        """Pass bytes on until the sender ends, as `way` says."""
        passed = 0
        fired = False
        while data := await reader.read(CHUNK if way.bytes_per_second is None else 4096):
            if way.fault and not fired and (way.cut_after is None or passed + len(data) > way.cut_after):
                fired = True
                self._note(way.fault)
            if way.cut_after is not None and passed + len(data) > way.cut_after:
                writer.write(data[: way.cut_after - passed])
                await writer.drain()
                raise _CutError
            if way.delay and (way.always or not passed):
                await asyncio.sleep(way.delay)
            writer.write(data)
            await writer.drain()
            passed += len(data)
            if way.bytes_per_second is not None:
                await asyncio.sleep(len(data) / way.bytes_per_second)
        with contextlib.suppress(OSError):
            writer.write_eof()


class _CutError(Exception):
    """A fault asks for both ends to be reset."""


def _error_body(code: str) -> bytes:
    if not code:
        return b"<!doctype html><title>502 Bad Gateway</title><p>by the test"
    return f"<Error><Code>{code}</Code><Message>by the test</Message></Error>".encode()


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
