"""The agent's two conversations with a real API server, with exactly the rights that the operator gives it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import pytest

from isotrack_api.recording import DesiredState, Recording
from isotrack_api.recording_report import ReportPhase, ReportStatus
from isotrack_operator.builders.names import attempt_name, base_name
from isotrack_operator.builders.rbac import build_role, build_role_binding, build_service_account
from isotrack_operator.builders.report import build_report
from isotrack_recorder.pod.agent_report import Facts, report_of
from isotrack_recorder.ship.kube import KubeClient, KubeError, KubeSettings, RecordingView
from support.crds import install_crds
from support.kubeconfigs import authority_of, server_of
from support.manifests import a_file
from support.rawkube import MERGE_PATCH, RawKube
from support.recorder_end import a_state
from support.waiting import until as await_true

GROUP = "/apis/isotrack.dev/v1alpha1"
RBAC = "/apis/rbac.authorization.k8s.io/v1"


class Cluster(Protocol):
    """What this test needs of the running stack."""

    kubeconfig: Path


@dataclass
class Team:
    """A namespace with one Recording, as the operator would have prepared it for attempt 1."""

    admin: RawKube
    namespace: str
    settings: KubeSettings

    def change(self, patch: dict[str, Any]) -> None:
        """Edit the Recording as its user."""
        path = f"{GROUP}/namespaces/{self.namespace}/recordings/standup"
        answer = self.admin.request("PATCH", path, patch, content_type=MERGE_PATCH)
        assert answer.ok, answer.message

    def report(self) -> dict[str, Any]:
        """The report as the operator reads it."""
        path = f"{GROUP}/namespaces/{self.namespace}/recordingreports/{self.settings.report}"
        return dict(self.admin.request("GET", path).body)


@pytest.fixture
def team(cluster: Cluster, tmp_path: Path) -> Iterator[Team]:
    namespace = f"agent-{uuid.uuid4().hex[:8]}"
    with RawKube(cluster.kubeconfig) as admin:
        install_crds(admin)
        _create(admin, "/api/v1/namespaces", {"metadata": {"name": namespace}})
        try:
            yield _prepare(admin, namespace, cluster.kubeconfig, tmp_path)
        finally:
            admin.request("DELETE", f"/api/v1/namespaces/{namespace}")


def _prepare(admin: RawKube, namespace: str, kubeconfig: Path, folder: Path) -> Team:
    ours, core, rbac = (f"{root}/namespaces/{namespace}" for root in (GROUP, "/api/v1", RBAC))
    made = _create(admin, f"{ours}/recordings", {
        "apiVersion": "isotrack.dev/v1alpha1", "kind": "Recording", "metadata": {"name": "standup"},
        "spec": {"className": "no-such-class", "call": {"id": "call"}},
    })  # fmt: skip
    recording = Recording.from_object(made)
    uid = recording.metadata.uid or ""
    _create(admin, f"{core}/serviceaccounts", build_service_account(recording))
    _create(admin, f"{rbac}/roles", build_role(recording, [1]))
    _create(admin, f"{rbac}/rolebindings", build_role_binding(recording))
    _create(admin, f"{ours}/recordingreports", build_report(recording, 1))
    token = _create(admin, f"{core}/serviceaccounts/{base_name('standup', uid)}/token", {"spec": {}})
    (folder / "token").write_text(token["status"]["token"])
    with RawKube(kubeconfig, token["status"]["token"]) as agent:
        # The API server learns of its own roles with a delay.
        await_true(lambda: agent.request("GET", f"{ours}/recordings/standup").ok, "the agent's rights are in force")
    (folder / "ca.crt").write_text(authority_of(kubeconfig))
    settings = KubeSettings(
        server=server_of(kubeconfig),
        token_file=folder / "token",
        ca_file=folder / "ca.crt",
        namespace=namespace,
        recording="standup",
        uid=uid,
        report=attempt_name("standup", uid, 1),
    )
    return Team(admin, namespace, settings)


def _create(admin: RawKube, path: str, value: dict[str, Any]) -> dict[str, Any]:
    answer = admin.request("POST", path, value)
    assert answer.ok, answer.message
    return dict(answer.body)


@pytest.fixture
async def client(team: Team) -> AsyncIterator[KubeClient]:
    async with KubeClient(team.settings) as client:
        yield client


async def test_edits_and_deletion_reach_the_agent(team: Team, client: KubeClient) -> None:
    views = asyncio.Queue[RecordingView]()
    watch = asyncio.create_task(client.watch_recording(views.put_nowait))
    try:
        assert await asyncio.wait_for(views.get(), 60) == RecordingView()
        team.change({"spec": {"desiredState": "Paused", "participants": {"userIds": ["alice"]}}})
        assert await until(views, lambda view: view.desired is DesiredState.PAUSED) == RecordingView(
            DesiredState.PAUSED, ("alice",)
        )
        team.change({"metadata": {"finalizers": ["isotrack.dev/test"]}})
        team.admin.request("DELETE", f"{GROUP}/namespaces/{team.namespace}/recordings/standup")
        assert (await until(views, lambda view: view.deleted)).desired is DesiredState.STOPPED
        assert (await client.recording()).deleted
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
        team.change({"metadata": {"finalizers": None}})
    assert (await client.recording()).deleted, "an object that is gone counts as deleted"


async def until(views: asyncio.Queue[RecordingView], holds: Any) -> RecordingView:
    """The next view of which something holds."""
    async with asyncio.timeout(60):
        while not holds(view := await views.get()):
            pass
    return view


async def test_a_report_is_written_and_replaced_as_a_whole(team: Team, client: KubeClient) -> None:
    tracks = [
        {"track": "t0001", "track_id": "TR_1", "user_id": "alice", "peer_id": "PA_1", "source": "microphone"},
        {"track": "t0002", "track_id": "TR_2", "user_id": "bob", "peer_id": "PA_2", "source": "camera", "width": 640},
    ]
    state = a_state(phase="Capturing", participants=2, tracks=tracks)
    files = (a_file(name="a.mkv"), a_file(name="b.mkv"))
    await client.apply_report(report_of(Facts(state, files=files, epoch_ms=5), 1_760_000_000_000))
    status = team.report()["status"]
    assert (status["phase"], len(status["tracks"]), len(status["files"])) == ("Capturing", 2, 2)
    assert status["epochMs"] == 5
    await client.apply_report(ReportStatus(phase=ReportPhase.FINISHED))
    status = team.report()["status"]
    assert status["phase"] == "Finished"
    assert not status.get("tracks")
    assert not status.get("epochMs")
    assert team.report()["spec"]["attempt"] == 1


async def test_the_report_of_the_next_attempt_may_be_read(team: Team, client: KubeClient) -> None:
    """It may be asked for before there is one; no other may."""
    assert await client.successor() is None
    found = team.admin.request("GET", f"{GROUP}/namespaces/{team.namespace}/recordings/standup")
    _create(
        team.admin,
        f"{GROUP}/namespaces/{team.namespace}/recordingreports",
        build_report(Recording.from_object(dict(found.body)), 2),
    )
    assert await client.successor() == ReportStatus()
    later = replace(team.settings, report=attempt_name("standup", team.settings.uid, 2))
    async with KubeClient(later) as another:
        with pytest.raises(KubeError, match="403"):
            await another.successor()


async def test_other_objects_are_out_of_reach(team: Team) -> None:
    foreign = replace(team.settings, recording="other", report=f"{team.settings.report}0")
    async with KubeClient(foreign) as client:
        with pytest.raises(KubeError, match="403"):
            await client.recording()
        with pytest.raises(KubeError, match="403"):
            await client.apply_report(ReportStatus(phase=ReportPhase.FINISHED))


async def test_a_token_that_is_collected_means_deleted(team: Team, client: KubeClient) -> None:
    """Foreground deletion may take the ServiceAccount before it takes the pod."""
    await client.recording()
    team.settings.token_file.write_text("not a token")
    assert (await client.recording()).deleted
