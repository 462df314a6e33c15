"""Checksums of pieces make the checksum of the whole."""

from __future__ import annotations

import hashlib
import zlib

from hypothesis import given
from hypothesis import strategies as st

from isotrack_recorder.checksums import FileSums, crc32_combine


@given(st.lists(st.binary(max_size=300), max_size=8), st.integers(0, 70_000))
def test_crc_of_pieces_is_that_of_the_whole(pieces: list[bytes], zeros: int) -> None:
    crc = 0
    for piece in [*pieces, bytes(zeros)]:
        crc = crc32_combine(crc, zlib.crc32(piece), len(piece))
    assert crc == zlib.crc32(b"".join([*pieces, bytes(zeros)]))


@given(st.lists(st.binary(max_size=300), max_size=8), st.integers(1, 200))
def test_sums_do_not_depend_on_how_the_bytes_come(pieces: list[bytes], part_bytes: int) -> None:
    sums, whole = FileSums(part_bytes), b"".join(pieces)
    for piece in pieces:
        sums.update(piece)
    digest = sums.digest()
    parts = [hashlib.sha256(whole[at : at + part_bytes]).digest() for at in range(0, len(whole), part_bytes)]
    assert (sums.size, digest.crc32, digest.part_bytes) == (len(whole), zlib.crc32(whole), part_bytes)
    assert digest.sha256 == hashlib.sha256(whole).hexdigest()
    assert digest.parts_sha256 == hashlib.sha256(b"".join(parts)).hexdigest()
