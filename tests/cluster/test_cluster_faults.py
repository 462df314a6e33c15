"""Faults of the cluster itself in mid-call: a node that is drained or dies, an API server that is away, a namespace that is deleted.

They take minutes, so `make test` leaves them out: `pytest tests/cluster -m faults`. Costs are measured by the serial numbers of pictures,
held to `support.promises`, and printed at the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from isotrack_api.manifest import StopReason
from isotrack_dev import images
from isotrack_dev.stack import Stack
from support.cluster import Object, Tenant, is_true
from support.fault_cost import Cost, Costs, cost_of, last_sent, missing, sent_by, serials_of
from support.ledger import Ledger
from support.people import People, Person, Picture
from support.recording_check import BESIDE_A_CLUSTER, Recorded, check_recording
from support.waiting import until

pytestmark = [pytest.mark.faults, pytest.mark.realtime, pytest.mark.timeout(1200)]

FPS = 15
ALICE = Person(identity="alice", camera=Picture(pre_encoded=True, fps=FPS))


@pytest.fixture
def second_node(stack: Stack, operator: str) -> Iterator[str]:
    """A node that may be drained and die. Its stack is a node short afterwards, as before."""
    name = stack.add_node([images.ensure(["recorder"])["recorder"].archive])
    try:
        yield name
    finally:
        stack.kubectl("uncordon", stack.node)
        stack.lose_node()
        stack.kubectl("delete", "node", name, "--ignore-not-found")


def record_on(tenant: Tenant, stack: Stack, node: str, name: str) -> Object:
    """Start a recording whose pod runs on this node; the other node takes pods again afterwards."""
    stack.kubectl("cordon", stack.node)
    tenant.record(name)
    recording = tenant.wait_capturing(name)
    (pod,) = tenant.pods(recording)
    assert pod["spec"]["nodeName"] == node
    stack.kubectl("uncordon", stack.node)
    return recording


def finish(tenant: Tenant, name: str, people: People) -> tuple[Object, Recorded]:
    """Stop a recording, wait for its end and check its files."""
    tenant.patch(name, desiredState="Stopped")
    finished = tenant.wait(name, lambda one: is_true(one, "Finished"), "the recording is over", seconds=400)
    recorded = check_recording(tenant.download(name), people.cast, Ledger.load(people.ledger), BESIDE_A_CLUSTER)
    return finished, recorded


def second_attempt_captures(one: Object) -> bool:
    """Whether a successor is at work."""
    return len(one["status"].get("attempts", [])) == 2 and is_true(one, "Capturing")


def test_a_drained_node_hands_the_call_to_another(tenant: Tenant, stack: Stack, second_node: str, costs: Costs) -> None:
    with tenant.people("drain", ALICE) as people:
        people.join("alice")
        record_on(tenant, stack, second_node, "drain")
        people.play(5)
        fault = last_sent(Ledger.load(people.ledger))
        stack.kubectl(
            "drain", second_node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=120s", seconds=130
        )
        tenant.wait("drain", second_attempt_captures, "the successor captures")
        people.play(5)
        finished, recorded = finish(tenant, "drain", people)
    assert finished["status"]["phase"] == "Uploaded", finished["status"]
    assert finished["status"]["attempts"][0]["result"] == "Drained"
    serials, sent = serials_of(recorded), sent_by(Ledger.load(people.ledger))
    cost = cost_of(serials, fault, FPS, sent)
    costs.judge("node drained", cost)
    assert missing(serials, sent) == [], "both recorded for a while"


def test_a_node_that_dies_costs_what_came_after_the_last_checkpoint(
    tenant: Tenant, stack: Stack, second_node: str, costs: Costs
) -> None:
    with tenant.people("node", ALICE) as people:
        people.join("alice")
        record_on(tenant, stack, second_node, "node")
        people.play(12)
        stack.lose_node()
        fault = last_sent(Ledger.load(people.ledger))
        tenant.wait("node", second_attempt_captures, "the successor captures")
        people.play(5)
        finished, recorded = finish(tenant, "node", people)
    cost = cost_of(serials_of(recorded), fault, FPS, sent_by(Ledger.load(people.ledger)))
    costs.judge("node died", cost)
    assert finished["status"]["phase"] in ("Uploaded", "PartiallyUploaded")
    assert recorded.manifest.lost_ms > 0, "the loss is declared"


def test_a_recording_that_is_stopped_after_its_node_died_is_finished_by_a_job(
    tenant: Tenant, stack: Stack, second_node: str, costs: Costs
) -> None:
    """Nobody is left who could, and nobody can say so: the pod is deleted and stays, because its kubelet is gone. Two minutes after it
    should have been gone, the operator has a Job finish the recording from what the bucket has."""
    with tenant.people("late", ALICE) as people:
        people.join("alice")
        recording = record_on(tenant, stack, second_node, "late")
        people.play(12)
        stack.kubectl("cordon", stack.node)  # no successor either
        stack.lose_node()
        fault = last_sent(Ledger.load(people.ledger))
        (pod,) = tenant.pods(recording)
        tenant.patch("late", desiredState="Stopped")
        delete = ("delete", "pod", pod["metadata"]["name"], "-n", tenant.namespace)
        tenant.cluster.kubectl(*delete, "--force", "--grace-period=0", "--wait=false")
        stack.kubectl("uncordon", stack.node)
        finished = tenant.wait("late", lambda one: is_true(one, "Finished"), "the recording is over", seconds=240)
        recorded = check_recording(tenant.download("late"), people.cast, Ledger.load(people.ledger), BESIDE_A_CLUSTER)
    assert "Recovering" in [one["reason"] for one in finished["status"]["transitions"]]
    lost = (fault - max(serials_of(recorded))) / FPS
    costs.judge("node died, stopped before anybody went on", Cost(lost, math.inf))
    assert recorded.manifest.stop_reason is StopReason.REQUESTED
    assert finished["status"]["manifest"]["uri"].endswith("/recording.json")


def test_an_api_server_that_is_away_for_three_minutes_costs_nothing(tenant: Tenant, stack: Stack, costs: Costs) -> None:
    with tenant.people("alone", ALICE) as people:
        people.join("alice")
        tenant.record("alone")
        tenant.wait_capturing("alone")
        people.play(3)
        stack.kill("kube-apiserver")
        fault = last_sent(Ledger.load(people.ledger))
        people.play(180)
        stack.again("kube-apiserver")
        # Controllers look at the node again before its kubelet has said that it is well, and may take it for lost: then a successor was
        # begun, whose pod starts once the node is well, or is taken back at the stop.
        people.play(18)
        finished, recorded = finish(tenant, "alone", people)
    costs.judge(
        "API server away for three minutes",
        cost_of(serials_of(recorded), fault, FPS, sent_by(Ledger.load(people.ledger))),
    )
    assert finished["status"]["phase"] == "Uploaded", finished["status"]
    assert missing(serials_of(recorded), sent_by(Ledger.load(people.ledger))) == []


def test_a_namespace_that_is_deleted_in_mid_call_leaves_a_finished_recording(tenant: Tenant, costs: Costs) -> None:
    with tenant.people("end", ALICE) as people:
        people.join("alice")
        tenant.record("end")
        tenant.wait_capturing("end")
        people.play(5)
        fault = last_sent(Ledger.load(people.ledger))
        tenant.cluster.kubectl("delete", "namespace", tenant.namespace, "--wait=true", seconds=200)
        until(lambda: tenant.cluster.bucket.folder_of(f"{tenant.namespace}/end-"), "recording.json is there")
        recorded = check_recording(tenant.download("end"), people.cast, Ledger.load(people.ledger), BESIDE_A_CLUSTER)
    serials = serials_of(recorded)
    costs.judge("namespace deleted", Cost(max(0, fault - max(serials)) / FPS, math.inf))
    assert missing(serials, sent_by(Ledger.load(people.ledger))) == []
