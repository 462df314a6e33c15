"""One signalling connection to LiveKit: a websocket that carries protobuf messages both ways.

`connect` opens it and reads the first answer, which must be `join` (or says why not, or is already a `leave`). The owner then calls
`run`, which hands over messages until the connection ends, however it ends; requests are queued by `send`, which never waits. A pinger asks
every `ping_interval` that the server named and closes the connection when no answer came for `ping_timeout`. Nothing here
joins again or knows what messages mean: see `client`.

The token travels in a header, so that it reaches no access log.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Final, Self
from urllib.parse import urlencode, urlsplit, urlunsplit

import aiohttp
from google.protobuf.message import DecodeError
from livekit.protocol import models, rtc

from isotrack_recorder import __version__
from isotrack_recorder.clock import Clock
from isotrack_recorder.errors import SourceError

from .policy import read_refusal

log = logging.getLogger(__name__)

PROTOCOL: Final = 15
"""Client protocol: late room sid, LeaveRequest.action, transceiver reuse; 16 and later would add packet trailers."""
MAX_MESSAGE_BYTES: Final = 8 * 1024 * 1024
"""The largest offer that is read (webrtc.sdp), and as much besides."""
MAX_REFUSAL_BYTES: Final = 4096
CONNECT_SECONDS: Final = 5.0
JOIN_SECONDS: Final = 10.0
_QUERY: Final = {
    "auto_subscribe": "0",
    "adaptive_stream": "0",
    "subscriber_allow_pause": "0",
    "auto_subscribe_data_track": "0",
    "protocol": str(PROTOCOL),
    "sdk": "python",
    "version": __version__,
    "os": "linux",
}


def endpoint(url: str, path: str, scheme: str) -> str:
    """Build the address of `path` below the server's base URL; `scheme` is ws or http, and TLS follows `url`."""
    parts = urlsplit(url)
    secure = parts.scheme in ("wss", "https")
    base = parts.path.rstrip("/")
    return urlunsplit((scheme + "s" * secure, parts.netloc, f"{base}{path}", urlencode(_QUERY), ""))


def host_of(url: str) -> str:
    """Host and port of an address, for texts: user names and passwords do not belong there."""
    return urlsplit(url).netloc.rpartition("@")[2][:200]


def explain(error: Exception) -> str:
    """Why a connection failed, in a few words."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "its certificate is not trusted" + f" ({_one_line(error.certificate_error)})"
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, OSError) and (cause.errno or 0) > 0:  # name resolution has numbers of its own, below zero
        return os.strerror(cause.errno or 0)
    return _one_line(getattr(cause, "strerror", "") or str(cause) or type(cause).__name__)


def _one_line(text: object) -> str:
    return " ".join(str(text).split())[:200]


class Signalling:
    """An open connection. `join` is the server's first answer."""

    def __init__(self, session: aiohttp.ClientSession, ws: aiohttp.ClientWebSocketResponse, clock: Clock) -> None:
        self.join = rtc.JoinResponse()
        self._session = session
        self._ws = ws
        self._clock = clock
        self._outbox: asyncio.Queue[rtc.SignalRequest] = asyncio.Queue(maxsize=10_000)
        self._last_pong_ns = clock.monotonic_ns()

    @classmethod
    async def connect(cls, url: str, token: str, clock: Clock) -> Self | rtc.LeaveRequest:
        """Open the connection and read the join.

        Returns:
            The open connection; where the server answers with a goodbye, that, and the connection is over.

        Raises:
            SourceRefusedError, CallNotFoundError: The server says no.
            SourceError: It cannot be reached, or answers with something else.
        """
        session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {token}"},
            timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS, sock_connect=CONNECT_SECONDS),
        )
        try:
            ws = await _open(session, url)
            signalling = cls(session, ws, clock)
            answer = await signalling._read_answer()
        except BaseException:
            await session.close()
            raise
        if isinstance(answer, rtc.LeaveRequest):
            await signalling.close(leave=False)
            return answer
        signalling.join = answer
        return signalling

    def send(self, request: rtc.SignalRequest) -> None:
        """Queue a request. Dropped when the connection is over; `run` returns then."""
        with contextlib.suppress(asyncio.QueueFull):
            self._outbox.put_nowait(request)

    async def run(self, handle: Callable[[rtc.SignalResponse], Awaitable[None]]) -> None:
        """Hand each message to `handle`, one at a time, until the connection is over. Malformed ones are skipped."""
        helpers = (
            asyncio.create_task(self._write(), name="signalling-write"),
            asyncio.create_task(self._ping(), name="signalling-ping"),
        )
        try:
            async for frame in self._ws:  # ends, without an error, when the connection does
                message = _decode(frame.data) if frame.type is aiohttp.WSMsgType.BINARY else None
                if message is None:
                    continue
                if message.WhichOneof("message") in ("pong", "pong_resp"):
                    self._last_pong_ns = self._clock.monotonic_ns()
                else:
                    await handle(message)
        finally:
            for task in helpers:
                task.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)

    async def close(self, *, leave: bool) -> None:
        """End the connection; with `leave` tell the server that we mean it."""
        if leave and not self._ws.closed:
            goodbye = rtc.SignalRequest(
                leave=rtc.LeaveRequest(
                    reason=models.DisconnectReason.CLIENT_INITIATED, action=rtc.LeaveRequest.Action.DISCONNECT
                )
            )
            with contextlib.suppress(OSError, aiohttp.ClientError, TimeoutError):
                async with asyncio.timeout(1):
                    await self._ws.send_bytes(goodbye.SerializeToString())
        with contextlib.suppress(OSError, aiohttp.ClientError, TimeoutError):
            async with asyncio.timeout(1):
                await self._ws.close()
        await self._session.close()

    async def _read_answer(self) -> rtc.JoinResponse | rtc.LeaveRequest:
        try:
            async with asyncio.timeout(JOIN_SECONDS):
                frame = await self._ws.receive()
        except TimeoutError as error:
            raise SourceError(f"LiveKit did not answer the join within {JOIN_SECONDS:.0f} s") from error
        message = _decode(frame.data) if frame.type is aiohttp.WSMsgType.BINARY else None
        kind = message.WhichOneof("message") if message else None
        if message is not None and kind == "join":
            return message.join
        if message is not None and kind == "leave":
            return message.leave
        raise SourceError(
            "LiveKit answers the join with something that is not a join: is this the address of a LiveKit server?"
        )

    async def _write(self) -> None:
        with contextlib.suppress(OSError, aiohttp.ClientError):
            while True:
                await self._ws.send_bytes((await self._outbox.get()).SerializeToString())

    async def _ping(self) -> None:
        interval = min(max(self.join.ping_interval, 1), 60)
        limit_ns = min(max(self.join.ping_timeout, 2 * interval), 300) * 1_000_000_000
        self._last_pong_ns = self._clock.monotonic_ns()
        while True:
            await self._clock.sleep(interval)
            if self._clock.monotonic_ns() - self._last_pong_ns > limit_ns:
                log.warning("signalling is silent", extra={"fields": {"seconds": limit_ns // 1_000_000_000}})
                await self._ws.close()
                return
            self.send(rtc.SignalRequest(ping_req=rtc.Ping(timestamp=self._clock.wall_ns() // 1_000_000)))


async def _open(session: aiohttp.ClientSession, url: str) -> aiohttp.ClientWebSocketResponse:
    try:
        async with asyncio.timeout(JOIN_SECONDS):
            return await session.ws_connect(
                endpoint(url, "/rtc", "ws"), max_msg_size=MAX_MESSAGE_BYTES, autoping=True, timeout=_CLOSE_TIMEOUT
            )
    except aiohttp.WSServerHandshakeError as error:
        raise await _explain(session, url, error.status) from error
    except (OSError, aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise SourceError(f"cannot reach LiveKit at {host_of(url)}: {explain(error)}") from error


async def _explain(session: aiohttp.ClientSession, url: str, status: int) -> SourceError:
    """Ask for the reason in words: the answer to a websocket's handshake has no body that can be read."""
    try:
        async with asyncio.timeout(CONNECT_SECONDS), session.get(endpoint(url, "/rtc/validate", "http")) as response:
            body = (await response.content.read(MAX_REFUSAL_BYTES)).decode(errors="replace")
            return read_refusal(response.status if response.status >= 400 else status, body)
    except (OSError, aiohttp.ClientError, TimeoutError):
        return read_refusal(status, "no reason given")


def _decode(data: bytes) -> rtc.SignalResponse | None:
    try:
        return rtc.SignalResponse.FromString(data)
    except DecodeError:
        return None


_CLOSE_TIMEOUT: Final = aiohttp.ClientWSTimeout(ws_close=1.0)
