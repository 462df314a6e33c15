"""Where the clock of one pod stands against that of another, by a third that both have seen: the storage's (pure).

    first attempt   storage ─ monotonic (measured) and wall ─ monotonic (journal)  ─▶ storage ─ wall: by how much its clock is wrong
    successor       storage ─ monotonic (measured)                                 ─▶ first attempt's wall ─ successor's monotonic

A recording's zero is a moment by the wall clock of the attempt that could capture first (`epochMs`), so its successors lie where they
belong only if their nodes' clocks agree with that one. Where they do, as far as the storage lets us see, they are taken at their word:
they are better than what can be measured. Where they do not, the measured difference counts.

The storage tells whole seconds (`Date`, RFC 9110 section 6.6.1), so each answer says within which second and a round trip its clock
stands; answers together say it more closely.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_SECOND: Final = 1_000_000_000
AGREES_NS: Final = _SECOND // 2
"""By so much more than could be measured two clocks must differ, or they agree: storages have several machines."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Lowest and highest value that the difference of two clocks can have, ns."""

    low: int
    high: int

    def narrowed(self, other: Bounds) -> Bounds:
        """Both hold; `other` alone, where they cannot: some clock was set, or drifted."""
        both = Bounds(max(self.low, other.low), min(self.high, other.high))
        return both if both.low <= both.high else other

    def minus(self, other: Bounds) -> Bounds:
        """Of the difference of two such differences."""
        return Bounds(self.low - other.high, self.high - other.low)

    def shifted(self, by_ns: int) -> Bounds:
        """Against a clock that is `by_ns` behind."""
        return Bounds(self.low + by_ns, self.high + by_ns)


@dataclass(frozen=True, slots=True)
class CallClock:
    """The clock that the recording's zero was told by, against CLOCK_MONOTONIC of one boot."""

    boot: str
    """Empty = unknown."""
    offset: Bounds


def answered(date_s: float, sent_ns: int, received_ns: int) -> Bounds:
    """Another machine's Unix time minus our CLOCK_MONOTONIC, by an answer that it dated.

    Args:
        date_s: Its time in whole seconds: it was there, or up to a second later.
        sent_ns: When we asked, and when the answer was here.
    """
    date = round(date_s * _SECOND)
    return Bounds(date - received_ns, date + _SECOND - sent_ns)


def wall_offset(journalled_ns: int, boot: str, call: CallClock | None) -> int:
    """Unix time minus CLOCK_MONOTONIC of a process, by the clock that the recording's zero was told by.

    Args:
        journalled_ns: The same by its own wall clock.
        boot: Which boot its monotonic time counts from.
        call: None = its own wall clock is that clock, or nothing is known of another.
    """
    if call is None or (boot and call.boot and boot != call.boot):
        return journalled_ns
    low, high = call.offset.low, call.offset.high
    agrees = low - AGREES_NS <= journalled_ns <= high + AGREES_NS
    return journalled_ns if agrees else (low + high) // 2
