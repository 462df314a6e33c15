"""Which storages are swept, and that each has one Job at a time."""

from __future__ import annotations

from typing import Any, cast

import pytest

from isotrack_api.recording import Recording
from isotrack_operator.builders import names
from isotrack_operator.cluster import Cluster
from isotrack_operator.errors import AlreadyExistsError, ForbiddenError
from isotrack_operator.health import Health
from isotrack_operator.kinds import JOB, POD, RECORDING, RECORDING_CLASS, Kind
from isotrack_operator.settings import Settings
from isotrack_operator.store import Store
from isotrack_operator.sweep import Sweeper, sweeps_of
from support.operated import UID, Body, JobBody, PodBody, a_class, a_job, a_pod, a_recording

Json = dict[str, Any]


def storage(name: str, bucket: str, operator_secret: str | None) -> Json:
    credentials = {"secretName": "team"} | ({"operatorSecretName": operator_secret} if operator_secret else {})
    return {"name": name, "s3": {"bucket": bucket, "credentials": credentials}}


STORAGES = [storage("a", "one", "sweeper"), storage("b", "two", "sweeper"), storage("c", "three", None)]


def test_each_place_that_the_operator_may_reach_is_swept_once() -> None:
    again = a_class(storages=[storage("z", "one", "sweeper"), storage("y", "one", "other")])
    found = sweeps_of([a_class(storages=STORAGES), again])
    assert sorted((destination.bucket, secret) for destination, secret in found) == [
        ("one", "other"),
        ("one", "sweeper"),
        ("two", "sweeper"),
    ]


class Jobs:
    """The Jobs of the operator's namespace, as its client sees them."""

    def __init__(self) -> None:
        self.jobs: dict[str, Json] = {}
        self.made: list[str] = []
        self.refuse = ""
        self.secret = "sweeper"

    async def find(self, kind: Kind, namespace: str, name: str) -> Json | None:
        assert namespace == "isotrack-system"
        return self.jobs.get(name) if kind is JOB else {name: {}}.get(self.secret)

    async def create(self, body: Json) -> Json:
        name = body["metadata"]["name"]
        bucket = body["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"]
        if self.refuse and self.refuse in bucket:
            raise ForbiddenError("quota", 403)
        if name in self.jobs:
            raise AlreadyExistsError(name, 409)
        uid = f"job-{len(self.made)}"
        self.jobs[name] = {"metadata": body["metadata"] | {"uid": uid}, "spec": body["spec"], "status": {}}
        self.made.append(name)
        return self.jobs[name]

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str) -> None:
        assert self.jobs.pop(name)["metadata"]["uid"] == uid

    def end(self, name: str, how: str) -> None:
        self.jobs[name]["status"]["conditions"] = [{"type": how, "status": "True"}]


def a_sweeper() -> tuple[Sweeper, Jobs, Health]:
    store, jobs, health = Store(), Jobs(), Health(lambda: 0.0)
    body = a_class(storages=STORAGES).model_dump(mode="json", by_alias=True, exclude_none=True)
    store.put(RECORDING_CLASS, body)
    settings = Settings(
        recorder_image="recorder:1",
        recorder_pull_secrets=("pull",),
        namespace="isotrack-system",
        sweep_watch_seconds=30,
    )
    return Sweeper(cast("Cluster", jobs), store, settings, health), jobs, health


async def test_a_sweep_that_still_works_is_left_alone() -> None:
    sweeper, jobs, _ = a_sweeper()
    await sweeper.sweep()
    assert len(jobs.made) == 2
    await sweeper.sweep()
    assert len(jobs.made) == 2


async def test_a_sweep_that_is_over_is_counted_and_followed_by_the_next() -> None:
    sweeper, jobs, health = a_sweeper()
    await sweeper.sweep()
    first, second = jobs.made
    jobs.end(first, "Complete")
    jobs.end(second, "Failed")
    await sweeper.sweep()
    assert jobs.made == [first, second, first, second]
    assert health.counters['isotrack_sweeps_total{outcome="done"}'] == 1
    assert health.counters['isotrack_sweeps_total{outcome="failed"}'] == 1


async def test_a_storage_whose_sweep_cannot_start_keeps_no_other_from_it() -> None:
    sweeper, jobs, _ = a_sweeper()
    jobs.refuse = '"one"'
    await sweeper.sweep()
    assert len(jobs.made) == 1


async def test_without_its_secret_no_pod_waits_for_it() -> None:
    sweeper, jobs, _ = a_sweeper()
    jobs.secret = "another"
    await sweeper.sweep()
    assert jobs.made == []
    jobs.secret = "sweeper"
    await sweeper.sweep()
    assert len(jobs.made) == 2


async def test_a_sweep_that_is_over_is_there_when_the_next_one_looks_how_it_ended() -> None:
    """It was gone after five minutes and the next comes after ten: none was ever counted, nor a failure told."""
    sweeper, jobs, _ = a_sweeper()
    await sweeper.sweep()
    interval = Settings(recorder_image="recorder:1", namespace="n").sweep_seconds
    assert all(job["spec"]["ttlSecondsAfterFinished"] > interval for job in jobs.jobs.values())


async def test_a_sweep_watches_for_as_long_as_the_settings_say() -> None:
    sweeper, jobs, _ = a_sweeper()
    await sweeper.sweep()
    (first, second) = (job["spec"]["template"]["spec"]["containers"][0]["env"] for job in jobs.jobs.values())
    wanted = {"name": "ISOTRACK_SWEEP_WATCH_SECONDS", "value": "30"}
    assert wanted in first
    assert wanted in second


def of_attempt(body: Body, kind: Kind, store: Store) -> None:
    """Keep an object as the API server returns it."""
    body.body["metadata"]["labels"] = names.labels(Recording.from_object(a_recording().body), 1)
    store.put(kind, body.body)


@pytest.mark.parametrize(
    ("job", "pod", "is_over", "at_work"),
    [
        pytest.param(a_job(), a_pod().running(), False, True, id="a pod captures"),
        pytest.param(a_job(), None, False, True, id="its pod is on its way"),
        pytest.param(None, a_pod().running(), False, True, id="its Job was deleted and its pod ends"),
        pytest.param(a_job().failed(), a_pod().unreachable(), False, True, id="its node does not answer"),
        pytest.param(a_job().failed(), a_pod().ended(1), False, False, id="nobody is left"),
        pytest.param(
            a_job().with_("metadata.deletionTimestamp", "2026-01-01T00:00:00Z"), None, False, False, id="gone"
        ),
        pytest.param(None, None, False, False, id="nothing began"),
        pytest.param(a_job(), a_pod().running(), True, False, id="over"),
    ],
)
async def test_a_sweep_is_told_what_is_at_work(
    job: JobBody | None, pod: PodBody | None, is_over: bool, at_work: bool
) -> None:
    """What a pod left in the bucket looks abandoned where it does not get to it any more, and captures on."""
    store, jobs = Store(), Jobs()
    store.put(RECORDING_CLASS, a_class(storages=STORAGES).model_dump(mode="json", by_alias=True, exclude_none=True))
    recording = a_recording().body
    if is_over:
        recording["status"] = {"conditions": [{"type": "Finished", "status": "True"}]}
    store.put(RECORDING, recording)
    for kind, body in ((JOB, job), (POD, pod)):
        if body is not None:
            of_attempt(body, kind, store)
    settings = Settings(recorder_image="recorder:1", namespace="isotrack-system")
    await Sweeper(cast("Cluster", jobs), store, settings, Health(lambda: 0.0)).sweep()
    told = {"name": "ISOTRACK_SWEEP_AT_WORK", "value": names.uid8(UID) if at_work else ""}
    assert len(jobs.jobs) == 2
    assert all(told in job["spec"]["template"]["spec"]["containers"][0]["env"] for job in jobs.jobs.values())


async def test_a_sweep_is_pulled_with_the_secrets_of_the_settings() -> None:
    sweeper, jobs, _ = a_sweeper()
    await sweeper.sweep()
    assert [job["spec"]["template"]["spec"]["imagePullSecrets"] for job in jobs.jobs.values()] == [
        [{"name": "pull"}]
    ] * 2


async def test_an_interval_of_zero_sweeps_nothing() -> None:
    _, jobs, health = a_sweeper()
    settings = Settings(recorder_image="recorder:1", namespace="n", sweep_seconds=0)
    await Sweeper(cast("Cluster", jobs), Store(), settings, health).run()
    assert jobs.made == []
