"""AV1: elements, fragments, sizes, sequence headers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotrack_recorder.codecs.av1 import Av1Depacketizer
from isotrack_recorder.codecs.av1_obu import (
    obus,
    read_leb128,
    read_sequence_header,
    split_header,
    with_size,
    write_leb128,
)
from isotrack_recorder.errors import ParseError
from support.media import video_frames
from support.payloads import av1_payloads, leb128, obu

SEQUENCE, DELIMITER, HEADER, TILES, METADATA, FRAME, REDUNDANT, TILE_LIST, PADDING = 1, 2, 3, 4, 5, 6, 7, 8, 15
# SVT-AV1, 322x182, 8 bits
SEQUENCE_HEADER = bytes.fromhex("000000043d06d44af90040")
KEY = b"\x10" + bytes(range(200))
"""Frame header: no existing frame, key frame, shown."""
INTER = b"\x30" + bytes(range(100, 200))


def without_size(unit: bytes) -> bytes:
    parsed = split_header(unit)
    return parsed.header + parsed.payload


def payloads(*units: bytes, size: int = 1200, counted: bool = True) -> list[bytes]:
    return av1_payloads([without_size(unit) for unit in units], size, counted=counted)


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("size", [8, 20, 64, 130, 1200])
def test_units_are_whole_again_however_they_were_cut(size: int, counted: bool) -> None:
    units = [obu(SEQUENCE, SEQUENCE_HEADER), obu(METADATA, b"m" * 90), obu(FRAME, KEY), obu(TILES, b"t" * 300)]
    frame = Av1Depacketizer().frame(payloads(*units, size=size, counted=counted))
    assert frame.data == b"".join(units)
    assert (frame.key, frame.width, frame.height) == (True, 322, 182)


@given(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=8), st.integers(6, 400), st.booleans())
def test_any_units_survive_any_packets(bodies: list[bytes], size: int, counted: bool) -> None:
    units = [obu(FRAME, INTER), *(obu(METADATA, body, extension=n << 5) for n, body in enumerate(bodies))]
    assert Av1Depacketizer().frame(payloads(*units, size=size, counted=counted)).data == b"".join(units)


def test_delimiters_tile_lists_and_padding_are_left_out() -> None:
    dropped = [obu(DELIMITER, b""), obu(TILE_LIST, b"x"), obu(PADDING, b"\0\0\x80")]
    kept = [obu(SEQUENCE, SEQUENCE_HEADER), obu(FRAME, KEY)]
    sent = [dropped[0], kept[0], dropped[1], kept[1], dropped[2]]
    assert Av1Depacketizer().frame(payloads(*sent)).data == b"".join(kept)


def test_units_that_came_with_their_size_keep_one() -> None:
    """obu_has_size_field should be 0 in RTP; some senders set it."""
    unit = obu(FRAME, INTER)
    assert Av1Depacketizer().frame([b"\x10" + unit]).data == unit


def test_empty_elements_are_no_units() -> None:
    packet = b"\x00" + leb128(0) + leb128(len(INTER) + 1) + without_size(obu(FRAME, INTER))
    assert Av1Depacketizer().frame([packet]).data == obu(FRAME, INTER)


def test_a_remembered_sequence_header_is_put_before_a_key_frame_without_one() -> None:
    depacketizer = Av1Depacketizer()
    depacketizer.frame(payloads(obu(SEQUENCE, SEQUENCE_HEADER), obu(FRAME, KEY)))
    assert not depacketizer.frame(payloads(obu(FRAME, INTER))).key
    frame = depacketizer.frame(payloads(obu(FRAME, KEY)))
    assert frame.data == obu(SEQUENCE, SEQUENCE_HEADER) + obu(FRAME, KEY)
    assert (frame.key, frame.width, frame.height) == (True, 322, 182)


@pytest.mark.parametrize(
    ("first", "key"),
    [
        pytest.param(0x10, True, id="key frame"),
        pytest.param(0x00, False, id="key frame that is not shown"),
        pytest.param(0x30, False, id="inter frame"),
        pytest.param(0x50, False, id="intra-only frame"),
        pytest.param(0x90, False, id="shows an earlier frame"),
    ],
)
def test_only_a_shown_key_frame_begins_anew(first: int, key: bool) -> None:
    units = [obu(SEQUENCE, SEQUENCE_HEADER), obu(HEADER, bytes((first, 0, 0))), obu(TILES, b"t" * 30)]
    assert Av1Depacketizer().frame(payloads(*units)).key is key


def test_a_key_frame_that_borrows_the_sequence_header_of_a_sender_that_sends_them_says_so() -> None:
    depacketizer = Av1Depacketizer()
    depacketizer.frame(payloads(obu(SEQUENCE, SEQUENCE_HEADER)))
    assert not depacketizer.frame(payloads(obu(FRAME, KEY))).borrows, "it came apart: maybe it always does"
    assert not depacketizer.frame(payloads(obu(SEQUENCE, SEQUENCE_HEADER), obu(FRAME, KEY))).borrows
    assert not depacketizer.frame(payloads(obu(FRAME, INTER))).borrows
    assert depacketizer.frame(payloads(obu(FRAME, KEY))).borrows


def test_without_a_sequence_header_nothing_begins() -> None:
    assert not Av1Depacketizer().frame(payloads(obu(FRAME, KEY))).key


def test_layers_of_one_temporal_unit_stay_together() -> None:
    units = [
        obu(SEQUENCE, SEQUENCE_HEADER, extension=0),
        obu(FRAME, KEY, extension=0),
        obu(FRAME, INTER, extension=0x08),
        obu(FRAME, INTER, extension=0x10),
    ]
    frame = Av1Depacketizer().frame(payloads(*units, size=100))
    assert (frame.data, frame.key) == (b"".join(units), True)


def test_units_without_a_frame_are_no_picture() -> None:
    depacketizer = Av1Depacketizer()
    assert depacketizer.frame(payloads(obu(SEQUENCE, SEQUENCE_HEADER))).data == b""
    assert depacketizer.frame(payloads(obu(FRAME, KEY))).key, "yet remembered"


@pytest.mark.parametrize(
    ("payload", "starts"),
    [
        pytest.param(b"\x18\x0a\x00", True, id="sequence header"),
        pytest.param(b"\x10\x30\x10", True, id="frame"),
        pytest.param(b"\x00\x02\x30\x10", True, id="frame with a length"),
        pytest.param(b"\x90\x30\x10", False, id="goes on"),
        pytest.param(b"\x10\x20\x10", False, id="tile group"),
        pytest.param(b"\x00\xff\xff\xff\xff\xff\xff\xff\xff", False, id="length without end"),
        pytest.param(b"\x00\x02", False, id="cut"),
        pytest.param(b"", False, id="empty"),
    ],
)
def test_where_a_temporal_unit_can_begin(payload: bytes, starts: bool) -> None:
    assert Av1Depacketizer().starts_frame(payload) is starts


@pytest.mark.parametrize(
    "packets",
    [
        pytest.param([b"\x10"], id="nothing behind the aggregation header"),
        pytest.param([b"\x90\x30\x10"], id="goes on from nothing"),
        pytest.param([b"\x50\x30\x10"], id="has no end"),
        pytest.param([b"\x50\x30\x10", b"\x10\x30\x10"], id="is interrupted"),
        pytest.param([b"\x00\x7f\x30\x10"], id="element beyond its packet"),
        pytest.param([b"\x20\x02\x30\x10"], id="fewer elements than counted"),
        pytest.param([b"\x10\xb0\x10"], id="forbidden bit"),
        pytest.param([b"\x10\x34"], id="ends in the extension"),
        pytest.param([b"\x10\x32\x7f\x10"], id="unit beyond its element"),
        pytest.param([b"\x00\xff\xff\xff\xff\x7f\x30"], id="length over 32 bits"),
        pytest.param([b"\x10\x08" + b"\xff" * 5], id="sequence header that cannot be"),
    ],
)
def test_broken_temporal_units_are_refused(packets: list[bytes]) -> None:
    with pytest.raises(ParseError):
        Av1Depacketizer().frame(packets)


@given(st.integers(0, 2**32 - 1))
def test_sizes_are_read_as_written(value: int) -> None:
    assert read_leb128(b"x" + write_leb128(value) + b"y", 1) == (value, 1 + len(write_leb128(value)))
    assert write_leb128(value) == leb128(value)


@pytest.mark.parametrize(
    ("pixels", "width", "height", "bits"), [("yuv420p", 322, 182, 0), ("yuv420p10le", 160, 120, 1)]
)
def test_an_encoders_sequence_header_is_read(pixels: str, width: int, height: int, bits: int) -> None:
    frame = video_frames(1, "av1", width, height, pixels=pixels)[0][0]
    header = next(read_sequence_header(unit.payload) for unit in obus(frame) if unit.type == SEQUENCE)
    assert (header.width, header.height, header.high_bitdepth, header.profile) == (width, height, bits, 0)


def test_files_have_every_unit_with_its_size() -> None:
    frame = video_frames(1, "av1")[0][0]
    assert b"".join(map(with_size, obus(frame))) == frame


@given(st.lists(st.binary(max_size=80), min_size=1, max_size=6))
def test_junk_raises_parse_errors_only(packets: list[bytes]) -> None:
    depacketizer = Av1Depacketizer()
    for packet in packets:
        depacketizer.starts_frame(packet)
    try:
        depacketizer.frame(packets)
    except ParseError:
        return


@given(st.binary(max_size=40))
def test_junk_is_no_sequence_header(junk: bytes) -> None:
    try:
        read_sequence_header(junk)
        list(obus(junk))
    except ParseError:
        return
