"""Recording.status from a view and a plan: everything in one piece, written at once. Pure.

Latches (stopRequest, startedAt, stoppedAt, epochMs, effective, ends of attempts) keep the value that the status already has.
The phase is derived from the conditions and never read back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from isotrack_api.conditions import Reason
from isotrack_api.recording import (
    MAX_STATUS_ATTEMPTS,
    MAX_STATUS_FILES,
    MAX_STATUS_TRANSITIONS,
    Attempt,
    Effective,
    FileStatus,
    ManifestRef,
    Phase,
    RecordingStatus,
    RecordingTotals,
    StartReason,
    StopRequest,
    Transition,
)

from . import attempts as judge
from .conditions import OVER, build_conditions, headline, live, phase_of
from .decision import Plan
from .recovery import finaliser_said
from .resolve import effective_of, storage_of
from .view import AttemptView, Termination, View, format_time, parse_time

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def build_status(view: View, plan: Plan, now: datetime) -> RecordingStatus:
    """The status that the Recording should have."""
    old = view.recording.status
    if plan.release:
        return _ended(view, now)
    conditions = build_conditions(view, plan, now)
    phase = phase_of(conditions)
    started = old.started_at or _started_at(view)
    stopped = old.stopped_at or (_stopped_at(view, plan, now) if started else None)
    return RecordingStatus(
        observed_generation=view.recording.metadata.generation,
        phase=phase,
        conditions=conditions,
        started_at=started,
        stopped_at=stopped,
        duration_seconds=_duration(started, stopped, now),
        start_reason=StartReason.REQUESTED if started else None,
        stop_reason=plan.verdict.stop if plan.verdict else None,
        stop_request=stop_request(view, now),
        attempts=_attempts(view, now),
        effective=_effective(view),
        totals=_totals(view),
        files=_files(view),
        transitions=_transitions(old.transitions, phase, headline(conditions, phase), now),
        manifest=_manifest(view) or old.manifest,
        # Not a latch: where the SFU was restarted, the same people's call has a new session.
        call_sid=_first(_call_sid(attempt) for attempt in reversed(view.attempts)) or old.call_sid,
        epoch_ms=old.epoch_ms if old.epoch_ms is not None else _epoch_ms(view),
    )


def _ended(view: View, now: datetime) -> RecordingStatus:
    """After the end: what reports and older attempts still had to say. The verdict stands."""
    generation = view.recording.metadata.generation
    old = view.recording.status
    return old.model_copy(
        update={
            "observed_generation": generation,
            "conditions": tuple(c.model_copy(update={"observed_generation": generation}) for c in old.conditions),
            "attempts": _attempts(view, now),
            "totals": _totals(view),
            "files": _files(view),
            "manifest": _manifest(view) or old.manifest,
        }
    )


def _transitions(old: tuple[Transition, ...], phase: Phase, reason: str, now: datetime) -> tuple[Transition, ...]:
    if old:
        last = old[-1]
        # A muted call falls back to Armed and returns again and again: no news after the first media.
        quiet = last.reason == Reason.CAPTURING and reason == Reason.ARMED
        if last.phase is phase and (last.reason == reason or quiet):
            return old
    seq = old[-1].seq + 1 if old else 1
    return (*old, Transition(seq=seq, phase=phase, time=format_time(now), reason=reason))[-MAX_STATUS_TRANSITIONS:]


# -- the rest -----------------------------------------------------------------------------------------------------------------


def stop_request(view: View, now: datetime) -> StopRequest | None:
    """The latch: the first stop that was seen, for ever."""
    if view.recording.status.stop_request is not None:
        return view.recording.status.stop_request
    if not view.stop_requested:
        return None
    by = "deletion" if view.is_deleting else "desiredState"
    if not view.is_deleting and view.desired_by:
        by = f"{by} ({view.desired_by})"
    return StopRequest(time=format_time(now), by=by)


def _attempts(view: View, now: datetime) -> tuple[Attempt, ...]:
    found = []
    for attempt in view.attempts[-MAX_STATUS_ATTEMPTS:]:
        end, record, job = judge.ending(attempt), attempt.record, attempt.job
        created = job.created if job else None
        ended_at = (record.ended_at if record else None) or (format_time(end.at or now) if end else None)
        found.append(
            Attempt(
                n=attempt.n,
                job=attempt.name,
                pod_uid=attempt.pod.uid if attempt.pod else (record.pod_uid if record else None),
                started_at=record.started_at if record else format_time(created or now),
                ended_at=ended_at,
                result=end.result if end else None,
                reason=str(end.reason)[:63] if end else None,
                message=end.message[:1000] if end and end.message else None,
            )
        )
    return tuple(found)


def _effective(view: View) -> Effective | None:
    if view.recording.status.effective is not None or not view.attempts or view.recording_class is None:
        return view.recording.status.effective
    storage = storage_of(view.recording, view.recording_class)
    return effective_of(view.recording, view.recording_class, storage) if storage else None


def _epoch_ms(view: View) -> int | None:
    for attempt in view.attempts:
        status = attempt.report.status if attempt.report else None
        end = judge.ending(attempt)
        for value in (
            status.epoch_ms if status else None,
            status.armed_at_ms if status else None,
            end.termination.epoch_ms if end and end.termination else None,
        ):
            if value is not None:
                return value
    return None


def _call_sid(attempt: AttemptView) -> str | None:
    end = judge.ending(attempt)
    said = attempt.report.status.call_sid if attempt.report else None
    return said or (end.termination.call_sid if end and end.termination else None) or None


def _started_at(view: View) -> str | None:
    epoch = view.recording.status.epoch_ms or _epoch_ms(view)
    return format_time(datetime.fromtimestamp(epoch / 1000, UTC)) if epoch else None


def _stopped_at(view: View, plan: Plan, now: datetime) -> str | None:
    if plan.verdict is not None:
        ends = [end.at for attempt in view.attempts if (end := judge.ending(attempt)) and end.at]
        return format_time(max(ends, default=now))
    at_work = live(view)
    return format_time(now) if at_work and all(judge.report_phase(a) in OVER for a in at_work) else None


def _duration(started: str | None, stopped: str | None, now: datetime) -> int | None:
    begin = parse_time(started)
    if begin is None:
        return None
    return max(0, round(((parse_time(stopped) or now) - begin).total_seconds()))


def _totals(view: View) -> RecordingTotals | None:
    parts = [a.report.status.totals for a in view.attempts if a.report and a.report.status.totals]
    ends = [end.termination for a in view.attempts if (end := judge.ending(a)) and end.termination]
    if (recovered := finaliser_said(view)) is not None:
        ends.append(recovered[1])
    if not parts and not ends:
        return view.recording.status.totals

    def best(summed: int, said: Iterable[int | None]) -> int:
        # The last agent counts the whole recording, earlier ones only their own attempt: the larger figure is the sum.
        return max([summed, *(value for value in said if value is not None)])

    return RecordingTotals(
        participants=best(max((p.participants for p in parts), default=0), (t.participants for t in ends)),
        files=best(sum(p.files for p in parts), (t.files for t in ends)),
        bytes=best(sum(p.bytes for p in parts), (t.bytes for t in ends)),
        lost_seconds=best(
            sum(p.lost_seconds for p in parts),
            (-(-t.lost_ms // 1000) if t.lost_ms is not None else None for t in ends),
        ),
    )


def _files(view: View) -> tuple[FileStatus, ...]:
    """The newest files: those of reports that are gone, then of each attempt, in the order of its report."""
    told: dict[str, FileStatus] = {}
    for attempt in view.attempts:
        for file in attempt.report.status.files if attempt.report else ():
            fields = {name: getattr(file, name) for name in FileStatus.model_fields}
            told[file.name] = FileStatus.model_construct(**fields)  # a part of a model that was validated already
    # NB: what is told counts where it is told. In the places that the status has, which are the newest ones' last time, older ones would
    # come behind them: each write of the status would then make another one necessary.
    gone = [file for file in view.recording.status.files if file.name not in told]
    return (*gone, *told.values())[-MAX_STATUS_FILES:]


def _manifest(view: View) -> ManifestRef | None:
    """recording.json, as the attempt says that wrote it last; manifests of single attempts do not count."""
    found: list[tuple[datetime, ManifestRef]] = []
    if (recovered := finaliser_said(view)) is not None and (ref := _manifest_of(*recovered)) is not None:
        found.append(ref)
    for attempt in view.attempts:
        end = judge.ending(attempt)
        ref = _manifest_of(end.at, end.termination) if end else None
        if ref is not None:
            found.append(ref)
        elif (
            attempt.report and attempt.report.status.manifest and (at := parse_time(attempt.report.status.last_update))
        ):
            found.append((at, attempt.report.status.manifest))
    whole = [(at, manifest) for at, manifest in found if manifest.uri.endswith("/recording.json")]
    return max(whole, key=lambda one: one[0])[1] if whole else None


def _manifest_of(at: datetime | None, said: Termination | None) -> tuple[datetime, ManifestRef] | None:
    if at is None or said is None or not _DIGEST.fullmatch(said.manifest_digest):
        return None
    if not said.manifest_uri.startswith("s3://"):
        return None
    return at, ManifestRef(uri=said.manifest_uri, digest=said.manifest_digest)


def _first(values: Iterable[str | None]) -> str | None:
    return next((value for value in values if value), None)


# -- comparing ----------------------------------------------------------------------------------------------------------------


def dump(status: RecordingStatus) -> dict[str, Any]:
    """The status as plain JSON values."""
    return status.model_dump(mode="json", by_alias=True, exclude_none=True)


def is_news(old: Mapping[str, Any], new: Mapping[str, Any], *, counters: bool) -> bool:
    """Whether the status is worth a write.

    Args:
        counters: Figures that grow all the time count, too (at resyncs): else each report would rewrite the Recording
            under every watch.
    """
    return dict(old) != dict(new) if counters else _without_counters(old) != _without_counters(new)


def _without_counters(status: Mapping[str, Any]) -> dict[str, Any]:
    calm = {key: value for key, value in status.items() if key != "durationSeconds"}
    totals = calm.get("totals") or {}
    return calm | {"totals": {key: totals.get(key) for key in ("participants", "files")}}
