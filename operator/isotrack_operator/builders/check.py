"""The Job that tries a storage of a class, in the operator's namespace, with the operator's own Secret for it.

It tries once and says what it found; whether and when it is tried again is decided from that (`storage_check`). The class owns it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from isotrack_api.intent import S3Destination
from isotrack_api.recording_class import RecordingClass
from isotrack_api.resource import API_VERSION

from . import names
from .job import container_security, pod_security
from .parts import escaped, mount, pull_secrets_of, variable
from .storage_access import access_by_secret

CHECK_VARIABLE = "ISOTRACK_CHECK"
NAME_VARIABLE = "ISOTRACK_CHECK_NAME"
DEADLINE_SECONDS = 300
"""For the whole: the check itself gives up after half a minute, so this is for an image that has to be fetched."""
KEPT_SECONDS = 300
"""How long one that is over stays for `kubectl logs`."""
RESOURCES = {"requests": {"cpu": "20m", "memory": "96Mi"}, "limits": {"memory": "256Mi"}}


def build_check(
    recording_class: RecordingClass,
    storage: str,
    destination: S3Destination,
    secret: str,
    *,
    state: str,
    namespace: str,
    image: str,
    pull_secrets: Sequence[str] = (),
) -> dict[str, Any]:
    """The Job that tries this storage of a class.

    Args:
        storage: Its name.
        secret: Secret in `namespace` with the operator's credentials for it.
        state: Whatever changes when the Secret does.
        pull_secrets: Secrets in `namespace` to pull the image with.
    """
    uid = recording_class.metadata.uid
    assert uid is not None, "an object from the API server has a uid"
    labels = {
        "app.kubernetes.io/name": "isotrack-storage-check",
        names.MANAGED_BY: names.MANAGER,
        names.CLASS_LABEL: uid,
    }
    access = access_by_secret(secret)
    container = {
        "name": names.CHECKER,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": ["check"],
        "env": [
            variable(CHECK_VARIABLE, escaped(destination.to_json())),
            # NB: the same for all states of the storage: a check removes what a former one could not.
            variable(NAME_VARIABLE, _digest(uid, storage)),
        ],
        "resources": RESOURCES,
        "securityContext": container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [mount("tmp", "/tmp"), *access.mounts],  # noqa: S108 - a volume of the pod
    }
    owner = {"apiVersion": API_VERSION, "kind": "RecordingClass", "name": recording_class.metadata.name, "uid": uid}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": check_name(uid, storage, destination, secret, state),
            "namespace": namespace,
            "labels": labels,
            "ownerReferences": [owner | {"controller": True}],
        },
        "spec": {
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "activeDeadlineSeconds": DEADLINE_SECONDS,
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    **pull_secrets_of(pull_secrets),
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "restartPolicy": "Never",
                    "terminationGracePeriodSeconds": 5,
                    "securityContext": pod_security(),
                    "containers": [container],
                    "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "16Mi"}}, *access.volumes],
                },
            },
        },
    }


def check_name(class_uid: str, storage: str, destination: S3Destination, secret: str, state: str) -> str:
    """Name of the Job that tries a storage as it and the operator's Secret for it are now: what changes gets another."""
    return f"isotrack-check-{_digest(class_uid, storage)}-{_digest(destination.to_json(), secret, state)[:8]}"


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
