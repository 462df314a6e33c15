"""VP8 payload descriptors and frame headers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotrack_recorder.codecs.vp8 import Vp8Depacketizer, descriptor_length
from isotrack_recorder.errors import ParseError
from support.rtp import vp8_frame, vp8_packets


@pytest.mark.parametrize(
    ("payload", "length"),
    [
        pytest.param("10aa", 1, id="no extension"),
        pytest.param("9080 05aa", 3, id="short picture id"),
        pytest.param("9080 8005aa", 4, id="long picture id"),
        pytest.param("9040 05aa", 3, id="TL0PICIDX"),
        pytest.param("9020 05aa", 3, id="TID"),
        pytest.param("9010 05aa", 3, id="KEYIDX"),
        pytest.param("90f0 8005 07 09aa", 6, id="all"),
        pytest.param("9000 aa", 2, id="empty extension"),
    ],
)
def test_descriptor_length(payload: str, length: int) -> None:
    assert descriptor_length(bytes.fromhex(payload)) == length


@pytest.mark.parametrize("payload", ["", "10", "90", "9080", "908080", "90f08005 07 09"])
def test_payloads_that_end_in_their_descriptor_are_refused(payload: str) -> None:
    with pytest.raises(ParseError):
        descriptor_length(bytes.fromhex(payload))


@given(size=st.integers(10, 5000), mtu=st.integers(5, 1200), key=st.booleans(), picture=st.integers(0, 0x7FFF))
def test_packetized_frames_come_back(size: int, mtu: int, key: bool, picture: int) -> None:
    sent = vp8_frame(7, key=key, size=size, width=1282, height=722)
    frame = Vp8Depacketizer().frame(vp8_packets(sent, picture_id=picture, size=mtu))
    assert frame.data == sent
    assert frame.key is key
    assert (frame.width, frame.height) == ((1282, 722) if key else (0, 0))


@given(
    chosen=st.lists(st.sampled_from(["00", "80 00", "8080 07", "8080 8007", "80f0 8007 01 02"]), min_size=1, max_size=5)
)
def test_each_payload_of_a_frame_may_have_a_descriptor_of_its_own(chosen: list[str]) -> None:
    """As a rule they differ in nothing but the bit of the first."""
    sent = vp8_frame(7, key=False, size=10 * len(chosen))
    payloads = [bytes.fromhex(text) + sent[10 * at : 10 * at + 10] for at, text in enumerate(chosen)]
    payloads[0] = bytes((payloads[0][0] | 0x10,)) + payloads[0][1:]
    assert Vp8Depacketizer().frame(payloads).data == sent


def test_scaling_bits_are_no_part_of_the_size() -> None:
    sent = vp8_frame(0, key=True, width=640 | 0x4000, height=360 | 0xC000)
    frame = Vp8Depacketizer().frame(vp8_packets(sent, picture_id=0))
    assert (frame.width, frame.height) == (640, 360)


def test_the_closing_picture_of_the_sfu_is_filler() -> None:
    sent = vp8_frame(0, key=True, width=8, height=8)
    assert Vp8Depacketizer().frame(vp8_packets(sent, picture_id=0)).filler


@pytest.mark.parametrize("sent", [1, 2, 3])
def test_a_picture_in_the_midst_of_which_the_sfu_closed_the_track_is_none(sent: int) -> None:
    """It ends it under the same timestamp with a picture of its own (captured from livekit-server 1.13.5)."""
    closing = bytes.fromhex("10 1002009d012a080008000047088585888584880202000c0d6000feffab5080")
    payloads = vp8_packets(vp8_frame(7, key=False, size=4000), picture_id=7)
    assert len(payloads) > 3
    with pytest.raises(ParseError, match="was cut off"):
        Vp8Depacketizer().frame([*payloads[:sent], closing])
    assert Vp8Depacketizer().frame([closing]).filler


@pytest.mark.parametrize(
    ("payloads", "message"),
    [
        pytest.param([b"\x00\x11\x00"], "start of partition", id="begins inside a frame"),
        pytest.param([b"\x11\x11\x00"], "start of partition", id="begins with partition 1"),
        pytest.param([b"\x10\x10\x00\x00\x9d\x01\x2b" + bytes(8)], "start code", id="start code"),
        pytest.param([b"\x10\x10\x00\x00\x9d\x01"], "start code", id="cut"),
        pytest.param([b"\x10\x10\x00\x00\x9d\x01\x2a" + bytes(4)], "0x0", id="no size"),
    ],
)
def test_broken_frames_are_refused(payloads: list[bytes], message: str) -> None:
    with pytest.raises(ParseError, match=message):
        Vp8Depacketizer().frame(payloads)


@given(st.lists(st.binary(max_size=30), min_size=1, max_size=5))
def test_junk_raises_parse_error_only(payloads: list[bytes]) -> None:
    depacketizer = Vp8Depacketizer()
    for payload in payloads:
        depacketizer.starts_frame(payload)
    try:
        depacketizer.frame(payloads)
    except ParseError:
        return
