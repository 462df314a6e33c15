"""What to do about one Recording: `plan(view, now)` looks at what was gathered and names the next writes. Pure.

    nothing yet ─▶ gate (class, permission, storage, secrets, claim, call) ─▶ attempt 1 ─▶ runs ─▶ ended: over ──▶ verdict
                                                                                ▲          │  └▶ ended: not over ─┐
                                                                                └──────────┴─ pod is disrupted ◀──┘
                                       stopped, refused, exhausted without a manifest ──▶ recovery ──▶ verdict

`CHECKS` stand in one order; the first one that has something to say decides. Everything follows from objects, so a restart of the
operator at any point changes nothing: what was written already is found, what was not is written now.
"""

# ruff: noqa: ARG001 - all checks have one signature

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import takewhile

from isotrack_api.conditions import ConditionType, Reason
from isotrack_api.manifest import StopReason
from isotrack_api.recording import AttemptResult, StopInfo

from . import attempts as judge
from .attempts import Ending, Stage
from .builders import names
from .decision import Check, Plan, over, start_timeout
from .diagnose import POD_GRACE, Context, Diagnosis, diagnose
from .gate import GATE
from .recovery import STRAGGLER_PATIENCE, conclude, last_words, shipping, stop_info, volumes_of
from .unrecorded import missing
from .view import AttemptView, Termination, View, parse_time, true_condition

MAX_FRUITLESS = 5
"""Attempts in a row without media or a settled stay in the call before we give up."""
RETRY_SECONDS = 2.0
MAX_RETRY_SECONDS = 60.0
STALE_SECONDS = 10.0
"""From taking back an attempt whose join token went stale until the next one. Where our clock is minutes ahead, each of them looks so
as soon as it is made: shorter makes a Job every other second, longer keeps a node waiting that has come."""
TAKEN_BACK_SECONDS = 5.0
"""Until we look again whether a pod that is taken back is gone; usually its end is seen before."""
STOP_PATIENCE = timedelta(minutes=70)
"""From the stop request until a silent attempt is terminated. Agents try to upload for an hour."""
NODE_PATIENCE = timedelta(minutes=2)
"""How long a stop waits for an attempt whose node does not answer or whose pod should be gone."""
UNHEARD = timedelta(seconds=10)
"""How long a node must be called unreachable: its kubelet says that it lives every ten seconds. Longer lengthens the gap that a dead
node leaves (50 s already); shorter replaces pods that work."""
SIGN_OF_LIFE = timedelta(seconds=30)
"""A report of an agent on such a node that is younger than this shows that it works."""
SILENCE = timedelta(minutes=5)
"""A report younger than this says that somebody is still at work."""


# -- it is over ---------------------------------------------------------------------------------------------------------------


def recording_has_ended(view: View, now: datetime) -> Plan | None:
    """Terminal is terminal: only what was held is released."""
    finished = true_condition(view.recording.status, ConditionType.FINISHED)
    return Plan(reason=finished.reason, message=finished.message, release=True) if finished else None


def attempt_finished_it(view: View, now: datetime) -> Plan | None:
    """The newest attempt says that the recording is over and everything is in the bucket."""
    end = _end_of_latest(view)
    if end is None or end.result is not AttemptResult.FINISHED:
        return None
    # An earlier attempt may still ship what it captured; it then adds that to the manifest by itself.
    late = shipping(view)
    left = STRAGGLER_PATIENCE.total_seconds() - (now - (end.at or now)).total_seconds()
    if late and left > 0:
        text = f"attempt {_numbers(late)} still ships what it captured"
        return Plan(reason=Reason.UPLOADING, message=text, again_after=left + 0.5)
    stop = stop_info(view, end)
    said = last_words(view)
    complete = said.complete if said else None
    left_out = missing(view, said)
    lost = [a for a in view.attempts[:-1] if _lost_media(a)]
    # Who wrote the manifest knows what it holds; without a word from there, a captured attempt that vanished counts as lost.
    if complete is False or (complete is None and (lost or left_out)):
        text = "media is known to be missing beyond the gaps that the manifest declares"
        if lost:
            text = f"attempt {_numbers(lost)} captured media and ended before all of it was in the bucket; see the manifest"
        if left_out:
            text = f"{text}; not recorded: {left_out}"
        return over(False, Reason.PARTIALLY_UPLOADED, text[:1000], stop)
    text = "every file is in the bucket and verified"
    return over(True, Reason.UPLOADED, f"{text}; {end.message}"[:1000] if end.message else text, stop)


def attempt_was_refused(view: View, now: datetime) -> Plan | None:
    """Another attempt would end the same way."""
    end = _end_of_latest(view)
    if end is None or not end.is_refusal:
        return None
    return conclude(view, end, end.reason, end.message or "the attempt was refused: see the log of its agent", now)


def attempts_are_exhausted(view: View, now: datetime) -> Plan | None:
    """Too many attempts in a row achieved nothing."""
    end = _end_of_latest(view)
    if end is None or fruitless(view.attempts, now) < MAX_FRUITLESS:
        return None
    text = f"{MAX_FRUITLESS} attempts in a row ended without any media; the last one: {end.reason}: {end.message}"
    return conclude(view, end, Reason.ATTEMPTS_EXHAUSTED, text, now)


def its_time_passed_without_a_pod(view: View, now: datetime) -> Plan | None:
    """It had begun, and no pod of a further attempt could start before limits.maxDurationSeconds were over. Else a recorder sees to that."""
    end, latest, started = _end_of_latest(view), view.latest, parse_time(view.recording.status.started_at)
    frozen = view.recording.status.effective
    longest = frozen.limits.max_duration_seconds if frozen else 0
    if end is None or latest is None or started is None or not longest or not judge.waited_in_vain(latest, now):
        return None
    if now - started < timedelta(seconds=longest):
        return None
    end = replace(end, termination=Termination(stop_reason=StopReason.MAX_DURATION))
    text = f"limits.maxDurationSeconds ({longest}) were over before another pod could start"
    return conclude(view, end, end.reason, text, now)


def stopped_with_its_last_attempt_over(view: View, now: datetime) -> Plan | None:
    """Stopped or deleted, and the last attempt cannot finish it any more. No attempt joins a call only to leave it."""
    end, latest = _end_of_latest(view), view.latest
    if end is None or latest is None or not view.stop_requested:
        return None
    if latest.job is None and end.result is AttemptResult.LOST and not _was_ever_armed(view):
        return _stopped_too_early(view)  # the Job was taken back, by an operator that died before it could say so
    return conclude(
        view, end, end.reason, end.message or "the last attempt ended before everything was in the bucket", now
    )


def stopped_on_a_lost_node(view: View, now: datetime) -> Plan | None:
    """The last attempt would have to finish it, and nobody can tell whether it still lives. If it does, both do the same."""
    latest = view.latest
    if latest is None or latest.pod is None or not view.stop_requested or judge.stage(latest) is not Stage.DISRUPTED:
        return None
    moments = [at for at in (latest.pod.unreachable_since, latest.pod.delete_by) if at is not None]
    if not moments or now - (since := min(moments)) < NODE_PATIENCE:
        return None
    text = f"node {latest.pod.node} stopped answering"
    end = Ending(result=AttemptResult.LOST, reason=Reason.NODE_LOST, message=text, at=since)
    return conclude(view, end, end.reason, end.message, now)


def stopped_before_start(view: View, now: datetime) -> Plan | None:
    """There is nothing to stop."""
    return None if view.attempts or not view.stop_requested else _stopped_too_early(view)


# -- an attempt is alive ------------------------------------------------------------------------------------------------------


def pod_does_not_start_in_time(view: View, now: datetime) -> Plan | None:
    """Users learn the cause, not the timeout."""
    latest = view.latest
    if latest is None or judge.stage(latest) is not Stage.PENDING or _was_ever_armed(view):
        return None
    timeout, since = start_timeout(view), _waits_since(view)
    if not timeout or since is None or now - since < timedelta(seconds=timeout):
        return None
    found = diagnosis(view, latest, now)
    reason = found.reason if found else Reason.DEADLINE_EXCEEDED
    message = found.message if found else "its pod did not start"
    text = f"not started within limits.startTimeoutSeconds ({timeout}): {message}"
    return replace(over(False, reason, text, None), delete_jobs=(latest.name,))


def join_token_went_stale(view: View, now: datetime) -> Plan | None:
    """The pod waited so long (no node, no image) that its token would be refused: the next attempt gets a new one."""
    latest = view.latest
    if latest is None or judge.stage(latest) is not Stage.PENDING or view.stop_requested:
        return None
    since = _started(latest)
    if since is None or now - since < judge.TOKEN_FRESH:
        return None
    found = diagnosis(view, latest, now)
    return Plan(
        reason=found.reason if found else Reason.STARTING,
        message=found.message if found else "the pod did not start while its join token was valid; making a new one",
        needs_somebody=found is not None and found.needs_somebody,
        delete_jobs=(latest.name,),
        again_after=1.0,
    )


def stopped_before_its_pod_ran(view: View, now: datetime) -> Plan | None:
    """It would join the call only to leave it, so it is taken back. Where nobody else captured anything, there is nothing to finish."""
    latest = view.latest
    if latest is None or not view.stop_requested or judge.stage(latest) is not Stage.PENDING:
        return None
    if not _was_ever_armed(view):
        return replace(_stopped_too_early(view), delete_jobs=(latest.name,))
    return Plan(
        reason=Reason.STOPPING,
        message=_stopping_message(view),
        delete_jobs=(latest.name,),
        again_after=TAKEN_BACK_SECONDS,
    )


def agent_is_killed_again_and_again(view: View, now: datetime) -> Plan | None:
    """A new pod is the better try. What the old one has on its disk and not in the bucket is given up with it."""
    latest = view.latest
    if latest is None or latest.pod is None or not judge.agent_stays_away(latest, now):
        return None
    found = diagnosis(view, latest, now)
    return Plan(
        reason=found.reason if found else Reason.AGENT_CRASHING,
        message=found.message if found else "the agent does not come back",
        needs_somebody=True,
        delete_pods=(latest.pod.name,),
        again_after=5.0,
    )


def stop_takes_too_long(view: View, now: datetime) -> Plan | None:
    """Told to stop long ago, and its agent is silent: SIGTERM, and what it then leaves counts."""
    latest, request = view.latest, view.recording.status.stop_request
    if latest is None or latest.pod is None or request is None or judge.stage(latest) is not Stage.RUNNING:
        return None
    since, heard = parse_time(request.time), _last_heard(latest)
    if since is None or now - since < STOP_PATIENCE or (heard is not None and now - heard < SILENCE):
        return None
    return Plan(
        reason=Reason.DEADLINE_EXCEEDED,
        message="the attempt did not end after the stop and its agent is silent; terminating its pod",
        delete_pods=(latest.pod.name,),
        again_after=30.0,
    )


def attempt_is_alive(view: View, now: datetime) -> Plan | None:
    """It starts or runs; its own agent carries it to its end."""
    latest = view.latest
    if latest is None or judge.stage(latest) not in (Stage.PENDING, Stage.RUNNING):
        return None
    found = diagnosis(view, latest, now)
    pending = judge.stage(latest) is Stage.PENDING
    reason, message = (found.reason, found.message) if found else _headline(view, latest)
    return Plan(
        reason=reason,
        message=message,
        needs_somebody=found is not None and found.needs_somebody,
        complete=latest.n if pending or latest.report is None else None,
        again_after=_deadline(view, latest, now),
    )


def attempt_ends_by_itself(view: View, now: datetime) -> Plan | None:
    """Disrupted after a stop: it finishes what it has, no successor is needed."""
    latest = view.latest
    if latest is None or judge.stage(latest) is not Stage.DISRUPTED or not view.stop_requested:
        return None
    return Plan(reason=Reason.STOPPING, message=_stopping_message(view), again_after=30.0)


def node_may_only_have_been_unheard(view: View, now: datetime) -> Plan | None:
    """After an outage of the API server itself all nodes seem dead until their kubelets are heard. An agent that reports lives."""
    latest = view.latest
    pod = latest.pod if latest else None
    if latest is None or pod is None or judge.stage(latest) is not Stage.DISRUPTED or pod.unreachable_since is None:
        return None
    heard = _last_heard(latest)
    alive = heard is not None and heard > pod.unreachable_since and now - heard < SIGN_OF_LIFE
    since = now - pod.unreachable_since
    if pod.deleting or pod.disruption or (since >= UNHEARD and not alive):
        return None
    return Plan(
        reason=Reason.NODE_LOST,
        message=f"node {pod.node} stopped answering",
        again_after=max(0.5, (UNHEARD - since).total_seconds() + 0.1),
    )


def agent_may_yet_say_that_it_hands_over(view: View, now: datetime) -> Plan | None:
    """Then the successor joins beside it. Else it joins in its place, so that the SFU puts out who may record on unheard."""
    latest = view.latest
    left = judge.may_yet_say_so(latest, now) if latest else 0.0
    if latest is None or not left:
        return None
    text = f"attempt {latest.n} is told to go; it captures until its successor does"
    return Plan(reason=Reason.REPLACING, message=text, again_after=left + 0.1)


def next_attempt_must_wait(view: View, now: datetime) -> Plan | None:
    """After attempts without any media, pauses grow."""
    end, latest = _end_of_latest(view), view.latest
    count = fruitless(view.attempts, now)
    if end is None or latest is None:
        return None
    pause = min(RETRY_SECONDS * 2.0 ** (count - 1), MAX_RETRY_SECONDS) if count else 0.0
    if judge.waited_in_vain(latest, now):
        pause = max(pause, STALE_SECONDS)
    left = pause - (now - (end.at or now)).total_seconds()
    if left <= 0:
        return None
    return Plan(
        reason=Reason.REPLACING,
        message=f"attempt {latest.n} ended: {end.reason}: {end.message}"[:900] + f"; next in {pause:.0f} s",
        again_after=left,
    )


LIFE: tuple[Check, ...] = (
    recording_has_ended,  # first: nothing below may touch a finished Recording
    attempt_finished_it,
    attempt_was_refused,
    attempts_are_exhausted,
    its_time_passed_without_a_pod,
    stopped_with_its_last_attempt_over,  # after the four that know better how it ended
    stopped_before_start,  # before the gate: a stopped Recording must not wait for its class
    pod_does_not_start_in_time,  # before the token, or a short timeout would never be seen
    join_token_went_stale,
    stopped_before_its_pod_ran,
    agent_is_killed_again_and_again,  # before patience with a stop: nobody is at work
    stop_takes_too_long,
    attempt_is_alive,
    stopped_on_a_lost_node,  # before the next, which would wait for ever
    attempt_ends_by_itself,
    node_may_only_have_been_unheard,
    agent_may_yet_say_that_it_hands_over,
    next_attempt_must_wait,  # last before the gate: from here on another attempt is wanted
)

CHECKS: tuple[Check, ...] = (*LIFE, *GATE)


def plan(view: View, now: datetime) -> Plan:
    """Decide the next writes. The first check that has something to say wins."""
    view = _without_what_was_taken_back(view)
    findings = (check(view, now) for check in CHECKS)
    return next(found for found in findings if found)


def fruitless(attempts: Sequence[AttemptView], now: datetime) -> int:
    """How many of the newest ended attempts in a row achieved nothing. Those that no node took, say, had no chance to."""
    newest = takewhile(lambda one: judge.ending(one) is not None and not judge.made_progress(one), reversed(attempts))
    return sum(not judge.waited_in_vain(attempt, now) for attempt in newest)


def diagnosis(view: View, attempt: AttemptView, now: datetime) -> Diagnosis | None:
    """What keeps a live attempt from working."""
    context = Context(namespace=names.namespace_of(view.recording), volumes=volumes_of(view), now=now)
    return diagnose(attempt, context)


# -- shorthand ----------------------------------------------------------------------------------------------------------------


def _without_what_was_taken_back(view: View) -> View:
    """Of a stopped recording, without successors that never ran: how it ends is for those before them to say."""
    kept = list(view.attempts)
    while view.stop_requested and len(kept) > 1 and judge.never_ran(kept[-1]):
        kept.pop()
    return view if len(kept) == len(view.attempts) else replace(view, attempts=tuple(kept))


def _end_of_latest(view: View) -> Ending | None:
    return judge.ending(view.latest) if view.latest else None


def _lost_media(attempt: AttemptView) -> bool:
    end = judge.ending(attempt)
    lossy = (AttemptResult.LOST, AttemptResult.FAILED)
    return judge.captured(attempt) and (end is None or end.result in lossy)


def _numbers(attempts: Sequence[AttemptView]) -> str:
    return ", ".join(str(attempt.n) for attempt in attempts)


def _stopped_too_early(view: View) -> Plan:
    reason = StopReason.DELETED if view.is_deleting else StopReason.REQUESTED
    return over(False, Reason.STOPPED_BEFORE_START, "stopped before anything was recorded", StopInfo(reason=reason))


def _was_ever_armed(view: View) -> bool:
    return view.recording.status.started_at is not None or any(judge.was_armed(a) for a in view.attempts)


def _started(attempt: AttemptView) -> datetime | None:
    if attempt.job is not None:
        return attempt.job.created
    return parse_time(attempt.record.started_at) if attempt.record else None


def _waits_since(view: View) -> datetime | None:
    """Since when a pod is waited for that starts: of the newest attempts that did not run, the first one."""
    first = None
    for attempt in reversed(view.attempts):
        if first is not None and not judge.never_ran(attempt):
            break
        first = attempt
    return _started(first) if first is not None else None


def _last_heard(attempt: AttemptView) -> datetime | None:
    return parse_time(attempt.report.status.last_update) if attempt.report else None


def _headline(view: View, latest: AttemptView) -> tuple[Reason, str]:
    if view.stop_requested:
        return Reason.STOPPING, _stopping_message(view)
    where = "its pod is on its way" if judge.stage(latest) is Stage.PENDING else "it joins the call"
    reason = Reason.STARTING if latest.n == 1 else Reason.REPLACING
    return reason, f"attempt {latest.n}: {where}"


def _stopping_message(view: View) -> str:
    return "deleted: finishing the files first" if view.is_deleting else "capture ends; files are being finished"


def _deadline(view: View, latest: AttemptView, now: datetime) -> float | None:
    """Seconds until time alone may change the plan for a live attempt."""
    moments: list[datetime] = []
    since = _started(latest)
    if judge.stage(latest) is Stage.PENDING and since is not None:
        moments += [since + POD_GRACE, since + judge.TOKEN_FRESH]
        if start_timeout(view) and not _was_ever_armed(view):
            moments.append((_waits_since(view) or since) + timedelta(seconds=start_timeout(view)))
    request = view.recording.status.stop_request
    if request is not None and (asked := parse_time(request.time)) is not None:
        moments.append(asked + STOP_PATIENCE)
        moments.append(now + SILENCE)
    if (agent_back_by := judge.agent_due(latest)) is not None:
        moments.append(agent_back_by)
    left = [(moment - now).total_seconds() for moment in moments]
    return min((seconds + 0.5 for seconds in left if seconds > -0.5), default=None)
