"""What was gathered about one Recording before deciding: parsed once, cut to what matters, frozen.

Objects of ours are read through their pydantic models; of Jobs and pods only the fields that decide anything are kept. All text
from outside is cut. Three-valued facts use None for "not asked": `gather` asks only what the next decision may need.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any

from isotrack_api.conditions import Condition, ConditionStatus, ConditionType
from isotrack_api.manifest import StopReason
from isotrack_api.recording import Attempt, DesiredState, Recording, RecordingStatus
from isotrack_api.recording_class import RecordingClass
from isotrack_api.recording_report import RecordingReport

from .builders import names
from .builders.job import INTENT_VARIABLE
from .builders.parts import unescaped
from .errors import cut

Object = Mapping[str, Any]
MAX_TERMINATION_BYTES = 4096
MAX_LEFT_OUT = 10


def parse_time(text: str | None) -> datetime | None:
    """RFC 3339 as the API server writes it; None for what is absent or not a time."""
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def true_condition(status: RecordingStatus, kind: ConditionType) -> Condition | None:
    """The condition of this type, where it is True."""
    return next((c for c in status.conditions if c.type == kind and c.status is ConditionStatus.TRUE), None)


def format_time(moment: datetime) -> str:
    """RFC 3339 with seconds, as metav1.Time has it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A track that was wanted and cannot be recorded. Foreign text, as it came."""

    user_id: str
    source: str
    reason: str
    """As in the manifest: Encrypted, CodecUnsupported, …"""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Termination:
    """What the agent said when it ended: its termination message (at most 4 KiB of JSON)."""

    reason: str = ""
    message: str = ""
    stop_reason: StopReason | None = None
    manifest_uri: str = ""
    manifest_digest: str = ""
    files: int | None = None
    bytes: int | None = None
    participants: int | None = None
    lost_ms: int | None = None
    complete: bool | None = None
    """Nothing that was sent is known to be missing beyond declared gaps."""
    ended_at: datetime | None = None
    epoch_ms: int | None = None
    call_sid: str = ""
    unrecorded: tuple[LeftOut, ...] = ()
    """The first of the tracks that are in no file,"""
    unrecorded_tracks: int = 0
    """and how many there are."""


def parse_termination(text: str) -> Termination | None:
    """Read a termination message; None when it is not one (the kubelet puts log lines there after a crash)."""
    try:
        value = json.loads(text[:MAX_TERMINATION_BYTES])
    except (ValueError, RecursionError):  # not JSON, or nested a thousand deep
        return None
    if not isinstance(value, dict):
        return None

    def word(key: str, limit: int) -> str:
        return cut(value[key], limit) if isinstance(value.get(key), str) else ""

    def count(key: str) -> int | None:
        found = value.get(key)
        return found if isinstance(found, int) and not isinstance(found, bool) and 0 <= found <= 2**53 else None

    stop = value.get("stopReason")
    return Termination(
        reason=word("reason", 63),
        message=word("message", 1000),
        stop_reason=StopReason(stop) if isinstance(stop, str) and stop in set(StopReason) else None,
        manifest_uri=word("manifestUri", 2048),
        manifest_digest=word("manifestDigest", 71),
        files=count("files"),
        bytes=count("bytes"),
        participants=count("participants"),
        lost_ms=count("lostMs"),
        complete=value["complete"] if isinstance(value.get("complete"), bool) else None,
        ended_at=parse_time(word("endedAt", 40)),
        epoch_ms=count("epochMs"),
        call_sid=word("callSid", 128),
        unrecorded=_left_out(value.get("unrecorded")),
        unrecorded_tracks=count("unrecordedTracks") or 0,
    )


def _left_out(rows: object) -> tuple[LeftOut, ...]:
    found = []
    for row in rows[:MAX_LEFT_OUT] if isinstance(rows, list) else ():
        words = [row.get(key) for key in ("userId", "source", "reason")] if isinstance(row, dict) else [None]
        if all(isinstance(word, str) for word in words):
            user_id, source, reason = (cut(word, 64) for word in words)
            found.append(LeftOut(user_id=user_id, source=source, reason=reason))
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerView:
    """State of one container, as the kubelet reports it."""

    waiting_reason: str = ""
    waiting_message: str = ""
    running: bool = False
    exit_code: int | None = None
    """Set while the container is not running. Whether that is final, the pod knows."""
    end_reason: str = ""
    end_message: str = ""
    ended_at: datetime | None = None
    restarts: int = 0
    last_end_reason: str = ""
    last_exit_code: int | None = None
    last_ended_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PodView:
    """State of the pod of an attempt."""

    name: str
    uid: str
    phase: str = "Pending"
    reason: str = ""
    message: str = ""
    created: datetime | None = None
    deleting: bool = False
    disrupted_since: datetime | None = None
    """When it was told to go, or was about to be; None where that is not known."""
    disruption: str = ""
    """Reason of a true DisruptionTarget condition: EvictionByEvictionAPI, PreemptionByScheduler, TerminationByKubelet…"""
    node: str = ""
    unschedulable: str = ""
    """Scheduler's message while no node takes the pod."""
    sandbox_ready: bool | None = None
    """Condition PodReadyToStartContainers: False while volumes and network are being made."""
    node_unreachable: bool = False
    """The node stopped answering: the node controller then sets Ready to False and leaves ContainersReady as it was."""
    unreachable_since: datetime | None = None
    delete_by: datetime | None = None
    """When the kubelet should have ended it at the latest, of a pod that is being deleted."""
    agent: ContainerView = ContainerView()
    recorder: ContainerView = ContainerView()
    agent_restarted_on: frozenset[int] = frozenset()
    """Exit codes after which the kubelet begins the agent again, in place."""

    @property
    def is_over(self) -> bool:
        """No container of it runs, or ever will."""
        return self.phase in ("Failed", "Succeeded")

    @property
    def agent_exit_code(self) -> int | None:
        """With what the agent ended for good."""
        agent = self.agent
        if self.deleting and not agent.running and agent.restarts and agent.exit_code is None:
            return agent.last_exit_code  # it waited for its restart, which a pod that is being deleted does not get
        if agent.exit_code in self.agent_restarted_on and not self.is_over:
            return None
        return agent.exit_code

    @property
    def is_starting(self) -> bool:
        """No container of it has run yet."""
        return self.phase == "Pending" and not self.recorder.running and not self.recorder.restarts


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """State of the Job of an attempt."""

    name: str
    uid: str
    created: datetime | None = None
    deleting: bool = False
    complete: bool = False
    failed: bool = False
    message: str = ""
    ended_at: datetime | None = None
    intent: str = ""
    """What the attempt was told (JSON)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptView:
    """Everything known about one attempt. `attempts` says what follows from it."""

    n: int
    name: str
    job: JobView | None = None
    pod: PodView | None = None
    report: RecordingReport | None = None
    record: Attempt | None = None
    """What our own status says about it already."""


class ClaimState(Enum):
    """Whose call it is."""

    FREE = "free"
    OURS = "ours"
    TAKEN = "taken"
    ABANDONED = "abandoned"
    """The holder is gone or has finished: it may be taken over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The Lease on the call."""

    state: ClaimState
    resource_version: str | None = None
    holder_namespace: str = ""
    holder_name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """Whether a Secret can be used; `problem` says what is missing."""

    name: str
    namespace: str
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Whether a ServiceAccount that the class names for pods is there."""

    name: str
    namespace: str
    exists: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What the SFU says about the call. With a `problem` nothing is known."""

    exists: bool = False
    problem_reason: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """One Recording and everything that bears on it, at one moment."""

    recording: Recording
    desired_by: str = ""
    """Field manager of spec.desiredState."""
    recording_class: RecordingClass | None = None
    attempts: tuple[AttemptView, ...] = ()
    """Ascending by number."""
    finaliser: AttemptView | None = None
    """The Job that finishes what the attempts left behind, and its newest pod."""
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    source_secret: Secret | None = None
    storage_secret: Secret | None = None
    """None where recorder pods prove otherwise who they are."""
    storage_account: Account | None = None
    """The ServiceAccount by which they do."""
    claim: Claim | None = None
    call: Call | None = None
    active_in_namespace: int = 0
    """Other recordings of this class and namespace that have started and not finished."""

    @property
    def latest(self) -> AttemptView | None:
        """The newest attempt."""
        return self.attempts[-1] if self.attempts else None

    @property
    def is_deleting(self) -> bool:
        """Somebody deleted the Recording."""
        return self.recording.metadata.deletion_timestamp is not None

    @property
    def stop_requested(self) -> bool:
        """A stop was seen, now or earlier: it is never taken back."""
        return (
            self.recording.status.stop_request is not None
            or self.is_deleting
            or self.recording.spec.desired_state is DesiredState.STOPPED
        )


def view_job(job: Object) -> JobView:
    """The part of a Job that decides anything."""
    metadata, status = job["metadata"], job.get("status") or {}
    conditions = {c.get("type"): c for c in status.get("conditions") or () if c.get("status") == "True"}
    over = conditions.get("Complete") or conditions.get("Failed")
    return JobView(
        name=metadata["name"],
        uid=metadata["uid"],
        created=parse_time(metadata.get("creationTimestamp")),
        deleting="deletionTimestamp" in metadata,
        complete="Complete" in conditions,
        failed="Failed" in conditions,
        message=cut(over.get("message") or over.get("reason") or "") if over else "",
        ended_at=parse_time(over.get("lastTransitionTime")) if over else None,
        intent=_intent_of(job),
    )


def _intent_of(job: Object) -> str:
    pod = job.get("spec", {}).get("template", {}).get("spec", {})
    for container in pod.get("containers") or ():
        for variable in container.get("env") or ():
            if variable.get("name") == INTENT_VARIABLE:
                return unescaped(str(variable.get("value") or ""))
    return ""


def view_pod(pod: Object, main: str = names.AGENT) -> PodView:
    """The part of a pod that decides anything; `main` is the name of its main container."""
    metadata, status = pod["metadata"], pod.get("status") or {}
    conditions = {c.get("type"): c for c in status.get("conditions") or ()}

    def is_status(kind: str, value: str) -> bool:
        return bool(conditions.get(kind, {}).get("status") == value)

    containers = {
        c.get("name"): c
        for c in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    }
    deleting = "deletionTimestamp" in metadata
    scheduled = conditions.get("PodScheduled", {})
    sandbox = conditions.get("PodReadyToStartContainers", {}).get("status")
    unreachable = is_status("Ready", "False") and is_status("ContainersReady", "True")
    return PodView(
        name=metadata["name"],
        uid=metadata["uid"],
        phase=str(status.get("phase") or "Pending"),
        reason=cut(status.get("reason") or "", 63),
        message=cut(status.get("message") or ""),
        created=parse_time(metadata.get("creationTimestamp")),
        deleting=deleting,
        disrupted_since=_disrupted_since(metadata, conditions.get("DisruptionTarget", {})),
        disruption=cut(conditions["DisruptionTarget"].get("reason") or "Disrupted", 63)
        if is_status("DisruptionTarget", "True")
        else "",
        node=str((pod.get("spec") or {}).get("nodeName") or ""),
        unschedulable=cut(scheduled.get("message") or "no node fits")
        if is_status("PodScheduled", "False") and scheduled.get("reason") == "Unschedulable"
        else "",
        sandbox_ready=None if sandbox is None else sandbox == "True",
        node_unreachable=unreachable,
        unreachable_since=parse_time(conditions["Ready"].get("lastTransitionTime")) if unreachable else None,
        delete_by=parse_time(metadata.get("deletionTimestamp")),
        agent=_view_container(containers.get(main)),
        recorder=_view_container(containers.get(names.RECORDER)),
        agent_restarted_on=_restarted_on(pod, main),
    )


def _disrupted_since(metadata: Mapping[str, Any], target: Mapping[str, Any]) -> datetime | None:
    by, grace = parse_time(metadata.get("deletionTimestamp")), metadata.get("deletionGracePeriodSeconds")
    if by is not None and isinstance(grace, int):
        return by - timedelta(seconds=grace)
    # NB: an eviction sets the condition first, and deletes the pod in a further step.
    return parse_time(target.get("lastTransitionTime")) if target.get("status") == "True" else None


def _restarted_on(pod: Object, container: str) -> frozenset[int]:
    """Exit codes of a container's restart rules, as the API server has kept them."""
    for found in (pod.get("spec") or {}).get("containers") or ():
        if found.get("name") == container:
            rules = [rule.get("exitCodes") or {} for rule in found.get("restartPolicyRules") or ()]
            return frozenset(
                code for rule in rules if rule.get("operator") == "In" for code in rule.get("values") or ()
            )
    return frozenset()


def _view_container(status: Mapping[str, Any] | None) -> ContainerView:
    if status is None:
        return ContainerView()
    state, last = status.get("state") or {}, (status.get("lastState") or {}).get("terminated") or {}
    waiting, ended = state.get("waiting") or {}, state.get("terminated") or {}
    return ContainerView(
        waiting_reason=cut(waiting.get("reason") or "", 63),
        waiting_message=cut(waiting.get("message") or ""),
        running="running" in state,
        exit_code=ended.get("exitCode"),
        end_reason=cut(ended.get("reason") or "", 63),
        end_message=str(ended.get("message") or "")[:MAX_TERMINATION_BYTES],
        ended_at=parse_time(ended.get("finishedAt")),
        restarts=int(status.get("restartCount") or 0),
        last_end_reason=cut(last.get("reason") or "", 63),
        last_exit_code=last.get("exitCode"),
        last_ended_at=parse_time(last.get("finishedAt")),
    )


def view_attempts(
    recording: Recording, jobs: Sequence[Object], pods: Sequence[Object], reports: Sequence[RecordingReport]
) -> tuple[AttemptView, ...]:
    """Put together the attempts of a Recording. Objects that merely look like ours (other owner, other name) are left out."""
    uid, name = names.uid_of(recording), recording.metadata.name
    records = {record.n: record for record in recording.status.attempts}
    found_jobs: dict[int, JobView] = {}
    for job in jobs:
        n = _attempt_of(job, name, uid)
        if n is not None and names.is_owned_by(job["metadata"], uid):
            found_jobs[n] = view_job(job)
    found_pods: dict[str, PodView] = {}
    for pod in sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp") or "")):
        for reference in pod["metadata"].get("ownerReferences") or ():
            found_pods[str(reference.get("uid"))] = view_pod(pod)  # the newest one of a Job counts
    by_name = {report.metadata.name: report for report in reports if report.spec.recording_uid == uid}
    return tuple(
        AttemptView(
            n=n,
            name=names.attempt_name(name, uid, n),
            job=found_jobs.get(n),
            pod=found_pods.get(found_jobs[n].uid) if n in found_jobs else _orphan(records.get(n), found_pods),
            report=by_name.get(names.attempt_name(name, uid, n)),
            record=records.get(n),
        )
        for n in sorted(found_jobs.keys() | records.keys())
    )


def view_finaliser(recording: Recording, jobs: Sequence[Object], pods: Sequence[Object]) -> AttemptView | None:
    """The finaliser of a Recording, seen like an attempt; None when its Job is not there."""
    uid = names.uid_of(recording)
    name = names.finaliser_name(recording.metadata.name, uid)
    for job in jobs:
        if job["metadata"]["name"] == name and names.is_owned_by(job["metadata"], uid):
            return view_worker(job, pods, names.FINALISER)
    return None


def view_worker(job: Object, pods: Iterable[Object], main: str) -> AttemptView:
    """A Job that is no attempt, seen like one: with the newest of its pods, whose main container is called so."""
    own = [pod for pod in pods if names.is_owned_by(pod["metadata"], job["metadata"]["uid"])]
    newest = max(own, key=lambda pod: str(pod["metadata"].get("creationTimestamp") or ""), default=None)
    pod = view_pod(newest, main) if newest else None
    return AttemptView(n=0, name=job["metadata"]["name"], job=view_job(job), pod=pod)


def _orphan(record: Attempt | None, pods: Mapping[str, PodView]) -> PodView | None:
    """The pod of an attempt whose Job was deleted: it still ends in good order."""
    if record is None or record.pod_uid is None:
        return None
    return next((pod for pod in pods.values() if pod.uid == record.pod_uid), None)


def _attempt_of(job: Object, name: str, uid: str) -> int | None:
    number = (job["metadata"].get("labels") or {}).get(names.ATTEMPT_LABEL, "")
    if not (number.isascii() and number.isdigit() and len(number) <= 5):
        return None
    return int(number) if job["metadata"]["name"] == names.attempt_name(name, uid, int(number)) else None


def desired_state_manager(recording: Object) -> str:
    """Field manager that set spec.desiredState, for `status.stopRequest.by`."""
    for entry in reversed(recording.get("metadata", {}).get("managedFields") or []):
        if "f:desiredState" in ((entry.get("fieldsV1") or {}).get("f:spec") or {}):
            return cut(entry.get("manager") or "", 128)
    return ""
