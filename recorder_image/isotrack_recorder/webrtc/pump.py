"""When to read the socket: how long to pause after a batch. Pure.

While packets flow, reading at each arrival costs a wake-up of the process per frame or packet, which at small calls is
most of the work. Kernel timestamps keep arrival times exact, so that reading can wait: the pause is bounded by what
repair and feedback tolerate, and by the receive buffer, of which a pause may fill a quarter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

PACKET_COST_BYTES: Final = 2304
"""What the kernel charges a receive buffer for one full packet (skb overhead included)."""
MIN_PAUSE_NS: Final = 1_000_000
AT_ONCE_NS: Final = 1
"""The next round of the event loop."""
LARGEST_PACKETS: Final = 1024
"""No pause gathers more."""
ROOMY_PACKETS: Final = 1024
"""A buffer that holds so many takes the key frames of a small call at once: a long pause is no risk."""


@dataclass(frozen=True, slots=True)
class PausePolicy:
    """Bounds of the pause."""

    max_pause_ns: int
    """Where the buffer is small."""
    calm_pause_ns: int
    """Where it holds what comes meanwhile."""
    buffer_bytes: int
    """As getsockopt(SO_RCVBUF) reports it."""

    def pause_ns(self, packets: int, since_last_ns: int) -> int:
        """How long to wait before the next read.

        Args:
            packets: Read just now.
            since_last_ns: Since the read before, the time in which they came. 0 = more are waiting.
        Returns:
            Nanoseconds; 0 = wait for the socket to become readable instead.
        """
        if not packets:
            return 0
        if not since_last_ns:
            return AT_ONCE_NS
        rate = packets / max(since_last_ns, MIN_PAUSE_NS)
        holds = self.buffer_bytes / PACKET_COST_BYTES
        longest = self.calm_pause_ns if holds >= ROOMY_PACKETS else self.max_pause_ns
        return int(max(MIN_PAUSE_NS, min(longest, min(LARGEST_PACKETS, holds / 4) / rate)))
