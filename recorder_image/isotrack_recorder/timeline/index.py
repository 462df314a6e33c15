"""Reduce a log's frames to one Bucket per second: all that the timeline needs of them.

A two-hour audio track of 360 000 frames becomes 7 200 buckets. A bucket ends at the next full second of arrival, at a
pause of the stream and where ticks begin anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, NamedTuple

from isotrack_recorder.spool.records import Flag

from .placement import SECOND

PAUSE_NS: Final = SECOND // 2
"""Without frames for so long, what follows may be placed anew: no listener hears a jump inside silence, and an SFU may
have shifted its timestamps meanwhile (LiveKit does at unmute). Above the 400 ms rhythm of Opus DTX."""
_SLOW_NS: Final = SECOND * 5 // 2
"""Nor is it a pause where so much, or two and a half times what lay between the two pictures before, is not exceeded: a screen that does
not change sends one a second. Placed anew each time, each would lie as late as it happened to travel."""
_PICTURES_RATE: Final = 90_000
STALL_NS: Final = 120_000_000
"""Ticks that fall behind arrivals by so much from one frame to the next: the way was blocked, or the sender stood still
(sound is stamped by counting samples). What comes later tells which."""
_TICK_JUMP_NS: Final = 2 * SECOND
"""Ticks that run ahead of or behind arrivals by more have a new base, whether announced or not."""

DISCONTINUITY: Final = int(Flag.DISCONTINUITY)
"""A plain number: an operation on an enum costs as much as reading a frame."""


class Start(IntEnum):
    """How a bucket follows the one before."""

    ON = 0
    AFTER_STALL = 1
    """Ticks go on, but time has passed: at the sender or on the way."""
    AFTER_PAUSE = 2
    """Nothing was sent for a while; ticks may have another base."""
    NEW_BASE = 3
    """Ticks do have another base."""


class Bucket(NamedTuple):
    """Frames of one log that arrived within one second."""

    second: int
    """Arrival in whole seconds; never less than that of the bucket before."""
    start: Start
    frame: int
    """Number of its first frame in the log."""
    ticks: int
    """Of its first frame."""
    arrival_ns: int
    best_ticks: int
    """Of the frame that travelled least: the one with the smallest arrival minus ticks."""
    best_arrival_ns: int
    last_ticks: int


@dataclass(slots=True)
class Indexer:
    """Takes the frames of one log in order and keeps its buckets. `buckets` is whole after `close`.

    Plain values only: it is saved and read back. Its owner may drop buckets that nobody needs any more.
    """

    clock_rate: int
    buckets: list[Bucket] = field(default_factory=list)
    frames: int = 0
    second: int = 0
    """Of the newest bucket."""
    opened: tuple[int, Start, int, int, int] | None = None
    """The first five members of the open bucket."""
    best: tuple[int, int, int] = (0, 0, 0)
    last: tuple[int, int] = (0, 0)
    step_ns: int = 0
    """Between the arrivals of the two newest frames."""

    def add(self, ticks: Sequence[int], arrivals: Sequence[int], flags: Sequence[int], start: int, last: int) -> int:
        """Take the next frames up to second `last`, from number `start` of these columns on.

        Args:
            flags: DISCONTINUITY marks a new base of ticks.
        Returns:
            The number behind the last frame that was taken.
        """
        # One loop over plain numbers, for this is done with every frame.
        rate, second = self.clock_rate, self.second
        begun = frames = self.frames
        before, before_ns = self.last
        step_ns, best = self.step_ns, self.best[0]
        for at in range(start, len(ticks)):
            tick, arrival_ns = ticks[at], arrivals[at]
            arrived = arrival_ns // SECOND
            # A repaired frame arrives after its successors: buckets are walked second by second and must not run back.
            if arrived > last or second > last:
                break
            advanced, waited = (tick - before) * SECOND // rate, arrival_ns - before_ns
            behind = waited - advanced
            if (
                arrived <= second
                and not flags[at] & DISCONTINUITY
                and advanced >= 0
                and -_TICK_JUMP_NS <= behind < STALL_NS
                and (not waited >= PAUSE_NS <= advanced or self._is_slow(waited, step_ns))
                and self.opened is not None
            ):
                age = arrival_ns - tick * SECOND // rate
                if age < best:
                    best, self.best = age, (age, tick, arrival_ns)
            else:
                self.last, self.frames, self.step_ns = (before, before_ns), frames, step_ns
                self._open(tick, arrival_ns, discontinuity=flags[at] & DISCONTINUITY != 0)
                best, second = self.best[0], self.second
            before, before_ns, step_ns = tick, arrival_ns, waited
            frames += 1
        self.last, self.frames, self.step_ns = (before, before_ns), frames, step_ns
        return start + frames - begun

    def second_of(self, arrival_ns: int) -> int:
        """Second that a frame with this arrival counts to, if it is the next one."""
        return max(arrival_ns // SECOND, self.second)

    def _open(self, ticks: int, arrival_ns: int, *, discontinuity: bool) -> None:
        """Begin a bucket with the next frame."""
        start = self._start(ticks, arrival_ns, discontinuity=discontinuity)
        self.close()
        self.second = self.second_of(arrival_ns)
        self.opened = (self.second, start, self.frames, ticks, arrival_ns)
        self.best = (arrival_ns - ticks * SECOND // self.clock_rate, ticks, arrival_ns)

    def close(self) -> None:
        """Finish the open bucket."""
        if self.opened is not None:
            _, best_ticks, best_arrival = self.best
            self.buckets.append(Bucket(*self.opened, best_ticks, best_arrival, self.last[0]))
            self.opened = None

    def _start(self, ticks: int, arrival_ns: int, *, discontinuity: bool) -> Start:
        if not self.frames or discontinuity:
            return Start.NEW_BASE
        last_ticks, last_arrival = self.last
        advanced = (ticks - last_ticks) * SECOND // self.clock_rate
        waited = arrival_ns - last_arrival
        if advanced < 0 or abs(advanced - waited) > _TICK_JUMP_NS:
            return Start.NEW_BASE
        if waited >= PAUSE_NS and advanced >= PAUSE_NS and not self._is_slow(waited, self.step_ns):
            return Start.AFTER_PAUSE
        return Start.AFTER_STALL if waited - advanced >= STALL_NS else Start.ON

    def _is_slow(self, waited: int, step_ns: int) -> bool:
        """Whether pictures simply go on as slowly as they came."""
        return self.clock_rate == _PICTURES_RATE and waited <= _SLOW_NS and 2 * waited <= 5 * step_ns
