"""Decoder configurations of pictures: the same as libav's muxer writes for the same frames."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotrack_recorder.errors import ParseError
from isotrack_recorder.matroska.codec_private_av1 import av1_configuration
from isotrack_recorder.matroska.codec_private_h265 import hevc_configuration
from isotrack_recorder.matroska.codec_private_video import VIDEO_FORMS
from isotrack_recorder.matroska.codec_private_vp9 import vp9_features
from isotrack_recorder.matroska.muxer import CODEC_IDS
from isotrack_recorder.matroska.reader import read_file
from support.media import video_frames


def private_of_libav(codec: str, frames: tuple[tuple[bytes, bool], ...]) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as output:
        stream = output.add_mux_stream({"h265": "hevc"}.get(codec, codec), width=160, height=120)
        for number, (data, key) in enumerate(frames):
            packet = av.Packet(data)
            packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, 30), key
            packet.pts = packet.dts = number
            output.mux(packet)
    return read_file(file.getvalue()).tracks[0].private


@pytest.mark.parametrize(
    ("codec", "pixels"),
    [
        ("h264", "yuv420p"),
        ("h264", "yuv420p10le"),
        ("h264", "yuv422p10le"),
        ("h264", "yuv444p"),
        ("h265", "yuv420p"),
        ("h265", "yuv420p10le"),
        ("h265", "yuv422p10le"),
        ("h265", "yuv444p12le"),
        ("h265", "gray"),
        ("av1", "yuv420p"),
        ("av1", "yuv420p10le"),
    ],
)
def test_an_independent_muxer_writes_the_same(codec: str, pixels: str) -> None:
    frames = video_frames(3, codec, pixels=pixels)
    assert VIDEO_FORMS[codec].configuration(frames[0][0]) == private_of_libav(codec, frames)


@pytest.mark.parametrize(
    ("pixels", "features"),
    [
        pytest.param("yuv420p", "010100 030108 040101", id="profile-0"),
        pytest.param("yuv422p", "010101 030108 040102", id="profile-1-422"),
        pytest.param("yuv444p", "010101 030108 040103", id="profile-1-444"),
        pytest.param("yuv440p", "010101 030108", id="subsampling-without-a-number"),
    ],
)
def test_vp9_features(pixels: str, features: str) -> None:
    """libav writes none."""
    assert vp9_features(video_frames(1, "vp9", pixels=pixels)[0][0]) == bytes.fromhex(features)


def test_vp9_with_10_bits() -> None:
    """Head of a frame of profile 2, made by libvpx."""
    frame = bytes.fromhex("92498342000a0805ab031c120e0c")
    assert vp9_features(frame) == bytes.fromhex("010102 03010a 040101")


def test_vp8_needs_nothing() -> None:
    frame = video_frames(1, "vp8")[0][0]
    assert VIDEO_FORMS["vp8"].configuration(frame) == b""
    assert VIDEO_FORMS["vp8"].writer([])(frame) == frame


def test_every_video_codec_that_files_hold_has_a_form() -> None:
    assert set(VIDEO_FORMS) == {codec for codec, codec_id in CODEC_IDS.items() if codec_id.startswith("V_")}


VPS = b"\x40\x01\x0c\x01"


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\0\0\1" + VPS, id="no-sps"),
        pytest.param(b"\0\0\1" + VPS + b"\0\0\1\x42\x01\x01\0\0\1\x44\x01\xc0", id="sps-too-short"),
        pytest.param(b"\0\0\1" + VPS + b"\0\0\1\x42\x01" + b"\x11" * 5000 + b"\0\0\1\x44\x01\xc0", id="sps-too-long"),
    ],
)
def test_h265_parameter_sets_that_cannot_be_are_refused(frame: bytes) -> None:
    with pytest.raises(ParseError):
        hevc_configuration(frame)


@pytest.mark.parametrize("unit", [b"", b"\x32\x01\x10", b"\x0a\x7f\x00", b"\x0a\x02\xff\xff", b"\x08\x00"])
def test_av1_units_without_a_sequence_header_are_refused(unit: bytes) -> None:
    with pytest.raises(ParseError):
        av1_configuration(unit)


@pytest.mark.parametrize("codec", sorted(VIDEO_FORMS))
@given(junk=st.binary(max_size=200))
def test_junk_raises_parse_errors_only(codec: str, junk: bytes) -> None:
    form = VIDEO_FORMS[codec]
    form.writer([])(junk)
    try:
        form.configuration(junk)
    except ParseError:
        return
