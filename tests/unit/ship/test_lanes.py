"""Reading ahead: in order, at most so many at once, and no further than it is wanted."""

from __future__ import annotations

import threading
from contextlib import closing

import pytest

from isotrack_recorder.ship.lanes import READ_BYTES_AT_ONCE, READS_AT_ONCE, ahead


class Reads:
    """Reads that end when there are as many of them as may be."""

    def __init__(self, meet: int) -> None:
        self._together = threading.Barrier(meet)
        self.begun = 0
        self._lock = threading.Lock()

    def __call__(self, number: int) -> int:
        with self._lock:
            self.begun += 1
        self._together.wait(60)
        return number


def test_reads_overlap_and_come_out_in_order() -> None:
    reads = Reads(READS_AT_ONCE)
    assert list(ahead(reads, range(3 * READS_AT_ONCE), lambda _: 1)) == list(range(3 * READS_AT_ONCE))


def test_no_more_bytes_are_held_than_allowed() -> None:
    asked = 0

    def wanted() -> range:
        return range(40)

    def size(_: int) -> int:
        nonlocal asked
        asked += 1
        return READ_BYTES_AT_ONCE // 4

    with closing(ahead(lambda number: number, wanted(), size)) as read:
        assert next(read) == 0
        assert asked == 5, "four are held, the fifth waits for the first to be taken"
        assert next(read) == 1
        assert asked == 6


def test_what_is_larger_than_allowed_is_read_alone() -> None:
    assert list(ahead(lambda number: number, range(3), lambda _: 2 * READ_BYTES_AT_ONCE)) == [0, 1, 2]


def test_an_error_comes_when_it_is_its_turn_and_ends_the_rest() -> None:
    begun: list[int] = []

    def read(number: int) -> int:
        begun.append(number)
        if number == 3:
            raise ValueError(number)
        return number

    with pytest.raises(ValueError, match="3"):
        list(ahead(read, range(1000), lambda _: 1))
    assert len(begun) <= 4 + READS_AT_ONCE
