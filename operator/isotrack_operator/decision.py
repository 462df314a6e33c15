"""A decision about one Recording: which writes come next, and what the status says meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from isotrack_api.conditions import Reason
from isotrack_api.recording import StopInfo

from .resolve import limits_of
from .view import View, parse_time

RECHECK_SECONDS = 3.0
MAX_RECHECK_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How the recording ended, for good."""

    succeeded: bool
    reason: Reason | str
    message: str
    stop: StopInfo | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The next writes, and what the status says meanwhile."""

    reason: Reason | str
    """Why the recording is not (or no longer) capturing, or that it is."""
    message: str = ""
    needs_somebody: bool = False
    """It cannot go on by itself."""
    verdict: Verdict | None = None
    take_claim: bool = False
    start: int | None = None
    """Number of the attempt to start."""
    complete: int | None = None
    """Attempt that may still lack what belongs to it: its pod has not started, or runs without a report."""
    finalise: StopInfo | None = None
    """Have a Job finish the recording, which is over for this reason."""
    delete_jobs: tuple[str, ...] = ()
    delete_pods: tuple[str, ...] = ()
    release: bool = False
    """Give up claim and finalizer: nothing is left to do."""
    waits_for_call: bool = False
    again_after: float | None = None
    """Seconds after which time alone may change the plan."""


Check = Callable[[View, datetime], Plan | None]
"""Named as its finding; None = nothing to say."""


def over(succeeded: bool, reason: Reason | str, message: str, stop: StopInfo | None) -> Plan:
    """The recording is over."""
    return Plan(
        reason=reason,
        message=message,
        verdict=Verdict(succeeded=succeeded, reason=reason, message=message, stop=stop),
    )


def blocked(reason: Reason, message: str, again_after: float | None = None) -> Plan:
    """Somebody has to do something; then it starts by itself."""
    return Plan(reason=reason, message=message, needs_somebody=True, again_after=again_after)


def recheck(since: str | None, now: datetime) -> float:
    """Seconds until we look again at what cannot be watched (Secrets, claims of others, an SFU that does not answer).

    A tenth of the time that it has been like this `since`: soon for who is just putting it right, seldom for what thousands
    of Recordings have been waiting for since yesterday.
    """
    begun = parse_time(since)
    waited = (now - begun).total_seconds() if begun else 0.0
    return min(MAX_RECHECK_SECONDS, max(RECHECK_SECONDS, waited / 10))


def recheck_of(view: View, now: datetime) -> float:
    """The same for a Recording whose phase and reason have not changed since its last transition."""
    transitions = view.recording.status.transitions
    return recheck(transitions[-1].time if transitions else None, now)


def start_timeout(view: View) -> int:
    """Seconds from the wish to start until we give up; 0 = never."""
    frozen = view.recording.status.effective
    if frozen is not None:
        return frozen.limits.start_timeout_seconds
    return limits_of(view.recording, view.recording_class).start_timeout_seconds if view.recording_class else 0
