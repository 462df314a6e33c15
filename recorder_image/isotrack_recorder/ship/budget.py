"""How much may be muxed before it is sent (pure).

What is muxed lies on the disk a second time until its part was sent and its piece of the spool given back. A hundred people's minute
is a gigabyte, so what all sessions together may add at a time is bounded twice: by a total, and by the room that is there. Where room is tight
(a storage that was away has filled it) as little as leads on is made, for one session after the other, and saved at once, so that the
spool gives back what went into parts before more is made:

    0 %                                       60 %            70 %                          97 %
    ├──────────────────────────────────────────┼───────────────┼──────────────────────────────┤
    │  half of what is left up to 70 %, 64 MiB │  the same,    │  the least: a part, or       │
    │                                          │  saved at once│  a 128th of a small disk     │

So making files alone never comes to the mark at which pictures are given up (80 %). Beyond it nothing is muxed while the storage is away.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from isotrack_recorder.spool.watermarks import MIN_SEGMENT_BYTES, Usage

from .store import PART_BYTES

MOST_BYTES: Final = 64 * 1024 * 1024
"""Of all sessions: some seconds of a hundred people, and what a storage takes within seconds."""
TIGHT_FROM: Final = 0.60
SCARCE_FROM: Final = 0.80
"""What is muxed while the storage is away makes no room, and takes that of what comes."""
UP_TO: Final = 0.70
LEAST_SHARE: Final = 128
"""Part of the disk that may be muxed however full it is: else nothing would ever make room."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Of one turn over all sessions."""

    bytes: int
    """Of files; what one session decides at a time (five seconds; at its beginning up to a minute) may come on top."""
    tight: bool
    """Save what was made at once, and give back what it was made of."""
    scarce: bool = False
    """Mux nothing that cannot be sent."""


def budget_of(usage: Usage) -> Budget:
    """What may be muxed now, on a disk that is so full."""
    least = min(PART_BYTES, max(MIN_SEGMENT_BYTES, usage.capacity // LEAST_SHARE))
    room = (int(usage.capacity * UP_TO) - usage.used) // 2
    ratio = usage.ratio
    return Budget(max(least, min(MOST_BYTES, room)), ratio >= TIGHT_FROM, ratio >= SCARCE_FROM)
