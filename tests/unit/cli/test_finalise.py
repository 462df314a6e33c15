"""`isotrack finalise DIR`: from the folder that a run left behind to its files."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from isotrack_api.intent import Intent, OutputLayer
from isotrack_api.manifest import GapReason, Manifest, StopReason
from isotrack_recorder.cli import main
from isotrack_recorder.matroska.reader import blocks, read_file
from isotrack_recorder.spool.records import decode_records
from support.command import isotrack
from support.media import opus_packets, video_frames
from support.spools import Call, Sender, an_intent, steady, tone


def left_behind(parent: Path, intent: Intent) -> Call:
    """The folder of a run that is over: a call to be written into its spool."""
    folder = parent / ".isotrack-01234567"
    folder.mkdir(parents=True)
    (folder / "intent.json").write_text(intent.to_json())
    return Call(folder / "spool")


def cut_within_a_record(path: Path, share: float) -> list[bytes]:
    """Cut a segment in the middle of a frame; the frames that are whole."""
    content = path.read_bytes()
    records = list(decode_records(content))
    kept = round(len(records) * share)
    start, end = records[kept - 1][1], records[kept][1]
    path.write_bytes(content[: (start + end) // 2])
    return [record.frame for record, _ in records[:kept]]


def cut_within_a_line(path: Path, word: bytes) -> None:
    """Cut a journal in the middle of the first line that holds `word`."""
    content = path.read_bytes()
    cut = content.index(word) + len(word) // 2
    assert content[:cut].rpartition(b"\n")[2]
    path.write_bytes(content[:cut])


def test_a_spool_cut_in_the_middle_of_a_record_and_of_a_line_gives_the_files_of_what_is_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As power fails: the newest frame and the newest fact are torn. The files hold every frame before, and are proven."""
    call = left_behind(tmp_path, an_intent())
    call.person("PA_a", "alice")
    call.track("t0001", "PA_a", "alice", "microphone", "opus", 0.1)
    call.frames("t0001", Sender(), 48_000, tone(opus_packets(300), 0.5), reports=[1.0, 3.0, 5.0])
    call.track("t0002", "PA_a", "alice", "camera", "vp8", 0.1)
    call.event("size", 0.2, track="t0002", timestamp=0, width=160, height=120, rotation=0)
    call.frames("t0002", Sender(), 90_000, steady(video_frames(180), 0.55, 1 / 30), reports=[1.2, 3.2, 5.2])
    call.event("muted", 6.0, track="t0001")
    folder = call.write() / "i0001"
    whole = {}
    for log in ("t0001", "t0002"):
        first = [record.frame for record, _ in decode_records((folder / f"{log}.000001.log").read_bytes())]
        whole[log] = first + cut_within_a_record(folder / f"{log}.000002.log", 0.7)
    cut_within_a_line(folder / "journal.ndjson", b'"muted"')

    assert main(["finalise", "--json", str(call.spool.parent)]) == 0
    told = Manifest.model_validate_json(capsys.readouterr().out)
    assert told == Manifest.model_validate_json((tmp_path / "recording.json").read_bytes())
    (file,) = told.files
    assert (told.complete, told.stop_reason) == (False, StopReason.INTERNAL_ERROR)
    assert [track.frames for track in file.tracks] == [len(whole["t0001"]), len(whole["t0002"])]
    content = (tmp_path / file.name).read_bytes()
    found = read_file(content)
    for number, log in ((1, "t0001"), (2, "t0002")):
        kept = [block.data for block in blocks(content, found) if block.track == number]
        received = [data for data in kept if number == 2 or data[1:] != b"\xff\xfe"]  # silence that was put in
        assert received == whole[log]
    assert not call.spool.parent.exists(), "nothing is left to be made"
    assert main(["verify", str(tmp_path)]) == 0, capsys.readouterr().out


def flip(path: Path, at: int) -> None:
    """Turn one bit over, as a disk may."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def spoken_by_two(parent: Path) -> Call:
    """Two people who speak for six seconds."""
    call = left_behind(parent, an_intent())
    for number, who in ((1, "alice"), (2, "bob")):
        call.person(f"PA_{who}", who)
        call.track(f"t000{number}", f"PA_{who}", who, "microphone", "opus", 0.1 * number)
        call.frames(f"t000{number}", Sender(), 48_000, tone(opus_packets(300), 0.5), reports=[1.0, 3.0, 5.0])
    call.write(stop=7.0)
    return call


def test_a_bit_that_the_disk_turned_over_costs_one_frame_and_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = spoken_by_two(tmp_path)
    path = call.spool / "i0001" / "t0001.000001.log"
    records = list(decode_records(path.read_bytes()))
    flip(path, records[30][1] - 2)
    assert main(["finalise", "--json", str(call.spool.parent)]) == 0
    told = Manifest.model_validate_json(capsys.readouterr().out)
    assert (told.complete, told.lost_ms) == (False, 20)
    assert "the spool is damaged, these cannot be read: parts of i0001/t0001" in told.message
    alice, bob = told.files
    assert [track.frames for file in (alice, bob) for track in file.tracks] == [299, 300]
    (gap,) = alice.tracks[0].gaps
    assert (gap.reason, gap.duration_ms) == (GapReason.LOST, 20)
    found = read_file((tmp_path / alice.name).read_bytes())
    written = [block.data for block in blocks((tmp_path / alice.name).read_bytes(), found)]
    assert written[:30] + written[31:] == [record.frame for record, _ in records][:30] + list(opus_packets(300)[31:])
    assert main(["verify", str(tmp_path)]) == 0, capsys.readouterr().out


def test_frames_of_which_no_journal_tells_are_not_thrown_away(tmp_path: Path) -> None:
    """The line that says whose they are is damaged: everybody else's files are made, and what was captured stays."""
    call = spoken_by_two(tmp_path)
    journal = call.spool / "i0001" / "journal.ndjson"
    flip(journal, journal.read_bytes().index(b'"track":"t0002","track_id"') + 12)
    kept = {path: path.read_bytes() for path in call.spool.rglob("*") if path.is_file()}
    for _ in range(2):
        ended = isotrack("finalise", str(call.spool.parent), environment={"PATH": os.environ["PATH"]})
        assert (ended.code, "all of i0001/t0002. Everything else is in" in ended.stderr) == (1, True)
        told = Manifest.model_validate_json((tmp_path / "recording.json").read_bytes())
        assert (told.complete, [file.user_id for file in told.files]) == (False, ["alice"])
        assert {path: path.read_bytes() for path in kept} == kept


@pytest.mark.parametrize("content", [None, b""])
def test_without_a_journal_frames_stay_where_they_are(tmp_path: Path, content: bytes | None) -> None:
    call = spoken_by_two(tmp_path)
    journal = call.spool / "i0001" / "journal.ndjson"
    journal.unlink()
    if content is not None:
        journal.write_bytes(content)
    assert main(["finalise", str(call.spool.parent)]) == 1
    assert len(list(decode_records((call.spool / "i0001" / "t0001.000001.log").read_bytes()))) > 0


def test_a_recording_lasts_as_long_as_its_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A journal that was cut off early ends before the frames that it tells of."""
    call = spoken_by_two(tmp_path)
    cut_within_a_line(call.spool / "i0001" / "journal.ndjson", b'"report"')
    assert main(["finalise", "--json", str(call.spool.parent)]) == 0
    told = Manifest.model_validate_json(capsys.readouterr().out)
    assert told.duration_ms >= max(file.start_offset_ms + file.duration_ms for file in told.files) > 6000


def test_the_output_folder_names_what_lies_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And whoever says it twice, either way, hears that it is done."""
    call = spoken_by_two(tmp_path)
    assert main(["finalise", "--json", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert not call.spool.parent.exists()
    for place in (tmp_path, call.spool.parent):
        assert main(["finalise", "--json", str(place)]) == 0
        assert capsys.readouterr().out == told
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == made


def test_of_several_that_were_left_behind_one_must_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = spoken_by_two(tmp_path)
    shutil.copytree(call.spool.parent, tmp_path / ".isotrack-76543210")
    assert main(["finalise", str(tmp_path)]) == 64
    error = capsys.readouterr().err
    assert all(name in error for name in ("name one", ".isotrack-01234567", ".isotrack-76543210"))


@pytest.mark.parametrize("name", [".", ".isotrack-89abcdef"])
def test_what_was_never_there_is_no_finished_recording(tmp_path: Path, name: str) -> None:
    assert main(["finalise", str(tmp_path / name)]) == 64
    (tmp_path / "recording.json").write_text("{}")
    assert main(["finalise", str(tmp_path / name)]) == 64


def several_people(parent: Path) -> Call:
    """All that sets and dictionaries are made of: people, sources, codecs, layers, and what could not be recorded."""
    layers = [
        {"name": "whole", "outputTypes": ["audio_video", "screenshare_audio_video", "audio_only"]},
        {"name": "speech", "outputTypes": ["audio_only"], "container": "webm"},
    ]
    intent = an_intent().model_copy(update={"layers": tuple(map(OutputLayer.model_validate, layers))})
    call = left_behind(parent, intent)
    number = 0
    for who, video in (("alice", "vp8"), ("bob", "h264"), ("carol", "vp9")):
        peer = f"PA_{who}"
        call.person(peer, who, left=5.0)
        for source, codec in (("microphone", "opus"), ("camera", video), ("screenshare_audio", "opus")):
            number += 1
            log = f"t{number:04}"
            call.track(log, peer, who, source, codec, 0.1, ended=4.5)
            sender = Sender(drift_ppm=10 * number)
            if codec == "opus":
                call.frames(log, sender, 48_000, tone(opus_packets(150), 0.5), reports=[1, 3], lost=range(40, 50))
            else:
                frames = steady(video_frames(90, codec), 0.6, 1 / 30)
                call.frames(log, sender, 90_000, frames, reports=[1.1, 3.1], lost=range(20, 25))
                call.event("size", 0.2, track=log, timestamp=0, width=160, height=120, rotation=0)
        for source in ("camera", "screenshare"):
            call.event("unrecorded", 1.0, track_id=f"TR_{who}_{source}", peer_id=peer, user_id=who, source=source,
                       reason="CodecUnsupported", message="video/x")  # fmt: skip
    call.write(stop=6.0)
    return call


def test_the_same_spool_gives_the_same_bytes_in_any_process(tmp_path: Path) -> None:
    """Files and manifest, whatever the seed of Python's hashes and the clock's zone."""
    made = []
    for seed, zone in (("1", "UTC"), ("2", "Asia/Kathmandu")):
        output = tmp_path / seed
        call = several_people(output)
        environment = {**os.environ, "PYTHONHASHSEED": seed, "TZ": zone}
        ended = isotrack("finalise", str(call.spool.parent), environment=environment)
        assert ended.code == 0, ended.stderr
        made.append({path.name: path.read_bytes() for path in output.iterdir()})
    first, second = made
    assert len(json.loads(first["recording.json"])["files"]) == len(first) - 1 == 12
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []
