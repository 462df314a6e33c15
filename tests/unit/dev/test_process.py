"""Processes: known again by more than their number, ended by their id, and reported with their log."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from isotrack_dev.cgroups import hierarchies, make, remaining
from isotrack_dev.errors import StartError, UsageError
from isotrack_dev.process import Process, await_ready, spawn, wait_until
from isotrack_dev.record import Record
from isotrack_dev.stack import Stack


def sleeper(tmp_path: Path, code: str = "") -> subprocess.Popen[bytes]:
    ready = tmp_path / "ready"
    script = f"import signal, time, pathlib\n{code}\npathlib.Path({str(ready)!r}).touch()\ntime.sleep(60)"
    child = spawn([sys.executable, "-c", script], tmp_path / "log", die_with_us=True)
    assert wait_until(ready.exists, 60)
    return child


def test_stop_asks_first(tmp_path: Path) -> None:
    child = sleeper(tmp_path)
    Process.of(child.pid).stop()
    assert child.wait(60) == -signal.SIGTERM


def test_stop_kills_what_does_not_listen(tmp_path: Path) -> None:
    child = sleeper(tmp_path, "signal.signal(signal.SIGTERM, signal.SIG_IGN)")
    Process.of(child.pid).stop(grace_seconds=0.1)
    assert child.wait(60) == -signal.SIGKILL


def test_a_process_with_the_same_number_but_another_start_is_left_alone(tmp_path: Path) -> None:
    child = sleeper(tmp_path)
    known = Process.of(child.pid)
    stranger = Process(known.pid, known.start_ticks + 1)
    assert known.alive
    assert not stranger.alive
    stranger.stop()
    assert known.alive
    known.stop()
    child.wait(60)
    assert not known.alive


def test_an_unreaped_process_does_not_count_as_alive(tmp_path: Path) -> None:
    child = spawn(["true"], tmp_path / "log")
    assert wait_until(lambda: not Process.of(child.pid).alive, 60)
    child.wait()


def test_early_end_is_reported_at_once_with_the_log(tmp_path: Path) -> None:
    child = spawn(["sh", "-c", "echo cannot bind; exit 3"], tmp_path / "log")
    started = time.monotonic()
    with pytest.raises(StartError, match=r"thing ended with code 3(?s:.)*cannot bind"):
        await_ready("thing", child, tmp_path / "log", lambda: False, seconds=300)
    assert time.monotonic() - started < 60


def test_silence_is_reported_after_the_deadline(tmp_path: Path) -> None:
    child = sleeper(tmp_path)
    with pytest.raises(StartError, match=r"not ready after 0\.05 s"):
        await_ready("thing", child, tmp_path / "log", lambda: False, seconds=0.05)
    Process.of(child.pid).stop()
    child.wait(60)


def test_logs_are_private(tmp_path: Path) -> None:
    spawn(["true"], tmp_path / "deep" / "log").wait()
    assert (tmp_path / "deep" / "log").stat().st_mode & 0o077 == 0


def test_record_reads_back(tmp_path: Path) -> None:
    record = Record("x", 3, Process(1, 2), Process(3, 4), 5.5, {"etcd": Process(6, 7)})
    record.write(tmp_path / "stack.json")
    assert Record.read(tmp_path / "stack.json") == record
    assert Record.read(tmp_path / "none.json") is None


def test_stack_that_does_not_run_says_how_to_start_it(tmp_path: Path) -> None:
    stack = Stack("x", tmp_path / "x")
    assert not stack.running
    with pytest.raises(UsageError, match="isotrack_dev up --name x"):
        stack.info()
    with pytest.raises(UsageError, match="it has: none"):
        stack.log("../../etc/passwd")


def test_cgroup_v1_subtree_can_hold_processes(tmp_path: Path) -> None:
    """An empty cpuset takes none, so it starts as a copy of its parent."""
    for controller in ("cpuset", "memory"):
        (tmp_path / controller / "isotrack-x").mkdir(parents=True)
    for setting, value in (("cpuset.cpus", "0-3\n"), ("cpuset.mems", "0\n")):
        (tmp_path / "cpuset" / setting).write_text(value)
        (tmp_path / "cpuset" / "isotrack-x" / setting).write_text("\n")
    make("x", tmp_path)
    assert (tmp_path / "cpuset" / "isotrack-x" / "cpuset.cpus").read_text() == "0-3\n"
    assert {path.parent.name for path in remaining("x", tmp_path)} == {"cpuset", "memory"}


def test_cgroup_v2_is_one_hierarchy_with_its_controllers_handed_down(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu memory\n")
    (tmp_path / "system.slice").mkdir()
    make("x", tmp_path)
    assert hierarchies(tmp_path) == [tmp_path]
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+memory"  # one write per controller, the last one here
    assert remaining("x", tmp_path) == [tmp_path / "isotrack-x"]
