"""Files made by the muxer, read back by our reader and by libav."""

from __future__ import annotations

import copy
import functools
import io
import subprocess
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isotrack_api.base import Container, MediaKind
from isotrack_recorder.errors import ParseError
from isotrack_recorder.matroska import ids
from isotrack_recorder.matroska.codec_private import avc_configuration, length_prefixed, nal_units, opus_head
from isotrack_recorder.matroska.codec_private_h265 import hevc_configuration
from isotrack_recorder.matroska.muxer import HEAD_BYTES, FileHeader, Muxer, MuxState, TrackHeader
from isotrack_recorder.matroska.reader import blocks, read_file
from support.files import MemoryFiles
from support.media import opus_packets, video_frames
from support.rtp import vp8_frame

MS = 1_000_000
HEADER = FileHeader("isotrack/test", "Alice", 1_760_000_000_123_000_000, "seed", {"USER_ID": "alice"})
SOUND = TrackHeader(MediaKind.AUDIO, "opus", "microphone", private=opus_head(1), tags={"SOURCE": "microphone"})
PICTURE = TrackHeader(MediaKind.VIDEO, "vp8", "camera", width=160, height=120)


def finished(
    muxer: Muxer, *tracks: TrackHeader, header: FileHeader = HEADER, files: MemoryFiles | None = None
) -> bytes:
    """The whole file, of which `files` may hold what was taken before."""
    files = files or MemoryFiles()
    head = muxer.finish(header, tracks)
    write(muxer, files)
    files.write("file", 0, head)
    return bytes(files.files["file"])


def write(muxer: Muxer, files: MemoryFiles) -> None:
    for place in muxer.take():
        files.write("file", place.offset, place.data)


@functools.cache
def a_file(container: Container = Container.MKV, seconds: int = 8, codec: str = "vp8") -> bytes:
    """Sound and pictures; a key frame every two seconds."""
    muxer = Muxer(MuxState(container))
    items = [(n * 20 * MS, 1, 20 * MS, data, True) for n, data in enumerate(opus_packets(seconds * 50))]
    for n, (data, key) in enumerate(video_frames(seconds * 30, codec)):
        items.append((n * 1000 * MS // 30, 2, 33 * MS, length_prefixed(data) if codec == "h264" else data, key))
    for time, track, duration, data, key in sorted(items, key=lambda item: item[:2]):
        muxer.add([(time, track, duration, data, key, key and track == 2)])
    private = avc_configuration(video_frames(1, "h264")[0][0]) if codec == "h264" else b""
    picture = TrackHeader(MediaKind.VIDEO, codec, "camera", private=private, width=160, height=120)
    return finished(muxer, SOUND, picture)


def test_the_head_has_its_size_and_says_everything() -> None:
    content = a_file()
    file = read_file(content)
    assert file.doc_type == "matroska"
    assert file.segment_start + file.segment_size == len(content)
    assert file.clusters[0].begin == HEAD_BYTES
    assert file.date_unix_ns == HEADER.date_unix_ns
    assert file.duration_ms == pytest.approx(8000, abs=1)
    assert [track.codec_id for track in file.tracks] == ["A_OPUS", "V_VP8"]
    assert file.tags[0] == {"USER_ID": "alice"}
    assert file.tags[file.tracks[0].uid] == {"SOURCE": "microphone"}


def test_seek_head_and_cues_point_at_what_they_name() -> None:
    content = a_file()
    file = read_file(content)
    for element_id, offset in file.seek.items():
        assert content[offset : offset + 4] == element_id.to_bytes(4, "big")
    assert set(file.seek) == {ids.INFO, ids.TRACKS, ids.TAGS, ids.CUES}
    begins = {cluster.begin for cluster in file.clusters}
    assert {cue.offset for cue in file.cues} == begins
    keys = {block.time_ms for block in blocks(content, file) if block.track == 2 and block.key}
    assert keys == {cue.time_ms for cue in file.cues if cue.track == 2}


@pytest.mark.parametrize("beside_sound", [False, True])
def test_who_seeks_between_two_key_frames_gets_the_earlier_one(beside_sound: bool) -> None:
    """Publishers make few key frames: most clusters have none, and a player that begins there shows nothing, or grey."""
    muxer = Muxer(MuxState(Container.MKV))
    pictures = []
    for n in range(1500):
        key = n % 500 == 0
        pictures.append((n * 40 * MS, 1, 40 * MS, vp8_frame(n, key=key, size=40), key, key))
    sound = [(n * 20 * MS, 2, 20 * MS, b"\xf8\xff\xfe", True, False) for n in range(3000)] if beside_sound else []
    muxer.add(sorted(pictures + sound))
    content = finished(muxer, PICTURE, *([SOUND] if beside_sound else []))
    file = read_file(content)
    assert [cue.time_ms for cue in file.cues if cue.track == 1] == [0, 20_000, 40_000]
    if beside_sound:  # which can be begun anywhere
        assert {cue.offset for cue in file.cues if cue.track == 2} == {cluster.begin for cluster in file.clusters}
    for wanted, found in ((13, 0), (27, 20), (39.9, 20), (59, 40)):
        with av.open(io.BytesIO(content)) as media:
            video = media.streams.video[0]
            media.seek(round(wanted * 1000), stream=video)
            packet = next(media.demux(video))
            assert (packet.is_keyframe, packet.pts) == (True, found * 1000)


def test_clusters_are_short_and_know_their_size() -> None:
    muxer = Muxer(MuxState(Container.MKV))
    for n in range(2000):
        muxer.add([(n * 20 * MS, 1, 20 * MS, b"\xf8\xff\xfe", True, False)])
    content = finished(muxer, SOUND)
    file = read_file(content)
    assert len(file.clusters) == 8
    times = [block.time_ms for block in blocks(content, file)]
    assert times == [n * 20 for n in range(2000)]


@pytest.mark.parametrize(
    ("container", "codec"),
    [(Container.MKV, "vp8"), (Container.WEBM, "vp8"), (Container.MKV, "h264")],
)
def test_libav_reads_and_decodes_every_frame(container: Container, codec: str) -> None:
    with av.open(io.BytesIO(a_file(container, codec=codec))) as media:
        assert media.start_time == 0
        assert media.duration == pytest.approx(8_000_000, abs=2000)
        pictures = sum(1 for _ in media.decode(video=0))
    with av.open(io.BytesIO(a_file(container, codec=codec))) as media:
        samples = sum(frame.samples for frame in media.decode(audio=0))
    assert (pictures, samples) == (240, 8 * 48_000)


@pytest.mark.parametrize("container", [Container.MKV, Container.WEBM])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_players_turn_pictures_clockwise_by_what_the_head_says(
    rotation: int, container: Container, tmp_path: Path
) -> None:
    """libav tells angles counter-clockwise; ffmpeg, as a player, shows which way pictures go: ours are dark on the left."""
    muxer = Muxer(MuxState(container))
    for n, (data, key) in enumerate(video_frames(3)):
        muxer.add([(n * 33 * MS, 1, 33 * MS, data, key, key)])
    path = tmp_path / "film"
    path.write_bytes(finished(muxer, replace(PICTURE, rotation=rotation)))
    with av.open(path) as media:
        pictures = list(media.decode(video=0))
    assert [picture.rotation % 360 for picture in pictures] == [-rotation % 360] * 3
    upright = np.rot90(pictures[0].to_ndarray(format="gray"), k=-rotation // 90)
    command = [
        "ffmpeg",
        "-v",
        "error",
        "-nostdin",
        "-i",
        str(path),
        "-frames:v",
        "1",
        "-pix_fmt",
        "gray",
        "-f",
        "rawvideo",
        "-",
    ]
    shown = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
    assert np.abs(np.frombuffer(shown, np.uint8).reshape(upright.shape).astype(int) - upright).mean() < 4
    dark = {0: np.s_[:, :20], 90: np.s_[:20, :], 180: np.s_[:, -20:], 270: np.s_[-20:, :]}
    assert min(dark, key=lambda turn: float(upright[dark[turn]].mean())) == rotation


def test_frames_go_in_unchanged() -> None:
    content = a_file()
    file = read_file(content)
    assert [block.data for block in blocks(content, file) if block.track == 1] == list(opus_packets(400))


def test_equal_input_gives_equal_bytes() -> None:
    assert a_file() == a_file()


def test_a_file_without_frames_is_still_a_file() -> None:
    content = finished(Muxer(MuxState(Container.WEBM)), SOUND)
    assert (len(content), read_file(content).doc_type) == (HEAD_BYTES, "webm")


def test_hostile_names_and_tags_are_cut_to_fit() -> None:
    """The head is reserved before anything is known: nothing may ever outgrow it."""
    long = "\U0001f600" * 10_000 + "\0\x1b[31m"
    header = FileHeader("app", long, 0, "seed", {f"TAG{n}": long for n in range(50)})
    tracks = [TrackHeader(MediaKind.AUDIO, "opus", long, opus_head(1), tags={"A": long}) for _ in range(4)]
    head = finished(Muxer(MuxState(Container.MKV)), *tracks, header=header)
    assert len(head) == HEAD_BYTES
    assert b"\x1b" not in head


@pytest.mark.parametrize(
    ("name", "told"),
    [
        pytest.param("علی\u200cرضا", "علی\u200cرضا", id="non-joiner"),
        pytest.param("👩\u200d👧", "👩\u200d👧", id="joined emoji"),
        pytest.param("Anne\u00a0Marie", "Anne\u00a0Marie", id="no-break space"),
        pytest.param("a\u202eb\u2066c", "a\ufffdb\ufffdc", id="turned text"),
        pytest.param("a\x00\x1b\x9b\u2028\ud800b", "a\ufffd\ufffd\ufffd\ufffd\ufffdb", id="control"),
    ],
)
def test_names_keep_what_their_script_needs_and_nothing_that_controls(name: str, told: str) -> None:
    content = finished(Muxer(MuxState(Container.MKV)), SOUND, header=replace(HEADER, tags={"PARTICIPANT": name}))
    assert read_file(content).tags[0] == {"PARTICIPANT": told}


def test_what_a_decoder_needs_displaces_tags() -> None:
    """Parameter sets of a hostile sender have 2 KiB each: with long names beside them no file of that person could be finished."""
    private = hevc_configuration(_parameter_sets(2048))
    long = "\U0001f600" * 256
    header = FileHeader("isotrack/1.2.3", long, 0, "seed", {f"TAG{n}": long for n in range(8)})
    camera = TrackHeader(
        MediaKind.VIDEO, "h265", "camera", private=private, width=640, height=360, tags={"TRACK_ID": long}
    )
    content = finished(Muxer(MuxState(Container.MKV)), camera, SOUND, header=header)
    file = read_file(content)
    assert (len(content), file.tracks[0].private) == (HEAD_BYTES, private)
    assert 0 < len(file.tags[0]) < 8


def _parameter_sets(size: int) -> bytes:
    """As many and as large ones as a record takes, in Annex B; of a real sender, filled up."""
    sets = [unit for unit in nal_units(video_frames(1, "h265")[0][0]) if unit[0] >> 1 in (32, 33, 34)]
    pictures = [sets[2] + bytes((number,)) * (size - len(sets[2])) for number in range(1, 5)]
    return b"".join(b"\0\0\0\1" + unit for unit in (*(unit.ljust(size, b"\1") for unit in sets[:2]), *pictures))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(-50, 9_000), st.booleans(), st.booleans()), max_size=60))
def test_times_never_descend_whatever_comes(steps: list[tuple[int, bool, bool]]) -> None:
    """A frame that comes too late is lifted to the last one's time; no block leaves its cluster's range."""
    muxer = Muxer(MuxState(Container.MKV))
    at = 0
    for step, second, cue in steps:
        at += step * MS
        muxer.add([(at, 1 + second, 20 * MS, b"\xf8\xff\xfe", True, cue)])
    content = finished(muxer, SOUND, PICTURE)
    found = list(blocks(content, read_file(content)))
    assert len(found) == len(steps)
    for track in (1, 2):
        times = [block.time_ms for block in found if block.track == track]
        assert times == sorted(times)


@given(st.integers(0, 120_000))
def test_a_file_cut_anywhere_reads_up_to_the_cut(cut: int) -> None:
    content = a_file()[:cut]
    try:
        file = read_file(content)
    except ParseError:
        assert cut < 100
        return
    whole = [block.data for block in blocks(a_file(), read_file(a_file()))]
    got = [block.data for block in blocks(content, file)]
    assert got == whole[: len(got)]


@settings(max_examples=200)
@given(st.data())
def test_a_damaged_file_raises_parse_errors_only(data: st.DataObject) -> None:
    content = bytearray(a_file(seconds=1))
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.one_of(st.integers(0, 700), st.integers(0, len(content) - 1)))
        content[at] = data.draw(st.integers(0, 255))
    try:
        file = read_file(bytes(content))
        for _ in blocks(bytes(content), file):
            pass
    except ParseError:
        return


@settings(max_examples=40, deadline=None)
@given(taken=st.sets(st.integers(0, 399)), restored=st.sets(st.integers(0, 399)))
def test_when_bytes_are_taken_changes_nothing(taken: set[int], restored: set[int]) -> None:
    """Bytes may be handed out in the middle of a cluster; its size follows. Another process may go on from the state."""
    muxer, files = Muxer(MuxState(Container.MKV)), MemoryFiles()
    settled, kept = HEAD_BYTES, b""
    for n in range(400):
        muxer.add([(n * 20 * MS, 1, 20 * MS, bytes(n % 90), True, n % 70 == 0)])
        if n in taken | restored:
            write(muxer, files)
            assert bytes(files.files["file"][HEAD_BYTES:settled]) == kept
            settled = muxer.settled
            kept = bytes(files.files["file"][HEAD_BYTES:settled])
        if n in restored:
            muxer = Muxer(copy.deepcopy(muxer.state))
    whole = Muxer(MuxState(Container.MKV))
    for n in range(400):
        whole.add([(n * 20 * MS, 1, 20 * MS, bytes(n % 90), True, n % 70 == 0)])
    assert finished(muxer, SOUND, files=files) == finished(whole, SOUND)
