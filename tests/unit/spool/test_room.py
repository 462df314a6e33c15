"""How much room a spool has, by a real disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from isotrack_recorder.spool.room import Room, folder_bytes
from isotrack_recorder.spool.writer import SpoolWriter


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
