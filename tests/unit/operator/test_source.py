"""What a class says of an SFU that cannot be asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from isotrack_dev.servers import free_port
from isotrack_operator.errors import SourceError
from isotrack_operator.source import Access, existing_rooms


def access(url: str) -> Access:
    return Access(url=url, key="key", secret="s" * 32)


@pytest.fixture
async def other_server() -> AsyncIterator[str]:
    """Something that is no LiveKit server."""

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.com\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_refused_connection_is_told_in_the_systems_words() -> None:
    url = f"ws://127.0.0.1:{free_port('127.0.0.1')}"
    with pytest.raises(SourceError) as told:
        await existing_rooms(access(url), ["x"])
    assert str(told.value) == f"{url} cannot be reached: Connection refused"


async def test_what_is_no_livekit_server_is_one_line(other_server: str) -> None:
    with pytest.raises(SourceError) as told:
        await existing_rooms(access(other_server), ["x"])
    assert str(told.value).startswith(f"{other_server} cannot be reached: ")
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 700


async def test_a_name_that_nobody_knows_is_no_riddle() -> None:
    url = "wss://sfu.invalid"
    with pytest.raises(SourceError, match=r"wss://sfu\.invalid cannot be reached: [A-Z]\w+"):
        await existing_rooms(access(url), ["x"])
