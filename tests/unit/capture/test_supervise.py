"""Pid 1 of a container, as a real process with real signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SCRIPT = """
import os, signal, sys, time
from isotrack_recorder.pod.supervise import supervise

def work():
    {work}

sys.exit(supervise(work))
"""
LISTEN = """
    def handler(*_):
        print("told", os.getpid(), flush=True)
        if {ends}: os._exit(7)
    time.sleep({deaf})
    signal.signal(signal.SIGTERM, handler)
    print("ready", os.getpid(), flush=True)
    while True: signal.pause()
"""


@contextmanager
def supervised(work: str) -> Iterator[subprocess.Popen[str]]:
    script = SCRIPT.format(work=work.strip())
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        yield process
    finally:
        for child in children(process.pid):
            os.kill(child, signal.SIGKILL)
        process.kill()
        process.communicate()


def children(pid: int) -> list[int]:
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def said(process: subprocess.Popen[str], word: str) -> int:
    """The pid of the child that says this word next."""
    assert process.stdout
    found, pid = process.stdout.readline().split()
    assert found == word
    return int(pid)


@pytest.mark.parametrize("code", [0, 75, 137])
def test_the_code_that_the_work_chose_is_the_containers(code: int) -> None:
    with supervised(f"return {code}") as process:
        assert process.wait(60) == code


def test_killed_work_begins_again_until_it_is_a_loop() -> None:
    with supervised(LISTEN.format(deaf=0, ends=True)) as process:
        pids = []
        for _ in range(5):
            pids.append(said(process, "ready"))
            os.kill(pids[-1], signal.SIGSEGV)
        assert process.wait(60) == 128 + signal.SIGSEGV
        assert len(set(pids)) == 5


def test_sigterm_reaches_work_that_had_no_handler_when_it_came() -> None:
    with supervised(LISTEN.format(deaf=0.5, ends=True)) as process:
        while not children(process.pid):
            pass
        process.terminate()
        assert process.wait(60) == 7  # as the handler has it, which may run before the work says that it is ready
        assert process.stdout
        assert "told" in process.stdout.read()


def test_work_that_is_killed_while_it_ends_begins_again_and_is_told_again() -> None:
    """What is left in the spool is still to be shipped, and the grace period runs."""
    with supervised(LISTEN.format(deaf=0, ends=False)) as process:
        first = said(process, "ready")
        process.terminate()
        assert said(process, "told") == first
        os.kill(first, signal.SIGKILL)
        second = said(process, "ready")
        assert second != first
        assert said(process, "told") == second


def test_orphans_of_the_container_are_reaped() -> None:
    work = """
    if os.fork() == 0: os._exit(3)
    return 0
    """
    with supervised(work) as process:
        assert process.wait(60) == 0
