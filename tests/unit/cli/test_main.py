"""The shell of `isotrack`: exit codes, streams, and what a run leaves behind."""

from __future__ import annotations

import io
import threading
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from isotrack_api.base import SpoolLevel, TrackSource
from isotrack_api.manifest import Manifest
from isotrack_recorder import __version__
from isotrack_recorder.cli import main
from isotrack_recorder.cli.changes import describe, plain
from isotrack_recorder.cli.display import DetachedDisplay, LineDisplay, TableDisplay, open_display
from isotrack_recorder.cli.finish import finish_workspace
from isotrack_recorder.cli.options import read_options
from isotrack_recorder.cli.parser import build_parser
from isotrack_recorder.cli.workspace import Workspace, check_output, state_folder
from isotrack_recorder.control import SpoolState, State, TrackState, UnrecordedState
from isotrack_recorder.errors import ConfigError, IsotrackError, OutputError
from isotrack_recorder.finalise.session import SessionStream
from isotrack_recorder.spool.writer import SpoolWriter
from support.media import opus_packets
from support.spools import Call, Sender, tone


def test_the_version_goes_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"isotrack {__version__}\n"


def test_without_a_command_help_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 64
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "record" in shown.err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["record", "--call", "x"], 64),
        (["finalise", "/nonexistent"], 64),
        (["inspect", "/nonexistent"], 64),
    ],
)
def test_errors_are_one_line_and_a_code(
    arguments: list[str], code: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LIVEKIT_URL", raising=False)
    assert main(arguments) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("isotrack: ")
    assert shown.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["record", "--container", "avi"], "'avi' (choose from 'mkv', 'webm')", id="container"),
        pytest.param(["inspect", "s3://media"], "s3://BUCKET/FOLDER", id="bucket-alone"),
        pytest.param(["frobnicate"], "choose from", id="command"),
    ],
)
def test_a_mistake_is_told_in_words_of_the_command_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        raise SystemExit(main(arguments))
    assert ended.value.code == 64
    shown = capsys.readouterr().err
    assert said in shown
    assert shown.count("\n") == 1


@pytest.mark.parametrize("variable", ["ISOTRACK_LOG_LEVEL", "ISOTRACK_LOG_FORMAT"])
def test_a_log_setting_that_means_nothing_is_named(
    variable: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "loud")
    assert main(["finalise", str(tmp_path)]) == 64
    assert f"{variable} 'loud' is unknown" in capsys.readouterr().err


def an_intent_of(output: Path) -> Workspace:
    arguments = build_parser().parse_args(["record", "--url", "ws://x", "--call", "x", "--output", str(output)])
    keys = {"LIVEKIT_API_KEY": "k", "LIVEKIT_API_SECRET": "s"}
    return Workspace.create(output, read_options(arguments, keys, uuid.uuid4()).intent)


def test_a_workspace_tells_what_was_to_be_recorded_and_goes_away(tmp_path: Path) -> None:
    workspace = an_intent_of(tmp_path / "new" / "out")
    assert workspace.folder.parent == tmp_path / "new" / "out"
    assert workspace.read_intent().call_id == "x"
    assert workspace.folder.stat().st_mode & 0o777 == 0o700
    workspace.remove()
    assert list((tmp_path / "new" / "out").iterdir()) == []


def test_a_workspace_in_use_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Finalising a recording that still runs would throw its spool away."""
    workspace = an_intent_of(tmp_path)
    assert main(["finalise", str(workspace.folder)]) == 64
    assert "at this moment" in capsys.readouterr().err
    assert workspace.folder.exists()


@pytest.mark.parametrize("name", ["intent", "garbage"])
def test_a_folder_that_no_run_left_is_refused(tmp_path: Path, name: str) -> None:
    if name == "garbage":
        (tmp_path / "intent.json").write_text("{")
    with pytest.raises(ConfigError):
        Workspace(tmp_path).read_intent()


def test_a_folder_with_a_recording_or_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "recording.json").write_text("{}")
    for place in (tmp_path, tmp_path / "recording.json"):
        with pytest.raises(OutputError):
            check_output(place)
    check_output(tmp_path / "new")


def test_runs_into_a_bucket_keep_their_state_where_the_user_keeps_state() -> None:
    assert state_folder({"XDG_STATE_HOME": "/s"}) == Path("/s/isotrack")
    assert state_folder({"HOME": "/h"}) == Path("/h/.local/state/isotrack")


def a_track(**changes: Any) -> TrackState:
    base = TrackState(track="t0001", track_id="TR", user_id="alice", peer_id="PA", source=TrackSource.CAMERA)
    return replace(base, **changes)


def a_left_out(**changes: Any) -> UnrecordedState:
    base = UnrecordedState(track_id="TR", user_id="alice", source=TrackSource.CAMERA, reason="Encrypted", message="m")
    return replace(base, **changes)


@pytest.mark.parametrize(
    ("before", "after", "lines"),
    [
        pytest.param(None, State(phase="Joining"), ["joining"], id="begin"),
        pytest.param(State(phase="Capturing"), State(phase="Stopped", message="bye"), ["stopped: bye"], id="end"),
        pytest.param(
            State(phase="Armed", tracks=(a_track(),)),
            State(phase="Capturing", tracks=(a_track(codec="vp8", width=640, height=360),)),
            ["alice camera: vp8", "alice camera: 640x360", "recording"],
            id="media",
        ),
        pytest.param(
            State(phase="Capturing", tracks=(a_track(codec="vp8"),)),
            State(phase="Capturing", tracks=(a_track(codec="vp8", muted=True),)),
            ["alice camera: muted"],
            id="mute",
        ),
        pytest.param(
            State(phase="Capturing", tracks=(a_track(codec="vp8"),)),
            State(phase="Capturing", tracks=(a_track(codec="vp8", ended=True, frames=9, lost=1),)),
            ["alice camera: ended after 9 frames, 1 packets lost"],
            id="gone",
        ),
        pytest.param(
            State(phase="Capturing", tracks=(a_track(codec="vp8"),)),
            State(
                phase="Capturing",
                tracks=(a_track(codec="vp8", shed=True),),
                spool=SpoolState(level=SpoolLevel.CAMERA_SHED, used=81, capacity=100),
            ),
            ["the disk is nearly full: cameras are left out", "alice camera: not received, the disk is nearly full"],
            id="no room",
        ),
        pytest.param(
            State(phase="Capturing", unrecorded=(a_left_out(),)),
            State(
                phase="Capturing",
                unrecorded=(
                    a_left_out(),
                    a_left_out(track_id="TR_2", user_id="b\x1b[2Job"),
                    a_left_out(track_id="TR_3", reason="CodecUnsupported", message="video offered as H266"),
                ),
            ),
            [
                "b�[2Job camera: not recorded, end-to-end encrypted",
                "alice camera: not recorded, codec not supported: video offered as H266",
            ],
            id="unrecorded",
        ),
        pytest.param(
            State(phase="Capturing", tracks=(a_track(codec="vp8", frames=1),)),
            State(phase="Capturing", tracks=(a_track(codec="vp8", frames=2),)),
            [],
            id="more of the same",
        ),
    ],
)
def test_changes_are_told_in_words(before: State | None, after: State, lines: list[str]) -> None:
    assert list(describe(before, after)) == lines


@pytest.mark.parametrize("name", ["\x1b[31mred\r\n", "a\u202eb", "x" * 500, "🎉" * 300])
def test_foreign_names_cannot_move_the_cursor(name: str) -> None:
    shown = plain(name)
    assert shown.isprintable()
    assert len(shown) <= 40


def test_both_displays_take_any_state() -> None:
    state = State(
        phase="Capturing",
        message="[bold]x",
        tracks=(a_track(user_id="[red]\x1b[2J", codec="vp8", frames=3), a_track(shed=True)),
        spool=SpoolState(level=SpoolLevel.FULL, used=98, capacity=100),
    )
    lines, table = io.StringIO(), io.StringIO()
    for display in (LineDisplay(lines), TableDisplay(table, "recording \x1b[2J")):
        display.show(state)
        display.say("done")
        display.close()
    assert "recording" in lines.getvalue()
    assert "98 % full" in table.getvalue()
    assert "shed" in table.getvalue()
    for shown in (lines.getvalue(), table.getvalue()):
        assert "[red]" in shown, "a name is text, not markup"
        assert "\x1b[2J" not in shown


class Stalled(io.StringIO):
    """A terminal that is not read for a while."""

    def __init__(self) -> None:
        super().__init__()
        self.written_to, self.goes_on = threading.Event(), threading.Event()

    def write(self, text: str) -> int:
        self.written_to.set()
        if not self.goes_on.wait(60):
            raise AssertionError("whoever shows something waits for the terminal")
        return super().write(text)


def test_a_terminal_that_is_not_read_stops_nobody_but_what_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-S, or a connection that hangs, stopped the event loop, and with it the recording."""
    terminal = Stalled()
    monkeypatch.setattr("isotrack_recorder.cli.display.CLOSE_SECONDS", 0)
    display = open_display(terminal, "call")
    assert isinstance(display, DetachedDisplay)
    display.say("first")
    assert terminal.written_to.wait(60)
    for number in range(1000):
        display.show(State(phase="Capturing", tracks=(a_track(codec=f"codec{number}"),)))
    display.say("last")
    display.close()
    terminal.goes_on.set()
    display._thread.join(60)
    lines = terminal.getvalue().splitlines()
    assert (lines[0], lines[1]) == ("first", "last")
    assert [line for line in lines if "codec" in line] == ["alice camera: codec999"], "the newest alone"


def test_the_table_has_one_row_for_a_track_that_cannot_be_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown codec has a log that stays empty, an encrypted track has none. What came before a refusal is live."""
    monkeypatch.setenv("COLUMNS", "160")
    state = State(
        phase="Capturing",
        tracks=(a_track(), a_track(track="t0002", track_id="TR_ok", user_id="carol", frames=9)),
        unrecorded=(
            a_left_out(reason="CodecUnsupported"),
            a_left_out(track_id="TR_ok", user_id="carol"),
            a_left_out(track_id="TR_2", user_id="[red]\x1b[2Jbob"),
        ),
    )
    table = io.StringIO()
    display = TableDisplay(table, "call")
    display.show(state)
    display.close()
    rows = {
        name: [line for line in table.getvalue().splitlines() if name in line] for name in ("alice", "carol", "bob")
    }
    assert [len(found) for found in rows.values()] == [1, 1, 1]
    assert "not recorded, codec not supported" in rows["alice"][0]
    assert "live" in rows["carol"][0]
    assert "not recorded, end-to-end encrypted" in rows["bob"][0]
    assert "[red]" in rows["bob"][0]
    assert "\x1b[2J" not in table.getvalue()


def test_a_wide_terminal_shows_every_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    track = a_track(
        codec="vp8", packets=1234, late=56, plis=78, size_changes=90, last_packet_age_ms=4321, lost=11, recovered=22
    )
    for columns, wanted in (("200", True), ("80", False)):
        monkeypatch.setenv("COLUMNS", columns)
        table = io.StringIO()
        display = TableDisplay(table, "call")
        display.show(State(phase="Capturing", tracks=(track,)))
        display.close()
        assert all(number in table.getvalue() for number in ("11", "22"))
        assert all((number in table.getvalue()) == wanted for number in ("1234", "56", "78", "90", "4.3 s"))


async def test_files_that_cannot_be_made_leave_the_workspace_and_say_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even when it is a fault of ours."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("isotrack_recorder.finalise.local.finish_local", broken)
    workspace = an_intent_of(tmp_path)
    told = io.StringIO()
    with pytest.raises(ZeroDivisionError):
        await finish_workspace(workspace, workspace.read_intent(), told)
    assert f"isotrack finalise {workspace.folder}" in told.getvalue()
    assert workspace.folder.exists()


async def test_what_somebody_else_has_finished_is_not_to_be_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Above the word that nothing is left to do stood one that told to do it."""

    async def done(*_: object) -> None:
        raise ConfigError("it was finished already")

    monkeypatch.setattr("isotrack_recorder.cli.finish._finish_local", done)
    workspace = an_intent_of(tmp_path)
    told = io.StringIO()
    with pytest.raises(ConfigError, match="finished already"):
        await finish_workspace(workspace, workspace.read_intent(), told)
    assert told.getvalue() == ""
    assert workspace.folder.exists()


async def test_files_that_could_not_all_be_made_are_made_where_they_belong_the_next_time(tmp_path: Path) -> None:
    """The manifest of the first try is this recording's own."""
    workspace = an_intent_of(tmp_path)
    intent = workspace.read_intent()
    call = Call(workspace.spool)
    call.person("PA_a", "alice", at=0.5, left=4.0)
    call.track("t0001", "PA_a", "alice", "microphone", "opus", 0.5, ended=4.0)
    call.frames("t0001", Sender(), 48_000, tone(opus_packets(100), 1.0), reports=[2.0])
    call.write(stop=5.0)
    told = io.StringIO()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(SessionStream, "advance", lambda *_, **__: 1 // 0)
        with pytest.raises(IsotrackError, match="PA_a"):
            await finish_workspace(workspace, intent, told)
    assert f"isotrack finalise {workspace.folder}" in told.getvalue()
    assert not Manifest.model_validate_json((tmp_path / "recording.json").read_bytes()).complete
    finished = await finish_workspace(workspace, intent, told)
    assert finished.place == str(tmp_path)
    assert len(Manifest.model_validate_json((tmp_path / "recording.json").read_bytes()).files) == 1
    assert not workspace.folder.exists()


async def test_a_second_recording_in_one_folder_replaces_nothing(tmp_path: Path) -> None:
    """Both ran at once; the one that ends later gets a folder of its own."""
    workspace = an_intent_of(tmp_path)
    intent = workspace.read_intent()
    spool = SpoolWriter(workspace.spool)
    spool.journal(
        "start", 1, version=1, wall_ns=1_700_000_000_000_000_000, attempt=1, recording_uid=intent.recording.uid
    )
    spool.journal("call", 2, call_id="x", call_sid="RM_1")
    spool.journal("armed", 3)
    spool.journal("stop", 4, reason="Requested", message="")
    spool.close()
    (tmp_path / "recording.json").write_text("the other's")
    finished = await finish_workspace(workspace, intent, io.StringIO())
    assert finished.place == str(tmp_path / intent.folder)
    assert (tmp_path / intent.folder / "recording.json").exists()
    assert (tmp_path / "recording.json").read_text() == "the other's"
    assert not workspace.folder.exists()


def test_a_closed_terminal_costs_nothing() -> None:
    class Gone(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    display = LineDisplay(Gone())
    display.show(State(phase="Capturing"))
    display.say("done")


def test_a_short_secret_is_no_matter_of_stderr(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """LiveKit's development mode has the secret `secret`."""
    monkeypatch.setenv("LIVEKIT_API_KEY", "devkey")
    monkeypatch.setenv("LIVEKIT_API_SECRET", "secret")
    assert main(["record", "--url", "ws://127.0.0.1:9", "--call", "x", "--output", str(tmp_path / "out")]) == 69
    assert capsys.readouterr().err.startswith("isotrack: cannot reach LiveKit at 127.0.0.1:9: ")
    assert not (tmp_path / "out").exists()
