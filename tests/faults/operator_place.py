"""Where the operator is tried: a real API server with its controllers, and a namespace for each trial.

No node is there. What a kubelet and the two processes of a pod would tell the API server is told by `Player`, so a trial takes
seconds; the operator sees the same objects as on any cluster, and has the rights that its chart gives it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from isotrack_dev import chart, deploy
from isotrack_dev.control_plane import ControlPlane, control_plane
from isotrack_dev.paths import write_private
from isotrack_dev.servers import LiveKitInfo
from isotrack_operator.builders import names
from support.cluster import Cluster, tenant_objects
from support.environment import of_sfu
from support.rawkube import APPLY_PATCH, MERGE_PATCH, RawKube
from support.waiting import until

OURS: Final = "/apis/isotrack.dev/v1alpha1"
KINDS: Final = {
    "jobs": "/apis/batch/v1",
    "pods": "/api/v1",
    "secrets": "/api/v1",
    "serviceaccounts": "/api/v1",
    "roles": "/apis/rbac.authorization.k8s.io/v1",
    "rolebindings": "/apis/rbac.authorization.k8s.io/v1",
    "recordingreports": OURS,
}
"""All that the operator makes in a Recording's namespace."""
Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class OperatorPlace:
    """A cluster in which the operator is installed, but does not run."""

    plane: ControlPlane
    operator_kubeconfig: Path
    livekit: LiveKitInfo

    @property
    def cluster(self) -> Cluster:
        """As a user has it."""
        environment = {
            **of_sfu(self.livekit),
            "S3_ENDPOINT": "http://192.0.2.2",  # RFC 5737: no pod runs, so nobody goes there
            "S3_BUCKET": "recordings",
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "not-told-to-anybody-4711",
        }
        return Cluster(self.plane.kubeconfig, str(self.plane.kubectl.program), environment)

    @contextmanager
    def tenant(self, name: str, **class_spec: Any) -> Iterator[Api]:
        """A namespace with a class of its own, and a connection to the API server."""
        self.cluster.apply(*tenant_objects(self.cluster, name, deploy.NAMESPACE, **class_spec))
        with RawKube(self.plane.kubeconfig) as kube:
            api = Api(kube, name)
            try:
                yield api
            finally:
                kube.request("DELETE", f"{OURS}/recordingclasses/{name}")
                kube.request("DELETE", f"/api/v1/namespaces/{name}")


@contextmanager
def operator_place(folder: Path, livekit: LiveKitInfo) -> Iterator[OperatorPlace]:
    """Start the servers and install the operator's CRDs, account and rights; its Deployment makes no pod here."""
    text = chart.render(deploy.values("operator:none", "recorder:none"), deploy.NAMESPACE)
    documents = [document for document in yaml.safe_load_all(text) if document]
    crds = [document for document in documents if document["kind"] == "CustomResourceDefinition"]
    # NB: as JSON. A key `n`, as PyYAML writes it, is false to kubectl.
    with control_plane(folder, json.dumps({"apiVersion": "v1", "kind": "List", "items": crds})) as plane:
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": deploy.NAMESPACE}}
        plane.kubectl("apply", "-f", "-", stdin=json.dumps(namespace))
        plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)
        with RawKube(plane.kubeconfig) as kube:  # an established kind may still be "(re)initializing" its storage
            for plural in ("recordings", "recordingclasses", "recordingreports"):
                until(lambda one=plural: kube.request("GET", f"{OURS}/{one}").ok, f"{plural} are served")  # type: ignore[misc]
        account = f"{chart.RELEASE}-operator"
        token = plane.kubectl("create", "token", account, "-n", deploy.NAMESPACE, "--duration=8h").strip()
        config = yaml.safe_load(plane.kubeconfig.read_text())
        config["users"][0]["user"] = {"token": token}
        own = write_private(folder / "operator.kubeconfig", yaml.safe_dump(config))
        yield OperatorPlace(plane, own, livekit)


class Api:
    """What users, kubelet and agent of one namespace ask and tell the API server."""

    def __init__(self, kube: RawKube, namespace: str) -> None:
        self._kube, self.namespace = kube, namespace

    def record(self, name: str, call: str, finalizers: Sequence[str] = ()) -> Object:
        """Create a Recording."""
        spec = {"className": self.namespace, "call": {"id": call}}
        meta = {"name": name, "namespace": self.namespace, "finalizers": [*finalizers]}
        body = {"apiVersion": "isotrack.dev/v1alpha1", "kind": "Recording", "metadata": meta, "spec": spec}
        return self._done("POST", f"{OURS}/namespaces/{self.namespace}/recordings", body)

    def recording(self, name: str) -> Object:
        """A Recording; empty when there is none."""
        answer = self._kube.request("GET", f"{OURS}/namespaces/{self.namespace}/recordings/{name}")
        return dict(answer.body) if answer.ok else {}

    def stop(self, name: str) -> None:
        """What users do: desiredState."""
        path = f"{OURS}/namespaces/{self.namespace}/recordings/{name}"
        self._done("PATCH", path, {"spec": {"desiredState": "Stopped"}}, MERGE_PATCH)

    def delete_recording(self, name: str) -> None:
        """What users do: kubectl delete."""
        self._done("DELETE", f"{OURS}/namespaces/{self.namespace}/recordings/{name}")

    def let_go(self, name: str) -> None:
        """Take the finalizers away."""
        path = f"{OURS}/namespaces/{self.namespace}/recordings/{name}"
        self._done("PATCH", path, {"metadata": {"finalizers": []}}, MERGE_PATCH)

    def belonging(self, plural: str, uid: str) -> list[Object]:
        """Objects of a kind that belong to a Recording."""
        path = f"{KINDS[plural]}/namespaces/{self.namespace}/{plural}"
        found = self._done("GET", path, None, labelSelector=f"{names.UID_LABEL}={uid}")
        return list(found["items"])

    def claims(self, uid: str) -> list[Object]:
        """Claims on calls that a Recording holds."""
        path = f"/apis/coordination.k8s.io/v1/namespaces/{deploy.NAMESPACE}/leases"
        found = self._done("GET", path, None, labelSelector=f"{names.UID_LABEL}={uid}")
        return list(found["items"])

    def tell_pod(self, name: str, status: Object) -> None:
        """What a kubelet does."""
        path = f"/api/v1/namespaces/{self.namespace}/pods/{name}/status"
        self._done("PATCH", path, {"status": status}, MERGE_PATCH)

    def lose_pod(self, name: str) -> None:
        """What the pod garbage collector does with a pod whose node is gone."""
        gone = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC"}
        self.tell_pod(name, {"phase": "Failed", "conditions": [gone]})
        path = f"/api/v1/namespaces/{self.namespace}/pods/{name}"
        self._done("DELETE", path, {"gracePeriodSeconds": 0})

    def report(self, name: str, status: Object) -> None:
        """What an agent does."""
        body = {
            "apiVersion": "isotrack.dev/v1alpha1",
            "kind": "RecordingReport",
            "metadata": {"name": name, "namespace": self.namespace},
            "status": status,
        }
        path = f"{OURS}/namespaces/{self.namespace}/recordingreports/{name}/status"
        self._done("PATCH", path, body, APPLY_PATCH, fieldManager="agent", force="true")

    def events(self) -> list[Object]:
        """Events of the namespace."""
        return list(self._done("GET", f"/api/v1/namespaces/{self.namespace}/events")["items"])

    def _done(self, method: str, path: str, body: object = None, content: str = "", **query: str) -> Object:
        more: Mapping[str, str] = {"content_type": content} if content else {}
        answer = self._kube.request(method, path, body, **more, **query)
        assert answer.ok, f"{method} {path}: {answer.status} {answer.message}"
        return dict(answer.body)
