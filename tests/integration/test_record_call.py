"""`isotrack record` on real calls: everything that people sent is in their files, at its time, untouched."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from isotrack_api.base import DEFAULT_CHECKPOINT_SECONDS, OutputType
from isotrack_api.manifest import GapReason, ManifestFile, StopReason
from isotrack_dev.servers import S3Info
from support.bucket import Bucket
from support.call import Call
from support.ledger import Ledger
from support.people import Action, People, Person, Picture
from support.recording_check import Recorded, check_recording
from support.waiting import until

pytestmark = pytest.mark.realtime

NASTY = Person(identity="../../etc", name="🎥" * 60, camera=Picture(width=480, height=360, pre_encoded=True))
SETTLE_SECONDS = 7
"""Sender reports, which put files of several people on one timeline, come every 3 s at first."""


def names_in(folder: Path) -> set[str]:
    """Everything in a folder, hidden files too."""
    return {path.name for path in folder.iterdir()}


def sorted_files(recorded: Recorded) -> list[ManifestFile]:
    """Files by person, type and start."""
    files = (checked.file for checked in recorded.files)
    return sorted(files, key=lambda file: (file.user_id, file.output_type, file.start_offset_ms))


def test_two_people_a_late_joiner_and_a_shared_screen(call: Call) -> None:
    """The common call. One person's pictures are encoded by the test, so their bytes are known."""
    cast = [
        Person(identity="alice", name="Alice", camera=Picture(pre_encoded=True)),
        Person(identity="bob", camera=Picture(codec="h264")),
        NASTY,
    ]
    with call.people(cast) as people, call.recorded(people, "alice", "bob", options=["--json"]) as recorder:
        people.play(2)
        people.join(NASTY.identity)
        people.do(Action(who="alice", do="share"))
        recorder.recording(NASTY.identity, "microphone", "camera")
        recorder.recording("alice", "screenshare", "screenshare_audio")
        people.play(SETTLE_SECONDS)
        people.do(Action(who="alice", do="unshare"))
        recorder.wait("track_ended")
        recorder.interrupt()
        ended = recorder.ended()
    assert ended.code == 0, ended.stderr
    recorded = check_recording(call.output, people.cast, Ledger.load(people.ledger))
    manifest = recorded.manifest
    assert json.loads(ended.stdout) == json.loads((call.output / "recording.json").read_text())
    assert names_in(call.output) == {"recording.json", *(file.name for file in manifest.files)}, "something is left"
    assert manifest.stop_reason is StopReason.REQUESTED
    assert manifest.complete
    assert [(f.user_id, f.output_type.value, sorted(t.codec for t in f.tracks)) for f in sorted_files(recorded)] == [
        ("../../etc", "audio_video", ["opus", "vp8"]),
        ("alice", "audio_video", ["opus", "vp8"]),
        ("alice", "screenshare_audio_video", ["opus", "vp8"]),
        ("bob", "audio_video", ["h264", "opus"]),
    ]
    late = recorded.one(NASTY.identity)
    first = recorded.one("alice", "audio_video").file
    assert late.file.start_offset_ms > first.start_offset_ms + 1000, (
        "who comes late begins later on the call's timeline"
    )
    assert late.file.participant_name == NASTY.name
    assert late.media.film
    assert late.media.film.sizes == {(480, 360)}
    for checked in recorded.files:
        assert checked.media.duration > 5, checked.file.name
        # What is shared is published before its sound: the file begins with pictures alone.
        # And sound of a publisher who is behind ends a little before its pictures.
        within = checked.media.duration - 0.5
        silences = checked.media.sound.silences if checked.media.sound else ()
        assert not [begin for begin, _ in silences if 0 < begin < within], checked.file.name


def test_mutes_returns_webm_and_the_end_of_the_call(call: Call) -> None:
    """Muted sound is silence that the manifest declares; who comes back gets files of their own; the SFU ends the call."""
    cast = [Person(identity="alice"), Person(identity="bob", camera=Picture(codec="h264", pre_encoded=True))]
    with (
        call.people(cast) as people,
        call.recorded(people, "alice", "bob", options=["--container", "webm"]) as recorder,
    ):
        people.play(3)
        people.do(Action(who="bob", do="mute", what="microphone"))
        recorder.wait("muted")
        people.play(2)
        people.do(Action(who="bob", do="unmute", what="microphone"))
        recorder.wait("unmuted")
        people.leave("alice")
        recorder.wait("participant_left")
        people.join("alice")
        recorder.recording("alice", "microphone", "camera", nth=2)
        people.play(SETTLE_SECONDS)
        call.end()
        ended = recorder.ended()
    assert ended.code == 0, ended.stderr
    ledger = Ledger.load(people.ledger)
    recorded = check_recording(call.output, people.cast, ledger)
    assert recorded.manifest.stop_reason is StopReason.CALL_ENDED
    first, second = recorded.of("alice")
    assert first.file.peer_id != second.file.peer_id
    assert second.file.start_offset_ms >= first.file.start_offset_ms + first.file.duration_ms
    assert [path.suffix for path in (first.media.path, second.media.path)] == [".webm", ".webm"]
    assert "webm" in first.media.container
    bob = recorded.one("bob")
    assert bob.media.path.suffix == ".mkv", "H264 is not legal in WebM"
    assert bob.file.reason
    assert_silence_is_declared(recorded, ledger)


def assert_silence_is_declared(recorded: Recorded, ledger: Ledger) -> None:
    """Bob's sound is silent from mute to unmute and nowhere else, and the manifest says so."""
    bob = recorded.one("bob")
    assert bob.media.sound
    muted, unmuted = (
        ledger.event(event, "bob", "microphone")["t"] - bob.placement.zero for event in ("muted", "unmuted")
    )
    quiet = [(begin, end) for begin, end in bob.media.sound.silences if end - begin > 0.3]
    assert len(quiet) == 1, bob.media.sound.silences
    assert abs(quiet[0][0] - muted) < 0.3
    assert abs(quiet[0][1] - unmuted) < 0.3
    gaps = [gap for track in bob.file.tracks for gap in track.gaps if track.codec == "opus"]
    declared = sum(gap.duration_ms for gap in gaps if gap.reason is GapReason.MUTED) / 1000
    assert abs(declared - (unmuted - muted)) < 0.6, gaps


def test_every_output_type_allowlist_and_limit_into_a_bucket(call: Call, bucket: Bucket) -> None:
    """Bob has no microphone. Carol is not on the list."""
    cast = [
        Person(identity="alice", screen_audio=False),
        Person(identity="bob", microphone=False),
        Person(identity="carol"),
    ]
    types = ",".join(OutputType)
    with call.people(cast) as people:
        people.join("alice", "bob", "carol")
        people.do(Action(who="alice", do="share"))
        people.wait("published", "alice", "screenshare")
        options = ["--output-types", types, "--user-ids", "alice,bob", "--max-duration", f"{SETTLE_SECONDS + 1}"]
        with call.record(*options, output=f"s3://{bucket.name}/mine") as recorder:
            ended = recorder.ended()
        assert ended.code == 0, ended.stderr
    folder = bucket.folder_of(call.room[:40])
    assert folder.startswith("mine/")
    bucket.download(folder, call.folder / "copy")
    recorded = check_recording(call.folder / "copy", people.cast, Ledger.load(people.ledger))
    manifest = recorded.manifest
    assert manifest.stop_reason is StopReason.MAX_DURATION
    assert 0 <= manifest.duration_ms / 1000 - SETTLE_SECONDS - 1 < 2, "limits are looked at every second"
    assert [(f.user_id, f.output_type.value, len(f.tracks)) for f in sorted_files(recorded)] == [
        ("alice", "audio_only", 1),
        ("alice", "audio_video", 2),
        ("alice", "screenshare_video_only", 1),
        ("alice", "video_only", 1),
        ("bob", "video_only", 1),
    ], "a file of one kind stands in for one of both, but not beside the same file that was asked for"
    assert not any(file.reason for file in manifest.files)
    present = {participant.user_id: participant.recorded for participant in manifest.participants}
    assert present == {"alice": True, "bob": True, "carol": False}
    assert not bucket.uploads(), "a multipart upload was left open"


def test_a_template_names_the_files_and_inspect_shows_them(call: Call) -> None:
    """Zoë has no camera: a file of sound alone stands in for the one of both, and says why."""
    template = "{call_id}-{user_id}_{started_ms}_{stream_kind}.{media_kind}"
    with (
        call.people([Person(identity="Zoë W", name="Zoë", camera=None)]) as people,
        call.recorded(people, "Zoë W", options=["--file-name-template", template]) as recorder,
    ):
        people.play(4)
        recorder.interrupt()
        ended = recorder.ended()
    assert ended.code == 0, ended.stderr
    recorded = check_recording(call.output, people.cast, Ledger.load(people.ledger))
    (file,) = recorded.manifest.files
    assert file.name.startswith(f"{call.room}-Zo")
    assert "/" not in file.name
    assert file.output_type is OutputType.AUDIO_ONLY
    assert len(file.tracks) == 1
    assert file.reason
    assert file.name.endswith("_peer.audio.mkv")
    assert file.name in ended.stdout
    shown = call.isotrack("inspect", str(call.output))
    assert shown.code == 0, shown.stderr
    for fact in (file.name, "Zoë W", "opus"):
        assert fact in shown.stdout.replace("\n", ""), f"{fact} is not in {shown.stdout}"
    assert json.loads(call.isotrack("inspect", "--json", str(call.output)).stdout)["files"][0]["name"] == file.name


def test_ctrl_c_twice_ends_at_once_and_the_files_can_be_made_later(call: Call, bucket: Bucket, s3: S3Info) -> None:
    """Here the bucket hangs, so that the first Ctrl-C alone would take long."""
    with call.people([Person(identity="alice", camera=Picture(pre_encoded=True))]) as people:
        people.join("alice")
        with call.record(output=f"s3://{bucket.name}/twice") as recorder:
            recorder.recording("alice", "microphone", "camera")
            people.play(4)
            with hanging(s3):
                recorder.interrupt()
                recorder.wait("stop")
                recorder.interrupt()
                ended = recorder.ended(20)
    assert ended.code == 130, ended.stderr
    (left,) = call.folder.glob("state/**/.isotrack-*")
    assert left.name in ended.stderr.replace("\n", "")
    made = call.isotrack("finalise", str(left))
    assert made.code == 0, made.stderr
    assert not left.exists()
    bucket.download(bucket.folder_of(f"twice/{call.room[:40]}"), call.output)
    assert_alice_is_whole(call, people)


@contextmanager
def hanging(server: S3Info) -> Iterator[None]:
    """The server takes connections and answers nothing."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.pid, signal.SIGCONT)


def test_a_killed_recorder_leaves_what_it_took_to_make_the_files(call: Call) -> None:
    with (
        call.people([Person(identity="alice", camera=Picture(pre_encoded=True))]) as people,
        call.recorded(people, "alice") as recorder,
    ):
        people.play(4)
        recorder.kill()
        assert recorder.ended().code == -9
    (left,) = call.output.glob(".isotrack-*")
    made = call.isotrack("finalise", str(left))
    assert made.code == 0, made.stderr
    assert_alice_is_whole(call, people)


def test_a_lost_machine_s_recording_is_finished_from_the_bucket(call: Call, bucket: Bucket) -> None:
    """Nobody has anything but the bucket and its keys; what is lost is the promise for a lost node: T + 3 s."""
    with call.people([Person(identity="alice", camera=Picture(pre_encoded=True))]) as people:
        people.join("alice")
        with call.record(output=f"s3://{bucket.name}/lost") as recorder:
            recorder.recording("alice", "microphone", "camera")
            recorder.shipper()
            people.play(12)
            recorder.kill_all()
            killed = time.time()
            assert recorder.ended().code == -9
    root = finish_from_bucket(call, bucket, f"lost/{call.room[:40]}")
    assert not [key for key in bucket.keys(root) if key.endswith(".ckpt")]
    assert lost_seconds(call, people, killed) <= DEFAULT_CHECKPOINT_SECONDS + 3
    (left,) = call.folder.glob("state/**/.isotrack-*")
    too_late = call.isotrack("finalise", str(left))
    assert too_late.code == 64
    assert "was finished from its checkpoints already" in too_late.stderr
    assert "make the files with" not in too_late.stderr, "there are none to be made"


def test_a_killed_recorder_s_last_words_are_copied_and_an_orderly_end_leaves_no_checkpoint(
    call: Call, bucket: Bucket
) -> None:
    """The process that ships outlives the recorder by what it takes to copy what lies on the disk."""
    with call.people([Person(identity="alice", camera=Picture(pre_encoded=True))]) as people:
        people.join("alice")
        with call.record(output=f"s3://{bucket.name}/orderly") as recorder:
            recorder.recording("alice", "microphone", "camera")
            recorder.shipper()
            people.play(2)
            recorder.interrupt()
            ended = recorder.ended()
            assert ended.code == 0, ended.stderr
        with call.record(output=f"s3://{bucket.name}/killed") as recorder:
            recorder.recording("alice", "microphone", "camera")
            shipper = recorder.shipper()
            people.play(3)
            recorder.kill()
            killed = time.time()
            until(lambda: not Path(f"/proc/{shipper}").exists(), "what ships has ended, too")
    assert not [key for key in bucket.keys("orderly/") if key.endswith(".ckpt")]
    finish_from_bucket(call, bucket, "killed/")
    assert lost_seconds(call, people, killed) <= 1


def finish_from_bucket(call: Call, bucket: Bucket, prefix: str) -> str:
    """Finish the only recording below a prefix, as somebody who has nothing but the bucket, and fetch its files; its folder."""
    (root,) = {key.rpartition("/attempts/")[0] for key in bucket.keys(prefix) if "/attempts/" in key}
    made = call.isotrack("finalise", f"s3://{bucket.name}/{root}", "--force")
    assert made.code == 0, made.stderr
    bucket.download(f"{root}/", call.output)
    return root


def lost_seconds(call: Call, people: People, killed: float) -> float:
    """From the last recorded picture to an instant (Unix time); all between the first and the last are there."""
    ledger = Ledger.load(people.ledger)
    film = check_recording(call.output, people.cast, ledger).one("alice").media.film
    assert film
    frames = ledger.sent("alice", "camera").frames
    assert film.serials == [serial for serial in frames if film.serials[0] <= serial <= film.serials[-1]]
    return killed - ledger.wall - frames[film.serials[-1]].at


def assert_alice_is_whole(call: Call, people: People) -> None:
    """From the first recorded picture on, at most the last second is missing."""
    ledger = Ledger.load(people.ledger)
    film = check_recording(call.output, people.cast, ledger).one("alice").media.film
    assert film
    assert len(film.serials) >= 3 * 15
    sent = [serial for serial in ledger.sent("alice", "camera").frames if serial >= film.serials[0]]
    assert film.serials == sent[: len(film.serials)]
