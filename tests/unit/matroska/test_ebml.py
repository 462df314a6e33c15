"""EBML primitives: what is written reads back, what is hostile raises ParseError only."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotrack_recorder.errors import ParseError
from isotrack_recorder.matroska import ebml


@given(st.integers(0, 2**56 - 2))
def test_sizes_read_back(value: int) -> None:
    encoded = ebml.encode_size(value)
    header = ebml.read_header(b"\xec" + encoded, 0)
    assert (header.size, header.start) == (value, 1 + len(encoded))


@given(st.integers(1, 8), st.data())
def test_a_size_fits_the_asked_width(width: int, data: st.DataObject) -> None:
    value = data.draw(st.integers(0, 2 ** (7 * width) - 2))
    assert len(ebml.encode_size(value, width)) == width


@pytest.mark.parametrize("width", range(1, 9))
def test_the_reserved_size_is_never_written_and_reads_as_unknown(width: int) -> None:
    """All ones mean "unknown" (RFC 8794 section 6.2)."""
    with pytest.raises(ValueError, match="does not fit"):
        ebml.encode_size(2 ** (7 * width) - 1, width)
    ones = ((1 << 7 * width) | ((1 << 7 * width) - 1)).to_bytes(width, "big")
    assert ebml.read_header(b"\xec" + ones, 0).size == ebml.UNKNOWN_SIZE


@given(st.sampled_from([0xEC, 0x4282, 0x2AD7B1, 0x18538067]), st.binary(max_size=300))
def test_elements_read_back(element_id: int, data: bytes) -> None:
    header = ebml.read_header(encoded := ebml.element(element_id, data), 0)
    assert (header.id, encoded[header.start :], header.size) == (element_id, data, len(data))


@given(st.integers(2, 40_000))
def test_padding_has_exactly_the_asked_size(size: int) -> None:
    padding = ebml.void(size)
    header = ebml.read_header(padding, 0)
    assert len(padding) == size == header.start + header.size


@given(st.binary(max_size=64), st.integers(-2, 80))
def test_junk_raises_parse_errors_only(data: bytes, offset: int) -> None:
    try:
        header = ebml.read_header(data, offset)
    except ParseError:
        return
    assert offset < header.start <= len(data)


@given(st.integers(0, 2**64 - 1))
def test_integers_read_back(value: int) -> None:
    encoded = ebml.uint(0xD7, value)
    assert ebml.read_uint(encoded[ebml.read_header(encoded, 0).start :]) == value


@pytest.mark.parametrize(
    ("read", "data"),
    [
        pytest.param(ebml.read_uint, bytes(9), id="integer-too-long"),
        pytest.param(ebml.read_real, bytes(5), id="float-of-five-bytes"),
    ],
)
def test_values_of_wrong_length_are_refused(read: object, data: bytes) -> None:
    assert callable(read)
    with pytest.raises(ParseError):
        read(data)
