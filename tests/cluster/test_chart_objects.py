"""A real API server takes every object of the chart as rendered, unknown fields refused."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import pytest
import yaml

from support.rawkube import APPLY_PATCH, RawKube

ROOT = Path(__file__).resolve().parents[2]
RBAC = "/apis/rbac.authorization.k8s.io/v1"
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
PATHS = {
    "CustomResourceDefinition": "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "Deployment": "/apis/apps/v1/namespaces/default/deployments",
    "ServiceAccount": "/api/v1/namespaces/default/serviceaccounts",
    "ClusterRole": f"{RBAC}/clusterroles",
    "ClusterRoleBinding": f"{RBAC}/clusterrolebindings",
    "Role": f"{RBAC}/namespaces/default/roles",
    "RoleBinding": f"{RBAC}/namespaces/default/rolebindings",
    "ValidatingAdmissionPolicy": f"{ADMISSION}/validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": f"{ADMISSION}/validatingadmissionpolicybindings",
}
FULL: Mapping[str, Any] = {
    "fullnameOverride": "chart-test",
    "imagePullSecrets": [{"name": "pull"}],
    "recorder": {"imagePullSecrets": [{"name": "pull"}]},
    "podLabels": {"team": "media"},
    "podAnnotations": {"example.com/scrape": "true"},
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [{"operator": "Exists"}],
    "affinity": {"podAntiAffinity": {}},
    "priorityClassName": "system-cluster-critical",
}


class Cluster(Protocol):
    """What this test needs of the running stack."""

    kubeconfig: Path


@pytest.fixture
def kube(cluster: Cluster) -> Iterator[RawKube]:
    with RawKube(cluster.kubeconfig) as kube:
        yield kube


@pytest.mark.parametrize("values", [{"fullnameOverride": "chart-test"}, FULL], ids=["default", "full"])
def test_server_takes_every_object_of_the_chart(kube: RawKube, values: Mapping[str, Any]) -> None:
    sys.path.insert(0, str(ROOT / "dev"))
    from isotrack_dev.chart import render

    query = {"fieldManager": "chart-test", "force": "true", "fieldValidation": "Strict", "dryRun": "All"}
    for document in yaml.safe_load_all(render(values, "default")):
        target = f"{PATHS[document['kind']]}/{document['metadata']['name']}"
        answer = kube.request("PATCH", target, document, content_type=APPLY_PATCH, **query)
        assert answer.ok, f"{target}: {answer.message}"
        assert answer.warnings == (), target
