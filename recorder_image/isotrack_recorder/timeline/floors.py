"""Ages of frames: arrival minus ticks, both in nanoseconds. The smallest age of some seconds is their floor.

Bursts and jitter only ever raise ages, so the floor moves only with clocks, the way, or a sender that stood still.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from .index import Bucket, Start
from .placement import SECOND


def age(bucket: Bucket, clock_rate: int) -> int:
    """Age of the frame of a bucket that travelled least."""
    return bucket.best_arrival_ns - bucket.best_ticks * SECOND // clock_rate


class Floors:
    """Floors of one log; stretches are what lies between pauses, stalls and new bases."""

    __slots__ = ("_ages", "_seconds", "stretches")

    def __init__(self, buckets: Sequence[Bucket], clock_rate: int) -> None:
        self._ages = [age(bucket, clock_rate) for bucket in buckets]
        self._seconds = [bucket.second for bucket in buckets]
        self.stretches: list[int] = []
        """Number of the stretch of each bucket."""
        for bucket in buckets:
            self.stretches.append((self.stretches[-1] if self.stretches else 0) + (bucket.start is not Start.ON))

    def floor(self, first: int, last: int, stretch: int) -> int | None:
        """Smallest age within two seconds (both included) and one stretch; None where it has no frames."""
        return min(self._within(first, last, stretch), default=None)

    def ceiling(self, first: int, last: int, stretch: int) -> int | None:
        """Largest of the buckets' ages, likewise."""
        return max(self._within(first, last, stretch), default=None)

    def _within(self, first: int, last: int, stretch: int) -> list[int]:
        low, high = bisect_left(self._seconds, first), bisect_right(self._seconds, last)
        return [self._ages[i] for i in range(low, high) if self.stretches[i] == stretch]
