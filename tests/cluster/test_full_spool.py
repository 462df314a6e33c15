"""A pod whose storage is away keeps clear of its volume's limit: it gives up pictures, then sound, says so, and is never evicted."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from isotrack_api.manifest import GapReason
from isotrack_dev.stack import Stack
from support.cluster import Object, Tenant, condition, is_true, tenant_objects
from support.ledger import Ledger
from support.people import Person, Picture
from support.recording_check import BESIDE_A_CLUSTER, check_recording
from support.waiting import until

pytestmark = pytest.mark.realtime

LIMIT = 64 * 2**20
BALLAST = "/var/lib/isotrack/spool/ballast"
ALICE = Person(identity="alice", camera=Picture(pre_encoded=True, bitrate=1_000_000))


@contextmanager
def storage_away(stack: Stack) -> Iterator[None]:
    """The S3 server answers nothing: connections stay open, as behind a broken network."""
    server = stack.components()["s3"].pid
    starter = int(Path(f"/proc/{server}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(server, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in (starter, server):  # nsenter(1) stops itself with its child, and could not be taken down later
            os.kill(process, signal.SIGCONT)


class Volume:
    """The spool's volume of a running pod, seen from the node."""

    def __init__(self, tenant: Tenant, pod: Object) -> None:
        self._tenant = tenant
        self._pod = pod

    def fill(self, percent: int) -> None:
        """Let a backlog lie there: what was captured so far and cannot be shipped."""
        program = f"import os; os.posix_fallocate(os.open({BALLAST!r}, os.O_CREAT | os.O_WRONLY), 0, {LIMIT * percent // 100})"
        self._run(program)

    def empty(self) -> None:
        """Take the backlog away again, as shipping does."""
        self._run(f"import os; os.unlink({BALLAST!r})")

    def _run(self, program: str) -> None:
        pod = self._pod["metadata"]["name"]
        where = ("-n", self._tenant.namespace, pod, "-c", "recorder")
        self._tenant.cluster.kubectl("exec", *where, "--", "python3", "-c", program)

    def kubelet_sees(self) -> int:
        """Bytes in it, as the kubelet has measured, by which it decides on evictions."""
        node = self._pod["spec"]["nodeName"]
        said = self._tenant.cluster.kubectl("get", "--raw", f"/api/v1/nodes/{node}/proxy/stats/summary").stdout
        pods = {pod["podRef"]["uid"]: pod for pod in json.loads(said)["pods"]}
        volumes = pods.get(self._pod["metadata"]["uid"], {}).get("volume", [])
        return next((volume["usedBytes"] for volume in volumes if volume["name"] == "spool"), 0)


def lagging(reason: str) -> Callable[[Object], bool]:
    """UploadLagging says this."""
    return lambda one: condition(one, "UploadLagging").get("reason") == reason


def test_an_outage_of_the_storage_costs_pictures_then_sound_and_never_the_pod(
    tenant: Tenant, operator: str, stack: Stack
) -> None:
    *_, recording_class = tenant_objects(
        tenant.cluster, tenant.namespace, operator, recorder={"spool": {"sizeLimit": "64Mi"}}
    )
    tenant.cluster.apply(recording_class)
    with tenant.people("full", ALICE) as people:
        people.join("alice")
        tenant.record("full")
        recording = tenant.wait_capturing("full")
        (pod,) = tenant.pods(recording)
        volume = Volume(tenant, pod)
        people.play(2)
        with storage_away(stack):
            volume.fill(79)  # the call itself does the rest
            told = tenant.wait("full", lagging("CamerasShed"), "cameras are given up")
            assert is_true(told, "UploadLagging")
            assert is_true(told, "Capturing"), "sound goes on"
            people.play(3)
            volume.fill(97)
            told = tenant.wait("full", lagging("SpoolFull"), "nothing is received any more")
            assert condition(told, "Ready")["reason"] == "SpoolFull"
            until(lambda: volume.kubelet_sees() >= 0.97 * LIMIT, "the kubelet sees it, too", interval=1)
            people.play(15)  # it judges every ten seconds
            volume.empty()
            tenant.wait("full", lagging("SpoolClear"), "there is room again")
            tenant.wait_capturing("full")
            people.play(3)
        tenant.patch("full", desiredState="Stopped")
        finished = tenant.wait_finished("full")
        assert finished["status"]["phase"] == "Uploaded", finished["status"]
        assert len(finished["status"]["attempts"]) == 1, "the pod was not replaced"
        recorded = check_recording(tenant.download("full"), people.cast, Ledger.load(people.ledger), BESIDE_A_CLUSTER)
    (tracks,) = (checked.file.tracks for checked in recorded.files)
    shed = {t.source.value: sum(g.duration_ms for g in t.gaps if g.reason is GapReason.SHED) for t in tracks}
    assert shed["camera"] > shed["microphone"] > 0
    assert finished["status"]["totals"]["lostSeconds"] >= sum(shed.values()) // 1000
