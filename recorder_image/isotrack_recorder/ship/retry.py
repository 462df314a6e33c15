"""How long, and how often, a failing storage call is repeated.

One Patience is shared by all calls of a process. It starts without an end: while a call is being recorded an outage of any
length is waited out, the spool grows meanwhile. When the recording is over (or the pod is told to go) its owner sets a
deadline; calls that wait at that moment notice. Pauses follow "full jitter" (a uniform draw below an exponential bound), so
that many recorders do not come back at the same instant.
"""

from __future__ import annotations

import random
import threading
import time
from typing import Final

FIRST_PAUSE_SECONDS: Final = 0.5
LONGEST_PAUSE_SECONDS: Final = 10.0
"""What an outage held up begins to go out so long after its end, at the latest."""
REFUSED_PAUSE_SECONDS: Final = 30.0
"""Between tries after the storage refused us in the middle: it took us at the start, so somebody has to mend rights or keys."""


def pause_bound(failures: int) -> float:
    """Longest pause in seconds after `failures` failures in a row (at least 1)."""
    doublings = min(max(failures, 1) - 1, 16)
    return min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0**doublings)


def full_jitter(failures: int) -> float:
    """Seconds to wait after `failures` failures in a row."""
    return random.uniform(0, pause_bound(failures))


class Patience:
    """When to give up. Thread-safe: set from the event loop, waited on in worker threads."""

    def __init__(self, seconds: float | None = None, *, refused_pause_seconds: float | None = None) -> None:
        """Start with an end `seconds` from now, or without one."""
        self._changed = threading.Condition()
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self.refused_pause_seconds = refused_pause_seconds
        """None: a refusal (no bucket, access denied) is final at once. Else it is tried again this often: what worked an
        hour ago may be mended by whoever rotated a key, and meanwhile the spool keeps everything."""

    def end_within(self, seconds: float) -> None:
        """Give up `seconds` from now at the latest; an earlier end stays."""
        with self._changed:
            end = time.monotonic() + seconds
            self._deadline = end if self._deadline is None else min(self._deadline, end)
            self._changed.notify_all()

    def left(self) -> float:
        """Seconds until the end; infinity while there is none."""
        with self._changed:
            return float("inf") if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def pause(self, seconds: float) -> bool:
        """Sleep in this thread; False when the end came or would come before the pause is over.

        The pause is cut short at the end, so that a caller can report in time.
        """
        wake = time.monotonic() + seconds
        with self._changed:
            while (now := time.monotonic()) < wake:
                if self._deadline is not None and self._deadline <= now:
                    return False
                until = wake if self._deadline is None else min(wake, self._deadline)
                self._changed.wait(until - now)
            return self._deadline is None or self._deadline > time.monotonic()
