"""What an attempt has found out of the first one's clock, kept beside the spool for later processes of its agent."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Final

from isotrack_recorder.clocks import Bounds, CallClock
from isotrack_recorder.ship.checkpoint import MAX_BOOT, MAX_CLOCK_NS

log = logging.getLogger(__name__)

_MAX_BYTES: Final = 4096


def load_call_clock(path: Path) -> CallClock | None:
    """What was kept; None where there is nothing that can be used: the volume is shared with the process that parses hostile bytes."""
    try:
        with path.open("rb") as file:
            boot, low, high = json.loads(file.read(_MAX_BYTES))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    numbers = all(isinstance(value, int) and abs(value) <= MAX_CLOCK_NS for value in (low, high))
    if not numbers or low > high or not isinstance(boot, str) or len(boot) > MAX_BOOT:
        return None
    return CallClock(boot, Bounds(low, high))


def save_call_clock(path: Path, clock: CallClock) -> None:
    """Keep it. A full disk costs nothing but that a later process measures again."""
    beside = path.with_suffix(".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("w") as file:
            json.dump([clock.boot, clock.offset.low, clock.offset.high], file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        log.warning("clock was not kept", extra={"fields": {"why": error.strerror}})
