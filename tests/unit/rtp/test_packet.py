"""RTP packets: what is written reads back, what is broken raises ParseError and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotrack_recorder.errors import ParseError
from isotrack_recorder.rtp.packet import Packet, build_packet, iterate_extensions, parse_packet, payload_bounds

packets = st.builds(
    Packet,
    payload_type=st.integers(0, 127),
    sequence=st.integers(0, 0xFFFF),
    timestamp=st.integers(0, 0xFFFFFFFF),
    ssrc=st.integers(0, 0xFFFFFFFF),
    marker=st.booleans(),
    extensions=st.dictionaries(st.integers(1, 14), st.binary(min_size=1, max_size=16), max_size=4)
    | st.dictionaries(st.integers(1, 255), st.binary(max_size=40), max_size=4),
    payload=st.binary(max_size=100),
)


@given(packet=packets, padding=st.integers(0, 255))
def test_a_written_packet_reads_back(packet: Packet, padding: int) -> None:
    assert parse_packet(build_packet(packet, padding)) == packet


@given(packet=packets, padding=st.integers(0, 255), before=st.integers(0, 64), after=st.binary(max_size=64))
def test_reading_in_place_agrees_with_reading_a_copy(packet: Packet, padding: int, before: int, after: bytes) -> None:
    data = build_packet(packet, padding)
    arena = bytearray(before) + data + after
    offset, end = payload_bounds(arena, before, before + len(data))
    assert arena[offset:end] == packet.payload
    found = {
        number: bytes(arena[at : at + size])
        for number, at, size in iterate_extensions(arena, before, before + len(data))
    }
    assert found == packet.extensions


@given(st.binary(max_size=120))
def test_junk_raises_parse_error_only(data: bytes) -> None:
    try:
        parse_packet(data)
    except ParseError:
        return


@given(packet=packets, cut=st.integers(0, 200), flip=st.integers(0, 200), bits=st.integers(1, 255))
def test_a_damaged_packet_raises_parse_error_only(packet: Packet, cut: int, flip: int, bits: int) -> None:
    data = bytearray(build_packet(packet))[: max(1, cut)]
    data[flip % len(data)] ^= bits
    try:
        parse_packet(data)
    except ParseError:
        return


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"\x80" * 11, "needs 12 bytes", id="short"),
        pytest.param(b"\x40" + bytes(11), "version 1", id="version"),
        pytest.param(b"\x81" + bytes(11), "lacks 4 bytes", id="sources-missing"),
        pytest.param(b"\x90" + bytes(11), "extension header", id="extension-missing"),
        pytest.param(b"\x90" + bytes(11) + b"\xbe\xde\x00\x02" + bytes(4), "lacks 4 bytes", id="extension-cut"),
        pytest.param(b"\xa0" + bytes(11) + b"\x00", "padding of 0", id="padding-zero"),
        pytest.param(b"\xa0" + bytes(11) + b"\x02", "lacks 1 bytes", id="padding-too-long"),
    ],
)
def test_errors_name_the_field(data: bytes, message: str) -> None:
    with pytest.raises(ParseError, match=message):
        parse_packet(data)


def test_reserved_extension_id_stops_reading() -> None:
    # RFC 8285 section 4.2: id 15 ends the extensions
    data = b"\x90" + bytes(11) + b"\xbe\xde\x00\x02" + b"\x10\xaa\xf0\xbb\x20\xcc\x00\x00"
    assert parse_packet(data).extensions == {1: b"\xaa"}
