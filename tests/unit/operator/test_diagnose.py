"""Pod states in, causes out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from isotrack_operator.diagnose import CHECKS, Context, diagnose
from isotrack_operator.recovery import volumes_of
from isotrack_operator.view import AttemptView
from support.operated import NAMESPACE, NOW, a_class, a_job, a_pod, a_view, ago, an_attempt

CONTEXT = Context(namespace=NAMESPACE, volumes=("Secret archive",), now=NOW)


@pytest.mark.parametrize(
    ("attempt", "reason"),
    [
        pytest.param(an_attempt(a_job(created_ago=60)), "PodRefused", id="quota-or-admission-made-no-pod"),
        pytest.param(an_attempt(a_job(created_ago=2)), None, id="pod-is-about-to-be-made"),
        pytest.param(an_attempt(pod=a_pod().unschedulable()), "Unschedulable", id="no-node-fits"),
        pytest.param(
            an_attempt(pod=a_pod().waiting("ErrImagePull", "not found")), "ImagePullFailed", id="image-missing"
        ),
        pytest.param(an_attempt(pod=a_pod().waiting("ImagePullBackOff")), "ImagePullFailed", id="image-backoff"),
        pytest.param(an_attempt(pod=a_pod().waiting("InvalidImageName")), "ImagePullFailed", id="image-name"),
        pytest.param(
            an_attempt(pod=a_pod().waiting("CreateContainerConfigError", 'secret "x" not found')),
            "ContainerConfigInvalid",
            id="container-config",
        ),
        pytest.param(
            an_attempt(
                pod=a_pod(created_ago=60).waiting("PodInitializing").condition("PodReadyToStartContainers", "False")
            ),
            "VolumeMountFailed",
            id="secret-vanished",
        ),
        pytest.param(
            an_attempt(
                pod=a_pod(created_ago=3).waiting("PodInitializing").condition("PodReadyToStartContainers", "False")
            ),
            None,
            id="volumes-are-being-made",
        ),
        pytest.param(
            an_attempt(pod=a_pod().running(recorder_restarts=1, reason="OOMKilled", exitCode=137)),
            "OutOfMemory",
            id="recorder-oom",
        ),
        pytest.param(
            an_attempt(pod=a_pod().running(recorder_restarts=3, reason="Error", exitCode=1)),
            "RecorderCrashing",
            id="recorder-crash-loop",
        ),
        pytest.param(
            an_attempt(pod=a_pod().running(recorder_restarts=1, reason="Error", exitCode=1)),
            None,
            id="recorder-crashed-once",
        ),
        pytest.param(an_attempt(pod=a_pod().agent_killed(reason="OOMKilled")), "OutOfMemory", id="agent-oom"),
        pytest.param(an_attempt(pod=a_pod().agent_killed(1)), None, id="agent-killed-once"),
        pytest.param(
            an_attempt(pod=a_pod().agent_killed(4, waiting="CrashLoopBackOff")), "AgentCrashing", id="agent-crash-loop"
        ),
        pytest.param(
            an_attempt(pod=a_pod().running(recorder_restarts=9, reason="OOMKilled", exitCode=137, finishedAt=ago(900))),
            None,
            id="crashes-of-long-ago",
        ),
        pytest.param(an_attempt(pod=a_pod().unreachable()), "NodeLost", id="node-lost"),
        pytest.param(an_attempt(pod=a_pod().running()), None, id="healthy"),
    ],
)
def test_diagnosis_names_the_cause(attempt: AttemptView, reason: str | None) -> None:
    """Users read the reason first, so each cause has its own word."""
    found = diagnose(attempt, CONTEXT)
    assert (found.reason.value if found else None) == reason


@pytest.mark.parametrize(
    ("attempt", "part"),
    [
        pytest.param(an_attempt(a_job(created_ago=60)), "kubectl -n team-a describe job standup-6269dc2a-a1", id="job"),
        pytest.param(
            an_attempt(pod=a_pod().running(recorder_restarts=5, reason="Error", exitCode=1)),
            "kubectl -n team-a logs standup-6269dc2a-a1-abcde -c recorder --previous",
            id="logs",
        ),
        pytest.param(
            an_attempt(pod=a_pod(created_ago=60).waiting("x").condition("PodReadyToStartContainers", "False")),
            "Secret archive",
            id="secret",
        ),
    ],
)
def test_message_says_what_to_do_next(attempt: AttemptView, part: str) -> None:
    found = diagnose(attempt, CONTEXT)
    assert found is not None
    assert part in found.message


def test_a_pod_without_a_secret_is_not_said_to_wait_for_one() -> None:
    waiting = an_attempt(pod=a_pod(created_ago=60).waiting("x").condition("PodReadyToStartContainers", "False"))
    found = diagnose(waiting, replace(CONTEXT, volumes=()))
    assert found is not None
    assert "Secret" not in found.message
    assert "describe pod" in found.message


@pytest.mark.parametrize(
    ("s3", "question"),
    [
        ({"credentials": {"secretName": "archive"}}, "; does Secret archive exist"),
        (
            {"credentials": {"secretName": "archive"}, "caCertificate": {"configMapName": "internal-ca"}},
            "; do Secret archive and ConfigMap internal-ca exist",
        ),
        (
            {"credentials": {"ambient": {"serviceAccountName": "a"}}, "caCertificate": {"secretName": "internal-ca"}},
            "; does Secret internal-ca exist",
        ),
        ({"credentials": {"ambient": {"serviceAccountName": "a"}}}, "its network: kubectl"),
    ],
)
def test_a_pod_that_waits_for_volumes_names_all_that_are_the_tenant_s(s3: dict[str, Any], question: str) -> None:
    waiting = an_attempt(pod=a_pod(created_ago=60).waiting("x").condition("PodReadyToStartContainers", "False"))
    view = a_view(recording_class=a_class(storages=[{"name": "archive", "s3": {"bucket": "recordings", **s3}}]))
    found = diagnose(waiting, replace(CONTEXT, volumes=volumes_of(view)))
    assert found is not None
    assert question in found.message


def test_order_of_checks_is_pinned() -> None:
    """Each place in the order has its reason beside it in `diagnose`."""
    assert [check.__name__ for check in CHECKS] == [
        "node_is_lost",
        "no_pod_was_made",
        "no_node_takes_it",
        "image_cannot_be_pulled",
        "container_cannot_be_made",
        "volumes_do_not_come_up",
        "recorder_runs_out_of_memory",
        "agent_runs_out_of_memory",
        "recorder_crashes",
        "agent_crashes",
    ]


def test_foreign_text_is_cut_and_made_printable() -> None:
    found = diagnose(an_attempt(pod=a_pod().waiting("ErrImagePull", "x\x1b[31m" * 5000)), CONTEXT)
    assert found is not None
    assert len(found.message) < 600
    assert found.message.isprintable()
