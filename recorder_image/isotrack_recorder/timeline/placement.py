"""RtpMap: the monotonic, piecewise linear map from a log's RTP ticks to nanoseconds.

A knot holds from its frame on, until the next knot's. Frames are told apart by their number in the log, not by ticks:
after a change of SSRC ticks may repeat. Arithmetic is integer, so that equal input gives equal bytes everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

SECOND = 1_000_000_000
"""Nanoseconds."""

ClockSource = Literal["reports", "arrival"]


class Knot(NamedTuple):
    """From frame number `frame` on, `ticks` lie at `ns` and time runs `stretch_ppb` faster than the nominal clock."""

    frame: int
    ticks: int
    ns: int
    stretch_ppb: int


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


def at_knot(knot: Knot, clock_rate: int, ticks: int) -> int:
    """Place `ticks` by one knot, in nanoseconds."""
    nominal = (ticks - knot.ticks) * SECOND // clock_rate
    return knot.ns + nominal + nominal * knot.stretch_ppb // SECOND


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
