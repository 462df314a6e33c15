"""H.264: fragments, aggregates, parameter sets, picture size."""

from __future__ import annotations

import base64
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotrack_recorder.codecs.h264 import H264Depacketizer
from isotrack_recorder.codecs.h264_sps import picture_size
from isotrack_recorder.codecs.nal import START_CODE
from isotrack_recorder.errors import ParseError

SPS_720P = bytes.fromhex("6742c01fd9005005bb011000000300100000030320f1832480")
SPS_1080P_HIGH = bytes.fromhex("67640028acd940780227e5c044000003000400000300f03c60c658")
PPS = bytes.fromhex("68cb83cb20")
IDR = b"\x65\x88\x84" + bytes(40)
SLICE = b"\x41\x9a\x21" + bytes(40)
SEI = b"\x06\x05\x01\xff\x80"
AUD = b"\x09\x10"


def annex_b(*units: bytes) -> bytes:
    return b"".join(START_CODE + unit for unit in units)


def fragments(unit: bytes, size: int) -> list[bytes]:
    """RFC 6184 section 5.8."""
    body = unit[1:]
    chunks = [body[at : at + size] for at in range(0, len(body), size)]
    return [
        bytes([unit[0] & 0xE0 | 28, unit[0] & 0x1F | (0x80 if n == 0 else 0) | (0x40 if n == len(chunks) - 1 else 0)])
        + chunk
        for n, chunk in enumerate(chunks)
    ]


def aggregate(*units: bytes) -> bytes:
    """RFC 6184 section 5.7.1."""
    return b"\x78" + b"".join(struct.pack("!H", len(unit)) + unit for unit in units)


def test_a_key_frame_with_its_parameter_sets_passes_unchanged() -> None:
    frame = H264Depacketizer().frame([aggregate(SPS_720P, PPS, SEI), *fragments(IDR, 7)])
    assert frame.data == annex_b(SPS_720P, PPS, SEI, IDR)
    assert frame.key
    assert (frame.width, frame.height) == (1280, 720)


def test_remembered_parameter_sets_are_put_before_a_key_frame_without_them() -> None:
    depacketizer = H264Depacketizer()
    depacketizer.frame([SPS_720P, PPS, IDR])
    frame = depacketizer.frame([AUD, SEI, IDR])
    assert frame.data == annex_b(AUD, SPS_720P, SEI, PPS, IDR)
    assert (frame.key, frame.width, frame.height) == (True, 1280, 720)
    frame = depacketizer.frame([SPS_720P, IDR, IDR])
    assert frame.data == annex_b(SPS_720P, PPS, IDR, IDR)


def test_parameter_sets_of_the_session_description_are_used() -> None:
    sets = ",".join(base64.b64encode(unit).decode() for unit in (SPS_720P, PPS))
    frame = H264Depacketizer(f"packetization-mode=1;sprop-parameter-sets={sets};profile-level-id=42c01f").frame([IDR])
    assert frame.data == annex_b(SPS_720P, PPS, IDR)
    assert frame.key


@pytest.mark.parametrize("value", ["", "====", "Z0Lg", "AAAA,,BBBB", "Z" * 2047])
def test_unreadable_parameter_sets_of_the_description_are_ignored(value: str) -> None:
    frame = H264Depacketizer(f"sprop-parameter-sets={value}").frame([SPS_720P, PPS, IDR])
    assert frame.key


def test_parameter_sets_that_come_alone_are_no_frame_but_remembered() -> None:
    depacketizer = H264Depacketizer()
    frame = depacketizer.frame([SPS_720P, PPS])
    assert (frame.data, frame.key, frame.width, frame.height) == (b"", False, 1280, 720)
    assert depacketizer.frame([IDR]).data == annex_b(SPS_720P, PPS, IDR)


def test_a_key_picture_that_nothing_can_decode_is_no_key_frame() -> None:
    frame = H264Depacketizer().frame([IDR])
    assert (frame.data, frame.key) == (annex_b(IDR), False)


def test_a_new_sequence_replaces_the_remembered_one() -> None:
    depacketizer = H264Depacketizer()
    depacketizer.frame([SPS_720P, PPS, IDR])
    depacketizer.frame([SPS_1080P_HIGH, PPS, IDR])
    frame = depacketizer.frame([IDR])
    assert frame.data == annex_b(SPS_1080P_HIGH, PPS, IDR)
    assert (frame.width, frame.height) == (1920, 1080)


def test_delta_frames_pass_unchanged() -> None:
    frame = H264Depacketizer().frame([SLICE, *fragments(SLICE, 11)])
    assert (frame.data, frame.key, frame.width) == (annex_b(SLICE, SLICE), False, 0)


@given(units=st.lists(st.binary(min_size=3, max_size=300), min_size=1, max_size=6), size=st.integers(1, 400))
def test_any_mixture_of_fragments_and_single_units_comes_back(units: list[bytes], size: int) -> None:
    slices = [b"\x41" + unit for unit in units]
    payloads = [
        p
        for n, unit in enumerate(slices)
        for p in ([unit] if n % 2 or size >= len(unit) - 1 else fragments(unit, size))
    ]
    assert H264Depacketizer().frame(payloads).data == annex_b(*slices)


@pytest.mark.parametrize(
    ("payload", "starts"),
    [
        pytest.param(SPS_720P, True, id="sps"),
        pytest.param(aggregate(SPS_720P, PPS), True, id="aggregate"),
        pytest.param(IDR, True, id="first slice"),
        pytest.param(b"\x6e\x00\x80", True, id="prefix of a scalable encoder's slice"),
        pytest.param(aggregate(b"\x6e\x00\x80", SLICE), True, id="prefix and slice"),
        pytest.param(b"\x6c\x00\x80", False, id="filler data"),
        pytest.param(b"\x41\x40\x00", False, id="later slice"),
        pytest.param(fragments(IDR, 10)[0], True, id="first fragment of the first slice"),
        pytest.param(fragments(IDR, 10)[1], False, id="later fragment"),
        pytest.param(fragments(b"\x41\x40" + bytes(20), 10)[0], False, id="first fragment of a later slice"),
        pytest.param(b"\x78\x00\x01", False, id="cut aggregate"),
        pytest.param(b"", False, id="empty"),
    ],
)
def test_the_first_payload_of_a_frame_is_known(payload: bytes, starts: bool) -> None:
    assert H264Depacketizer().starts_frame(payload) is starts


def test_a_key_frame_that_borrows_parameter_sets_of_a_sender_that_sends_them_says_so() -> None:
    depacketizer = H264Depacketizer()
    sets = ",".join(base64.b64encode(unit).decode() for unit in (SPS_720P, PPS))
    assert not H264Depacketizer(f"sprop-parameter-sets={sets}").frame([IDR]).borrows
    assert not depacketizer.frame([SPS_720P, PPS, IDR]).borrows
    assert not depacketizer.frame([SLICE]).borrows
    assert depacketizer.frame([IDR]).borrows
    assert depacketizer.frame([SPS_720P, IDR]).borrows
    assert depacketizer.frame([SEI, PPS, IDR]).borrows


@pytest.mark.parametrize(
    ("payloads", "message"),
    [
        pytest.param([b"\x41"], "needs 2 bytes", id="short"),
        pytest.param(fragments(IDR, 10)[1:], "out of place", id="no first fragment"),
        pytest.param(fragments(IDR, 10)[:-1], "no end", id="no last fragment"),
        pytest.param([fragments(IDR, 10)[0], SLICE], "interrupted", id="interrupted"),
        pytest.param([b"\x78\x00\x09abc"], "STAP-A", id="aggregate too short"),
        pytest.param([b"\x78\x00\x00\x00"], "STAP-A", id="empty unit"),
        pytest.param([b"\x5d\x00\x00"], "type 29", id="FU-B"),
    ],
)
def test_broken_frames_are_refused(payloads: list[bytes], message: str) -> None:
    with pytest.raises(ParseError, match=message):
        H264Depacketizer().frame(payloads)


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=6))
def test_junk_raises_parse_error_only(payloads: list[bytes]) -> None:
    depacketizer = H264Depacketizer()
    for payload in payloads:
        depacketizer.starts_frame(payload)
    try:
        depacketizer.frame(payloads)
    except ParseError:
        return


@given(st.binary(max_size=80))
def test_junk_in_a_sequence_parameter_set_raises_parse_error_only(body: bytes) -> None:
    try:
        width, height = picture_size(b"\x67" + body)
    except ParseError:
        return
    assert 0 < width <= 16384
    assert 0 < height <= 16384


def test_a_set_that_cannot_be_read_does_not_cost_the_picture() -> None:
    strange = b"\x67\x42\x00\x1f\x00\x00\x00\x00\x00\x00"
    frame = H264Depacketizer().frame([strange, PPS, IDR])
    assert (frame.data, frame.key, frame.width) == (annex_b(strange, PPS, IDR), True, 0)
