"""A running cluster as a user has it: kubectl, an SFU, a bucket; and tenants with namespaces of their own.

Waiting is watching: `Cluster.wait` reads the object's changes from a `kubectl get --watch` and asks a predicate of each, so
a phase that lasted for a moment only is seen, too.
"""

from __future__ import annotations

import json
import queue
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import yaml

from .bucket import Bucket
from .people import Cast, People, Person, environment_of_publishers, people

GROUP = "isotrack.dev"
Object = dict[str, Any]


class KubectlError(AssertionError):
    """kubectl refused; the text is what it said."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a kubectl command printed."""

    stdout: str
    stderr: str
    """Warnings of the API server, too."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A running cluster with an SFU and an object store."""

    kubeconfig: Path
    kubectl_path: str
    environment: Mapping[str, str] = field(repr=False)
    """LIVEKIT_URL, LIVEKIT_API_KEY, LIVEKIT_API_SECRET, S3_ENDPOINT, S3_BUCKET, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY."""

    def kubectl(self, *arguments: str, stdin: str | None = None, seconds: float = 120) -> Said:
        """Run kubectl as cluster-admin.

        Raises:
            KubectlError: It ended with another code than 0.
        """
        command = [self.kubectl_path, "--kubeconfig", str(self.kubeconfig), *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=seconds)
        if done.returncode:
            raise KubectlError(f"kubectl {' '.join(arguments)[:200]}: {done.stderr.strip()[-3000:]}")
        return Said(done.stdout, done.stderr)

    def apply(self, *manifests: Object) -> Said:
        """kubectl apply."""
        return self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(manifests))

    def get(self, kind: str, name: str, namespace: str) -> Object:
        """One object."""
        found: Object = json.loads(self.kubectl("get", kind, name, "-n", namespace, "-o", "json").stdout)
        return found

    def list(self, kind: str, namespace: str, selector: str = "") -> list[Object]:
        """All objects of a kind in a namespace."""
        said = self.kubectl("get", kind, "-n", namespace, "-l", selector, "-o", "json")
        items: list[Object] = json.loads(said.stdout)["items"]
        return items

    def wait(
        self, kind: str, name: str, namespace: str, holds: Callable[[Object], bool], what: str, *, seconds: float = 150
    ) -> Object:
        """Watch an object until `holds` is true of it, and return it as it was then.

        Raises:
            AssertionError: Not within `seconds`; the text says `what` was awaited and shows the object's last state.
        """
        deadline = time.monotonic() + seconds
        last: Object = {}
        while time.monotonic() < deadline:
            with self._watch(kind, name, namespace) as changes:
                while (seen := _next(changes, deadline)) is not None:
                    last = seen
                    if holds(seen):
                        return seen
            time.sleep(0.5)  # an API server that is busy may hang up, or not answer the handshake: watch again
        status = json.dumps(last.get("status", {}))
        raise AssertionError(f"{kind} {name}, not within {seconds:g} s: {what}; its status: {status[:4000]}")

    @property
    def bucket(self) -> Bucket:
        """The bucket that recordings go to."""
        one = self.environment
        return Bucket(one["S3_ENDPOINT"], one["AWS_ACCESS_KEY_ID"], one["AWS_SECRET_ACCESS_KEY"], one["S3_BUCKET"])

    @contextmanager
    def _watch(self, kind: str, name: str, namespace: str) -> Iterator[queue.Queue[Object | None]]:
        command = [self.kubectl_path, "--kubeconfig", str(self.kubeconfig), "get", kind, "-n", namespace, "--watch"]
        command += ["--field-selector", f"metadata.name={name}", "-o", "json", "--output-watch-events"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)
        assert process.stdout
        changes: queue.Queue[Object | None] = queue.Queue()
        reader = threading.Thread(target=_read_changes, args=(process.stdout, changes), name="watch", daemon=True)
        reader.start()
        try:
            yield changes
        finally:
            process.kill()
            process.wait()
            reader.join()
            process.stdout.close()


def _next(changes: queue.Queue[Object | None], deadline: float) -> Object | None:
    """The next change; None when the watch or the time is over."""
    try:
        return changes.get(timeout=max(0.0, deadline - time.monotonic()))
    except queue.Empty:
        return None


def _read_changes(stream: IO[str], changes: queue.Queue[Object | None]) -> None:
    """One line of JSON per change."""
    for line in stream:
        changes.put(json.loads(line)["object"])
    changes.put(None)


def condition(recording: Object, kind: str) -> Object:
    """A condition of an object; empty when it is not there."""
    found = [one for one in recording.get("status", {}).get("conditions", []) if one["type"] == kind]
    return found[0] if found else {}


def is_true(recording: Object, kind: str) -> bool:
    """Whether a condition holds."""
    return bool(condition(recording, kind).get("status") == "True")


@dataclass(frozen=True, slots=True)
class Tenant:
    """A team: a namespace with credentials of the bucket, and a class that lets it record its calls."""

    cluster: Cluster
    namespace: str
    folder: Path
    """For what its people send."""

    @property
    def class_name(self) -> str:
        """The class that was made for this tenant."""
        return self.namespace

    def call(self, name: str) -> str:
        """A call id that this tenant may record."""
        return f"{self.namespace}_{name}"

    def people(self, name: str, *cast: Person) -> Any:
        """Play people in a call; see `support.people.people`."""
        environment = self.cluster.environment
        publishers = environment_of_publishers(
            environment["LIVEKIT_URL"], environment["LIVEKIT_API_KEY"], environment["LIVEKIT_API_SECRET"]
        )
        return people(self.call(name), Cast(people=cast), self.folder / name, publishers)

    def manifest(self, name: str, of: str | None = None, **spec: Any) -> Object:
        """A Recording of this tenant, of its call `of` (default: of the same name)."""
        return {
            "apiVersion": f"{GROUP}/v1alpha1",
            "kind": "Recording",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {"className": self.class_name, "call": {"id": self.call(of or name)}} | spec,
        }

    def record(self, name: str, of: str | None = None, **spec: Any) -> Said:
        """Apply a Recording."""
        return self.cluster.apply(self.manifest(name, of, **spec))

    def patch(self, name: str, **spec: Any) -> Said:
        """Change a Recording's spec."""
        patch = json.dumps({"spec": spec})
        return self.cluster.kubectl("patch", "recording", name, "-n", self.namespace, "--type=merge", "-p", patch)

    def wait(self, name: str, holds: Callable[[Object], bool], what: str, *, seconds: float = 150) -> Object:
        """Watch a Recording; see `Cluster.wait`."""
        return self.cluster.wait(f"recordings.{GROUP}", name, self.namespace, holds, what, seconds=seconds)

    def wait_capturing(self, name: str) -> Object:
        """Wait until media of the call arrives."""
        return self.wait(name, lambda one: is_true(one, "Capturing"), "media arrives", seconds=150)

    def wait_finished(self, name: str) -> Object:
        """Wait until the recording is over, and return it."""
        return self.wait(name, lambda one: is_true(one, "Finished"), "the recording is over", seconds=150)

    def pods(self, recording: Object) -> list[Object]:
        """Pods of a Recording's attempts, oldest first."""
        selector = f"{GROUP}/recording-uid={recording['metadata']['uid']},{GROUP}/attempt"
        found = self.cluster.list("pods", self.namespace, selector)
        return sorted(found, key=lambda pod: int(pod["metadata"]["labels"][f"{GROUP}/attempt"]))

    def download(self, name: str) -> Path:
        """Copy a finished recording's files from the bucket; returns the folder."""
        target = self.folder / f"{name}-files"
        bucket = self.cluster.bucket
        bucket.download(bucket.folder_of(f"{self.namespace}/{name}-"), target)
        return target


def tenant_objects(cluster: Cluster, namespace: str, operator_namespace: str, **class_spec: Any) -> list[Object]:
    """Everything that an admin makes for a tenant: namespace, credentials, class."""
    one = cluster.environment
    sfu = {"apiKey": one["LIVEKIT_API_KEY"], "apiSecret": one["LIVEKIT_API_SECRET"]}
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}},
        secret("bucket", namespace, bucket_keys(cluster)),
        secret(namespace, operator_namespace, sfu),
        class_object(cluster, namespace, **class_spec),
    ]


def class_object(cluster: Cluster, namespace: str, **class_spec: Any) -> Object:
    """The class of a tenant, with these members of its spec instead of the usual ones."""
    one = cluster.environment
    spec = {
        "mode": "available",
        "calls": [{"namespaces": {"names": [namespace]}, "ids": ["{namespace}_*"]}],
        "source": {"livekit": {"url": one["LIVEKIT_URL"], "credentialsSecretName": namespace}},
        "storages": [storage_object(cluster, {"secretName": "bucket"})],
    }
    return {
        "apiVersion": f"{GROUP}/v1alpha1",
        "kind": "RecordingClass",
        "metadata": {"name": namespace},
        "spec": spec | class_spec,
    }


def storage_object(cluster: Cluster, credentials: Object, **s3: Any) -> Object:
    """The stack's bucket as a storage of a class, with these members of s3 instead of the usual ones."""
    one = cluster.environment
    usual = {"bucket": one["S3_BUCKET"], "endpoint": one["S3_ENDPOINT"], "forcePathStyle": True}
    return {"name": "bucket", "s3": {**usual, **s3, "credentials": credentials}}


def bucket_keys(cluster: Cluster) -> dict[str, str]:
    """What a Secret for the stack's bucket holds."""
    one = cluster.environment
    return {"accessKeyId": one["AWS_ACCESS_KEY_ID"], "secretAccessKey": one["AWS_SECRET_ACCESS_KEY"]}


def secret(name: str, namespace: str, values: Mapping[str, str]) -> Object:
    """A Secret of these texts."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "stringData": dict(values),
    }


def fresh_name(stem: str) -> str:
    """A name that nobody has used."""
    return f"{stem}-{uuid.uuid4().hex[:6]}"


__all__ = [
    "Cluster",
    "KubectlError",
    "People",
    "Said",
    "Tenant",
    "bucket_keys",
    "class_object",
    "condition",
    "fresh_name",
    "is_true",
    "secret",
    "storage_object",
    "tenant_objects",
]
