"""Pid 1 of a container: runs the container's work in a child and begins it again, at once, when a signal has killed it.

The kubelet would do that, too, but it looks once a second and, from the second time on, waits for 10, 20, 40 s …; the call goes on
meanwhile. A child that ends by itself chose its exit code, and that is ours. One that is killed in a loop is left to the kubelet,
which counts and shows it.

The child is a fork: this module imports next to nothing, so pid 1 stays small and a new child starts like a new process. When the
kernel ends a container for want of memory it ends all of it (memory.oom.group), and the kubelet begins anew.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

WATCHED: Final = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT)
LISTENS_SECONDS: Final = 0.1
"""How often a child is looked at that cannot hear SIGTERM yet."""
LOOP_CRASHES: Final = 5
LOOP_SECONDS: Final = 60.0
"""So many within such a time are a loop."""
PAUSES: Final = (0.0, 0.0, 0.5, 2.0)
"""Seconds before the next child, by the number of recent crashes."""


def supervise(work: Callable[[], int]) -> int:
    """Run `work` in a child until it ends by itself; returns its exit code, in the child as well as in the parent.

    SIGTERM and SIGINT are passed on once the child has a handler for them. After LOOP_CRASHES within LOOP_SECONDS: 128 + signal.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)  # NB: before the first fork, or its end could be missed
    crashes: list[float] = []
    told = 0
    while True:
        child = os.fork()
        if child == 0:
            return _child(work)
        status, told = _wait(child, told)
        if os.WIFEXITED(status):
            return os.WEXITSTATUS(status)
        number, now = os.WTERMSIG(status), time.monotonic()
        crashes = [*(at for at in crashes if now - at < LOOP_SECONDS), now]
        _log_crash(number, len(crashes))
        if len(crashes) >= LOOP_CRASHES:
            return 128 + number
        time.sleep(PAUSES[len(crashes) - 1])


def _child(work: Callable[[], int]) -> int:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # until the work has handlers, as the kernel does it for pid 1
    signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED)
    return work()


def _wait(child: int, told: int) -> tuple[int, int]:
    """Wait for the child, reap orphans, pass on what we are `told`; returns its wait status and the signal we were told last."""
    passed = 0
    while True:
        if told != passed and _listens(child, told):
            os.kill(child, told)
            passed = told
        while (ended := _reap()) is not None:
            if ended[0] == child:
                return ended[1], told
        caught = signal.sigwaitinfo(WATCHED) if told == passed else signal.sigtimedwait(WATCHED, LISTENS_SECONDS)
        if caught is not None and caught.si_signo != signal.SIGCHLD:
            told = caught.si_signo


def _reap() -> tuple[int, int] | None:
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return (pid, status) if pid else None


def _listens(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal (proc_pid_status(5), SigCgt)."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return False
    caught = next((line.split()[1] for line in lines if line.startswith("SigCgt:")), "0")
    return bool(int(caught, 16) >> (number - 1) & 1)


def _log_crash(number: int, crashes: int) -> None:
    import logging  # not before there is something to say
    import sys

    from isotrack_recorder.logs import configure_logging

    configure_logging(os.environ, sys.stderr)
    fields = {"signal": number, "crashes": crashes, "within_s": LOOP_SECONDS}
    logging.getLogger(__name__).error("killed", extra={"fields": fields})
