"""`isotrack verify` on real files of every codec, whole and tampered with."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from isotrack_api.manifest import Manifest
from isotrack_recorder.cli import main
from isotrack_recorder.errors import ConfigError, OutputError, StorageRefusedError
from isotrack_recorder.finalise.local import finish_local
from isotrack_recorder.matroska import reader
from isotrack_recorder.verify import child
from isotrack_recorder.verify.place import PATIENCE_SECONDS, BucketPlace, MissingFileError, find_place, parse_manifest
from isotrack_recorder.verify.run import verify_files
from isotrack_recorder.verify.whole import judge_others
from support.media import opus_packets, pcm_packets, video_frames
from support.memory_store import MemoryStore
from support.spools import Call, Sender, an_intent, steady, tone

VIDEO = ("vp8", "vp9", "h264", "h265", "av1")
SENDER = Sender(drift_ppm=60)


def person(call: Call, number: int, who: str, video: str = "", audio: str = "opus", *, lossy: bool = False) -> None:
    """Nine seconds of sound and six of pictures; `lossy` lacks 1.2 s of sound and 2.5 s of pictures in the middle."""
    call.person(f"PA_{who}", who, left=12.0)
    log = f"t{2 * number:04}"
    packets = opus_packets(450) if audio == "opus" else pcm_packets(450, audio)
    call.track(log, f"PA_{who}", who, "microphone", audio, 0.5, ended=11.0)
    call.frames(log, SENDER, 48_000 if audio == "opus" else 8000, tone(packets, 1.0), reports=range(2, 11),
                lost=range(100, 160) if lossy else ())  # fmt: skip
    if video:
        log = f"t{2 * number + 1:04}"
        call.track(log, f"PA_{who}", who, "camera", video, 0.6, ended=11.0)
        call.frames(log, SENDER, 90_000, steady(video_frames(180, video), 1.5, 1 / 30), reports=range(2, 8),
                    lost=range(70, 145) if lossy else ())  # fmt: skip


def record(folder: Path, people: Callable[[Call], None]) -> Path:
    """Make the files of a call; the folder with recording.json."""
    call = Call(folder / "spool")
    people(call)
    call.write(stop=13.0)
    finish_local(call.spool, an_intent(), folder / "out")
    return folder / "out"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Alice: VP8 and Opus, with losses."""
    return record(tmp_path_factory.mktemp("verify"), lambda call: person(call, 1, "alice", "vp8", lossy=True))


@pytest.fixture
def recording(original: Path, tmp_path: Path) -> Path:
    """A copy to tamper with."""
    return Path(shutil.copytree(original, tmp_path / "out"))


def edit(recording: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the manifest."""
    path = recording / "recording.json"
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def media(recording: Path) -> Path:
    """Its only file."""
    (path,) = recording.glob("*.mkv")
    return path


def rewrite(recording: Path, change: Callable[[bytearray], None]) -> None:
    """Change the file, and size and digest in the manifest with it: whoever can write one can write the other."""
    path = media(recording)
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(content)
    edit(
        recording,
        lambda m: m["files"][0].update(
            bytes=len(content), sha256=hashlib.sha256(content).hexdigest(), crc32=f"{zlib.crc32(content):08x}"
        ),
    )


def verify(recording: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = main(["verify", str(recording)])
    return code, capsys.readouterr().out


def test_every_codec_is_proven(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def people(call: Call) -> None:
        for number, codec in enumerate(VIDEO, 1):
            person(call, number, codec, codec, lossy=codec != "av1")
        for number, codec in enumerate(("pcmu", "pcma", "g722"), 7):
            person(call, number, codec, audio=codec, lossy=True)

    code, out = verify(record(tmp_path, people), capsys)
    lines = out.splitlines()
    assert code == 0, out
    manifest = Manifest.model_validate_json((tmp_path / "out" / "recording.json").read_bytes())
    assert lines[:-1] == [f"ok    {file.name}: {file.summary}" for file in manifest.files]
    assert [line.split()[0] for line in lines[:-1]] == ["ok"] * 8
    assert lines[-1].startswith("8 of 8 files are what the manifest says; ")


def test_the_line_of_a_file_that_nobody_touched_is_the_manifests(
    original: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (file,) = Manifest.model_validate_json((original / "recording.json").read_bytes()).files
    code, out = verify(original, capsys)
    assert code == 0, out
    assert out.splitlines()[0] == f"ok    {file.name}: {file.summary}"
    for part in ("opus 390 frames, ", "vp8 105 frames, ", " s lost, ", "A/V offset +", "pictures from 0.500 s on, "):
        assert part in file.summary, file.summary


def test_the_line_tells_what_was_found_and_then_what_is_wrong(
    recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever a manifest says of frames, gaps and times: the line is about the file."""
    edit(recording, _change(1, "frames", 7))
    edit(recording, _change(1, "gaps", []))
    edit(recording, _change(1, "startMs", -300))
    code, out = verify(recording, capsys)
    assert code == 1
    line = out.splitlines()[0]
    assert line.startswith("FAIL  ")
    found, wrong = line.split("; wrong: ")
    assert "vp8 105 frames, 1 gap, " in found
    assert "A/V offset +300 ms, pictures from 0.500 s on" in found
    for part in ("105 frames are there, the manifest says 112", "camera: undeclared gap: "):
        assert part in wrong


def test_a_file_that_cannot_be_read_has_no_line(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = media(recording)
    path.unlink()
    code, out = verify(recording, capsys)
    assert (code, out.splitlines()[0]) == (1, f"FAIL  {path.name}: cannot be read: No such file or directory")


def test_json_tells_the_same(original: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--json", str(original / "recording.json")]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is True
    (file,) = told["files"]
    assert file["ok"] is True
    assert file["problems"] == []
    assert [(track["codec"], track["expected"], track["present"]) for track in file["tracks"]] == [
        ("opus", 390, 390), ("vp8", 105, 105),
    ]  # fmt: skip
    assert {"lostMs", "avOffsetMs", "declaredAvOffsetMs", "durationMs", "decodedMs"} <= set(file)
    assert all({"driftPpm", "startMs", "declaredStartMs"} <= set(track) for track in file["tracks"])
    manifest = json.loads((original / "recording.json").read_text())
    assert file["summary"] == manifest["files"][0]["summary"]


def _change(index: int, key: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(manifest: dict[str, Any]) -> None:
        track = manifest["files"][0]["tracks"][index]
        if isinstance(value, int):
            track[key] += value
        else:
            track[key] = value

    return change


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        pytest.param(_change(1, "frames", 1), "camera: 105 frames are there, the manifest says 106", id="frames"),
        pytest.param(
            _change(0, "frames", 1), "microphone: 390 frames are there, the manifest says 391", id="sound-frames"
        ),
        pytest.param(_change(0, "silenceMs", 100), "ms of silence are there", id="silence"),
        pytest.param(_change(0, "gaps", []), "undeclared gap", id="silence-undeclared"),
        pytest.param(_change(1, "gaps", []), "undeclared gap: 2.5", id="gap-undeclared"),
        pytest.param(
            _change(1, "startMs", 20), "camera: begins at 500 ms of the file, the manifest says 520 ms", id="place"
        ),
        pytest.param(_change(1, "codec", "vp9"), "holds opus + vp8, the manifest says opus + vp9", id="codec"),
        pytest.param(lambda m: m["files"][0].update(durationMs=1), "ms, the manifest says 1 ms", id="duration"),
        pytest.param(lambda m: m["files"][0].update(sha256="0" * 64), "sha256 differs", id="digest"),
        pytest.param(lambda m: m["files"][0].update(name="b.mkv"), "cannot be read: No such file", id="missing"),
        pytest.param(
            lambda m: m["files"][0].update(name="../x.mkv"), "leads out of the recording's folder", id="way-out"
        ),
        pytest.param(lambda m: m["files"][0].update(name=".."), "leads out of the recording's folder", id="parent"),
        pytest.param(lambda m: m.update(lostMs=1), "the manifest says 1 ms lost", id="sum-of-losses"),
        pytest.param(lambda m: m["files"].append(m["files"][0]), "share a name", id="twice"),
        pytest.param(
            lambda m: m["files"].clear(), "lies in the recording's folder and is not in the manifest", id="left-out"
        ),
        pytest.param(
            lambda m: m.update(durationMs=5),
            "that the recording lasts 5 ms, its files 11000 ms",
            id="recording-too-short",
        ),
        pytest.param(
            lambda m: m["unrecorded"].append(
                {"userId": "a", "peerId": "PA_a", "trackId": "TR_1", "source": "camera", "reason": "NoMedia"}
            ),
            "that nothing is missing, and names tracks",
            id="complete-without-a-track",
        ),
        pytest.param(lambda m: m["files"][0].update(peerId="PA_b"), "tag PEER_ID is 'PA_alice'", id="session"),
    ],
)
def test_a_manifest_that_says_something_else_is_refuted(
    recording: Path, change: Callable[[dict[str, Any]], None], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(recording, change)
    code, out = verify(recording, capsys)
    assert code == 1
    assert problem in out
    assert "FAIL" in out


def _video_blocks(content: bytearray) -> list[tuple[int, int]]:
    """Where the frames of the camera lie: offset and size."""
    file = reader.read_file(bytes(content))
    frames = (block.data for block in reader.blocks(bytes(content), file) if block.track == 2)
    places, at = [], 0
    for data in frames:
        at = content.index(data, at)
        places.append((at, len(data)))
    return places


def _damage_a_picture(content: bytearray) -> None:
    at, _ = _video_blocks(content)[0]
    content[at + 3 : at + 6] = b"\0\0\0"  # the start code of a key frame


def _cut_in_the_middle(content: bytearray) -> None:
    del content[len(content) // 2 :]


def _blank(content: bytearray) -> None:
    content[:] = bytes(len(content))


def _playlist(content: bytearray) -> None:
    content[:] = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"


def _damage_a_cluster(content: bytearray) -> None:
    at, _ = _video_blocks(content)[40]
    content[at - 40 : at] = b"\xff" * 40


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        pytest.param(_damage_a_picture, "camera: does not decode at 0.50 s", id="picture"),
        pytest.param(_cut_in_the_middle, "frames are there", id="cut"),
        pytest.param(_blank, "cannot be opened", id="blank"),
        pytest.param(_playlist, "cannot be opened", id="playlist"),
        pytest.param(_damage_a_cluster, "frames are there", id="cluster"),
        pytest.param(lambda content: content.clear(), "cannot be opened", id="empty"),
    ],
)
def test_a_file_that_was_changed_together_with_its_digest_is_refuted(
    recording: Path, change: Callable[[bytearray], None], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rewrite(recording, change)
    code, out = verify(recording, capsys)
    assert code == 1
    assert problem in out


def test_a_changed_byte_is_seen_by_the_digest(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = media(recording)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    code, out = verify(recording, capsys)
    assert (code, "sha256 and crc32 differ" in out) == (1, True)


def test_what_is_none_of_ours_may_lie_beside_a_recording(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (recording / ".left.mkv").write_bytes(media(recording).read_bytes())
    (recording / "holiday.mkv").write_bytes(b"\x1a\x45\xdf\xa3 of somebody else")
    os.mkfifo(recording / "pipe.webm")
    assert verify(recording, capsys)[0] == 0


def test_a_pipe_in_place_of_a_file_keeps_nobody_waiting(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = media(recording)
    path.unlink()
    os.mkfifo(path)
    code, out = verify(recording, capsys)
    assert (code, "is no regular file" in out) == (1, True)


def test_a_folder_without_a_recording_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(tmp_path)]) == 64
    assert "is not there" in capsys.readouterr().err


def test_a_recording_without_files_is_proven(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out = verify(record(tmp_path, lambda _: None), capsys)
    assert (code, out) == (0, "0 of 0 files are what the manifest says; 0.00 s lost in all\n")


# -- the decoding process ----------------------------------------------------------------------------------------------


def a_program(path: Path, body: str) -> str:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o700)
    return str(path)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        pytest.param("kill -SEGV $$", "the decoder crashed (SIGSEGV)", id="crash"),
        pytest.param("kill -XCPU $$", "the decoder took too much CPU time", id="cpu"),
        pytest.param("exit 3", "the decoder failed with exit code 3", id="exit-code"),
        pytest.param("echo no", "the decoder said nothing that makes sense", id="junk"),
        pytest.param("exec sleep 60", "was not decoded after 0 s", id="endless"),
        pytest.param('test -z "$AWS_SECRET_ACCESS_KEY" && echo "{}"', "", id="no-secrets"),
    ],
)
def test_whatever_becomes_of_the_decoder_is_told(
    tmp_path: Path, body: str, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setattr(child.sys, "executable", a_program(tmp_path / "decoder", body))
    if "sleep" in body:
        monkeypatch.setattr(child, "BASE_SECONDS", 0.2)
    assert child.decode(tmp_path / "file", 0.0).problem == problem


def test_the_decoder_is_held_to_its_share_of_time(original: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is in force before the file is looked at: with none left, not even the start fits."""
    monkeypatch.setattr(child, "BASE_SECONDS", 0)
    seen = child.decode(media(original), 0.49)
    assert seen.problem.startswith(
        ("the decoder took too much CPU time", "was not decoded after", "the decoder crashed")
    )


# -- a bucket ----------------------------------------------------------------------------------------------------------


def in_a_bucket(recording: Path) -> tuple[MemoryStore, BucketPlace]:
    store = MemoryStore()
    for path in recording.iterdir():
        store.put(f"p/team-a/standup/{path.name}", path.read_bytes(), "application/octet-stream")
    return store, BucketPlace(store, "p/team-a/standup")


def test_files_of_a_bucket_are_proven_and_leave_nothing_behind(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    _, place = in_a_bucket(original)
    (verdict,) = verify_files(place, parse_manifest(place.manifest(), "p"))
    assert verdict.problems == ()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_the_manifest_of_a_bucket_does_not_list_is_named(original: Path) -> None:
    store, place = in_a_bucket(original)
    (file,) = parse_manifest(place.manifest(), "p").files
    assert list(judge_others(place.others({file.name}))) == []
    store.put("p/team-a/standup/attempts/1/x.mkv", media(original).read_bytes(), "video/x-matroska")
    store.put("p/team-a/standup/x.mkv", media(original).read_bytes(), "video/x-matroska")
    assert list(judge_others(place.others({file.name}))) == [
        "'x.mkv' lies in the recording's folder and is not in the manifest"
    ]


def test_who_may_not_list_a_bucket_proves_what_is_there(original: Path) -> None:
    store, place = in_a_bucket(original)

    def refuse(operation: str, _: str) -> None:
        if operation.startswith("list"):
            raise StorageRefusedError("access denied")

    store.before = refuse
    assert list(place.others(())) == []


def test_a_folder_of_a_bucket_without_a_recording_is_named() -> None:
    with pytest.raises(ConfigError, match=r"p/nobody/recording\.json is not there"):
        BucketPlace(MemoryStore(), "p/nobody").manifest()


def test_an_object_of_another_size_is_not_fetched(original: Path) -> None:
    store, place = in_a_bucket(original)
    manifest = parse_manifest(place.manifest(), "p")
    (file,) = manifest.files
    store.put(f"p/team-a/standup/{file.name}", b"short", "video/x-matroska")
    with pytest.raises(MissingFileError, match="has 5 bytes in the bucket"), place.file(file):
        pass
    store.delete(f"p/team-a/standup/{file.name}")
    (verdict,) = verify_files(place, manifest)
    assert verdict.problems == ("is not in the bucket",)


def test_a_bucket_is_given_up_when_it_fails_in_a_row_however_long_the_rest_takes() -> None:
    """The files of a day take hours: behind the first seconds one refused request ended all of it."""
    place = find_place("s3://calls/p/team-a/standup", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"})
    assert isinstance(place, BucketPlace)
    assert place.store.patience.left() == float("inf")
    place.store.patience.failed()
    assert place.store.patience.left() <= PATIENCE_SECONDS


def test_a_copy_that_has_no_room_is_told(original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, place = in_a_bucket(original)
    manifest = parse_manifest(place.manifest(), "p")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(OutputError, match="no temporary folder"), place.file(manifest.files[0]):
        pass
    (tmp_path / "file").symlink_to("/dev/full")
    monkeypatch.setattr("isotrack_recorder.verify.place._folder", lambda: nullcontext(tmp_path))
    with pytest.raises(OutputError, match=r"cannot be copied to .*No space left"):
        list(verify_files(place, manifest))
