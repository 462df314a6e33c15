"""What keeps an attempt from working: pod states in, cause and the next command out. Pure; first finding wins.

The strings compared here are the kubelet's and the scheduler's (container waiting reasons, pod conditions); they are stable in
practice but no contract, so each check is loose and silence means "nothing known is wrong".
"""

# ruff: noqa: ARG001 - all checks have one signature

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from isotrack_api.conditions import Reason

from .view import AttemptView, ContainerView, PodView

POD_GRACE = timedelta(seconds=10)
"""A Job without a pod, or a pod without its volumes, is normal for this long."""
CRASH_LOOP = 3
"""Restarts of a container after which somebody should look."""
CALM = timedelta(minutes=10)
"""After so long without a crash old ones are forgotten; the kubelet forgets its pauses then, too."""

_IMAGE = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}
_CONFIG = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "StartError"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """One cause."""

    reason: Reason
    message: str
    """Cause, then what to do."""
    needs_somebody: bool
    """It will not go away by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What messages name."""

    namespace: str
    volumes: tuple[str, ...]
    """Objects that the pod waits for, with their kinds."""
    now: datetime


Check = Callable[[AttemptView, Context], Diagnosis | None]


def no_pod_was_made(attempt: AttemptView, context: Context) -> Diagnosis | None:
    """Quota, admission or pod security refuse the pod: only the Job's events say which."""
    job = attempt.job
    if attempt.pod or job is None or job.created is None or context.now - job.created < POD_GRACE:
        return None
    return Diagnosis(
        reason=Reason.POD_REFUSED,
        message=f"no pod was made for the Job: kubectl -n {context.namespace} describe job {job.name}",
        needs_somebody=True,
    )


def no_node_takes_it(attempt: AttemptView, context: Context) -> Diagnosis | None:
    """The scheduler found no node."""
    pod = attempt.pod
    if pod is None or not pod.unschedulable:
        return None
    return Diagnosis(
        reason=Reason.UNSCHEDULABLE,
        message=f"no node takes the pod: {pod.unschedulable}",
        needs_somebody=True,
    )


def image_cannot_be_pulled(attempt: AttemptView, context: Context) -> Diagnosis | None:
    """Wrong name, no access, no network."""
    for name, container in _containers(attempt.pod):
        if container.waiting_reason in _IMAGE:
            return Diagnosis(
                reason=Reason.IMAGE_PULL_FAILED,
                message=f"the image of container {name} cannot be pulled: {container.waiting_message}; "
                "check recorder.image of the class, the node's access to it, and, where its registry wants a login, that "
                f"namespace {context.namespace} has the Secret of the chart's recorder.imagePullSecrets",
                needs_somebody=True,
            )
    return None


def container_cannot_be_made(attempt: AttemptView, context: Context) -> Diagnosis | None:
    """The kubelet refuses to make a container."""
    for name, container in _containers(attempt.pod):
        if container.waiting_reason in _CONFIG:
            return Diagnosis(
                reason=Reason.CONTAINER_CONFIG_INVALID,
                message=f"container {name} cannot be made: {container.waiting_message or container.waiting_reason}",
                needs_somebody=True,
            )
    return None


def volumes_do_not_come_up(attempt: AttemptView, context: Context) -> Diagnosis | None:
    """Scheduled, but the sandbox is not there: nearly always a Secret or a ConfigMap that is missing."""
    pod = attempt.pod
    if pod is None or not pod.node or pod.sandbox_ready is not False or not pod.is_starting:
        return None
    if pod.created is None or context.now - pod.created < POD_GRACE:
        return None
    wanted, verb = " and ".join(context.volumes), "does" if len(context.volumes) == 1 else "do"
    question = f"; {verb} {wanted} exist in namespace {context.namespace}?" if wanted else ":"
    return Diagnosis(
        reason=Reason.VOLUME_MOUNT_FAILED,
        message=f"the pod waits for its volumes or its network{question} "
        f"kubectl -n {context.namespace} describe pod {pod.name}",
        needs_somebody=True,
    )


def recorder_runs_out_of_memory(attempt: AttemptView, context: Context) -> Diagnosis | None:
    """The recorder was killed at its limit, and comes back by itself."""
    pod = attempt.pod
    if pod is None or not _was_killed_for_memory(pod.recorder, context.now):
        return None
    return Diagnosis(
        reason=Reason.OUT_OF_MEMORY,
        message=f"the recorder was killed at its memory limit ({pod.recorder.restarts} restarts): raise "
        "recorder.resources of the class",
        needs_somebody=_is_in_a_loop(pod.recorder, context.now),
    )


def agent_runs_out_of_memory(attempt: AttemptView, context: Context) -> Diagnosis | None:
    """The agent was killed at its limit, and comes back by itself where the cluster knows restart rules."""
    pod = attempt.pod
    if pod is None or not _was_killed_for_memory(pod.agent, context.now):
        return None
    return Diagnosis(
        reason=Reason.OUT_OF_MEMORY,
        message=f"the agent was killed at its memory limit ({pod.agent.restarts} restarts): raise "
        "recorder.agentResources of the class",
        needs_somebody=_is_in_a_loop(pod.agent, context.now),
    )


def recorder_crashes(attempt: AttemptView, context: Context) -> Diagnosis | None:
    """Restarted in place again and again."""
    pod = attempt.pod
    if pod is None or not _is_in_a_loop(pod.recorder, context.now):
        return None
    return Diagnosis(
        reason=Reason.RECORDER_CRASHING,
        message=f"the recorder crashed {pod.recorder.restarts} times (exit code {pod.recorder.last_exit_code}): "
        f"kubectl -n {context.namespace} logs {pod.name} -c recorder --previous",
        needs_somebody=True,
    )


def agent_crashes(attempt: AttemptView, context: Context) -> Diagnosis | None:
    """Killed again and again; what it shipped stays shipped, and the recorder captures meanwhile."""
    pod = attempt.pod
    if pod is None or not _is_in_a_loop(pod.agent, context.now):
        return None
    return Diagnosis(
        reason=Reason.AGENT_CRASHING,
        message=f"the agent crashed {pod.agent.restarts} times (exit code {pod.agent.last_exit_code}): "
        f"kubectl -n {context.namespace} logs {pod.name} -c agent --previous",
        needs_somebody=True,
    )


def node_is_lost(attempt: AttemptView, context: Context) -> Diagnosis | None:
    """The node stopped answering."""
    pod = attempt.pod
    if pod is None or not pod.node_unreachable:
        return None
    return Diagnosis(reason=Reason.NODE_LOST, message=f"node {pod.node} stopped answering", needs_somebody=False)


CHECKS: tuple[Check, ...] = (
    node_is_lost,  # first: everything the kubelet said is old news then
    no_pod_was_made,
    no_node_takes_it,  # before the containers: they wait because of it
    image_cannot_be_pulled,
    container_cannot_be_made,
    volumes_do_not_come_up,
    recorder_runs_out_of_memory,  # before the plain crash loop, which it would also be
    agent_runs_out_of_memory,
    recorder_crashes,
    agent_crashes,
)


def diagnose(attempt: AttemptView, context: Context) -> Diagnosis | None:
    """What is wrong with a live attempt; None when nothing known is."""
    findings = (check(attempt, context) for check in CHECKS)
    return next((found for found in findings if found), None)


def _is_in_a_loop(container: ContainerView, now: datetime) -> bool:
    ended = container.last_ended_at
    return container.restarts >= CRASH_LOOP and (ended is None or now - ended < CALM)


def _was_killed_for_memory(container: ContainerView, now: datetime) -> bool:
    if container.end_reason == "OOMKilled":
        return True
    ended = container.last_ended_at
    return container.last_end_reason == "OOMKilled" and (ended is None or now - ended < CALM)


def _containers(pod: PodView | None) -> tuple[tuple[str, ContainerView], ...]:
    return () if pod is None else (("recorder", pod.recorder), ("agent", pod.agent))
