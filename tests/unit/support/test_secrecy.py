"""What is listened to for secrets, and that each form of one is found."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from isotrack_recorder.sources.livekit.access import MintedTokens
from support.overheard import OBJECTS, Overheard, unheard
from support.secrecy import told_secrets

SECRET = "canary/47+11"
SECRETS = {"the key": SECRET}


@pytest.mark.parametrize(
    "shown",
    [
        pytest.param(f"key = {SECRET}!", id="as-it-is"),
        pytest.param(f'{{"data": {{"key": "{base64.b64encode(SECRET.encode()).decode()}"}}}}', id="as-a-Secret-has-it"),
        pytest.param("https://bucket/?key=canary%2F47%2B11", id="in-a-url"),
    ],
)
def test_a_secret_is_found_however_it_is_written(shown: str) -> None:
    assert list(told_secrets({"log": shown.encode(), "other": b"canary"}, SECRETS)) == ["log holds the key"]


def test_a_token_is_found_although_nobody_knows_it() -> None:
    token = MintedTokens("key", "secret" * 6, "room", "identity").current()
    assert list(told_secrets({"log": f"?access_token={token}".encode()}, SECRETS)) == ["log holds a token"]
    assert list(told_secrets({"log": b"isotrack.dev/v1alpha1 eyJust.a.word"}, SECRETS)) == []


def a_pod(namespace: str, phase: str) -> bytes:
    meta = {"namespace": namespace, "name": "standup-a1-x", "uid": "7"}
    return json.dumps({"type": "ADDED", "object": {"metadata": meta, "status": {"phase": phase}}}).encode() + b"\n"


async def test_what_was_deleted_meanwhile_was_heard(tmp_path: Path) -> None:
    """Of an object every version, over a restart of the API server, too; of a log what came after it was removed."""
    tries = 0
    changed = asyncio.Event()

    async def watch(path: str) -> AsyncIterator[bytes]:
        nonlocal tries
        if path == OBJECTS["Pods"]:
            tries += 1
            yield b"first " if tries == 1 else b"again"
            changed.set()
            if tries == 1:
                raise ConnectionResetError
        await asyncio.Event().wait()

    log = tmp_path / "team_standup_7" / "agent" / "0.log"
    log.parent.mkdir(parents=True)
    log.write_text("before ")
    async with Overheard(watch, [tmp_path, tmp_path / "no-such-node"]) as heard:
        async with asyncio.timeout(20):
            while tries < 2:
                changed.clear()
                await changed.wait()
        with log.open("a") as writing:
            log.unlink()
            writing.write("and after")
    assert heard.outputs()["Pods"] == b"first \nagain"
    assert heard.outputs()["log team_standup_7/agent/0.log"] == b"before and after"


def test_silence_of_a_pod_that_ran_proves_nothing() -> None:
    of_all = dict.fromkeys(OBJECTS, b'{"metadata":{"namespace":"team"}}')
    log = {"log team_standup-a1-x_7/agent/0.log": b""}
    ran, waits = (
        {"Pods": b'{"object":{"metadata":{"namespace":"team"}}}\n{"cut\n' + a_pod("team", "Running")},
        a_pod("team", "Pending"),
    )
    assert unheard({**of_all, **ran, **log}, "team") == []
    assert unheard({**of_all, **ran}, "team") == ["log team_standup-a1-x_7/…"]
    assert unheard({**of_all, **ran, **log, "Events": b""}, "team") == ["Events"]
    assert unheard({**of_all, "Pods": waits, "Events": b""}, "team") == []
