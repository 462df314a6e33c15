"""Knots of the monotonic, piecewise linear map from a log's RTP ticks to nanoseconds.

A knot holds from its frame on, until the next knot's. Frames are told apart by their number in the log, not by ticks:
after a change of SSRC ticks may repeat. Arithmetic is integer, so that equal input gives equal bytes everywhere.
"""

from __future__ import annotations

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


def at_knot(knot: Knot, clock_rate: int, ticks: int) -> int:
    """Place `ticks` by one knot, in nanoseconds."""
    nominal = (ticks - knot.ticks) * SECOND // clock_rate
    return knot.ns + nominal + nominal * knot.stretch_ppb // SECOND
