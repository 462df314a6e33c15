"""Cluster tests run on a real cluster: API server, kubelet, containerd, LiveKit, S3 server, and the operator in a pod.

One stack serves all of them; tests never meet, because each has a tenant (namespace, class, calls) of its own. Under
pytest-xdist they go to one worker (`--dist loadfile`), so that there is one stack. What takes away what others use, such as the storage, is
marked `realtime`: it runs alone.

| variable | effect |
|---|---|
| ISOTRACK_TEST_STACK | use this running stack (`python -m isotrack_dev up --name …`) and leave it running |
| ISOTRACK_TEST_KUBECONFIG | judge the contract (`test_api_contract.py`, `test_late_edits.py`) by that cluster's API server |
| ISOTRACK_FAULT_NOTES | write each test's outcome and what each fault cost to this file (for `make faults`) |
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from isotrack_dev import images, requirements
from isotrack_dev.deploy import NAMESPACE, deploy_operator
from isotrack_dev.kubectl import Kubectl
from isotrack_dev.progress import for_terminal
from isotrack_dev.stack import Stack
from support.cluster import Cluster, Tenant, fresh_name, tenant_objects
from support.fault_cost import Costs
from support.looped import looped
from support.overheard import Overheard, unheard, watching
from support.rawkube import access_of
from support.secrecy import told_secrets

COSTS = pytest.StashKey[Costs]()


@pytest.fixture(scope="session")
def costs(request: pytest.FixtureRequest) -> Costs:
    """Where tests note what a fault cost."""
    return request.config.stash.setdefault(COSTS, Costs())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Publish what faults cost, in every run."""
    found = config.stash.get(COSTS, None)
    if found is not None and found.lines:
        terminalreporter.section("captured media lost, and gap until capture went on")
        for line in found.lines:
            terminalreporter.line(line)


OUTCOMES = pytest.StashKey[dict[str, str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Results are kept for `ISOTRACK_FAULT_NOTES`."""
    config.stash[OUTCOMES] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep the worst of what became of set-up, test and tear-down."""
    report = yield
    outcomes = item.config.stash[OUTCOMES]
    if outcomes.get(item.name, "passed") == "passed":
        outcomes[item.name] = report.outcome
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write it down."""
    notes, costs = os.environ.get("ISOTRACK_FAULT_NOTES"), session.config.stash.get(COSTS, Costs())
    if notes:
        tests = [{"name": name, "outcome": outcome} for name, outcome in session.config.stash[OUTCOMES].items()]
        Path(notes).write_text(json.dumps({"tests": tests, "costs": costs.rows}))


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The stack that serves all cluster tests."""
    given = os.environ.get("ISOTRACK_TEST_STACK")
    one = Stack(given or f"test-{os.getpid()}", progress=for_terminal())
    if given:
        one.info()
        yield one
        return
    try:
        one.up()
        yield one
    finally:
        one.down()


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Cluster:
    """The cluster. Its kubectl is on the path from now on."""
    if given := os.environ.get("ISOTRACK_TEST_KUBECONFIG"):
        return Cluster(Path(given), "kubectl", {})
    info = request.getfixturevalue("stack").info()
    os.environ["PATH"] = f"{info.kubectl.parent}{os.pathsep}{os.environ['PATH']}"
    return Cluster(info.kubeconfig, str(info.kubectl), info.environment)


@pytest.fixture(scope="session")
def operator(stack: Stack, cluster: Cluster) -> str:
    """The operator of this checkout, running in the cluster; its namespace."""
    built = images.ensure(["operator", "recorder"], for_terminal())
    stack.load_images([image.archive for image in built.values()])
    kubectl = Kubectl(stack.info().kubectl, cluster.kubeconfig)
    deploy_operator(kubectl, built["operator"].name, built["recorder"].name)
    return NAMESPACE


@pytest.fixture
def tenant(cluster: Cluster, operator: str, stack: Stack, tmp_path: Path) -> Iterator[Tenant]:
    """A tenant of the test's own: namespace, class, credentials. No secret was told meanwhile, by anybody, anywhere."""
    requirements.ensure(["integration"], for_terminal(), tmp_path / "apt.log")
    name = fresh_name("team")
    listening = Overheard(watching(access_of(cluster.kubeconfig)), stack.pod_logs)
    with looped(listening) as (_, heard):
        cluster.apply(*tenant_objects(cluster, name, operator))
        yield Tenant(cluster, name, tmp_path)
        cluster.kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")
        cluster.kubectl("delete", "recordingclass", name, "--wait=false")
    outputs = heard.outputs()
    assert unheard(outputs, name) == []
    assert any(one.startswith(f"log {operator}_") for one in outputs), "nobody listened to the operator"
    environment = cluster.environment
    secrets = {
        "the SFU's secret": environment["LIVEKIT_API_SECRET"],
        "the storage's secret key": environment["AWS_SECRET_ACCESS_KEY"],
    }
    assert list(told_secrets({**outputs, **cluster.bucket.contents(name)}, secrets)) == []
