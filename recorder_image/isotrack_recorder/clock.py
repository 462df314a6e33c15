"""Time as an argument: whoever waits or stamps is given a Clock, so that a test of a minute takes no minute."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Final, Protocol

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")


class Clock(Protocol):
    """What waits and stamps need."""

    def monotonic_ns(self) -> int:
        """CLOCK_MONOTONIC, as the kernel stamps packets: nanoseconds."""
        ...

    def wall_ns(self) -> int:
        """Unix time in nanoseconds. It may be set at any time, by any amount."""
        ...

    def boot(self) -> str:
        """Which boot of the machine monotonic time counts from; empty where nothing tells."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""


class SystemClock:
    """The machine's own clocks."""

    def monotonic_ns(self) -> int:
        """See Clock."""
        return time.monotonic_ns()

    def wall_ns(self) -> int:
        """See Clock."""
        return time.time_ns()

    def boot(self) -> str:
        """See Clock."""
        return boot_id()

    async def sleep(self, seconds: float) -> None:
        """See Clock."""
        await asyncio.sleep(seconds)


def boot_id() -> str:
    """The running boot of this machine (proc(5), random/boot_id); empty where there is no such file."""
    try:
        return _BOOT_ID.read_text("ascii").strip()[:64]
    except (OSError, ValueError):
        return ""
