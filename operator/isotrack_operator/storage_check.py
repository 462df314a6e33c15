"""Does a storage of a class work? Asked by Jobs with the operator's Secret for it; decided here. Pure.

    no Secret ─────────────────────────────────▶ False
    storage or Secret is not as it was checked ─▶ Job ─▶ its last words ─▶ True or False ─▶ after a while ─┐
                                                   ▲───────────────────────────────────────────────────────┘
The name of the Job stands for storage and Secret as they are, and status.storages remembers the name: so nothing else is remembered,
and a Job that is gone has been read. While a check is repeated the former verdict stands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from isotrack_api.conditions import ConditionStatus, Reason
from isotrack_api.recording_class import StorageStatus

from .diagnose import Context, diagnose
from .view import AttemptView, Termination, format_time, parse_termination, parse_time

FIRST_RETRY = timedelta(seconds=5)
MAX_RETRY = timedelta(minutes=10)
LAST_WORDS = timedelta(seconds=10)
"""How long the state of a pod may lag behind that of its Job."""
KEYS = ("accessKeyId", "secretAccessKey")
GOOD = (Reason.STORAGE_AVAILABLE, Reason.STORAGE_LIMITED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What there is about one storage."""

    name: str
    """Of the storage."""
    secret_name: str
    namespace: str
    """The operator's."""
    secret: Mapping[str, Any] | None
    job_name: str
    """Of the Job that checks the storage and the Secret as they are."""
    job: AttemptView | None = None
    """That Job and its pod."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What follows."""

    status: StorageStatus
    again_after: float
    """Seconds after which time alone may change it."""
    start: bool = False
    """Have the Job made (anew)."""


@dataclass(frozen=True, slots=True)
class _Found:
    ready: ConditionStatus
    reason: str
    message: str


def next_step(seen: Seen, before: StorageStatus | None, now: datetime, interval: timedelta) -> Step:
    """Judge one storage.

    Args:
        before: What status.storages says of it.
        interval: How often a storage that works is tried again.
    """
    if problem := secret_problem(seen.secret):
        text = f"Secret {seen.secret_name} in namespace {seen.namespace} {problem}: create it with the keys {' and '.join(KEYS)}"
        found = _Found(ConditionStatus.FALSE, Reason.STORAGE_SECRET_NOT_FOUND, text)
        status = _status(seen, before, found, now, job=None, checked_at=None)
        return Step(status=status, again_after=_retry(status, now).total_seconds())
    known = before if before is not None and before.job == seen.job_name else None
    job = seen.job.job if seen.job else None
    if seen.job is not None and job is not None and not (job.complete or job.failed):
        return Step(status=_meanwhile(seen, seen.job, before, known, now), again_after=15.0)
    checked = parse_time(known.checked_at) if known else None
    if seen.job is not None and job is not None and job.ended_at and (checked is None or job.ended_at > checked):
        found_now = _verdict(seen, seen.job, now)
        if found_now is None:
            return Step(status=_meanwhile(seen, seen.job, before, known, now), again_after=1.0)
        status = _status(seen, before, found_now, now, job=seen.job_name, checked_at=format_time(job.ended_at))
        return Step(status=status, again_after=_pause(status, now, interval).total_seconds())
    if known is not None and checked is not None:
        left = (checked + _pause(known, checked, interval) - now).total_seconds()
        if left > 0:
            return Step(status=known, again_after=left)
    return Step(status=_meanwhile(seen, None, before, known, now), again_after=15.0, start=True)


def secret_problem(secret: Mapping[str, Any] | None) -> str:
    """What is wrong with the operator's Secret; empty when nothing is."""
    if secret is None:
        return "does not exist"
    data = secret.get("data") or {}
    return next((f"lacks key {key}" for key in KEYS if not data.get(key)), "")


def state_of(secret: Mapping[str, Any] | None) -> str:
    """What changes when a Secret does."""
    metadata = (secret or {}).get("metadata") or {}
    return f"{metadata.get('uid')}/{metadata.get('resourceVersion')}"


def summary(storages: Sequence[StorageStatus]) -> tuple[ConditionStatus, str, str] | None:
    """Status, reason and message of the class's condition StorageReady; None when no storage is checked."""
    if not storages:
        return None
    for status in (ConditionStatus.FALSE, ConditionStatus.UNKNOWN, ConditionStatus.TRUE):
        these = [one for one in storages if one.ready is status]
        if these:
            break
    # Where all is well, what is worth saying comes first.
    these.sort(key=lambda one: not one.message)
    text = "; ".join(f"storage {one.name}: {one.message}" for one in these if one.message)
    return status, these[0].reason, text


def _verdict(seen: Seen, job: AttemptView, now: datetime) -> _Found | None:
    """What a check that is over has found; None while its last words may still come."""
    assert job.job is not None
    said = _last_words(job)
    if said is not None and said.reason in GOOD and job.job.complete:
        return _Found(ConditionStatus.TRUE, said.reason, said.message)
    if said is not None and said.reason and job.job.failed:
        text = f"{said.message} (Secret {seen.secret_name} of namespace {seen.namespace})"
        return _Found(ConditionStatus.FALSE, said.reason, text)
    if job.job.ended_at is not None and now - job.job.ended_at < LAST_WORDS:
        return None
    text = f"the check ended without a result: kubectl -n {seen.namespace} describe job {seen.job_name}"
    if job.job.message:
        text = f"{text} ({job.job.message})"
    return _Found(ConditionStatus.UNKNOWN, Reason.POD_LOST, text)


def _last_words(job: AttemptView) -> Termination | None:
    ended = job.pod is not None and job.pod.agent.exit_code is not None
    return parse_termination(job.pod.agent.end_message) if job.pod and ended else None


def _meanwhile(
    seen: Seen, job: AttemptView | None, before: StorageStatus | None, known: StorageStatus | None, now: datetime
) -> StorageStatus:
    """While a check runs: what the one before found of the same storage and Secret, else what holds it up."""
    if known is not None and known.ready is not ConditionStatus.UNKNOWN:
        return known
    context = Context(namespace=seen.namespace, volumes=(f"Secret {seen.secret_name}",), now=now)
    trouble = diagnose(job, context) if job is not None else None
    found = _Found(
        ConditionStatus.UNKNOWN,
        trouble.reason if trouble else Reason.STORAGE_CHECKING,
        trouble.message if trouble else "",
    )
    return _status(seen, before, found, now, job=seen.job_name, checked_at=known.checked_at if known else None)


def _status(
    seen: Seen, before: StorageStatus | None, found: _Found, now: datetime, *, job: str | None, checked_at: str | None
) -> StorageStatus:
    same = before is not None and before.ready is found.ready
    return StorageStatus(
        name=seen.name,
        ready=found.ready,
        reason=str(found.reason),
        message=found.message[:1024],
        since=before.since if before is not None and same else format_time(now),
        checked_at=checked_at,
        job=job,
    )


def _pause(status: StorageStatus, now: datetime, interval: timedelta) -> timedelta:
    return interval if status.ready is ConditionStatus.TRUE else min(_retry(status, now), interval)


def _retry(status: StorageStatus, now: datetime) -> timedelta:
    """Soon for who is just putting it right, seldom for what has been wrong since yesterday."""
    since = parse_time(status.since) or now
    return min(MAX_RETRY, max(FIRST_RETRY, (now - since) / 10))
