"""How a request fares whose client cannot be made yet."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from isotrack_api.intent import S3Destination
from isotrack_recorder.errors import StorageRefusedError
from isotrack_recorder.ship import s3_requests
from isotrack_recorder.ship.credentials import FileCredentials
from isotrack_recorder.ship.retry import Patience
from isotrack_recorder.ship.s3_client import Connection
from isotrack_recorder.ship.s3_requests import Requests

BUCKET = S3Destination(bucket="calls", endpoint="http://127.0.0.1:9")


@pytest.fixture
def secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Secret that lacks a key, and a client library that takes all others."""
    client: Any = SimpleNamespace(meta=SimpleNamespace(events=SimpleNamespace(register=lambda *_: None)))
    monkeypatch.setattr(s3_requests, "connect", lambda *_: Connection(client, client, "here", is_aws=False))
    (tmp_path / "accessKeyId").write_text("key")
    return tmp_path


def test_credentials_that_are_not_whole_in_mid_call_are_waited_for(
    secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that begins again as its Secret is being edited must not end the recording."""
    patience = Patience(refused_pause_seconds=30.0)

    def edited(_seconds: float) -> bool:
        (secret / "secretAccessKey").write_text("secret")
        return True

    monkeypatch.setattr(patience, "pause", edited)
    requests = Requests(BUCKET, FileCredentials(secret), patience)
    assert requests.call("HeadObject", lambda _: "answered") == "answered"
    assert requests.trouble is None


def test_credentials_that_are_not_whole_at_the_start_end_it(secret: Path) -> None:
    requests = Requests(BUCKET, FileCredentials(secret), Patience())
    with pytest.raises(StorageRefusedError, match="no value for 'secretAccessKey'"):
        requests.call("HeadObject", lambda _: "answered")


def test_an_answer_gives_the_storage_its_time_anew(secret: Path) -> None:
    (secret / "secretAccessKey").write_text("secret")
    patience = Patience(in_a_row=60)
    requests = Requests(BUCKET, FileCredentials(secret), patience)
    left: list[float] = []

    def fails_once(_client: object) -> str:
        if not left:
            left.append(patience.left())
            raise OSError("away")
        left.append(patience.left())
        return "answered"

    assert requests.call("HeadObject", fails_once) == "answered"
    assert left[0] == float("inf")
    assert left[1] <= 60
    assert patience.left() == float("inf")
