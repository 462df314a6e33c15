"""docs/install.md by a real Helm: install, upgrade, uninstall, and install again over the CRDs that stayed.

Has a stack of its own: a second operator beside the one that other tests share would work on their Recordings, too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import helm_python as helm
import pytest

from isotrack_dev import images
from isotrack_dev.chart import CHART, RELEASE
from isotrack_dev.deploy import DEPLOYMENT, NAMESPACE, values
from isotrack_dev.progress import for_terminal
from isotrack_dev.stack import Stack

CLUSTER_WIDE = "clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings"
SECONDS = 120


@pytest.fixture
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    one = Stack("test-helm", tmp_path_factory.mktemp("helm") / "state")
    try:
        one.up([images.ensure(["operator"], for_terminal())["operator"].archive])
        yield one
    finally:
        one.down()


def ours(stack: Stack, kinds: str, *options: str) -> list[str]:
    """Names of the chart's objects of some kinds."""
    said = stack.kubectl("get", kinds, *options, "-l", "app.kubernetes.io/name=isotrack", "-o", "json")
    return [item["metadata"]["name"] for item in json.loads(said)["items"]]


def log_level(stack: Stack) -> str:
    """What the operator's container is told."""
    path = '{.spec.template.spec.containers[0].env[?(@.name=="ISOTRACK_LOG_LEVEL")].value}'
    return stack.kubectl("get", DEPLOYMENT, "-n", NAMESPACE, "-o", f"jsonpath={path}")


def test_the_chart_is_installed_upgraded_removed_and_installed_again(stack: Stack) -> None:
    name = images.ensure(["operator"])["operator"].name
    wanted: Mapping[str, Any] = values(name, "localhost/isotrack-recorder:unused")
    waits: dict[str, Any] = {"wait": "watcher", "timeout": SECONDS}
    cluster = helm.Config(kubeconfig_path=stack.info().kubeconfig, namespace=NAMESPACE)

    cluster.install(CHART, RELEASE, dict(wanted), namespace=NAMESPACE, create_namespace=True, **waits)
    assert log_level(stack) == "info"
    stack.kubectl("rollout", "status", DEPLOYMENT, "-n", NAMESPACE, f"--timeout={SECONDS}s", seconds=SECONDS + 5)

    cluster.upgrade(CHART, RELEASE, {"log": {"level": "debug"}}, namespace=NAMESPACE, reuse_values=True, **waits)
    assert log_level(stack) == "debug"

    cluster.uninstall(RELEASE, **waits)
    assert ours(stack, CLUSTER_WIDE) == []
    assert ours(stack, "deployments,serviceaccounts,roles,rolebindings", "-n", NAMESPACE) == []
    kept = ours(stack, "customresourcedefinitions")
    assert sorted(kept) == ["recordingclasses.isotrack.dev", "recordingreports.isotrack.dev", "recordings.isotrack.dev"]

    cluster.install(CHART, RELEASE, dict(wanted), namespace=NAMESPACE, **waits)
    assert ours(stack, "deployments", "-n", NAMESPACE) == [f"{RELEASE}-operator"]
