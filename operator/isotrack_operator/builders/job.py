"""The Job of one attempt: a pod of two containers of one image.

`agent` is the main container and its exit code is the truth about the attempt; `recorder` is a native sidecar (an init container
with restartPolicy Always), which the kubelet restarts in place after a crash while the spool stays. So it does with an agent that was
killed, where the cluster knows restart rules (KEP-5307); elsewhere the pod fails and the next attempt goes on from the bucket. The
Job itself never retries: after an eviction it would wait, after the loss of a node it would wait for ever; `plan` decides on the
next attempt.

What a container does not need it does not get: the recorder, which parses bytes from the network, has the join token only; the
agent has the storage's credentials and a token for the API server.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from isotrack_api.credentials import CaCertificate, StorageCredentials
from isotrack_api.intent import Intent
from isotrack_api.quantity import whole
from isotrack_api.recording import Recording
from isotrack_api.recording_class import ContainerResources, RecorderPod, Toleration

from . import names
from .parts import escaped, mount, pull_secrets_of, variable
from .storage_access import StorageAccess, access_to, annotations_for

SPOOL = "/var/lib/isotrack/spool"
RUN = "/run/isotrack"
SOURCE = "/etc/isotrack/source"
SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
INTENT_VARIABLE = "ISOTRACK_INTENT"
REPORT_VARIABLE = "ISOTRACK_REPORT"

METRICS_VARIABLE = "ISOTRACK_METRICS_PORT"
METRICS_PORT = 9464
"""Of the agent's /metrics; the port that OpenTelemetry's Prometheus exporters use."""

USER_ID = 10001
"""Of the image; a number, so that runAsNonRoot can be checked without the image."""
GRACE_SECONDS = 300
"""From SIGTERM to SIGKILL: upload of what is still in the spool."""
UNREACHABLE_SECONDS = 20
"""How long a pod stays bound to a node that stopped answering. Shorter replaces pods for a hiccup of the kubelet."""
TOKEN_SECONDS = 3600
DEFAULT_SPOOL = "10Gi"
MAX_SPOOL_BYTES = 2**53

# Memory limits are the same as what is reserved times a margin for bursts; no CPU limit, because throttling loses packets.
RECORDER_RESOURCES = {"requests": {"cpu": "150m", "memory": "192Mi"}, "limits": {"memory": "1Gi"}}
AGENT_RESOURCES = {"requests": {"cpu": "100m", "memory": "192Mi"}, "limits": {"memory": "1Gi"}}

KEEP = {
    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
    "karpenter.sh/do-not-disrupt": "true",
}
"""Asks consolidating autoscalers to leave the pod where it is: a drained recorder costs a gap or an overlap."""

KILLED = (132, 134, 135, 136, 137, 139)
"""Exit codes of a container whose process was ended by SIGILL, SIGABRT, SIGBUS, SIGFPE, SIGKILL (by the kernel for want of memory,
too) or SIGSEGV: 128 and the signal. An agent never chooses one of them, so the kubelet may begin it again."""
RESTART_RULES_SINCE = (1, 34)
"""Version of Kubernetes that knows `restartPolicyRules`: it drops them while its feature gate is off (the default until 1.35). Older
ones refuse the pod for its container's restartPolicy."""

_UNREACHABLE_TAINTS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


def build_job(
    recording: Recording,
    intent: Intent,
    *,
    pod: RecorderPod,
    image: str,
    pull_secrets: Sequence[str] = (),
    credentials: StorageCredentials,
    ca: CaCertificate | None = None,
    restart_rules: bool = True,
) -> dict[str, Any]:
    """The Job of attempt `intent.attempt`.

    Args:
        pod: What the class says about pods.
        image: Used unless the class names one.
        pull_secrets: Secrets in the Recording's namespace to pull it with.
        credentials: Who the agent is to the storage.
        ca: Whom it trusts there, where that is not a public authority.
        restart_rules: Whether the cluster knows `restartPolicyRules`.
    """
    # NB: from the class as it is now, as the volume is: an intent that a former attempt froze may tell another size.
    intent = intent.model_copy(update={"spool_bytes": spool_bytes(pod)})
    uid, n = names.uid_of(recording), intent.attempt
    name = names.attempt_name(recording.metadata.name, uid, n)
    labels = names.labels(recording, n)
    access = access_to(credentials, name, ca)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": names.namespace_of(recording),
            "labels": labels,
            "ownerReferences": [names.owner(recording)],
        },
        "spec": {
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            # Without it a pod that is deleted counts as failed at once, even if its agent then ends with 0.
            "podReplacementPolicy": "Failed",
            "template": {
                "metadata": {
                    "labels": labels,
                    "annotations": annotations_for(credentials, KEEP | (pod.pod_annotations or {})),
                },
                "spec": pull_secrets_of(pull_secrets)
                | _pod_spec(recording, intent, pod, pod.image or image, name, access, restart_rules=restart_rules),
            },
        },
    }


def spool_bytes(pod: RecorderPod) -> int | None:
    """Size of the spool, which the recorder must not come to; None where the class sets no limit (0, as for an emptyDir)."""
    return min(whole(spool_size(pod)), MAX_SPOOL_BYTES) or None


def spool_size(pod: RecorderPod) -> int | str:
    """Size limit of the volume for captured media, as a quantity."""
    return pod.spool.size_limit if pod.spool and pod.spool.size_limit is not None else DEFAULT_SPOOL


def _pod_spec(
    recording: Recording,
    intent: Intent,
    pod: RecorderPod,
    image: str,
    job_name: str,
    access: StorageAccess,
    *,
    restart_rules: bool,
) -> dict[str, Any]:
    pull_policy = pod.image_pull_policy.value if pod.image_pull_policy else "IfNotPresent"
    shared = [mount("spool", SPOOL), mount("run", RUN), mount("tmp", "/tmp")]  # noqa: S108 - a volume of the pod
    recorder = _container(
        names.RECORDER,
        "capture",
        image,
        pull_policy,
        intent,
        [*shared, mount("source", SOURCE, read_only=True)],
        resources_of(pod.resources, RECORDER_RESOURCES),
    )
    agent = _container(
        names.AGENT,
        "agent",
        image,
        pull_policy,
        intent,
        [
            *shared,
            *access.mounts,
            mount("kube-api-access", SERVICE_ACCOUNT, read_only=True),
        ],
        resources_of(pod.agent_resources, AGENT_RESOURCES),
    )
    agent["env"] += [
        variable(REPORT_VARIABLE, job_name),
        variable(METRICS_VARIABLE, str(METRICS_PORT)),
        *access.environment,
    ]
    if restart_rules:
        agent["restartPolicy"] = "Never"
        agent["restartPolicyRules"] = [{"action": "Restart", "exitCodes": {"operator": "In", "values": list(KILLED)}}]
    agent["ports"] = [{"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"}]
    spec: dict[str, Any] = {
        "serviceAccountName": access.account or names.base_name(recording.metadata.name, names.uid_of(recording)),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": pod_security(),
        "initContainers": [recorder | {"restartPolicy": "Always"}],
        "containers": [agent],
        "volumes": _volumes(pod, job_name, access),
        "tolerations": tolerations_of(pod),
    }
    if pod.node_selector:
        spec["nodeSelector"] = dict(pod.node_selector)
    if pod.priority_class_name:
        spec["priorityClassName"] = pod.priority_class_name
    return spec


def _container(
    name: str,
    command: str,
    image: str,
    pull_policy: str,
    intent: Intent,
    mounts: list[dict[str, Any]],
    resources: dict[str, Any],
) -> dict[str, Any]:
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": pull_policy,
        "args": [command],
        "env": [variable(INTENT_VARIABLE, escaped(intent.to_json()))],
        "resources": resources,
        "securityContext": container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }


def pod_security() -> dict[str, Any]:
    """What the restricted pod security standard asks of a pod."""
    return {
        "runAsNonRoot": True,
        "runAsUser": USER_ID,
        "runAsGroup": USER_ID,
        "fsGroup": USER_ID,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> dict[str, Any]:
    """The same of a container, and a root file system that stays as it is."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }


def _volumes(pod: RecorderPod, job_name: str, access: StorageAccess) -> list[dict[str, Any]]:
    return [
        {"name": "spool", "emptyDir": {"sizeLimit": spool_size(pod)}},
        {"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}},
        {"name": "source", "secret": {"secretName": names.token_secret_name(job_name), "defaultMode": 0o440}},
        *access.volumes,
        {
            "name": "kube-api-access",
            "projected": {
                "defaultMode": 0o440,
                "sources": [
                    # The API server's default audience: it takes no other.
                    {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
                    {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                    {
                        "downwardAPI": {
                            "items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]
                        }
                    },
                ],
            },
        },
    ]


def resources_of(wanted: ContainerResources | None, default: dict[str, Any]) -> dict[str, Any]:
    """What a class says about a container, or the default."""
    return wanted.model_dump(mode="json", exclude_none=True) if wanted else default


def tolerations_of(pod: RecorderPod) -> list[dict[str, Any]]:
    """The class's own, and that a node may be silent for a moment."""
    # NB: the class's own come first: where one tolerates these taints already, ours would shorten it.
    own = [toleration.model_dump(mode="json", by_alias=True, exclude_none=True) for toleration in pod.tolerations]
    ours = [
        {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": UNREACHABLE_SECONDS}
        for key in _UNREACHABLE_TAINTS
        if not any(_tolerates(toleration, key) for toleration in pod.tolerations)
    ]
    return own + ours


def _tolerates(toleration: Toleration, key: str) -> bool:
    return toleration.key == key and (toleration.effect is None or toleration.effect.value == "NoExecute")
