"""Every codec that people can send is in their files as they sent it: real SFU, real encoders, independent decoders."""

from __future__ import annotations

import io
import itertools
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from livekit.protocol import models

from isotrack_api.base import Container, MediaKind
from isotrack_api.manifest import GapReason, Manifest, ManifestFile
from isotrack_recorder.codecs.opus import is_stereo
from isotrack_recorder.codecs.pcm import SILENCE
from isotrack_recorder.codecs.vp9 import frames_of
from isotrack_recorder.finalise.local import finish_local
from isotrack_recorder.matroska.reader import blocks, read_file
from support import spools
from support.call import Call
from support.ledger import Ledger
from support.media import encode_opus, opus_packets, pcm_packets, video_frames
from support.media_check import examine, loudness
from support.payloads import h265_aggregate, h265_fragments
from support.people import Person, Picture
from support.players import VLC_KNOWS_NO_G722, complaints, complaints_of_vlc
from support.raw_publisher import RawTrack, raw_publisher
from support.recording_check import Recorded, check_recording
from support.rtp import H265, OPUS, PCMA, PCMU, OfferedCodec
from support.units import annexb_units

pytestmark = pytest.mark.usefixtures("players")

SECONDS = 7
"""Sender reports, which put sound and pictures on one timeline, come every 3 s at first."""


def record(call: Call, *cast: Person, options: tuple[str, ...] = ()) -> Recorded:
    """Record people for a while, and check all that must hold of any recording."""
    with (
        call.people(cast) as people,
        call.recorded(people, *(person.identity for person in cast), options=options) as recorder,
    ):
        people.play(SECONDS)
        recorder.interrupt()
        ended = recorder.ended()
    assert ended.code == 0, ended.stderr
    recorded = check_recording(call.output, people.cast, Ledger.load(people.ledger))
    assert {who.identity: complaints(recorded.one(who.identity).media.path) for who in cast} == {
        who.identity: [] for who in cast
    }
    return recorded


def codecs_of(recorded: Recorded, who: str) -> set[str]:
    return {track.codec for track in recorded.one(who).file.tracks}


@pytest.mark.realtime
def test_given_access_units_come_out_unchanged(call: Call) -> None:
    """The pictures are encoded by the test; each of them lies in the file byte for byte."""
    alice = Person(identity="alice", camera=Picture(codec="vp9", pre_encoded=True))
    bob = Person(identity="bob", camera=Picture(codec="av1", pre_encoded=True))
    recorded = record(call, alice, bob, options=("--container", "webm"))
    assert codecs_of(recorded, "alice") == {"opus", "vp9"}
    assert codecs_of(recorded, "bob") == {"opus", "av1"}
    assert {checked.media.path.suffix for checked in recorded.files} == {".webm"}


@pytest.mark.realtime
def test_layers_of_vp9_are_one_picture(call: Call) -> None:
    """Key pictures have three layers in this mode, which libwebrtc uses for VP9; decoders show one of them."""
    camera = Picture(codec="vp9", width=960, height=540, fps=8, bitrate=1_000_000, scalability="L3T3_KEY")
    checked = record(call, Person(identity="alice", camera=camera)).one("alice")
    assert checked.media.film
    assert checked.media.film.sizes == {(960, 540)}
    content = checked.media.path.read_bytes()
    found = read_file(content)
    video = next(track.number for track in found.tracks if track.codec_id == "V_VP9")
    first = next(block for block in blocks(content, found) if block.track == video)
    assert (first.key, len(frames_of(first.data))) == (True, 3)


@pytest.mark.realtime
def test_layers_of_av1_are_one_picture(call: Call) -> None:
    camera = Picture(codec="av1", width=480, height=272, fps=8, bitrate=500_000, scalability="L2T1")
    checked = record(call, Person(identity="alice", camera=camera)).one("alice")
    assert checked.media.film
    assert checked.media.film.sizes == {(480, 272)}


def h265_payloads(frame: bytes) -> list[bytes]:
    """Parameter sets in one packet, as the SFU recognises a key frame by them; large units in fragments."""
    units = annexb_units(frame)
    sets = [unit for unit in units if unit[0] >> 1 in (32, 33, 34)]
    payloads = [h265_aggregate(*sets)] if sets else []
    for unit in units:
        if unit not in sets:
            payloads += h265_fragments(unit, 1000) if len(unit) > 1000 else [unit]
    return payloads


def h264_units(frame: bytes) -> list[bytes]:
    """Single NAL unit mode; the encoder's own SEI is longer than a packet and left out."""
    return [unit for unit in annexb_units(frame) if unit[0] & 0x1F != 6]


H264_MODE_0 = OfferedCodec(
    125, "H264", fmtp="level-asymmetry-allowed=1;packetization-mode=0;profile-level-id=42e01f", rtx=0
)


@pytest.mark.realtime
@pytest.mark.parametrize(
    ("sound", "picture"), [("pcmu", "h265"), ("pcma", "h264")], ids=["pcmu-h265", "pcma-h264-mode-0"]
)
def test_what_libwebrtc_cannot_send_is_recorded_as_sent(call: Call, sound: str, picture: str) -> None:
    frames = video_frames(30, picture, 320, 240, 15, noise=picture == "h265")
    packets = pcm_packets(50, sound)
    offered, payloads = (H265, h265_payloads) if picture == "h265" else (H264_MODE_0, h264_units)
    tracks = [
        RawTrack(MediaKind.AUDIO, PCMU if sound == "pcmu" else PCMA, [[packet] for packet in packets], 50),
        RawTrack(MediaKind.VIDEO, offered, [payloads(frame) for frame, _ in frames], 15),
    ]
    with raw_publisher(call.server, call.room, "alice", tracks), call.record() as recorder:
        recorder.recording("alice", "microphone", "camera")
        recorder.wait("report", nth=4)
        recorder.interrupt()
        assert recorder.ended().code == 0, recorder.stderr
    manifest = Manifest.model_validate_json((call.output / "recording.json").read_text())
    (file,) = manifest.files
    assert sorted(track.codec for track in file.tracks) == sorted((sound, picture))
    assert file.reason is None
    path = call.output / file.name
    assert complaints(path) == []
    heard, seen = tracks_of(path)
    while set(heard[-1]) == {SILENCE[sound]}:  # sound lasts until the last picture
        heard.pop()
    assert_cycle(heard, list(packets))
    assert len(heard) > 100
    if picture == "h265":
        assert_cycle([prefixed_units(frame) for frame in seen], [annexb_units(frame) for frame, _ in frames])
    else:
        assert_cycle([prefixed_units(frame) for frame in seen], [h264_units(frame) for frame, _ in frames])
    with av.open(str(path)) as media:
        pictures = sum(1 for _ in media.decode(video=0))
    assert pictures == len(seen) > 30


@pytest.mark.realtime
@pytest.mark.parametrize("sound", ["pcmu", "pcma"])
def test_silence_that_the_sfu_makes_up_behind_a_mute_is_no_sound(call: Call, sound: str) -> None:
    """A second of it, in packets that somebody could have sent."""
    codec = PCMU if sound == "pcmu" else PCMA
    track = RawTrack(MediaKind.AUDIO, codec, [[packet] for packet in pcm_packets(50, sound)], 50)
    with raw_publisher(call.server, call.room, "alice", [track]), call.record() as recorder:
        recorder.recording("alice", "microphone")
        recorder.wait("report", nth=2)
        call.mute("alice", models.TrackSource.MICROPHONE)
        recorder.wait("muted")
        recorder.wait("counters", nth=3)
        recorder.interrupt()
        assert recorder.ended().code == 0, recorder.stderr
    (file,) = Manifest.model_validate_json((call.output / "recording.json").read_text()).files
    content = (call.output / file.name).read_bytes()
    (gap,) = file.tracks[0].gaps
    assert gap.reason is GapReason.MUTED
    assert gap.duration_ms > 2_000
    voiced = sum(set(block.data) != {SILENCE[sound]} for block in blocks(content, read_file(content)))
    assert file.tracks[0].frames - voiced <= 5, "the word of a mute and the first packets behind it overtake each other"


STEREO = replace(OPUS, fmtp=f"{OPUS.fmtp};stereo=1;sprop-stereo=1")


@pytest.mark.realtime
def test_stereo_with_pauses_is_recorded_as_sent(call: Call) -> None:
    """A sender that suppresses silence: three seconds of a tone on the left and another on the right, then one second of nothing."""
    at = np.arange(3 * 48_000)
    sides = np.stack([8000 * np.sin(2 * np.pi * hertz * at / 48_000) for hertz in (440, 700)]).astype(np.int16)
    packets = encode_opus(sides, 128_000)
    sound = RawTrack(MediaKind.AUDIO, STEREO, [*([packet] for packet in packets), *[[]] * 50], 50)
    with raw_publisher(call.server, call.room, "alice", [sound]), call.record() as recorder:
        recorder.recording("alice", "microphone")
        recorder.wait("report", nth=4)
        recorder.interrupt()
        assert recorder.ended().code == 0, recorder.stderr
    (file,) = Manifest.model_validate_json((call.output / "recording.json").read_text()).files
    path = call.output / file.name
    assert complaints(path) == []
    content = path.read_bytes()
    heard = [block.data for block in blocks(content, read_file(content))]
    assert all(is_stereo(packet) for packet in heard), "silence between, too"
    assert_cycle([packet for packet in heard if len(packet) > 3], packets)
    left, right = loudness(path, 440.0), loudness(path, 700.0)
    assert min(left[0], right[1]) > 0.1
    assert max(left[1], right[0]) < 0.01, "each tone stays on its side"
    media = examine(path)
    assert media.sound
    assert media.sound.jumps == ()
    assert abs(media.sound.seconds - file.duration_ms / 1000) <= 0.02
    gaps = file.tracks[0].gaps
    assert len(gaps) >= 2
    assert {gap.reason for gap in gaps} == {GapReason.SILENT}
    assert [gap.duration_ms for gap in gaps[1:]] == pytest.approx([1000] * (len(gaps) - 1), abs=20)


def tracks_of(path: Path) -> tuple[list[bytes], list[bytes]]:
    """Blocks of sound and of pictures."""
    content = path.read_bytes()
    found = read_file(content)
    everything = list(blocks(content, found))
    heard, seen = (
        [block.data for block in everything if block.track == track.number]
        for kind in (2, 1)
        for track in found.tracks
        if track.type == kind
    )
    return heard, seen


def prefixed_units(frame: bytes) -> list[bytes]:
    units = []
    stream = io.BytesIO(frame)
    while head := stream.read(4):
        units.append(stream.read(*struct.unpack("!I", head)))
    return units


def assert_cycle(found: Sequence[object], sent: Sequence[object]) -> None:
    """`found` is what was sent over and over, from some place on, with nothing missing."""
    begin = sent.index(found[0])
    expected = itertools.islice(itertools.cycle(sent), begin, begin + len(found))
    for number, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        assert ours == theirs, f"frame {number} differs from frame {(begin + number) % len(sent)} that was sent"


def profile_2_frames(folder: Path) -> list[tuple[bytes, bool]]:
    """VP9 with 10 bits, which libav in the wheel of PyAV cannot make."""
    path = folder / "profile2.ivf"
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc=s=160x120:r=30:d=10", "-pix_fmt", "yuv420p10le"]
    command += ["-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-lag-in-frames", "0", str(path)]
    subprocess.run(command, check=True, timeout=120, stdin=subprocess.DEVNULL)
    with av.open(str(path)) as media:
        return [(bytes(packet), packet.is_keyframe) for packet in media.demux(video=0) if packet.size]


@pytest.mark.parametrize(
    ("sound", "picture", "pixels", "container"),
    [
        ("opus", "vp8", "yuv420p", "webm"),
        ("opus", "vp9", "yuv420p", "webm"),
        ("opus", "vp9", "yuv420p10le", "webm"),
        ("pcmu", "vp9", "yuv444p", "mkv"),
        ("opus", "av1", "yuv420p", "webm"),
        ("pcma", "av1", "yuv420p10le", "mkv"),
        ("opus", "h264", "yuv422p10le", "mkv"),
        ("opus", "h265", "yuv420p", "mkv"),
        ("g722", "h265", "yuv444p12le", "mkv"),
    ],
)
def test_players_accept_every_codec_and_pixel_format(
    tmp_path: Path, sound: str, picture: str, pixels: str, container: str
) -> None:
    """From the spool on, with lost packets: nobody warns, everything decodes, sound lasts as long as the file says."""
    call = spools.Call(tmp_path / "spool")
    call.person("PA_a", "alice", left=12)
    call.track("t0001", "PA_a", "alice", "microphone", sound, 0.1, ended=11)
    call.track("t0002", "PA_a", "alice", "camera", picture, 0.1, ended=11)
    call.event("size", 0.2, track="t0002", timestamp=0, width=160, height=120, rotation=0)
    packets = opus_packets(500) if sound == "opus" else pcm_packets(500, sound)
    heard = spools.steady(((packet, True) for packet in packets), 0.5, 0.02)
    call.frames("t0001", spools.Sender(), spools.SOUND_RATES[sound], heard, reports=(1, 6), lost=range(100, 160))
    if (picture, pixels) == ("vp9", "yuv420p10le"):
        frames = profile_2_frames(tmp_path)
    else:
        frames = [
            (data.removeprefix(b"\x12\0") if picture == "av1" else data, key)
            for data, key in video_frames(300, picture, pixels=pixels)
        ]
    call.frames("t0002", spools.Sender(), 90_000, spools.steady(frames, 0.5, 1 / 30), reports=(1, 6))
    call.write(stop=12.0)
    (file,) = finish_local(call.spool, spools.an_intent(container=Container.WEBM), tmp_path / "out").files
    assert_fallback_is_explained(file, container)
    path = tmp_path / "out" / file.name
    assert complaints(path) == []
    assert set(complaints_of_vlc(path)) == (VLC_KNOWS_NO_G722 if sound == "g722" else set())
    with av.open(str(path)) as media:
        assert {frame.format.name for frame in media.decode(video=0)} == {pixels}
    with av.open(str(path)) as media:
        seconds = sum(frame.samples / frame.sample_rate for frame in media.decode(audio=0))
    assert abs(seconds - file.duration_ms / 1000) <= 0.02
    assert len(tracks_of(path)[1]) == 300


def test_each_player_says_what_is_wrong_with_a_file(tmp_path: Path) -> None:
    """Or its silence would prove nothing."""
    call = spools.Call(tmp_path / "spool")
    call.person("PA_a", "alice", left=5)
    call.track("t0001", "PA_a", "alice", "microphone", "opus", 0.1, ended=4)
    call.frames("t0001", spools.Sender(), 48_000, spools.tone(opus_packets(150), 0.5), reports=(1,))
    call.write(stop=5.0)
    (file,) = finish_local(call.spool, spools.an_intent(), tmp_path / "out").files
    path = tmp_path / "out" / file.name
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 400] = b"\xff" * 400
    path.write_bytes(content)
    said = complaints(path) + complaints_of_vlc(path)
    for player in ("mpv", "VLC", "[matroska"):
        assert any(line.startswith(player) for line in said), said


def assert_fallback_is_explained(file: ManifestFile, container: str) -> None:
    assert file.name.endswith(f".{container}")
    assert bool(file.reason) == (container == "mkv"), file.reason
