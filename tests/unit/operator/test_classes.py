"""What a turn of a class writes and makes, against an API server reduced to a dictionary."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, cast

import pytest

from isotrack_api.conditions import ConditionStatus
from isotrack_api.recording_class import RecordingClass, StorageStatus
from isotrack_operator.builders import names
from isotrack_operator.classes import ClassReconciler, class_conditions
from isotrack_operator.cluster import Cluster
from isotrack_operator.errors import AlreadyExistsError, ClusterError, ForbiddenError
from isotrack_operator.kinds import JOB, POD, RECORDING_CLASS, SECRET, Kind
from isotrack_operator.runtime import ClassKey, Runtime
from isotrack_operator.settings import Settings
from isotrack_operator.source import Access
from isotrack_operator.store import Store
from support.operated import NOW, a_class, a_pod

Json = dict[str, Any]
HOME = "isotrack-system"
KEYS = {"accessKeyId": "YQ==", "secretAccessKey": "Yg=="}
SFU = {"apiKey": "YQ==", "apiSecret": "Yg=="}


def storage(name: str, secret: str | None, bucket: str = "recordings") -> Json:
    credentials = {"secretName": "team"} | ({"operatorSecretName": secret} if secret else {})
    return {"name": name, "s3": {"bucket": bucket, "credentials": credentials}}


class ApiServer:
    """The operator's namespace and one class."""

    def __init__(self, recording_class: RecordingClass) -> None:
        self.secrets = {"livekit": self.secret("livekit", SFU), "sweeper": self.secret("sweeper", KEYS)}
        self.jobs: dict[str, Json] = {}
        self.made: list[str] = []
        self.deleted: list[str] = []
        self.refuses: ClusterError | None = None
        self.body = recording_class.model_dump(mode="json", by_alias=True, exclude_none=True)

    @staticmethod
    def secret(name: str, data: Json, version: int = 1) -> Json:
        return {"metadata": {"name": name, "uid": name, "resourceVersion": str(version)}, "data": data}

    async def find(self, kind: Kind, namespace: str | None, name: str) -> Json | None:
        assert (kind, namespace) == (SECRET, HOME)
        return self.secrets.get(name)

    async def create(self, body: Json) -> Json:
        name = body["metadata"]["name"]
        if self.refuses:
            raise self.refuses
        if name in self.jobs:
            raise AlreadyExistsError(name, 409)
        self.made.append(name)
        metadata = {**body["metadata"], "uid": f"job-{len(self.made)}", "creationTimestamp": "2026-11-21T11:59:55Z"}
        self.jobs[name] = {**body, "metadata": metadata, "status": {}}
        return self.jobs[name]

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str) -> None:
        assert self.jobs.pop(name)["metadata"]["uid"] == uid
        self.deleted.append(name)

    async def apply(self, body: Json, subresource: str | None = None) -> Json:
        assert (body["kind"], subresource) == ("RecordingClass", "status")
        version = str(int(self.body["metadata"]["resourceVersion"]) + 1)
        metadata = {**self.body["metadata"], "resourceVersion": version}
        self.body = {**self.body, "metadata": metadata, "status": body["status"]}
        return self.body


class Operated:
    """A reconciler of one class."""

    def __init__(self, *storages: Json, check_seconds: float = 21600, **settings: Any) -> None:
        self.api, self.store, self.woken = (
            ApiServer(a_class(storages=list(storages), **settings)),
            Store(),
            list[float](),
        )
        self.now = NOW
        self.store.put(RECORDING_CLASS, self.api.body)
        settings_of_all = Settings(
            recorder_image="recorder:1",
            recorder_pull_secrets=("pull",),
            namespace=HOME,
            storage_check_seconds=check_seconds,
        )

        async def ask(access: Access, rooms: Sequence[str]) -> frozenset[str]:
            return frozenset()

        self._reconciler = ClassReconciler(
            cast("Cluster", self.api),
            self.store,
            settings_of_all,
            lambda _, seconds: self.woken.append(seconds),
            now=lambda: self.now,
            ask=cast("Any", ask),
        )

    def turn(self) -> Json:
        """Reconcile; the class's status as it is then."""
        self.woken.clear()
        asyncio.run(self._reconciler.reconcile("default"))
        found: Json = self.api.body["status"]
        return found

    def check_ends(self, reason: str, message: str = "", code: int = 0) -> None:
        """The newest check ends with these last words, now."""
        job = self.api.jobs[self.api.made[-1]]
        at = self.now.strftime("%Y-%m-%dT%H:%M:%SZ")
        how = "Failed" if code else "Complete"
        self.store.put(
            JOB, {**job, "status": {"conditions": [{"type": how, "status": "True", "lastTransitionTime": at}]}}
        )
        pod = a_pod().ended(code, said={"reason": reason, "message": message})
        uid = job["metadata"]["uid"]
        pod.with_("metadata.ownerReferences", [{"uid": uid, "controller": True}])
        pod.with_("metadata.name", f"pod-of-{uid}").with_("metadata.uid", f"pod-of-{uid}").with_(
            "metadata.namespace", HOME
        )
        pod.body["status"]["containerStatuses"][0]["name"] = names.CHECKER
        self.store.put(POD, pod.body)


def conditions(status: Json) -> dict[str, tuple[str, str]]:
    return {one["type"]: (one["status"], one["reason"]) for one in status["conditions"]}


def test_a_storage_is_tried_once_and_again_when_its_secret_changes() -> None:
    operated = Operated(storage("archive", "sweeper"), storage("other", None))
    found = operated.turn()
    assert conditions(found)["StorageReady"] == ("Unknown", "StorageChecking")
    assert [one["name"] for one in found["storages"]] == ["archive"], "the operator has no key for the other one"
    operated.check_ends("StorageAvailable")
    assert conditions(operated.turn())["StorageReady"] == ("True", "StorageAvailable")
    operated.turn()
    assert len(operated.api.made) == 1
    operated.api.secrets["sweeper"] = ApiServer.secret("sweeper", KEYS, version=2)
    assert conditions(operated.turn())["StorageReady"] == ("Unknown", "StorageChecking")
    operated.check_ends("StorageRefused", "the key is unknown", 73)
    found = operated.turn()
    assert conditions(found)["StorageReady"] == ("False", "StorageRefused")
    assert conditions(found)["Ready"] == ("True", "Available"), "recordings have credentials of their own"
    assert len(set(operated.api.made)) == len(operated.api.made) == 2


def test_what_is_refused_is_tried_again_by_a_new_job_of_the_same_name() -> None:
    operated = Operated(storage("archive", "sweeper"))
    operated.turn()
    operated.check_ends("StorageRefused", "no such bucket", 73)
    operated.turn()
    assert operated.woken == [5.0]
    operated.now += timedelta(seconds=11)
    found = operated.turn()
    assert conditions(found)["StorageReady"] == ("False", "StorageRefused"), "the verdict stands meanwhile"
    assert operated.api.made == [operated.api.made[0]] * 2
    assert operated.api.deleted == [operated.api.made[0]]
    operated.check_ends("StorageAvailable")
    assert conditions(operated.turn())["StorageReady"] == ("True", "StorageAvailable")


def test_a_missing_secret_makes_no_pod_that_would_wait_for_it() -> None:
    operated = Operated(storage("archive", "nobodys"))
    assert conditions(operated.turn())["StorageReady"] == ("False", "StorageSecretNotFound")
    assert operated.api.made == []
    assert operated.woken == [5.0]


def test_a_check_that_cannot_be_made_costs_the_class_nothing_else() -> None:
    operated = Operated(storage("archive", "sweeper"))
    operated.api.refuses = ForbiddenError("quota", 403)
    found = operated.turn()
    assert conditions(found)["Ready"] == ("True", "Available")
    assert conditions(found)["StorageReady"][0] == "Unknown"
    assert operated.woken == [15.0]


def test_a_check_is_pulled_with_the_secrets_of_the_settings() -> None:
    operated = Operated(storage("archive", "sweeper"))
    operated.turn()
    [job] = operated.api.jobs.values()
    assert job["spec"]["template"]["spec"]["imagePullSecrets"] == [{"name": "pull"}]


def test_without_an_interval_nothing_is_tried() -> None:
    operated = Operated(storage("archive", "sweeper"), check_seconds=0)
    found = operated.turn()
    assert "StorageReady" not in conditions(found)
    assert operated.api.made == []


def test_a_class_that_is_being_deleted_gets_no_more_jobs() -> None:
    operated = Operated(storage("archive", "sweeper"))
    operated.api.body["metadata"]["deletionTimestamp"] = "2026-11-21T11:59:59Z"
    operated.turn()
    assert operated.api.made == []


def test_no_key_is_in_the_job_or_the_status() -> None:
    operated = Operated(storage("archive", "sweeper"))
    found = operated.turn()
    assert "YQ==" not in str(found) + str(operated.api.jobs)


@pytest.mark.parametrize("kind", [JOB, POD], ids=lambda kind: kind.name)
def test_the_end_of_a_check_wakes_its_class(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    operated = Operated(storage("archive", "sweeper"))
    operated.turn()
    runtime = Runtime(cast("Cluster", operated.api), Settings(recorder_image="r:1", namespace=HOME))
    runtime.store.put(RECORDING_CLASS, operated.api.body)
    body = operated.api.jobs[operated.api.made[0]]
    asked: list[object] = []
    monkeypatch.setattr(runtime._queue, "add", asked.append)
    runtime.saw(kind, {**body, "metadata": {**body["metadata"], "resourceVersion": "9"}}, deleted=False)
    assert asked == [ClassKey("default")]


def test_a_class_keeps_since_when_it_is_so() -> None:
    known = StorageStatus.model_validate(
        {"name": "a", "ready": "True", "reason": "StorageAvailable", "since": "2026-11-21T12:00:00Z"}
    )
    first = class_conditions(a_class(), None, [known], NOW)
    body = a_class().to_object() | {"status": {"conditions": [one.model_dump(by_alias=True) for one in first]}}
    later = class_conditions(RecordingClass.from_object(body), None, [known], NOW + timedelta(hours=1))
    assert later == first
    assert later[2].status is ConditionStatus.TRUE
