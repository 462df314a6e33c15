"""Opus packets: duration from the table of contents, mute silence of the SFU."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotrack_recorder.codecs.opus import MUTE_SILENCE, OpusDepacketizer, is_stereo, packet_samples
from isotrack_recorder.errors import ParseError


@pytest.mark.parametrize(
    ("packet", "samples"),
    [
        pytest.param(b"\x00", 480, id="SILK 10 ms"),
        pytest.param(b"\x18", 2880, id="SILK 60 ms"),
        pytest.param(b"\x60", 480, id="hybrid 10 ms"),
        pytest.param(b"\x78", 960, id="hybrid 20 ms"),
        pytest.param(b"\x80", 120, id="CELT 2.5 ms"),
        pytest.param(b"\xf8", 960, id="CELT 20 ms"),
        pytest.param(b"\xf9", 1920, id="two frames of equal size"),
        pytest.param(b"\xfa\x01", 1920, id="two frames"),
        pytest.param(b"\xfb\x03", 2880, id="three frames"),
        pytest.param(b"\x83\x30", 48 * 120, id="48 frames of 2.5 ms"),
    ],
)
def test_duration_is_read_from_the_table_of_contents(packet: bytes, samples: int) -> None:
    assert packet_samples(packet) == samples


@pytest.mark.parametrize("packet", [b"", b"\xfb", b"\xfb\x00", b"\xfb\x07", b"\x1b\x3f"])
def test_impossible_packets_are_refused(packet: bytes) -> None:
    with pytest.raises(ParseError):
        packet_samples(packet)


@given(st.binary(max_size=10))
def test_junk_raises_parse_error_only(packet: bytes) -> None:
    try:
        assert 0 < packet_samples(packet) <= 5760
    except ParseError:
        return


def test_stereo_is_one_bit() -> None:
    assert is_stereo(b"\xfc")
    assert not is_stereo(b"\xf8")
    assert not is_stereo(b"")


@pytest.mark.parametrize(
    ("packet", "filler"),
    [
        pytest.param(MUTE_SILENCE, True, id="mute silence"),
        pytest.param(b"\xf8\xff\xfe", False, id="digital silence of an encoder"),
        pytest.param(MUTE_SILENCE[:-1], False, id="one byte shorter"),
        pytest.param(MUTE_SILENCE[:-1] + b"\x01", False, id="last byte differs"),
    ],
)
def test_mute_silence_is_told_from_sound(packet: bytes, filler: bool) -> None:
    assert len(MUTE_SILENCE) == 80
    frame = OpusDepacketizer().frame([bytearray(packet)])
    assert (frame.data, frame.key, frame.filler) == (packet, True, filler)
