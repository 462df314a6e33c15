"""What keeps a Recording from starting is told by a condition that says what to do; when it is put right, it starts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from support.cluster import Object, Tenant, class_object, condition, is_true
from support.people import Person

ALICE = Person(identity="alice", camera=None)


def stalled_by(recording: Object) -> set[str]:
    """Why it cannot go on by itself: the reason of Stalled and, where storage is the cause, that of StorageReady."""
    if not is_true(recording, "Stalled"):
        return set()
    storage = condition(recording, "StorageReady")
    return {condition(recording, "Stalled")["reason"], *([storage["reason"]] if storage["status"] == "False" else [])}


@pytest.mark.parametrize(
    ("spec", "class_spec", "why", "words"),
    [
        pytest.param({"className": "no-such-class"}, {}, "ClassNotFound", ["no-such-class"], id="class"),
        pytest.param({"storage": "no-such-storage"}, {}, "StorageNotFound", ["no-such-storage"], id="storage"),
        pytest.param({}, {"mode": "disabled"}, "RecordingDisabled", ["disabled"], id="disabled"),
        pytest.param({"call": {"id": "somebody-elses"}}, {}, "CallNotAllowed", ["spec.calls"], id="call"),
        pytest.param(
            {},
            {"recorder": {"image": "localhost/no-such-image:1", "imagePullPolicy": "Never"}},
            "ImagePullFailed",
            ["localhost/no-such-image:1"],
            id="image",
        ),
        pytest.param({}, {"storages.0.s3.bucket": "no-such-bucket"}, "StorageRefused", ["no-such-bucket"], id="bucket"),
        pytest.param(
            {},
            {"storages.0.s3.credentials.secretName": "no-such-secret"},
            "StorageSecretNotFound",
            ["no-such-secret"],
            id="storage-secret",
        ),
        pytest.param(
            {},
            {"storages.0.s3.credentials": {"ambient": {"serviceAccountName": "no-such-account"}}},
            "ServiceAccountNotFound",
            ["no-such-account"],
            id="storage-account",
        ),
        pytest.param(
            {},
            {"source.livekit.credentialsSecretName": "no-such-sfu-secret"},
            "SourceSecretNotFound",
            ["no-such-sfu-secret"],
            id="source-secret",
        ),
    ],
)
def test_the_condition_says_what_to_do(
    tenant: Tenant, spec: dict[str, Any], class_spec: dict[str, Any], why: str, words: list[str]
) -> None:
    changed = class_object(tenant.cluster, tenant.namespace)
    for path, value in class_spec.items():
        put(changed["spec"], path, value)
    tenant.cluster.apply(changed)
    with tenant.people("blocked", ALICE) as people:
        people.join("alice")
        tenant.record("blocked", **spec)
        found = tenant.wait("blocked", lambda one: why in stalled_by(one), f"Stalled, {why}")
        text = condition(found, "Stalled")["message"]
        for word in words:
            assert word in text
        assert tenant.cluster.environment["AWS_SECRET_ACCESS_KEY"] not in str(found)
        assert tenant.cluster.environment["LIVEKIT_API_SECRET"] not in str(found)


def put(spec: Any, path: str, value: object) -> None:
    """Set a member below `spec`: `storages.0.s3.bucket`."""
    *way, last = path.split(".")
    for step in way:
        spec = spec[int(step)] if isinstance(spec, list) else spec[step]
    spec[last] = value


def test_it_starts_by_itself_once_its_class_is_there(tenant: Tenant) -> None:
    tenant.cluster.kubectl("delete", "recordingclass", tenant.class_name)
    with tenant.people("later", ALICE) as people:
        people.join("alice")
        tenant.record("later")
        tenant.wait("later", lambda one: "ClassNotFound" in stalled_by(one), "the class is missing")
        tenant.cluster.apply(class_object(tenant.cluster, tenant.namespace))
        tenant.wait_capturing("later")
        tenant.patch("later", desiredState="Stopped")
        assert tenant.wait_finished("later")["status"]["phase"] == "Uploaded"


def test_it_starts_by_itself_once_its_namespace_has_the_label(tenant: Tenant) -> None:
    """As in docs/install.md, in the other order."""
    labelled = {"selector": {"matchLabels": {"isotrack.dev/may-record": "true"}}}
    grants = [{"namespaces": labelled, "ids": ["{namespace}_*"]}]
    tenant.cluster.apply(class_object(tenant.cluster, tenant.namespace, calls=grants))
    with tenant.people("labelled", ALICE) as people:
        people.join("alice")
        tenant.record("labelled")
        tenant.wait("labelled", lambda one: "CallNotAllowed" in stalled_by(one), "the label is missing")
        tenant.cluster.kubectl("label", "namespace", tenant.namespace, "isotrack.dev/may-record=true")
        tenant.wait_capturing("labelled")
        tenant.patch("labelled", desiredState="Stopped")
        assert tenant.wait_finished("labelled")["status"]["phase"] == "Uploaded"


def test_a_call_has_one_recording_at_a_time(tenant: Tenant) -> None:
    """The second one ends at once and names the first; when that is over, the call can be recorded again."""
    with tenant.people("busy", ALICE) as people:
        people.join("alice")
        tenant.record("winner", of="busy")
        tenant.wait_capturing("winner")
        tenant.record("loser", of="busy")
        lost = tenant.wait_finished("loser")
        assert lost["status"]["phase"] == "Errored"
        assert "AlreadyRunning" in stalled_by(lost)
        assert "winner" in condition(lost, "Stalled")["message"]
        assert not tenant.pods(lost)
        tenant.patch("winner", desiredState="Stopped")
        assert tenant.wait_finished("winner")["status"]["phase"] == "Uploaded"
        tenant.record("next", of="busy")
        tenant.wait_capturing("next")
        tenant.patch("next", desiredState="Stopped")
        assert tenant.wait_finished("next")["status"]["phase"] == "Uploaded"


def test_nobody_comes_before_the_start_timeout(tenant: Tenant) -> None:
    limits: Mapping[str, int] = {"startTimeoutSeconds": 2}
    tenant.record("lonely", limits=limits)
    found = tenant.wait_finished("lonely")
    assert found["status"]["phase"] == "Errored"
    assert "CallNotFound" in stalled_by(found)
    assert "startTimeoutSeconds" in condition(found, "Stalled")["message"]
