"""The operator keeps its promises through its own death, lost pods and deleted Jobs, and puts itself right when others have."""

from __future__ import annotations

import base64
import re
from typing import Any

import pytest

from support.cluster import Object, Tenant, condition, fresh_name, is_true, tenant_objects
from support.people import Person
from support.waiting import until

ALICE = Person(identity="alice", camera=None)


def kill_operator(tenant: Tenant, operator: str) -> None:
    """Delete the operator's pod without a chance to say goodbye; its Deployment makes another one."""
    tenant.cluster.kubectl(
        "delete", "pods", "-n", operator, "-l", "app.kubernetes.io/component=operator", "--force", "--grace-period=0"
    )


def jobs(tenant: Tenant, recording: Object) -> list[Object]:
    """Jobs of a Recording's attempts."""
    return tenant.cluster.list("jobs", tenant.namespace, f"isotrack.dev/recording-uid={recording['metadata']['uid']}")


def claims_of(tenant: Tenant, operator: str) -> list[str]:
    """Recordings of a tenant that hold a call."""
    leases = tenant.cluster.list("leases", operator, "app.kubernetes.io/managed-by=isotrack")
    notes = [lease["metadata"]["annotations"] for lease in leases]
    return [n["isotrack.dev/holder-name"] for n in notes if n["isotrack.dev/holder-namespace"] == tenant.namespace]


def reason(one: Object, kind: str = "Ready") -> str:
    """Reason of a condition."""
    return str(condition(one, kind).get("reason", ""))


def attempts(one: Object) -> list[dict[str, Any]]:
    """Attempts as the status has them."""
    return list(one.get("status", {}).get("attempts", []))


def test_operator_that_dies_again_and_again_makes_nothing_twice(tenant: Tenant, operator: str) -> None:
    """It remembers nothing, so it may die before a start, during a start, while media flows, and during the stop."""
    tenant.record("restless")
    tenant.wait("restless", lambda one: reason(one) == "WaitingForCall", "it waits for the call")
    kill_operator(tenant, operator)
    with tenant.people("restless", ALICE) as people:
        people.join("alice")
        tenant.wait("restless", lambda one: bool(attempts(one)), "attempt 1 was made")
        kill_operator(tenant, operator)
        recording = tenant.wait_capturing("restless")
        kill_operator(tenant, operator)
        tenant.patch("restless", desiredState="Stopped")
        finished = tenant.wait_finished("restless")
    assert finished["status"]["phase"] == "Uploaded", finished["status"]
    assert [attempt["n"] for attempt in attempts(finished)] == [1]
    assert len(jobs(tenant, recording)) == 1
    numbers = [transition["seq"] for transition in finished["status"]["transitions"]]
    assert numbers == list(range(1, len(numbers) + 1)), "no transition was written twice or lost"
    until(lambda: not claims_of(tenant, operator), "the call is free again")


def test_lost_pod_and_deleted_job_get_successors(tenant: Tenant) -> None:
    with tenant.people("lossy", ALICE) as people:
        people.join("alice")
        tenant.record("lossy")
        recording = tenant.wait_capturing("lossy")
        (pod,) = tenant.pods(recording)
        delete = ("delete", "-n", tenant.namespace)
        tenant.cluster.kubectl(*delete, "pod", pod["metadata"]["name"], "--force", "--grace-period=0")
        tenant.wait("lossy", lambda one: len(attempts(one)) == 2 and is_true(one, "Capturing"), "attempt 2 captures")
        (second,) = [job for job in jobs(tenant, recording) if job["metadata"]["labels"]["isotrack.dev/attempt"] == "2"]
        tenant.cluster.kubectl(*delete, "job", second["metadata"]["name"], "--wait=false")
        tenant.wait("lossy", lambda one: len(attempts(one)) == 3, "attempt 3 was made")
        tenant.wait(
            "lossy",
            lambda one: attempts(one)[1].get("result") is not None and is_true(one, "Capturing"),
            "attempt 3 captures",
        )
        tenant.patch("lossy", desiredState="Stopped")
        finished = tenant.wait_finished("lossy")
    assert finished["status"]["phase"] in ("Uploaded", "PartiallyUploaded"), finished["status"]
    assert [attempt["n"] for attempt in attempts(finished)] == [1, 2, 3]
    assert attempts(finished)[2]["result"] == "Finished"


def test_namespace_with_enough_recordings_waits_for_one_to_end(tenant: Tenant, operator: str) -> None:
    tenant.cluster.apply(
        *tenant_objects(tenant.cluster, tenant.namespace, operator, limits={"concurrentPerNamespace": 1})
    )
    with tenant.people("one", ALICE) as first, tenant.people("two", ALICE) as second:
        first.join("alice")
        second.join("alice")
        tenant.record("one")
        tenant.wait("one", lambda one: bool(attempts(one)), "attempt 1 was made")
        tenant.record("two")
        tenant.wait("two", lambda one: reason(one, "Stalled") == "TooManyRecordings", "it is told why it waits")
        tenant.patch("one", desiredState="Stopped")
        tenant.wait_finished("one")
        tenant.wait_capturing("two")
        tenant.patch("two", desiredState="Stopped")
        tenant.wait_finished("two")


def test_storage_secret_that_comes_late_starts_the_recording(tenant: Tenant, operator: str) -> None:
    secret = tenant.cluster.get("secret", "bucket", tenant.namespace)
    tenant.cluster.kubectl("delete", "secret", "bucket", "-n", tenant.namespace)
    with tenant.people("secretive", ALICE) as people:
        people.join("alice")
        tenant.record("secretive")
        tenant.wait("secretive", lambda one: reason(one, "Stalled") == "StorageSecretNotFound", "the secret is missing")
        kept = {key: secret["metadata"][key] for key in ("name", "namespace")}
        tenant.cluster.apply(secret | {"metadata": kept})
        tenant.wait_capturing("secretive")
        tenant.patch("secretive", desiredState="Stopped")
        tenant.wait_finished("secretive")


@pytest.mark.parametrize("how", ["stop", "delete"])
def test_end_before_the_start_gives_the_call_back(tenant: Tenant, operator: str, how: str) -> None:
    tenant.record("early")
    tenant.wait("early", lambda one: reason(one) == "WaitingForCall", "it waits for the call")
    assert claims_of(tenant, operator) == ["early"]
    if how == "stop":
        tenant.patch("early", desiredState="Stopped")
        assert reason(tenant.wait_finished("early"), "Succeeded") == "StoppedBeforeStart"
    else:
        tenant.cluster.kubectl("delete", "recording", "early", "-n", tenant.namespace, "--timeout=100s")
    until(lambda: not claims_of(tenant, operator), "the call is free again")


def test_class_says_whether_its_sfu_lets_us_in(tenant: Tenant, operator: str) -> None:
    """And says it again, the other way round, when the Secret was put right."""
    name = fresh_name("sfu")
    objects = tenant_objects(tenant.cluster, tenant.namespace, operator)
    (recording_class,) = [one for one in objects if one["kind"] == "RecordingClass"]
    (good,) = [one for one in objects if one["kind"] == "Secret" and one["metadata"]["namespace"] == operator]
    recording_class["metadata"]["name"] = name
    recording_class["spec"]["source"]["livekit"]["credentialsSecretName"] = name
    bad = {"apiKey": "nobody", "apiSecret": "a-secret-that-is-not-the-right-one-at-all"}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": operator}}
    try:
        tenant.cluster.apply(recording_class)
        wait_for_source(tenant, name, "SourceSecretNotFound")
        tenant.cluster.apply(secret | {"stringData": bad})
        refused = wait_for_source(tenant, name, "SourceRefused")
        assert bad["apiSecret"] not in str(refused["status"])
        tenant.cluster.apply(secret | {"stringData": good["stringData"]})
        wait_for_source(tenant, name, "SourceAvailable")
        recording_class["spec"]["source"]["livekit"]["url"] = "ws://127.0.0.1:9"
        tenant.cluster.apply(recording_class)
        wait_for_source(tenant, name, "SourceUnavailable")
    finally:
        tenant.cluster.kubectl("delete", "recordingclass", name, "--ignore-not-found")
        tenant.cluster.kubectl("delete", "secret", name, "-n", operator, "--ignore-not-found")


def wait_for_source(tenant: Tenant, name: str, word: str) -> Object:
    """Wait until a class says this of its source."""
    return tenant.cluster.wait(
        "recordingclasses", name, "", lambda one: reason(one, "SourceReady") == word, f"SourceReady, {word}"
    )


def test_pod_gets_what_it_needs_and_no_more(tenant: Tenant) -> None:
    """As the API server has it: which container sees which secret, and what the agent's account may do."""
    with tenant.people("plain", ALICE) as people:
        people.join("alice")
        tenant.record("plain")
        recording = tenant.wait_capturing("plain")
        (pod,) = tenant.pods(recording)
        spec = pod["spec"]
        (recorder,), (agent,) = spec["initContainers"], spec["containers"]
        assert {mount["name"] for mount in recorder["volumeMounts"]} == {"spool", "run", "tmp", "source"}
        assert "source" not in {mount["name"] for mount in agent["volumeMounts"]}
        account = f"system:serviceaccount:{tenant.namespace}:{spec['serviceAccountName']}"
        said = tenant.cluster.kubectl("auth", "can-i", "--list", "--as", account, "-n", tenant.namespace).stdout
        rows = re.findall(r"^(\S+\.isotrack\.dev\S*) +\[\] +\[(\S*)\] +\[(.*)\]$", said, re.MULTILINE)
        job = pod["metadata"]["labels"]["job-name"]
        assert {(resource.replace(".isotrack.dev", ""), name): verbs for resource, name, verbs in rows} == {
            ("recordings", "plain"): "get watch",
            ("recordingreports/status", job): "patch",
            ("recordingreports", job): "get",
            # To see whether the next attempt captures, when its own pod has to go.
            ("recordingreports", f"{job.removesuffix('1')}2"): "get",
        }
        token = tenant.cluster.get("secret", f"{pod['metadata']['labels']['job-name']}-join", tenant.namespace)
        assert token["immutable"] is True
        value = base64.b64decode(token["data"]["token"]).decode()
        for kind in ("recordings.isotrack.dev", "recordingreports", "jobs", "pods", "events"):
            assert value not in str(tenant.cluster.list(kind, tenant.namespace)), f"the token shows in {kind}"
        tenant.patch("plain", desiredState="Stopped")
        tenant.wait_finished("plain")
