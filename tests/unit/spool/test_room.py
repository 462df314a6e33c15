"""How much room a spool has, by a real disk."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import pytest

from isotrack_recorder.spool.room import Room, WatchedRoom, folder_bytes
from isotrack_recorder.spool.watermarks import Usage
from isotrack_recorder.spool.writer import SpoolWriter

T = TypeVar("T")


def test_files_count_as_the_kubelet_counts_them(tmp_path: Path) -> None:
    """By blocks: a byte takes one. Folders below count, too."""
    (tmp_path / "i0001").mkdir()
    (tmp_path / "i0001/t0001.000001.log").write_bytes(b"x")
    (tmp_path / "link").symlink_to("/usr")
    named = (tmp_path / "i0001", tmp_path / "i0001/t0001.000001.log", tmp_path / "link")
    blocks = sum(max(os.lstat(path).st_blocks * 512, os.lstat(path).st_size) for path in named)
    assert folder_bytes(tmp_path) == blocks >= 1


def test_what_is_not_there_takes_nothing(tmp_path: Path) -> None:
    assert folder_bytes(tmp_path / "nowhere") == 0
    with pytest.raises(OSError, match="nowhere"):
        Room(tmp_path / "nowhere").measure()


def test_space_that_was_reserved_counts(tmp_path: Path) -> None:
    spool = SpoolWriter(tmp_path)
    log = spool.open_track()
    log.append(0, 0, 0, bytes(100_000))
    spool.flush()
    assert Room(tmp_path, 10**9).measure().used >= 100_000 + 256 * 1024
    spool.close()


class Slow(SpoolWriter):
    """A spool whose disk answers when the test lets it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.asked: list[Future[Any]] = []
        self.works: list[Callable[[], Any]] = []

    def aside(self, work: Callable[[], T]) -> Future[T]:
        self.works.append(work)
        self.asked.append(Future())
        return self.asked[-1]

    def answer(self) -> None:
        """Do what was asked for last."""
        try:
            self.asked[-1].set_result(self.works[-1]())
        except OSError as error:
            self.asked[-1].set_exception(error)


def test_who_watches_a_room_never_waits_for_its_disk_and_counts_what_was_taken_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that stalls holds up whoever looks into its folder, and with the loop its sockets."""
    monkeypatch.setattr("time.monotonic", lambda: 50.0)
    spool, used = Slow(tmp_path), [1000]
    room = WatchedRoom(lambda: Usage(used[0], 10**9), spool)
    log = spool.open_track()
    assert room().used == 1000
    log.append(0, 0, 0, bytes(5000))
    used[0] = 0
    assert room().used == room().used == 1000 + spool.taken
    assert len(spool.asked) == 1, "one measurement at a time"
    spool.answer()
    assert room().used == spool.taken, "what was taken since it was asked for"
    assert len(spool.asked) == 2
    spool.answer()
    assert room().used == 0
    spool.close()


def test_a_room_that_takes_long_to_measure_is_measured_seldom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool, now = Slow(tmp_path), [50.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])

    def measure() -> Usage:
        now[0] += 0.1  # tens of thousands of files
        return Usage(0, 1)

    room = WatchedRoom(measure, spool)
    for _ in range(30):
        room()
        if not spool.asked[-1].done():
            spool.answer()
        now[0] += 1
    assert len(spool.asked) == 3, "each ten seconds"
    spool.close()


def test_a_room_that_cannot_be_measured_for_a_while_is_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.monotonic", lambda: 50.0)
    spool, gone = Slow(tmp_path), [False]

    def measure() -> Usage:
        if gone[0]:
            raise FileNotFoundError(2, "gone")
        return Usage(7, 10)

    room = WatchedRoom(measure, spool)
    room()
    gone[0] = True
    spool.answer()
    with pytest.raises(FileNotFoundError):
        room()
    gone[0] = False
    assert room().used == 7, "the last figures hold"
    spool.answer()
    room()
    assert len(spool.asked) == 3
    spool.close()


def test_the_limit_bounds_the_spool_unless_the_disk_is_smaller(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(bytes(1_000_000))
    disk = os.statvfs(tmp_path)
    free = disk.f_bavail * disk.f_frsize
    assert Room(tmp_path, 5_000_000).measure().capacity == 5_000_000
    assert Room(tmp_path, 2**60).measure().capacity == pytest.approx(free, rel=0.2)
    assert Room(tmp_path).measure().capacity == pytest.approx(free, rel=0.2)


def test_a_disk_that_will_hold_the_files_too_has_half_the_room(tmp_path: Path) -> None:
    alone, shared = Room(tmp_path).measure(), Room(tmp_path, copies=2).measure()
    assert shared.capacity == pytest.approx(alone.capacity / 2, rel=0.2)
