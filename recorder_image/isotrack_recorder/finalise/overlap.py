"""Where one log takes over from another of the same track: two pods recorded it for a while, and nothing is to be there twice (pure).

    older   ──o──o──o──o──o──o──o──o──▶ (ends with its pod)
    newer            ──n──n──n──n──n──n──n──▶
                       └ first that a decoder can begin with: the older one's frames from its twin on are left out

Frames are told by what they hold: an SFU renumbers packets for each of its receivers, but passes on what is in them. So the distance
of the two logs' ticks is that at which most of their frames are alike, and of several the one that the timeline makes likeliest. Pictures change over at a key frame that both have: an SFU may send a newcomer small
pictures first. Where nothing is alike (two layers of a picture), or only silence, places decide, to half the time between two frames.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import dropwhile, pairwise
from typing import Final, NamedTuple

from isotrack_recorder.timeline.placement import SECOND

from .lanes import Placed

REACH_NS: Final = 4 * SECOND
"""How far from the newer log's first frame its twin is looked for: places in two pods differ by what their clocks do, by 3 s where one of
them is wrong. Longer holds more frames in memory, shorter leaves pods with poor clocks to places alone."""
_MOST: Final = 200
"""Frames that are compared: four seconds of sound."""
_NEARLY: Final = 0.9
"""Distances at which so much of the most is alike are as good as the best."""
_FEW: Final = 3
"""So many packets of sound, each unlike the others, are no chance: silence is alike everywhere. A picture is none by itself."""
_USUAL_NS: Final = SECOND // 50


class Shift(NamedTuple):
    """What two logs' ticks differ by."""

    ticks: int
    """Of the older one minus those of the newer one."""
    older: int
    newer: int
    """Spans of the logs for which this holds."""


class Seam(NamedTuple):
    """Where the newer log takes over."""

    kept: int
    """Frames of the older one that come before."""
    skipped: int
    """Frames of the newer one that are left out."""
    shift: Shift | None
    """None where nothing is alike."""


def seam(older: Sequence[Placed], newer: Sequence[Placed], *, pictures: bool) -> Seam | None:
    """Find where `newer` takes over; None = not among these frames.

    Args:
        older: Frames that are to be written next.
        newer: Frames of the other log, the first of which a decoder could begin with; both until REACH_NS behind that one.
    """
    if not older or not newer:
        return None
    shift = _shift_of(older, newer, 1 if pictures else _FEW)
    if shift is None:
        return _by_place(older, newer, pictures=pictures)
    at_twin = _by_twin(older, newer, shift) if pictures else None
    return at_twin or _by_ticks(older, newer, shift, pictures=pictures)


def _shift_of(older: Sequence[Placed], newer: Sequence[Placed], least: int) -> Shift | None:
    """The distance at which frames are alike, and hardly any that both have are not; None where there is none."""
    alike: dict[bytes, list[Placed]] = {}
    for placed in older:
        alike.setdefault(placed.data, []).append(placed)
    apart: dict[Shift, int] = {}
    for placed in newer[:_MOST]:
        for twin in alike.get(placed.data, ()):
            if abs(twin.ns - placed.ns) <= REACH_NS:
                apart.setdefault(Shift(twin.ticks - placed.ticks, twin.span, placed.span), abs(twin.ns - placed.ns))
    had = {(placed.span, placed.ticks): placed.data for placed in older}
    agreeing = {shift: _agreeing(had, newer[:_MOST], shift) for shift in apart}
    most = max(agreeing.values(), default=0)
    good = (shift for shift, count in agreeing.items() if count >= max(least, most * _NEARLY))
    return min(good, key=lambda shift: (apart[shift], shift), default=None)


def _agreeing(had: Mapping[tuple[int, int], bytes], newer: Sequence[Placed], shift: Shift) -> int:
    """How many frames both have at this distance, equal ones once; 0 where too many are not the same, once the first was."""
    rows = [
        (placed, had.get((shift.older, placed.ticks + shift.ticks))) for placed in newer if placed.span == shift.newer
    ]
    both = list(
        dropwhile(lambda row: row[0].data != row[1], ((placed, data) for placed, data in rows if data is not None))
    )
    same = [data for placed, data in both if placed.data == data]
    return len(set(same)) if len(same) >= len(both) * _NEARLY else 0


def _by_twin(older: Sequence[Placed], newer: Sequence[Placed], shift: Shift) -> Seam | None:
    """At the first key frame that both have."""
    at = {placed.ticks: number for number, placed in enumerate(older) if placed.span == shift.older}
    for skipped, placed in enumerate(newer):
        kept = at.get(placed.ticks + shift.ticks) if placed.key and placed.span == shift.newer else None
        if kept is not None and older[kept].data == placed.data:
            return Seam(kept, skipped, shift)
    return None


def _by_ticks(older: Sequence[Placed], newer: Sequence[Placed], shift: Shift, *, pictures: bool) -> Seam | None:
    """At the first frame, wherever the older one has it or would have it."""
    same = [number for number, placed in enumerate(older) if placed.span == shift.older]
    for skipped, placed in enumerate(newer):
        ticks = placed.ticks + shift.ticks
        if placed.span == shift.newer and ticks >= older[same[0]].ticks and (placed.key or not pictures):
            kept = next((number for number in same if older[number].ticks >= ticks), same[-1] + 1)
            return Seam(kept, skipped, shift)
    return None


def _by_place(older: Sequence[Placed], newer: Sequence[Placed], *, pictures: bool) -> Seam | None:
    slack = _slack_ns(newer)
    for skipped, placed in enumerate(newer):
        if placed.ns >= older[0].ns - slack and (placed.key or not pictures):
            return Seam(bisect_left(older, placed.ns - slack, key=lambda row: row.ns), skipped, None)
    return None


def _slack_ns(frames: Sequence[Placed]) -> int:
    """Half the time between two frames."""
    steps = sorted(second.ns - first.ns for first, second in pairwise(frames))
    return (steps[len(steps) // 2] if steps else _USUAL_NS) // 2
