"""The contract table against a real API server: it must accept, refuse and say what pydantic does.

Nothing is kept: manifests are created as server-side dry runs, changes and statuses are dry-run patches on one object per kind.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.contract import refusals
from support.contract_cases import (
    CASES,
    CHANGES,
    CLASS,
    RECORDING,
    STATUS_CASES,
    VALID,
    Case,
    Change,
    StatusCase,
    altered,
)
from support.crds import install_crds
from support.examples import our_examples
from support.rawkube import MERGE_PATCH, Answer, RawKube

PLURALS = {"Recording": "recordings", "RecordingClass": "recordingclasses", "RecordingReport": "recordingreports"}
STRICT = {"dryRun": "All", "fieldValidation": "Strict"}


class Cluster(Protocol):
    """What this test needs of the running stack."""

    kubeconfig: Path


class Server:
    """The contract's kinds on one API server, in a namespace of this test's own."""

    def __init__(self, kube: RawKube, namespace: str) -> None:
        self.kube, self.namespace = kube, namespace

    def path(self, kind: str) -> str:
        scope = "" if kind == "RecordingClass" else f"/namespaces/{self.namespace}"
        return f"/apis/isotrack.dev/v1alpha1{scope}/{PLURALS[kind]}"

    def try_create(self, manifest: Mapping[str, Any]) -> Answer:
        return self.kube.request("POST", self.path(manifest["kind"]), manifest, **STRICT)

    def try_patch(self, kind: str, patch: Mapping[str, Any], subresource: str = "") -> Answer:
        target = f"{self.path(kind)}/{VALID[kind]['metadata']['name']}{subresource}"
        return self.kube.request("PATCH", target, patch, content_type=MERGE_PATCH, **STRICT)


@pytest.fixture(scope="module")
def server(cluster: Cluster) -> Iterator[Server]:
    namespace = f"contract-{uuid.uuid4().hex[:8]}"
    with RawKube(cluster.kubeconfig) as kube:
        install_crds(kube)
        server = Server(kube, namespace)
        assert kube.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}}).ok
        try:
            for kind, manifest in VALID.items():
                answer = kube.request("POST", server.path(kind), manifest, fieldValidation="Strict")
                assert answer.ok, answer.message
            yield server
        finally:
            for kind, manifest in VALID.items():
                kube.request("DELETE", f"{server.path(kind)}/{manifest['metadata']['name']}")
            kube.request("DELETE", f"/api/v1/namespaces/{namespace}")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_server_judges_manifest_as_the_table_says(server: Server, case: Case) -> None:
    manifest = dict(case.manifest)
    if case.accepted and case.name != "object name of 253 characters":
        manifest["metadata"] = {**manifest["metadata"], "name": "another-name"}  # the valid one exists already
    answer = server.try_create(manifest)
    assert answer.ok == case.accepted, answer.message
    assert case.accepted or case.says in answer.message
    if not case.accepted and answer.status == 422:
        assert _points_at(case.field, answer), answer.message


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.name)
def test_server_judges_change_as_the_table_says(server: Server, change: Change) -> None:
    answer = server.try_patch(change.kind, change.patch)
    assert answer.ok == change.accepted, answer.message
    assert change.accepted or change.says in answer.message


@pytest.mark.parametrize("case", STATUS_CASES, ids=lambda case: case.name)
def test_server_judges_status_as_the_table_says(server: Server, case: StatusCase) -> None:
    answer = server.try_patch(case.kind, {"status": case.status}, "/status")
    assert answer.ok == case.accepted, answer.message
    if not case.accepted and answer.status == 422:
        assert _points_at(case.field, answer), answer.message


@pytest.mark.parametrize(
    ("name", "document"), our_examples(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_server_accepts_example(server: Server, name: str, document: dict[str, Any]) -> None:
    manifest = {**document, "metadata": {**document["metadata"], "name": f"example-{uuid.uuid4().hex[:8]}"}}
    answer = server.try_create(manifest)
    assert answer.ok, answer.message


def test_crds_are_structural(server: Server) -> None:
    for plural in PLURALS.values():
        found = server.kube.request(
            "GET", f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{plural}.isotrack.dev"
        )
        conditions = {item["type"]: item["status"] for item in found.body["status"]["conditions"]}
        assert conditions == {"NamesAccepted": "True", "Established": "True"}, plural


TEXT_FIELDS = (
    (RECORDING, "spec.className"),
    (RECORDING, "spec.call.id"),
    (RECORDING, "spec.storage"),
    (RECORDING, "spec.fileNameTemplate"),
    (RECORDING, "spec.layers.0.fileNamePrefix"),
    (CLASS, "spec.source.livekit.url"),
    (CLASS, "spec.source.livekit.credentialsSecretName"),
    (CLASS, "spec.storages.0.s3.bucket"),
    (CLASS, "spec.storages.0.s3.prefix"),
    (CLASS, "spec.storages.0.s3.endpoint"),
    (CLASS, "spec.storages.0.s3.region"),
    (CLASS, "spec.recorder.image"),
    (CLASS, "spec.recorder.spool.sizeLimit"),
)
PIECES = st.one_of(
    st.sampled_from(
        [
            "a",
            "Z",
            "0",
            "-",
            ".",
            "_",
            "/",
            ":",
            "@",
            "?",
            "#",
            " ",
            "\n",
            "\x00",
            "\x7f",
            "\x85",
            "\u2028",
            "٣",
            "🎉",
            "é",
        ]
    ),
    st.sampled_from(
        [
            "{peer_id}",
            "{media_kind}",
            "{stream_kind}",
            "{user_id}",
            "{started_ms}",
            "{",
            "}",
            "wss://",
            "https://",
            "5Gi",
            "m",
        ]
    ),
    st.characters(exclude_categories=["Cs"]),
)


@settings(max_examples=400, deadline=None)
@given(field=st.sampled_from(TEXT_FIELDS), text=st.lists(PIECES, max_size=8).map("".join))
def test_server_and_pydantic_agree_on_any_text(server: Server, field: tuple[Mapping[str, Any], str], text: str) -> None:
    """Two regular expression engines and two ways of counting characters must come to one verdict."""
    base, path = field
    manifest = altered(altered(base, path, text), "metadata.name", "any-text")
    assert server.try_create(manifest).ok == (refusals(manifest) == ())


def test_status_cannot_be_written_with_the_object(server: Server) -> None:
    """Users own spec: a status in their manifest is dropped, not taken."""
    manifest = {**VALID["Recording"], "metadata": {"name": "with-status"}, "status": {"phase": "Uploaded"}}
    answer = server.try_create(manifest)
    assert answer.ok, answer.message
    assert "status" not in answer.body


def test_recordings_can_be_selected_by_call(server: Server) -> None:
    found = server.kube.request("GET", server.path("Recording"), fieldSelector="spec.call.id=team-a_standup")
    other = server.kube.request("GET", server.path("Recording"), fieldSelector="spec.call.id=other")
    assert [item["metadata"]["name"] for item in found.body["items"]] == ["standup"]
    assert other.body["items"] == []


def _points_at(wanted: str, answer: Answer) -> bool:
    """Whether a refusal names a path, its parent or its child; list positions are written as in the table (`storages.0.name`)."""
    if f'"{wanted}"' in answer.message:  # unknown fields are named in the text only
        return True
    causes = answer.body.get("details", {}).get("causes", [])
    found = [re.sub(r"\[([^]]*)\]", r".\1", str(cause.get("field", ""))) for cause in causes]
    return any(path.startswith(wanted) or wanted.startswith(path) for path in found)
