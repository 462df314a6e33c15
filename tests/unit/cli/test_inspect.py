"""`isotrack inspect` on local recordings."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from isotrack_api.manifest import Manifest
from isotrack_recorder.cli.inspect import run
from isotrack_recorder.errors import ConfigError
from isotrack_recorder.finalise.local import finish_local
from isotrack_recorder.verify.place import MANIFEST_NAME, parse_manifest
from support.media import opus_packets
from support.spools import Call, Sender, an_intent, tone


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    call = Call(tmp_path / "spool")
    call.person("PA_a", "alice", left=6.0, name="\x1b[31mAlice")
    call.track("t0001", "PA_a", "alice", "microphone", "opus", 0.5, ended=6.0)
    call.frames("t0001", Sender(), 48_000, tone(opus_packets(250), 1.0), reports=[2.0], lost=range(50, 60))
    call.event("unrecorded", 1.0, track_id="TR_x", peer_id="PA_a", user_id="alice", source="camera",
               reason="CodecUnsupported", message="video/AV1")  # fmt: skip
    call.write(stop=10.0)
    finish_local(call.spool, an_intent(), tmp_path / "out")
    return tmp_path / "out"


def inspect(place: Path, *, json: bool = False) -> int:
    return run(argparse.Namespace(recording=str(place), json=json))


@pytest.mark.parametrize("name", ["", MANIFEST_NAME])
def test_tables_tell_people_files_gaps_and_what_is_missing(
    recording: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inspect(recording / name) == 0
    printed = capsys.readouterr().out
    for expected in ("alice", "microphone opus", "Lost", "0.20 s lost", "CodecUnsupported", "video/AV1", "incomplete"):
        assert expected in printed
    assert "\x1b" not in printed


def test_json_is_the_manifest(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect(recording, json=True) == 0
    printed = capsys.readouterr().out
    assert Manifest.model_validate_json(printed) == parse_manifest((recording / MANIFEST_NAME).read_bytes(), "x")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(None, "is not there", id="missing"),
        pytest.param(b"", "is not a recording's manifest: Invalid JSON", id="empty"),
        pytest.param(b"{}", "is not a recording's manifest: generator: Field required", id="other-json"),
        pytest.param(b"\xff\xfe", "is not a recording's manifest", id="not-text"),
        pytest.param(b"[" * 100_000, "is not a recording's manifest", id="deeply-nested"),
    ],
)
def test_what_is_no_manifest_is_one_clear_error(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / MANIFEST_NAME).write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        inspect(tmp_path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 700
