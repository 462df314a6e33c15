"""Continuous sound: silence decodes to silence, positions add up."""

from __future__ import annotations

import itertools
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotrack_recorder.codecs.opus import samples_of
from isotrack_recorder.finalise.audio import Continuity, Packet
from isotrack_recorder.finalise.sound_forms import OpusForm, opus_silence
from support.media import opus_packets


def decode(packets: list[bytes], channels: int) -> np.ndarray:
    decoder = av.CodecContext.create("opus", "r")
    decoder.extradata = b"OpusHead" + bytes((1, channels, 0, 0, 0x80, 0xBB, 0, 0, 0, 0, 0))
    frames = []
    for packet in packets:
        one = av.Packet(packet)
        one.time_base = Fraction(1, 48_000)
        frames += decoder.decode(one)
    frames += decoder.decode(None)
    return np.concatenate([frame.to_ndarray().reshape(-1, order="F") for frame in frames])


@pytest.mark.parametrize("stereo", [False, True])
@pytest.mark.parametrize("samples", [120, 240, 480, 960, 4800, 1080])
def test_silence_decodes_to_as_many_samples_of_digital_silence(samples: int, stereo: bool) -> None:
    packets = list(opus_silence(samples, stereo=stereo))
    assert sum(length for length, _ in packets) == samples
    heard = decode([packet for _, packet in packets], 1 + stereo)
    assert len(heard) == samples * (1 + stereo)
    assert not heard.any()


@given(st.integers(0, 200_000))
def test_silence_covers_all_but_less_than_a_grain(samples: int) -> None:
    assert 0 <= samples - sum(length for length, _ in opus_silence(samples, stereo=False)) < 120


@pytest.mark.parametrize(
    ("packet", "samples"),
    [
        pytest.param(b"", 0, id="empty"),
        pytest.param(b"\xf8\xff\xfe", 960, id="celt-20-ms"),
        pytest.param(b"\x08", 960, id="silk-20-ms"),
        pytest.param(b"\x18", 2880, id="silk-60-ms"),
        pytest.param(b"\x78", 960, id="hybrid-20-ms"),
        pytest.param(b"\xf9", 1920, id="two-frames"),
        pytest.param(b"\xfb\x03", 2880, id="three-frames"),
        pytest.param(b"\xfb", 0, id="count-byte-missing"),
        pytest.param(b"\xfb\x00", 0, id="no-frames"),
        pytest.param(b"\xfb\x3f", 0, id="longer-than-120-ms"),
    ],
)
def test_length_of_a_packet(packet: bytes, samples: int) -> None:
    """RFC 6716 section 3.1 and 3.2.5."""
    assert samples_of((packet,)) == [samples]


def test_an_independent_encoder_agrees_on_lengths() -> None:
    assert samples_of(opus_packets(50)) == [960] * 50


@given(
    st.lists(st.tuples(st.sampled_from([0, 0, 0, 1, 2, 30]), st.integers(-700, 700)), min_size=1, max_size=60),
    st.integers(0, 2**40),
)
def test_sound_has_no_hole_and_stays_near_the_timeline(steps: list[tuple[int, int]], base: int) -> None:
    """Lost packets and wobbling places: positions adjoin, and each packet lies within 45 ms of its place."""
    continuity = Continuity(OpusForm())
    packet = opus_packets(1)[0]
    written: list[Packet] = []
    ticks = 0
    for lost, wobble in steps:
        ticks += lost * 960
        _, packets = continuity.add("a", base + ticks, max(0, ticks + wobble), packet)
        new = list(packets)
        assert abs(new[-1].position - max(0, ticks + wobble)) <= 48 * 45
        written += new
        ticks += 960
    assert written[0].position == 0
    for before, after in itertools.pairwise(written):
        assert 0 <= before.position + before.ticks - after.position <= 480
    assert [one.data for one in written if not one.filler] == [packet] * len(steps)
    assert continuity.at.silent == sum(one.ticks for one in written if one.filler)


def test_a_fast_clock_shortens_steps_and_drops_nothing() -> None:
    """Ten seconds of packets in nine: time stamps follow, all packets stay."""
    continuity = Continuity(OpusForm())
    packet = opus_packets(1)[0]
    last = 0
    for number in range(500):
        target = number * 960 * 9 // 10
        (one,) = list(continuity.add("a", number * 960, target, packet)[1])
        assert one.position > last or number == 0
        assert abs(one.position - target) <= 48 * 50
        last = one.position


def lags(continuity: Continuity, stretch: Fraction, count: int, first: int = 0, base: str = "a") -> list[Fraction]:
    """Milliseconds by which packets lie before their places, which are `stretch` times as far apart as they last."""
    packet, found = opus_packets(1)[0], []
    for number in range(first, first + count):
        place = number * 960 * stretch
        _, packets = continuity.add(base, number * 960, round(place), packet)
        found.append((place - packets[-1].position) / 48)
    return found


@pytest.mark.parametrize("ppm", [200, -200])
def test_sound_of_a_clock_that_drifts_stays_within_15_ms_of_its_place(ppm: int) -> None:
    """Twenty minutes: p95 of what it may be apart from pictures, 20 ms, is kept by all of it."""
    continuity = Continuity(OpusForm())
    found = lags(continuity, 1 + Fraction(ppm, 10**6), 50 * 1200)
    assert max(map(abs, found)) < Fraction(151, 10)
    assert abs(sum(found) / len(found)) < 2, "as often early as late"
    corrected = continuity.at.silent if ppm > 0 else continuity.at.squeezed
    assert corrected / 48 == pytest.approx(240, abs=30), "not more than the drift"


@pytest.mark.parametrize("apart_ms", [-29, 29])
def test_packets_of_the_next_pod_follow_without_a_step_until_their_places_are_met(apart_ms: int) -> None:
    continuity = Continuity(OpusForm())
    lags(continuity, Fraction(1), 100)
    continuity.follow("a", "b", 0)
    packet, at = opus_packets(1)[0], continuity.at.position
    for number in range(200):
        wobble = apart_ms if number < 100 else apart_ms // 2 if number < 150 else apart_ms
        _, packets = continuity.add("b", (100 + number) * 960, at + number * 960 + wobble * 48, packet)
        if number < 150:
            assert [one.position for one in packets] == [at + number * 960]
    assert continuity.at.silent + continuity.at.squeezed > 0, "what comes apart later is corrected as usual"
