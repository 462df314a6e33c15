"""Options and environment of `isotrack record` become an Intent, or one clear line."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from isotrack_api.base import Container, OutputType
from isotrack_recorder.cli.options import RecordOptions, read_options
from isotrack_recorder.cli.parser import build_parser
from isotrack_recorder.errors import ConfigError

UID = uuid.UUID("01234567-89ab-cdef-0123-456789abcdef")
KEYS = {"LIVEKIT_API_KEY": "key", "LIVEKIT_API_SECRET": "very-secret"}
NEEDED = ["--url", "ws://sfu:7880", "--call", "standup", "--output", "out"]


def read(*options: str, **environ: str) -> RecordOptions:
    arguments = build_parser().parse_args(["record", *options])
    return read_options(arguments, {**KEYS, **environ}, UID)


def test_what_is_not_given_has_the_products_defaults() -> None:
    options = read(*NEEDED)
    intent = options.intent
    assert options.output == Path("out")
    assert intent.call_id == "standup"
    assert intent.source.url == "ws://sfu:7880"
    assert intent.user_ids is None
    assert intent.storage is None
    assert intent.limits.max_duration_seconds == 86400
    assert intent.limits.empty_timeout_seconds == 60
    [layer] = intent.layers
    assert layer.output_types == (OutputType.AUDIO_VIDEO, OutputType.SCREENSHARE_AUDIO_VIDEO)
    assert layer.container is Container.MKV
    assert intent.call_sid is None, "pinning is for rejoins: an empty room may be waited in"


def test_each_option_has_a_variable() -> None:
    by_option = read(
        *NEEDED,
        *("--output-types", "audio_only, video_only", "--user-ids", "alice,bob,alice", "--container", "webm"),
        *("--file-name-template", "x_{peer_id}_{media_kind}_{stream_kind}"),
        *("--max-duration", "1h30m", "--empty-timeout", "0"),
    )
    by_variable = read(
        LIVEKIT_URL="ws://sfu:7880",
        ISOTRACK_SOURCE="livekit",
        ISOTRACK_CALL="standup",
        ISOTRACK_OUTPUT="out",
        ISOTRACK_OUTPUT_TYPES="audio_only,video_only",
        ISOTRACK_USER_IDS="alice,bob",
        ISOTRACK_CONTAINER="webm",
        ISOTRACK_FILE_NAME_TEMPLATE="x_{peer_id}_{media_kind}_{stream_kind}",
        ISOTRACK_MAX_DURATION="5400",
        ISOTRACK_EMPTY_TIMEOUT="0s",
    )
    assert by_option == by_variable
    assert by_option.intent.limits.max_duration_seconds == 5400
    assert by_option.intent.user_ids == ("alice", "bob")


def test_every_variable_is_named_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args(["record", "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    for option in ("url", "call", "output", "output-types", "user-ids", "container", "max-duration", "empty-timeout"):
        assert f"--{option}" in shown
    for variable in ("LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET", "ISOTRACK_CALL", "ISOTRACK_OUTPUT_TYPES"):
        assert variable in shown


@pytest.mark.parametrize(
    ("options", "environ", "words"),
    [
        (["--call", "x", "--output", "o"], {}, ["--url", "LIVEKIT_URL"]),
        (["--url", "ws://x", "--output", "o"], {}, ["--call", "ISOTRACK_CALL"]),
        (["--url", "ws://x", "--call", "x"], {}, ["--output"]),
        (NEEDED, {"LIVEKIT_API_SECRET": ""}, ["LIVEKIT_API_SECRET"]),
        ([*NEEDED, "--url", "sfu.example.com"], {}, ["--url", "wss://"]),
        ([*NEEDED, "--output-types", "smell"], {}, ["smell", "audio_only"]),
        ([*NEEDED], {"ISOTRACK_CONTAINER": "avi"}, ["avi", "mkv"]),
        ([*NEEDED], {"ISOTRACK_SOURCE": "pigeon"}, ["pigeon", "livekit"]),
        ([*NEEDED, "--max-duration", "1.5"], {}, ["--max-duration", "1h30m"]),
        ([*NEEDED, "--max-duration", "30d"], {}, ["--max-duration"]),
        ([*NEEDED, "--max-duration", "9999h"], {}, ["--max-duration", "604800"]),
        ([*NEEDED, "--file-name-template", "{user_id}"], {}, ["--file-name-template"]),
        ([*NEEDED, "--output", "ftp://x"], {}, ["s3://"]),
        ([*NEEDED, "--output", "s3://"], {}, ["s3://"]),
        ([*NEEDED, "--call", "x" * 300], {}, ["--call:"]),
        ([*NEEDED, "--user-ids", ",".join(f"u{n}" for n in range(101))], {}, ["--user-ids", "100"]),
        ([*NEEDED, "--user-ids", ""], {}, ["--user-ids", "leave it out"]),
        ([*NEEDED], {"ISOTRACK_USER_IDS": " , "}, ["--user-ids", "names nothing"]),
        ([*NEEDED, "--output-types", ","], {}, ["--output-types", "names nothing"]),
    ],
)
def test_wrong_input_is_named_in_one_line(options: list[str], environ: dict[str, str], words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        read(*options, **environ)
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 500
    for word in words:
        assert word.lower() in text.lower()


def test_a_variable_that_is_set_to_nothing_is_not_given() -> None:
    """As compose files and unit files do it; an option that is given and empty is a mistake."""
    nothing = {
        "ISOTRACK_USER_IDS": "",
        "ISOTRACK_OUTPUT_TYPES": "",
        "ISOTRACK_CONTAINER": "",
        "ISOTRACK_MAX_DURATION": "",
    }
    assert read(*NEEDED, **nothing) == read(*NEEDED)


def test_a_bucket_is_taken_apart_and_the_endpoint_comes_from_the_usual_variable() -> None:
    options = read(*NEEDED[:4], "--output", "s3://media/2026/november/", AWS_ENDPOINT_URL_S3="http://s3:9000")
    storage = options.intent.storage
    assert storage is not None
    assert options.output is None
    assert (storage.bucket, storage.prefix, storage.endpoint) == ("media", "2026/november", "http://s3:9000")
    assert storage.force_path_style
    assert options.intent.folder == "standup-01234567"


@pytest.mark.parametrize("call", ["../../etc", "🎉" * 50, " "])
def test_a_hostile_call_name_reaches_no_path(call: str) -> None:
    if not call.strip():
        with pytest.raises(ConfigError):
            read(*NEEDED, "--call", call)
        return
    intent = read(*NEEDED, "--call", call).intent
    assert intent.call_id == call
    assert intent.folder.replace("-", "").isalnum()


def test_the_secret_shows_nowhere() -> None:
    assert "very-secret" not in repr(read(*NEEDED))
