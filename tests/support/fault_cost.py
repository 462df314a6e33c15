"""What a fault cost, by the serial numbers of frames: captured media that is lost, and time until capture went on.

Counted are pictures that libwebrtc took. A publisher without a processor leaves some out, which is nobody's loss.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .ledger import Ledger
from .promises import CLUSTER_FAULTS, Promise
from .recording_check import Recorded


@dataclass(frozen=True, slots=True)
class Cost:
    """Two numbers that are never added up."""

    lost_seconds: float
    """Pictures that were sent before the fault and are missing, back from the fault."""
    gap_seconds: float
    """Longest stretch without pictures from the fault on; infinite where nobody was to go on."""

    def __str__(self) -> str:
        gap = "" if self.gap_seconds == math.inf else f", gap {self.gap_seconds:.2f} s"
        return f"lost {self.lost_seconds:.2f} s{gap}"

    def beyond(self, promise: Promise) -> list[str]:
        """What is more than was promised."""
        found = []
        if self.lost_seconds > promise.lost:
            found.append(f"{self.lost_seconds:.2f} s of captured media lost, {promise.lost:g} may be")
        if promise.gap is not None and self.gap_seconds > promise.gap:
            found.append(f"{self.gap_seconds:.2f} s until capture went on, {promise.gap:g} may be")
        return found


class Costs:
    """What faults cost in one test run, for its summary."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.rows: list[dict[str, Any]] = []

    def judge(self, fault: str, *costs: Cost) -> None:
        """Remember what a fault of `CLUSTER_FAULTS` cost, each time that it struck; then hold it to what it may.

        Raises:
            AssertionError: It was more.
        """
        self.lines.append(f"{fault}: {'; '.join(map(str, costs))}")
        for cost in costs:
            gap = None if cost.gap_seconds == math.inf else cost.gap_seconds
            self.rows.append({"fault": fault, "lost": cost.lost_seconds, "gap": gap})
        beyond = [text for cost in costs for text in cost.beyond(CLUSTER_FAULTS[fault])]
        assert not beyond, f"{fault}: {'; '.join(beyond)}"


def last_sent(ledger: Ledger, who: str = "alice") -> int:
    """The picture that this person's camera sent last."""
    return max(ledger.sent(who, "camera").frames)


def sent_by(ledger: Ledger, who: str = "alice") -> list[int]:
    """All pictures of a person's camera that libwebrtc took from us, encoded, in order."""
    return sorted(serial for serial, frame in ledger.sent(who, "camera").frames.items() if frame.digest)


def serials_of(recorded: Recorded, who: str = "alice") -> list[int]:
    """All pictures of a person's camera that files hold, in order."""
    films = (checked.media.film for checked in recorded.of(who))
    return sorted({serial for film in films if film for serial in film.serials})


def cost_of(serials: Iterable[int], fault: int, fps: int, sent: Sequence[int]) -> Cost:
    """What a fault right after picture `fault` cost of those that were `sent` (ascending)."""
    places = {serial: place for place, serial in enumerate(sent)}
    held = sorted(places[serial] for serial in serials)
    last = bisect_right(sent, fault) - 1
    before = [place for place in held if place <= last]
    after = [place for place in held if place > last]
    assert before, "nothing from before the fault is there"
    assert after, "nothing from after the fault is there"
    steps = zip([last, *after], after, strict=False)
    return Cost((last - before[-1]) / fps, (max(later - earlier for earlier, later in steps) - 1) / fps)


def missing(serials: Iterable[int], sent: Sequence[int]) -> list[int]:
    """Pictures that were sent and are not there, between the first and the last that are."""
    held = set(serials)
    return [serial for serial in sent if min(held) <= serial <= max(held) and serial not in held]
