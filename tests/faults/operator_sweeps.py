"""Trials of the operator's own Jobs: those that try a storage, and those that sweep it, one behind the other.

    class with an operatorSecretName ─▶ a check, a sweep ─▶ their pods end ─▶ the sweep is taken away, the next one comes ─▶ Aftermath

Nothing of them is remembered by the operator, so a death anywhere must cost nothing but time: the class comes to say that its storage
works, sweeps go on one at a time, and what is over goes with its pods.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from isotrack_dev import deploy
from isotrack_operator.builders import names
from support.cluster import bucket_keys, secret, storage_object
from support.rawkube import MERGE_PATCH, RawKube
from support.waiting import until

from .operator_evidence import Aftermath
from .operator_place import OURS, Object
from .operator_trial import STEP_SECONDS, Operator, ended, running
from .sites import Failpoint
from .trial import Place

SWEEPS: Final = 3
"""The third follows two deletions."""
SWEEP_SECONDS: Final = 1.0
BATCH: Final = f"/apis/batch/v1/namespaces/{deploy.NAMESPACE}"
CORE: Final = f"/api/v1/namespaces/{deploy.NAMESPACE}"
SWEEPER: Final = "isotrack-sweep-"
_LAST_WORDS: Final = {"reason": "Uploaded", "message": "0 abandoned recordings finished, 0 not"}
_TRIED: Final = {"reason": "StorageAvailable", "message": ""}


class Jobs:
    """The operator's own Jobs, and whoever runs their pods."""

    def __init__(self, kube: RawKube, operator: Operator, name: str) -> None:
        self._kube, self._operator, self._name = kube, operator, name
        self.sweeps: dict[str, None] = {}
        """Uids, in the order in which they came."""
        self.pods: dict[tuple[str, str], None] = {}

    def wait(self, what: str, holds: Callable[[], Any]) -> Any:
        """Play the kubelet until something holds."""

        def look() -> Any:
            self._operator.tend()
            self._play()
            return holds()

        return until(look, what, seconds=STEP_SECONDS, interval=0.1)

    def _play(self) -> None:
        """See what there is; pods run, and at the next look they have done their work."""
        jobs = {job["metadata"]["uid"]: job["metadata"]["name"] for job in self._list(f"{BATCH}/jobs")}
        self.sweeps |= {uid: None for uid, name in jobs.items() if name.startswith(SWEEPER)}
        for pod in self._list(f"{CORE}/pods"):
            metadata, phase = pod["metadata"], pod["status"].get("phase")
            job = metadata["labels"].get("batch.kubernetes.io/controller-uid", "")
            if job not in jobs and job not in self.sweeps:
                continue
            self.pods[job, metadata["uid"]] = None
            container = pod["spec"]["containers"][0]["name"]
            if phase == "Pending":
                self._tell(metadata["name"], running(container))
            elif phase == "Running":
                said = _TRIED if container == names.CHECKER else _LAST_WORDS
                self._tell(metadata["name"], ended(container, **said))

    def left(self) -> list[str]:
        """Jobs but the newest sweep, and pods of Jobs that are gone."""
        jobs = {job["metadata"]["uid"]: job["metadata"]["name"] for job in self._list(f"{BATCH}/jobs")}
        newest = list(self.sweeps)[-1:]
        old = [uid for uid in jobs if uid in self.sweeps and uid not in newest]
        pods = self._list(f"{CORE}/pods")
        lost = [
            pod["metadata"]["name"]
            for pod in pods
            if (owner := pod["metadata"]["labels"].get("batch.kubernetes.io/controller-uid")) and owner not in jobs
        ]
        return [f"Job {jobs[uid]}" for uid in old] + [f"pod {name}" for name in lost]

    def is_ready(self) -> bool:
        """Whether the class says that its storage works."""
        answer = self._kube.request("GET", f"{OURS}/recordingclasses/{self._name}")
        found = answer.body.get("status", {}).get("conditions", ()) if answer.ok else ()
        return any(one["type"] == "StorageReady" and one["status"] == "True" for one in found)

    def _list(self, path: str) -> list[Object]:
        return list(self._kube.request("GET", path).body["items"])

    def _tell(self, pod: str, status: Object) -> None:
        # NB: it may be gone by now, with its Job.
        self._kube.request("PATCH", f"{CORE}/pods/{pod}/status", {"status": status}, content_type=MERGE_PATCH)


def kill_sweeping_operator(place: Place, room: str, failpoint: Failpoint | None) -> Aftermath:
    """Sweeps follow each other while the operator dies at a failpoint, once; None records what it passes only."""
    assert place.operator is not None, "the campaign starts what its kinds need"
    folder = place.folder / room
    folder.mkdir(parents=True)
    where, keys = place.operator, f"{room}-sweeper"
    credentials = {"secretName": "bucket", "operatorSecretName": keys}
    storages = [storage_object(where.cluster, credentials, bucket=room)]
    operator = Operator(where, folder, failpoint, sweep_seconds=SWEEP_SECONDS)
    where.cluster.apply(secret(keys, deploy.NAMESPACE, bucket_keys(where.cluster)))
    with where.tenant(room, storages=storages), RawKube(where.plane.kubeconfig) as kube:
        jobs = Jobs(kube, operator, room)
        with operator.running():
            jobs.wait("the storage was tried", jobs.is_ready)
            jobs.wait("sweeps follow each other", lambda: len(jobs.sweeps) >= SWEEPS)
            if failpoint is not None:
                with suppress(AssertionError):  # `faults` says that it was not seen to happen
                    jobs.wait("the operator dies", lambda: operator.kills)
                count = len(jobs.sweeps)
                jobs.wait("sweeps go on", lambda: len(jobs.sweeps) > count)
        # No operator any more: what it took away goes, the newest sweep stays.
        with suppress(AssertionError):
            until(lambda: not jobs.left(), "what was taken away is gone", seconds=STEP_SECONDS, interval=0.1)
        left = jobs.left()
        _clear(kube)
    return Aftermath(
        expected=None,
        kills=tuple(operator.kills),
        pods=tuple(jobs.pods),
        orphans=tuple(left),
        outputs={"the operator's log": operator.log.read_text(errors="replace")},
        secrets={"the storage's secret key": bucket_keys(where.cluster)["secretAccessKey"]},
        faults={} if failpoint is None else {str(failpoint): len(operator.kills)},
    )


def _clear(kube: RawKube) -> None:
    """Take the operator's Jobs away: the next trial has others."""
    kube.request("DELETE", f"{BATCH}/jobs", {"propagationPolicy": "Background"})
    until(
        lambda: not kube.request("GET", f"{BATCH}/jobs").body["items"] and not kube.request("GET", f"{CORE}/pods").body["items"],
        "the operator's Jobs are gone", seconds=STEP_SECONDS,
    )  # fmt: skip
