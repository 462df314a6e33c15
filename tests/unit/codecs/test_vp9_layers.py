"""Pictures of several spatial layers show the largest alone, whoever decodes them."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotrack_recorder.codecs.vp9 import frames_of, superframe
from isotrack_recorder.codecs.vp9_header import SizeTracker
from isotrack_recorder.codecs.vp9_layers import LayerFilter
from support.media import video_frames

CAPTURE = Path(__file__).parent / "captures" / "vp9-three-layers.ivf"
"""What libwebrtc (libvpx) sent in mode L3T3, 960x540: every picture has three layers."""


def captured() -> list[bytes]:
    data, chunks, at = CAPTURE.read_bytes(), [], 32
    while at < len(data):
        (size,) = struct.unpack_from("<I", data, at)
        chunks.append(data[at + 12 : at + 12 + size])
        at += 12 + size
    return chunks


def decode(decoder: str, chunks: list[bytes]) -> list[tuple[int, int, str]]:
    context = av.CodecContext.create(decoder, "r")
    assert isinstance(context, av.VideoCodecContext)
    context.thread_count = 1
    shown = [frame for chunk in [*chunks, None] for frame in context.decode(chunk and av.Packet(chunk))]
    return [(frame.width, frame.height, hashlib.sha256(frame.to_ndarray().tobytes()).hexdigest()) for frame in shown]


def test_every_decoder_shows_what_libvpx_shows_of_the_original() -> None:
    original = captured()
    truth = decode("libvpx-vp9", original)
    assert {size[:2] for size in truth} == {(960, 540)}
    assert len(decode("vp9", original)) == 3 * len(original), "this is what players would show"
    filtered = list(map(LayerFilter(), original))
    assert decode("libvpx-vp9", filtered) == truth
    assert decode("vp9", filtered) == truth


def test_only_the_headers_of_lower_layers_change() -> None:
    sizes = SizeTracker()
    for before, after in zip(captured(), map(LayerFilter(), captured()), strict=True):
        layers = list(zip(frames_of(before), frames_of(after), strict=True))
        assert layers[-1][0] == layers[-1][1]
        assert [sizes.read(layer).shown for _, layer in layers] == [False, False, True]
        for old, new in layers[:-1]:
            assert new[32:].endswith(old[64:])
            assert 0 <= len(new) - len(old) <= 1


def test_what_is_filtered_stays_as_it_is_when_filtered_again() -> None:
    once = list(map(LayerFilter(), captured()))
    assert list(map(LayerFilter(), once)) == once


def test_single_frames_pass_untouched() -> None:
    frames = [data for data, _ in video_frames(20, "vp9")]
    assert list(map(LayerFilter(), frames)) == frames


def test_a_layer_as_large_as_the_next_stays_shown() -> None:
    """Between frames of one size motion vectors are taken over, and only from a frame that was shown."""
    key, delta = (data for data, _ in video_frames(2, "vp9"))
    chunk = superframe([key, delta])
    assert LayerFilter()(chunk) == chunk


@pytest.mark.parametrize("cut", [1, 5, 9, 20, 60])
def test_layers_that_end_in_their_header_pass_untouched(cut: int) -> None:
    chunk = superframe([layer[:cut] for layer in frames_of(captured()[0])])
    filtered = LayerFilter()(chunk)
    assert len(frames_of(filtered)) == 3


@given(st.lists(st.binary(max_size=80), max_size=5))
def test_junk_does_no_harm(chunks: list[bytes]) -> None:
    layers = LayerFilter()
    for chunk in chunks:
        layers(chunk)
        if chunk:
            layers(superframe([chunk, chunk]))


@given(st.integers(0, 5), st.integers(0, 400), st.binary(min_size=1, max_size=4))
def test_damaged_pictures_do_no_harm(picture: int, at: int, damage: bytes) -> None:
    layers = LayerFilter()
    chunk = bytearray(captured()[picture])
    chunk[at : at + len(damage)] = damage
    layers(captured()[0])
    assert len(layers(bytes(chunk))) >= len(chunk) - 8
