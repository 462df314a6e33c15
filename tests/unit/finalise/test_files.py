"""From spools with known truth to files: decoded by libav and compared with what was sent."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isotrack_api.base import Container, OutputType
from isotrack_api.manifest import Gap, GapReason, Manifest, ManifestFile
from isotrack_recorder.finalise.local import finish_local
from isotrack_recorder.matroska.reader import blocks, read_file
from support.media import opus_packets, video_frames
from support.spools import SECOND, Call, Sender, an_intent, steady, tone

ALICE = Sender()


@pytest.fixture
def call(tmp_path: Path) -> Call:
    return Call(tmp_path / "spool")


def finish(call: Call, tmp_path: Path, **layer: object) -> Manifest:
    return finish_local(call.spool, an_intent(**layer), tmp_path / "out")


def decode(path: Path) -> tuple[int, int]:
    """Samples and pictures of a file, by libav."""
    counts = []
    for kind in ("audio", "video"):
        with av.open(str(path)) as media:
            streams = [stream for stream in media.streams if stream.type == kind]
            counts.append(sum(getattr(frame, "samples", 1) for frame in media.decode(streams[0])) if streams else 0)
    return counts[0], counts[1]


def only_file(manifest: Manifest) -> ManifestFile:
    assert len(manifest.files) == 1
    return manifest.files[0]


def read_packets(path: Path, track: int) -> list[bytes]:
    content = path.read_bytes()
    return [block.data for block in blocks(content, read_file(content)) if block.track == track]


def alice_talks(
    call: Call, seconds: float = 20, *, sender: Sender = ALICE, lost: Sequence[int] = (), picture: float | None = 0.55
) -> None:
    """Microphone, and a camera that starts at `picture`."""
    call.person("PA_a", "alice", left=seconds + 1)
    call.track("t0001", "PA_a", "alice", "microphone", "opus", 0.1, ended=seconds + 0.5)
    reports = [1.0 + 5 * n for n in range(int(seconds / 5))]
    packets = opus_packets(int(seconds * 50))
    call.frames("t0001", sender, 48_000, tone(packets, 0.5), reports=reports, lost=lost)
    if picture is not None:
        call.track("t0002", "PA_a", "alice", "camera", "vp8", 0.1, ended=seconds + 0.5)
        count = int((seconds - picture) * 30)
        frames = steady(video_frames(min(count, 600)) if count <= 600 else video_frames(600) * 10, picture, 1 / 30)
        call.event("size", 0.2, track="t0002", timestamp=0, width=160, height=120, rotation=0)
        call.frames("t0002", sender, 90_000, frames[:count], reports=[at + 0.2 for at in reports], base=5)


def test_pictures_of_one_instant_have_times_of_their_own(call: Call, tmp_path: Path) -> None:
    """An SFU that goes over to another simulcast layer sends the same picture in both. Decoders take equal times for a fault."""
    call.person("PA_a", "alice", left=6.0)
    call.track("t0001", "PA_a", "alice", "camera", "vp8", 0.1, ended=5.5)
    frames = list(steady(video_frames(90), 0.5, 1 / 30))
    frames[45:45] = [frames[44]] * 2
    call.frames("t0001", ALICE, 90_000, frames, reports=[1.0], base=5)
    call.write(stop=7.0)
    file = only_file(finish(call, tmp_path))
    content = (tmp_path / "out" / file.name).read_bytes()
    times = [block.time_ms for block in blocks(content, read_file(content))]
    assert len(times) == 92
    assert [later - times[44] for later in times[45:47]] == [1, 2]
    assert all(earlier < later for earlier, later in pairwise(times))


def test_two_tracks_become_one_file_with_all_frames_untouched(call: Call, tmp_path: Path) -> None:
    alice_talks(call)
    call.write(stop=21.0)
    file = only_file(finish(call, tmp_path))
    path = tmp_path / "out" / file.name
    assert (file.output_type, file.reason, file.part) == (OutputType.AUDIO_VIDEO, None, 1)
    assert read_packets(path, 1)[:1000] == list(opus_packets(1000))
    assert read_packets(path, 2) == [data for data, _ in video_frames(583)]
    samples, pictures = decode(path)
    assert pictures == 583
    assert abs(samples / 48 - file.duration_ms) <= 20
    assert path.stat().st_size == file.bytes


@pytest.mark.usefixtures("ffmpeg")
@pytest.mark.parametrize("codec", ["vp8", "h264"])
def test_ffmpeg_finds_nothing_to_complain_about(call: Call, tmp_path: Path, codec: str) -> None:
    """Head, cues, durations, codec data: an independent reader accepts all of it."""
    alice_talks(call, picture=None, lost=range(100, 160))
    call.track("t0002", "PA_a", "alice", "camera", codec, 0.1)
    call.event("size", 0.2, track="t0002", timestamp=0, width=160, height=120, rotation=0)
    call.frames("t0002", ALICE, 90_000, steady(video_frames(500, codec), 0.5, 1 / 30))
    call.write(stop=21.0)
    file = only_file(finish(call, tmp_path))
    path = tmp_path / "out" / file.name
    # Time base of the demuxer: by default ffmpeg rounds to a guessed frame rate and warns about its own rounding.
    command = ["ffmpeg", "-v", "warning", "-nostdin", "-i", str(path), "-enc_time_base", "-1", "-f", "null", "-"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    probe = subprocess.run(
        ["ffprobe", "-v", "warning", "-print_format", "json", "-show_format", "-show_streams", str(path)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert probe.stderr == ""
    facts = json.loads(probe.stdout)
    assert float(facts["format"]["start_time"]) == 0
    assert float(facts["format"]["duration"]) == pytest.approx(file.duration_ms / 1000, abs=0.002)
    assert [stream["codec_name"] for stream in facts["streams"]] == ["opus", codec]


def test_sound_is_found_where_it_was_made(call: Call, tmp_path: Path) -> None:
    """A beep after a mute: decoded position + the file's offset = the moment of the beep plus the shortest way."""
    call.person("PA_a", "alice", left=21)
    call.track("t0001", "PA_a", "alice", "microphone", "opus", 0.1)
    sender = Sender(wall_error=-7200, drift_ppm=80)
    packets = opus_packets(50)
    call.frames("t0001", sender, 48_000, tone(packets, 1.0) + tone(packets, 15.0), reports=[2, 7, 12, 16, 19])
    call.event("muted", 2.0, track="t0001")
    call.event("unmuted", 14.9, track="t0001")
    call.write(stop=21.0)
    file = only_file(finish(call, tmp_path))
    with av.open(str(tmp_path / "out" / file.name)) as media:
        heard = np.concatenate([frame.to_ndarray().reshape(-1) for frame in media.decode(audio=0)])
    loud = np.abs(heard.reshape(-1, 480)).max(axis=1) > 0.05
    beginnings = [n * 10 for n in range(1, len(loud)) if loud[n] and not loud[max(0, n - 20) : n].any()]
    assert [file.start_offset_ms + at for at in beginnings] == pytest.approx([15_030], abs=25)
    assert abs(len(heard) / 48 - file.duration_ms) <= 20
    (gap,) = [gap for gap in file.tracks[0].gaps if gap.reason is GapReason.MUTED]
    assert (gap.start_ms, gap.duration_ms) == (pytest.approx(2030, abs=10), pytest.approx(13_000, abs=20))


def test_a_person_who_is_off_the_allowlist_for_a_while_is_not_silent(call: Call, tmp_path: Path) -> None:
    """Before it was on the list nothing was missed, so only the time in between is told."""
    for at, recorded in ((0.0, False), (0.1, True), (5.0, False), (9.9, True)):
        call.event("participant", at, peer_id="PA_a", user_id="alice", name="", recorded=recorded)
    packets = opus_packets(250)
    for log, begin, end in (("t0001", 0.5, 5.0), ("t0002", 10.0, 15.0)):
        call.track(log, "PA_a", "alice", "microphone", "opus", begin - 0.1, ended=end, track_id="TR_mic")
        talk = tone(packets[: round((end - begin) * 50)], begin)
        call.frames(log, ALICE, 48_000, talk, reports=[begin + 1, begin + 4])
    call.write(stop=16.0)
    file = only_file(finish(call, tmp_path))
    (gap,) = file.tracks[0].gaps
    assert (gap.reason, gap.duration_ms) == (GapReason.EXCLUDED, pytest.approx(5000, abs=30))


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        pytest.param([("muted", 5.0), ("unmuted", 9.9)], GapReason.MUTED, id="muted"),
        pytest.param([("paused", 5.0), ("resumed", 9.9)], GapReason.PAUSED, id="paused"),
        pytest.param([("disconnected", 5.0), ("reconnected", 9.9)], GapReason.DISCONNECTED, id="disconnected"),
        pytest.param([("shed", 5.0), ("unshed", 10.1)], GapReason.SHED, id="no-room"),
        pytest.param(
            [("shed", 5.0), ("muted", 5.0), ("unmuted", 9.9), ("unshed", 10.1)],
            GapReason.MUTED,
            id="muted-without-room",
        ),
        pytest.param([], GapReason.SILENT, id="sender-fell-silent"),
    ],
)
def test_each_hole_is_filled_and_says_why(
    call: Call, tmp_path: Path, events: list[tuple[str, float]], reason: GapReason
) -> None:
    call.person("PA_a", "alice", left=16)
    call.track("t0001", "PA_a", "alice", "microphone", "opus", 0.1, ended=15.1)
    packets = opus_packets(250)
    call.frames("t0001", ALICE, 48_000, tone(packets[:225], 0.5) + tone(packets, 10.0), reports=[1.0, 4.0, 11.0, 14.0])
    for name, at in events:
        call.event(name, at, **({"track": "t0001"} if name.endswith(("muted", "shed")) else {"reason": "x"}))
    call.write(stop=16.0)
    file = only_file(finish(call, tmp_path))
    (gap,) = file.tracks[0].gaps
    assert (gap.reason, gap.duration_ms) == (reason, pytest.approx(5000, abs=5))
    samples, _ = decode(tmp_path / "out" / file.name)
    assert samples / 48 == pytest.approx(file.duration_ms, abs=3)
    assert file.duration_ms == pytest.approx(14_500, abs=10)
    assert file.tracks[0].silence_ms == gap.duration_ms


def test_a_camera_without_room_is_declared_where_no_file_reaches(call: Call, tmp_path: Path) -> None:
    """Before its first picture and behind its last: there is no hole in the file that would tell."""
    alice_talks(call, picture=None)
    call.track("t0002", "PA_a", "alice", "camera", "vp8", 0.6, ended=20.5)
    call.event("shed", 0.6, track="t0002")
    call.event("unshed", 5.0, track="t0002")
    call.event("size", 5.0, track="t0002", timestamp=0, width=160, height=120, rotation=0)
    call.frames("t0002", ALICE, 90_000, steady(video_frames(150), 5.0, 1 / 30), reports=[5.1], base=5)
    call.event("shed", 10.0, track="t0002")
    call.write(stop=21.0)
    manifest = finish(call, tmp_path)
    (camera,) = [track for track in only_file(manifest).tracks if track.source == "camera"]
    assert [(gap.reason, gap.start_ms, gap.duration_ms) for gap in camera.gaps] == [
        (GapReason.SHED, pytest.approx(600, abs=5), pytest.approx(4430, abs=60)),
        (GapReason.SHED, pytest.approx(10_030, abs=60), pytest.approx(10_470, abs=60)),
    ]
    assert manifest.lost_ms == pytest.approx(14_900, abs=100)
    assert manifest.complete, "all that is missing is declared"


def camera_at(call: Call, begin: float, *, log: str = "t0002", opened: float = 0.6, muted: float | None = None) -> None:
    """Alice's camera: published at `opened`, muted at that moment unless told, unmuted half a second before its pictures."""
    call.track(log, "PA_a", "alice", "camera", "vp8", opened, ended=begin + 10)
    call.event("muted", opened if muted is None else muted, track=log)
    call.event("unmuted", begin - 0.5, track=log)
    call.event("size", begin, track=log, timestamp=0, width=160, height=120, rotation=0)
    call.frames(log, ALICE, 90_000, steady(video_frames(150), begin, 1 / 30), reports=[begin + 0.1], base=5)


def told(manifest: Manifest, source: str) -> list[tuple[GapReason, float, float]]:
    """Gaps of a source in all files: why, from when, until when, in tenths of seconds."""
    tracks = [track for file in manifest.files for track in file.tracks if track.source == source]
    gaps = [gap for track in tracks for gap in track.gaps]
    return [
        (gap.reason, round(gap.start_ms / 1000, 1), round((gap.start_ms + gap.duration_ms) / 1000, 1)) for gap in gaps
    ]


MUTED, SILENT = GapReason.MUTED, GapReason.SILENT


@pytest.mark.parametrize(
    ("muted", "since"),
    [pytest.param(None, 0.6, id="published-muted"), pytest.param(2.0, 2.0, id="muted-a-little-later")],
)
def test_a_camera_that_is_muted_before_its_first_picture_says_so(
    call: Call, tmp_path: Path, muted: float | None, since: float
) -> None:
    """As it does of a later mute: muted, and then for as long as the camera takes to begin."""
    alice_talks(call, picture=None)
    camera_at(call, 5.0, muted=muted)
    call.write(stop=21.0)
    manifest = finish(call, tmp_path)
    assert told(manifest, "camera") == [(MUTED, since, 4.5), (SILENT, 4.5, 5.0)]
    assert manifest.lost_ms == 0


def test_of_a_camera_that_was_muted_later_nothing_is_told_before_its_first_picture(call: Call, tmp_path: Path) -> None:
    alice_talks(call, picture=None)
    camera_at(call, 5.0, muted=8.0)
    call.write(stop=21.0)
    assert told(finish(call, tmp_path), "camera") == [(MUTED, 10.0, 15.0)]


def test_a_camera_that_begins_a_further_part_says_how_long_it_was_muted(call: Call, tmp_path: Path) -> None:
    call.person("PA_a", "alice", left=90)
    call.track("t0001", "PA_a", "alice", "microphone", "opus", 0.1, ended=90)
    call.frames("t0001", ALICE, 48_000, tone(opus_packets(50), 0.5) + tone(opus_packets(4000), 5.0), reports=[1.0, 6.0])
    camera_at(call, 70.0)
    call.write(stop=90.0)
    manifest = finish(call, tmp_path)
    assert [file.part for file in manifest.files] == [1, 2]
    assert told(manifest, "camera") == [(MUTED, 0.6, 69.5), (SILENT, 69.5, 70.0)]


def test_a_microphone_that_is_muted_before_its_first_word_says_so(call: Call, tmp_path: Path) -> None:
    """No other file of hers begins earlier, so there is no hole to fill."""
    call.person("PA_a", "alice", left=16)
    call.track("t0001", "PA_a", "alice", "microphone", "opus", 0.1, ended=15.1)
    call.event("muted", 0.1, track="t0001")
    call.event("unmuted", 9.9, track="t0001")
    call.frames("t0001", ALICE, 48_000, tone(opus_packets(250), 10.0), reports=[11.0, 14.0])
    call.write(stop=16.0)
    manifest = finish(call, tmp_path)
    assert told(manifest, "microphone") == [(MUTED, 0.1, 10.0)]
    assert only_file(manifest).tracks[0].silence_ms == 0


def test_a_mute_before_the_first_word_is_told_once_beside_pictures_that_began_in_it(call: Call, tmp_path: Path) -> None:
    """Before the file begins nothing is filled, from then on it is: one gap over both."""
    call.person("PA_a", "alice", left=16)
    call.track("t0001", "PA_a", "alice", "microphone", "opus", 0.1, ended=15.1)
    call.event("muted", 0.1, track="t0001")
    call.event("unmuted", 9.9, track="t0001")
    call.frames("t0001", ALICE, 48_000, tone(opus_packets(250), 10.0), reports=[11.0, 14.0])
    camera_at(call, 3.0)
    call.write(stop=16.0)
    manifest = finish(call, tmp_path)
    assert told(manifest, "microphone") == [(MUTED, 0.1, 10.0)]
    (sound,) = [track for track in only_file(manifest).tracks if track.source == "microphone"]
    assert sound.silence_ms == pytest.approx(7000, abs=50)


def test_a_camera_that_is_muted_until_the_end_says_so(call: Call, tmp_path: Path) -> None:
    alice_talks(call, picture=None)
    camera_at(call, 1.0, muted=0.7)
    call.event("muted", 6.1, track="t0002")
    call.write(stop=21.0)
    assert told(finish(call, tmp_path), "camera")[-1:] == [(MUTED, 6.0, 11.0)]


@pytest.mark.parametrize(
    ("event", "reason", "lost_ms"), [("muted", GapReason.MUTED, 0), ("shed", GapReason.SHED, 19_500)]
)
def test_a_microphone_that_is_silent_when_the_next_part_begins_says_why_there_too(
    event: str, reason: GapReason, lost_ms: int, call: Call, tmp_path: Path
) -> None:
    """It has no frame in that part; its track ended before the pictures do."""
    call.person("PA_a", "alice", left=25)
    call.track("t0001", "PA_a", "alice", "microphone", "opus", 0.1, ended=24)
    call.track("t0002", "PA_a", "alice", "camera", "vp8", 0.1)
    call.frames("t0001", ALICE, 48_000, tone(opus_packets(200), 0.5))
    call.event(event, 4.5, track="t0001")
    call.frames("t0002", ALICE, 90_000, steady(video_frames(150), 0.5, 1 / 15), base=0)
    call.codec("t0002", "h264", 10.55)
    call.frames("t0002", ALICE, 90_000, steady(video_frames(60, "h264"), 10.5, 1 / 15), base=0, new_ssrc=False)
    call.write(stop=25.0)
    manifest = finish(call, tmp_path)
    assert [file.part for file in manifest.files] == [1, 2]
    assert told(manifest, "microphone") == [(reason, 4.5, 10.5), (reason, 10.5, 24.0)]
    assert manifest.lost_ms == pytest.approx(lost_ms, abs=100)


def test_a_mute_that_outlasts_the_recorder_is_one_mute(tmp_path: Path) -> None:
    """Each process begins a log of its own for the track; the mute is the track's. Who was muted lost nothing by the crash."""
    first = Call(tmp_path / "spool")
    alice_talks(first, picture=None)
    first.event("track", 0.6, track="t0002", track_id="TR_cam", peer_id="PA_a", user_id="alice", source="camera",
                kind="video")  # fmt: skip
    first.event("muted", 0.6, track="t0002")
    first.write(until=20)  # its last word is a report at 16 s
    second = Call(tmp_path / "spool", incarnation=2, started=22.0)
    second.person("PA_a", "alice", at=22.2, left=40)
    second.track("t0001", "PA_a", "alice", "camera", "vp8", 22.5, ended=39.0, track_id="TR_cam")
    second.event("muted", 22.5, track="t0001")
    second.event("unmuted", 29.9, track="t0001")
    second.event("size", 30.0, track="t0001", timestamp=0, width=160, height=120, rotation=0)
    second.frames("t0001", ALICE, 90_000, steady(video_frames(150), 30.0, 1 / 30), reports=[30.1], base=5)
    second.write(stop=40.0)
    manifest = finish(second, tmp_path)
    assert told(manifest, "camera") == [(MUTED, 0.6, 16.0), (MUTED, 22.5, 30.0)]


@pytest.mark.parametrize(
    ("muted", "expected"),
    [pytest.param(False, [("TR_cam", "Shed")], id="sent"), pytest.param(True, [], id="muted-all-the-time")],
)
def test_a_track_for_which_there_was_never_room_is_named(
    call: Call, tmp_path: Path, muted: bool, expected: list[tuple[str, str]]
) -> None:
    alice_talks(call, picture=None)
    call.event("track", 1.0, track="t0002", track_id="TR_cam", peer_id="PA_a", user_id="alice", source="camera",
               kind="video")  # fmt: skip
    if muted:
        call.event("muted", 1.0, track="t0002")
    call.event("shed", 1.0, track="t0002")
    call.event("track_ended", 20.5, track="t0002", reason="left")
    call.write(stop=21.0)
    manifest = finish(call, tmp_path)
    assert [(row.track_id, row.reason) for row in manifest.unrecorded] == expected
    assert manifest.complete is muted


def test_a_camera_that_begins_late_is_in_step_with_the_sound(call: Call, tmp_path: Path) -> None:
    """The offset is that of the lips: pictures beside sound of the same instant, by their sender's reports."""
    alice_talks(call, picture=3.5)
    call.write(stop=21.0)
    file = only_file(finish(call, tmp_path))
    assert file.av_offset_ms == pytest.approx(0, abs=3)
    assert ", pictures from 3.0" in file.summary
    assert ", A/V offset " in file.summary


def test_pictures_that_travel_longer_than_their_sound_are_behind_it_until_that_is_made_up_for(
    call: Call, tmp_path: Path
) -> None:
    """Reports come after 20 s; from then on it takes a second for each of 60 ms."""
    call.person("PA_a", "alice", left=41)
    call.track("t0001", "PA_a", "alice", "microphone", "opus", 0.1, ended=40.5)
    call.frames("t0001", ALICE, 48_000, tone(opus_packets(2000), 0.5), reports=range(20, 40))
    call.track("t0002", "PA_a", "alice", "camera", "vp8", 0.1, ended=40.5)
    call.event("size", 0.2, track="t0002", timestamp=0, width=160, height=120, rotation=0)
    frames = steady(video_frames(600) * 2, 0.5, 1 / 30)
    call.frames("t0002", Sender(transit=ALICE.transit + 0.06), 90_000, frames, reports=range(20, 40), base=5)
    call.write(stop=41.0)
    assert only_file(finish(call, tmp_path)).av_offset_ms == pytest.approx(46, abs=6)


def test_without_reports_nothing_is_said_of_the_lips(call: Call, tmp_path: Path) -> None:
    alice_talks(call, picture=None)
    call.track("t0002", "PA_a", "alice", "camera", "vp8", 0.1, ended=20.5)
    call.event("size", 0.2, track="t0002", timestamp=0, width=160, height=120, rotation=0)
    call.frames("t0002", ALICE, 90_000, steady(video_frames(150), 0.5, 1 / 30), base=5)
    call.write(stop=21.0)
    file = only_file(finish(call, tmp_path))
    assert file.av_offset_ms is None
    assert "A/V" not in file.summary


def test_pictures_missing_over_a_short_reconnect_are_declared(call: Call, tmp_path: Path) -> None:
    """A second without pictures is no pause of the camera where the connection was gone meanwhile."""
    call.person("PA_a", "alice", left=12)
    call.track("t0001", "PA_a", "alice", "camera", "vp8", 0.1, ended=11.1)
    call.event("size", 0.2, track="t0001", timestamp=0, width=160, height=120, rotation=0)
    frames = video_frames(150)
    call.frames("t0001", ALICE, 90_000, steady(frames, 0.5, 1 / 30), reports=[1.0, 4.0])
    call.event("disconnected", 5.7, reason="x")
    call.event("reconnected", 6.2)
    call.frames("t0001", ALICE, 90_000, steady(frames, 6.5, 1 / 30), reports=[7.0, 10.0])
    call.write(stop=12.0)
    manifest = finish(call, tmp_path)
    (gap,) = only_file(manifest).tracks[0].gaps
    assert (gap.reason, gap.duration_ms) == (GapReason.DISCONNECTED, pytest.approx(1000, abs=40))
    assert manifest.lost_ms == gap.duration_ms


def test_what_lies_before_the_call_s_zero_is_told_as_it_lies_in_the_file(call: Call, tmp_path: Path) -> None:
    """The first packets took longer than all others: without that they would have come before we could capture."""
    call.person("PA_a", "alice", left=12)
    slow = Sender(transit=0.03, jitter=lambda number: 0.1 if number < 3 else 0.0)
    call.track("t0001", "PA_a", "alice", "microphone", "opus", 0.0, ended=11)
    call.track("t0002", "PA_a", "alice", "camera", "vp8", 0.0, ended=11)
    call.event("size", 0.1, track="t0002", timestamp=0, width=160, height=120, rotation=0)
    call.frames("t0001", slow, 48_000, tone(opus_packets(400), -0.1), reports=[1.0, 4.0])
    call.frames("t0002", slow, 90_000, steady(video_frames(240), -0.05, 1 / 30), reports=[1.0, 4.0])
    call.write(stop=12.0)
    file = only_file(finish(call, tmp_path))
    assert file.start_offset_ms == 0
    content = (tmp_path / "out" / file.name).read_bytes()
    first = {block.track: block.time_ms for block in reversed(list(blocks(content, read_file(content))))}
    assert [track.start_ms for track in file.tracks] == [pytest.approx(first[n], abs=1) for n in (1, 2)]
    assert first[2] == pytest.approx(50, abs=2)


def test_a_sender_that_stood_still_is_listed(call: Call, tmp_path: Path) -> None:
    """Its time stamps go on as if nothing had been; only the clocks on the wall tell of the second that is not there."""
    call.person("PA_a", "alice", left=33)
    call.track("t0001", "PA_a", "alice", "microphone", "opus", 0.1, ended=32)
    packets = opus_packets(1500)
    before, after = Sender(transit=0.03), Sender(transit=1.03, wall_error=1.0)
    call.frames("t0001", before, 48_000, tone(packets[:750], 0.5), reports=[1.0, 5.0, 10.0, 15.0])
    call.frames("t0001", after, 48_000, tone(packets[750:], 15.5), reports=[16.0, 20.0, 25.0], new_ssrc=False)
    call.write(stop=33.0)
    file = only_file(finish(call, tmp_path))
    (gap,) = file.tracks[0].gaps
    assert (gap.reason, gap.duration_ms) == (GapReason.SILENT, pytest.approx(1000, abs=30))
    assert gap.start_ms == pytest.approx(15_530, abs=40)
    assert file.tracks[0].frames == 1500


def test_lost_packets_are_replaced_one_for_one_and_counted(call: Call, tmp_path: Path) -> None:
    alice_talks(call, lost=[100, 300, 301, 302], picture=None)
    call.write(stop=21.0)
    manifest = finish(call, tmp_path)
    file = only_file(manifest)
    assert [(gap.reason, gap.duration_ms) for gap in file.tracks[0].gaps] == [
        (GapReason.LOST, 20),
        (GapReason.LOST, 60),
    ]
    assert manifest.lost_ms == 80
    packets = read_packets(tmp_path / "out" / file.name, 1)
    assert packets[100] == b"\xf8\xff\xfe"
    assert len(packets) == 1000


def test_of_heavy_loss_each_packet_counts_and_nothing_that_came_between(call: Call, tmp_path: Path) -> None:
    alice_talks(call, lost=range(100, 300, 3), picture=None)
    call.write(stop=21.0)
    manifest = finish(call, tmp_path)
    gaps = only_file(manifest).tracks[0].gaps
    assert [(gap.reason, gap.duration_ms) for gap in gaps] == [(GapReason.LOST, 20)] * 67
    assert manifest.lost_ms == 67 * 20


def test_comfort_noise_leaves_one_declared_gap(call: Call, tmp_path: Path) -> None:
    """Opus DTX: a packet every 400 ms. Without fill 48 s of it would decode to a fraction."""
    call.person("PA_a", "alice", left=31)
    call.track("t0001", "PA_a", "alice", "microphone", "opus", 0.1, ended=30.1)
    packets = opus_packets(500)
    noise = [(10.5 + 0.4 * n, packets[0][:1], True) for n in range(24)]
    talk = tone(packets, 0.5) + noise + tone(packets, 20.1)
    call.frames("t0001", ALICE, 48_000, talk, reports=[2, 7, 12, 17, 22, 27])
    call.write(stop=31.0)
    file = only_file(finish(call, tmp_path))
    samples, _ = decode(tmp_path / "out" / file.name)
    assert samples / 48 == pytest.approx(file.duration_ms, abs=5)
    assert file.duration_ms == pytest.approx(29_600, abs=20)
    (gap,) = file.tracks[0].gaps
    assert (gap.reason, gap.duration_ms) == (GapReason.SILENT, pytest.approx(9580, abs=30))


@pytest.mark.parametrize(("stereo", "filler"), [(False, b"\xf8\xff\xfe"), (True, b"\xfc\xff\xfe")])
def test_silence_has_the_channels_of_the_sound(call: Call, tmp_path: Path, stereo: bool, filler: bytes) -> None:
    call.person("PA_a", "alice", left=6)
    call.track("t0001", "PA_a", "alice", "microphone", "opus", 0.1, ended=5.1)
    call.frames("t0001", ALICE, 48_000, tone(opus_packets(200, stereo=stereo), 0.5), lost=range(50, 60))
    call.write(stop=6.0)
    path = tmp_path / "out" / only_file(finish(call, tmp_path)).name
    assert read_packets(path, 1)[50:60] == [filler] * 10
    assert read_file(path.read_bytes()).tracks[0].channels == 1 + stereo


@pytest.mark.parametrize("drift", [-200.0, 200.0])
def test_sound_follows_a_drifting_clock(call: Call, tmp_path: Path, drift: float) -> None:
    """Five minutes at 200 ppm are 60 ms: time stamps follow, no packet is dropped."""
    alice_talks(call, seconds=300, sender=Sender(drift_ppm=drift, wall_error=99), picture=None)
    call.write(stop=301.0)
    file = only_file(finish(call, tmp_path))
    (track,) = file.tracks
    assert track.frames == 15_000
    assert track.drift_ppm == pytest.approx(drift, abs=15)
    content = (tmp_path / "out" / file.name).read_bytes()
    received = [block for block in blocks(content, read_file(content)) if block.data != b"\xf8\xff\xfe"]
    truth = [n * 20 for n in range(15_000)]
    assert max(abs(block.time_ms - at) for block, at in zip(received, truth)) <= 35


def test_sound_of_a_fast_clock_overlaps_by_what_is_declared(call: Call, tmp_path: Path) -> None:
    """It makes 20 ms of sound in less than 20 ms: two minutes at 1000 ppm are 120 ms that decode and are not in the duration."""
    call.person("PA_a", "alice", left=122)
    call.track("t0001", "PA_a", "alice", "microphone", "opus", 0.1, ended=121)
    frames = steady(((packet, True) for packet in opus_packets(6000)), 0.5, 0.02 / 1.001)
    call.frames("t0001", Sender(drift_ppm=1000), 48_000, frames, reports=[1.0 + 5 * n for n in range(24)])
    call.write(stop=122.0)
    file = only_file(finish(call, tmp_path))
    (track,) = file.tracks
    samples, _ = decode(tmp_path / "out" / file.name)
    assert track.frames == 6000
    assert track.overlap_ms > 50
    assert samples / 48 - track.overlap_ms == pytest.approx(file.duration_ms, abs=20)


def test_sound_and_pictures_of_one_instant_have_one_time_stamp(call: Call, tmp_path: Path) -> None:
    """20 ms at the 95th percentile, through clocks that are hours wrong, a backlog and different ways."""
    call.person("PA_a", "alice", left=62)
    wrong = {"wall_error": 5 * 3600.0, "drift_ppm": 60.0}
    for log, source, codec in (("t0001", "microphone", "opus"), ("t0002", "camera", "vp8")):
        call.track(log, "PA_a", "alice", source, codec, 0.1, ended=61)
    packets, frames = opus_packets(3000), video_frames(600) * 3
    call.frames("t0001", Sender(transit=0.02, **wrong), 48_000, tone(packets, 0.5), reports=[3, 8, 13, 30, 55],
                not_before=0.95)  # fmt: skip
    call.frames("t0002", Sender(transit=0.06, **wrong), 90_000, steady(frames, 0.5, 1 / 30),
                reports=[float(n) for n in range(2, 60)], base=7)  # fmt: skip
    call.write(stop=62.0)
    file = only_file(finish(call, tmp_path))
    content = (tmp_path / "out" / file.name).read_bytes()
    found = list(blocks(content, read_file(content)))
    sound = [block.time_ms - n * 20 for n, block in enumerate(b for b in found if b.track == 1)]
    picture = [block.time_ms - n * 1000 / 30 for n, block in enumerate(b for b in found if b.track == 2)]
    apart = sorted(abs(picture[n * 3] - sound[n * 5]) for n in range(590))
    assert apart[int(len(apart) * 0.95)] <= 20


@pytest.mark.parametrize(
    ("wanted", "shares_picture", "reason"),
    [
        pytest.param("screenshare_audio_only", True, None, id="asked-for"),
        pytest.param(
            "screenshare_audio_video", False, "screenshare_audio_video without video: there was none", id="stands-in"
        ),
    ],
)
def test_the_sound_of_a_shared_screen_has_a_file_of_its_own(
    call: Call, tmp_path: Path, wanted: str, shares_picture: bool, reason: str | None
) -> None:
    """It holds what the screen sounded of: not the microphone, and no picture."""
    tab = list(opus_packets(200, hertz=660))
    alice_talks(call, seconds=6)
    call.track("t0003", "PA_a", "alice", "screenshare_audio", "opus", 1.0, ended=5.5, track_id="TR_tab")
    call.frames("t0003", ALICE, 48_000, tone(tab, 1.2), reports=[2.0])
    if shares_picture:
        call.track("t0004", "PA_a", "alice", "screenshare", "vp8", 1.0, ended=5.5)
        call.frames("t0004", ALICE, 90_000, steady(video_frames(100), 1.3, 1 / 30), reports=[2.1])
    call.write(stop=7.0)
    file = only_file(finish(call, tmp_path, outputTypes=[wanted]))
    assert (file.output_type, file.reason) == (OutputType.SCREENSHARE_AUDIO_ONLY, reason)
    assert "_screenshare_audio_" in file.name
    (track,) = file.tracks
    assert (track.source, track.track_id, track.codec) == ("screenshare_audio", "TR_tab", "opus")
    assert read_packets(tmp_path / "out" / file.name, 1)[:200] == tab
    samples, pictures = decode(tmp_path / "out" / file.name)
    assert (samples / 48, pictures) == (pytest.approx(file.duration_ms, abs=20), 0)


def test_the_first_frame_of_a_picture_track_is_a_key_frame(call: Call, tmp_path: Path) -> None:
    call.person("PA_a", "alice", left=9)
    call.track("t0001", "PA_a", "alice", "camera", "vp8", 0.1)
    call.frames("t0001", ALICE, 90_000, steady(video_frames(200)[10:], 1.0, 1 / 30))
    call.write(stop=9.0)
    file = only_file(finish(call, tmp_path))
    packets = read_packets(tmp_path / "out" / file.name, 1)
    assert packets[0] == video_frames(200)[60][0]
    assert decode(tmp_path / "out" / file.name)[1] == 140


def test_lost_pictures_leave_a_gap_and_nothing_black(call: Call, tmp_path: Path) -> None:
    call.person("PA_a", "alice", left=9)
    call.track("t0001", "PA_a", "alice", "camera", "vp8", 0.1)
    call.frames("t0001", ALICE, 90_000, steady(video_frames(200), 1.0, 1 / 30), lost=range(70, 100))
    call.write(stop=9.0)
    (track,) = only_file(finish(call, tmp_path)).tracks
    assert track.frames == 170
    # Those of 100 to 119 are made from them
    lost, damaged = track.gaps
    assert (lost.reason, lost.duration_ms) == (GapReason.LOST, pytest.approx(1000, abs=35))
    assert (damaged.reason, damaged.duration_ms) == (GapReason.DAMAGED, pytest.approx(667, abs=3))
    assert damaged.start_ms == lost.start_ms + lost.duration_ms


@pytest.mark.parametrize(
    ("lost", "expected"),
    [
        pytest.param([119], [("Lost", 119, 120)], id="right-before-a-key-frame"),
        pytest.param([70], [("Lost", 70, 71), ("Damaged", 71, 120)], id="one"),
        pytest.param(
            [70, 90], [("Lost", 70, 71), ("Damaged", 71, 90), ("Lost", 90, 91), ("Damaged", 91, 120)], id="again"
        ),
        pytest.param([120], [("Lost", 120, 121), ("Damaged", 121, 180)], id="a-key-frame"),
        pytest.param([190], [("Lost", 190, 191), ("Damaged", 191, 200)], id="until-the-end"),
    ],
)
def test_pictures_made_from_lost_ones_are_declared_to_the_frame(
    call: Call, tmp_path: Path, lost: list[int], expected: list[tuple[str, int, int]]
) -> None:
    """They are in the file, untouched, and count as lost seconds."""
    call.person("PA_a", "alice", left=9)
    call.track("t0001", "PA_a", "alice", "camera", "vp8", 0.1)
    call.frames("t0001", ALICE, 90_000, steady(video_frames(200), 1.0, 1 / 30), lost=lost)
    call.write(stop=9.0)
    manifest = finish(call, tmp_path)
    (track,) = only_file(manifest).tracks
    assert track.frames == 200 - len(lost)
    wanted = [(reason, first * 1000 / 30, (end - first) * 1000 / 30) for reason, first, end in expected]
    assert [(str(gap.reason), gap.start_ms - track.start_ms, gap.duration_ms) for gap in track.gaps] == [
        (reason, pytest.approx(start, abs=2), pytest.approx(length, abs=2)) for reason, start, length in wanted
    ]
    assert manifest.lost_ms == sum(gap.duration_ms for gap in track.gaps)


def test_a_camera_that_is_muted_while_pictures_are_damaged_sends_none(call: Call, tmp_path: Path) -> None:
    call.person("PA_a", "alice", left=9)
    call.track("t0001", "PA_a", "alice", "camera", "vp8", 0.1)
    frames = steady(video_frames(120)[:100], 1.0, 1 / 30)  # from 3.0 s on damaged, the last one at 4.3 s
    call.frames("t0001", ALICE, 90_000, frames, lost=[60])
    later = steady(video_frames(60), 7.0, 1 / 30)
    call.frames("t0001", ALICE, 90_000, later, new_ssrc=False)
    call.event("muted", 4.35, track="t0001")
    call.event("unmuted", 6.95, track="t0001")
    call.write(stop=9.0)
    (track,) = only_file(finish(call, tmp_path)).tracks
    assert [str(gap.reason) for gap in track.gaps] == ["Lost", "Damaged", "Muted"]
    lost, damaged, muted = track.gaps
    assert lost.start_ms + lost.duration_ms == damaged.start_ms
    assert damaged.start_ms + damaged.duration_ms == pytest.approx(muted.start_ms, abs=2)


def test_largest_picture_is_in_the_head_and_each_change_in_the_manifest(call: Call, tmp_path: Path) -> None:
    call.person("PA_a", "alice", left=9)
    call.track("t0001", "PA_a", "alice", "camera", "vp8", 0.1)
    small, large = video_frames(60), video_frames(60, width=320, height=240)
    frames = steady((*small, *large, *small), 1.0, 1 / 30)
    call.frames("t0001", ALICE, 90_000, frames, base=0)
    for at, (width, height) in ((1.0, (160, 120)), (3.0, (320, 240)), (5.0, (160, 120))):
        call.event(
            "size", at + 0.03, track="t0001", timestamp=round(at * 90_000), width=width, height=height, rotation=0
        )
    call.write(stop=9.0)
    file = only_file(finish(call, tmp_path))
    track = read_file((tmp_path / "out" / file.name).read_bytes()).tracks[0]
    assert (track.width, track.height) == (320, 240)
    assert [(size.width, size.at_ms) for size in file.tracks[0].sizes] == [
        (160, pytest.approx(1030, abs=10)),
        (320, pytest.approx(3030, abs=10)),
        (160, pytest.approx(5030, abs=10)),
    ]


def test_a_republished_microphone_goes_on_in_the_same_file(call: Call, tmp_path: Path) -> None:
    call.person("PA_a", "alice", left=31)
    packets = opus_packets(250)
    for log, at, base in (("t0001", 0.5, 9), ("t0002", 20.0, 2**31)):
        call.track(log, "PA_a", "alice", "microphone", "opus", at - 0.1, ended=at + 5.2, track_id=f"TR_{log}")
        call.frames(log, ALICE, 48_000, tone(packets, at), base=base, reports=[at + 1, at + 4])
    call.write(stop=31.0)
    file = only_file(finish(call, tmp_path))
    assert file.output_type is OutputType.AUDIO_ONLY
    assert file.tracks[0].frames == 500
    assert file.duration_ms == pytest.approx(24_500, abs=20)
    samples, _ = decode(tmp_path / "out" / file.name)
    assert samples / 48 == pytest.approx(file.duration_ms, abs=5)


def test_a_camera_within_a_minute_joins_from_the_first_byte(call: Call, tmp_path: Path) -> None:
    alice_talks(call, seconds=40, picture=30.0)
    call.write(stop=41.0)
    file = only_file(finish(call, tmp_path))
    assert (file.output_type, file.part, len(file.tracks)) == (OutputType.AUDIO_VIDEO, 1, 2)


def test_a_later_camera_opens_the_next_part(call: Call, tmp_path: Path) -> None:
    alice_talks(call, seconds=90, picture=75.0)
    call.write(stop=91.0)
    first, second = finish(call, tmp_path).files
    assert (first.output_type, first.part, second.output_type, second.part) == (
        OutputType.AUDIO_ONLY, 1, OutputType.AUDIO_VIDEO, 2,
    )  # fmt: skip
    assert second.name.endswith("_p2.mkv")
    assert "74 s after audio" in (second.reason or "")
    assert second.start_offset_ms == pytest.approx(75_030, abs=10)
    frames = sum(track.frames for file in (first, second) for track in file.tracks if track.codec == "opus")
    assert frames == 4500
    assert first.start_offset_ms + first.duration_ms == pytest.approx(second.start_offset_ms, abs=21)


def test_a_camera_that_is_turned_is_listed_although_its_size_stays(call: Call, tmp_path: Path) -> None:
    call.person("PA_a", "alice", left=12)
    call.track("t0001", "PA_a", "alice", "camera", "vp8", 0.1, ended=11)
    frames = steady(video_frames(300), 0.5, 1 / 30)
    call.frames("t0001", Sender(), 90_000, frames, base=0)
    for at, rotation in ((0.5, 90), (4.5, 90), (5.5, 180)):
        call.event(
            "size", at + 0.03, track="t0001", timestamp=round(at * 90_000), width=160, height=120, rotation=rotation
        )
    call.write(stop=12.0)
    file = only_file(finish(call, tmp_path))
    assert [(size.at_ms, size.width, size.rotation) for size in file.tracks[0].sizes] == [
        (pytest.approx(530, abs=40), 160, 90),
        (pytest.approx(5530, abs=40), 160, 180),
    ]


def test_a_later_microphone_keeps_every_picture(call: Call, tmp_path: Path) -> None:
    """The part with sound begins at a key frame; no picture and no sound falls between the parts."""
    call.person("PA_a", "alice", left=100)
    call.track("t0001", "PA_a", "alice", "camera", "vp8", 0.1)
    frames = video_frames(600) * 5
    call.frames("t0001", ALICE, 90_000, steady(frames, 0.5, 1 / 30), reports=[2.0, 4.0, 60.0])
    call.track("t0002", "PA_a", "alice", "microphone", "opus", 75.0)
    call.frames("t0002", ALICE, 48_000, tone(opus_packets(500), 75.0), reports=[76.0])
    call.write(stop=101.0)
    first, second = finish(call, tmp_path).files
    assert (first.output_type, second.output_type) == (OutputType.VIDEO_ONLY, OutputType.AUDIO_VIDEO)
    assert first.tracks[0].frames + second.tracks[1].frames == 3000
    assert second.tracks[0].frames == 500
    packets = read_packets(tmp_path / "out" / second.name, 2)
    assert packets[0] in {data for data, key in frames if key}


def test_a_change_of_codec_opens_the_next_part(call: Call, tmp_path: Path) -> None:
    alice_talks(call, seconds=20, picture=None)
    call.track("t0002", "PA_a", "alice", "camera", "vp8", 0.1)
    call.frames("t0002", ALICE, 90_000, steady(video_frames(300), 0.5, 1 / 30), base=0)
    call.codec("t0002", "h264", 10.545)
    later = steady(video_frames(150, "h264"), 10.5, 1 / 30)
    call.frames("t0002", ALICE, 90_000, later, base=0, new_ssrc=False)
    call.write(stop=21.0)
    first, second = finish(call, tmp_path).files
    assert [[track.codec for track in file.tracks] for file in (first, second)] == [["opus", "vp8"], ["opus", "h264"]]
    assert "codec changed from vp8 to h264" in (second.reason or "")
    assert (first.tracks[1].frames, second.tracks[1].frames) == (300, 150)
    assert decode(tmp_path / "out" / second.name)[1] == 150


@pytest.mark.parametrize(
    ("codec", "container", "reason"),
    [("vp8", Container.WEBM, None), ("h264", Container.MKV, "h264 is not allowed in WebM")],
)
def test_webm_is_made_where_it_is_legal(
    call: Call, tmp_path: Path, codec: str, container: Container, reason: str | None
) -> None:
    alice_talks(call, picture=None)
    call.track("t0002", "PA_a", "alice", "camera", codec, 0.1)
    call.frames("t0002", ALICE, 90_000, steady(video_frames(300, codec), 0.5, 1 / 30))
    call.write(stop=21.0)
    file = only_file(finish(call, tmp_path, container="webm"))
    assert (file.container, file.reason) == (container, reason)
    assert file.name.endswith(f".{container}")


def test_equal_spools_give_equal_bytes(call: Call, tmp_path: Path) -> None:
    alice_talks(call, lost=range(40, 90), sender=Sender(drift_ppm=90))
    call.write(stop=21.0)
    sums = [finish_local(call.spool, an_intent(), tmp_path / name).files[0].sha256 for name in ("a", "b")]
    assert sums[0] == sums[1]


@settings(max_examples=15)
@given(shares=st.tuples(*[st.floats(0, 1)] * 3))
def test_a_spool_cut_anywhere_gives_the_files_of_what_is_left(
    shares: tuple[float, ...], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Each file at a place of its own: a power cut asks nobody in which order."""
    folder = tmp_path_factory.mktemp("cut")
    call = Call(folder / "spool")
    alice_talks(call, seconds=6)
    call.write()
    for pattern, share in zip(("journal.ndjson", "t0001.*.log", "t0002.*.log"), shares, strict=True):
        for path in sorted(call.spool.glob(f"i0001/{pattern}")):
            path.write_bytes(path.read_bytes()[: round(path.stat().st_size * share)])
    sent = [list(opus_packets(300)), [data for data, _ in video_frames(163)]]
    for file in finish(call, folder).files:
        for number, track in enumerate(file.tracks, 1):
            kept = read_packets(folder / "out" / file.name, number)
            original = sent[track.codec == "vp8"]
            received = [packet for packet in kept if packet[1:] != b"\xff\xfe"]  # silence of 20 or 10 ms
            assert set(received) <= set(original)
            assert len(received) == track.frames


def test_a_killed_recorder_goes_on_in_the_same_file(call: Call, tmp_path: Path) -> None:
    call.person("PA_a", "alice")
    call.track("t0001", "PA_a", "alice", "microphone", "opus", 0.1, track_id="TR_mic")
    call.frames("t0001", ALICE, 48_000, tone(opus_packets(500), 0.5), reports=[1.0, 6.0])
    call.event("counters", 10.4, track="t0001", packets=500)
    call.write()
    again = Call(call.spool, incarnation=2, started=11.5)
    again.person("PA_a", "alice", at=11.6, left=21.6)
    again.track("t0001", "PA_a", "alice", "microphone", "opus", 11.6, track_id="TR_mic", ended=21.6)
    again.frames("t0001", ALICE, 48_000, tone(opus_packets(490), 11.7), reports=[12.0, 17.0])
    again.write(stop=22.0)
    manifest = finish(again, tmp_path)
    file = only_file(manifest)
    assert file.tracks[0].frames == 990
    reasons = [(gap.reason, gap.duration_ms) for gap in file.tracks[0].gaps]
    assert reasons == [(GapReason.CRASHED, pytest.approx(1200, abs=10))]
    assert manifest.lost_ms == pytest.approx(1200, abs=10)
    assert manifest.complete


def test_who_left_while_a_killed_recorder_was_away_is_told_to_have_left(call: Call, tmp_path: Path) -> None:
    """What she may have said until then is lost; what the recorder heard of others afterwards is none of hers."""
    call.person("PA_a", "alice")
    call.track("t0001", "PA_a", "alice", "microphone", "opus", 0.1)
    call.frames("t0001", ALICE, 48_000, tone(opus_packets(500), 0.5), reports=[1.0, 6.0])
    call.event("counters", 10.4, track="t0001", packets=500)
    call.write()
    again = Call(call.spool, incarnation=2, started=12.0)
    again.person("PA_b", "bob", at=12.0)
    again.write(stop=30.0)
    manifest = finish(again, tmp_path)
    assert [[peer.left_ms for peer in person.peers] for person in manifest.participants] == [[12_000], [None]]
    file = only_file(manifest)
    (gap,) = file.tracks[0].gaps
    assert (gap.reason, gap.duration_ms) == (GapReason.CRASHED, pytest.approx(1500, abs=40))


def test_pictures_missing_through_a_crash_are_declared_however_few(call: Call, tmp_path: Path) -> None:
    """A restart takes about a second: shorter than the stillness that is worth telling of a camera."""
    call.person("PA_a", "alice")
    call.track("t0001", "PA_a", "alice", "camera", "vp8", 0.1, track_id="TR_cam")
    call.frames("t0001", ALICE, 90_000, steady(video_frames(60), 0.5, 1 / 30), reports=[1.0])
    call.write()
    again = Call(call.spool, incarnation=2, started=3.2)
    again.person("PA_a", "alice", at=3.2, left=6.0)
    again.track("t0001", "PA_a", "alice", "camera", "vp8", 3.2, track_id="TR_cam", ended=6.0)
    again.frames("t0001", ALICE, 90_000, steady(video_frames(60), 3.5, 1 / 30), reports=[4.0])
    again.write(stop=6.0)
    (track,) = only_file(finish(again, tmp_path)).tracks
    assert [(gap.reason, gap.duration_ms) for gap in track.gaps] == [(GapReason.CRASHED, pytest.approx(1000, abs=40))]


def test_a_crash_lasts_through_processes_that_never_came_into_the_call(call: Call, tmp_path: Path) -> None:
    """Killed again while it came back: it had only said that it began."""
    call.person("PA_a", "alice")
    call.track("t0001", "PA_a", "alice", "microphone", "opus", 0.1, track_id="TR_mic")
    call.frames("t0001", ALICE, 48_000, tone(opus_packets(100), 0.5), reports=[1.0])
    call.write()
    between = Call(call.spool, incarnation=2, started=4.5)
    between._events = between._events[:1]
    between.write()
    again = Call(call.spool, incarnation=3, started=6.0)
    again.person("PA_a", "alice", at=6.1, left=8.5)
    again.track("t0001", "PA_a", "alice", "microphone", "opus", 6.1, track_id="TR_mic", ended=8.5)
    again.frames("t0001", ALICE, 48_000, tone(opus_packets(100), 6.2), reports=[6.3])
    again.write(stop=8.5)
    (track,) = only_file(finish(again, tmp_path)).tracks
    assert [(gap.reason, gap.duration_ms) for gap in track.gaps] == [(GapReason.CRASHED, pytest.approx(3700, abs=40))]


@pytest.mark.parametrize("kind", ["microphone", "camera"])
def test_what_a_crash_cost_at_the_very_end_is_no_silence(kind: str, call: Call, tmp_path: Path) -> None:
    """The call was over before the recorder was back: nothing follows, and the sender had not fallen silent."""
    call.person("PA_a", "alice")
    call.track("t0001", "PA_a", "alice", "microphone", "opus", 0.1)
    call.frames("t0001", ALICE, 48_000, tone(opus_packets(100), 0.5), reports=[1.0])
    call.track("t0002", "PA_a", "alice", "camera", "vp8", 0.1)
    call.frames("t0002", ALICE, 90_000, steady(video_frames(60), 0.5, 1 / 30), reports=[1.0])
    call.write()
    again = Call(call.spool, incarnation=2, started=3.2)
    again._events = again._events[:1]  # it never was in the call
    again.write(stop=3.5, reason="CallEnded")
    manifest = finish(again, tmp_path)
    (track,) = (track for track in only_file(manifest).tracks if track.source == kind)
    assert [(gap.reason, gap.duration_ms) for gap in track.gaps] == [(GapReason.CRASHED, pytest.approx(1000, abs=100))]


@pytest.mark.parametrize("kind", ["microphone", "camera"])
def test_a_crash_before_anything_was_on_the_disk_is_declared_before_the_file_begins(
    kind: str, call: Call, tmp_path: Path
) -> None:
    call.person("PA_a", "alice")
    for log, source, codec in (("t0001", "microphone", "opus"), ("t0002", "camera", "vp8")):
        call.track(log, "PA_a", "alice", source, codec, 0.5)
    call.event("counters", 1.0, track="t0001", packets=25)
    call.write()
    again = Call(call.spool, incarnation=2, started=2.0)
    again.person("PA_a", "alice", at=2.1)
    again.track("t0001", "PA_a", "alice", "microphone", "opus", 2.1)
    again.frames("t0001", ALICE, 48_000, tone(opus_packets(100), 2.2), reports=[2.4])
    again.track("t0002", "PA_a", "alice", "camera", "vp8", 2.1)
    again.frames("t0002", ALICE, 90_000, steady(video_frames(60), 2.5, 1 / 30), reports=[2.4])
    again.write(stop=4.5)
    (track,) = (track for track in only_file(finish(again, tmp_path)).tracks if track.source == kind)
    gap = track.gaps[0]
    assert gap.start_ms + gap.duration_ms == pytest.approx(2200 if kind == "microphone" else 2500, abs=50)
    assert gap == Gap(start_ms=gap.start_ms, duration_ms=gap.duration_ms, reason=GapReason.CRASHED)
    assert gap.start_ms == pytest.approx(500, abs=50)


@pytest.mark.parametrize("cut", range(0, 60_000, 4_321))
def test_a_spool_cut_anywhere_gives_readable_files(tmp_path: Path, cut: int) -> None:
    """Power may fail at any byte; what was whole before it is in the file."""
    call = Call(tmp_path / "spool")
    alice_talks(call, seconds=8)
    spool = call.write()
    for path in sorted(spool.glob("i0001/t*.000002.log")):
        path.write_bytes(path.read_bytes()[:cut])
    journal = spool / "i0001" / "journal.ndjson"
    journal.write_bytes(journal.read_bytes()[: 1500 + cut // 30])
    manifest = finish(call, tmp_path)
    assert not manifest.complete
    for file in manifest.files:
        samples, pictures = decode(tmp_path / "out" / file.name)
        assert pictures == sum(track.frames for track in file.tracks if track.codec == "vp8")
        if samples:
            assert samples / 48 == pytest.approx(file.duration_ms, abs=20)


def test_nobody_and_nothing_still_gives_a_manifest(call: Call, tmp_path: Path) -> None:
    call.write(stop=5.0)
    manifest = finish(call, tmp_path)
    assert (manifest.files, manifest.duration_ms, manifest.complete) == ((), 5000, True)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["recording.json"]


def test_the_second_attempt_shares_the_timeline_of_the_first(call: Call, tmp_path: Path) -> None:
    alice_talks(call, picture=None)
    call.write(stop=21.0)
    epoch_ms = (1_760_000_000 * SECOND - 100 * SECOND) // 1_000_000
    manifest = finish_local(call.spool, an_intent(attempt=2, epoch_ms=epoch_ms), tmp_path / "out")
    file = only_file(manifest)
    assert file.start_offset_ms == pytest.approx(100_530, abs=5)
    assert file.name.endswith("_a2.mkv")
