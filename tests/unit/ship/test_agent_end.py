"""The exit code of an agent is the truth about its attempt, whatever comes as it ends."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

LATE = """
import asyncio, os, signal, sys
from isotrack_recorder.pod.tasks import deaf_at_the_end

async def work():
    asyncio.get_running_loop().add_signal_handler(signal.{name}, lambda: None)
    return 75

code = asyncio.run(deaf_at_the_end(work()))
os.kill(os.getpid(), signal.{name})
sys.exit(code)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_comes_too_late_does_not_change_the_exit_code(number: signal.Signals) -> None:
    done = subprocess.run([sys.executable, "-c", LATE.format(name=number.name)], capture_output=True, timeout=60)
    assert done.returncode == 75, done.stderr
