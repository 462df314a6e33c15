"""Wait for something to become true, with a deadline and a reason when it does not."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(look: Callable[[], T | None], what: str, *, seconds: float = 60.0, interval: float = 0.05) -> T:
    """Ask `look` until it returns something true, and return that.

    For what can only be looked at (a folder, a bucket, /proc); where an event can be awaited, await it.

    Raises:
        AssertionError: It did not within `seconds`; the text says `what` was awaited and what was seen last.
    """
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}; last seen: {str(found)[:1000]}")
        time.sleep(interval)
