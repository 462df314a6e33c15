"""Recorder pods that prove by what they are who they are: a token of their service account for a role's credentials, no key anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from isotrack_dev.object_stores import moto_server
from isotrack_dev.servers import S3Info
from isotrack_dev.stack import Stack
from support.bucket import Bucket
from support.cluster import Object, Tenant, class_object, condition, is_true
from support.ledger import Ledger
from support.moto import a_key, a_role, ask_who_comes
from support.people import Person
from support.recording_check import BESIDE_A_CLUSTER, check_recording
from support.token_service import TokenService, token_service

ALICE = Person(identity="alice", camera=None)
AUDIENCE = "https://sts.example.com"
ACCOUNT = "recorder"


@dataclass(frozen=True, slots=True)
class Keyless:
    """A storage that trusts service accounts of the cluster, and a tenant that has no key for it."""

    tenant: Tenant
    server: S3Info
    tokens: TokenService
    bucket: Bucket
    role: str

    def choose(self, audience: str) -> None:
        """Have the tenant's class use it, with tokens for this audience."""
        identity = {
            "serviceAccountName": ACCOUNT,
            "roleArn": self.role,
            "audience": audience,
            "stsEndpoint": self.tokens.endpoint,
        }
        s3 = {"bucket": self.server.bucket, "endpoint": self.server.endpoint, "credentials": {"webIdentity": identity}}
        cluster, name = self.tenant.cluster, self.tenant.namespace
        cluster.apply(class_object(cluster, name, storages=[{"name": "bucket", "s3": s3}]))

    def make_account(self) -> None:
        """Make the service account of the tenant's recorder pods. It has no rights."""
        metadata = {"name": ACCOUNT, "namespace": self.tenant.namespace}
        self.tenant.cluster.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})


@pytest.fixture
def keyless(tenant: Tenant, stack: Stack, tmp_path: Path) -> Iterator[Keyless]:
    address = stack.info().host_address
    with moto_server(tmp_path / "moto", address) as server:
        role, key = a_role(server, "s3:*"), a_key(server, "*")
        ask_who_comes(server)
        with token_service(address, server.endpoint, key, tenant.cluster.kubeconfig, AUDIENCE) as tokens:
            bucket = Bucket(server.endpoint, *key, server.bucket, server.region)
            tenant.cluster.kubectl("delete", "secret", "bucket", "-n", tenant.namespace)
            yield Keyless(tenant, server, tokens, bucket, role)


def containers(pod: Object) -> dict[str, Any]:
    """Containers of a pod by name."""
    return {one["name"]: one for one in [*pod["spec"]["initContainers"], *pod["spec"]["containers"]]}


@pytest.mark.realtime
def test_a_pod_records_by_what_it_is(keyless: Keyless, tmp_path: Path) -> None:
    tenant = keyless.tenant
    keyless.choose(AUDIENCE)
    with tenant.people("keyless", ALICE) as people:
        people.join("alice")
        tenant.record("keyless")
        tenant.wait(
            "keyless",
            lambda one: condition(one, "Stalled").get("reason") == "ServiceAccountNotFound",
            "it is told what is missing",
        )
        keyless.make_account()
        recording = tenant.wait_capturing("keyless")
        people.play(3)
        (pod,) = tenant.pods(recording)
        tenant.patch("keyless", desiredState="Stopped")
        finished = tenant.wait_finished("keyless")
        secrets = [one["metadata"]["name"] for one in tenant.cluster.list("secrets", tenant.namespace)]
        keyless.bucket.download(keyless.bucket.folder_of(f"{tenant.namespace}/keyless-"), tmp_path / "files")
        recorded = check_recording(tmp_path / "files", people.cast, Ledger.load(people.ledger), BESIDE_A_CLUSTER)
    assert finished["status"]["phase"] == "Uploaded", finished["status"]
    assert recorded.of("alice")
    assert keyless.tokens.subjects == {f"system:serviceaccount:{tenant.namespace}:{ACCOUNT}"}
    assert [name for name in secrets if not name.endswith("-join")] == [], "nothing but the attempt's join token"
    assert "web-identity" in [one["name"] for one in containers(pod)["agent"]["volumeMounts"]]
    assert "web-identity" not in [one["name"] for one in containers(pod)["recorder"]["volumeMounts"]]
    assert not [one["name"] for one in containers(pod)["recorder"]["env"] if one["name"].startswith("AWS_")]
    reports = tenant.cluster.list("recordingreports", tenant.namespace)
    assert [one["status"]["phase"] for one in reports] == ["Finished"], "its account may report, too"
    assert is_true(finished, "StorageReady"), finished["status"]


def test_a_role_that_does_not_trust_the_pod_is_named(keyless: Keyless) -> None:
    """Its tokens are real, and made for somebody else. What its recorder captured meanwhile is lost with it."""
    tenant = keyless.tenant
    keyless.make_account()
    keyless.choose("https://somebody-else.example.com")
    with tenant.people("stranger", ALICE) as people:
        people.join("alice")
        tenant.record("stranger")
        found = tenant.wait_finished("stranger")
    text = condition(found, "Stalled")["message"]
    assert "StorageRefused" in (condition(found, "Stalled")["reason"], text.partition(":")[0])
    assert "AssumeRoleWithWebIdentity answered InvalidIdentityToken: check role and trust of the identity" in text
    assert keyless.tokens.refusals > 0
    assert not keyless.tokens.subjects
