"""The kinds of objects that the operator touches: where the API server keeps them."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from isotrack_api.resource import API_VERSION


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind."""

    name: str
    api_version: str
    plural: str
    namespaced: bool = True

    @property
    def group(self) -> str:
        """API group; empty for the core group."""
        return self.api_version.rpartition("/")[0]

    @property
    def version(self) -> str:
        """Version within the group."""
        return self.api_version.rpartition("/")[2]

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """Path of a collection, an object or a subresource."""
        parts = ["apis" if self.group else "api", *self.api_version.split("/")]
        if self.namespaced and namespace is not None:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        parts += [part for part in (name, subresource) if part]
        return "/" + "/".join(quote(part, safe="") for part in parts)


RECORDING = Kind("Recording", API_VERSION, "recordings")
RECORDING_CLASS = Kind("RecordingClass", API_VERSION, "recordingclasses", namespaced=False)
RECORDING_REPORT = Kind("RecordingReport", API_VERSION, "recordingreports")
JOB = Kind("Job", "batch/v1", "jobs")
POD = Kind("Pod", "v1", "pods")
SECRET = Kind("Secret", "v1", "secrets")
SERVICE_ACCOUNT = Kind("ServiceAccount", "v1", "serviceaccounts")
ROLE = Kind("Role", "rbac.authorization.k8s.io/v1", "roles")
ROLE_BINDING = Kind("RoleBinding", "rbac.authorization.k8s.io/v1", "rolebindings")
LEASE = Kind("Lease", "coordination.k8s.io/v1", "leases")
NAMESPACE = Kind("Namespace", "v1", "namespaces", namespaced=False)
EVENT = Kind("Event", "events.k8s.io/v1", "events")

WATCHED = (RECORDING_CLASS, RECORDING, RECORDING_REPORT, JOB, POD)
"""What the operator keeps copies of."""
_BY_NAME = {
    (kind.api_version, kind.name): kind
    for kind in (*WATCHED, SECRET, SERVICE_ACCOUNT, ROLE, ROLE_BINDING, LEASE, NAMESPACE, EVENT)
}


def kind_of(api_version: str, name: str) -> Kind:
    """The kind of an object that we built."""
    return _BY_NAME[api_version, name]
