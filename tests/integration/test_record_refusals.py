"""`isotrack record` with wrong input: one line that says what is wrong, a fitting exit code, and nothing left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from isotrack_dev.servers import free_port
from support.bucket import Bucket
from support.call import Call
from support.command import Ended
from support.people import Person


def assert_refused(ended: Ended, code: int, *words: str) -> None:
    """It said why in one line."""
    assert ended.code == code, ended.stderr
    assert ended.stdout == ""
    lines = ended.stderr.strip().splitlines()
    assert len(lines) == 1, ended.stderr
    assert lines[0].startswith("isotrack: ")
    for word in words:
        assert word in lines[0], f"{word!r} is not in {lines[0]!r}"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        pytest.param(
            ["--file-name-template", "{nonsense}"], ["--file-name-template", "{user_id}"], id="template-unknown"
        ),
        pytest.param(["--file-name-template", "{user_id}"], ["--file-name-template"], id="template-not-unique"),
        pytest.param(
            ["--file-name-template", "../{peer_id}_{media_kind}_{stream_kind}"],
            ["--file-name-template"],
            id="template-path",
        ),
        pytest.param(
            ["--output-types", "audio_only,smell"], ["--output-types", "smell", "audio_video"], id="output-type"
        ),
        pytest.param(["--container", "avi"], ["--container", "avi", "mkv"], id="container"),
        pytest.param(["--max-duration", "soon"], ["--max-duration", "soon", "1h30m"], id="duration"),
        pytest.param(["--max-duration", "0"], ["duration"], id="duration-zero"),
        pytest.param(["--url", "sfu.example.com"], ["--url", "wss://"], id="url"),
        pytest.param(["--source", "carrier-pigeon"], ["--source", "livekit"], id="source"),
        pytest.param(["--output", "ftp://host/path"], ["--output", "s3://"], id="output-scheme"),
        pytest.param(["--nonsense"], ["--nonsense"], id="option"),
    ],
)
def test_a_wrong_option_is_named(call: Call, options: list[str], words: list[str]) -> None:
    ended = call.isotrack("record", "--call", call.room, "--output", str(call.output), *options)
    assert_refused(ended, 64, *words)
    assert not call.output.exists()


def test_missing_credentials_are_named(call: Call) -> None:
    ended = call.isotrack("record", "--call", call.room, "--output", str(call.output), LIVEKIT_API_SECRET="")
    assert_refused(ended, 64, "LIVEKIT_API_SECRET")


@pytest.mark.parametrize("variable", ["LIVEKIT_API_KEY", "LIVEKIT_API_SECRET"])
def test_wrong_credentials_are_refused_without_showing_them(call: Call, variable: str) -> None:
    wrong = "wrong-" + "x" * 40
    ended = call.isotrack("record", "--call", call.room, "--output", str(call.output), **{variable: wrong})
    assert_refused(ended, 77, "LIVEKIT_API")
    assert wrong not in ended.stderr
    assert call.server.api_secret not in ended.stderr


def test_an_unknown_room_is_not_created(call: Call) -> None:
    for _ in range(2):  # NB: twice, because joining an unknown room makes it
        assert_refused(call.isotrack("record", "--call", call.room, "--output", str(call.output)), 66, call.room)
    assert not list(call.output.glob("*"))


def test_an_unreachable_server_is_named(call: Call) -> None:
    address = f"127.0.0.1:{free_port('127.0.0.1')}"
    ended = call.isotrack("record", "--call", call.room, "--output", str(call.output), LIVEKIT_URL=f"ws://{address}")
    assert_refused(ended, 69, address)


def test_an_output_that_is_no_folder_is_refused(call: Call, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    with call.people([Person(identity="alice", camera=None)]) as people:
        people.join("alice")
        for output in (file, file / "below"):
            assert_refused(call.isotrack("record", "--call", call.room, "--output", str(output)), 73, str(file))
    assert file.read_text() == "mine"


def test_an_unwritable_folder_is_refused(call: Call) -> None:
    """/proc refuses even root."""
    with call.people([Person(identity="alice", camera=None)]) as people:
        people.join("alice")
        output = "/proc/sys/kernel/recording"
        assert_refused(call.isotrack("record", "--call", call.room, "--output", output), 73, output)


def test_a_folder_that_holds_a_recording_is_kept(call: Call) -> None:
    call.output.mkdir()
    (call.output / "recording.json").write_text("{}")
    ended = call.isotrack("record", "--call", call.room, "--output", str(call.output))
    assert_refused(ended, 73, str(call.output))
    assert (call.output / "recording.json").read_text() == "{}"


@pytest.mark.parametrize(
    ("output", "changes", "words"),
    [
        pytest.param("s3://no-such-bucket/x", {}, ["no-such-bucket"], id="no-bucket"),
        pytest.param("s3://recordings/x", {"AWS_SECRET_ACCESS_KEY": "wrong-secret"}, ["recordings"], id="wrong-key"),
    ],
)
def test_a_bucket_that_takes_nothing_is_refused_at_the_start(
    call: Call, bucket: Bucket, output: str, changes: dict[str, str], words: list[str]
) -> None:
    with call.people([Person(identity="alice", camera=None)]) as people:
        people.join("alice")
        ended = call.isotrack("record", "--call", call.room, "--output", output, **changes)
    assert_refused(ended, 73, *words)
    assert "wrong-secret" not in ended.stderr
    assert not any(call.room in key for key in bucket.keys("x/"))
