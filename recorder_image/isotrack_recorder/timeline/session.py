"""Place all logs of one participant session on the receiver's axis, sound and pictures together.

The reference is arrival at our receiver. For each second of the call:

    floor of a log      smallest arrival minus ticks around it: where its fastest frames put it
    transit of a log    smallest arrival minus NTP, from its sender reports (`reports`); clock error + shortest way
    excess              its transit minus the smallest transit of the session: how much longer its own way is
    target of a frame   ticks + floor - excess

So what left the sender at one instant lies at one instant, whatever the ways of sound and pictures cost, how wrong the
sender's clock is, and how a burst (an SFU hands over a backlog at subscribe) holds up single frames. Without reports the excess
counts as 0. The map runs after its targets with at most 1 ms per second, and jumps only where a stream begins, begins anew, comes
back from a pause, or its sender stood still: to where the session's other logs are on their way to their targets.

Seconds are decided in groups of GROUP_SECONDS, aligned on the axis, each from exactly what arrived until LOOK_AHEAD_SECONDS after
the group: so places are a function of the spool, never of when or how often it was looked at. A LogTimeline holds the last
WINDOW_SECONDS of buckets and reports, and is plain data that can be saved between two groups.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import median_low
from typing import Final

from .floors import Floors
from .index import Bucket, Indexer, Start
from .placement import SECOND, ClockSource, Knot, at_knot
from .reports import Bounds, Report, Transit, confirmed, excesses, least_transit, of_one_clock, residual, transit
from .stalls import mark_stalls

LOOK_AHEAD_SECONDS: Final = 8
"""Whole seconds after a group that may decide the places in it."""
GROUP_SECONDS: Final = 5
"""Seconds that are decided together: what is looked at for one costs hardly less than for five."""
WINDOW_SECONDS: Final = 90
"""What arrived longer ago decides nothing: 60 s of reports, and the floors around them."""
_LOOK_BACK_SECONDS: Final = 20
"""How long the smallest age counts. Longer would bias the floor of a drifting clock (200 ppm: 4 ms)."""
_REPORT_SECONDS: Final = 60
_BESIDE_SECONDS: Final = 1
_BEHIND_SECONDS: Final = 2
_AHEAD_SECONDS: Final = 5
_UNSTEADY_NS: Final = 100_000_000
"""Where ages of neighbouring seconds differ by more, a report cannot be told against them."""
_MAX_SLEW_PPB: Final = 1_000_000
_RUNS_AHEAD_NS: Final = 200_000_000
_MAX_LAG_NS: Final = SECOND
_MAX_SQUEEZE_PPB: Final = 500_000_000
_RUNS_ON_NS: Final = 5_000_000
"""Less than this is no reason to jump."""
_DRIFT_SPAN_NS: Final = 30 * SECOND


@dataclass(slots=True)
class LogTimeline:
    """One log on its way through the seconds of the call. Fed through `indexer` and `report`, advanced by `advance`."""

    clock_rate: int
    indexer: Indexer
    reports: list[Report] = field(default_factory=list)
    last_report: tuple[int, int] = (0, 0)
    knots: list[Knot] = field(default_factory=list)
    """Those that are still needed, the newest one always."""
    knotted: int = 0
    """Knots so far."""
    last_ticks: int = 0
    """Of the last frame that is placed."""
    by_reports: int = 0
    late_ns: int = 0
    """Sum over those of them that reports placed: by how much later they lie than reports say."""
    drift_from: tuple[int, int] | None = None
    """Ticks and the receiver's clock, where the stretch begins over which the drift is measured."""
    drift: tuple[int, float] | None = None

    def report(self, report: Report) -> None:
        """Take the next sender report; an SFU may pass on the same one again."""
        pair = (report.ntp, report.ticks)
        if pair != self.last_report:
            self.last_report = pair
            self.reports.append(report)

    def places(self, frame: int, ticks: Sequence[int], limit_ns: int | None, within: tuple[int, int]) -> list[int]:
        """Nanoseconds, inside of `within`, of frames from number `frame` on, until one lies at `limit_ns` or later.

        NB: their seconds must have been decided.
        """
        found: list[int] = []
        low, high = within
        rate, at = self.clock_rate, 0
        ends = [max(0, knot.frame - frame) for knot in self.knots[1:]]
        for knot, until in zip(self.knots, (*ends, len(ticks))):
            base, ns, stretch = knot.ticks, knot.ns, knot.stretch_ppb
            for tick in ticks[at:until]:
                nominal = (tick - base) * SECOND // rate  # `at_knot`, without a call for each frame
                place = ns + nominal + nominal * stretch // SECOND
                if not low <= place <= high:
                    place = low if place < low else high
                if limit_ns is not None and place >= limit_ns:
                    return found
                found.append(place)
            at = until
        return found

    def passed(self, frame: int) -> None:
        """Nobody asks for the place of a frame before number `frame` any more."""
        knots = self.knots
        while len(knots) > 1 and knots[1].frame <= frame:
            knots.pop(0)

    @property
    def end_ns(self) -> int | None:
        """Place of the last frame that was decided; None before the first."""
        return at_knot(self.knots[-1], self.clock_rate, self.last_ticks) if self.knots else None

    @property
    def clock(self) -> ClockSource:
        """What placed most of the log."""
        return "reports" if 2 * self.by_reports > self.knotted else "arrival"

    @property
    def drift_ppm(self) -> float | None:
        """Sender's RTP clock against ours; None while too little is known."""
        return self.drift[1] if self.clock == "reports" and self.drift else None

    @property
    def late_ms(self) -> float | None:
        """How much later than reports say the log lies, on average; None while they tell too little."""
        return self.late_ns / self.by_reports / 1e6 if self.clock == "reports" else None

    def add_knot(
        self, bucket: Bucket, target: int, behind_ns: int, *, excess_ns: int | None, arrived_ns: int | None
    ) -> None:
        """Decide where the frames of a bucket lie; where it jumps, as far before its target as others of the session are.

        Args:
            excess_ns: By how much the target lies before the arrival of the fastest frames. None = reports do not tell.
            arrived_ns: When its first frame would have come had it travelled as fast as any around it: the drift is measured by that
                and not by places, which reports of other logs move as well. None = nobody knows yet.
        """
        beside = target - behind_ns
        expected = at_knot(self.knots[-1], self.clock_rate, bucket.ticks) if self.knots else beside
        if _may_jump(bucket.start, beside - expected):
            knot = Knot(bucket.frame, bucket.ticks, self._not_before_last(beside), 0)
        else:
            ahead_ns = expected - target - (excess_ns or 0)
            knot = Knot(bucket.frame, bucket.ticks, expected, _slew(target - expected, ahead_ns))
        self.knots.append(knot)
        self.knotted += 1
        if excess_ns is not None:
            self.by_reports += 1
            self.late_ns += knot.ns - target
        self.last_ticks = bucket.last_ticks
        self._measure_drift(bucket, arrived_ns, runs_on=knot.ns == expected)

    def forget(self, second: int) -> None:
        """Drop what arrived before `second`."""
        buckets = self.indexer.buckets
        del buckets[: bisect_left(buckets, second, key=lambda bucket: bucket.second)]
        del self.reports[: bisect_left(self.reports, second * SECOND, key=lambda report: report.arrival_ns)]

    def _not_before_last(self, target: int) -> int:
        """`target`, or right behind the last frame before: time never runs back."""
        last = self.end_ns
        return target if last is None else max(target, last + 1)

    def _measure_drift(self, bucket: Bucket, arrived_ns: int | None, *, runs_on: bool) -> None:
        """Compare ticks and time over the longest stretch without a jump."""
        if not runs_on:
            self.drift_from = None
        if arrived_ns is None:
            return
        if self.drift_from is None:
            self.drift_from = (bucket.ticks, arrived_ns)
            return
        span = arrived_ns - self.drift_from[1]
        if span >= max(_DRIFT_SPAN_NS, self.drift[0] if self.drift else 0):
            sent = (bucket.ticks - self.drift_from[0]) * SECOND / self.clock_rate
            self.drift = (span, round((sent / span - 1) * 1e6, 1))


def group_of(second: int) -> int:
    """Number of the group that a second belongs to."""
    return second // GROUP_SECONDS


def horizon_of(group: int) -> int:
    """Last second that has a say in a group."""
    return (group + 1) * GROUP_SECONDS - 1 + LOOK_AHEAD_SECONDS


def advance(logs: Sequence[LogTimeline], group: int) -> None:
    """Decide the seconds of one group for all logs of a session. Groups come in order.

    NB: all that arrived until `horizon_of(group)` must have been fed, and nothing later: more knowledge would decide otherwise.
    """
    first = group * GROUP_SECONDS
    seconds = range(first, first + GROUP_SECONDS)
    for log in logs:
        log.indexer.close()
    runs = [_Run(log) for log in logs if log.indexer.buckets]
    for second in seconds:
        if any(run.has(second) for run in runs):
            transits: Sequence[Transit | None] = [run.transit(second) for run in runs]
            transits = of_one_clock(transits, [partial(run.told, second) for run in runs])
            placing = list(zip(runs, excesses(transits)))
            behind = _behind([lag for run, excess in placing if (lag := run.behind(second, excess)) is not None])
            for run, excess in placing:
                run.advance(second, excess, behind)
    for log in logs:
        log.forget(first - WINDOW_SECONDS)


class _Run:
    """One log's window while a group is decided."""

    def __init__(self, log: LogTimeline) -> None:
        self._log = log
        self._rate = log.clock_rate
        buckets = log.indexer.buckets
        news = confirmed(log.reports, buckets, log.clock_rate)
        self._buckets = mark_stalls(buckets, news, log.clock_rate, LOOK_AHEAD_SECONDS)
        self._seconds = [bucket.second for bucket in buckets]
        self._floors = Floors(self._buckets, log.clock_rate)
        self._bounds, self._known_at = self._bound(news)
        self._transit: tuple[tuple[int, int], Transit | None] = ((0, 0), None)

    def has(self, second: int) -> bool:
        """Whether frames arrived in this second."""
        at = bisect_left(self._seconds, second)
        return at < len(self._seconds) and self._seconds[at] == second

    def _bound(self, reports: Sequence[Report]) -> tuple[list[Bounds], list[int]]:
        """Bounds of the transit by each usable report, and the second from which on they may be known."""
        arrivals = [bucket.arrival_ns for bucket in self._buckets]
        least = least_transit(self._log.reports)
        usable: list[tuple[int, Bounds]] = []
        for report in reports:
            at = bisect_right(arrivals, report.arrival_ns) - 1
            stretch = self._floors.stretches[at]
            # An SFU may pass on a report of some seconds ago: it speaks of the frames with its ticks.
            while at and self._floors.stretches[at - 1] == stretch and self._buckets[at].ticks > report.ticks:
                at -= 1
            second = self._buckets[at].second
            around = self._floors.floor(second - _AHEAD_SECONDS, second + _BEHIND_SECONDS, stretch)
            beside = self._floors.ceiling(second - _BESIDE_SECONDS, second + _BESIDE_SECONDS, stretch)
            ntp = residual(report, self._rate)
            if around is not None and around - ntp < least:
                continue
            if around is not None and beside is not None and beside - around <= _UNSTEADY_NS:
                usable.append(
                    (max(second + _BEHIND_SECONDS, report.arrival_ns // SECOND), Bounds(around - ntp, beside - ntp))
                )
        usable.sort(key=lambda row: row[0])
        return [bounds for _, bounds in usable], [known_at for known_at, _ in usable]

    def _within(self, second: int) -> tuple[int, int]:
        """Bounds that have a say in `second`: numbers from and until."""
        low = bisect_left(self._known_at, second - _REPORT_SECONDS)
        return low, bisect_right(self._known_at, second + LOOK_AHEAD_SECONDS)

    def told(self, second: int) -> list[tuple[int, int]]:
        """Each report that has a say in `second`: the second in which it was known, and the least that it makes of the transit."""
        low, high = self._within(second)
        return [(at, bounds.low) for at, bounds in zip(self._known_at[low:high], self._bounds[low:high])]

    def transit(self, second: int) -> Transit | None:
        """Smallest arrival minus NTP around `second`; None without reports."""
        low, high = self._within(second)
        if self._transit[0] != (low, high):
            self._transit = ((low, high), transit(self._bounds[low:high]))
        return self._transit[1]

    def behind(self, second: int, excess_ns: int | None) -> int | None:
        """How far the log lies before its target as it runs on into this second; None where it does not run on."""
        at = bisect_left(self._seconds, second)
        if not self.has(second) or not self._log.knots or self._buckets[at].start is not Start.ON:
            return None
        return self._target(at, excess_ns) - at_knot(self._log.knots[-1], self._rate, self._buckets[at].ticks)

    def advance(self, second: int, excess_ns: int | None, behind_ns: int) -> None:
        """Set the knots of this second.

        Args:
            excess_ns: None = reports do not tell.
            behind_ns: How far the logs of the session that run on lie before their targets.
        """
        for at in range(bisect_left(self._seconds, second), bisect_right(self._seconds, second)):
            bucket, target = self._buckets[at], self._target(at, excess_ns)
            # NB: looking back as `_target` does would tell too little of a drift, for before the begin there is nothing to look at;
            # and near the end there is too little ahead
            known = self._seconds[-1] >= bucket.second + LOOK_AHEAD_SECONDS
            arrived_ns = self._arrived(at, back=0) if known else None
            self._log.add_knot(bucket, target, behind_ns, excess_ns=excess_ns, arrived_ns=arrived_ns)

    def _target(self, at: int, excess_ns: int | None) -> int:
        """Where the first frame of a bucket should lie."""
        return self._arrived(at, back=_LOOK_BACK_SECONDS) - (excess_ns or 0)

    def _arrived(self, at: int, *, back: int) -> int:
        """When the first frame of a bucket would have come, had it travelled as fast as any since so many seconds and soon after."""
        bucket = self._buckets[at]
        floor = self._floors.floor(bucket.second - back, bucket.second + LOOK_AHEAD_SECONDS, self._floors.stretches[at])
        assert floor is not None, "the bucket itself is in its stretch"
        return bucket.ticks * SECOND // self._rate + floor


def _behind(lags: Sequence[int]) -> int:
    """How far before their targets a session's logs lie that run on: a way that grew longer or shorter is followed by 1 ms per second.

    What jumps in the meantime (a mute, a new track) must not be there before them, or sound and pictures come apart. 0 where none
    runs on, or what runs on does so for a reason of its own.
    """
    lag = median_low(lags) if lags else 0
    return lag if -_RUNS_AHEAD_NS <= lag <= _MAX_LAG_NS else 0


def _slew(by_ns: int, ahead_ns: int) -> int:
    """Stretch (ppb) that makes up for `by_ns` within a second, or for as much as nobody hears.

    A sender that stood still and then pushes out faster than time passes is followed faster: placed by its ticks alone it
    would lie behind its own arrival for the rest of the call. Reports are not: they may be wrong for a while.

    Args:
        ahead_ns: By how much the log lies behind the arrival of its fastest frames, as if they had come late.
    """
    if ahead_ns > _RUNS_AHEAD_NS:
        return max(-_MAX_SQUEEZE_PPB, -ahead_ns)
    return max(-_MAX_SLEW_PPB, min(_MAX_SLEW_PPB, by_ns))


def _may_jump(start: Start, by_ns: int) -> bool:
    """Sound that goes on without a gap in ticks is never squeezed, only moved on."""
    if start is Start.AFTER_STALL:
        return by_ns > _RUNS_ON_NS
    return start is Start.NEW_BASE or (start is Start.AFTER_PAUSE and abs(by_ns) > _RUNS_ON_NS)
