"""Continuous sound of codecs whose packets are plain samples."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotrack_recorder.codecs.pcm import SILENCE
from isotrack_recorder.finalise.audio import Continuity, Hole, Packet
from isotrack_recorder.finalise.sound_forms import ByteForm, OpusForm, sound_form
from isotrack_recorder.media import CodecInfo


@pytest.mark.parametrize(
    ("codec", "rate", "sample_rate", "channels"),
    [
        (CodecInfo("opus", 48_000, 2), 48_000, 48_000, 1),
        (CodecInfo("pcmu", 8000), 8000, 8000, 1),
        (CodecInfo("pcma", 8000, 2), 8000, 8000, 2),
        (CodecInfo("g722", 8000), 8000, 16_000, 1),
        (CodecInfo("g722", 8000, 9), 8000, 16_000, 2),
    ],
    ids=lambda value: value.name if isinstance(value, CodecInfo) else None,
)
def test_clock_and_samples_of_each_codec(codec: CodecInfo, rate: int, sample_rate: int, channels: int) -> None:
    """Opus tells its channels packet by packet; the session description only says what may come."""
    form = sound_form(codec)
    assert (form.rate, form.sample_rate, form.channels) == (rate, sample_rate, channels)


def test_opus_is_stereo_from_its_first_stereo_packet_on() -> None:
    form = OpusForm()
    mono, stereo = b"\xf8\xff\xfe", b"\xfc\xff\xfe"
    assert form.length(mono) == 960
    form.note((mono,))
    assert form.channels == 1
    form.note((mono, stereo, mono))
    assert form.channels == 2
    assert form.private()[9] == 2
    assert next(form.silence(960))[1][0] & 4 == 0, "silence is like the packet before it"
    form.note((stereo,))
    assert next(form.silence(960))[1][0] & 4
    form.note((mono,))
    assert form.channels == 2
    assert next(form.silence(960))[1][0] & 4 == 0, "silence is like the packet before it"


@given(st.integers(0, 50_000), st.sampled_from(sorted(SILENCE)), st.integers(1, 2))
def test_silence_covers_every_tick(ticks: int, codec: str, channels: int) -> None:
    packets = list(ByteForm(codec, channels).silence(ticks))
    assert sum(length for length, _ in packets) == ticks
    assert all(len(data) == length * channels and set(data) == {SILENCE[codec]} for length, data in packets)


def test_a_lost_packet_of_g711_becomes_its_length_of_silence() -> None:
    continuity = Continuity(ByteForm("pcmu", 1))
    list(continuity.add("a", 1000, 0, b"a" * 160)[1])
    hole, packets = continuity.add("a", 1320, 320, b"b" * 160)
    assert hole == Hole(160, 160)
    assert list(packets) == [
        Packet(160, 160, b"\xff" * 160, filler=True),
        Packet(320, 160, b"b" * 160, filler=False),
    ]


@given(
    st.lists(st.tuples(st.sampled_from([0, 0, 0, 1, 2, 30]), st.integers(-110, 110)), min_size=1, max_size=60),
    st.sampled_from(sorted(SILENCE)),
)
def test_sound_has_no_hole_and_stays_near_the_timeline(steps: list[tuple[int, int]], codec: str) -> None:
    """Lost packets and wobbling places: positions adjoin, and each packet lies within 45 ms of its place."""
    continuity = Continuity(ByteForm(codec, 1))
    written: list[Packet] = []
    ticks = 0
    for lost, wobble in steps:
        ticks += lost * 160
        target = max(0, ticks + wobble)
        _, packets = continuity.add("a", ticks, target, b"x" * 160)
        new = list(packets)
        assert abs(new[-1].position - target) <= 8 * 45
        written += new
        ticks += 160
    assert written[0].position == 0
    for before, after in itertools.pairwise(written):
        assert 0 <= before.position + before.ticks - after.position <= 80
