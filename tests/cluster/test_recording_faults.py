"""Recordings through kills, evictions and deletions: what was captured is kept, somebody goes on, and nothing is left behind.

Bounds are those of `support.promises`, measured by the serial numbers of pictures: captured media that is lost, and the gap until
capture went on. The slow faults (node, API server) are in `test_cluster_faults.py`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from isotrack_api.manifest import Gap, ManifestFile, StopReason
from isotrack_recorder.finalise.gaps import LOSSES
from support.cluster import GROUP, KubectlError, Object, Tenant, is_true
from support.fault_cost import Cost, Costs, cost_of, last_sent, missing, sent_by, serials_of
from support.ledger import Ledger
from support.people import People, Person, Picture
from support.pod_processes import first_process, worker
from support.recording_check import BESIDE_A_CLUSTER, Checked, Recorded, check_recording
from support.waiting import until

pytestmark = pytest.mark.realtime

FPS = 15
ALICE = Person(identity="alice", camera=Picture(pre_encoded=True, fps=FPS))


def finish(tenant: Tenant, name: str, people: People) -> tuple[Object, Recorded]:
    """Stop a recording, wait for its end and check its files."""
    tenant.patch(name, desiredState="Stopped")
    finished = tenant.wait_finished(name)
    recorded = check_recording(tenant.download(name), people.cast, Ledger.load(people.ledger), BESIDE_A_CLUSTER)
    return finished, recorded


def covered(files: list[Checked]) -> list[tuple[float, float]]:
    """Stretches of the call that files hold: (from, to), seconds."""
    return [(c.file.start_offset_ms / 1000, (c.file.start_offset_ms + c.file.duration_ms) / 1000) for c in files]


def the_pod(tenant: Tenant, recording: Object) -> Object:
    """The pod of a Recording that has one."""
    (pod,) = tenant.pods(recording)
    return pod


def restarts(tenant: Tenant, recording: Object) -> dict[str, int]:
    """How often the kubelet has started each container again."""
    status = the_pod(tenant, recording)["status"]
    every = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    return {one["name"]: one["restartCount"] for one in every}


def test_an_evicted_pod_gets_a_successor_and_one_file_covers_both(tenant: Tenant, costs: Costs) -> None:
    with tenant.people("drain", ALICE) as people:
        people.join("alice")
        tenant.record("drain")
        recording = tenant.wait_capturing("drain")
        people.play(5)
        (pod,) = tenant.pods(recording)
        fault = last_sent(Ledger.load(people.ledger))
        evict(tenant, pod)
        tenant.wait("drain", has_handed_over, "the successor goes on alone")
        people.play(4)
        finished, recorded = finish(tenant, "drain", people)
    status = finished["status"]
    assert status["phase"] == "Uploaded", status
    assert [attempt["n"] for attempt in status["attempts"]] == [1, 2]
    assert status["attempts"][0]["result"] == "Drained"
    first, second = recorded.manifest.attempts
    assert (first.n, second.n) == (1, 2)
    assert second.started_at < first.ended_at, "they recorded side by side"
    assert [person.user_id for person in recorded.manifest.participants] == ["alice"], "neither counts as one"
    assert recorded.manifest.stop_reason is StopReason.REQUESTED
    (whole,) = recorded.of("alice")
    assert whole.file.attempt == 2, "one file over both pods"
    serials, sent = serials_of(recorded), sent_by(Ledger.load(people.ledger))
    cost = cost_of(serials, fault, FPS, sent)
    costs.judge("pod evicted", cost)
    assert missing(serials, sent) == []
    assert losses_of(whole.file) == []


def has_handed_over(one: Object) -> bool:
    """Whether a first attempt ended while a second one captures."""
    attempts = one["status"].get("attempts", [])
    return len(attempts) == 2 and attempts[0].get("result") == "Drained" and is_true(one, "Capturing")


def losses_of(file: ManifestFile) -> list[tuple[str, Gap]]:
    """What a file declares as lost, of sound and pictures."""
    return [(track.track_id, gap) for track in file.tracks for gap in track.gaps if gap.reason in LOSSES]


def test_a_successor_that_is_still_on_its_way_is_taken_back_at_a_stop(tenant: Tenant, costs: Costs) -> None:
    """It would join the call only to leave it. Who was evicted captures on meanwhile, hears of the stop and finishes everything."""
    with tenant.people("full", ALICE) as people:
        people.join("alice")
        tenant.record("full")
        recording = tenant.wait_capturing("full")
        people.play(4)
        fault = last_sent(Ledger.load(people.ledger))
        with full_nodes(tenant):
            evict(tenant, the_pod(tenant, recording))
            tenant.wait("full", lambda one: len(one["status"].get("attempts", [])) == 2, "a successor is begun")
            until(lambda: [pod for pod in tenant.pods(recording) if attempt_of(pod) == "2"], "it has a pod")
            finished, recorded = finish(tenant, "full", people)
    status = finished["status"]
    assert status["phase"] == "Uploaded", status
    assert [attempt["result"] for attempt in status["attempts"]] == ["Finished", "Lost"]
    assert [attempt.n for attempt in recorded.manifest.attempts] == [1]
    assert recorded.manifest.stop_reason is StopReason.REQUESTED
    serials, sent = serials_of(recorded), sent_by(Ledger.load(people.ledger))
    costs.judge("pod evicted, no place for another, stopped", cost_of(serials, fault, FPS, sent))
    assert missing(serials, sent) == []


@contextmanager
def full_nodes(tenant: Tenant) -> Iterator[None]:
    """Meanwhile no new pod finds a place."""
    nodes = tenant.cluster.kubectl("get", "nodes", "-o", "name").stdout.split()
    try:
        tenant.cluster.kubectl("cordon", *nodes)
        yield
    finally:
        tenant.cluster.kubectl("uncordon", *nodes)


def attempt_of(pod: Object) -> str:
    """Number of the attempt that a pod is."""
    return str(pod["metadata"]["labels"][f"{GROUP}/attempt"])


def evict(tenant: Tenant, pod: Object) -> None:
    """Evict a pod as `kubectl drain` does."""
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": namespace}}
    path = f"/api/v1/namespaces/{namespace}/pods/{name}/eviction"
    tenant.cluster.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(body))


def judge_one_attempt(
    fault: str, finished: Object, recorded: Recorded, people: People, struck: Sequence[int], costs: Costs
) -> None:
    """A recorder died after each of these serials and came back in its pod: what that cost is declared, and within what it may."""
    assert len(finished["status"]["attempts"]) == 1, "the pod stays"
    sent = sent_by(Ledger.load(people.ledger))
    costs.judge(fault, *(cost_of(serials_of(recorded), serial, FPS, sent) for serial in struck))
    assert recorded.manifest.lost_ms > 0, "the loss is declared"


def test_a_recorder_that_is_killed_twice_is_back_at_once_both_times(tenant: Tenant, costs: Costs) -> None:
    """The kubelet would let it wait for ten seconds the second time."""
    faults = []
    with tenant.people("kill", ALICE) as people:
        people.join("alice")
        tenant.record("kill")
        recording = tenant.wait_capturing("kill")
        people.play(4)
        pod = the_pod(tenant, recording)
        for _ in range(2):
            worker(pod["metadata"]["uid"], "capture").kill()
            faults.append(last_sent(Ledger.load(people.ledger)))
            people.play(6)
        finished, recorded = finish(tenant, "kill", people)
        assert restarts(tenant, recording) == {"recorder": 0, "agent": 0}, "no container was started again"
    assert finished["status"]["phase"] in ("Uploaded", "PartiallyUploaded"), finished["status"]
    judge_one_attempt("recorder process killed", finished, recorded, people, faults, costs)


def test_a_recorder_container_that_is_killed_is_started_again_in_its_pod(tenant: Tenant, costs: Costs) -> None:
    with tenant.people("container", ALICE) as people:
        people.join("alice")
        tenant.record("container")
        recording = tenant.wait_capturing("container")
        people.play(4)
        pod = the_pod(tenant, recording)
        first_process(pod["metadata"]["uid"], "capture").kill()
        fault = last_sent(Ledger.load(people.ledger))
        until(lambda: restarts(tenant, recording)["recorder"], "the kubelet starts the recorder again")
        tenant.wait_capturing("container")
        people.play(6)
        finished, recorded = finish(tenant, "container", people)
        assert the_pod(tenant, recording)["metadata"]["uid"] == pod["metadata"]["uid"]
    judge_one_attempt("recorder container killed", finished, recorded, people, [fault], costs)


def test_a_recorder_that_runs_out_of_memory_begins_again_in_its_pod(tenant: Tenant, costs: Costs) -> None:
    """Where cgroups are of version 2 the kernel ends its container, else its process."""
    with tenant.people("oom", ALICE) as people:
        people.join("alice")
        tenant.record("oom")
        recording = tenant.wait_capturing("oom")
        people.play(4)
        pod = the_pod(tenant, recording)
        worker(pod["metadata"]["uid"], "capture").run_out_of_memory()
        fault = last_sent(Ledger.load(people.ledger))
        people.play(8)
        finished, recorded = finish(tenant, "oom", people)
        assert the_pod(tenant, recording)["metadata"]["uid"] == pod["metadata"]["uid"]
    judge_one_attempt("recorder out of memory", finished, recorded, people, [fault], costs)


def test_an_agent_that_is_killed_begins_again_in_its_pod_and_nothing_is_lost(tenant: Tenant, costs: Costs) -> None:
    """Its process first, then its container; the recorder captures on, and the spool has it all."""
    faults = []
    with tenant.people("agent", ALICE) as people:
        people.join("alice")
        tenant.record("agent")
        recording = tenant.wait_capturing("agent")
        people.play(3)
        pod = the_pod(tenant, recording)
        for find in (worker, first_process):
            find(pod["metadata"]["uid"], "agent").kill()
            faults.append(last_sent(Ledger.load(people.ledger)))
            people.play(3)
        until(lambda: restarts(tenant, recording)["agent"] == 1, "the kubelet starts the agent again")
        finished, recorded = finish(tenant, "agent", people)
        assert the_pod(tenant, recording)["metadata"]["uid"] == pod["metadata"]["uid"]
    status = finished["status"]
    assert status["phase"] == "Uploaded", status
    assert [attempt["result"] for attempt in status["attempts"]] == ["Finished"], "the attempt goes on"
    serials, sent = serials_of(recorded), sent_by(Ledger.load(people.ledger))
    found = [cost_of(serials, fault, FPS, sent) for fault in faults]
    costs.judge("agent killed", *found)
    assert missing(serials, sent) == []


def test_a_recording_that_is_deleted_in_mid_call_is_finished_and_leaves_nothing_behind(
    tenant: Tenant, operator: str, costs: Costs
) -> None:
    with tenant.people("gone", ALICE) as people:
        people.join("alice")
        tenant.record("gone")
        recording = tenant.wait_capturing("gone")
        people.play(5)
        fault = last_sent(Ledger.load(people.ledger))
        tenant.cluster.kubectl("delete", "recording", "gone", "-n", tenant.namespace, "--wait=true", seconds=120)
        with pytest.raises(KubectlError, match="NotFound"):
            tenant.cluster.get("recordings", "gone", tenant.namespace)
        recorded = check_recording(tenant.download("gone"), people.cast, Ledger.load(people.ledger), BESIDE_A_CLUSTER)
    assert recorded.manifest.stop_reason is StopReason.DELETED
    assert recorded.one("alice").media.duration > 4
    serials = serials_of(recorded)
    assert missing(serials, sent_by(Ledger.load(people.ledger))) == []
    costs.judge("Recording deleted", Cost(max(0, fault - max(serials)) / FPS, math.inf))
    until(lambda: not left_of(tenant, recording, operator), "everything of it is gone", interval=0.5)
    bucket = tenant.cluster.bucket
    assert bucket.uploads(bucket.folder_of(f"{tenant.namespace}/gone-")) == []


def left_of(tenant: Tenant, recording: Object, operator: str) -> list[str]:
    """What exists of a Recording in the cluster: all kinds that the operator makes, claims included."""
    selector = f"isotrack.dev/recording-uid={recording['metadata']['uid']}"
    kinds = "jobs,pods,secrets,serviceaccounts,roles,rolebindings,recordingreports.isotrack.dev"
    found = [f"{o['kind']} {o['metadata']['name']}" for o in tenant.cluster.list(kinds, tenant.namespace, selector)]
    return found + [f"Lease {o['metadata']['name']}" for o in tenant.cluster.list("leases", operator, selector)]
