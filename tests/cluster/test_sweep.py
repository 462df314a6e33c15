"""The last resort: pods, Recording and namespace are gone, and the operator was away when they went. It finishes what the bucket has."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from isotrack_dev.deploy import DEPLOYMENT
from isotrack_dev.stack import Stack
from support.cluster import Tenant, bucket_keys, class_object, fresh_name, secret, storage_object
from support.fault_cost import Cost, Costs, last_sent, serials_of
from support.ledger import Ledger
from support.people import Person, Picture
from support.pod_processes import first_process
from support.recording_check import BESIDE_A_CLUSTER, check_recording
from support.waiting import until

pytestmark = pytest.mark.realtime

FPS = 15
ALICE = Person(identity="alice", camera=Picture(pre_encoded=True, fps=FPS))
LONG_AGO = 1200.0
"""Twice as long as a recording at work is ever silent."""


@contextmanager
def operator_away(tenant: Tenant, operator: str) -> Iterator[None]:
    """Without an operator; afterwards it is back, and sweeps as it starts."""
    scale = ("scale", DEPLOYMENT, "-n", operator)
    tenant.cluster.kubectl(*scale, "--replicas=0")
    selector = "app.kubernetes.io/component=operator"
    until(lambda: not tenant.cluster.list("pods", operator, selector), "the operator is away")
    try:
        yield
    finally:
        tenant.cluster.kubectl(*scale, "--replicas=1")


def age(folder: Path, seconds: float) -> None:
    """Let the objects of a bucket's folder be as old as if nobody had written to it for so long."""
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        then = time.time() - seconds
        os.utime(path, (then, then))


def test_a_recording_whose_namespace_is_gone_is_finished_by_a_sweep(
    tenant: Tenant, operator: str, stack: Stack, costs: Costs, tmp_path: Path
) -> None:
    cluster, bucket, key = tenant.cluster, tenant.cluster.bucket, fresh_name("sweep")
    storage = storage_object(cluster, {"secretName": "bucket", "operatorSecretName": key}, prefix=key)
    cluster.apply(
        secret(key, operator, bucket_keys(cluster)), class_object(cluster, tenant.namespace, storages=[storage])
    )
    try:
        with tenant.people("lost", ALICE) as people:
            people.join("alice")
            tenant.record("lost")
            recording = tenant.wait_capturing("lost")
            people.play(4)
            until(lambda: [name for name in bucket.keys(key) if name.endswith(".ckpt")], "a checkpoint is there")
            with operator_away(tenant, operator):
                (pod,) = tenant.pods(recording)
                delete = ("delete", "-n", tenant.namespace, "--wait=false")
                fault = last_sent(Ledger.load(people.ledger))
                cluster.kubectl(*delete, "pod", pod["metadata"]["name"], "--force", "--grace-period=0")
                for command in ("agent", "capture"):  # NB: only then, or the kubelet would start them again
                    first_process(pod["metadata"]["uid"], command).kill()
                cluster.kubectl("delete", "namespace", tenant.namespace, "--wait=false")
                age(stack.layout.state / "s3" / bucket.name / key, LONG_AGO)
            folder = until(lambda: _finished(tenant, key), "a sweep has finished it", seconds=120)
            bucket.download(folder, tmp_path / "files")
            recorded = check_recording(tmp_path / "files", people.cast, Ledger.load(people.ledger), BESIDE_A_CLUSTER)
        lost = max(0, fault - max(serials_of(recorded))) / FPS
        costs.judge("everything deleted without an operator, then swept", Cost(lost, math.inf))
        assert "was lost" in str(recorded.manifest.attempts[0].message)
        cluster.kubectl("wait", "namespace", tenant.namespace, "--for=delete", "--timeout=90s", seconds=100)
        until(lambda: not [name for name in bucket.keys(key) if name.endswith(".ckpt")], "checkpoints are gone")
        assert bucket.uploads(key) == []
    finally:
        cluster.kubectl("delete", "secret", key, "-n", operator, "--ignore-not-found")


def _finished(tenant: Tenant, prefix: str) -> str:
    found = [name for name in tenant.cluster.bucket.keys(prefix) if name.endswith("/recording.json")]
    return found[0].removesuffix("recording.json") if found else ""
