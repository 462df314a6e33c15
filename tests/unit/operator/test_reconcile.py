"""What one turn writes, against an API server reduced to a dictionary: the end of a Recording whose attempts left no manifest."""

from __future__ import annotations

import asyncio
import base64
from contextlib import suppress
from typing import Any, cast

import pytest

from isotrack_api.recording import Phase
from isotrack_api.recording_class import RecordingClass
from isotrack_operator.builders import names
from isotrack_operator.calls import Calls
from isotrack_operator.cluster import Cluster
from isotrack_operator.errors import AlreadyExistsError, ClusterError, ForbiddenError, NotFoundError
from isotrack_operator.kinds import (
    JOB,
    POD,
    RECORDING,
    RECORDING_CLASS,
    RECORDING_REPORT,
    ROLE,
    ROLE_BINDING,
    SECRET,
    SERVICE_ACCOUNT,
    Kind,
    kind_of,
)
from isotrack_operator.reconcile import Reconciler
from isotrack_operator.settings import Settings
from isotrack_operator.store import Store, place_of
from support.operated import (
    NAME,
    NAMESPACE,
    NOW,
    UID,
    RecordingBody,
    a_class,
    a_finaliser_pod,
    a_job,
    a_pod,
    a_recording,
    capturing,
    job_name,
)

Json = dict[str, Any]
PLACE = (NAMESPACE, NAME)
WORD = base64.b64encode(b"a word of more than thirty-two letters").decode()
FINALISER = names.finaliser_name(NAME, UID)


class ApiServer:
    """Objects by kind and name; refuses to create what it is told to."""

    def __init__(self) -> None:
        self.objects: dict[tuple[Kind, str], Json] = {}
        self.version = (1, 35)
        self.refuses: ClusterError | None = None
        self.events: list[Json] = []

    async def find(self, kind: Kind, namespace: str | None, name: str) -> Json | None:
        return self.objects.get((kind, name))

    async def has_secret(self, namespace: str, name: str) -> bool:
        return (SECRET, name) in self.objects

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Json:
        found = self.objects.get((kind, name))
        if found is None:
            raise NotFoundError(name, 404)
        return found

    async def create(self, body: Json) -> Json:
        key = kind_of(body["apiVersion"], body["kind"]), body["metadata"]["name"]
        if self.refuses is not None and key[0] is JOB:
            raise self.refuses
        if key in self.objects:
            raise AlreadyExistsError(key[1], 409)
        return self.keep(key[0], {**body, "metadata": {**body["metadata"], "uid": f"uid-{len(self.objects)}"}})

    async def ensure(self, body: Json) -> None:
        with suppress(AlreadyExistsError):
            await self.create(body)

    async def apply(self, body: Json, subresource: str | None = None) -> Json:
        key = kind_of(body["apiVersion"], body["kind"]), body["metadata"]["name"]
        old = self.objects.get(key, {"metadata": {}})
        part = {"status": body["status"]} if subresource else body
        return self.keep(key[0], {**old, **part, "metadata": {**old["metadata"], **body["metadata"]}})

    async def merge(self, kind: Kind, namespace: str, name: str, patch: Json) -> Json:
        old = self.objects[kind, name]
        return self.keep(kind, {**old, "metadata": {**old["metadata"], **patch["metadata"]}})

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str | None = None) -> None:
        self.objects.pop((kind, name), None)

    async def announce(self, event: Json) -> None:
        self.events.append(event)

    def keep(self, kind: Kind, body: Json) -> Json:
        body["metadata"] = {
            **body["metadata"],
            "resourceVersion": str(int(body["metadata"].get("resourceVersion", 10)) + 1),
        }
        self.objects[kind, body["metadata"]["name"]] = body
        return body


class Operated:
    """A reconciler of one Recording."""

    def __init__(self, recording: RecordingBody, recording_class: RecordingClass | None = None) -> None:
        self.api, self.store = ApiServer(), Store()
        self.woken: list[float] = []
        recording.with_("metadata.finalizers", [names.FINALIZER])
        for kind, body in (
            (RECORDING, recording.body),
            (RECORDING_CLASS, _wire(recording_class or a_class())),
            (RECORDING_REPORT, _labelled(_wire(capturing()))),
            (JOB, a_job().failed().body),
        ):
            self.store.put(kind, self.api.keep(kind, body))
        cluster = cast("Cluster", self.api)
        settings = Settings(
            recorder_image="recorder:1", recorder_pull_secrets=("pull",), namespace="isotrack-system", instance="me"
        )
        self._reconciler = Reconciler(
            cluster, self.store, Calls(lambda _: None), settings, lambda _, s: self.woken.append(s), now=lambda: NOW
        )

    def turn(self) -> Json:
        """Reconcile; the Recording as it is then."""
        asyncio.run(self._reconciler.reconcile(PLACE))
        return self.api.objects[RECORDING, NAME]

    def finaliser_ends(self, **said: Any) -> None:
        """Its Job completes, with these last words."""
        job = self.api.objects[JOB, FINALISER]
        condition = {"type": "Complete", "status": "True", "lastTransitionTime": "2026-11-21T12:00:00Z"}
        self.store.put(JOB, self.api.keep(JOB, {**job, "status": {"conditions": [condition]}}))
        pod = a_finaliser_pod(0, **said)
        pod.with_("metadata.ownerReferences", [{"uid": job["metadata"]["uid"], "controller": True}])
        self.store.put(POD, _labelled(pod.body))


def _wire(model: Any) -> Json:
    body: Json = model.model_dump(mode="json", by_alias=True, exclude_none=True)
    body["metadata"].setdefault("uid", "some-uid")
    return body


def _labelled(body: Json) -> Json:
    body["metadata"]["labels"] = {names.UID_LABEL: UID}
    assert place_of(body)[0] == NAMESPACE
    return body


def test_what_vanished_attempts_left_is_finished_by_one_job_whose_end_is_the_verdict() -> None:
    operated = Operated(a_recording(desiredState="Stopped"))
    recording = operated.turn()
    assert recording["status"]["phase"] == Phase.UPLOADING
    assert recording["metadata"]["finalizers"], "a deletion would have to wait"
    job = operated.api.objects[JOB, FINALISER]
    operated.turn()
    assert operated.api.objects[JOB, FINALISER] is job, "one is enough"
    operated.finaliser_ends(
        complete=True, files=2, manifestUri="s3://b/f/recording.json", manifestDigest="sha256:" + "a" * 64
    )
    recording = operated.turn()
    assert recording["status"]["phase"] == Phase.UPLOADED
    assert recording["status"]["totals"]["files"] == 2
    assert recording["status"]["manifest"]["uri"] == "s3://b/f/recording.json"
    assert recording["metadata"]["finalizers"] == []


@pytest.mark.parametrize("chosen", [None, "recorder"])
def test_pods_run_as_the_account_that_the_class_chose_or_one_of_our_own(chosen: str | None) -> None:
    """One that the class chose is not ours to make or to change."""
    credentials = {"ambient": {"serviceAccountName": chosen}} if chosen else {"secretName": "archive"}
    storages = [{"name": "archive", "s3": {"bucket": "recordings", "credentials": credentials}}]
    operated = Operated(a_recording(desiredState="Stopped"), a_class(storages=storages))
    operated.turn()
    pod = operated.api.objects[JOB, FINALISER]["spec"]["template"]["spec"]
    own = names.base_name(NAME, UID)
    assert pod["serviceAccountName"] == (chosen or own)
    assert [name for kind, name in operated.api.objects if kind is SERVICE_ACCOUNT] == ([] if chosen else [own])


@pytest.mark.parametrize("stopped", [False, True], ids=["attempt", "finaliser"])
def test_pods_are_pulled_with_the_secrets_of_the_settings(stopped: bool) -> None:
    operated = Operated(a_recording(desiredState="Stopped") if stopped else a_recording())
    operated.api.objects[SECRET, "archive"] = {}
    if not stopped:  # an evicted pod gets a successor
        operated.store.put(JOB, operated.api.keep(JOB, a_job().body))
        operated.store.put(POD, _labelled(a_pod().running().disrupted().body))
    operated.api.objects[SECRET, "livekit"] = {"data": dict.fromkeys(("apiKey", "apiSecret"), WORD)}
    operated.turn()
    job = operated.api.objects[JOB, FINALISER if stopped else job_name(2)]
    assert job["spec"]["template"]["spec"]["imagePullSecrets"] == [{"name": "pull"}]


def test_tracks_that_cannot_be_recorded_are_announced_once_for_each_cause() -> None:
    """The phase does not change by it, so no transition tells."""
    operated = Operated(a_recording())
    for kind, body in ((JOB, a_job().body), (POD, _labelled(a_pod().running().body))):
        operated.store.put(kind, operated.api.keep(kind, body))
    row = {"userId": "alice", "source": "camera", "reason": "CodecUnsupported"}
    rows: list[dict[str, str]] = []
    for number, reason in enumerate(["CodecUnsupported", "CodecUnsupported", "Encrypted", "Encrypted"]):
        rows.append({**row, "id": f"TR_{number}", "reason": reason})
        report = _labelled(_wire(capturing(unrecorded=rows)))
        operated.store.put(RECORDING_REPORT, operated.api.keep(RECORDING_REPORT, report))
        operated.turn()
    told = [event for event in operated.api.events if event["action"] == "TracksUnrecorded"]
    assert [(event["type"], event["reason"]) for event in told] == [
        ("Warning", "UnsupportedCodec"),
        ("Warning", "EndToEndEncrypted"),
    ]
    assert len({event["metadata"]["name"] for event in told}) == 2
    assert told[0]["note"].startswith("not recorded: alice camera (codec not supported).")


@pytest.mark.parametrize("deleted", [False, True])
def test_a_finaliser_that_cannot_be_made_is_waited_for_unless_everything_goes(deleted: bool) -> None:
    recording = a_recording(desiredState="Stopped")
    operated = Operated(recording.deleted() if deleted else recording)
    operated.api.refuses = ForbiddenError("the namespace is being terminated", 403)
    found = operated.turn()
    if deleted:
        assert found["status"]["phase"] == Phase.PARTIALLY_UPLOADED
        assert found["metadata"]["finalizers"] == []
        message = next(c["message"] for c in found["status"]["conditions"] if c["type"] == "Succeeded")
        assert "isotrack finalise s3://…/team-a/standup-6269dc2a" in message
    else:
        stalled = next(c for c in found["status"]["conditions"] if c["type"] == "Stalled")
        assert (stalled["status"], stalled["reason"]) == ("True", "Recovering")
        assert operated.woken, "it is tried again"
        assert found["metadata"]["finalizers"], "nothing is let go"


def test_an_attempt_that_a_dead_webhook_keeps_from_being_made_is_told() -> None:
    """The API server answers for it with an error of its own; the Recording said nothing at all."""
    operated = Operated(a_recording())
    operated.api.objects[SECRET, "archive"] = {}
    operated.api.objects[SECRET, "livekit"] = {"data": dict.fromkeys(("apiKey", "apiSecret"), WORD)}
    operated.store.put(POD, _labelled(a_pod().ended(75).body))
    operated.api.refuses = ClusterError('Internal error occurred: failed calling webhook "policy"', 500)
    found = operated.turn()
    stalled = next(c for c in found["status"]["conditions"] if c["type"] == "Stalled")
    assert (stalled["status"], stalled["reason"]) == ("True", "PodRefused")
    assert "failed calling webhook" in stalled["message"]
    assert operated.woken, "it is tried again"


@pytest.mark.parametrize("deleting", [False, True])
def test_what_a_dead_operator_did_not_come_to_is_made_for_a_pod_that_runs_already(deleting: bool) -> None:
    """It died right after the Job and the join token: the pod has started without report, rights and finalizer."""
    operated = Operated(a_recording().deleted() if deleting else a_recording())
    recording = operated.api.objects[RECORDING, NAME]
    recording["metadata"]["finalizers"] = []
    report = operated.api.objects.pop((RECORDING_REPORT, job_name()))
    operated.store.drop(RECORDING_REPORT, report)
    operated.store.put(JOB, operated.api.keep(JOB, a_job().body))
    operated.store.put(POD, _labelled(a_pod().running().body))
    operated.api.objects[SECRET, "livekit"] = {"data": dict.fromkeys(("apiKey", "apiSecret"), WORD)}
    recording = operated.turn()
    made = {kind for kind, _ in operated.api.objects}
    assert {RECORDING_REPORT, ROLE, ROLE_BINDING} <= made
    assert recording["metadata"].get("finalizers", []) == ([] if deleting else [names.FINALIZER])


@pytest.mark.parametrize(("status", "reason"), [(403, "PodRefused"), (500, "Stopping")])
def test_a_stop_is_latched_also_where_an_attempt_cannot_be_given_its_rights(status: int, reason: str) -> None:
    """Its pod cannot hear of the stop; by the latch it is known when to end it."""
    operated = Operated(a_recording(desiredState="Stopped"))
    report = operated.api.objects.pop((RECORDING_REPORT, job_name()))
    operated.store.drop(RECORDING_REPORT, report)
    operated.store.put(JOB, operated.api.keep(JOB, a_job().body))
    operated.store.put(POD, _labelled(a_pod().running().body))
    apply = operated.api.apply

    async def refuse_roles(body: Json, subresource: str | None = None) -> Json:
        if body["kind"] == "Role":
            raise (ForbiddenError if status == 403 else ClusterError)("no Roles here", status)
        return await apply(body, subresource)

    operated.api.apply = refuse_roles  # type: ignore[method-assign]
    with pytest.raises(ClusterError, match="no Roles here"):
        operated.turn()
    found = operated.api.objects[RECORDING, NAME]["status"]
    assert found["stopRequest"]
    assert next(c["reason"] for c in found["conditions"] if c["type"] == "Ready") == reason
