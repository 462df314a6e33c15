"""A bad network between one recorder and a real SFU: loss, bursts, delay, jitter, reordering, silence.

    recorder ── ws ──▶ proxy ── ws ──▶ SFU          the proxy names itself instead of the SFU in candidates, so that media
    recorder ── udp ─▶ proxy ── udp ─▶ SFU          takes this way and no other; publishers keep their good network

It runs in a thread of its own, in user space, so it needs no rights and no namespaces, and tests may block. Each direction
and each datagram (ICE and DTLS as well) meets the conditions of the moment, which a test may change at any time.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import web
from livekit.protocol import rtc

Address = tuple[str, int]
_HOP_BY_HOP = frozenset(("host", "connection", "upgrade", "content-length", "transfer-encoding", "content-encoding"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """Of the path, in each direction."""

    loss: float = 0.0
    """Share of datagrams that vanish."""
    burst: float = 1.0
    """Mean length of a run of lost datagrams (Gilbert's model); 1 loses each by itself."""
    delay: float = 0.0
    """Seconds, for every datagram."""
    jitter: float = 0.0
    """Up to so many seconds more, evenly spread: what is sent later may come sooner."""
    blackout: bool = False
    """Nothing passes, signalling neither; nobody is told."""


class Path:
    """A running proxy."""

    def __init__(self, target: str, conditions: Conditions, declined: Sequence[str]) -> None:
        self.conditions = conditions
        self.url = ""
        self.dropped = self.passed = 0
        """Datagrams."""
        self._target = target.removeprefix("ws://")
        self._declined = tuple(declined)
        self._random = random.Random(1)
        self._bad = {True: False, False: False}
        self._legs: list[_Leg] = []
        self._fars: list[aiohttp.ClientWebSocketResponse] = []
        self._loop: asyncio.AbstractEventLoop | None = None

    def say(self, request: rtc.SignalRequest) -> None:
        """Say something to the SFU in the recorder's name, over its newest connection; from any thread."""
        assert self._loop is not None
        far = self._fars[-1]
        asyncio.run_coroutine_threadsafe(far.send_bytes(request.SerializeToString()), self._loop).result(60)

    def takes(self, *, up: bool) -> float | None:
        """Seconds until the next datagram of a direction arrives; None where it does not."""
        now = self.conditions
        lost = now.blackout
        if now.loss and not lost:
            if now.burst <= 1:
                lost = self._random.random() < now.loss
            else:
                leave = 1 / now.burst
                turn = leave if self._bad[up] else now.loss * leave / (1 - now.loss)
                self._bad[up] ^= self._random.random() < turn
                lost = self._bad[up]
        if lost:
            self.dropped += 1
            return None
        self.passed += 1
        return now.delay + now.jitter * self._random.random()

    async def serve(self, running: threading.Event, stop: asyncio.Event) -> None:
        """Relay until told to stop."""
        self._loop = asyncio.get_running_loop()
        async with aiohttp.ClientSession(auto_decompress=False) as self._http:
            app = web.Application(client_max_size=2**24)
            app.router.add_route("*", "/{rest:.*}", self._relay)
            runner = web.AppRunner(app, shutdown_timeout=0.1)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.url = f"ws://127.0.0.1:{runner.addresses[0][1]}"
            running.set()
            await stop.wait()
            await runner.cleanup()
            for leg in self._legs:
                leg.close()

    async def _relay(self, request: web.Request) -> web.StreamResponse:
        await self._light()
        headers = {name: value for name, value in request.headers.items() if name.lower() not in _HOP_BY_HOP}
        headers = {name: value for name, value in headers.items() if not name.lower().startswith("sec-websocket")}
        url = f"http://{self._target}{request.raw_path}"
        try:
            if request.headers.get("Upgrade", "").lower() == "websocket":
                return await self._relay_signals(request, url, headers)
            data = await request.read()
            async with self._http.request(request.method, url, headers=headers, data=data) as answer:
                kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
                return web.Response(status=answer.status, headers=kept, body=await answer.read())
        except aiohttp.WSServerHandshakeError as error:
            return web.Response(status=error.status)
        except aiohttp.ClientError:
            assert request.transport is not None
            request.transport.abort()  # the server is not there: neither are we
            raise asyncio.CancelledError from None

    async def _relay_signals(self, request: web.Request, url: str, headers: dict[str, str]) -> web.StreamResponse:
        async with self._http.ws_connect(url, headers=headers, max_msg_size=0) as far:
            near = web.WebSocketResponse(max_msg_size=0)
            try:
                await near.prepare(request)
            except ConnectionResetError:  # a recorder that waited long enough
                raise asyncio.CancelledError from None
            leg = _Leg(self)
            self._legs.append(leg)
            self._fars.append(far)

            async def down() -> None:
                async for frame in far:
                    await self._light()
                    await near.send_bytes(await self._of_server(frame.data, leg))

            async def up() -> None:
                async for frame in near:
                    await self._light()
                    if (changed := self._of_recorder(frame.data)) is not None:
                        await far.send_bytes(changed)

            tasks = [asyncio.create_task(down()), asyncio.create_task(up())]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._light()
            if near._writer is not None and request.transport is not None and far.close_code in (None, 1006):
                request.transport.abort()  # broken there, broken here
            else:
                with suppress(ConnectionError):
                    await near.close()
            return near

    async def _light(self) -> None:
        """Wait for the end of a blackout; the test sets it from its own thread."""
        while self.conditions.blackout:  # noqa: ASYNC110
            await asyncio.sleep(0.02)

    async def _of_server(self, data: bytes, leg: _Leg) -> bytes:
        """What the recorder gets to read of a message: the SFU is where we are, and has less to offer."""
        message = rtc.SignalResponse.FromString(data)
        kind = message.WhichOneof("message")
        if kind == "offer":
            message.offer.sdp = self._offer(message.offer.sdp)
        elif kind == "trickle":
            init: dict[str, Any] = json.loads(message.trickle.candidateInit)
            fields = str(init.get("candidate", "")).split()
            if len(fields) > 7 and fields[2].lower() == "udp":
                fields[4], fields[5] = "127.0.0.1", str(await leg.front((fields[4], int(fields[5]))))
                init["candidate"] = " ".join(fields)
            message.trickle.candidateInit = json.dumps(init)
        return message.SerializeToString()

    def _offer(self, sdp: str) -> str:
        """Without candidates, which trickle as well, and without what is declined."""
        gone = {
            line.split(":")[1].split()[0]
            for line in sdp.splitlines()
            for word in self._declined
            if line.startswith("a=rtpmap:") and f" {word}/" in line.lower()
        }
        kept = []
        for line in sdp.splitlines():
            head, _, rest = line.partition(":")
            if head == "a=candidate" or (head in ("a=rtpmap", "a=fmtp", "a=rtcp-fb") and rest.split()[0] in gone):
                continue
            if head == "a=rtcp-fb" and rest.split()[1:] == ["nack"] and "nack" in self._declined:
                continue
            if line.startswith("a=ssrc-group:FID") and gone:
                continue
            if line.startswith("m="):
                line = " ".join(word for number, word in enumerate(line.split()) if number < 3 or word not in gone)
            kept.append(line)
        return "\r\n".join(kept) + "\r\n"

    def _of_recorder(self, data: bytes) -> bytes | None:
        """What the SFU gets to read: nothing of the recorder's own addresses, or it would go around us."""
        message = rtc.SignalRequest.FromString(data)
        kind = message.WhichOneof("message")
        if kind == "trickle":
            return None
        if kind == "answer":
            lines = message.answer.sdp.splitlines()
            message.answer.sdp = "".join(f"{line}\r\n" for line in lines if not line.startswith("a=candidate:"))
        return message.SerializeToString()


class _Leg:
    """Media of one signalling connection: one socket towards the recorder, one towards the SFU per address of the recorder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fronts: dict[Address, tuple[asyncio.DatagramTransport, int]] = {}
        self._open: list[asyncio.DatagramTransport] = []

    async def front(self, server: Address) -> int:
        """Port at which the recorder reaches an address of the server."""
        if server not in self._fronts:
            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_datagram_endpoint(
                lambda: _Front(self, server), local_addr=("127.0.0.1", 0)
            )
            self._open.append(transport)
            self._fronts[server] = (transport, transport.get_extra_info("sockname")[1])
        return self._fronts[server][1]

    def later(self, transport: asyncio.DatagramTransport, data: bytes, to: Address | None, *, up: bool) -> None:
        """Send, as the conditions let it."""
        seconds = self.path.takes(up=up)
        if seconds is not None:
            asyncio.get_running_loop().call_later(seconds, _send, transport, data, to)

    def close(self) -> None:
        for transport in self._open:
            transport.close()


def _send(transport: asyncio.DatagramTransport, data: bytes, to: Address | None) -> None:
    if not transport.is_closing():
        transport.sendto(data, to)


class _Front(asyncio.DatagramProtocol):
    """Faces the recorder."""

    def __init__(self, leg: _Leg, server: Address) -> None:
        self._leg, self._server = leg, server
        self._backs: dict[Address, asyncio.Task[asyncio.DatagramTransport]] = {}

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self.transport = transport

    def datagram_received(self, data: bytes, addr: Address) -> None:
        back = self._backs.get(addr)
        if back is None:
            back = self._backs[addr] = asyncio.create_task(self._back(addr))
        back.add_done_callback(lambda done: self._leg.later(done.result(), data, None, up=True))

    def error_received(self, exc: Exception) -> None:
        """An SFU that is gone; its datagrams vanish."""

    async def _back(self, recorder: Address) -> asyncio.DatagramTransport:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            lambda: _Back(self._leg, self.transport, recorder), remote_addr=self._server
        )
        self._leg._open.append(transport)
        return transport


class _Back(asyncio.DatagramProtocol):
    """Faces the SFU, for one address of the recorder."""

    def __init__(self, leg: _Leg, front: asyncio.DatagramTransport, recorder: Address) -> None:
        self._leg, self._front, self._recorder = leg, front, recorder

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self._leg.later(self._front, data, self._recorder, up=False)

    def error_received(self, exc: Exception) -> None:
        """See _Front."""


@contextmanager
def path_to(url: str, conditions: Conditions | None = None, *, declined: Sequence[str] = ()) -> Iterator[Path]:
    """Relay to the SFU at `url` (`ws://host:port`) while inside.

    Args:
        url: Of a server that trickles its candidates, as LiveKit does.
        conditions: At the start; good ones if absent.
        declined: What the SFU shall not offer: names of codecs such as `rtx`, and `nack`.
    """
    path = Path(url, conditions or Conditions(), declined)
    running = threading.Event()
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(path.serve(running, stop)), name="path")
    thread.start()
    try:
        assert running.wait(60), "the path is not open within 60 s"
        yield path
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(60)
        loop.close()
