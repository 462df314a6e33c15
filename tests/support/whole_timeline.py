"""A whole log placed in one go: what the timeline does group by group, for tests that look at all of a call."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from isotrack_recorder.timeline.index import Bucket, Indexer
from isotrack_recorder.timeline.placement import SECOND, ClockSource, Knot, at_knot
from isotrack_recorder.timeline.reports import Report
from isotrack_recorder.timeline.session import LogTimeline, advance, group_of, horizon_of


@dataclass(frozen=True, slots=True)
class LogClock:
    """What the timeline needs of one whole log."""

    clock_rate: int
    buckets: Sequence[Bucket]
    reports: Sequence[Report]
    """In order of arrival."""


@dataclass(frozen=True, slots=True)
class RtpMap:
    """Placement of all frames of one log."""

    clock_rate: int
    """Ticks per second."""
    knots: tuple[Knot, ...]
    """Ascending by `frame`, the first at frame 0; empty for a log without frames."""
    clock: ClockSource = "arrival"
    """What placed most of the log: RTCP sender reports, or arrival times for want of them."""
    drift_ppm: float | None = None
    """Sender's RTP clock against ours, positive where it runs fast; None while too little is known."""


class Placer:
    """Walks a map along with the frames of its log."""

    __slots__ = ("_knot", "_knots", "_next", "_rate")

    def __init__(self, clock: RtpMap) -> None:
        self._knots = clock.knots
        self._rate = clock.clock_rate
        self._knot = clock.knots[0] if clock.knots else Knot(0, 0, 0, 0)
        self._next = 1

    def place(self, frame: int, ticks: int) -> int:
        """Nanoseconds at which frame number `frame` lies. Frame numbers must not descend from call to call."""
        while self._next < len(self._knots) and self._knots[self._next].frame <= frame:
            self._knot = self._knots[self._next]
            self._next += 1
        return at_knot(self._knot, self._rate, ticks)


def place_tracks(logs: Sequence[LogClock]) -> tuple[RtpMap, ...]:
    """Map each log of one participant session, in the order given: all groups in one go."""
    timelines = [LogTimeline(log.clock_rate, Indexer(log.clock_rate)) for log in logs]
    knots: list[dict[int, Knot]] = [{} for _ in logs]
    fed = [(0, 0) for _ in logs]
    for group in sorted({group_of(bucket.second) for log in logs for bucket in log.buckets}):
        horizon = horizon_of(group)
        for number, (log, timeline) in enumerate(zip(logs, timelines)):
            bucket, report = fed[number]
            until = bisect_right(log.buckets, horizon, key=lambda bucket: bucket.second)
            timeline.indexer.buckets += log.buckets[bucket:until]
            up_to = bisect_right(log.reports, horizon, key=lambda report: report.arrival_ns // SECOND)
            for row in log.reports[report:up_to]:
                timeline.report(row)
            fed[number] = (until, up_to)
        advance(timelines, group)
        for found, timeline in zip(knots, timelines):
            found.update((knot.frame, knot) for knot in timeline.knots)
            del timeline.knots[:-1]
    return tuple(
        RtpMap(timeline.clock_rate, tuple(found.values()), timeline.clock, timeline.drift_ppm)
        for found, timeline in zip(knots, timelines)
    )
