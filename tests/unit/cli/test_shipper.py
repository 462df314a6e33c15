"""The process that ships beside `isotrack record`: how it ends, and when it is begun again."""

from __future__ import annotations

import asyncio
import errno
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from isotrack_api.intent import S3Destination
from isotrack_recorder.cli.finish import how_to_finish
from isotrack_recorder.cli.shipper import last_word
from isotrack_recorder.cli.shipping import OVER, Shipping, pause_after
from isotrack_recorder.cli.workspace import Workspace
from isotrack_recorder.errors import ConfigError
from support.shipping import a_shipping_intent

HANGS_SECONDS = 20


def test_a_storage_that_cannot_be_used_ends_it_while_the_recorder_goes_on(tmp_path: Path) -> None:
    """While it hung there, waiting for the recorder's word, nobody began it again: nothing was shipped for the rest of the call."""
    workspace = Workspace.create(tmp_path, a_shipping_intent())
    command = [sys.executable, "-m", "isotrack_recorder.cli.shipper", str(workspace.folder)]
    environment = os.environ | {"AWS_PROFILE": "nobody", "AWS_CONFIG_FILE": str(tmp_path / "none")}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        try:
            assert process.wait(HANGS_SECONDS) == ConfigError.exit_code
        finally:
            process.kill()
        assert process.stderr is not None
        said = process.stderr.read().decode()
    assert "nothing is shipped while this lasts" in said
    assert "ProfileNotFound" in said


@pytest.mark.parametrize("word", [OVER, b""], ids=["over", "died"])
def test_an_end_while_the_storage_is_away_is_no_failure_of_a_recording_that_goes_on(
    tmp_path: Path, word: bytes
) -> None:
    """Behind `stopped: interrupted` it said that the recording goes on."""
    storage = S3Destination(bucket="calls", endpoint="http://127.0.0.1:9", force_path_style=True)
    workspace = Workspace.create(tmp_path, a_shipping_intent(storage=storage))
    command = [sys.executable, "-m", "isotrack_recorder.cli.shipper", str(workspace.folder)]
    environment = os.environ | {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stderr is not None
        first = process.stderr.readline().decode()  # it has tried for some seconds
        said = process.communicate(word, HANGS_SECONDS)[1].decode()
    assert "cannot be reached" in first
    assert first.endswith("the recording goes on, and the disk keeps what is not uploaded\n")
    assert process.returncode == 0
    if word == OVER:
        assert said == ""
    else:
        assert said == f"isotrack: the recorder died; {how_to_finish(workspace)}\n"


@pytest.mark.parametrize("word", [OVER, b"", OVER[:2]], ids=["over", "died", "died-in-the-midst"])
async def test_it_hears_the_word_of_the_recorder_or_that_it_died_without_one(
    word: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = os.pipe()
    with os.fdopen(ours, "rb") as stdin:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(stdin))
        hearing = asyncio.create_task(last_word())
        os.write(theirs, word)
        if word == OVER:  # the pipe stays open until the files are made
            assert await hearing == OVER
            os.close(theirs)
        else:
            os.close(theirs)
            assert await hearing != OVER


async def test_one_that_cannot_be_begun_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is short of memory at that moment left the whole call to be shipped at its end, without a word."""
    begin = asyncio.create_subprocess_exec
    tried: list[Exception | None] = [OSError(errno.ENOMEM, "Cannot allocate memory"), None]
    begun = asyncio.Event()

    async def begin_once_there_is_room(*_: object, **options: Any) -> Any:
        error = tried.pop(0)
        if error is not None:
            raise error
        begun.set()
        return await begin("sleep", "60", **options)

    monkeypatch.setattr("isotrack_recorder.cli.shipping.BEGIN_AGAIN_SECONDS", 0)
    monkeypatch.setattr(asyncio, "create_subprocess_exec", begin_once_there_is_room)
    shipping = Shipping(Workspace.create(tmp_path, a_shipping_intent()))
    shipping.captured.set()
    running = asyncio.create_task(shipping.run())
    try:
        async with asyncio.timeout(HANGS_SECONDS):
            await begun.wait()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        shipping.kill()


@pytest.mark.parametrize(("code", "seconds"), [(-9, 5), (0, 30), (1, 30), (64, 30), (73, 30)])
def test_one_that_was_killed_is_begun_again_sooner_than_one_that_could_not_go_on(code: int, seconds: float) -> None:
    """Each begin costs as much as seconds of capturing, and what made it end by itself is there again."""
    assert pause_after(code) == seconds
