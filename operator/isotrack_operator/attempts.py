"""What follows from the objects of one attempt: is it starting, running, being disrupted, over, and how did it end? Pure.

    Job and pod ──▶ Stage.PENDING ─▶ RUNNING ─▶ ENDED        the agent's exit code is the truth
                        └──────┬────────┴──▶ DISRUPTED ─▶ ENDED

Evidence is used in this order: our own record of the end (an end never changes), the agent's exit code, the Job's conditions, and
the absence of both. The RecordingReport only colours the picture; nobody waits for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from isotrack_api.conditions import Reason
from isotrack_api.manifest import StopReason
from isotrack_api.recording import AttemptResult
from isotrack_api.recording_report import IN_THE_CALL, ReportPhase

from .errors import cut
from .view import AttemptView, PodView, Termination, parse_termination, parse_time

FINISHED_CODE = 0
DRAINED_CODE = 75
REFUSALS = {
    64: Reason.INVALID_CONFIGURATION,
    66: Reason.CALL_NOT_FOUND,
    73: Reason.STORAGE_REFUSED,
    77: Reason.SOURCE_REFUSED,
}
"""Exit codes of the agent after which another attempt would end the same way (sysexits.h)."""
FAILURES = {69: Reason.SOURCE_UNAVAILABLE, 74: Reason.STORAGE_UNAVAILABLE}
"""Exit codes after which another attempt may succeed."""

TOKEN_FRESH = timedelta(minutes=8)
"""A pod that has not started by then gets a successor with a new join token (tokens are valid for ten minutes)."""

SETTLED = timedelta(seconds=30)
"""An attempt that was in the call for this long made progress, even if nobody spoke."""

AGENT_AWAY = timedelta(seconds=180)
"""How long an agent may wait for its restart. The kubelet's pauses are 0, 10, 20, 40, 80, 160, 300 s, forgotten after ten good
minutes; meanwhile the recorder captures and the spool keeps what is not in the bucket, so a pod is not given up lightly."""
MAX_AGENT_RESTARTS = 12
"""The same for clusters with shorter pauses (KubeletCrashLoopBackOffMax): restarts, once it is in a loop."""
MAX_USELESS_RESTARTS = 3
"""The same for an agent that never got to the call: there is nothing that could be lost."""


HEARS = timedelta(seconds=4)
"""Within so many seconds an agent has heard that its pod is to go, and said so: API server and kubelet take one, it takes one itself, and
times in Kubernetes are whole seconds. Longer costs a capture that does not go on; shorter costs the overlap with the successor."""


class Stage(Enum):
    """Where an attempt is."""

    PENDING = "pending"
    """Its pod has not run yet."""
    RUNNING = "running"
    DISRUPTED = "disrupted"
    """Its pod is being evicted or deleted, or its node does not answer: it may still work, but not for long."""
    ENDED = "ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How an attempt ended."""

    result: AttemptResult
    reason: str
    message: str
    at: datetime | None
    termination: Termination | None = None

    @property
    def is_refusal(self) -> bool:
        """Another attempt would end the same way."""
        return self.result is AttemptResult.FAILED and self.reason in set(REFUSALS.values())


def ending(attempt: AttemptView) -> Ending | None:
    """How it ended; None while it may still do something."""
    termination = _termination(attempt.pod)
    record = attempt.record
    if record is not None and record.result is not None:
        return Ending(
            result=record.result,
            reason=record.reason or record.result.value,
            message=record.message or "",
            at=parse_time(record.ended_at),
            termination=termination or (_said_in_report(attempt) if record.result is AttemptResult.FINISHED else None),
        )
    if attempt.pod is not None:
        return _ending_of_pod(attempt.pod, termination) or _ending_without_agent(attempt)
    return _ending_without_agent(attempt)


def _termination(pod: PodView | None) -> Termination | None:
    return parse_termination(pod.agent.end_message) if pod and pod.agent.end_message else None


def _ending_of_pod(pod: PodView, termination: Termination | None) -> Ending | None:
    code, at = pod.agent_exit_code, pod.agent.ended_at or pod.agent.last_ended_at
    if code is None:
        return None
    said = (termination.message if termination else cut(pod.agent.end_message)) or ""
    if code == FINISHED_CODE:
        return Ending(
            result=AttemptResult.FINISHED, reason=Reason.UPLOADED, message=said, at=at, termination=termination
        )
    if code == DRAINED_CODE:
        reason = Reason.EVICTED if pod.disruption else Reason.DRAINED
        return Ending(result=AttemptResult.DRAINED, reason=reason, message=said, at=at, termination=termination)
    cause, message = _failure(pod, code, termination)
    return Ending(result=AttemptResult.FAILED, reason=cause, message=message or said, at=at, termination=termination)


def _failure(pod: PodView, code: int, termination: Termination | None) -> tuple[str, str]:
    if code in REFUSALS:
        return REFUSALS[code], termination.message if termination else ""
    if code in FAILURES:
        return FAILURES[code], termination.message if termination else ""
    if "OOMKilled" in (pod.agent.end_reason, pod.agent.last_end_reason):
        return (
            Reason.OUT_OF_MEMORY,
            "the agent was killed at its memory limit: raise recorder.agentResources of the class",
        )
    if pod.reason == "Evicted" or pod.disruption:
        return Reason.EVICTED, pod.message or f"the pod was disrupted ({pod.disruption or pod.reason})"
    if pod.agent.restarts:
        return Reason.AGENT_CRASHING, f"the agent was killed {pod.agent.restarts + 1} times (exit code {code})"
    if termination and termination.reason.isalnum():
        return termination.reason, termination.message
    return Reason.INTERNAL_ERROR, f"the agent ended with exit code {code}: kubectl logs {pod.name} -c agent"


def _ending_without_agent(attempt: AttemptView) -> Ending | None:
    """The end of an attempt whose agent left no exit code that we saw."""
    pod, job = attempt.pod, attempt.job
    gone = pod is None and (job is None or job.complete or job.failed)
    if gone and (told := _ending_as_reported(attempt)) is not None:
        return told
    if pod is not None and pod.is_over:
        evicted = pod.reason == "Evicted" or bool(pod.disruption)
        reason = Reason.EVICTED if evicted else Reason.POD_LOST
        message = pod.message or "the pod ended before its agent ran"
        return Ending(result=AttemptResult.LOST, reason=reason, message=message, at=job.ended_at if job else None)
    if pod is not None:
        return None
    if job is None:
        return Ending(result=AttemptResult.LOST, reason=Reason.POD_LOST, message="its Job was deleted", at=None)
    if job.complete:
        return Ending(result=AttemptResult.FINISHED, reason=Reason.UPLOADED, message="", at=job.ended_at)
    if job.failed:
        message = f"its pod vanished without a result ({job.message})" if job.message else "its pod vanished"
        return Ending(result=AttemptResult.LOST, reason=Reason.POD_LOST, message=message, at=job.ended_at)
    return None


def _ending_as_reported(attempt: AttemptView) -> Ending | None:
    """What the agent said last. An evicted pod can be gone before we saw its exit code; its report stays."""
    if attempt.report is None:
        return None
    status = attempt.report.status
    at = attempt.job.ended_at if attempt.job else parse_time(status.last_update)
    if status.phase is ReportPhase.FINISHED:
        text, said = status.message or "", _said_in_report(attempt)
        return Ending(result=AttemptResult.FINISHED, reason=Reason.UPLOADED, message=text, at=at, termination=said)
    if status.phase is ReportPhase.DRAINED:
        return Ending(result=AttemptResult.DRAINED, reason=Reason.DRAINED, message=status.message or "", at=at)
    return None


def _said_in_report(attempt: AttemptView) -> Termination | None:
    """What of an agent's last words its report has, too: that something is missing."""
    status = attempt.report.status if attempt.report else None
    if status is None or status.phase is not ReportPhase.FINISHED or status.reason != Reason.PARTIALLY_UPLOADED:
        return None
    return Termination(complete=False)


def stage(attempt: AttemptView) -> Stage:
    """Where the attempt is now."""
    if ending(attempt) is not None:
        return Stage.ENDED
    pod, job = attempt.pod, attempt.job
    if (pod and (pod.deleting or pod.disruption or pod.node_unreachable)) or (job and job.deleting):
        return Stage.DISRUPTED
    if pod is None or pod.is_starting:
        return Stage.PENDING
    return Stage.RUNNING


def agent_stays_away(attempt: AttemptView, now: datetime) -> bool:
    """Whether its agent is killed again and again, so that another pod is the better try."""
    pod = attempt.pod
    if pod is None or pod.agent.running or not pod.agent.restarts or stage(attempt) is not Stage.RUNNING:
        return False
    agent, due = pod.agent, agent_due(attempt)
    if due is not None and now >= due:
        return True
    most = MAX_AGENT_RESTARTS if was_armed(attempt) else MAX_USELESS_RESTARTS
    return agent.waiting_reason == "CrashLoopBackOff" and agent.restarts >= most


def agent_due(attempt: AttemptView) -> datetime | None:
    """Until when an agent that was killed is waited for; None while it runs."""
    agent = attempt.pod.agent if attempt.pod else None
    if agent is None or agent.running or not agent.restarts:
        return None
    since = agent.ended_at or agent.last_ended_at
    return since + AGENT_AWAY if since else None


def was_armed(attempt: AttemptView) -> bool:
    """It was in the call and able to capture at some time."""
    if attempt.report is not None and attempt.report.status.armed_at_ms is not None:
        return True
    found = _termination(attempt.pod)
    return found is not None and found.epoch_ms is not None


def never_ran(attempt: AttemptView) -> bool:
    """It ended before its agent said anything: its Job was taken back, or never came to be."""
    end, report = ending(attempt), attempt.report
    gone = attempt.pod is None and attempt.job is None and end is not None and end.result is AttemptResult.LOST
    return gone and (report is None or report.status.phase is None)


def waited_in_vain(attempt: AttemptView, now: datetime) -> bool:
    """Its pod did not start (no node, no image, no quota) for as long as its join token was good, and was taken back."""
    record = attempt.record
    begun = parse_time(record.started_at) if record else None
    if record is None or begun is None or not never_ran(attempt):
        return False
    return (parse_time(record.ended_at) or now) - begun >= TOKEN_FRESH


def captured(attempt: AttemptView) -> bool:
    """It received media."""
    status = attempt.report.status if attempt.report else None
    if status and (status.first_packet_at_ms is not None or status.files):
        return True
    found = _termination(attempt.pod)
    return found is not None and bool(found.files)


def made_progress(attempt: AttemptView) -> bool:
    """It did something worth another attempt without a pause."""
    if captured(attempt):
        return True
    armed = attempt.report.status.armed_at_ms if attempt.report else None
    end = ending(attempt)
    if armed is None or end is None or end.at is None:
        return False
    return end.at.timestamp() - armed / 1000 >= SETTLED.total_seconds()


def hands_over(attempt: AttemptView) -> bool:
    """Its agent has heard that its pod is to go, and said so: it captures until a successor does, and ends by itself.

    Nobody else may be trusted with that: a pod that was told to go and does not hear it (its node is cut off) records on.
    """
    status = attempt.report.status if attempt.report else None
    pod = attempt.pod
    if status is None or pod is None or pod.node_unreachable or stage(attempt) is not Stage.DISRUPTED:
        return False
    return status.stop_reason is StopReason.DRAINED and status.phase in IN_THE_CALL


def may_yet_say_so(attempt: AttemptView, now: datetime) -> float:
    """Seconds for which its agent is given time to hear that its pod is to go, and to say so; 0 = it is not waited for."""
    pod, since = attempt.pod, attempt.pod.disrupted_since if attempt.pod else None
    if pod is None or since is None or pod.node_unreachable or not pod.agent.running or hands_over(attempt):
        return 0.0
    if stage(attempt) is not Stage.DISRUPTED or report_phase(attempt) not in IN_THE_CALL:
        return 0.0
    return max(0.0, (since + HEARS - now).total_seconds())


def report_phase(attempt: AttemptView) -> ReportPhase | None:
    """What the agent of a live attempt says that it is doing."""
    if attempt.report is None or ending(attempt) is not None:
        return None
    return attempt.report.status.phase
