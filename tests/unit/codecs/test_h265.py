"""H.265: fragments, aggregates, decoding order numbers, parameter sets, picture size."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotrack_recorder.codecs.h265 import H265Depacketizer
from isotrack_recorder.codecs.h265_sps import read_sps
from isotrack_recorder.codecs.nal import START_CODE
from isotrack_recorder.errors import ParseError
from support.media import video_frames
from support.payloads import h265_aggregate, h265_fragments, h265_single


def units_of(frame: bytes) -> list[bytes]:
    return [unit for unit in frame.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1") if unit]


VPS, SPS, PPS = (unit for unit in units_of(video_frames(1, "h265", 322, 182)[0][0]) if unit[0] >> 1 in (32, 33, 34))
IDR = b"\x26\x01\xaf" + bytes(range(1, 60))
"""IDR_W_RADL, first slice segment."""
IDR_MORE = b"\x26\x01\x2f" + bytes(range(1, 60))
TRAIL = b"\x02\x01\xd0" + bytes(range(1, 40))
SEI = b"\x4e\x01\x05\x01\xff\x80"
AUD = b"\x46\x01\x10"


def annex_b(*units: bytes) -> bytes:
    return b"".join(START_CODE + unit for unit in units)


def test_a_key_frame_with_its_parameter_sets_passes_unchanged() -> None:
    frame = H265Depacketizer().frame([h265_aggregate(VPS, SPS, PPS, SEI), *h265_fragments(IDR, 7), IDR_MORE])
    assert frame.data == annex_b(VPS, SPS, PPS, SEI, IDR, IDR_MORE)
    assert (frame.key, frame.width, frame.height) == (True, 322, 182)


@pytest.mark.parametrize("kind", range(16, 22))
def test_every_random_access_picture_is_a_key_frame(kind: int) -> None:
    picture = bytes((kind << 1, 1)) + IDR[2:]
    assert H265Depacketizer().frame([VPS, SPS, PPS, picture]).key


def test_other_pictures_are_none() -> None:
    depacketizer = H265Depacketizer()
    depacketizer.frame([VPS, SPS, PPS, IDR])
    frame = depacketizer.frame([TRAIL])
    assert (frame.data, frame.key) == (annex_b(TRAIL), False)


def test_remembered_parameter_sets_are_put_before_a_key_frame_without_them() -> None:
    depacketizer = H265Depacketizer()
    depacketizer.frame([VPS, SPS, PPS, IDR])
    frame = depacketizer.frame([AUD, SEI, IDR])
    assert frame.data == annex_b(AUD, VPS, SPS, SEI, PPS, IDR)
    assert (frame.key, frame.width, frame.height) == (True, 322, 182)


def test_nothing_begins_without_parameter_sets() -> None:
    assert not H265Depacketizer().frame([IDR]).key


def test_parameter_sets_of_the_session_description_are_used() -> None:
    vps, sps, pps = (base64.b64encode(unit).decode() for unit in (VPS, SPS, PPS))
    frame = H265Depacketizer(f"profile-id=1; sprop-vps={vps};sprop-sps={sps};sprop-pps={pps}").frame([IDR])
    assert (frame.data, frame.key) == (annex_b(VPS, SPS, PPS, IDR), True)


@pytest.mark.parametrize("value", ["", "====", "Z0Lg", "AAAA,,BBBB", "Z" * 4095])
def test_unreadable_parameter_sets_of_the_description_are_ignored(value: str) -> None:
    assert H265Depacketizer(f"sprop-sps={value}").frame([VPS, SPS, PPS, IDR]).key


def test_parameter_sets_that_come_alone_are_no_frame_but_remembered() -> None:
    depacketizer = H265Depacketizer()
    frame = depacketizer.frame([h265_aggregate(VPS, SPS, PPS)])
    assert (frame.data, frame.key, frame.width, frame.height) == (b"", False, 322, 182)
    assert not depacketizer.frame([SPS]).width, "more belongs before it"
    assert depacketizer.frame([IDR]).data == annex_b(VPS, SPS, PPS, IDR)


def test_a_parameter_set_replaces_the_one_of_its_id() -> None:
    depacketizer = H265Depacketizer()
    other = PPS[:-1] + bytes((PPS[-1] ^ 0x10,))
    depacketizer.frame([VPS, SPS, PPS, IDR])
    depacketizer.frame([other, TRAIL])
    assert depacketizer.frame([IDR]).data == annex_b(VPS, SPS, other, IDR)


def test_decoding_order_numbers_are_stripped_and_obeyed() -> None:
    """RFC 7798 section 6: units may be sent in another order than they are decoded in; numbers run over."""
    depacketizer = H265Depacketizer("sprop-max-don-diff=4")
    sent = [
        *h265_fragments(IDR, 9, don=2),
        h265_aggregate(VPS, SPS, PPS, don=0xFFFF),
        h265_single(IDR_MORE, don=3),
    ]
    frame = depacketizer.frame(sent)
    assert frame.data == annex_b(VPS, SPS, PPS, IDR, IDR_MORE)
    assert frame.key
    assert depacketizer.starts_frame(sent[0])
    assert depacketizer.starts_frame(h265_aggregate(VPS, SPS, don=9))
    assert depacketizer.starts_frame(h265_single(TRAIL, don=9))


def test_a_last_fragment_may_be_shorter_than_a_decoding_order_number() -> None:
    depacketizer = H265Depacketizer("sprop-max-don-diff=4")
    payloads = h265_fragments(TRAIL, len(TRAIL) - 3, don=7)
    assert len(payloads[-1]) == 4
    assert depacketizer.frame(payloads).data == annex_b(TRAIL)


@pytest.mark.parametrize(
    ("payload", "starts"),
    [
        pytest.param(VPS, True, id="parameter set"),
        pytest.param(AUD, True, id="delimiter"),
        pytest.param(SEI, True, id="SEI"),
        pytest.param(b"\x52\x01\x00", True, id="reserved to begin one"),
        pytest.param(b"\x4c\x01\x00", False, id="filler data"),
        pytest.param(TRAIL, True, id="first slice segment"),
        pytest.param(IDR_MORE, False, id="later slice segment"),
        pytest.param(h265_aggregate(VPS, SPS), True, id="aggregate of sets"),
        pytest.param(h265_aggregate(IDR_MORE, IDR_MORE), False, id="aggregate of later segments"),
        pytest.param(h265_fragments(IDR, 9)[0], True, id="first fragment"),
        pytest.param(h265_fragments(IDR, 9)[1], False, id="later fragment"),
        pytest.param(h265_fragments(IDR_MORE, 9)[0], False, id="first fragment of a later segment"),
        pytest.param(b"\x26\x01", False, id="cut"),
        pytest.param(b"", False, id="empty"),
    ],
)
def test_where_an_access_unit_can_begin(payload: bytes, starts: bool) -> None:
    assert H265Depacketizer().starts_frame(payload) is starts


def test_a_key_frame_that_borrows_parameter_sets_of_a_sender_that_sends_them_says_so() -> None:
    depacketizer = H265Depacketizer()
    assert not depacketizer.frame([VPS, SPS, PPS, IDR]).borrows
    assert not depacketizer.frame([TRAIL]).borrows
    assert depacketizer.frame([IDR]).borrows
    assert depacketizer.frame([VPS, SPS, IDR]).borrows
    assert depacketizer.frame([PPS, IDR]).borrows


@pytest.mark.parametrize(
    "payloads",
    [
        pytest.param([b"\x26\x01"], id="no unit behind the header"),
        pytest.param(h265_fragments(IDR, 9)[1:], id="fragment without a start"),
        pytest.param(h265_fragments(IDR, 9)[:-1], id="fragment without an end"),
        pytest.param([h265_fragments(IDR, 9)[0], TRAIL], id="interrupted fragment"),
        pytest.param([h265_aggregate(VPS)[:-1]], id="aggregated unit beyond its packet"),
        pytest.param([h265_aggregate(VPS, b"\x02")], id="aggregated unit shorter than its header"),
        pytest.param([b"\x64\x01" + bytes(9)], id="PACI"),
    ],
)
def test_broken_access_units_are_refused(payloads: list[bytes]) -> None:
    with pytest.raises(ParseError):
        H265Depacketizer().frame(payloads)


@pytest.mark.parametrize(
    ("pixels", "chroma", "luma", "layers"),
    [("yuv420p", 1, 8, 1), ("yuv422p10le", 2, 10, 1), ("yuv444p12le", 3, 12, 1), ("gray", 0, 8, 1)],
)
def test_an_encoders_sequence_parameters_are_read(pixels: str, chroma: int, luma: int, layers: int) -> None:
    """322x182 is coded as 328x184: the conformance window crops it."""
    frame = video_frames(1, "h265", 322, 182, pixels=pixels)[0][0]
    sps = read_sps(next(unit for unit in units_of(frame) if unit[0] >> 1 == 33))
    assert (sps.width, sps.height) == (322, 182)
    assert (sps.chroma_format, sps.bit_depth_luma, sps.temporal_layers) == (chroma, luma, layers)


def test_sub_layers_are_stepped_over() -> None:
    """Chrome's hardware encoders announce temporal layers with a profile and level of each."""
    bits = "".join(f"{byte:08b}" for byte in SPS[2:].replace(b"\0\0\3", b"\0\0"))
    head, general, rest = bits[:8], bits[8 : 8 + 96], bits[8 + 96 :]
    head = head[:4] + "010" + head[7]
    sub_layers = "11" + "01" + "00" * 6 + "1" * 88 + "0" * 8 + "1" * 8
    bits = head + general + sub_layers + rest
    bits += "0" * (-len(bits) % 8)
    unit = SPS[:2] + bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits), 8)).replace(b"\0\0", b"\0\0\3")
    sps = read_sps(unit)
    assert (sps.width, sps.height, sps.temporal_layers) == (322, 182, 3)


def test_a_stream_whose_sequence_parameters_cannot_be_read_is_kept() -> None:
    frame = H265Depacketizer().frame([VPS, SPS[:12], PPS, IDR])
    assert (frame.data, frame.key, frame.width) == (annex_b(VPS, SPS[:12], PPS, IDR), True, 0)


@given(
    st.lists(
        st.binary(max_size=60) | st.sampled_from([VPS, SPS, PPS, IDR, TRAIL, h265_aggregate(VPS, SPS)]), max_size=8
    ),
    st.sampled_from(["", "sprop-max-don-diff=1"]),
)
def test_junk_raises_parse_errors_only(payloads: list[bytes], fmtp: str) -> None:
    depacketizer = H265Depacketizer(fmtp)
    for payload in payloads:
        depacketizer.starts_frame(payload)
    for _ in range(2):
        try:
            depacketizer.frame(payloads)
        except ParseError:
            continue


@given(st.binary(max_size=100), st.integers(0, 60))
def test_junk_is_no_sequence_parameter_set(junk: bytes, cut: int) -> None:
    for unit in (b"\x42\x01" + junk, SPS[:cut] + junk):
        try:
            read_sps(unit)
        except ParseError:
            continue
