"""ICE as LiveKit's agent (pion) does it: it nominates at the first check of ours that finds its own answered, else every 200 ms."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aioice import Candidate, stun

from isotrack_recorder.webrtc.transport import _Connection

PASSWORD = "p" * 22


class Pion(asyncio.DatagramProtocol):
    """A controlling agent that waits for a check of ours where pion would also look again after 200 ms."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self._transport: Any = None
        self._peer: Any = None
        self._mine: set[bytes] = set()
        self.answers = asyncio.Semaphore(0)
        """To checks of its own."""
        self.checks = 0
        """Of the other side."""
        self._valid = False
        self._nominated = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        message = stun.parse_message(data)
        if message.transaction_id in self._mine:
            self._valid = True
            self.answers.release()
        elif message.message_class == stun.Class.REQUEST:
            self._peer = addr
            self.checks += 1
            self._answer(message)
            if self._valid and not self._nominated:
                self._nominated = True
                self.check(nominate=True)
            elif self.checks == 1:
                self.check()

    def check(self, *, nominate: bool = False) -> None:
        """Send a check."""
        request = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)
        request.attributes["USERNAME"] = f"{self._connection.local_username}:pion"
        request.attributes["PRIORITY"] = 1
        request.attributes["ICE-CONTROLLING"] = 1
        if nominate:
            request.attributes["USE-CANDIDATE"] = None
        self._mine.add(request.transaction_id)
        self._send(request, self._connection.local_password)

    def _answer(self, request: stun.Message) -> None:
        response = stun.Message(
            message_method=stun.Method.BINDING,
            message_class=stun.Class.RESPONSE,
            transaction_id=request.transaction_id,
        )
        response.attributes["XOR-MAPPED-ADDRESS"] = self._peer
        self._send(response, PASSWORD)

    def _send(self, message: stun.Message, key: str) -> None:
        message.add_message_integrity(key.encode())
        self._transport.sendto(bytes(message), self._peer)


@asynccontextmanager
async def a_connection() -> AsyncIterator[tuple[_Connection, Pion]]:
    """Our agent and its peer, who know of each other."""
    connection = _Connection(("127.0.0.1",))
    await connection.gather_candidates()
    loop = asyncio.get_running_loop()
    transport, pion = await loop.create_datagram_endpoint(lambda: Pion(connection), local_addr=("127.0.0.1", 0))
    host, port = transport.get_extra_info("sockname")
    connection.remote_username, connection.remote_password = "pion", PASSWORD
    await connection.add_remote_candidate(Candidate("1", 1, "udp", 1, host, port, "host"))
    try:
        yield connection, pion
    finally:
        await connection.close()
        transport.close()


async def test_a_peer_that_checks_behind_us_hears_of_us_again_at_once() -> None:
    async with a_connection() as (connection, pion), asyncio.timeout(30):
        await connection.connect()
        assert pion.checks == 2


async def test_a_connection_that_stands_is_not_checked_at_each_check_of_the_peer() -> None:
    async with a_connection() as (connection, pion), asyncio.timeout(30):
        await connection.connect()
        known = pion.checks
        for _ in range(4):  # a further check of ours would come right behind the answer, before the next one
            pion.check()
        for _ in range(6):
            await pion.answers.acquire()
        assert pion.checks == known
