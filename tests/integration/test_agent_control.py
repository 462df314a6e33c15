"""Both real ends of the control socket: the recorder's server and the agent's link."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from isotrack_api.manifest import StopReason
from isotrack_recorder.control import SOCKET_NAME, Command, Phase, State
from isotrack_recorder.pod.control_server import ControlServer
from isotrack_recorder.pod.recorder_link import RecorderLink


class Recorder:
    """A recorder's process as far as its socket goes."""

    def __init__(self, run: Path, incarnation: int) -> None:
        self.state = State(phase="Joining", incarnation=incarnation)
        self.commands = asyncio.Queue[Command]()
        self.server = ControlServer(run, incarnation, lambda: self.state, self.commands.put_nowait)

    def become(self, phase: Phase) -> None:
        self.state = replace(self.state, phase=phase)
        self.server.changed()

    async def told(self) -> Command:
        return await asyncio.wait_for(self.commands.get(), 60)


@asynccontextmanager
async def a_recorder(run: Path, incarnation: int) -> AsyncIterator[Recorder]:
    recorder = Recorder(run, incarnation)
    await recorder.server.start()
    try:
        yield recorder
    finally:
        await recorder.server.close()


class Agent:
    """A running link whose changes can be awaited."""

    def __init__(self, run: Path) -> None:
        self.changed = asyncio.Event()
        self.link = RecorderLink(run / SOCKET_NAME, self.changed.set)
        self.task = asyncio.create_task(self.link.run())

    async def sees(self, holds: Callable[[RecorderLink], object]) -> None:
        async with asyncio.timeout(60):
            while not holds(self.link):
                self.changed.clear()
                await self.changed.wait()


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    agent = Agent(tmp_path)
    yield agent
    agent.task.cancel()
    await asyncio.gather(agent.task, return_exceptions=True)


async def test_states_and_commands_cross(agent: Agent, tmp_path: Path) -> None:
    async with a_recorder(tmp_path, 1) as recorder:
        assert await recorder.told() == Command()
        await agent.sees(lambda link: link.state is not None and link.state.phase == "Joining")
        recorder.become("Armed")
        await agent.sees(lambda link: link.state is not None and link.state.phase == "Armed")
        agent.link.command(Command(desired="Stopped", stop_reason=StopReason.REQUESTED, user_ids=("ålice",)))
        assert (await recorder.told()).user_ids == ("ålice",)


async def test_a_successor_of_the_recorder_hears_the_present_command(agent: Agent, tmp_path: Path) -> None:
    async with a_recorder(tmp_path, 1) as first:
        await first.told()
        agent.link.command(Command(desired="Paused"))
        await first.told()
    await agent.sees(lambda link: not link.connected and link.lost_at is not None)
    async with a_recorder(tmp_path, 2) as second:
        assert (await second.told()).desired == "Paused"
        await agent.sees(lambda link: link.connected and link.lost_at is None)
        assert agent.link.restarts == 1


async def test_a_recorder_that_idles_after_its_end_is_no_restart(agent: Agent, tmp_path: Path) -> None:
    """A process that finds the capture over says incarnation 0."""
    async with a_recorder(tmp_path, 0) as recorder:
        recorder.become("Stopped")
        await agent.sees(lambda link: link.state is not None and link.state.phase == "Stopped")
    assert agent.link.restarts == 0


@pytest.mark.parametrize("nonsense", [b"\xff\xfe\n", b'{"type": "state", "phase": "Asleep"}\n', b'{"type": "new"}\n'])
async def test_lines_that_are_no_messages_are_skipped(agent: Agent, tmp_path: Path, nonsense: bytes) -> None:
    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(nonsense + b'{"type": "state", "phase": "Armed"}\n')
        await writer.drain()

    async with await asyncio.start_unix_server(serve, str(tmp_path / SOCKET_NAME)):
        await agent.sees(lambda link: link.state is not None and link.state.phase == "Armed")
