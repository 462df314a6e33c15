"""Jobs that work on what is in a bucket, and nothing else: the finaliser of one Recording, the sweeper of one storage.

Both run a command of the recorder's image that may be repeated at any time and changes nothing the second time. So here the Job
does retry, beside a pod whose node is lost if need be (so without a podFailurePolicy, which rules that out), and gives up by itself:
after some failures, after a day. No call, no API server: their pods have the storage's credentials and no token.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from isotrack_api.credentials import CaCertificate, StorageCredentials
from isotrack_api.intent import Intent, S3Destination
from isotrack_api.manifest import StopReason
from isotrack_api.recording import Recording
from isotrack_api.recording_class import RecorderPod

from . import names
from .job import (
    AGENT_RESOURCES,
    INTENT_VARIABLE,
    SPOOL,
    container_security,
    pod_security,
    resources_of,
    spool_bytes,
    spool_size,
    tolerations_of,
)
from .parts import escaped, mount, pull_secrets_of, variable
from .storage_access import StorageAccess, access_by_secret, access_to

STOP_REASON_VARIABLE = "ISOTRACK_STOP_REASON"
SWEEP_VARIABLE = "ISOTRACK_SWEEP"
SWEEP_WATCH_VARIABLE = "ISOTRACK_SWEEP_WATCH_SECONDS"
SWEEP_AT_WORK_VARIABLE = "ISOTRACK_SWEEP_AT_WORK"
SCRATCH_VARIABLE = "ISOTRACK_SCRATCH_BYTES"
"""Size of the volume for temporary files: beyond it the kubelet evicts the pod."""
RETRIES = 4
"""After 10, 20, 40, 80 s. The command itself tries for longer while the storage does not answer."""
DEADLINE_SECONDS = 86400
"""For all tries together. An outage of the storage may last an hour; a day of a large call is as many hours of fetching, making and
sending as there are hundreds of gigabytes."""
SWEEP_KEPT_SECONDS = 300
"""How long a sweep that is over stays beyond the next one, which tells how it ended."""


def build_finaliser(
    recording: Recording,
    intent: Intent,
    stop: StopReason,
    *,
    pod: RecorderPod,
    image: str,
    pull_secrets: Sequence[str] = (),
    credentials: StorageCredentials,
    ca: CaCertificate | None = None,
) -> dict[str, Any]:
    """The Job that finishes a Recording whose attempts are over.

    Args:
        intent: Of the last attempt.
        stop: Why the recording is over.
        pod: What the class says about pods.
        image: Used unless the class names one.
        pull_secrets: Secrets in the Recording's namespace to pull it with.
        credentials: Who its pod is to the storage.
        ca: Whom it trusts there, where that is not a public authority.
    """
    uid = names.uid_of(recording)
    name = names.finaliser_name(recording.metadata.name, uid)
    access = access_to(credentials, name, ca)
    environment = {INTENT_VARIABLE: escaped(intent.to_json()), STOP_REASON_VARIABLE: stop.value}
    spec = _pod_spec(names.FINALISER, "finalise", environment, pod, pod.image or image, access)
    spec["serviceAccountName"] = access.account or names.base_name(recording.metadata.name, uid)
    return _job(
        {
            "name": name,
            "namespace": names.namespace_of(recording),
            "labels": names.labels(recording),
            "ownerReferences": [names.owner(recording)],
        },
        pull_secrets_of(pull_secrets) | spec,
    )


def build_sweep(
    destination: S3Destination,
    secret: str,
    *,
    namespace: str,
    image: str,
    pull_secrets: Sequence[str] = (),
    interval_seconds: float,
    watch_seconds: float,
    at_work: Sequence[str] = (),
) -> dict[str, Any]:
    """The Job that finishes abandoned recordings of one storage, in the operator's `namespace`, with its own `secret`.

    Args:
        pull_secrets: Secrets in `namespace` to pull the image with.
        interval_seconds: Until the next one.
        watch_seconds: For how long nobody may write to one before it is finished.
        at_work: What the folders end with (`names.uid8`) that are left alone whatever they look like.
    """
    environment = {
        SWEEP_VARIABLE: escaped(destination.to_json()),
        SWEEP_WATCH_VARIABLE: f"{watch_seconds:g}",
        SWEEP_AT_WORK_VARIABLE: ",".join(at_work),
    }
    labels = {"app.kubernetes.io/name": "isotrack-sweeper", names.MANAGED_BY: names.MANAGER}
    spec = _pod_spec(names.SWEEPER, "sweep", environment, RecorderPod(), image, access_by_secret(secret))
    job = _job(
        {"name": sweep_name(destination, secret), "namespace": namespace, "labels": labels},
        pull_secrets_of(pull_secrets) | spec,
    )
    job["spec"]["ttlSecondsAfterFinished"] = round(interval_seconds) + SWEEP_KEPT_SECONDS
    return job


def sweep_name(destination: S3Destination, secret: str) -> str:
    """Name of a storage's sweep: one at a time, whoever starts it."""
    place = "\0".join((destination.endpoint or "", destination.bucket, destination.prefix, secret))
    digest = hashlib.sha256(place.encode()).hexdigest()
    return f"isotrack-sweep-{digest[:16]}"


def _job(metadata: dict[str, Any], pod_spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            "backoffLimit": RETRIES,
            "completions": 1,
            "parallelism": 1,
            "activeDeadlineSeconds": DEADLINE_SECONDS,
            "podReplacementPolicy": "TerminatingOrFailed",
            "template": {"metadata": {"labels": metadata["labels"]}, "spec": pod_spec},
        },
    }


def _pod_spec(
    name: str, command: str, environment: dict[str, str], pod: RecorderPod, image: str, access: StorageAccess
) -> dict[str, Any]:
    # What is rebuilt from the bucket may be as large as the spool was, so temporary files go to a volume like that.
    environment = environment | {"TMPDIR": SPOOL}
    if (limit := spool_bytes(pod)) is not None:
        environment[SCRATCH_VARIABLE] = str(limit)
    container = {
        "name": name,
        "image": image,
        "imagePullPolicy": pod.image_pull_policy.value if pod.image_pull_policy else "IfNotPresent",
        "args": [command],
        "env": [*(variable(key, value) for key, value in environment.items()), *access.environment],
        "resources": resources_of(pod.agent_resources, AGENT_RESOURCES),
        "securityContext": container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [mount("spool", SPOOL), *access.mounts],
    }
    spec: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 30,
        "securityContext": pod_security(),
        "containers": [container],
        "volumes": [
            {"name": "spool", "emptyDir": {"sizeLimit": spool_size(pod)}},
            *access.volumes,
        ],
        "tolerations": tolerations_of(pod),
    }
    if pod.node_selector:
        spec["nodeSelector"] = dict(pod.node_selector)
    if pod.priority_class_name:
        spec["priorityClassName"] = pod.priority_class_name
    return spec
