"""Start servers that outlive the call that started them, know them again, and end them by their id.

A process is known by (pid, start time in clock ticks since boot): a pid alone may have been given to somebody else by
the time we want to stop it. Daemons get a session of their own, no terminal and a log file, so that the command which
started them can end. Readiness is asked for with a deadline, and a server that ends early is reported with its log.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import StartError
from .paths import tail

PR_SET_PDEATHSIG = 1
"""linux/prctl.h"""


@dataclass(frozen=True, slots=True)
class Process:
    """A process of ours, living or not."""

    pid: int
    start_ticks: int
    """Field 22 of /proc/PID/stat (proc_pid_stat(5)); 0 when the process was gone before we could read it."""

    @classmethod
    def of(cls, pid: int) -> Process:
        """Remember a process that runs now."""
        return cls(pid, _start_ticks(pid) or 0)

    @property
    def alive(self) -> bool:
        """Whether this very process still runs; zombies do not."""
        return bool(self.start_ticks) and _start_ticks(self.pid) == self.start_ticks

    def signal(self, number: signal.Signals) -> None:
        """Send a signal if the process still is the one we know."""
        if self.alive:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return

    def stop(self, grace_seconds: float = 5.0) -> None:
        """Ask it to end, then make it; returns once it is gone."""
        self.signal(signal.SIGTERM)
        if not wait_until(lambda: not self.alive, grace_seconds):
            self.signal(signal.SIGKILL)
            wait_until(lambda: not self.alive, 30.0)


def _start_ticks(pid: int) -> int | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    state, *fields = text.rpartition(")")[2].split()  # the name before it may hold blanks and brackets
    return None if state in "ZX" else int(fields[18])


def wait_until(condition: Callable[[], bool], seconds: float, interval: float = 0.02) -> bool:
    """Ask `condition` until it holds or `seconds` have passed; says which."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return condition()
        time.sleep(interval)
    return True


def _die_with_parent() -> None:
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def spawn(
    command: Sequence[str | Path],
    log: Path,
    environment: Mapping[str, str] | None = None,
    *,
    cwd: Path | None = None,
    die_with_us: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a daemon: own session, no input, output appended to `log`.

    Args:
        command: Program and arguments.
        log: Made with its folder when missing; readable by the owner only.
        environment: Replaces ours when given.
        cwd: Working directory; the log's folder when absent.
        die_with_us: Have the kernel kill it when we end, however we end (for servers of one test run).
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    # NB: the kernel ties the death signal to the *thread* that forked. From a worker thread the server would die when
    # that worker ends, long before the process does; there the owner's clean-up has to do.
    tied = die_with_us and threading.current_thread() is threading.main_thread()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=None if environment is None else dict(environment),
            cwd=cwd or log.parent,
            start_new_session=True,
            close_fds=True,
            preexec_fn=_die_with_parent if tied else None,  # noqa: PLW1509 - one prctl call, no lock is taken
        )
    finally:
        os.close(output)


def await_ready(
    name: str, child: subprocess.Popen[bytes], log: Path, ready: Callable[[], bool], seconds: float = 60.0
) -> None:
    """Return once `ready` holds.

    Raises:
        StartError: The process ended first, or the time is over; the text carries the end of the log.
    """
    if wait_until(lambda: child.poll() is not None or ready(), seconds) and child.poll() is None:
        return
    status = child.poll()
    what = f"ended with code {status}" if status is not None else f"is not ready after {seconds:g} s"
    raise StartError(f"{name} {what}. The end of {log}:\n{tail(log)}")
