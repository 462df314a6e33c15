"""Objects of an operated cluster for tests: Recordings, classes, Jobs, pods and reports, valid by default, changed by chained calls."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from isotrack_api.recording import Recording
from isotrack_api.recording_class import RecordingClass
from isotrack_api.recording_report import RecordingReport
from isotrack_operator.builders import names
from isotrack_operator.view import (
    AttemptView,
    Call,
    Claim,
    ClaimState,
    Secret,
    View,
    format_time,
    view_attempts,
    view_finaliser,
)

UID = "6269dc2a-ce95-4709-b563-94384c82cb76"
NOW = datetime(2026, 11, 21, 12, 0, 0, tzinfo=UTC)
NAMESPACE = "team-a"
NAME = "standup"

Json = dict[str, Any]


def ago(seconds: float) -> str:
    """A time before NOW."""
    return format_time(NOW - timedelta(seconds=seconds))


class Body:
    """A JSON object under construction."""

    def __init__(self, body: Json) -> None:
        self.body = body

    def with_(self, path: str, value: Any) -> Self:
        """Set a member by its dotted path."""
        *parents, last = path.split(".")
        node = self.body
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = value
        return self


class RecordingBody(Body):
    """A Recording as the API server returns it."""

    def spec(self, **members: Any) -> Self:
        """Change the spec."""
        self.body["spec"].update(members)
        return self

    def status(self, **members: Any) -> Self:
        """Change the status."""
        self.body.setdefault("status", {}).update(members)
        return self

    def deleted(self) -> Self:
        """Somebody deleted it a moment ago."""
        return self.with_("metadata.deletionTimestamp", ago(1))

    def finished(self, reason: str = "Uploaded", *, succeeded: bool = True) -> Self:
        """It is over."""
        times = {"lastTransitionTime": ago(5), "message": ""}
        return self.status(
            conditions=[
                {"type": "Finished", "status": "True", "reason": "CallEnded", **times},
                {"type": "Succeeded", "status": "True" if succeeded else "False", "reason": reason, **times},
            ]
        )

    def build(self) -> Recording:
        """As the operator reads it."""
        return Recording.from_object(self.body)


def a_recording(**spec: Any) -> RecordingBody:
    """Recording standup of namespace team-a, 30 s old."""
    return RecordingBody(
        {
            "apiVersion": "isotrack.dev/v1alpha1",
            "kind": "Recording",
            "metadata": {
                "name": NAME,
                "namespace": NAMESPACE,
                "uid": UID,
                "generation": 1,
                "resourceVersion": "7",
                "creationTimestamp": ago(30),
            },
            "spec": {"className": "default", "call": {"id": "team-a_standup"}, **spec},
        }
    )


def a_class(**spec: Any) -> RecordingClass:
    """Class default: everybody may record what starts with the namespace's name."""
    body = {
        "apiVersion": "isotrack.dev/v1alpha1",
        "kind": "RecordingClass",
        "metadata": {"name": "default", "uid": "c1a55", "generation": 3, "resourceVersion": "5"},
        "spec": {
            "calls": [{"namespaces": {"selector": {}}, "ids": ["{namespace}_*"]}],
            "source": {"livekit": {"url": "wss://livekit.example.com", "credentialsSecretName": "livekit"}},
            "storages": [
                {
                    "name": "archive",
                    "s3": {"bucket": "recordings", "prefix": "calls", "credentials": {"secretName": "archive"}},
                }
            ],
            **spec,
        },
    }
    return RecordingClass.from_object(body)


def job_name(n: int = 1) -> str:
    """Name of the Job of an attempt."""
    return names.attempt_name(NAME, UID, n)


class JobBody(Body):
    """A Job as the API server returns it."""

    def complete(self, seconds_ago: float = 1) -> Self:
        """Its pod succeeded."""
        return self._over("Complete", seconds_ago)

    def failed(self, seconds_ago: float = 1) -> Self:
        """Its pod failed, or vanished."""
        return self._over("Failed", seconds_ago)

    def _over(self, kind: str, seconds_ago: float) -> Self:
        condition = {"type": kind, "status": "True", "lastTransitionTime": ago(seconds_ago), "message": "it is over"}
        return self.with_("status.conditions", [condition])


def a_job(n: int = 1, *, created_ago: float = 20) -> JobBody:
    """The Job of an attempt."""
    return JobBody(
        {
            "metadata": {
                "name": job_name(n),
                "namespace": NAMESPACE,
                "uid": f"job-{n}",
                "creationTimestamp": ago(created_ago),
                "labels": {names.ATTEMPT_LABEL: str(n), names.UID_LABEL: UID, names.MANAGED_BY: names.MANAGER},
                "ownerReferences": [{"uid": UID, "controller": True, "kind": "Recording", "name": NAME}],
            },
            "spec": {},
            "status": {},
        }
    )


class PodBody(Body):
    """A pod as the kubelet reports it."""

    def condition(self, kind: str, status: str, **more: str) -> Self:
        """Set a condition of the pod."""
        conditions = [c for c in self.body["status"].get("conditions", []) if c["type"] != kind]
        return self.with_("status.conditions", [*conditions, {"type": kind, "status": status, **more}])

    def container(self, name: str, state: Mapping[str, Any], restarts: int = 0, **last: Any) -> Self:
        """Set the state of a container."""
        key = "initContainerStatuses" if name == names.RECORDER else "containerStatuses"
        status = {"name": name, "state": dict(state), "restartCount": restarts}
        if last:
            status["lastState"] = {"terminated": last}
        return self.with_(f"status.{key}", [status])

    def running(self, *, recorder_restarts: int = 0, **last: Any) -> Self:
        """Both containers run."""
        self.with_("status.phase", "Running").with_("spec.nodeName", "node-1")
        self.condition("PodScheduled", "True").condition("PodReadyToStartContainers", "True")
        self.condition("ContainersReady", "True").condition("Ready", "True")
        self.container(names.RECORDER, {"running": {}}, recorder_restarts, **last)
        return self.container(names.AGENT, {"running": {}})

    def waiting(self, reason: str, message: str = "", container: str = names.RECORDER) -> Self:
        """A container cannot start."""
        self.with_("spec.nodeName", "node-1").condition("PodScheduled", "True")
        return self.container(container, {"waiting": {"reason": reason, "message": message}})

    def unschedulable(self) -> Self:
        """No node takes it."""
        return self.condition("PodScheduled", "False", reason="Unschedulable", message="0/3 nodes: not enough memory")

    def ended(
        self, exit_code: int, *, reason: str = "", said: Mapping[str, Any] | str = "", ended_ago: float = 1
    ) -> Self:
        """The agent ended."""
        self.with_("status.phase", "Succeeded" if exit_code == 0 else "Failed").with_("spec.nodeName", "node-1")
        state = {
            "exitCode": exit_code,
            "reason": reason or ("Completed" if exit_code == 0 else "Error"),
            "message": said if isinstance(said, str) else json.dumps(said),
            "finishedAt": ago(ended_ago),
        }
        self.container(names.RECORDER, {"terminated": {"exitCode": 0}})
        return self.container(names.AGENT, {"terminated": state})

    def disrupted(self, reason: str = "EvictionByEvictionAPI") -> Self:
        """It is being evicted."""
        self.with_("metadata.deletionTimestamp", ago(0))
        return self.condition("DisruptionTarget", "True", reason=reason)

    def about_to_be_evicted(self, seconds_ago: float = 1) -> Self:
        """The eviction has set its condition, and not deleted it yet."""
        reason = "EvictionByEvictionAPI"
        return self.condition("DisruptionTarget", "True", reason=reason, lastTransitionTime=ago(seconds_ago))

    def told_to_go(self, seconds_ago: float = 1, *, grace: int = 300) -> Self:
        """It is being deleted, and has its grace period for that."""
        self.with_("metadata.deletionGracePeriodSeconds", grace)
        return self.with_("metadata.deletionTimestamp", ago(seconds_ago - grace))

    def unreachable(self, seconds_ago: float = 30) -> Self:
        """Its node stopped answering: the node controller touched Ready and nothing else."""
        return self.running().condition("Ready", "False", lastTransitionTime=ago(seconds_ago))

    def restarts_agent_on(self, *codes: int) -> Self:
        """The API server kept the agent's restart rules."""
        rule = {"action": "Restart", "exitCodes": {"operator": "In", "values": list(codes)}}
        return self.with_("spec.containers", [{"name": names.AGENT, "restartPolicyRules": [rule]}])

    def agent_killed(
        self, restarts: int = 0, *, ended_ago: float = 1, reason: str = "Error", waiting: str = ""
    ) -> Self:
        """The agent was killed, for the (restarts + 1)th time; the recorder goes on."""
        self.running().restarts_agent_on(137)
        ended = {"exitCode": 137, "reason": reason, "finishedAt": ago(ended_ago)}
        if not waiting:
            return self.container(names.AGENT, {"terminated": ended}, restarts)
        return self.container(names.AGENT, {"waiting": {"reason": waiting}}, restarts, **ended)


def a_pod(n: int = 1, *, created_ago: float = 19) -> PodBody:
    """The pod of an attempt, not scheduled yet."""
    return PodBody(
        {
            "metadata": {
                "name": f"{job_name(n)}-abcde",
                "namespace": NAMESPACE,
                "uid": f"pod-{n}",
                "creationTimestamp": ago(created_ago),
                "ownerReferences": [{"uid": f"job-{n}", "controller": True, "kind": "Job", "name": job_name(n)}],
            },
            "spec": {},
            "status": {"phase": "Pending"},
        }
    )


def a_finaliser(*, created_ago: float = 10) -> JobBody:
    """The Job that finishes the Recording."""
    job = a_job(created_ago=created_ago).with_("metadata.name", names.finaliser_name(NAME, UID))
    job.body["metadata"]["labels"].pop(names.ATTEMPT_LABEL)
    return job.with_("metadata.uid", "finaliser")


def a_finaliser_pod(exit_code: int | None = None, **said: Any) -> PodBody:
    """Its pod; ended with this code, and these words."""
    pod = a_pod()
    pod.body["metadata"].update(
        name="finaliser-abcde", uid="pod-f", ownerReferences=[{"uid": "finaliser", "controller": True}]
    )
    if exit_code is None:
        return pod
    pod.ended(exit_code, said=said)
    pod.body["status"]["containerStatuses"][0]["name"] = names.FINALISER
    return pod


def a_report(n: int = 1, **status: Any) -> RecordingReport:
    """The report of an attempt."""
    return RecordingReport.from_object(
        {
            "apiVersion": "isotrack.dev/v1alpha1",
            "kind": "RecordingReport",
            "metadata": {"name": job_name(n), "namespace": NAMESPACE},
            "spec": {"recordingUid": UID, "attempt": n},
            "status": status,
        }
    )


def capturing(n: int = 1, *, armed_ago: float = 10, **more: Any) -> RecordingReport:
    """The report of an attempt that captures."""
    armed = int((NOW - timedelta(seconds=armed_ago)).timestamp() * 1000)
    members = {
        "phase": "Capturing",
        "armedAtMs": armed,
        "firstPacketAtMs": armed + 100,
        "epochMs": armed,
        "callSid": "RM_1",
    }
    return a_report(n, **{**members, **more})


def an_attempt(
    job: JobBody | None = None, pod: PodBody | None = None, report: RecordingReport | None = None, n: int = 1
) -> AttemptView:
    """One attempt as the operator sees it."""
    found = view_attempts(
        a_recording().build(),
        [(job or a_job(n)).body],
        [pod.body] if pod else [],
        [report] if report else [],
    )
    return found[0]


def a_view(
    recording: RecordingBody | None = None,
    *,
    recording_class: RecordingClass | None | str = "default",
    jobs: list[JobBody] | None = None,
    pods: list[PodBody] | None = None,
    reports: list[RecordingReport] | None = None,
    **facts: Any,
) -> View:
    """Everything about one Recording. Facts that the gate asks for are good unless given."""
    body = recording or a_recording()
    built = body.build()
    good: dict[str, Any] = {
        "source_secret": Secret(name="livekit", namespace="isotrack-system"),
        "storage_secret": Secret(name="archive", namespace=NAMESPACE),
        "claim": Claim(state=ClaimState.OURS),
        "call": Call(exists=True),
    }
    job_bodies, pod_bodies = [job.body for job in jobs or []], [pod.body for pod in pods or []]
    return View(
        recording=built,
        recording_class=a_class() if isinstance(recording_class, str) else recording_class,
        attempts=view_attempts(built, job_bodies, pod_bodies, reports or []),
        finaliser=view_finaliser(built, job_bodies, pod_bodies),
        **(good | facts),
    )
