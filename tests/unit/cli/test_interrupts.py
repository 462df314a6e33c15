"""Signals of a terminal, a shell and a supervisor, as a process of its own gets them."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

PROGRAM = """
import asyncio, sys
from isotrack_recorder.cli.interrupts import Interrupts

async def main():
    over = asyncio.Event()
    Interrupts(over.set, lambda: "", sys.stderr).install()
    print("ready", flush=True)
    await over.wait()

asyncio.run(main())
print("stopped", flush=True)
"""


@contextmanager
def started(ignoring: Sequence[signal.Signals]) -> Iterator[subprocess.Popen[str]]:
    """The program, started by somebody who ignores these signals; it listens."""

    def ignore() -> None:
        for number in ignoring:
            signal.signal(number, signal.SIG_IGN)

    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=ignore) as process:  # noqa: PLW1509
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_each_of_them_stops_in_good_order(number: signal.Signals) -> None:
    with started([]) as process:
        process.send_signal(number)
        assert process.communicate(timeout=60)[0] == "stopped\n"
        assert process.returncode == 0


def test_a_background_job_of_a_script_is_stopped_by_sigint() -> None:
    """Shells without job control start it with SIGINT ignored."""
    with started([signal.SIGINT]) as process:
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60)[0] == "stopped\n"


def test_nohup_goes_on_when_the_terminal_is_closed() -> None:
    with started([signal.SIGHUP]) as process:
        process.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=60)[0] == "stopped\n"
