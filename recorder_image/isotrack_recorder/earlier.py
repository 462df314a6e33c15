"""What earlier processes of this attempt left in the spool: a recorder that was killed and started again goes on from it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from isotrack_api.words import TrackSource

from .control import MAX_UNRECORDED, UnrecordedState
from .spool.journal_files import JournalReader


@dataclass(frozen=True, slots=True)
class Earlier:
    """Facts of all incarnations so far."""

    call_sid: str = ""
    armed_at_ms: int | None = None
    """Unix milliseconds at which an incarnation was first able to capture."""
    armed_ns: int | None = None
    """The same by CLOCK_MONOTONIC, of this boot:"""
    boot: str = ""
    stop_reason: str = ""
    """Set when the capture ended in good order: there is nothing to go on with."""
    stop_message: str = ""
    error_reason: str = ""
    """Set when it failed: `reason` of the error tree."""
    unrecorded: tuple[UnrecordedState, ...] = ()
    """Tracks that could not be recorded, each once, as many as a State tells of."""


def read_earlier(spool: Path) -> Earlier:
    """Fold the journals of a spool folder; a missing folder means that nothing was before."""
    earlier = Earlier()
    unrecorded: dict[str, UnrecordedState] = {}
    for folder in sorted(spool.glob("i[0-9][0-9][0-9][0-9]")):
        wall_minus_monotonic_ns, boot = None, ""
        for event in JournalReader(folder).events():
            at, wall_ns = event["at"], event.get("wall_ns")
            if wall_minus_monotonic_ns is None and isinstance(at, int) and isinstance(wall_ns, int):
                wall_minus_monotonic_ns, boot = wall_ns - at, str(event.get("boot", ""))
            match event["e"]:
                case "call" if event.get("call_sid"):
                    earlier = replace(earlier, call_sid=str(event["call_sid"]))
                case "armed" if earlier.armed_at_ms is None and wall_minus_monotonic_ns is not None:
                    armed_at_ms = (at + wall_minus_monotonic_ns) // 1_000_000
                    earlier = replace(earlier, armed_at_ms=armed_at_ms, armed_ns=at, boot=boot)
                case "unrecorded" if len(unrecorded) < MAX_UNRECORDED:
                    with contextlib.suppress(KeyError, ValueError):  # of a process that knew other sources
                        row = _unrecorded(event)
                        unrecorded.setdefault(row.track_id, row)
                case "stop":
                    reason, message = str(event.get("reason", "")), str(event.get("message", ""))
                    error = str(event.get("error", ""))
                    earlier = replace(earlier, stop_reason=reason, stop_message=message, error_reason=error)
    return replace(earlier, unrecorded=tuple(unrecorded.values()))


def _unrecorded(event: Mapping[str, Any]) -> UnrecordedState:
    return UnrecordedState(
        track_id=str(event["track_id"]),
        user_id=str(event["user_id"]),
        source=TrackSource(event["source"]),
        reason=str(event["reason"]),
        message=str(event.get("message", "")),
    )
