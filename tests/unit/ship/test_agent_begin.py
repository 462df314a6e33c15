"""What the recorder hears from an agent that begins again, before the API server was heard."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from isotrack_api.intent import S3Destination
from isotrack_api.manifest import StopReason
from isotrack_recorder.control import Command, State
from isotrack_recorder.pod.agent import Agent
from isotrack_recorder.pod.agent_settings import AgentSettings
from isotrack_recorder.pod.control_server import ControlServer
from isotrack_recorder.pod.kept import KeptCommand
from isotrack_recorder.settings import PodPaths
from support.shipping import a_shipping_intent

NOWHERE = S3Destination(bucket="memory", prefix="calls/", endpoint="http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("kept", "told"),
    [
        pytest.param(None, Command(user_ids=("alice", "bob")), id="the first agent of a pod"),
        pytest.param(
            Command(desired="Paused", user_ids=("alice",)), Command(desired="Paused", user_ids=("alice",)), id="paused"
        ),
        pytest.param(Command(user_ids=("alice",)), Command(user_ids=("alice",)), id="bob is not admitted any more"),
        pytest.param(
            Command(desired="Stopped", stop_reason=StopReason.REQUESTED),
            Command(desired="Stopped", stop_reason=StopReason.REQUESTED),
            id="stopped",
        ),
    ],
)
async def test_an_agent_that_begins_again_repeats_what_was_said_last(
    tmp_path: Path, kept: Command | None, told: Command
) -> None:
    paths = PodPaths(spool=tmp_path / "spool", run=tmp_path / "run", token_file=tmp_path / "token")
    for folder in (paths.spool, paths.run):
        folder.mkdir()
    if kept is not None:
        KeptCommand(paths.run).keep(kept)
    heard = asyncio.Queue[Command]()
    recorder = ControlServer(paths.run, 1, lambda: State(phase="Armed", incarnation=1), heard.put_nowait)
    await recorder.start()
    intent = a_shipping_intent(storage=NOWHERE).model_copy(update={"user_ids": ("alice", "bob")})
    settings = AgentSettings(
        intent=intent, paths=paths, storage=tmp_path / "keys", termination_log=tmp_path / "termination"
    )
    running = asyncio.create_task(Agent(settings).run())
    try:
        assert await asyncio.wait_for(heard.get(), 60) == told
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await recorder.close()
