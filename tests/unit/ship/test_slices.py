"""Slices of a spool as one body: every byte in its place however it is asked for, and nothing else in place of what went away."""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotrack_recorder.checksums import sums_of
from isotrack_recorder.ship.checkpoint import Slice
from isotrack_recorder.ship.slices import SpoolChangedError, streamed, summed

HEAD = b"what it says of itself"
NAMES = [f"i0001/t{number:04}.000001.log" for number in range(1, 5)]


def write(spool: Path, sizes: list[int]) -> tuple[list[Slice], bytes]:
    """Files with something before and behind their slices; the slices, and the body that they make."""
    body = HEAD
    slices = []
    for number, (name, size) in enumerate(zip(NAMES, sizes)):
        path = spool / name
        path.parent.mkdir(parents=True, exist_ok=True)
        block = hashlib.sha256(name.encode()).digest() * (size // 32 + 2)
        path.write_bytes(b"sent" * number + block[:size] + b"later")
        slices.append(Slice(name, 4 * number, size))
        body += block[:size]
    return slices, body


@given(sizes=st.lists(st.integers(1, 300_000), max_size=4), asked=st.integers(1, 200_000))
def test_a_body_is_read_as_it_lies_in_the_files(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], asked: int
) -> None:
    spool = tmp_path_factory.mktemp("spool")
    slices, body = write(spool, sizes)
    made = streamed(spool, HEAD, slices)
    assert made.size == len(body)
    with made.open() as reader:
        for _ in ("sent", "sent again"):
            assert reader.seek(0) == 0
            assert b"".join(iter(lambda: reader.read(asked), b"")) == body
        half = len(body) // 2
        reader.seek(half)
        assert reader.read() == body[half:]


def test_sums_of_a_body_are_those_of_its_slices_one_behind_the_other(tmp_path: Path) -> None:
    slices, body = write(tmp_path, [100_000, 1, 500_000])
    found, data = summed(tmp_path, slices)
    assert data == body[len(HEAD) :]
    assert [part.crc32 for part in found] == [
        zlib.crc32((tmp_path / part.path).read_bytes()[part.offset : part.end]) for part in slices
    ]
    view = memoryview(body)
    pieces = [view[at : at + 7777] for at in range(0, len(body), 7777)]
    assert sums_of(pieces) == sums_of([body])
    assert sums_of([body]).sha256 == hashlib.sha256(body).digest()


@pytest.mark.parametrize("gone", ["shorter", "deleted"])
@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_slice_that_went_away_is_told(tmp_path: Path, gone: str, when: str) -> None:
    slices, body = write(tmp_path, [300_000, 300_000])
    made = streamed(tmp_path, HEAD, slices)

    def go_away() -> None:
        path = tmp_path / slices[1].path
        path.write_bytes(b"") if gone == "shorter" else path.unlink()

    if when == "before":
        go_away()
        with pytest.raises(SpoolChangedError):
            made.open()
        return
    with made.open() as reader:
        assert reader.read(200_000) == body[:200_000]
        go_away()
        with pytest.raises(SpoolChangedError):
            reader.read()
