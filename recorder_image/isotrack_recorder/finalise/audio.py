"""Make a sound lane continuous: received packets untouched, declared silence between them.

Decoders that simply put packets one behind the other (most do) need a packet for every moment. So each hole (loss, mute,
DTX, pause, disconnect) is filled with packets of silence. Position is counted in ticks of the codec's RTP clock:

    lag = place on the timeline - position
    packet follows in ticks         goes to `position`; beyond 15 ms of lag a correction: silence where the sender's clock
                                    runs slow, shorter steps of time stamps where it runs fast (nothing is dropped)
    packet after a hole             silence for the hole, so that lag is 0 again

A correction goes to 15 ms on the other side, where a clock that drifts will take longest to come back from: 30 ms every five
minutes at 100 ppm. Where another pod's log goes on with the track, packets still follow one another up to 30 ms of lag: without
sender reports, places in two pods differ by what their ways take.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from .sound_forms import SoundForm

_TOLERANCE_MS: Final = 15
"""Half of what sound and pictures of a file may be apart, and more than a way that wobbles moves them."""
_TOLERANCE_AT_SEAMS_MS: Final = 30


class Packet(NamedTuple):
    """One packet of the continuous lane."""

    position: int
    """Ticks from the file's zero."""
    ticks: int
    data: bytes
    filler: bool


class Hole(NamedTuple):
    """Silence that was put in, in ticks from the file's zero."""

    start: int
    ticks: int


@dataclass(slots=True)
class SoundPosition:
    """Where one lane is. Plain data."""

    position: int = 0
    """Ticks from the file's zero."""
    silent: int = 0
    """Ticks of silence that went in."""
    squeezed: int = 0
    """Ticks by which packets follow one another faster than they last."""
    early: int = 0
    """Sum over all packets: ticks by which they lie before their places on the timeline."""
    packets: int = 0
    expected: tuple[str, int] | None = None
    """Base and ticks of the packet that follows the last one without a hole."""
    silent_from: int | None = None
    """Where the silence that is going on began, while it is written as time passes."""
    hole_end: int | None = None
    """Where it will end, if the packet behind it was seen when it began."""
    squeezing: int = 0
    """Ticks that are left of the correction of a fast clock that is going on."""
    handed_on: bool = False
    """Another log went on with the track, and its places were not met since."""


class Continuity:
    """Positions the packets of one lane and fills its holes."""

    __slots__ = ("_form", "_near", "_near_at_seams", "_short_hole", "_step", "at")

    def __init__(self, form: SoundForm, at: SoundPosition | None = None) -> None:
        self.at = at or SoundPosition()
        self._form = form
        self._near = form.rate * _TOLERANCE_MS // 1000
        self._near_at_seams = form.rate * _TOLERANCE_AT_SEAMS_MS // 1000
        self._short_hole = form.rate // 2
        """Holes known to the tick; longer ones may hide a new base of timestamps."""
        self._step = form.rate // 100

    def add(self, base: str, ticks: int, target: int, data: bytes) -> tuple[Hole | None, list[Packet]]:
        """Position one packet.

        Args:
            base: What `ticks` count from; ticks of different bases are not compared.
            ticks: RTP timestamp.
            target: Its place on the timeline, in ticks from the file's zero.
        Returns:
            The whole hole before it, and the packets to write: (the rest of) its silence, then `data`.
        """
        at = self.at
        first, fill, length = at.expected is None, self._fill(base, ticks, target), self._form.length(data)
        if fill or at.silent_from is not None:
            packets, hole = self._silence(fill), self._end_of_hole()
            at.squeezing, at.handed_on = 0, False
        else:
            packets, hole = [], None
            if not first:
                self._squeeze(target - at.position, length)
        self._form.note((data,))
        at.expected = (base, ticks + length)
        packets.append(Packet(at.position, length, data, filler=False))
        at.early, at.packets = at.early + target - at.position, at.packets + 1
        at.position += length
        return hole, packets

    def run_on(self, base: str, coming: Iterable[tuple[int, int, int]]) -> list[int]:
        """Position packets as `add` would, as long as each follows the one before without a hole or a correction.

        NB: the form has yet to be told of them.

        Args:
            coming: Ticks, target and length of each.
        Returns:
            Positions of the first of them, and that behind them; the others are for `add`.
        """
        at = self.at
        positions = [at.position]
        if at.expected is None or at.expected[0] != base or at.silent_from is not None or at.hole_end is not None:
            return positions
        if at.squeezing or at.handed_on:
            return positions
        expected, position, early, tolerance = at.expected[1], at.position, at.early, self._near
        for ticks, target, length in coming:
            lag = target - position
            if ticks != expected or not -tolerance <= lag <= tolerance:
                break
            early, expected, position = early + lag, ticks + length, position + length
            positions.append(position)
        at.expected, at.position, at.early = (base, expected), position, early
        at.packets += len(positions) - 1
        return positions

    def follow(self, before: str, after: str, ticks: int) -> None:
        """Packets with base `after` go on where those with base `before` stop; their ticks are less by so many."""
        at = self.at
        if at.expected is not None and at.expected[0] == before:
            at.expected, at.handed_on = (after, at.expected[1] - ticks), True

    def pass_time(self, now: int, upcoming: tuple[str, int, int] | None) -> list[Packet]:
        """Silence until `now` (ticks from the file's zero) where there is a hole; in whole packets of the longest kind.

        NB: all packets whose place is before `now` must have been added.

        Args:
            upcoming: Base, ticks and target of the next packet; None = none will come for some seconds after `now`.
        """
        at, end = self.at, now
        if upcoming is not None:
            fill = self._fill(*upcoming)
            if not fill:
                return []
            if at.silent_from is None:
                at.hole_end = at.position + fill
            end = min(now, at.position + fill)
        longest = self._form.longest
        return self._silence((end - at.position) // longest * longest)

    def fill_until(self, end: int) -> tuple[Hole | None, list[Packet]]:
        """Silence from the last packet until `end`; the whole hole, if there is one."""
        fill = max(0, end - self.at.position) // self._form.grain * self._form.grain
        packets = self._silence(fill)
        return self._end_of_hole(), packets

    def _fill(self, base: str, ticks: int, target: int) -> int:
        """Ticks of silence that are still missing before a packet, in whole grains."""
        at, grain = self.at, self._form.grain
        lag = target - at.position
        if at.hole_end is not None:
            lag = at.hole_end - at.position
        elif at.silent_from is None and at.expected is not None and at.expected[0] == base:
            lag = self._hole(ticks - at.expected[1], lag)
        return max(0, (lag + grain // 2) // grain * grain)

    def _hole(self, missing: int, lag: int) -> int:
        """Ticks of silence that belong before a packet; 0 or less = none."""
        if missing == 0:
            return self._correction(lag) if lag > self._tolerance else 0
        if 0 < missing < self._short_hole and abs(lag - missing) <= self._tolerance:
            return missing
        return lag

    @property
    def _tolerance(self) -> int:
        return self._near_at_seams if self.at.handed_on else self._near

    def _correction(self, lag: int) -> int:
        """Silence that takes a lag to the other side; one that did not come bit by bit is made up for, no more."""
        return lag + self._near if lag <= 2 * self._near else lag

    def _squeeze(self, lag: int, length: int) -> None:
        """Let a packet lie nearer to the one before it than that one lasts, if it is time to."""
        at = self.at
        if not at.squeezing and lag < -self._tolerance:
            at.squeezing, at.handed_on = self._near - lag, False
        if at.squeezing:
            shorter = min(self._step, length // 2, at.squeezing)
            at.position, at.squeezed, at.squeezing = (
                at.position - shorter,
                at.squeezed + shorter,
                at.squeezing - shorter,
            )
        at.handed_on = at.handed_on and abs(lag) > self._near

    def _silence(self, ticks: int) -> list[Packet]:
        at = self.at
        packets = []
        if ticks > 0 and at.silent_from is None:
            at.silent_from = at.position
        for length, packet in self._form.silence(ticks) if ticks > 0 else ():
            packets.append(Packet(at.position, length, packet, filler=True))
            at.position += length
            at.silent += length
        return packets

    def _end_of_hole(self) -> Hole | None:
        start, self.at.silent_from, self.at.hole_end = self.at.silent_from, None, None
        return None if start is None or start == self.at.position else Hole(start, self.at.position - start)
