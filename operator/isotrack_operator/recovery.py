"""The end of a Recording whose attempts are over without a manifest: a Job finishes it from what is in the bucket. Pure.

    attempts over, media captured, no recording.json ─▶ earlier attempts still ship? ─▶ Job <name>-<uid8>-finalise ─▶ verdict

Nothing about it is remembered: the Job is there or it is not, and running it twice changes nothing. Where it cannot be made (the
namespace goes, the class is gone) the verdict says what anybody with the bucket's credentials can do.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from isotrack_api.conditions import Reason
from isotrack_api.manifest import StopReason
from isotrack_api.recording import AttemptResult, StopInfo

from . import attempts as judge
from .attempts import REFUSALS, Ending, Stage
from .builders import names
from .decision import Plan, over
from .diagnose import Context, diagnose
from .resolve import storage_of
from .unrecorded import missing
from .view import AttemptView, Termination, View, parse_termination

STRAGGLER_PATIENCE = timedelta(seconds=360)
"""How long the end waits for attempts that still ship: the grace period of their pods and a minute."""
START_PATIENCE = timedelta(minutes=5)
"""How long a deletion waits for a finaliser whose pod does not start."""
FOREGROUND = "foregroundDeletion"
"""Finalizer of a deletion that takes the children first: what is made anew would be taken at once."""
GOOD_ENDS = frozenset(
    {
        StopReason.REQUESTED,
        StopReason.DELETED,
        StopReason.CALL_ENDED,
        StopReason.ALL_PARTICIPANTS_LEFT,
        StopReason.MAX_DURATION,
        StopReason.REMOVED,
    }
)
"""Ends after which a complete recording is a success."""


def conclude(view: View, end: Ending, reason: str, message: str, now: datetime) -> Plan:
    """End the Recording after its last attempt ended with `end`, for this cause. What is in the bucket is finished first."""
    stop = stop_info(view, end)
    if not _has_media(view):
        return over(False, reason, message, stop)
    cause = f"{reason}: {message}"
    if _wrote_the_manifest(end):
        return over(False, Reason.PARTIALLY_UPLOADED, cause[:1000], stop)
    if view.finaliser is not None:
        return _judged(view, view.finaliser, cause, stop, now)
    if (hindrance := _hindrance(view)) is not None:
        return given_up(view, cause, stop, hindrance)
    waiting = _for_stragglers(view, end, now)
    return waiting or Plan(
        reason=Reason.RECOVERING,
        message=f"finishing the recording from what is in the bucket ({cause})"[:1000],
        finalise=stop,
    )


def _has_media(view: View) -> bool:
    """Whether there is something to finish. Reports may be gone with their namespace; what we wrote about them is not."""
    status = view.recording.status
    told = bool(status.files) or any(transition.reason == Reason.CAPTURING for transition in status.transitions)
    return told or any(judge.captured(attempt) for attempt in view.attempts)


def given_up(view: View, cause: str, stop: StopInfo, hindrance: str) -> Plan:
    """The verdict where no finaliser can run (any more)."""
    ref = view.recording
    folder = names.folder(names.namespace_of(ref), ref.metadata.name, names.uid_of(ref))
    text = f"{cause[:500]}; what is in the bucket was not finished, because {hindrance[:300]}: isotrack finalise s3://…/{folder}"
    return over(False, Reason.PARTIALLY_UPLOADED, text[:1000], stop)


def finaliser_said(view: View) -> tuple[datetime | None, Termination] | None:
    """When the finaliser ended, and what it then said."""
    found = view.finaliser
    pod = found.pod if found else None
    if pod is None or pod.agent.exit_code is None:
        return None
    said = parse_termination(pod.agent.end_message)
    return (pod.agent.ended_at, said) if said else None


def last_words(view: View) -> Termination | None:
    """What the attempt that ended last said about the manifest, which it was the last to write."""
    said = [
        (end.at, end.termination)
        for attempt in view.attempts
        if (end := judge.ending(attempt)) and end.at and end.termination and end.termination.complete is not None
    ]
    return max(said, key=lambda word: word[0])[1] if said else None


def stop_info(view: View, end: Ending) -> StopInfo:
    """Why a recording is over whose last attempt ended with `end`."""
    said = end.termination.stop_reason if end.termination else None
    report = view.latest.report if view.latest else None
    if said is None and report is not None:
        said = report.status.stop_reason
    if said in (None, StopReason.DRAINED, StopReason.FENCED):  # these two are about the attempt only
        if view.is_deleting:
            said = StopReason.DELETED
        elif view.stop_requested:
            said = StopReason.REQUESTED
        else:
            said = StopReason.CALL_ENDED if end.result is AttemptResult.FINISHED else StopReason.INTERNAL_ERROR
    assert said is not None
    return StopInfo(reason=said, message=end.message[:1000])


def shipping(view: View) -> list[AttemptView]:
    """Earlier attempts that still ship what they captured."""
    return [
        attempt
        for attempt in view.attempts[:-1]
        if judge.stage(attempt) is not Stage.ENDED and not (attempt.pod and attempt.pod.node_unreachable)
    ]


def _judged(view: View, finaliser: AttemptView, cause: str, stop: StopInfo, now: datetime) -> Plan:
    job, pod = finaliser.job, finaliser.pod
    assert job is not None, "a finaliser is known by its Job"
    found = finaliser_said(view)
    said = found[1] if found else None
    if job.complete:
        if said is not None and said.complete and stop.reason in GOOD_ENDS:
            return over(True, Reason.UPLOADED, f"every file is in the bucket and verified ({cause})"[:1000], stop)
        left_out = missing(view, said)
        text = f"{cause[:300] if left_out else cause}; what was in the bucket is finished: see the gaps in the manifest"
        if left_out:
            text = f"{text}; not recorded: {left_out}"
        return over(False, Reason.PARTIALLY_UPLOADED, text[:1000], stop)
    refused = pod is not None and pod.agent.exit_code in REFUSALS
    if job.failed or refused:  # a refusal would only come again
        why = (said.message if said else "") or job.message or f"Job {job.name} failed"
        plan = given_up(view, cause, stop, why)
        return plan if job.failed else replace(plan, delete_jobs=(job.name,))
    context = Context(namespace=names.namespace_of(view.recording), volumes=volumes_of(view), now=now)
    trouble = diagnose(finaliser, context)
    late = job.created is not None and now - job.created >= START_PATIENCE
    if view.is_deleting and late and (pod is None or pod.phase == "Pending"):
        return given_up(view, cause, stop, trouble.message if trouble else "its pod did not start")
    return Plan(
        reason=Reason.RECOVERING,
        message=f"{trouble.message}; it finishes the recording ({cause})"[:1000]
        if trouble
        else f"finishing the recording from what is in the bucket ({cause})"[:1000],
        needs_somebody=trouble is not None and trouble.needs_somebody,
        again_after=15.0,
    )


def volumes_of(view: View) -> tuple[str, ...]:
    """What of the tenant's the Recording's pods wait for, for messages: kinds and names."""
    storage = view.recording_class and storage_of(view.recording, view.recording_class)
    if not storage:
        return ("Secret with the storage's credentials",)
    secret, ca = storage.s3.credentials.secret_name, storage.s3.ca_certificate
    found = [("Secret", secret), ("Secret", ca and ca.secret_name), ("ConfigMap", ca and ca.config_map_name)]
    return tuple(dict.fromkeys(f"{kind} {name}" for kind, name in found if name))


def _hindrance(view: View) -> str | None:
    """Why no finaliser can be made."""
    recording = view.recording
    if view.is_deleting and FOREGROUND in (recording.metadata.finalizers or ()):
        return "the Recording was deleted together with its children"
    if view.recording_class is None:
        return f"RecordingClass {recording.spec.class_name} is gone"
    if storage_of(recording, view.recording_class) is None:
        return f"RecordingClass {recording.spec.class_name} does not have its storage any more"
    return None


def _for_stragglers(view: View, end: Ending, now: datetime) -> Plan | None:
    late = shipping(view)
    left = STRAGGLER_PATIENCE.total_seconds() - (now - (end.at or now)).total_seconds()
    if not late or left <= 0:
        return None
    numbers = ", ".join(str(attempt.n) for attempt in late)
    text = f"attempt {numbers} still ships what it captured"
    return Plan(reason=Reason.UPLOADING, message=text, again_after=left + 0.5)


def _wrote_the_manifest(end: Ending) -> bool:
    """Some refusals come after everything was in order: the agent then wrote recording.json itself."""
    return end.termination is not None and end.termination.manifest_uri.endswith("/recording.json")
