"""From facts and files to manifests."""

from __future__ import annotations

from pathlib import Path

import pytest

from isotrack_api.base import MediaKind, OutputType
from isotrack_api.intent import OutputLayer
from isotrack_api.manifest import Gap, GapReason, Manifest, ManifestFile, ManifestTrack, StopReason
from isotrack_recorder.errors import IsotrackError, OutputError
from isotrack_recorder.finalise.local import finish_local
from isotrack_recorder.finalise.manifest import build_manifest, lost_ms, merge_manifests
from isotrack_recorder.finalise.session import SessionStream
from isotrack_recorder.finalise.summary import summarise
from isotrack_recorder.spool.reader import Spool
from support.media import opus_packets, video_frames
from support.spools import Call, Sender, an_intent, steady, tone


@pytest.fixture
def call(tmp_path: Path) -> Call:
    return Call(tmp_path / "spool")


def with_sound(call: Call, lost: range = range(0)) -> Call:
    call.person("PA_a", "alice", at=0.5, left=6.0, name="Alice")
    call.track("t0001", "PA_a", "alice", "microphone", "opus", 0.5, ended=6.0)
    call.frames("t0001", Sender(), 48_000, tone(opus_packets(250), 1.0), reports=[2.0], lost=lost)
    return call


def a_manifest(path: Path, attempt: int = 1, **stop: object) -> Manifest:
    call = with_sound(Call(path / f"spool{attempt}", attempt=attempt), lost=range(50, 60))
    call.write(stop=10.0, **stop)  # type: ignore[arg-type]
    epoch_ms = None if attempt == 1 else 1_759_999_940_000
    return finish_local(call.spool, an_intent(attempt=attempt, epoch_ms=epoch_ms), path / "out")


def test_a_manifest_reads_back_from_its_file(tmp_path: Path) -> None:
    manifest = a_manifest(tmp_path)
    assert Manifest.model_validate_json((tmp_path / "out" / "recording.json").read_bytes()) == manifest


def test_each_file_is_summed_up_in_a_line(tmp_path: Path) -> None:
    (file,) = a_manifest(tmp_path).files
    assert file.summary == "opus 240 frames, 1 gap, 0.20 s lost, 5.00 s"
    (sound,) = file.tracks
    film = sound.model_copy(
        update={
            "kind": MediaKind.VIDEO,
            "codec": "vp8",
            "packets": 990,
            "packets_lost": 10,
            "start_ms": sound.start_ms + 70,
        }
    )
    sound = sound.model_copy(update={"drift_ppm": -12.3, "gaps": ()})

    def drift_of(film: ManifestTrack) -> str:
        line = summarise(file.model_copy(update={"tracks": (sound, film), "av_offset_ms": -2.6}))
        before, after = line.split("drift ")
        assert before == "opus 240 frames, 0 gaps, vp8 240 frames (99.0 % of packets), 1 gap, 0.20 s lost, "
        drift, after = after.split(", ", 1)
        assert after == "A/V offset -3 ms, pictures from 0.070 s on, 5.00 s"
        return drift

    assert drift_of(film) == "-12 ppm (sound)"
    assert drift_of(film.model_copy(update={"drift_ppm": 40.2})) == "-12 ppm (sound) and +40 ppm (pictures)"
    alone = file.model_copy(update={"tracks": (sound,)})
    assert summarise(alone) == "opus 240 frames, 0 gaps, 0.00 s lost, drift -12 ppm, 5.00 s"


def test_an_offset_that_is_not_known_is_not_told() -> None:
    """A kind that begins late says nothing about lip sync."""
    late = TRACK.model_copy(update={"kind": MediaKind.VIDEO, "codec": "vp8", "start_ms": 2925})
    line = summarise(FILE.model_copy(update={"tracks": (TRACK, late)}))
    assert (
        line == "opus 1 frames (100.0 % of packets), 0 gaps, vp8 1 frames (100.0 % of packets), 0 gaps, 0.00 s lost, "
        "pictures from 2.925 s on, 1.00 s"
    )


def test_all_of_it_came_only_where_nothing_was_lost() -> None:
    track = TRACK.model_copy(update={"packets": 99_999})
    whole = FILE.model_copy(update={"tracks": (track,)})
    one_short = FILE.model_copy(update={"tracks": (track.model_copy(update={"packets_lost": 1}),)})
    assert "(100.0 % of packets)" in summarise(whole)
    assert "(99.9 % of packets)" in summarise(one_short)


def test_the_share_of_packets_of_cut_sound_is_that_of_each_file(call: Call, tmp_path: Path) -> None:
    """The codec of the camera changes at 4 s; what was lost of the microphone before then is no loss of the second part."""
    call.person("PA_a", "alice", left=9.0)
    call.track("t0001", "PA_a", "alice", "microphone", "opus", 0.0, ended=8.0)
    call.frames("t0001", Sender(), 48_000, tone(opus_packets(400), 0.0), lost=range(50, 90))
    call.event("counters", 8.0, track="t0001", packets=360, lost=40, recovered=0, frames=360)
    call.track("t0002", "PA_a", "alice", "camera", "vp8", 0.0, ended=8.0)
    call.frames("t0002", Sender(), 90_000, steady(video_frames(120), 0.0, 1 / 30))
    call.codec("t0002", "h264", 4.01)
    later = steady(video_frames(120, "h264"), 4.02, 1 / 30)
    call.frames("t0002", Sender(), 90_000, later, base=5_000_000)
    call.event("counters", 8.0, track="t0002", packets=1000, lost=0, recovered=0, frames=240)
    call.write(stop=10.0)
    first, second = finish_local(call.spool, an_intent(), tmp_path / "out").files
    rows = [(file.tracks[0].frames, file.tracks[0].packets, file.tracks[0].packets_lost) for file in (first, second)]
    assert sum(frames for frames, _, _ in rows) == 360
    assert [(packets, lost) for _, packets, lost in rows] == [(rows[0][0], 40), (rows[1][0], 0)]
    assert second.summary.startswith(f"opus {rows[1][0]} frames (100.0 % of packets), ")


def test_people_and_their_sessions_are_listed(call: Call, tmp_path: Path) -> None:
    with_sound(call)
    call.person("PA_a2", "alice", at=7.0, name="Alice B.")
    call.event("participant", 8.0, peer_id="PA_b", user_id="bob", name="Bob", recorded=False)
    spool = Spool(call.write(stop=10.0))
    spool.refresh()
    alice, bob = build_manifest(spool, an_intent(), []).participants
    assert (alice.name, alice.recorded, bob.recorded) == ("Alice B.", True, False)
    assert [(peer.peer_id, peer.joined_ms, peer.left_ms) for peer in alice.peers] == [
        ("PA_a", 500, 6000),
        ("PA_a2", 7000, None),
    ]


def test_what_could_not_be_recorded_makes_it_incomplete(call: Call) -> None:
    with_sound(call)
    call.event("unrecorded", 1.0, track_id="TR_x", peer_id="PA_a", user_id="alice", source="camera",
               reason="CodecUnsupported", message="video/AV1")  # fmt: skip
    call.track("t0002", "PA_a", "alice", "screenshare", "vp8", 1.0)
    call.event("counters", 5.0, track="t0002", packets=500, frames=0)
    spool = Spool(call.write(stop=10.0))
    spool.refresh()
    manifest = build_manifest(spool, an_intent(), [])
    assert not manifest.complete
    assert [(row.track_id, row.reason) for row in manifest.unrecorded] == [
        ("TR_x", "CodecUnsupported"),
        ("TR_t0002", "NoMedia"),
    ]


def test_a_microphone_that_stayed_muted_misses_nothing(call: Call) -> None:
    with_sound(call)
    call.track("t0002", "PA_a", "alice", "microphone", "opus", 1.0)
    call.event("muted", 1.0, track="t0002")
    call.event("counters", 5.0, track="t0002", packets=50, frames=0)
    spool = Spool(call.write(stop=10.0))
    spool.refresh()
    assert build_manifest(spool, an_intent(), []).complete


def test_capture_without_an_end_is_incomplete_and_says_so(call: Call, tmp_path: Path) -> None:
    with_sound(call).write()
    manifest = finish_local(call.spool, an_intent(), tmp_path / "out")
    assert (manifest.complete, manifest.stop_reason) == (False, StopReason.INTERNAL_ERROR)
    assert "without a word" in manifest.message
    assert len(manifest.files) == 1


def test_a_moment_lost_counts_once_however_many_files_hold_it(call: Call, tmp_path: Path) -> None:
    with_sound(call, lost=range(50, 60)).write(stop=10.0)
    outputs = [OutputType.AUDIO_ONLY, OutputType.AUDIO_VIDEO]
    manifest = finish_local(call.spool, an_intent(output_types=outputs), tmp_path / "out")
    assert manifest.lost_ms == 200
    (file,) = manifest.files
    twin = file.model_copy(update={"name": "twin.mkv", "output_type": OutputType.AUDIO_VIDEO})
    assert lost_ms([file, twin]) == 200


def test_only_losses_count_as_lost() -> None:
    def file(*gaps: Gap) -> ManifestFile:
        track = TRACK.model_copy(update={"gaps": gaps})
        return FILE.model_copy(update={"tracks": (track,)})

    rows = [Gap(start_ms=1000 * n, duration_ms=10, reason=reason) for n, reason in enumerate(GapReason)]
    assert lost_ms([file(*rows)]) == 50


def test_of_gaps_told_as_one_what_is_missing_counts() -> None:
    rows = (
        Gap(start_ms=0, duration_ms=1000, missing_ms=300, reason=GapReason.LOST),
        Gap(start_ms=2000, duration_ms=10, reason=GapReason.LOST),
    )
    file = FILE.model_copy(update={"tracks": (TRACK.model_copy(update={"gaps": rows}),)})
    twin = file.model_copy(update={"name": "twin.mkv"})
    assert lost_ms([file, twin]) == 310
    assert "0.31 s lost" in summarise(file)


def test_attempts_merge_into_one_recording(tmp_path: Path) -> None:
    first = a_manifest(tmp_path, 1, reason="Drained")
    second = a_manifest(tmp_path, 2, reason="CallEnded")
    merged = merge_manifests([second, first])
    assert merged.started_at == first.started_at
    assert (merged.stop_reason, merged.duration_ms) == (StopReason.CALL_ENDED, 70_000)
    assert [attempt.n for attempt in merged.attempts] == [1, 2]
    assert [file.attempt for file in merged.files] == [1, 2]
    assert merged.files[1].start_offset_ms == 60_000 + merged.files[0].start_offset_ms
    (alice,) = merged.participants
    assert [(peer.peer_id, peer.joined_ms) for peer in alice.peers] == [("PA_a", 500)]
    assert merged.lost_ms == 400
    assert merge_manifests([merged]) == merged
    assert merge_manifests([first, first]) == first


def test_who_left_between_two_attempts_is_told_to_have_left(tmp_path: Path) -> None:
    first, second, never = (Call(tmp_path / f"spool{n}", attempt=n, started=60.0 * (n - 1)) for n in (1, 2, 3))
    for peer in ("PA_a", "PA_b"):
        first.person(peer, peer, at=0.5)
    second.person("PA_b", "PA_b", at=60.1)
    never._events = never._events[:1]  # it was not in the call, and knows of nobody
    manifests = []
    for attempt, call in enumerate((first, second, never), 1):
        call.write(stop=60.0 * attempt - 30)
        intent = an_intent(attempt=attempt, epoch_ms=1_760_000_000_000)
        manifests.append(finish_local(call.spool, intent, tmp_path / f"out{attempt}"))
    merged = merge_manifests(manifests)
    left = {peer.peer_id: peer.left_ms for person in merged.participants for peer in person.peers}
    assert left == {"PA_a": 60_000, "PA_b": None}


def test_layers_make_files_of_their_own_whatever_their_names(call: Call, tmp_path: Path) -> None:
    """Equal prefixes, equal templates, even a template that imitates another layer's mark: no file replaces another."""
    with_sound(call).write(stop=10.0)
    template = "{peer_id}.{stream_kind}.{media_kind}"
    layers = [
        {"name": "x", "fileNameTemplate": f"{template}_b"},
        {"name": "a", "fileNameTemplate": template},
        {"name": "b", "fileNameTemplate": template},
        {"name": "speech", "fileNamePrefix": "s", "outputTypes": ["audio_only"], "container": "webm"},
        {"name": "pictures", "outputTypes": ["video_only"]},
    ]
    intent = an_intent().model_copy(update={"layers": tuple(map(OutputLayer.model_validate, layers))})
    manifest = finish_local(call.spool, intent, tmp_path / "out")
    assert {file.layer: file.name for file in manifest.files} == {
        "x": "PA_a.peer.audio_b.mkv",
        "a": "PA_a.peer.audio.mkv",
        "b": "PA_a.peer.audio_b2.mkv",
        "speech": "s_alice_PA_a_peer_audio_1760000001030.webm",
    }
    assert manifest.lost_ms == 0


def test_no_manifest_cannot_be_merged() -> None:
    with pytest.raises(ValueError, match="no attempt"):
        merge_manifests([])


def test_an_output_that_cannot_be_written_is_one_clear_error(call: Call, tmp_path: Path) -> None:
    with_sound(call).write(stop=10.0)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot finish the files in"):
        finish_local(call.spool, an_intent(), tmp_path / "file" / "out")


def test_a_failing_disk_leaves_no_half_file(call: Call, tmp_path: Path) -> None:
    """The name of a deliverable is never seen before the file is whole."""
    with_sound(call).write(stop=10.0)
    (tmp_path / "out" / "recording.json" / "x").mkdir(parents=True)
    with pytest.raises(OutputError):
        finish_local(call.spool, an_intent(), tmp_path / "out")
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.endswith(".part")]


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        pytest.param(ZeroDivisionError(), IsotrackError, id="a bug"),
        pytest.param(OSError(5, "Input/output error", "t0002.log"), OutputError, id="a disk"),
    ],
)
def test_one_session_that_cannot_be_made_does_not_cost_the_others(
    fault: Exception, kind: type[IsotrackError], call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that fails is neither the last nor the only one, and has written something before."""
    with_sound(call)
    for number, who in ((2, "bob"), (3, "carol")):
        call.person(f"PA_{who}", who, at=0.5, left=6.0)
        call.track(f"t000{number}", f"PA_{who}", who, "microphone", "opus", 0.5, ended=6.0)
        call.frames(f"t000{number}", Sender(), 48_000, tone(opus_packets(250), 1.0), reports=[2.0])
    call.write(stop=10.0)
    advance = SessionStream.advance

    def fail_for_bob(stream: SessionStream, *, whole: bool, most_groups: int) -> bool:
        if stream.state.peer_id == "PA_bob":
            advance(stream, whole=True, most_groups=1)
            raise fault
        return advance(stream, whole=whole, most_groups=most_groups)

    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(SessionStream, "advance", fail_for_bob)
        with pytest.raises(kind, match="session 'PA_bob' could not be made") as raised:
            finish_local(call.spool, an_intent(), out)
    assert type(raised.value) is kind
    manifest = Manifest.model_validate_json((out / "recording.json").read_bytes())
    assert sorted(file.user_id for file in manifest.files) == ["alice", "carol"]
    assert not manifest.complete
    assert "could not be made" in manifest.message
    assert {path.name for path in out.iterdir()} == {"recording.json", *(file.name for file in manifest.files)}
    again = finish_local(call.spool, an_intent(), out)
    assert again.complete
    assert sorted(file.user_id for file in again.files) == ["alice", "bob", "carol"]


FILE = ManifestFile.model_validate(
    {
        "name": "a.mkv", "attempt": 1, "layer": "default", "outputType": "audio_only", "container": "mkv",
        "userId": "alice", "peerId": "PA_a", "startOffsetMs": 0, "durationMs": 1000, "bytes": 1, "sha256": "0" * 64,
        "tracks": [{"trackId": "TR", "source": "microphone", "kind": "audio", "codec": "opus", "startMs": 0,
                    "endMs": 1000, "frames": 1, "keyFrames": 0, "packets": 1, "packetsLost": 0, "packetsRecovered": 0,
                    "mediaBytes": 1}],
    }
)  # fmt: skip
TRACK = FILE.tracks[0]
