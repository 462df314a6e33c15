"""Find where a sender stood still without saying so: sound is stamped by counting samples, so ticks fall behind.

A long stall shows in the frames (`index.STALL_NS`); many short ones, an overloaded sender, show in its reports: their
residuals rise. Either counts only if the floor of ages rises as well and stays: what catches up was held up on the way, or is
pushed out faster than it should be, and lies best where its ticks say. Behind a stall the timeline may jump ahead.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from .floors import Floors, age
from .index import STALL_NS, Bucket, Start
from .placement import SECOND
from .reports import Report, residual

_RISE_NS: Final = 40_000_000
"""Less is noise of the reports."""
_BEFORE_SECONDS: Final = 5
_SETTLED_NS: Final = 20_000_000
_REPORT_SECONDS: Final = 6
"""Reports so long after a stall tell whether it was one."""


def mark_stalls(
    buckets: Sequence[Bucket], reports: Sequence[Report], clock_rate: int, look_ahead_seconds: int
) -> list[Bucket]:
    """Return the buckets with AFTER_STALL where the timeline may jump ahead, and nowhere else.

    Args:
        reports: In order of arrival.
        look_ahead_seconds: How long after a bucket what arrives may still decide about it.
    """
    search = _Search(buckets, reports, clock_rate, look_ahead_seconds)
    marked = [
        bucket._replace(start=Start.ON) if bucket.start is Start.AFTER_STALL and not search.holds(i) else bucket
        for i, bucket in enumerate(buckets)
    ]
    for i in search.between_reports():
        if marked[i].start is Start.ON:
            marked[i] = marked[i]._replace(start=Start.AFTER_STALL)
    return marked


class _Search:
    def __init__(
        self, buckets: Sequence[Bucket], reports: Sequence[Report], clock_rate: int, look_ahead_seconds: int
    ) -> None:
        self._buckets = buckets
        self._reports = reports
        self._rate = clock_rate
        self._look_ahead = look_ahead_seconds
        through_stalls = [b._replace(start=Start.ON) if b.start is Start.AFTER_STALL else b for b in buckets]
        self._floors = Floors(through_stalls, clock_rate)
        self._seconds = [bucket.second for bucket in buckets]
        self._arrivals = [bucket.arrival_ns for bucket in buckets]
        self._report_arrivals = [report.arrival_ns for report in reports]

    def holds(self, i: int) -> bool:
        """Whether the frames from bucket `i` on stay behind, and no report says that only the way grew longer."""
        rise = self._rise(i)
        if rise < STALL_NS // 2:
            return False
        told = self._told(i)
        return told is None or told >= rise // 2

    def between_reports(self) -> list[int]:
        """Buckets that follow stalls which only two successive reports tell of."""
        found = []
        for before, after in pairwise(self._reports):
            rise = residual(after, self._rate) - residual(before, self._rate)
            if rise < _RISE_NS:
                continue
            decided = after.arrival_ns // SECOND
            # NB: strictly between the two, or the first of them would speak for what comes after the stall.
            low = bisect_right(self._arrivals, before.arrival_ns)
            low = max(low, bisect_left(self._seconds, decided - self._look_ahead), 1)
            within = range(low, bisect_right(self._arrivals, after.arrival_ns))
            if not within or any(self._buckets[i].start is not Start.ON for i in within):
                continue  # the frames themselves tell
            where = self._settled(within)
            if self._rise(where, before.arrival_ns // SECOND) >= rise // 2:
                found.append(where)
        return found

    def _rise(self, i: int, since: int | None = None) -> int:
        """By how much the floor ahead of bucket `i` exceeds the one behind it (or behind second `since`)."""
        second, stretch = self._seconds[i], self._floors.stretches[i]
        last = second - 1 if since is None else since
        earlier = self._floors.floor(last - _BEFORE_SECONDS, last, stretch)
        before = age(self._buckets[i - 1], self._rate) if i and self._floors.stretches[i - 1] == stretch else None
        known = [floor for floor in (earlier, before if since is None else None) if floor is not None]
        ahead = min(
            age(self._buckets[j], self._rate)
            for j in range(i, bisect_right(self._seconds, second + self._look_ahead))
            if self._floors.stretches[j] == stretch
        )
        return ahead - min(known) if known else 0

    def _told(self, i: int) -> int | None:
        """Rise of the reports' residuals over the moment before bucket `i`; None where there are no reports on both sides."""
        at = bisect_right(self._report_arrivals, self._buckets[i].arrival_ns)
        limit = (self._seconds[i] + _REPORT_SECONDS) * SECOND
        if not at > 0:
            return None
        for report in self._reports[at:]:
            if report.arrival_ns > limit:
                return None
            if report.ticks >= self._buckets[i].ticks:  # older ones, passed on late, speak of frames before
                return residual(report, self._rate) - residual(self._reports[at - 1], self._rate)
        return None

    def _settled(self, within: range) -> int:
        """First bucket from which on all frames are as late as the last ones: the stall is over there.

        NB: not earlier: what is placed by what became true after it would seem to arrive before it was sent.
        """
        where = within[-1]
        least = age(self._buckets[where], self._rate) - _SETTLED_NS
        for i in reversed(within):
            if age(self._buckets[i], self._rate) < least:
                break
            where = i
        return where
