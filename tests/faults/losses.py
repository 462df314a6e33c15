"""What is missing between what was sent and what was recorded, and which kill it belongs to (pure).

    sent      ──┬──┬──┬──┬──┬──┬──┬──┬──┬──┬──┬──┬──┬──▶
    recorded  ──┴──┘        ✝ kill              └──┴──▶
                   │◀─lost─▶│◀──────gap────────▶│

`lost` had been sent, and all but the last milliseconds of it received, before the process died: captured media that was lost.
`gap` was sent while nobody was there to receive it. Two numbers, never one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

from .evidence import Evidence, Kill, Placed, Source

CAN_LOSE: Final = ("recorder", "pod", "handed over")
"""Victims whose death may cost media."""
NEAR_SECONDS: Final = 0.15
"""A kill belongs to a hole at whose edge it lies: what is sent at that instant is on its way through the SFU."""


AFTER_END_SECONDS: Final = 1.0
"""A kill after the call costs what was not on the disk yet when the call ended."""


@dataclass(frozen=True, slots=True)
class Hole:
    """Serials in a row that should be in the bucket and are not."""

    source: Source
    serials: tuple[int, ...]
    began: float
    """When the last recorded payload before it was sent (or the obligation began)."""
    ended: float
    """When the first recorded one after it was sent (or the obligation ended)."""
    times_ms: tuple[float, ...]
    """Where on the call's timeline each serial would be."""
    kills: tuple[Kill, ...] = ()
    at_an_end: bool = False
    """Nothing of this source was recorded before it, or nothing behind it."""

    @property
    def lost_seconds(self) -> float:
        """Captured before the first of its kills, and gone."""
        return max(0.0, min(kill.at for kill in self.kills) - self.began) if self.kills else self.ended - self.began

    @property
    def gap_seconds(self) -> float:
        """From the last of its kills until media is recorded again."""
        return max(0.0, self.ended - max(kill.at for kill in self.kills)) if self.kills else 0.0


class Loss(NamedTuple):
    """What one death cost, over all sources."""

    victim: str
    kills: int
    """Kills in a row without anything recorded between them."""
    lost_seconds: float
    gap_seconds: float


def holes(evidence: Evidence) -> list[Hole]:
    """All holes of all sources, in order of their beginning."""
    found = [hole for source in evidence.published for hole in _holes_of(evidence, source)]
    return sorted(found, key=lambda hole: hole.began)


def losses(evidence: Evidence) -> list[Loss]:
    """What each kill cost; kills that cost nothing are there, too. Holes of several sources at one kill count once."""
    found: list[Loss] = []
    by_kills: dict[tuple[Kill, ...], list[Hole]] = {}
    for hole in holes(evidence):
        if hole.kills:
            by_kills.setdefault(hole.kills, []).append(hole)
    for group, rows in by_kills.items():
        victim = "pod" if any(kill.victim == "pod" for kill in group) else group[0].victim
        lost, gap = max(row.lost_seconds for row in rows), max(row.gap_seconds for row in rows)
        found.append(Loss(victim, len(group), lost, gap))
    counted = {kill for group in by_kills for kill in group}
    found += [Loss(kill.victim, 1, 0.0, 0.0) for kill in evidence.kills if kill not in counted]
    return found


def _holes_of(evidence: Evidence, source: Source) -> Iterator[Hole]:
    published = evidence.published[source]
    placed = positions(evidence, source)
    begin, end = evidence.obliged
    wanted = [serial for serial, at in sorted(published.sent.items()) if begin <= at <= end]
    run: list[int] = []
    for serial in [*wanted, None]:
        if serial is not None and serial not in placed:
            run.append(serial)
        elif run:
            yield _hole(evidence, source, run, placed)
            run = []


def positions(evidence: Evidence, source: Source) -> dict[int, float]:
    """Recorded serials of a source with their place on the timeline, over all files."""
    return {p.serial: p.at_ms for track in evidence.recorded if track.source == source for p in track.placed}


def _hole(evidence: Evidence, source: Source, run: Sequence[int], placed: Mapping[int, float]) -> Hole:
    sent = evidence.published[source].sent
    before = max((serial for serial in placed if serial < run[0]), default=None)
    after = min((serial for serial in placed if serial > run[-1]), default=None)
    began = evidence.obliged[0] if before is None else sent[before]
    ended = evidence.obliged[1] if after is None else sent[after]
    reach = ended + (NEAR_SECONDS if after is not None else AFTER_END_SECONDS)
    kills = tuple(
        kill for kill in evidence.kills if kill.victim in CAN_LOSE and began - NEAR_SECONDS <= kill.at <= reach
    )
    ends = [Placed(serial, placed[serial]) for serial in (before, after) if serial is not None]
    times = tuple(_time(evidence, source, serial, ends) for serial in run)
    return Hole(source, tuple(run), began, ended, times, kills, at_an_end=len(ends) < 2)


def _time(evidence: Evidence, source: Source, serial: int, ends: Sequence[Placed]) -> float:
    """Place a serial that was not recorded: between its recorded neighbours, else by the clock."""
    if len(ends) == 2:
        first, last = ends
        return first.at_ms + (serial - first.serial) * (last.at_ms - first.at_ms) / (last.serial - first.serial)
    published = evidence.published[source]
    if ends:
        return ends[0].at_ms + (serial - ends[0].serial) * 1000 / published.per_second
    return (published.sent[serial] - evidence.zero) * 1000


def histogram(values: Sequence[float], edges: Sequence[float]) -> list[int]:
    """How many values lie in each half-open interval (edge, next edge]; the first one is closed below."""
    counts = [0] * (len(edges) - 1)
    for value in values:
        for number, (low, high) in enumerate(pairwise(edges)):
            if low < value <= high or (number == 0 and value == low):
                counts[number] += 1
    return counts
