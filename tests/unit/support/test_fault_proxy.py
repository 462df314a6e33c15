"""Each fault of the proxy does what it says, and is counted when it does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from support import fault_proxy
from support.fault_proxy import FaultProxy

BODY = b"x" * 10_000
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n" + b"y" * 10_000


class Server:
    """Reads one request with BODY, then answers; tells how much arrived."""

    def __init__(self) -> None:
        self.received: list[int] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got = 0
        try:
            while got < len(BODY) and (data := await reader.read(4096)):
                got += len(data)
            if got >= len(BODY):
                writer.write(ANSWER)
                await writer.drain()
        except OSError:
            pass
        finally:
            self.received.append(got)
            writer.close()


@asynccontextmanager
async def proxied() -> AsyncIterator[tuple[FaultProxy, Server]]:
    server = Server()
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    host, port = listener.sockets[0].getsockname()
    async with listener, FaultProxy(host, port) as proxy:
        yield proxy, server


async def ask(proxy: FaultProxy) -> bytes:
    """Send BODY; whatever comes back, or OSError."""
    host, _, port = proxy.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(b"PUT / HTTP/1.1\r\n\r\n" + BODY)
        await writer.drain()
        return await reader.read(-1)
    finally:
        writer.close()


async def test_without_a_fault_all_bytes_pass() -> None:
    async with proxied() as (proxy, _):
        assert await ask(proxy) == ANSWER
        assert not proxy.fired


@pytest.mark.parametrize("fault", fault_proxy.KINDS)
async def test_a_fault_is_counted_when_it_fires(fault: str) -> None:
    async with proxied() as (proxy, _):
        proxy.latency_seconds, proxy.bytes_per_second = 0.01, 1e7
        proxy.faults.append(fault)
        try:
            answer = await ask(proxy)
        except OSError:
            answer = b""
        assert proxy.fired == {fault: 1}
        assert (answer == ANSWER) == (fault in (fault_proxy.LATENCY, fault_proxy.DISTANCE, fault_proxy.SLOW))
        assert await ask(proxy) == ANSWER, "the next connection is sound"


async def test_a_cut_request_arrives_in_part() -> None:
    async with proxied() as (proxy, server):
        proxy.faults.append(fault_proxy.REQUEST_CUT)
        with pytest.raises(OSError):
            await ask(proxy)
        await ask(proxy)
    assert server.received[0] <= proxy.cut_after


async def test_a_cut_answer_arrives_in_part() -> None:
    async with proxied() as (proxy, server):
        proxy.faults.append(fault_proxy.ANSWER_CUT)
        with pytest.raises(OSError):
            await ask(proxy)
        assert server.received[0] >= len(BODY), "the request had arrived"


async def test_a_fault_that_finds_nothing_to_break_is_not_counted() -> None:
    async with proxied() as (proxy, _):
        proxy.cut_after = 10**6
        proxy.faults.append(fault_proxy.REQUEST_CUT)
        assert await ask(proxy) == ANSWER
        assert not proxy.fired


async def test_an_outage_lasts_until_it_is_taken_back() -> None:
    async with proxied() as (proxy, _):
        proxy.always = fault_proxy.UNAVAILABLE
        assert [b"503" in await ask(proxy) for _ in range(3)] == [True] * 3
        proxy.always = ""
        assert await ask(proxy) == ANSWER


async def test_open_connections_can_be_broken() -> None:
    async with proxied() as (proxy, _):
        proxy.always = fault_proxy.LATENCY
        proxy.latency_seconds = 60
        asking = asyncio.create_task(ask(proxy))
        await proxy.has_fired(fault_proxy.LATENCY)
        proxy.drop()
        with pytest.raises(OSError):
            await asking


async def test_a_fault_that_nobody_knows_is_an_error() -> None:
    async with proxied() as (proxy, _):
        with pytest.raises(ValueError, match="no fault"):
            proxy._ways("misspelt")
