"""Conditions of a Recording from a view and a plan, and the phase that they amount to. Pure.

kstatus reads Reconciling first, then Stalled, then Ready, so at most one of Reconciling and Stalled is True. Ready means "in the call and
able to capture"; a muted room and a pause are Ready, so that who applies a Recording and waits is not kept for the whole call.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from isotrack_api.base import SpoolLevel
from isotrack_api.conditions import Condition, ConditionStatus, ConditionType, Reason
from isotrack_api.recording import Phase
from isotrack_api.recording_report import ReportPhase

from . import attempts as judge
from .attempts import Stage
from .decision import Plan
from .recovery import finaliser_said, last_words
from .unrecorded import explained, reason_of, reported
from .view import AttemptView, View, format_time, true_condition

TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN
OVER = {ReportPhase.UPLOADING, ReportPhase.FINISHED, ReportPhase.DRAINED, ReportPhase.FAILED}
"""Phases of an attempt whose capture is over."""
_STORAGE_REASONS = {
    Reason.STORAGE_NOT_FOUND,
    Reason.STORAGE_SECRET_NOT_FOUND,
    Reason.SERVICE_ACCOUNT_NOT_FOUND,
    Reason.STORAGE_REFUSED,
    Reason.STORAGE_UNAVAILABLE,
}

# NB: no figures in these texts. They change every second, and each change would be a write of the Recording.
_LAGGING = {
    SpoolLevel.CLEAR: (Reason.SPOOL_CLEAR, ""),
    SpoolLevel.FILLING: (
        Reason.SPOOL_FILLING,
        "the pod's disk is more than 60 % full, because less is uploaded than captured. See StorageReady; a larger"
        " recorder.spool.sizeLimit in the class holds longer outages",
    ),
    SpoolLevel.CAMERA_SHED: (
        Reason.CAMERAS_SHED,
        "the pod's disk is more than 80 % full: cameras are not recorded until it is below 70 %; screens and sound are",
    ),
    SpoolLevel.SCREENSHARE_SHED: (
        Reason.SCREENS_SHED,
        "the pod's disk is more than 90 % full: only sound is recorded, screens again below 80 %",
    ),
    SpoolLevel.FULL: (
        Reason.SPOOL_FULL,
        "the pod's disk is full: nothing is recorded until it is below 90 %. The recorder stays in the call",
    ),
}


def build_conditions(view: View, plan: Plan, now: datetime) -> tuple[Condition, ...]:
    """All nine, always: a reader never has to wonder what an absent one means."""
    old = {condition.type: condition for condition in view.recording.status.conditions}

    def condition(kind: ConditionType, status: ConditionStatus, reason: str, message: str = "") -> Condition:
        before = old.get(kind)
        unchanged = before is not None and before.status is status
        return Condition(
            type=kind,
            status=status,
            observed_generation=view.recording.metadata.generation,
            last_transition_time=before.last_transition_time if before and unchanged else format_time(now),
            reason=reason,
            message=message[:1024],
        )

    beside = (
        condition(ConditionType.STORAGE_READY, *_storage(view, plan)),
        condition(ConditionType.UPLOAD_LAGGING, *_lagging(view, plan)),
        condition(ConditionType.TRACKS_UNRECORDED, *_unrecorded(view)),
    )
    if plan.verdict is not None:
        verdict = plan.verdict
        good = TRUE if verdict.succeeded else FALSE
        bad = FALSE if verdict.succeeded else TRUE
        return (
            condition(ConditionType.READY, good, verdict.reason, verdict.message),
            condition(ConditionType.CAPTURING, FALSE, Reason.STOPPED),
            condition(
                ConditionType.FINISHED,
                TRUE,
                verdict.stop.reason if verdict.stop else verdict.reason,
                verdict.message,
            ),
            condition(ConditionType.SUCCEEDED, good, verdict.reason, verdict.message),
            condition(ConditionType.RECONCILING, FALSE, Reason.RECONCILED),
            condition(ConditionType.STALLED, bad, *_unless(verdict.succeeded, verdict.reason, verdict.message)),
            *beside,
        )
    reason, message, ready, capturing = _capture(view, plan)
    stalled = plan.needs_somebody
    busy = not ready and not stalled
    if ready and plan.reason == Reason.REPLACING:
        busy = True  # the old attempt still captures while the new one comes up
    progress = Reason.UPLOADING if plan.reason == Reason.RECOVERING else _progress(view)
    return (
        condition(ConditionType.READY, TRUE if ready else FALSE, reason, message),
        condition(ConditionType.CAPTURING, TRUE if capturing else FALSE, _capturing_reason(view, capturing)),
        condition(ConditionType.FINISHED, FALSE, progress),
        condition(ConditionType.SUCCEEDED, UNKNOWN, progress),
        condition(
            ConditionType.RECONCILING,
            TRUE if busy else FALSE,
            *_unless(not busy, plan.reason, plan.message),
        ),
        condition(
            ConditionType.STALLED,
            TRUE if stalled else FALSE,
            *_unless(not stalled, plan.reason, plan.message),
        ),
        *beside,
    )


def _unless(fine: bool, reason: str, message: str) -> tuple[str, str]:
    """Reason and message of a condition that is bad when True."""
    return (Reason.RECONCILED, "") if fine else (reason, message)


def live(view: View) -> list[AttemptView]:
    """Attempts that may still do something."""
    return [attempt for attempt in view.attempts if judge.stage(attempt) is not Stage.ENDED]


def _phases(view: View) -> set[ReportPhase]:
    return {phase for attempt in live(view) if (phase := judge.report_phase(attempt)) is not None}


def _capture(view: View, plan: Plan) -> tuple[str, str, bool, bool]:
    """Reason and message of Ready, whether it holds, and whether media comes in."""
    phases = _phases(view)
    if plan.reason == Reason.RECOVERING:
        return plan.reason, plan.message, False, False
    if _is_uploading(view):
        reason = Reason.UPLOADING if phases and phases <= OVER else Reason.STOPPING
        capturing = ReportPhase.CAPTURING in phases
        if plan.needs_somebody:
            return plan.reason, plan.message, False, capturing
        text = "capture is over; files are being uploaded and verified" if reason is Reason.UPLOADING else plan.message
        return reason, text, False, capturing
    if ReportPhase.CAPTURING in phases:
        return Reason.CAPTURING, "media is being captured", True, True
    if ReportPhase.PAUSED in phases:
        return Reason.PAUSED, "paused by desiredState", True, False
    if ReportPhase.ARMED in phases and _spool_level(view) is SpoolLevel.FULL:
        return *_LAGGING[SpoolLevel.FULL], False, False
    if ReportPhase.ARMED in phases:
        return Reason.ARMED, "in the call; nobody sends media at the moment", True, False
    if ReportPhase.RECONNECTING in phases and not plan.needs_somebody:
        return Reason.RECONNECTING, "the recorder lost the SFU and is joining again", False, False
    return plan.reason, plan.message, False, False


def _is_uploading(view: View) -> bool:
    at_work = live(view)
    if not at_work:
        return False
    return view.stop_requested or all(judge.report_phase(attempt) in OVER for attempt in at_work)


def _progress(view: View) -> Reason:
    """Reason of the conditions that wait for the end: how far the recording is."""
    if _is_uploading(view):
        return Reason.UPLOADING
    started = view.recording.status.started_at is not None or any(judge.was_armed(a) for a in view.attempts)
    return Reason.CAPTURING if started else Reason.NOT_STARTED


def _capturing_reason(view: View, capturing: bool) -> Reason:
    phases = _phases(view)
    if capturing:
        return Reason.CAPTURING
    if phases and phases <= OVER:
        return Reason.STOPPED
    for phase, reason in (
        (ReportPhase.PAUSED, Reason.PAUSED),
        (ReportPhase.ARMED, Reason.ARMED),
        (ReportPhase.RECONNECTING, Reason.RECONNECTING),
    ):
        if phase in phases:
            return reason
    return Reason.NOT_STARTED if _progress(view) is Reason.NOT_STARTED else Reason.REPLACING


def _storage(view: View, plan: Plan) -> tuple[ConditionStatus, str, str]:
    if plan.reason in _STORAGE_REASONS:
        return FALSE, plan.reason, plan.message
    reports = [a.report.status.storage for a in view.attempts if a.report and a.report.status.storage]
    if reports:
        found = reports[-1]
        if found.ready:
            return (
                (TRUE, Reason.STORAGE_LIMITED, found.message) if found.message else (TRUE, Reason.STORAGE_AVAILABLE, "")
            )
        reason = found.reason if found.reason.isalnum() else Reason.STORAGE_UNAVAILABLE
        return FALSE, reason, found.message
    if plan.verdict and plan.verdict.succeeded:
        return TRUE, Reason.STORAGE_AVAILABLE, ""
    before = next(
        (c for c in view.recording.status.conditions if c.type == ConditionType.STORAGE_READY and view.attempts), None
    )
    return (before.status, before.reason, before.message) if before else (UNKNOWN, Reason.NOT_STARTED, "")


def _spool_level(view: View) -> SpoolLevel | None:
    """How full the disk is of the newest attempt that captures; None where none says so."""
    told = [a.report.status.spool for a in live(view) if a.report and a.report.status.spool]
    return told[-1].level if told else None


def _lagging(view: View, plan: Plan) -> tuple[ConditionStatus, str, str]:
    if plan.verdict is not None or _is_uploading(view):
        return FALSE, Reason.RECONCILED, ""
    level = _spool_level(view)
    if level is None:
        return UNKNOWN, Reason.NOT_STARTED, ""
    return FALSE if level is SpoolLevel.CLEAR else TRUE, *_LAGGING[level]


def _unrecorded(view: View) -> tuple[ConditionStatus, str, str]:
    finaliser = finaliser_said(view)
    said = finaliser[1] if finaliser else last_words(view)
    if rows := reported(view) or (said.unrecorded if said else ()):
        return TRUE, reason_of(rows), explained(rows)
    if before := true_condition(view.recording.status, ConditionType.TRACKS_UNRECORDED):
        return TRUE, before.reason, before.message  # reports may be gone; what was not recorded stays so
    known = any(judge.was_armed(attempt) for attempt in view.attempts)
    return (FALSE, Reason.ALL_TRACKS_RECORDED, "") if known else (UNKNOWN, Reason.NOT_STARTED, "")


def phase_of(conditions: Sequence[Condition]) -> Phase:
    """The phase that these conditions amount to."""
    by_type = {condition.type: condition for condition in conditions}
    finished, succeeded = by_type[ConditionType.FINISHED], by_type[ConditionType.SUCCEEDED]
    if finished.status is TRUE:
        if succeeded.status is TRUE:
            return Phase.UPLOADED
        return Phase.PARTIALLY_UPLOADED if succeeded.reason == Reason.PARTIALLY_UPLOADED else Phase.ERRORED
    if finished.reason == Reason.NOT_STARTED:
        return Phase.INVOKED
    if finished.reason == Reason.UPLOADING:
        return Phase.UPLOADING
    return Phase.PAUSED if by_type[ConditionType.CAPTURING].reason == Reason.PAUSED else Phase.RECORDING


def headline(conditions: Sequence[Condition], phase: Phase) -> str:
    """The reason that people read first: that of Ready, except at the end, where it is the cause of the end."""
    by_type = {condition.type: condition for condition in conditions}
    if by_type[ConditionType.FINISHED].status is TRUE and phase is not Phase.UPLOADED:
        return by_type[ConditionType.SUCCEEDED].reason
    return by_type[ConditionType.READY].reason


def headline_message(conditions: Sequence[Condition]) -> str:
    """The text that goes with it."""
    return next((c.message for c in conditions if c.type == ConditionType.READY), "")
