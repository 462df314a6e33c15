"""What the chart's roles allow on a real API server: the operator's ServiceAccount can do its work and no more; people write specs."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
import yaml

from support.contract_cases import RECORDING
from support.crds import install_crds
from support.rawkube import APPLY_PATCH, MERGE_PATCH, Answer, RawKube
from support.waiting import until

ROOT = Path(__file__).resolve().parents[2]
RBAC_GROUP = "rbac.authorization.k8s.io"
RBAC = f"/apis/{RBAC_GROUP}/v1"
RECORDINGS = "/apis/isotrack.dev/v1alpha1"
DRY = {"dryRun": "All"}


class Cluster(Protocol):
    """What this test needs of the running stack."""

    kubeconfig: Path


class Actors:
    """An administrator, the operator, a team's editor; the operator's namespace and the team's."""

    def __init__(self, admin: RawKube, operator: RawKube, editor: RawKube, home: str, team: str) -> None:
        self.admin, self.operator, self.editor, self.home, self.team = admin, operator, editor, home, team


def _paths(namespace: str) -> dict[str, str]:
    return {
        "ServiceAccount": f"/api/v1/namespaces/{namespace}/serviceaccounts",
        "ClusterRole": f"{RBAC}/clusterroles",
        "ClusterRoleBinding": f"{RBAC}/clusterrolebindings",
        "Role": f"{RBAC}/namespaces/{namespace}/roles",
        "RoleBinding": f"{RBAC}/namespaces/{namespace}/rolebindings",
    }


def _review(namespace: str, verb: str, group: str, resource: str) -> dict[str, Any]:
    attributes = {"namespace": namespace, "verb": verb, "group": group, "resource": resource, "name": "any"}
    return {"spec": {"resourceAttributes": attributes}}


def _is_allowed(actor: RawKube, review: dict[str, Any]) -> bool:
    answer = actor.request("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
    return bool(answer.ok and answer.body["status"]["allowed"])


def _token(admin: RawKube, namespace: str, account: str) -> str:
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 600}}
    answer = admin.request("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token", request)
    assert answer.ok, answer.message
    return str(answer.body["status"]["token"])


def _binding(namespace: str, cluster_role: str, account: str) -> dict[str, Any]:
    return {
        "metadata": {"name": account},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": cluster_role},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}],
    }


@pytest.fixture(scope="module")
def actors(cluster: Cluster) -> Iterator[Actors]:
    """The chart's roles under names of this test's own."""
    sys.path.insert(0, str(ROOT / "dev"))
    from isotrack_dev.chart import render_files

    home, team = (f"rights-{part}-{uuid.uuid4().hex[:8]}" for part in ("home", "team"))
    files = render_files({"fullnameOverride": home}, home)
    documents = [
        document
        for name in ("serviceaccount.yaml", "rbac.yaml", "roles.yaml")
        for document in yaml.safe_load_all(files[name])
    ]
    paths = _paths(home)
    with RawKube(cluster.kubeconfig) as admin:
        install_crds(admin)
        for namespace in (home, team):
            assert admin.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}}).ok
        try:
            for document in documents:
                target = f"{paths[document['kind']]}/{document['metadata']['name']}"
                applied = admin.request(
                    "PATCH", target, document, content_type=APPLY_PATCH, fieldManager="test", force="true"
                )
                assert applied.ok, applied.message
            assert admin.request("POST", _paths(team)["ServiceAccount"], {"metadata": {"name": "editor"}}).ok
            for role in ("view", "edit"):
                bound = admin.request("POST", _paths(team)["RoleBinding"], {
                    **_binding(team, f"{home}-{role}", "editor"), "metadata": {"name": role},
                })  # fmt: skip
                assert bound.ok, bound.message
            with (
                RawKube(cluster.kubeconfig, _token(admin, home, f"{home}-operator")) as operator,
                RawKube(cluster.kubeconfig, _token(admin, team, "editor")) as editor,
            ):
                # The API server learns of its own roles with a delay: one right of each shows that all of it is in force.
                for actor, namespace, verb, group, resource in (
                    (operator, team, "create", RBAC_GROUP, "roles"),
                    (operator, home, "get", "", "secrets"),
                    (editor, team, "get", "isotrack.dev", "recordings"),
                    (editor, team, "patch", "isotrack.dev", "recordings"),
                ):
                    review = _review(namespace, verb, group, resource)
                    until(lambda: _is_allowed(actor, review), f"{review} is in force")  # noqa: B023 - asked at once
                yield Actors(admin, operator, editor, home, team)
        finally:
            for document in documents:
                if document["kind"].startswith("ClusterRole"):
                    admin.request("DELETE", f"{paths[document['kind']]}/{document['metadata']['name']}")
            for namespace in (home, team):
                admin.request("DELETE", f"/api/v1/namespaces/{namespace}")


def _role(rules: list[dict[str, Any]]) -> dict[str, Any]:
    return {"metadata": {"name": f"role-{uuid.uuid4().hex[:8]}"}, "rules": rules}


def _secret() -> dict[str, Any]:
    return {"metadata": {"name": f"secret-{uuid.uuid4().hex[:8]}"}, "stringData": {"token": "x"}}


def test_operator_gives_an_agent_its_own_recording_and_report(actors: Actors) -> None:
    rules = [
        {"apiGroups": ["isotrack.dev"], "resources": ["recordings"], "resourceNames": ["a"], "verbs": ["get", "watch"]},
        {"apiGroups": ["isotrack.dev"], "resources": ["recordingreports/status"], "resourceNames": ["a-1"], "verbs": ["patch"]},
        {"apiGroups": [""], "resources": ["namespaces"], "resourceNames": [actors.team], "verbs": ["get"]},
    ]  # fmt: skip
    answer = actors.operator.request("POST", _paths(actors.team)["Role"], _role(rules), **DRY)
    assert answer.ok, answer.message


@pytest.mark.parametrize(
    "rule",
    [
        pytest.param({"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}, id="read secrets"),
        pytest.param({"apiGroups": ["isotrack.dev"], "resources": ["recordings"], "verbs": ["create"]}, id="create recordings"),
        pytest.param({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}, id="everything"),
    ],
)  # fmt: skip
def test_operator_cannot_give_what_it_does_not_have(actors: Actors, rule: dict[str, Any]) -> None:
    answer = actors.operator.request("POST", _paths(actors.team)["Role"], _role([rule]), **DRY)
    assert answer.status == 403, answer.message
    assert "attempting to grant RBAC permissions not currently held" in answer.message


def test_operator_cannot_bind_a_stronger_role(actors: Actors) -> None:
    binding = _binding(actors.team, "cluster-admin", "editor")
    answer = actors.operator.request("POST", _paths(actors.team)["RoleBinding"], binding, **DRY)
    assert answer.status == 403, answer.message


def test_operator_makes_secrets_that_it_cannot_read(actors: Actors) -> None:
    path = f"/api/v1/namespaces/{actors.team}/secrets"
    secret = _secret()
    target = f"{path}/{secret['metadata']['name']}"
    assert actors.operator.request("POST", path, secret).ok
    assert actors.operator.request("GET", target).status == 403
    assert actors.operator.request("GET", path).status == 403
    assert actors.operator.request("GET", "/api/v1/secrets").status == 403
    assert actors.operator.request("GET", path, watch="true").status == 403
    for patch in (MERGE_PATCH, APPLY_PATCH):
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": secret["metadata"]["name"]}}
        answer = actors.operator.request("PATCH", target, body, content_type=patch, fieldManager="x")
        assert answer.status == 403, answer.message
    assert actors.operator.request("PUT", target, secret).status == 403
    assert actors.operator.request("DELETE", target).status == 403


def test_operator_reads_secrets_of_its_own_namespace_by_name_only(actors: Actors) -> None:
    path = f"/api/v1/namespaces/{actors.home}/secrets"
    secret = _secret()
    assert actors.admin.request("POST", path, secret).ok
    assert actors.operator.request("GET", f"{path}/{secret['metadata']['name']}").ok
    assert actors.operator.request("GET", path).status == 403


def test_operator_writes_status_and_finalizer_of_a_recording(actors: Actors) -> None:
    collection = f"{RECORDINGS}/namespaces/{actors.team}/recordings"
    assert actors.admin.request("POST", collection, RECORDING).ok
    target = f"{collection}/{RECORDING['metadata']['name']}"

    def apply(subresource: str, body: dict[str, Any]) -> Answer:
        head = {"apiVersion": RECORDING["apiVersion"], "kind": "Recording"}
        name = {"name": RECORDING["metadata"]["name"]}
        document = {**head, **body, "metadata": {**name, **body.get("metadata", {})}}
        query = {"fieldManager": "rights-test", "force": "true"} | DRY
        return actors.operator.request("PATCH", target + subresource, document, content_type=APPLY_PATCH, **query)

    try:
        assert apply("/status", {"status": {"phase": "Invoked"}}).ok
        assert apply("", {"metadata": {"finalizers": ["isotrack.dev/recording"]}}).ok
        assert actors.operator.request("DELETE", target, **DRY).status == 403
        assert (
            actors.operator.request("POST", collection, {**RECORDING, "metadata": {"name": "another"}}, **DRY).status
            == 403
        )
    finally:
        actors.admin.request("DELETE", target)


def test_operator_claims_calls_in_its_own_namespace_only(actors: Actors) -> None:
    lease = {"metadata": {"name": "claim"}, "spec": {"holderIdentity": "x"}}

    def path(namespace: str) -> str:
        return f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"

    assert actors.operator.request("POST", path(actors.home), lease).ok
    assert actors.operator.request("DELETE", f"{path(actors.home)}/claim").ok
    assert actors.operator.request("POST", path(actors.team), lease, **DRY).status == 403


def test_editor_writes_recordings_but_neither_status_nor_reports_nor_classes(actors: Actors) -> None:
    collection = f"{RECORDINGS}/namespaces/{actors.team}/recordings"
    manifest = {**RECORDING, "metadata": {"name": "of-the-team"}}
    target = f"{collection}/of-the-team"
    assert actors.editor.request("POST", collection, manifest).ok
    stop = {"spec": {"desiredState": "Stopped"}}
    assert actors.editor.request("PATCH", target, stop, content_type=MERGE_PATCH).ok
    status = {"status": {"phase": "Uploaded"}}
    assert actors.editor.request("PATCH", f"{target}/status", status, content_type=MERGE_PATCH).status == 403
    reports = f"{RECORDINGS}/namespaces/{actors.team}/recordingreports"
    assert actors.editor.request("GET", reports).ok
    assert actors.editor.request("POST", reports, {}, **DRY).status == 403
    assert actors.editor.request("POST", f"{RECORDINGS}/recordingclasses", {}, **DRY).status == 403
    elsewhere = f"{RECORDINGS}/namespaces/{actors.home}/recordings"
    assert actors.editor.request("POST", elsewhere, manifest, **DRY).status == 403
    assert actors.editor.request("DELETE", target).ok
