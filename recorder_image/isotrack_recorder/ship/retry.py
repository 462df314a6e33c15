"""How long, and how often, a failing storage call is repeated.

One Patience is shared by all calls of a process. It starts without an end: while a call is being recorded an outage of any
length is waited out, the spool grows meanwhile. When the pod is told to go its owner sets a deadline; calls that wait at that moment
notice. Where there is work to finish, and nobody to say how long that takes (the files of a day are hours of it), patience ends when
the storage has failed for so long in a row: an answer begins it anew. Pauses follow "full jitter" (a uniform draw below an exponential bound), so
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

    def __init__(
        self, seconds: float | None = None, *, in_a_row: float | None = None, refused_pause_seconds: float | None = None
    ) -> None:
        """Start with an end `seconds` from now, or when calls have failed for `in_a_row` seconds, or without one."""
        self._changed = threading.Condition()
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._in_a_row = in_a_row
        self._failing_since: float | None = None
        self.refused_pause_seconds = refused_pause_seconds
        """None: a refusal (no bucket, access denied) is final at once. Else it is tried again this often: what worked an
        hour ago may be mended by whoever rotated a key, and meanwhile the spool keeps everything."""

    def end_within(self, seconds: float) -> None:
        """Give up `seconds` from now at the latest; an earlier end stays."""
        with self._changed:
            end = time.monotonic() + seconds
            self._deadline = end if self._deadline is None else min(self._deadline, end)
            self._changed.notify_all()

    def end_failing_for(self, seconds: float) -> None:
        """Give up when calls have failed for so long in a row, counted from now at the earliest; a shorter time stays."""
        with self._changed:
            self._in_a_row = seconds if self._in_a_row is None else min(self._in_a_row, seconds)
            if self._failing_since is not None:
                self._failing_since = time.monotonic()
            self._changed.notify_all()

    def failed(self) -> None:
        """A call failed, and may be repeated."""
        with self._changed:
            if self._failing_since is None:
                self._failing_since = time.monotonic()

    def answered(self) -> None:
        """A call was answered as it should be."""
        with self._changed:
            self._failing_since = None

    def left(self) -> float:
        """Seconds until the end; infinity while there is none."""
        with self._changed:
            end = self._end()
            return float("inf") if end is None else max(0.0, end - time.monotonic())

    def _end(self) -> float | None:
        """When it ends, as things are; None = never."""
        ends = [] if self._deadline is None else [self._deadline]
        if self._in_a_row is not None and self._failing_since is not None:
            ends.append(self._failing_since + self._in_a_row)
        return min(ends, default=None)

    def pause(self, seconds: float) -> bool:
        """Sleep in this thread; False when the end came or would come before the pause is over.

        The pause is cut short at the end, so that a caller can report in time.
        """
        wake = time.monotonic() + seconds
        with self._changed:
            while (now := time.monotonic()) < wake:
                end = self._end()
                if end is not None and end <= now:
                    return False
                self._changed.wait((wake if end is None else min(wake, end)) - now)
            end = self._end()
            return end is None or end > time.monotonic()
