"""What the agent makes of what it sees. Pure.

    Recording, SIGTERM ──▶ command_for ──▶ recorder          State, spool ──▶ outcome_of ──▶ exit code, manifests

The exit code of the agent is the truth about the attempt: 0 only when the recording is over and everything is in the
bucket, 75 when the attempt ended in good order before the recording did.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from isotrack_api.conditions import Reason
from isotrack_api.intent import Intent
from isotrack_api.manifest import StopReason
from isotrack_api.recording import DesiredState
from isotrack_api.recording_report import IN_THE_CALL, MAX_REPORT_TRACKS, ReportStatus
from isotrack_recorder.control import Command, Desired, State
from isotrack_recorder.errors import (
    CallNotFoundError,
    ConfigError,
    DrainedError,
    IsotrackError,
    OutputError,
    SourceRefusedError,
)
from isotrack_recorder.ship.kube import RecordingView
from isotrack_recorder.spool.facts import PeerFacts, SpoolFacts

from .agent_settings import AgentSettings

OVER: Final = frozenset(
    {
        StopReason.REQUESTED,
        StopReason.CALL_ENDED,
        StopReason.ALL_PARTICIPANTS_LEFT,
        StopReason.MAX_DURATION,
        StopReason.REMOVED,
        StopReason.DELETED,
    }
)
"""Ends of a recording. The others end an attempt."""
ASKED: Final = frozenset({StopReason.REQUESTED, StopReason.DELETED})
"""Ends that were asked for: they hold whatever else went wrong."""
FINAL_CODES: Final = frozenset(
    error.exit_code for error in (ConfigError, CallNotFoundError, OutputError, SourceRefusedError)
)
"""Failures that another attempt would meet again: the recording is over with them."""
_DESIRED: Final[Mapping[DesiredState, Desired]] = {
    DesiredState.RUNNING: "Running",
    DesiredState.PAUSED: "Paused",
    DesiredState.STOPPED: "Stopped",
}


def command_for(view: RecordingView, *, terminating: bool, before: Command) -> Command:
    """What the recorder is to do. A stop stays a stop; only its reason may become a weightier one."""
    asked = _stop_reason(view, terminating=terminating)
    if before.desired == "Stopped":
        if asked in ASKED and before.stop_reason not in ASKED:
            return replace(before, stop_reason=asked)
        return before
    desired: Desired = "Stopped" if asked else _DESIRED[view.desired]
    return Command(desired=desired, stop_reason=asked, user_ids=view.user_ids)


def begin_with(intent: Intent, kept: Command | None) -> tuple[RecordingView, Command]:
    """What holds until the API server is heard: what is wanted of the recording, and what the recorder is to do.

    Args:
        kept: What an earlier process of this pod's agent told the recorder last: the Recording was edited since the intent was made.
    """
    desired = DesiredState.PAUSED if intent.paused else DesiredState.RUNNING
    if kept is None:
        view = RecordingView(desired, intent.user_ids)
        return view, command_for(view, terminating=False, before=Command())
    if kept.desired != "Stopped":
        desired = DesiredState(kept.desired)
    # NB: a stop lies in the command alone. Which of its reasons there was the view would not know.
    return RecordingView(desired, kept.user_ids), kept


def _stop_reason(view: RecordingView, *, terminating: bool) -> StopReason | None:
    if view.deleted:
        return StopReason.DELETED
    if view.desired is DesiredState.STOPPED:
        return StopReason.REQUESTED
    return StopReason.DRAINED if terminating else None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How capture ended, and with which exit code the attempt ends if everything can be shipped."""

    exit_code: int
    reason: str
    recording_over: bool
    stop_reason: StopReason
    message: str = ""


JOINED_EARLIER_NS: Final = 60 * 1_000_000_000
"""A session that this attempt saw so soon after it could capture may have been seen by the attempt before, which may record on beside
it for that long."""
TOGETHER_SECONDS: Final = 2.0
"""For how long two pods record what both have: so much is certain to be in both."""
_FLOWS_MS: Final = 5_000


def is_left_behind(
    peer: PeerFacts, facts: SpoolFacts, *, attempt: int, goes: bool, followed_ns: int | None = None
) -> bool:
    """Whether the files of a session are made from checkpoints when the recording ends, instead of by this attempt.

    Args:
        goes: The attempt is over while the recording goes on.
        followed_ns: Since when another pod may record beside this one, on the spool's axis: what ends later may be in both.
    """
    if goes and peer.left_ns is None:
        return True
    if followed_ns is not None and (peer.left_ns is None or peer.left_ns > followed_ns):
        return True
    return attempt > 1 and (facts.armed_ns is None or peer.joined_ns <= facts.armed_ns + JOINED_EARLIER_NS)


def has_taken_over(successor: ReportStatus, state: State | None) -> bool:
    """Whether a successor says that it records all that comes here."""
    if successor.phase not in IN_THE_CALL:
        return False
    flowing = {
        track.track_id
        for track in (state.tracks if state is not None else ())
        if not (track.ended or track.muted or track.shed)
        and track.frames
        and (track.last_packet_age_ms or 0) < _FLOWS_MS
    }
    missing = flowing - {track.track_id for track in successor.tracks if track.frames}
    return not missing or len(successor.tracks) == MAX_REPORT_TRACKS  # which tells of no more


@dataclass(frozen=True, slots=True)
class Leaving:
    """How long a pod that is to go captures on, in seconds of CLOCK_MONOTONIC."""

    told_at: float
    """SIGTERM."""
    made: bool = False
    """A successor was made, whatever it does by now."""
    taken_over_at: float | None = None
    """When it was first seen to record all that we do."""

    def ends_at(self, settings: AgentSettings) -> float:
        """When capture is to end."""
        if not self.made:
            return self.told_at + settings.handover_seconds
        half = (settings.grace_seconds - settings.grace_margin_seconds) / 2
        latest = self.told_at + max(settings.handover_seconds, min(settings.followed_seconds, half))
        return latest if self.taken_over_at is None else min(latest, self.taken_over_at + TOGETHER_SECONDS)


def is_final(state: State | None) -> bool:
    """Whether the recorder has stopped capturing for good."""
    return state is not None and state.phase in ("Stopped", "Failed")


def is_known_to_storage(intent: Intent, *, let_in: bool) -> bool:
    """Whether the storage is known to have taken this recording: then a refusal may pass, as in mid-call.

    An attempt that it refuses at the start ends the recording. So where one was in the call and has a successor, it did not.

    Args:
        let_in: An earlier process of this attempt passed the storage's check.
    """
    return let_in or (intent.attempt > 1 and intent.epoch_ms is not None)


def outcome_of(asked: StopReason | None, state: State | None, lost: str = "") -> Outcome:
    """Decide how the attempt ends.

    Args:
        asked: Reason of the stop that the agent asked for; None when it asked for none.
        state: What the recorder said last.
        lost: Why the recorder is not waited for any more, where it has not said an end.
    """
    told = state.stop_reason if state is not None and is_final(state) else None
    message = (state.message if state is not None and is_final(state) else lost)[:512]
    if asked is not None and asked in ASKED and (told is None or told not in OVER):
        return Outcome(0, Reason.UPLOADED, True, asked, message)
    if state is not None and state.phase == "Failed":
        code = state.error_exit_code or IsotrackError.exit_code
        reason = state.error_reason or IsotrackError.reason
        return Outcome(code, reason, code in FINAL_CODES, told or StopReason.INTERNAL_ERROR, message)
    if told is not None and told in OVER:
        return Outcome(0, Reason.UPLOADED, True, told, message)
    if told in (StopReason.DRAINED, StopReason.FENCED) or (told is None and asked is StopReason.DRAINED):
        return Outcome(DrainedError.exit_code, DrainedError.reason, False, told or StopReason.DRAINED, message)
    reason = Reason.RECORDER_CRASHING if told is None else IsotrackError.reason
    return Outcome(IsotrackError.exit_code, reason, False, StopReason.INTERNAL_ERROR, message)
