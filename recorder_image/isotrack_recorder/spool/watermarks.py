"""Which media gives way when the spool fills up, and when it comes back (pure).

A spool on an emptyDir must never reach its sizeLimit: the kubelet would evict the pod, and everything that is not shipped would
be gone. So capture gives up what costs most room and is missed least, long before:

    0 %        60          70          80          90       97     100
    ├──────────┼───────────┼───────────┼───────────┼────────┼───────┤
    │   all    │  warn     │           │ no camera │ sound  │ none  │  rising
    │          │           │ all again │ + screens │ sound  │       │  falling

Pictures are some fifty times as many bytes as sound: without cameras the next ten percent last for long, without any pictures sound goes
on for hours where everything together had minutes. What was given up comes back ten percent below where it went (sound seven),
so that a store that is a little too slow does not make tracks flicker: each return costs a key frame of everybody. The last three percent
stay free for the journal, and for what arrives until the kubelet or we look again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from isotrack_api.words import SpoolLevel, TrackSource

_LEVELS: Final = tuple(SpoolLevel)
_FROM: Final = {
    SpoolLevel.FILLING: 0.60,
    SpoolLevel.CAMERA_SHED: 0.80,
    SpoolLevel.SCREENSHARE_SHED: 0.90,
    SpoolLevel.FULL: 0.97,
}
_BELOW: Final = {
    SpoolLevel.FILLING: 0.50,
    SpoolLevel.CAMERA_SHED: 0.70,
    SpoolLevel.SCREENSHARE_SHED: 0.80,
    SpoolLevel.FULL: 0.90,
}
_SHED_FROM: Final = {
    TrackSource.CAMERA: SpoolLevel.CAMERA_SHED,
    TrackSource.SCREENSHARE: SpoolLevel.SCREENSHARE_SHED,
    TrackSource.MICROPHONE: SpoolLevel.FULL,
    TrackSource.SCREENSHARE_AUDIO: SpoolLevel.FULL,
}
SEGMENTS_PER_SPOOL: Final = 1024
MIN_SEGMENT_BYTES: Final = 256 * 1024
MAX_SEGMENT_BYTES: Final = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Usage:
    """How full a spool is, in bytes."""

    used: int
    capacity: int

    @property
    def ratio(self) -> float:
        """Part in use; a spool without any capacity is full."""
        return self.used / self.capacity if self.capacity > 0 else 1.0

    def grown_by(self, growth: int) -> Usage:
        """The same spool with so many bytes more in it."""
        return Usage(self.used + growth, self.capacity)


NOTHING_KNOWN: Final = Usage(0, 1)


def level_of(ratio: float, before: SpoolLevel) -> SpoolLevel:
    """The level at this ratio: up at once, as many steps as it takes; down only below the mark at which a level ends."""
    reached = [_LEVELS.index(level) for level, mark in _FROM.items() if ratio >= mark]
    held = [_LEVELS.index(level) for level, mark in _BELOW.items() if ratio >= mark]
    kept = min(max(held, default=0), _LEVELS.index(before))  # what holds on its way down, but nothing new
    return _LEVELS[max([kept, *reached])]


def is_shed(source: TrackSource, level: SpoolLevel) -> bool:
    """Whether tracks of this source are given up at this level."""
    return _LEVELS.index(level) >= _LEVELS.index(_SHED_FROM[source])


def segment_bytes(capacity: int) -> int:
    """How large segments of a spool should be: only whole ones can be given back, and each track has one that is not.

    A thousandth of the spool: two hundred tracks then keep a fifth of it at most.
    """
    return min(max(capacity // SEGMENTS_PER_SPOOL, MIN_SEGMENT_BYTES), MAX_SEGMENT_BYTES)
