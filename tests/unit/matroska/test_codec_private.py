"""What decoders are told beforehand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotrack_recorder.errors import ParseError
from isotrack_recorder.matroska.codec_private import avc_configuration, length_prefixed, nal_units, opus_head
from support.media import video_frames


@pytest.mark.parametrize("channels", [1, 2])
def test_opus_header_has_no_pre_skip(channels: int) -> None:
    """A stream that was joined midway has no start to skip (RFC 7845 section 4.2)."""
    head = opus_head(channels)
    assert (head[:8], head[8], head[9], head[10:12], len(head)) == (b"OpusHead", 1, channels, b"\0\0", 19)


def test_a_key_frame_gives_the_decoder_configuration() -> None:
    frame = video_frames(1, "h264")[0][0]
    units = {unit[0] & 0x1F: unit for unit in nal_units(frame)}
    record = avc_configuration(frame)
    assert record[1:4] == units[7][1:4]
    assert record[4] & 3 == 3
    assert record[5] & 0x1F == 1
    assert units[7] in record
    assert units[8] in record


@given(st.lists(st.binary(min_size=1, max_size=40).filter(lambda unit: b"\0\0" not in unit and unit[-1]), max_size=8))
def test_nal_units_survive_the_change_of_form(units: list[bytes]) -> None:
    """Three- and four-byte start codes mixed, as WebRTC depacketizers and encoders write them."""
    annex_b = b"".join((b"\0\0\0\1" if n % 2 else b"\0\0\1") + unit for n, unit in enumerate(units))
    prefixed = length_prefixed(annex_b)
    found = []
    while prefixed:
        size = int.from_bytes(prefixed[:4], "big")
        found.append(prefixed[4 : 4 + size])
        prefixed = prefixed[4 + size :]
    assert found == units


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\0\0\1\x67\x42\x00\x1e", id="no-pps"),
        pytest.param(b"\0\0\1\x67\0\0\1\x68\xce", id="sps-too-short"),
        pytest.param(b"\0\0\1\x67" + b"\x42" * 5000 + b"\0\0\1\x68\xce\x01", id="sps-too-long"),
    ],
)
def test_parameter_sets_that_cannot_be_are_refused(frame: bytes) -> None:
    with pytest.raises(ParseError):
        avc_configuration(frame)


@given(st.binary(max_size=200))
def test_junk_raises_parse_errors_only(junk: bytes) -> None:
    try:
        avc_configuration(junk)
    except ParseError:
        return
