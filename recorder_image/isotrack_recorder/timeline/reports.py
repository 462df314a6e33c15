"""What RTCP sender reports say of a log: how long its frames travel, by the sender's clock (RFC 3550 section 6.4.1).

A report pairs the sender's wall clock (NTP) with ticks of the same instant; the frames around it pair ticks with arrivals.
Together: transit = arrival - NTP, which holds the error of the sender's clock (perhaps hours) and the way. Two logs of one
sender share the error, so the difference of their transits is the difference of their ways.

A single report is off by tens of milliseconds, frames are held up by bursts, and ticks that count samples stand still with an
overloaded sender. So each report gives bounds: seen against the fastest frames of some seconds (too short, if ticks stood still
meanwhile) and against the slowest second beside it (too long, if that was held up). The transit is what most bounds agree on.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from statistics import median_low
from typing import Final, NamedTuple

from .index import Bucket, Start
from .placement import SECOND

_NOISE_NS: Final = 15_000_000
_OVERTAKES_NS: Final = 150_000_000
"""Frames come before the report of their instant by less: those of libwebrtc's sound by up to 40 ms."""
_NEAR_NS: Final = 60_000_000
"""Lower bounds this close to what most agree on differ by noise: their middle is taken."""


_AHEAD_OF_FRAMES_MS: Final = 60
_PLAUSIBLE_NS: Final = 150_000_000
_APART_NS: Final = 100_000_000
"""Transits of two logs that differ by less are of one clock: what is left of a smaller step is slewed away before it is heard."""
_TOGETHER_SECONDS: Final = 5
"""Reports of two logs within so many seconds tell of one clock, but for those on either side of the moment at which it was set."""
_SURE: Final = 3
"""Pairs of such reports that outweigh what the rest say; as a call begins, as few as there are reports."""
_MAX_EXCESS_NS: Final = SECOND
"""No way is longer than another one of the same sender by more: then their reports are not of one clock."""


class Report(NamedTuple):
    """One sender report as the journal holds it."""

    arrival_ns: int
    ntp: int
    """64-bit NTP time: seconds and 2**-32 s."""
    ticks: int


class Bounds(NamedTuple):
    """Between what a log's transit lies, in nanoseconds, by one report."""

    low: int
    high: int


class Transit(NamedTuple):
    """Smallest arrival minus NTP of a log, and how many reports agree on it."""

    ns: int
    reports: int


def ntp_ns(ntp: int) -> int:
    """64-bit NTP time in nanoseconds."""
    return ntp * SECOND >> 32


def residual(report: Report, clock_rate: int) -> int:
    """NTP minus nominal ticks, in nanoseconds: constant while the sender and its clocks run on."""
    return ntp_ns(report.ntp) - report.ticks * SECOND // clock_rate


def confirmed(reports: Sequence[Report], buckets: Sequence[Bucket], clock_rate: int) -> list[Report]:
    """Keep the reports that frames bear out; `arrival_ns` becomes the moment at which they did.

    Left out: what an SFU passed on again for want of a newer report, and ticks that a sender made up from the time that
    passed while it stood still (the next frames carry smaller ones).
    """
    arrivals = [bucket.arrival_ns for bucket in buckets]
    kept: list[Report] = []
    last: tuple[int, int] | None = None
    for report in reports:
        if (report.ntp, report.ticks) == last or not report.ntp >> 32:
            continue
        last = (report.ntp, report.ticks)
        at = bisect_right(arrivals, report.arrival_ns)
        if 0 < at < len(buckets) and buckets[at].start in (Start.ON, Start.AFTER_STALL):
            if report.ticks - buckets[at].ticks > clock_rate * _AHEAD_OF_FRAMES_MS // 1000:
                continue
            report = report._replace(arrival_ns=buckets[at].arrival_ns)
        if at:
            kept.append(report)
    return kept


def least_transit(reports: Sequence[Report]) -> int:
    """What no frame's way falls short of: that of the fastest report, and what an encoder's clock is off by.

    A report that tells of less says that frames came before they were sent. LiveKit makes such: it continues the newest report of the
    publisher, however old, as if ticks had run on; but those that count samples did not, where the publisher stood still, or ran faster
    as it caught up.

    Args:
        reports: As they came, not as `confirmed` has them.
    """
    return (
        min((report.arrival_ns - ntp_ns(report.ntp) for report in reports if report.ntp >> 32), default=0)
        - _OVERTAKES_NS
    )


def transit(bounds: Sequence[Bounds]) -> Transit | None:
    """What most bounds agree on; None without any."""
    if not bounds:
        return None
    # The point inside most bounds is the lower end of one of them; of equal ones the longest transit: it held up no frame.
    begins, ends = sorted(low - _NOISE_NS for low, _ in bounds), sorted(high + _NOISE_NS for _, high in bounds)
    agreed = max(
        (bisect_right(begins, point) - bisect_left(ends, point), point) for point in {low for low, _ in bounds}
    )[1]
    near = [low for low, _ in bounds if abs(low - agreed) <= _NEAR_NS]
    return Transit(median_low(near), len(near))


def of_one_clock(
    transits: Sequence[Transit | None], told: Sequence[Callable[[], Sequence[tuple[int, int]]]]
) -> Sequence[Transit | None]:
    """Transits of one session, freed from a wall clock that was set (by time synchronisation, or by a person), or a way that changed.

    What most reports of a minute agree on is the clock, or the way, before at first and the one after later, and logs do not change
    over at one moment: their reports are of different numbers and at different times. Where transits are far apart, reports that two
    logs sent together tell whether that is so.

    Args:
        told: Of each log, how to get at its reports: second, and transit at least; ascending.
    """
    known = [(transit, number) for number, transit in enumerate(transits) if transit is not None]
    base, reference = max(known, key=lambda row: row[0].reports, default=(Transit(0, 0), 0))
    found = list(transits)
    for one, number in known:
        if abs(one.ns - base.ns) > _APART_NS:
            apart = _apart(told[number](), told[reference](), min(_SURE, one.reports, base.reports))
            if apart is not None and abs(one.ns - base.ns - apart) > _APART_NS:
                found[number] = Transit(base.ns + apart, one.reports)
    return found


def _apart(told: Sequence[tuple[int, int]], others: Sequence[tuple[int, int]], least: int) -> int | None:
    """Median difference between reports and those of another log next to them in time; None where there are fewer than `least`."""
    seconds = [second for second, _ in others]
    differences = []
    for second, low in told:
        at = bisect_left(seconds, second)
        near = min(others[max(0, at - 1) : at + 1], key=lambda row: abs(row[0] - second), default=None)
        if near is not None and abs(near[0] - second) <= _TOGETHER_SECONDS:
            differences.append(low - near[1])
    return median_low(differences) if len(differences) >= least else None


def excesses(transits: Sequence[Transit | None]) -> list[int | None]:
    """How much longer than the shortest way of a session each log's way is; None where reports cannot tell.

    What one report says counts only if it fits what several say of other logs.
    """
    sure = [transit.ns for transit in transits if transit is not None and transit.reports > 1]
    if sure:
        shortest = min(sure)
        transits = [
            transit
            if transit is not None and (transit.reports > 1 or abs(transit.ns - shortest) <= _PLAUSIBLE_NS)
            else None
            for transit in transits
        ]
    known = [transit.ns for transit in transits if transit is not None]
    found = [None if transit is None else transit.ns - min(known) for transit in transits]
    return [None if excess is None or excess > _MAX_EXCESS_NS else excess for excess in found]
