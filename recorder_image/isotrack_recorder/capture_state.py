"""What a Capture knows at a moment, and the pure decisions that need nothing else: phase, limits."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

from isotrack_api.words import StopReason

from .clock import Clock
from .control import Phase
from .earlier import Earlier
from .errors import IsotrackError
from .sources import base
from .track_capture import TrackCapture

_NS: Final = 1_000_000_000


@dataclass(slots=True)
class KnownPeer:
    """A participant session that is present."""

    seen: base.ParticipantSeen
    recorded: bool
    """The allowlist admits the person."""


@dataclass(slots=True)
class KnownTrack:
    """A published track of somebody present, wanted or not."""

    seen: base.TrackSeen
    muted: bool
    capture: TrackCapture | None = None
    refused: bool = False
    """Journalled as unrecorded: it stays so."""


@dataclass(slots=True)
class Progress:
    """How far the capture got. `…_ms` are Unix milliseconds, `…_ns` CLOCK_MONOTONIC."""

    connected: bool = False
    armed_at_ms: int | None = None
    started_ns: int | None = None
    """When the recording began: its first attempt, and of that the first process, was armed."""
    first_packet_at_ms: int | None = None
    empty_since_ns: int | None = None
    """Since when nobody is there; None while somebody is, or while we cannot know."""
    call_sid: str = ""


@dataclass(slots=True)
class Ending:
    """Why the capture ended; the first reason counts."""

    wanted: asyncio.Event = field(default_factory=asyncio.Event)
    reason: StopReason | None = None
    message: str = ""
    error: IsotrackError | None = None
    over: bool = False
    """The spool is closed."""


def phase_of(progress: Progress, ending: Ending, *, paused: bool, receiving: bool) -> Phase:
    """The one word for what a capture is doing. `receiving`: frames of a track came and it has not ended."""
    if ending.over:
        return "Failed" if ending.error else "Stopped"
    if progress.armed_at_ms is None:
        return "Joining"
    if not progress.connected:
        return "Reconnecting"
    if paused:
        return "Paused"
    return "Capturing" if receiving else "Armed"


DOUBTFUL_NS: Final = 600 * _NS
"""Nobody begins a successor so long after the end of the recording."""


def started_before(epoch_ms: int | None, earlier: Earlier, clock: Clock, limit_seconds: int) -> int | None:
    """When the recording began, in CLOCK_MONOTONIC, as far as it had begun before this process.

    The wall clock is asked once, and only for what another pod or another boot has told: whoever sets it meanwhile neither
    prolongs the recording nor ends it. Where it says that the recording has not begun yet, or should have been over for long
    (`limit_seconds`), it is wrong by hours: then the time counts from now on.
    """
    if epoch_ms is None and earlier.armed_ns is not None and earlier.boot == clock.boot():
        return earlier.armed_ns
    began_ms = epoch_ms or earlier.armed_at_ms
    if began_ms is None:
        return None
    lasted_ns = clock.wall_ns() - began_ms * 1_000_000
    if not -DOUBTFUL_NS <= lasted_ns <= limit_seconds * _NS + DOUBTFUL_NS:
        return None
    return clock.monotonic_ns() - lasted_ns


def seconds_left(limit_seconds: int, started_ns: int | None, now_ns: int) -> float:
    """Until the longest duration is reached. `started_ns`: when the recording's first attempt was armed, if it was."""
    limit = float(limit_seconds)
    return limit if started_ns is None else limit - (now_ns - started_ns) / _NS


def nobody_for_too_long(limit_seconds: int, progress: Progress, now_ns: int) -> bool:
    """Tell whether an empty call counts as over. A limit of 0 leaves that to the SFU."""
    if not limit_seconds or progress.empty_since_ns is None:
        return False
    return now_ns - progress.empty_since_ns >= limit_seconds * _NS
