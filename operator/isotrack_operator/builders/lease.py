"""The claim on a call: a Lease in the operator's namespace whose holder is the uid of the one Recording that may record it.

Create-once: who creates it has won. It does not expire by time; a claim whose holder is gone or finished is taken over with the
resourceVersion that was read. Annotations name the holder, so that it can be looked up; tenants cannot read this namespace.
"""

from __future__ import annotations

from typing import Any

from isotrack_api.recording import Recording
from isotrack_api.resource import GROUP

from . import names

HOLDER_NAMESPACE = f"{GROUP}/holder-namespace"
HOLDER_NAME = f"{GROUP}/holder-name"


def build_claim(recording: Recording, namespace: str, resource_version: str | None = None) -> dict[str, Any]:
    """The claim of this Recording on its call, in the operator's `namespace`; with `resource_version` a take-over."""
    metadata: dict[str, Any] = {
        "name": names.claim_name(recording.spec.class_name, recording.spec.call.id),
        "namespace": namespace,
        "labels": {names.MANAGED_BY: names.MANAGER, names.UID_LABEL: names.uid_of(recording)},
        "annotations": {
            HOLDER_NAMESPACE: names.namespace_of(recording),
            HOLDER_NAME: recording.metadata.name,
        },
    }
    if resource_version is not None:
        metadata["resourceVersion"] = resource_version
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": metadata,
        "spec": {"holderIdentity": names.uid_of(recording)},
    }
