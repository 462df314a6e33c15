"""What the recorder loads before it is in the call: each module here costs first words."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.shipping import a_shipping_intent

PROGRAM = """
import gc, json, os, signal, socket, sys, threading, time
from isotrack_recorder.pod import main

def be_the_agent():
    with socket.socket(socket.AF_UNIX) as connection:
        while connection.connect_ex(os.path.join(os.environ["ISOTRACK_RUN"], "control.sock")):
            time.sleep(0.01)
        connection.sendall(b'{"type":"hello","role":"agent"}\\n{"type":"command","desired":"Paused"}\\n')
        with connection.makefile("rb") as lines:
            kept = os.path.join(os.environ["ISOTRACK_RUN"], "command")
            told = [json.loads(lines.readline()) for _ in range(2)]
            while not os.path.exists(kept):
                time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=be_the_agent).start()
code = main(["capture"])
print(json.dumps({"code": code, "collects": gc.isenabled(), "frozen": gc.get_freeze_count(), "modules": list(sys.modules)}))
"""
"""A recorder that finds no server, and an agent that tells it what to do; as in a pod, but for `supervise`."""


@pytest.mark.parametrize(
    "heavy",
    [
        "boto3",
        "botocore",
        "rich",
        "livekit.api",
        "jwt",
        "numpy",
        "kubernetes",
        "aiohttp.web",
        "pydantic",
        "pydantic_core",
        "isotrack_api.base",
        "isotrack_api.intent",
        "isotrack_api.manifest",
    ],
)
def test_the_capture_path_loads_nothing_heavy(heavy: str, recorder: dict[str, Any]) -> None:
    assert heavy not in recorder["modules"]


def test_what_a_join_needs_is_loaded_before_the_server_answers(recorder: dict[str, Any]) -> None:
    assert {"aiohttp", "isotrack_recorder.webrtc.session"} <= set(recorder["modules"])


def test_garbage_is_collected_again_once_everything_is_loaded(recorder: dict[str, Any]) -> None:
    assert recorder["code"] == 0
    assert recorder["collects"]
    assert recorder["frozen"] > 10_000, "what is loaded is not walked each time"


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a recorder's process was like at its end."""
    folder: Path = tmp_path_factory.mktemp("r")
    (folder / "token").write_text("token")
    intent = a_shipping_intent()
    nowhere = intent.source.model_copy(update={"url": "ws://127.0.0.1:9"})
    environment = {
        "ISOTRACK_INTENT": intent.model_copy(update={"source": nowhere}).to_json(),
        "ISOTRACK_TOKEN_FILE": str(folder / "token"),
        "ISOTRACK_SPOOL": str(folder / "spool"),
        "ISOTRACK_RUN": str(folder),
    }
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    found: dict[str, Any] = json.loads(ended.stdout)
    return found
