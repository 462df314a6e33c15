"""What the agent of a Recording may do at the API server: watch its own Recording, see whether its namespace is being deleted,
write its own reports' status and read them. Nothing else.

One ServiceAccount, Role and RoleBinding per Recording, owned by it. The Role lists the reports of the attempts that may still be
alive by name, so a pod can never touch another Recording's report. Where the class chose a ServiceAccount for pods (a pod has but
one), the Role goes to that one, for as long as the Recording is there: its pods may then see and report what any of them may.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from isotrack_api.recording import Recording
from isotrack_api.resource import GROUP

from . import names


def build_service_account(recording: Recording) -> dict[str, Any]:
    """The identity of the pods of one Recording. Nothing is mounted by itself: the agent's token is a volume of its own."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": _metadata(recording),
        "automountServiceAccountToken": False,
    }


def build_role(recording: Recording, attempts: Sequence[int]) -> dict[str, Any]:
    """Rights of the agents of these attempts.

    `watch` together with resourceNames works for a watch with fieldSelector metadata.name=<name> (Kubernetes, RBAC).
    """
    name, uid = recording.metadata.name, names.uid_of(recording)
    namespace = names.namespace_of(recording)
    reports = [names.attempt_name(name, uid, n) for n in attempts]
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": _metadata(recording),
        "rules": [
            {"apiGroups": [GROUP], "resources": ["recordings"], "resourceNames": [name], "verbs": ["get", "watch"]},
            # Its own alone: resourceNames, and a Role reaches no other.
            {"apiGroups": [""], "resources": ["namespaces"], "resourceNames": [namespace], "verbs": ["get"]},
            {
                "apiGroups": [GROUP],
                "resources": ["recordingreports/status"],
                "resourceNames": reports,
                "verbs": ["patch"],
            },
            # An agent whose pod is to go looks whether its successor captures; that there is none yet it may know, too.
            {
                "apiGroups": [GROUP],
                "resources": ["recordingreports"],
                "resourceNames": [*reports, names.attempt_name(name, uid, max(attempts) + 1)],
                "verbs": ["get"],
            },
        ],
    }


def build_role_binding(recording: Recording, account: str | None = None) -> dict[str, Any]:
    """Gives the Role to the ServiceAccount of the same name, or to the one that the class chose for the Recording's pods."""
    metadata = _metadata(recording)
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": metadata["name"]},
        "subjects": [
            {"kind": "ServiceAccount", "name": account or metadata["name"], "namespace": metadata["namespace"]}
        ],
    }


def _metadata(recording: Recording) -> dict[str, Any]:
    return {
        "name": names.base_name(recording.metadata.name, names.uid_of(recording)),
        "namespace": names.namespace_of(recording),
        "labels": names.labels(recording),
        "ownerReferences": [names.owner(recording)],
    }
