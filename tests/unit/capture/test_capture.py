"""Capture: what a source tells becomes journal, logs and subscriptions, by the rules of intent and commands."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from isotrack_api.base import MediaKind, TrackSource
from isotrack_api.intent import Intent, IntentLimits, LiveKitSource, RecordingRef
from isotrack_api.manifest import StopReason
from isotrack_recorder.capture import Capture
from isotrack_recorder.control import MAX_UNRECORDED, Command, UnrecordedState
from isotrack_recorder.earlier import Earlier, read_earlier
from isotrack_recorder.errors import SourceError, SourceRefusedError, StorageError
from isotrack_recorder.media import CodecInfo, TrackCounters
from isotrack_recorder.orders import orders_of
from isotrack_recorder.sources.base import (
    CallEnded,
    Disconnected,
    Event,
    Fenced,
    Joined,
    ParticipantLeft,
    ParticipantSeen,
    Ready,
    Reconnected,
    Removed,
    SourceHandler,
    TrackEnded,
    TrackMuted,
    TrackRefused,
    TrackSeen,
)
from isotrack_recorder.spool.journal import decode_journal
from isotrack_recorder.spool.records import Flag, decode_records
from isotrack_recorder.spool.watermarks import Usage
from isotrack_recorder.spool.writer import SpoolWriter
from isotrack_recorder.track_capture import MAX_LOGS
from support.fake_source import FakeSource
from support.virtual_clock import VirtualClock

OPUS = CodecInfo("opus", 48000, 2)
STEREO = CodecInfo("opus", 48000, 2, "stereo=1")
NOTHING_BEFORE = Earlier()


class Call:
    """One running capture and all around it."""

    def __init__(self, folder: Path, intent: Intent, earlier: Earlier) -> None:
        self.clock = VirtualClock()
        self.spool = SpoolWriter(folder)
        self.changes = 0
        self.room = Usage(0, 1_000_000)
        """What the spool's disk is said to hold."""
        self.capture = Capture(
            orders_of(intent), self.spool, self.clock, self._open, lambda: self.room, earlier, self._changed
        )
        self.task = asyncio.create_task(self.capture.run())

    def _open(self, handler: SourceHandler) -> FakeSource:
        self.source = FakeSource(handler)
        return self.source

    def _changed(self) -> None:
        self.changes += 1

    def media(self, track_id: str, kind: MediaKind = MediaKind.AUDIO, frames: int = 3) -> bool:
        """Let frames of a track arrive; False when nobody wants them."""
        sink = self.capture.open_track(track_id, kind)
        if sink is None:
            return False
        sink.codec(OPUS)
        sink.source_changed(1234, 0)
        for number in range(frames):
            sink.frame(960 * number, self.clock.monotonic_ns(), 1, b"frame")
        return True

    async def events(self, *names: str) -> list[dict[str, Any]]:
        """The journal so far, `names` only if given."""
        await self.clock.settle()
        self.spool.flush()
        lines = decode_journal((self.spool.folder / "journal.ndjson").read_bytes())
        return [line for line in lines if not names or line["e"] in names]

    def frames(self, track: str) -> int:
        """Frames of a log on disk."""
        return sum(1 for log in self.spool.folder.glob(f"{track}.*.log") for _ in decode_records(log.read_bytes()))


def an_intent(**changes: object) -> Intent:
    """An intent for a call named standup."""
    base = Intent(
        recording=RecordingRef(namespace="team", name="standup", uid="0123456789abcdef"),
        call_id="standup",
        source=LiveKitSource(url="ws://sfu", identity="rec"),
        folder="team/standup-01234567",
    )
    return base.model_copy(update=changes)


@asynccontextmanager
async def a_call(folder: Path, earlier: Earlier = NOTHING_BEFORE, **changes: object) -> AsyncIterator[Call]:
    """A capture that has joined, with its end waited for."""
    call = Call(folder, an_intent(**changes), earlier)
    await call.clock.settle()
    call.source.tell(Joined("RM_1"), Ready())
    yield call
    call.capture.stop(StopReason.REQUESTED)
    await call.task


def alice(*tracks: TrackSeen, human: bool = True) -> tuple[Event, ...]:
    """Alice comes with tracks."""
    return (ParticipantSeen("PA_a", "alice", "Alice", human), *tracks)


def a_track(track_id: str = "TR_mic", peer_id: str = "PA_a", **changes: object) -> TrackSeen:
    """A microphone."""
    fields: dict[str, Any] = {
        "source": TrackSource.MICROPHONE,
        "kind": MediaKind.AUDIO,
        "encrypted": False,
        "muted": False,
    }
    return TrackSeen(track_id, peer_id, **{**fields, **changes})


def names(events: list[dict[str, Any]]) -> list[str]:
    return [event["e"] for event in events]


async def test_sound_that_changes_its_codec_goes_on_in_another_log(tmp_path: Path) -> None:
    """Their clocks differ, and the first packet of the new codec looks like any other."""
    async with a_call(tmp_path) as call:
        call.source.tell(*alice(a_track(muted=True)))
        sink = call.capture.open_track("TR_mic", MediaKind.AUDIO)
        assert sink is not None
        for codec, ticks, frames in (
            (OPUS, 960, 3),
            (CodecInfo("pcmu", 8000), 160, 4),
            (OPUS, 960, 2),
            (STEREO, 960, 5),
        ):
            sink.codec(codec)
            sink.source_changed(1234, 0)
            for number in range(frames):
                sink.frame(ticks * number, call.clock.monotonic_ns(), 1, b"frame")
        events = await call.events("track", "codec", "ssrc", "muted", "track_ended")
        assert [(event["track"], event["e"]) for event in events] == [
            *(("t0001", name) for name in ("track", "muted", "codec", "ssrc", "track_ended")),
            *(("t0002", name) for name in ("track", "muted", "codec", "ssrc", "track_ended")),
            *(("t0003", name) for name in ("track", "muted", "codec", "ssrc", "codec", "ssrc")),
        ]
        assert {
            (event["track_id"], event["peer_id"], event["source"]) for event in events if event["e"] == "track"
        } == {("TR_mic", "PA_a", "microphone")}
        assert [call.frames(log) for log in ("t0001", "t0002", "t0003")] == [3, 4, 7]


async def test_a_sender_that_changes_its_codec_with_each_packet_fills_no_disk_with_files(tmp_path: Path) -> None:
    async with a_call(tmp_path) as call:
        call.source.tell(*alice(a_track()))
        sink = call.capture.open_track("TR_mic", MediaKind.AUDIO)
        assert sink is not None
        for number in range(3 * MAX_LOGS):
            sink.codec((OPUS, CodecInfo("pcmu", 8000))[number % 2])
            sink.frame(number, call.clock.monotonic_ns(), 1, b"frame")
        assert len(await call.events("track")) == len(list(call.spool.folder.glob("t*.log"))) == MAX_LOGS


async def test_a_process_that_was_started_again_says_when_all_of_the_ones_before_is_written(tmp_path: Path) -> None:
    """Who left meanwhile is told by nobody; what was captured of them is all there."""
    async with a_call(tmp_path) as call:
        await call.clock.advance(2)
        assert not await call.events("written")
    async with a_call(tmp_path) as call:
        await call.clock.advance(2)
        assert names(await call.events("armed", "written")) == ["armed", "written"]


async def test_that_frames_of_who_left_are_written_is_told_in_a_flush_behind_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_call(tmp_path) as call:
        call.source.tell(*alice(a_track()))
        call.media("TR_mic")
        call.source.tell(TrackEnded("TR_mic", "left"), ParticipantLeft("PA_a", "left"))
        batches: list[list[bytes]] = []
        write = call.spool._journal.append

        def noted(lines: Sequence[bytes]) -> None:
            batches.append(list(lines))
            write(lines)

        monkeypatch.setattr(call.spool._journal, "append", noted)
        await call.clock.advance(2)
        call.spool.await_written()
    left, told = (
        [n for n, batch in enumerate(batches) if any(b'"e":"%s"' % word in line for line in batch)]
        for word in (b"participant_left", b"written")
    )
    assert (len(left), len(told)) == (1, 1), "once, however long the call goes on"
    assert left < told


async def test_loudness_goes_to_the_journal(tmp_path: Path) -> None:
    async with a_call(tmp_path) as call:
        call.source.tell(*alice(a_track()))
        sink = call.capture.open_track("TR_mic", MediaKind.AUDIO)
        assert sink is not None
        sink.levels(7_000, 50, 20, 67, 26)
        [level] = await call.events("level")
        assert {name: level[name] for name in ("at", "track", "packets", "loudest", "mean", "voiced")} == {
            "at": 7_000, "track": "t0001", "packets": 50, "loudest": 20, "mean": 67, "voiced": 26,
        }  # fmt: skip


@pytest.mark.parametrize(("codec", "silence"), [("pcmu", b"\xff"), ("pcma", b"\xd5")])
async def test_silence_that_an_sfu_makes_up_behind_a_mute_of_g711_is_no_sound(
    tmp_path: Path, codec: str, silence: bytes
) -> None:
    """A gateway may send such packets, too: those of somebody who is not muted are kept, and what tells of a new clock always."""
    made, usual, begins = silence * 160, int(Flag.KEY), int(Flag.KEY | Flag.DISCONTINUITY)
    async with a_call(tmp_path) as call:
        call.source.tell(*alice(a_track()))
        sink = call.capture.open_track("TR_mic", MediaKind.AUDIO)
        assert sink is not None
        sink.codec(CodecInfo(codec, 8000, 1))
        sink.frame(0, 1, begins, made)
        sink.frame(160, 2, usual, made)
        call.source.tell(TrackMuted("TR_mic", True))
        sink.frame(320, 3, usual, made)
        sink.frame(480, 4, usual, b"\x11" + made[1:])
        sink.frame(640, 5, begins, made)
        call.source.tell(TrackMuted("TR_mic", False))
        sink.frame(800, 6, usual, made)
    assert call.frames("t0001") == 5


async def test_a_call_from_start_to_stop_is_told_in_order(tmp_path: Path) -> None:
    async with a_call(tmp_path) as call:
        call.source.tell(*alice(a_track()))
        assert call.source.wanted == {"TR_mic"}
        assert call.media("TR_mic")
        call.source.tell(TrackMuted("TR_mic", True), TrackMuted("TR_mic", False))
        call.source.tell(TrackEnded("TR_mic", "left"), ParticipantLeft("PA_a", "CLIENT_INITIATED"))
        assert call.capture.state().phase == "Armed"
    events = list(decode_journal((tmp_path / "i0001/journal.ndjson").read_bytes()))
    assert names(events) == [
        *("start", "call", "armed", "participant", "track", "codec", "ssrc"),
        *("muted", "unmuted", "track_ended", "participant_left", "stop"),
    ]
    assert events[0]["attempt"] == 1
    assert events[-1]["reason"] == "Requested"
    assert call.frames("t0001") == 3
    assert call.source.left, "the SFU was told goodbye"


async def test_frames_reach_the_disk_within_half_a_second(tmp_path: Path) -> None:
    async with a_call(tmp_path) as call:
        call.source.tell(*alice(a_track()))
        call.media("TR_mic")
        assert call.frames("t0001") == 0
        await call.clock.advance(0.5)
        call.spool.await_written()
        assert call.frames("t0001") == 3


async def test_what_lies_in_the_socket_at_a_flush_reaches_the_disk_with_it(tmp_path: Path) -> None:
    """The socket is read every 200 ms at best: a killed process would lose what lies there as well."""
    async with a_call(tmp_path) as call:
        call.source.tell(*alice(a_track()))
        call.source.socket.append(lambda: call.media("TR_mic"))
        await call.clock.advance(0.5)
        call.spool.await_written()
        assert call.frames("t0001") == 3


async def test_only_allowed_people_are_subscribed_to(tmp_path: Path) -> None:
    async with a_call(tmp_path, user_ids=("bob",)) as call:
        call.source.tell(*alice(a_track()))
        call.source.tell(ParticipantSeen("PA_b", "bob", "", True), a_track("TR_b", "PA_b"))
        assert call.source.wanted == {"TR_b"}
        assert not call.media("TR_mic")
        told = await call.events("participant")
        assert [(event["user_id"], event["recorded"]) for event in told] == [("alice", False), ("bob", True)]


async def test_the_allowlist_may_change_while_running(tmp_path: Path) -> None:
    async with a_call(tmp_path, user_ids=("alice",)) as call:
        call.source.tell(*alice(a_track()))
        call.media("TR_mic")
        call.capture.apply(Command(user_ids=("bob",)))
        assert call.source.wanted == set()
        assert not call.media("TR_mic")
        call.capture.apply(Command(user_ids=None))
        assert call.source.wanted == {"TR_mic"}
        assert call.media("TR_mic")
        told = await call.events("participant", "track", "track_ended")
        assert [(event["e"], event.get("track"), event.get("recorded")) for event in told] == [
            ("participant", None, True),
            ("track", "t0001", None),
            ("participant", None, False),
            ("track_ended", "t0001", None),
            ("participant", None, True),
            ("track", "t0002", None),
        ]


async def test_pause_receives_nothing_and_resume_goes_on_in_the_same_log(tmp_path: Path) -> None:
    async with a_call(tmp_path) as call:
        call.source.tell(*alice(a_track()))
        call.media("TR_mic")
        call.capture.apply(Command(desired="Paused"))
        call.capture.apply(Command(desired="Paused"))
        assert call.source.wanted == set()
        assert not call.media("TR_mic")
        assert call.capture.state().phase == "Paused"
        call.source.tell(a_track("TR_late"))
        assert call.source.wanted == set(), "what appears while paused is not received either"
        call.capture.apply(Command())
        assert call.source.wanted == {"TR_mic", "TR_late"}
        call.media("TR_mic")
        told = await call.events("paused", "resumed", "track", "track_ended")
        assert names(told) == ["track", "paused", "track", "resumed"]
        await call.clock.advance(0.5)
        assert call.frames("t0001") == 6


CAMERA = {"source": TrackSource.CAMERA, "kind": MediaKind.VIDEO}
SCREEN = {"source": TrackSource.SCREENSHARE, "kind": MediaKind.VIDEO}


class TestRoom:
    """What a spool that fills up means for tracks."""

    @staticmethod
    @asynccontextmanager
    async def a_full_house(folder: Path) -> AsyncIterator[Call]:
        async with a_call(folder) as call:
            tracks = (a_track(), a_track("TR_cam", **CAMERA), a_track("TR_screen", **SCREEN))
            call.source.tell(*alice(*tracks))
            for track in tracks:
                call.media(track.track_id, track.kind)
            yield call

    @staticmethod
    async def fill(call: Call, percent: int) -> None:
        """Let the disk be so full, and the capture look at it."""
        call.room = Usage(percent * 10_000, 1_000_000)
        await call.clock.advance(1)

    async def test_cameras_go_first_then_screens_then_sound(self, tmp_path: Path) -> None:
        async with self.a_full_house(tmp_path) as call:
            received = []
            for percent in (59, 79, 85, 92, 98):
                await self.fill(call, percent)
                state = call.capture.state()
                assert state.spool is not None
                received.append((percent, state.spool.level, sorted(call.source.wanted), state.phase))
            assert received == [
                (59, "Clear", ["TR_cam", "TR_mic", "TR_screen"], "Capturing"),
                (79, "Filling", ["TR_cam", "TR_mic", "TR_screen"], "Capturing"),
                (85, "CameraShed", ["TR_mic", "TR_screen"], "Capturing"),
                (92, "ScreenshareShed", ["TR_mic"], "Capturing"),
                (98, "Full", [], "Armed"),
            ]
            assert not call.media("TR_cam", MediaKind.VIDEO), "what is on its way is dropped"
            assert not call.task.done(), "the recorder stays in the call"
            call.source.tell(ParticipantSeen("PA_b", "bob", "", True))
            assert "participant" in names(await call.events())[-2:], "and goes on noting who is there"

    async def test_what_comes_back_goes_on_in_its_log_and_every_change_is_told(self, tmp_path: Path) -> None:
        async with self.a_full_house(tmp_path) as call:
            await self.fill(call, 85)
            await self.fill(call, 71)
            assert "TR_cam" not in call.source.wanted, "ten percent apart, or tracks would flicker"
            await self.fill(call, 69)
            assert call.source.wanted == {"TR_mic", "TR_cam", "TR_screen"}
            await call.clock.advance(2)
            assert names(await call.events("shed", "unshed")) == ["shed"], "nothing flows yet"
            call.media("TR_cam", MediaKind.VIDEO)
            told = await call.events("shed", "unshed", "track_ended")
            assert [(event["e"], event["track"]) for event in told] == [("shed", "t0002"), ("unshed", "t0002")]
            assert call.frames("t0002") == 6

    async def test_who_sends_nothing_after_the_return_is_not_called_shed_for_ever(self, tmp_path: Path) -> None:
        async with self.a_full_house(tmp_path) as call:
            await self.fill(call, 85)
            await self.fill(call, 10)
            await call.clock.advance(6)
            assert names(await call.events("shed", "unshed")) == ["shed", "unshed"]

    async def test_a_gap_goes_on_where_room_runs_out_again_before_a_frame_came(self, tmp_path: Path) -> None:
        async with self.a_full_house(tmp_path) as call:
            await self.fill(call, 85)
            await self.fill(call, 10)
            await self.fill(call, 85)
            assert names(await call.events("shed", "unshed")) == ["shed"]

    async def test_who_comes_meanwhile_is_declared_and_received_later(self, tmp_path: Path) -> None:
        async with self.a_full_house(tmp_path) as call:
            await self.fill(call, 85)
            call.source.tell(ParticipantSeen("PA_b", "bob", "", True), a_track("TR_b", "PA_b", **CAMERA))
            assert "TR_b" not in call.source.wanted
            assert [event["track"] for event in await call.events("shed")] == ["t0002", "t0004"]
            shown = {track.track_id: track.shed for track in call.capture.state().tracks}
            assert shown == {"TR_mic": False, "TR_cam": True, "TR_screen": False, "TR_b": True}
            await self.fill(call, 10)
            assert "TR_b" in call.source.wanted

    async def test_pause_and_want_of_room_do_not_undo_each_other(self, tmp_path: Path) -> None:
        async with self.a_full_house(tmp_path) as call:
            await self.fill(call, 85)
            call.capture.apply(Command(desired="Paused"))
            await self.fill(call, 10)
            assert call.source.wanted == set(), "paused"
            await self.fill(call, 85)
            call.capture.apply(Command())
            assert call.source.wanted == {"TR_mic", "TR_screen"}, "no room for the camera"

    async def test_a_successor_in_place_begins_with_what_there_is_room_for(self, tmp_path: Path) -> None:
        call = Call(tmp_path, an_intent(), NOTHING_BEFORE)
        call.room = Usage(98, 100)
        await call.clock.settle()
        call.source.tell(Joined("RM_1"), Ready(), *alice(a_track()))
        assert call.source.wanted == set()
        call.capture.stop(StopReason.REQUESTED)
        await call.task

    async def test_what_will_come_until_the_next_look_counts_as_there(self, tmp_path: Path) -> None:
        """A fast call on a small disk: a second of it is more than is left between two marks."""
        async with self.a_full_house(tmp_path) as call:
            sink = call.capture.open_track("TR_mic", MediaKind.AUDIO)
            assert sink is not None
            sink.frame(1, call.clock.monotonic_ns(), 1, bytes(150_000))
            await self.fill(call, 70)
            assert "TR_cam" not in call.source.wanted


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (CallEnded("ROOM_CLOSED"), StopReason.CALL_ENDED),
        (Removed("PARTICIPANT_REMOVED"), StopReason.REMOVED),
        (Fenced(), StopReason.FENCED),
    ],
)
async def test_the_source_can_end_it(tmp_path: Path, event: Event, reason: StopReason) -> None:
    async with a_call(tmp_path) as call:
        call.source.end(event)
        await call.task
        assert (await asyncio.to_thread(read_earlier, tmp_path)).stop_reason == reason
        state = call.capture.state()
        assert (state.phase, state.stop_reason) == ("Stopped", reason)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (Command(desired="Stopped"), StopReason.REQUESTED),
        (Command(desired="Stopped", stop_reason=StopReason.DELETED), StopReason.DELETED),
    ],
)
async def test_a_command_can_end_it_and_the_first_reason_counts(
    tmp_path: Path, command: Command, reason: StopReason
) -> None:
    async with a_call(tmp_path) as call:
        call.capture.apply(command)
        call.capture.apply(Command(desired="Stopped", stop_reason=StopReason.DRAINED))
        await call.task
        assert read_earlier(tmp_path).stop_reason == reason


@pytest.mark.parametrize(
    ("error", "reason", "code"),
    [
        (SourceRefusedError("no"), "SourceRefused", 77),
        (SourceError("gone"), "SourceUnavailable", 69),
    ],
)
async def test_a_source_that_fails_is_an_ending_with_an_error(
    tmp_path: Path, error: SourceError, reason: str, code: int
) -> None:
    async with a_call(tmp_path) as call:
        call.source.tell(*alice(a_track()))
        call.media("TR_mic")
        call.source.fail(error)
        await call.task
        state = call.capture.state()
        assert (state.phase, state.error_reason, state.error_exit_code) == ("Failed", reason, code)
        assert call.frames("t0001") == 3, "what was captured stays"
        earlier = read_earlier(tmp_path)
        assert (earlier.stop_reason, earlier.error_reason) == ("InternalError", reason)


class TestLimits:
    """When a capture ends by itself."""

    async def test_max_duration_counts_from_armed(self, tmp_path: Path) -> None:
        limits = IntentLimits(max_duration_seconds=60, empty_timeout_seconds=0)
        async with a_call(tmp_path, limits=limits) as call:
            await call.clock.advance(59)
            assert not call.task.done()
            await call.clock.advance(2)
            await call.task
            assert read_earlier(tmp_path).stop_reason == StopReason.MAX_DURATION

    @pytest.mark.parametrize(
        ("epoch", "earlier"),
        [(True, False), (False, True)],
        ids=["of the first attempt", "of an earlier incarnation"],
    )
    async def test_max_duration_counts_from_the_first_start(self, tmp_path: Path, epoch: bool, earlier: bool) -> None:
        started_ms = VirtualClock().wall_ns() // 1_000_000 - 50_000
        limits = IntentLimits(max_duration_seconds=60, empty_timeout_seconds=0)
        before = Earlier(armed_at_ms=started_ms if earlier else None)
        async with a_call(tmp_path, before, limits=limits, epoch_ms=started_ms if epoch else None) as call:
            await call.clock.advance(8)
            assert not call.task.done()
            await call.clock.advance(3)
            await call.task
            assert read_earlier(tmp_path).stop_reason == StopReason.MAX_DURATION

    @pytest.mark.parametrize("wrong", [3 * 3600, -3 * 3600], ids=["ahead", "behind"])
    async def test_a_successor_whose_clock_is_wrong_by_hours_records_on(self, tmp_path: Path, wrong: int) -> None:
        """By its clock the recording should be over, or has not begun: it lasts as long as if it began now."""
        limits = IntentLimits(max_duration_seconds=60, empty_timeout_seconds=0)
        started_ms = VirtualClock().wall_ns() // 1_000_000 - wrong * 1000
        async with a_call(tmp_path, limits=limits, epoch_ms=started_ms) as call:
            await call.clock.advance(57)
            assert not call.task.done()
            await call.clock.advance(4)
            await call.task
            assert read_earlier(tmp_path).stop_reason == StopReason.MAX_DURATION

    @pytest.mark.parametrize("jump", [3600, -3600])
    @pytest.mark.parametrize(
        "again", [False, True], ids=["in its first process", "in a process that was started again"]
    )
    async def test_a_wall_clock_that_is_set_neither_ends_nor_prolongs_a_recording(
        self, tmp_path: Path, jump: float, again: bool
    ) -> None:
        limits = IntentLimits(max_duration_seconds=60, empty_timeout_seconds=0)
        clock = VirtualClock()
        began_ms, began_ns = clock.wall_ns() // 1_000_000 - 30_000 - int(jump) * 1000, clock.monotonic_ns() - 30 * 10**9
        before = Earlier(armed_at_ms=began_ms, armed_ns=began_ns, boot=clock.boot()) if again else Earlier()
        async with a_call(tmp_path, before, limits=limits) as call:
            await call.clock.advance(1)
            call.clock.set_wall(jump)
            await call.clock.advance(27 if again else 57)
            assert not call.task.done()
            await call.clock.advance(3)
            await call.task
            assert read_earlier(tmp_path).stop_reason == StopReason.MAX_DURATION

    @pytest.mark.parametrize(
        ("happens", "ends"),
        [
            pytest.param([], True, id="nobody ever came"),
            pytest.param(alice(), False, id="somebody is there"),
            pytest.param(alice(human=False), True, id="an agent alone"),
            pytest.param([*alice(), ParticipantLeft("PA_a", "")], True, id="everybody left"),
            pytest.param([Disconnected("lost")], False, id="we are not connected"),
            pytest.param([Disconnected("lost"), Joined("RM_1"), Reconnected()], True, id="still nobody on return"),
        ],
    )
    async def test_an_empty_call_ends_after_its_timeout(
        self, tmp_path: Path, happens: Iterable[Event], ends: bool
    ) -> None:
        async with a_call(tmp_path, limits=IntentLimits(empty_timeout_seconds=30)) as call:
            call.source.tell(*happens)
            await call.clock.advance(29)
            assert not call.task.done()
            await call.clock.advance(2)
            assert call.task.done() == ends
            if ends:
                assert read_earlier(tmp_path).stop_reason == StopReason.ALL_PARTICIPANTS_LEFT

    async def test_a_timeout_of_zero_waits_for_the_sfu(self, tmp_path: Path) -> None:
        async with a_call(tmp_path, limits=IntentLimits(empty_timeout_seconds=0)) as call:
            await call.clock.advance(3600)
            assert not call.task.done()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        pytest.param(lambda _call: None, "Encrypted", id="encrypted"),
        pytest.param(
            lambda call: call.capture.track_unsupported("TR_mic", MediaKind.AUDIO, "weird"),
            "CodecUnsupported",
            id="codec",
        ),
        pytest.param(
            lambda call: call.source.tell(TrackRefused("TR_mic", "SubscriptionRefused", "no")),
            "SubscriptionRefused",
            id="refused",
        ),
    ],
)
async def test_tracks_that_cannot_be_recorded_are_declared_once(
    tmp_path: Path, make: Callable[[Call], None], reason: str
) -> None:
    async with a_call(tmp_path) as call:
        call.source.tell(*alice(a_track(encrypted=reason == "Encrypted")))
        make(call)
        make(call)
        told = await call.events("unrecorded")
        assert [(event["track_id"], event["user_id"], event["reason"]) for event in told] == [
            ("TR_mic", "alice", reason)
        ]
        assert [(row.track_id, row.user_id, row.source, row.reason) for row in call.capture.state().unrecorded] == [
            ("TR_mic", "alice", TrackSource.MICROPHONE, reason)
        ]


async def test_a_track_of_somebody_who_is_not_recorded_any_more_is_not_missed(tmp_path: Path) -> None:
    async with a_call(tmp_path) as call:
        call.source.tell(*alice(a_track()))
        call.capture.apply(Command(user_ids=("bob",)))
        call.source.tell(TrackRefused("TR_mic", "SubscriptionRefused", "no"))
        assert call.capture.state().unrecorded == ()


async def test_a_state_tells_of_so_many_tracks_that_cannot_be_recorded_and_of_those_of_earlier_processes(
    tmp_path: Path,
) -> None:
    before = UnrecordedState(track_id="TR_gone", user_id="bob", source=TrackSource.CAMERA, reason="Encrypted")
    async with a_call(tmp_path, Earlier(unrecorded=(before,))) as call:
        call.source.tell(*alice(*(a_track(f"TR_{n}", encrypted=True) for n in range(MAX_UNRECORDED))))
        told = [row.track_id for row in call.capture.state().unrecorded]
        assert told == ["TR_gone", *(f"TR_{n}" for n in range(MAX_UNRECORDED - 1))]
        assert len(await call.events("unrecorded")) == MAX_UNRECORDED, "the journal has all"


async def test_a_track_of_somebody_who_is_not_recorded_is_not_missed(tmp_path: Path) -> None:
    async with a_call(tmp_path, user_ids=("bob",)) as call:
        call.source.tell(*alice(a_track(encrypted=True)))
        assert call.capture.state().unrecorded == ()


async def test_an_encrypted_track_is_never_subscribed_to(tmp_path: Path) -> None:
    async with a_call(tmp_path) as call:
        call.source.tell(*alice(a_track(encrypted=True)))
        assert call.source.wanted == set()
        assert await call.events("track") == []


async def test_who_leaves_costs_no_walk_over_all_tracks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds leave at once; where each of their tracks took a walk over all the loop stood still for seconds."""

    def walk() -> Mapping[str, TrackCounters]:
        raise AssertionError("all tracks were walked over")

    async with a_call(tmp_path) as call:
        call.source.tell(*alice(a_track()))
        call.source.totals["TR_mic"] = TrackCounters(packets=7)
        with monkeypatch.context() as patched:
            patched.setattr(call.source, "counters", walk)
            call.source.tell(TrackEnded("TR_mic", "left"), ParticipantLeft("PA_a", "left"))
        assert [event["packets"] for event in await call.events("counters")] == [7]


async def test_totals_of_a_track_that_is_over_stay_as_they_were(tmp_path: Path) -> None:
    """Of a track that began with an earlier connection the source knows less by then; of one that is admitted again, more."""
    async with a_call(tmp_path) as call:
        call.source.tell(*alice(a_track()))
        call.source.totals["TR_mic"] = TrackCounters(packets=7, lost=1)
        call.source.tell(TrackEnded("TR_mic", "unpublished"))
        call.source.totals["TR_mic"] = TrackCounters(packets=3)
        (track,) = call.capture.state().tracks
        assert (track.ended, track.packets, track.lost) == (True, 7, 1)


async def test_losing_the_connection_is_told_once_each_way(tmp_path: Path) -> None:
    async with a_call(tmp_path) as call:
        call.source.tell(*alice(a_track()))
        call.media("TR_mic")
        call.source.tell(Disconnected("websocket"), Disconnected("still"))
        assert call.capture.state().phase == "Reconnecting"
        call.source.tell(Joined("RM_1"), Reconnected())
        assert call.media("TR_mic"), "the same track goes on in the same log"
        assert call.capture.state().phase == "Capturing"
        assert names(await call.events("call", "disconnected", "reconnected", "track")) == [
            "call",
            "track",
            "disconnected",
            "reconnected",
        ]


async def test_totals_are_told_every_five_seconds_and_at_the_end(tmp_path: Path) -> None:
    async with a_call(tmp_path) as call:
        call.source.tell(*alice(a_track()))
        heard_ns = call.clock.monotonic_ns() + 3_000_000_000
        call.source.totals["TR_mic"] = TrackCounters(
            packets=7, lost=1, late=2, plis=3, size_changes=4, last_packet_ns=heard_ns
        )
        await call.clock.advance(11)
        assert len(await call.events("counters")) == 2
        call.capture.stop(StopReason.REQUESTED)
        await call.task
    lines = list(decode_journal((tmp_path / "i0001/journal.ndjson").read_bytes()))
    assert names(lines)[-2:] == ["counters", "stop"]
    told = lines[-2]
    assert (told["packets"], told["lost"], told["late"], told["plis"], told["size_changes"]) == (7, 1, 2, 3, 4)
    assert told["last_packet_age_ms"] == 8000


async def test_a_spool_that_cannot_be_written_ends_the_capture_and_says_so(tmp_path: Path) -> None:
    async with a_call(tmp_path) as call:
        call.spool.failure = OSError(28, "No space left on device")
        await call.clock.advance(1)
        await call.task
        assert isinstance(call.capture.error, StorageError)
        assert "No space left" in call.capture.state().message


async def test_a_state_shows_the_tracks(tmp_path: Path) -> None:
    async with a_call(tmp_path) as call:
        assert call.capture.state().phase == "Armed"
        call.source.tell(*alice(a_track()))
        call.media("TR_mic")
        call.source.totals["TR_mic"] = TrackCounters(packets=7, last_packet_ns=call.clock.monotonic_ns())
        await call.clock.advance(1)
        state = call.capture.state()
        assert (state.phase, state.participants, state.call_sid) == ("Capturing", 1, "RM_1")
        assert state.armed_at_ms is not None
        assert state.first_packet_at_ms == call.capture.first_packet_at_ms is not None
        [track] = state.tracks
        assert (track.user_id, track.name, track.codec, track.frames, track.packets) == ("alice", "Alice", "opus", 3, 7)
        assert track.last_packet_age_ms == 1000
        assert call.changes > 0


async def test_a_command_from_before_the_start_holds_from_the_start(tmp_path: Path) -> None:
    """A restarted recorder follows what its predecessor was told, and its journal still begins with `start`."""
    call = Call(tmp_path, an_intent(), NOTHING_BEFORE)
    call.capture.apply(Command(desired="Paused"))
    await call.clock.settle()
    call.source.tell(Joined("RM_1"), Ready(), *alice(a_track()))
    assert call.source.wanted == set()
    assert names(await call.events())[:3] == ["start", "paused", "call"]
    call.capture.apply(Command(desired="Stopped"))
    await call.task


async def test_an_attempt_of_a_paused_recording_begins_paused(tmp_path: Path) -> None:
    """What was said while everybody knew the recording to be paused is not received by a successor either."""
    call = Call(tmp_path, an_intent(paused=True), NOTHING_BEFORE)
    await call.clock.settle()
    call.source.tell(Joined("RM_1"), Ready(), *alice(a_track()))
    assert call.source.wanted == set()
    call.capture.apply(Command(desired="Running"))
    assert call.source.wanted == {"TR_mic"}
    assert [name for name in names(await call.events()) if name in ("start", "paused", "resumed")] == [
        "start",
        "paused",
        "resumed",
    ]
    call.capture.apply(Command(desired="Stopped"))
    await call.task


async def test_a_stop_from_before_the_start_is_a_stop(tmp_path: Path) -> None:
    call = Call(tmp_path, an_intent(), NOTHING_BEFORE)
    call.capture.apply(Command(desired="Stopped", stop_reason=StopReason.DELETED))
    await call.task
    assert read_earlier(tmp_path).stop_reason == StopReason.DELETED
