"""The gate: may an attempt start? Checks from the cheapest and most general to the call itself. Pure.

Those about permission, limits and the call hold for the first attempt only: what runs, goes on. The class and the Secrets are needed
by every attempt.
"""
# ruff: noqa: ARG001 - all checks have one signature

from __future__ import annotations

from datetime import datetime

from isotrack_api.conditions import Reason
from isotrack_api.recording import Phase
from isotrack_api.recording_class import ClassMode

from . import attempts as judge
from .builders import names
from .decision import Check, Plan, blocked, over, recheck_of, start_timeout
from .resolve import storage_of
from .view import AttemptView, ClaimState, View, parse_time


def class_does_not_exist(view: View, now: datetime) -> Plan | None:
    """It starts by itself when the class appears."""
    if view.recording_class is not None:
        return None
    name = view.recording.spec.class_name
    return blocked(
        Reason.CLASS_NOT_FOUND,
        f"there is no RecordingClass {name}: create it, or ask an administrator (kubectl get recordingclasses)",
    )


def recording_is_disabled(view: View, now: datetime) -> Plan | None:
    """The class lets nothing start; running recordings go on."""
    assert view.recording_class is not None
    if view.attempts or view.recording_class.spec.mode is not ClassMode.DISABLED:
        return None
    return blocked(
        Reason.RECORDING_DISABLED,
        f"RecordingClass {view.recording.spec.class_name} has mode disabled: it starts when an administrator sets available",
    )


def call_is_not_allowed(view: View, now: datetime) -> Plan | None:
    """The class does not give this call to this namespace."""
    assert view.recording_class is not None
    namespace, call = names.namespace_of(view.recording), view.recording.spec.call.id
    if view.attempts or view.recording_class.spec.allows(namespace, view.namespace_labels, call):
        return None
    return blocked(
        Reason.CALL_NOT_ALLOWED,
        f"spec.calls of RecordingClass {view.recording.spec.class_name} does not let namespace {namespace} record this call: "
        "use a call id that it gives to this namespace, or ask an administrator to add one",
        # NB: namespaces are not watched, for the sake of their labels alone; an edit of the class wakes us anyway.
        again_after=recheck_of(view, now) if view.recording_class.spec.looks_at_labels else None,
    )


def storage_does_not_exist(view: View, now: datetime) -> Plan | None:
    """The class has no storage of this name."""
    assert view.recording_class is not None
    if storage_of(view.recording, view.recording_class) is not None:
        return None
    defaults = view.recording_class.spec.defaults
    wanted = view.recording.spec.storage or (defaults.storage if defaults else None)
    known = ", ".join(storage.name for storage in view.recording_class.spec.storages)
    return blocked(
        Reason.STORAGE_NOT_FOUND,
        f"RecordingClass {view.recording.spec.class_name} has no storage {wanted}; it has: {known}",
    )


def namespace_has_too_many(view: View, now: datetime) -> Plan | None:
    """Limit of the class."""
    assert view.recording_class is not None
    limits = view.recording_class.spec.limits
    most = limits.concurrent_per_namespace if limits else None
    if view.attempts or most is None or view.active_in_namespace < most:
        return None
    return blocked(
        Reason.TOO_MANY_RECORDINGS,
        f"{view.active_in_namespace} recordings of this class run in this namespace and it allows {most}: stop one",
        again_after=recheck_of(view, now),
    )


def source_secret_is_missing(view: View, now: datetime) -> Plan | None:
    """The operator cannot make join tokens."""
    secret = view.source_secret
    if secret is None or not secret.problem:
        return None
    return blocked(
        Reason.SOURCE_SECRET_NOT_FOUND,
        f"Secret {secret.name} in the operator's namespace {secret.namespace} {secret.problem}: an administrator creates it "
        "with the keys apiKey and apiSecret",
        again_after=recheck_of(view, now),
    )


def storage_secret_is_missing(view: View, now: datetime) -> Plan | None:
    """The pod would wait for its volume for ever."""
    secret = view.storage_secret
    if secret is None or not secret.problem:
        return None
    return blocked(
        Reason.STORAGE_SECRET_NOT_FOUND,
        f"Secret {secret.name} {secret.problem} in namespace {secret.namespace}: create it with the keys accessKeyId and "
        "secretAccessKey",
        again_after=recheck_of(view, now),
    )


def storage_account_is_missing(view: View, now: datetime) -> Plan | None:
    """The Job controller could make no pod."""
    account = view.storage_account
    if account is None or account.exists:
        return None
    return blocked(
        Reason.SERVICE_ACCOUNT_NOT_FOUND,
        f"ServiceAccount {account.name} does not exist in namespace {account.namespace}: create it with the identity that the "
        f"storage of RecordingClass {view.recording.spec.class_name} trusts",
        again_after=recheck_of(view, now),
    )


def somebody_else_records_it(view: View, now: datetime) -> Plan | None:
    """One active recording per class and call."""
    claim = view.claim
    if claim is None or claim.state is not ClaimState.TAKEN:
        return None
    mine = claim.holder_namespace == names.namespace_of(view.recording)
    # NB: another namespace's names are nobody's business here.
    who = f"Recording {claim.holder_name}" if mine else "a Recording of another namespace"
    return over(False, Reason.ALREADY_RUNNING, f"{who} records this call already", None)


def call_is_unclaimed(view: View, now: datetime) -> Plan | None:
    """Take it before anything else is made."""
    if view.claim is None or view.claim.state is ClaimState.OURS:
        return None
    return Plan(reason=Reason.STARTING, message="claiming the call", take_claim=True)


def source_does_not_answer(view: View, now: datetime) -> Plan | None:
    """Nothing is known about the call."""
    if view.attempts or view.call is None or not view.call.problem:
        return None
    return _waiting(view, now, view.call.problem_reason, view.call.problem, needs_somebody=True)


def call_does_not_exist(view: View, now: datetime) -> Plan | None:
    """Joining it would create it, so the pod waits, not the call."""
    if view.attempts or view.call is None or view.call.exists:
        return None
    return _waiting(view, now, Reason.WAITING_FOR_CALL, "the call has not begun; it starts when somebody joins")


def attempt_may_start(view: View, now: datetime) -> Plan | None:
    """Every obstacle is out of the way."""
    n = view.latest.n + 1 if view.latest else 1
    if n == 1:
        return Plan(reason=Reason.STARTING, message="starting attempt 1", start=1)
    assert view.latest is not None
    end = judge.ending(view.latest)
    cause = f"{end.reason}: {end.message}" if end else _disruption(view.latest)
    return Plan(reason=Reason.REPLACING, message=f"attempt {n} follows attempt {n - 1} ({cause})"[:1000], start=n)


GATE: tuple[Check, ...] = (
    class_does_not_exist,  # first: all that follow read the class
    recording_is_disabled,
    call_is_not_allowed,  # before anything that would tell a stranger about storages or secrets
    storage_does_not_exist,
    namespace_has_too_many,
    source_secret_is_missing,
    storage_secret_is_missing,
    storage_account_is_missing,
    somebody_else_records_it,
    call_is_unclaimed,  # after all that can fail for other reasons: a claim keeps others away
    source_does_not_answer,
    call_does_not_exist,
    attempt_may_start,
)


def _waiting(view: View, now: datetime, reason: str, message: str, *, needs_somebody: bool = False) -> Plan:
    """Wait for the call, but not longer than the start timeout."""
    timeout = start_timeout(view)
    since = waiting_since(view) or now
    left = timeout - (now - since).total_seconds()
    if timeout and left <= 0:
        if reason == Reason.WAITING_FOR_CALL:
            text = f"the call did not begin within limits.startTimeoutSeconds ({timeout}); 0 waits for ever"
            return over(False, Reason.CALL_NOT_FOUND, text, None)
        return over(False, reason, f"{message} (given up after {timeout} s)", None)
    again = recheck_of(view, now) if reason != Reason.WAITING_FOR_CALL else None
    if timeout:
        again = min(left + 0.1, again) if again else left + 0.1
    return Plan(
        reason=reason,
        message=message,
        needs_somebody=needs_somebody,
        waits_for_call=True,
        again_after=again,
    )


_WAITING_REASONS = {Reason.WAITING_FOR_CALL, Reason.SOURCE_UNAVAILABLE, Reason.SOURCE_REFUSED}


def waiting_since(view: View) -> datetime | None:
    """When the recording began to wait for its call, as the newest transitions tell; None when it does not yet."""
    since: datetime | None = None
    for transition in reversed(view.recording.status.transitions):
        if transition.phase is not Phase.INVOKED or transition.reason not in _WAITING_REASONS:
            break
        since = parse_time(transition.time)
    return since


def _disruption(attempt: AttemptView) -> str:
    pod = attempt.pod
    if pod is not None and pod.node_unreachable:
        return f"its node {pod.node} stopped answering"
    if pod is not None and pod.disruption:
        return f"its pod is being disrupted: {pod.disruption}"
    return "its pod is being deleted"
