"""The spool's one writer: what it queued is on disk after a flush, whole or not at all."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotrack_recorder.spool import writer as module
from isotrack_recorder.spool.journal import decode_journal
from isotrack_recorder.spool.records import MAGIC, MAX_FRAME_BYTES, Record, decode_records
from isotrack_recorder.spool.writer import SpoolWriter, write_all


def frames_of(folder: Path, track: str) -> list[Record]:
    """Every frame of a track, over its segments."""
    logs = sorted(folder.glob(f"{track}.*.log"))
    return [record for log in logs for record, _ in decode_records(log.read_bytes())]


def events_of(folder: Path) -> list[str]:
    """Names of the journal's events."""
    return [event["e"] for event in decode_journal((folder / "journal.ndjson").read_bytes())]


def test_frames_and_facts_are_on_disk_after_a_flush(tmp_path: Path) -> None:
    spool = SpoolWriter(tmp_path / "spool")
    log = spool.open_track()
    spool.journal("track", 5, track=log.name)
    log.append(-90, 7, 1, b"frame")
    assert not list(spool.folder.glob("*.log")), "queued only"
    spool.flush()
    assert frames_of(spool.folder, "t0001") == [Record(-90, 7, 1, b"frame")]
    assert events_of(spool.folder) == ["track"]
    spool.close()


def test_what_was_taken_is_counted_to_the_byte(tmp_path: Path) -> None:
    spool = SpoolWriter(tmp_path)
    log = spool.open_track()
    spool.journal("track", 5, track=log.name)
    for number in range(3):
        log.append(number, 7, 1, bytes(100))
    spool.close()
    files = [*spool.folder.glob("*.log"), spool.folder / "journal.ndjson"]
    assert spool.taken == sum(file.stat().st_size for file in files) - len(MAGIC)


def test_each_process_gets_an_incarnation_of_its_own(tmp_path: Path) -> None:
    numbers = [SpoolWriter(tmp_path).incarnation for _ in range(3)]
    assert numbers == [1, 2, 3]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["i0001", "i0002", "i0003"]


def test_segments_roll_at_their_size_and_keep_the_order(tmp_path: Path) -> None:
    spool = SpoolWriter(tmp_path, segment_bytes=1000)
    log = spool.open_track()
    for number in range(30):
        log.append(number, number, 0, bytes(100))
        spool.flush()
    spool.close()
    assert len(list(spool.folder.glob("t0001.*.log"))) == 4
    assert [record.timestamp for record in frames_of(spool.folder, "t0001")] == list(range(30))


def test_a_track_that_queues_too_much_is_written_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_QUEUED_BYTES", 1000)
    spool = SpoolWriter(tmp_path)
    log = spool.open_track()
    for number in range(50):
        log.append(number, 0, 0, bytes(100))
    spool.await_written()
    assert len(frames_of(spool.folder, "t0001")) >= 40
    spool.close()


class StalledDisk:
    """A disk on which writes wait until they are let go."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.reached, self.free = threading.Event(), threading.Event()
        write = module.write_all

        def stalled(fd: int, buffers: Sequence[bytes]) -> None:
            self.reached.set()
            assert self.free.wait(60)
            write(fd, buffers)

        patch.setattr(module, "write_all", stalled)


def test_a_disk_that_stalls_does_not_keep_the_loop_waiting_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = StalledDisk(monkeypatch)
    spool = SpoolWriter(tmp_path)
    log = spool.open_track()
    for number in range(100):
        log.append(number, 0, 0, bytes(100))
        spool.flush_soon()  # returns, or this test hangs
    assert disk.reached.wait(60)
    assert not frames_of(spool.folder, "t0001")
    disk.free.set()
    spool.close()
    assert [record.timestamp for record in frames_of(spool.folder, "t0001")] == list(range(100))


def test_memory_stays_bounded_while_a_disk_stalls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the loop waits, as for any disk that is too slow for good."""
    monkeypatch.setattr(module, "MAX_PENDING_BYTES", 1000)
    disk = StalledDisk(monkeypatch)
    spool = SpoolWriter(tmp_path)
    log = spool.open_track()
    taken: list[int] = []

    def record() -> None:
        for number in range(50):
            log.append(number, 0, 0, bytes(200))
            spool.flush_soon()
            taken.append(number)

    recording = threading.Thread(target=record)
    recording.start()
    assert disk.reached.wait(60)
    recording.join(0.2)
    assert recording.is_alive()
    assert len(taken) <= 5
    disk.free.set()
    recording.join(60)
    spool.close()
    assert [record.timestamp for record in frames_of(spool.folder, "t0001")] == list(range(50))


def test_a_spool_that_is_closed_takes_a_further_flush(tmp_path: Path) -> None:
    """An interrupt may ask for one at any time."""
    spool = SpoolWriter(tmp_path)
    spool.close()
    spool.flush()
    spool.flush_soon()


def test_frames_that_no_call_has_are_not_taken(tmp_path: Path) -> None:
    spool = SpoolWriter(tmp_path)
    log = spool.open_track()
    log.append(0, 0, 0, bytes(MAX_FRAME_BYTES + 1))
    spool.close()
    assert log.frames == 0
    assert not list(spool.folder.glob("*.log"))


@given(buffers=st.lists(st.binary(max_size=50), max_size=30), limit=st.integers(1, 64))
def test_partial_writes_lose_and_repeat_nothing(
    tmp_path_factory: pytest.TempPathFactory, buffers: list[bytes], limit: int
) -> None:
    """The kernel may take any part of what it is given."""
    path = tmp_path_factory.mktemp("writes") / "file"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "writev", lambda fd, given: os.write(fd, b"".join(given)[:limit]))
        write_all(fd, buffers)
    os.close(fd)
    assert path.read_bytes() == b"".join(buffers)


def test_a_full_disk_leaves_whole_records_and_says_why(tmp_path: Path) -> None:
    """A file size limit stands for the full disk: the write fails half way, as there. In a child: the limit is for ever."""
    pid = os.fork()
    if pid == 0:
        import resource
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
        spool = SpoolWriter(tmp_path)
        log = spool.open_track()
        for number in range(100):
            log.append(number, 0, 0, bytes(10_000))
            spool.flush()
        spool.journal("stop", 9, reason="InternalError", failed=spool.failure is not None)
        spool.close()
        os._exit(0 if spool.failure is not None else 3)
    assert os.waitpid(pid, 0)[1] == 0
    folder = tmp_path / "i0001"
    frames = frames_of(folder, "t0001")
    assert [record.timestamp for record in frames] == list(range(len(frames)))
    assert 25 <= len(frames) < 30
    file = folder / "t0001.000001.log"
    assert [end for _, end in decode_records(file.read_bytes())][-1] == file.stat().st_size, "no torn tail"
    assert events_of(folder) == ["stop"]
    assert not (folder / "reserve").exists(), "given back for the last words"


def test_lines_beyond_the_limit_are_left_out(tmp_path: Path) -> None:
    spool = SpoolWriter(tmp_path)
    spool.journal("unrecorded", 1, message="x" * 70_000)
    spool.journal("stop", 2, reason="Requested")
    spool.close()
    assert events_of(spool.folder) == ["stop"]


def test_logs_of_tracks_that_are_over_are_closed_and_take_nothing_more(tmp_path: Path) -> None:
    """A long call has more tracks in it than a process may have open files."""
    spool = SpoolWriter(tmp_path)
    before = sum(1 for _ in Path("/proc/self/fd").iterdir())
    for number in range(50):
        log = spool.open_track()
        log.append(number, 0, 0, b"last")
        log.released = True
        log.append(number, 0, 0, b"too late")
        spool.flush()
    assert sum(1 for _ in Path("/proc/self/fd").iterdir()) <= before + 1
    spool.close()
    assert [len(frames_of(spool.folder, f"t{number:04}")) for number in range(1, 51)] == [1] * 50
