"""Start the decoding process on one file and read what it says, whatever becomes of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from .decode import OUTPUT_BYTES
from .seen import Seen

BASE_SECONDS: Final = 60
"""Start, and a machine that is busy."""
_KEPT: Final = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "SYSTEMROOT")
"""Of our environment: credentials are no business of a process that reads what strangers wrote."""


def decode(path: Path, media_seconds: float) -> Seen:
    """Look at one file in a process of its own.

    Args:
        media_seconds: How long the file should play; it may take twice that in CPU time, and thrice on the clock.
    """
    cpu = BASE_SECONDS + int(2 * media_seconds)
    command = [sys.executable, "-m", "isotrack_recorder.verify.decode", str(path), str(cpu)]
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
    with tempfile.TemporaryFile() as output:
        try:
            code = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.DEVNULL,
                env=environment,
                timeout=BASE_SECONDS + 3 * media_seconds,
                check=False,
                start_new_session=True,  # Ctrl-C is ours: we end it
            ).returncode
        except subprocess.TimeoutExpired:
            return Seen(problem=f"was not decoded after {BASE_SECONDS + 3 * media_seconds:.0f} s")
        output.seek(0)
        text = output.read(OUTPUT_BYTES + 1)
    if code != 0:
        return Seen(problem=f"the decoder {_ending(code)}")
    try:
        return Seen.model_validate_json(text)
    except ValidationError:
        return Seen(problem="the decoder said nothing that makes sense")


def _ending(code: int) -> str:
    if code == -signal.SIGXCPU:
        return "took too much CPU time"
    if code < 0:
        return f"crashed ({signal.Signals(-code).name if -code in set(signal.Signals) else -code})"
    return f"failed with exit code {code}"
