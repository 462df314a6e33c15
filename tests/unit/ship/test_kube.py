"""What the agent makes of its Recording, and how it follows it through an API server's bad days."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from isotrack_api.recording import DesiredState
from isotrack_api.recording_report import ReportPhase, ReportStatus
from isotrack_recorder.ship.kube import KubeClient, KubeError, RecordingView, view_of
from support.api_server import UID, ApiServer

STOPPED, PAUSED, RUNNING = DesiredState.STOPPED, DesiredState.PAUSED, DesiredState.RUNNING


def a_recording(*, metadata: Any = None, spec: Any = None, status: Any = None) -> dict[str, Any]:
    return {"metadata": {"uid": UID, **(metadata or {})}, "spec": spec, "status": status}


@pytest.mark.parametrize(
    ("value", "view"),
    [
        pytest.param(a_recording(spec={}), RecordingView(), id="nothing-said"),
        pytest.param(a_recording(spec={"desiredState": "Paused"}), RecordingView(PAUSED), id="paused"),
        pytest.param(a_recording(spec={"desiredState": "Stopped"}), RecordingView(STOPPED), id="stopped"),
        pytest.param(a_recording(spec={"desiredState": "Asleep"}), RecordingView(), id="word-of-a-newer-version"),
        pytest.param(
            a_recording(spec={"desiredState": "Running"}, status={"stopRequest": {"time": "…"}}),
            RecordingView(STOPPED),
            id="stop-is-latched",
        ),
        pytest.param(
            a_recording(spec={"participants": {"userIds": ["alice", 5]}}), RecordingView(user_ids=("alice",)), id="list"
        ),
        pytest.param(
            a_recording(metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"}, spec={}),
            RecordingView(STOPPED, deleted=True),
            id="being-deleted",
        ),
        pytest.param(a_recording(metadata={"uid": "other"}), RecordingView(STOPPED, deleted=True), id="namesake"),
    ],
)
def test_view_of_a_recording(value: dict[str, Any], view: RecordingView) -> None:
    assert view_of(value, UID) == view


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ApiServer]:
    async with ApiServer(tmp_path / "account") as server:
        yield server


class Follower:
    """Runs a watch and lets a test await what it saw."""

    def __init__(self, client: KubeClient) -> None:
        self.views = asyncio.Queue[RecordingView]()
        self.task = asyncio.create_task(client.watch_recording(self.views.put_nowait))

    async def next(self) -> RecordingView:
        return await asyncio.wait_for(self.views.get(), 60)


@pytest.fixture
async def follower(server: ApiServer) -> AsyncIterator[Follower]:
    async with KubeClient(server.settings) as client:
        follower = Follower(client)
        yield follower
        follower.task.cancel()
        await asyncio.gather(follower.task, return_exceptions=True)


async def test_changes_are_followed(server: ApiServer, follower: Follower) -> None:
    assert await follower.next() == RecordingView()
    await server.change(spec={"desiredState": "Paused"})
    assert await follower.next() == RecordingView(PAUSED)
    await server.change(spec={"desiredState": "Running", "participants": {"userIds": ["alice"]}})
    assert await follower.next() == RecordingView(RUNNING, ("alice",))
    await server.change("DELETED")
    assert (await follower.next()).deleted


async def test_a_version_that_is_too_old_makes_it_read_afresh(server: ApiServer, follower: Follower) -> None:
    server.gone = True
    await follower.next()
    await server.watched(2)
    await server.change(spec={"desiredState": "Stopped"})
    views = [await follower.next() for _ in range(2)]
    assert views[-1] == RecordingView(STOPPED)


async def test_an_api_server_that_is_away_is_waited_for(server: ApiServer) -> None:
    server.refuse = 503
    async with KubeClient(server.settings) as client:
        follower = Follower(client)
        while not server.tokens:  # noqa: ASYNC110 - nothing but the request itself tells
            await asyncio.sleep(0.01)
        server.refuse = 0
        assert await follower.next() == RecordingView()
        follower.task.cancel()


async def test_a_watch_that_is_refused_each_time_is_tried_less_and_less_often(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Recording itself can be read: thousands of pods must not do so several times a second."""
    server.refuse_watches = 403
    failures = asyncio.Queue[int]()

    def no_pause(count: int) -> float:
        failures.put_nowait(count)
        return 0.0

    monkeypatch.setattr("isotrack_recorder.ship.kube.full_jitter", no_pause)
    async with KubeClient(server.settings) as client:
        follower = Follower(client)
        assert [await asyncio.wait_for(failures.get(), 60) for _ in range(3)] == [1, 2, 3]
        follower.task.cancel()


async def test_the_token_is_read_for_each_request(server: ApiServer) -> None:
    async with KubeClient(server.settings) as client:
        await client.recording()
        server.settings.token_file.write_text("token-2\n")
        await client.recording()
    assert list(dict.fromkeys(server.tokens)) == ["Bearer token-1", "Bearer token-2"]


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_access_that_is_taken_away_means_deleted(server: ApiServer, status: int) -> None:
    """ServiceAccount and Role belong to the Recording: the collector may get them before us."""
    async with KubeClient(server.settings) as client:
        await client.recording()
        server.refuse = status
        assert (await client.recording()).deleted


@pytest.mark.parametrize("status", [403, 500, 503])
async def test_access_that_never_was_says_nothing(server: ApiServer, status: int) -> None:
    server.refuse = status
    async with KubeClient(server.settings) as client:
        with pytest.raises(KubeError, match=f"{status} refused by the test"):
            await client.recording()


async def test_a_report_is_applied(server: ApiServer) -> None:
    async with KubeClient(server.settings) as client:
        await client.apply_report(ReportStatus(phase=ReportPhase.ARMED, participants=2))
    assert server.reports[-1]["phase"] == "Armed"


async def test_a_watch_that_breaks_costs_no_report_that_is_on_its_way(server: ApiServer) -> None:
    """The last one of an attempt is sent once."""
    server.slow = "Finished"
    async with KubeClient(server.settings) as client:
        follower = Follower(client)
        await server.watched(1)
        report = asyncio.create_task(client.apply_report(ReportStatus(phase=ReportPhase.FINISHED)))
        await server.held.wait()
        server.break_watches()
        await server.watched(2)
        assert not report.done()
        server.release.set()
        await report
        follower.task.cancel()
        await asyncio.gather(follower.task, return_exceptions=True)
    assert server.reports[-1]["phase"] == "Finished"


async def test_an_authority_that_was_renewed_is_trusted_by_reports_once_the_watch_broke(tmp_path: Path) -> None:
    """The file changes in mid-call; it is read with each session."""
    folder = tmp_path / "account"
    async with ApiServer(folder, tls=True) as old:
        port = int(old.settings.server.rpartition(":")[2])
        client = KubeClient(old.settings)
        follower = Follower(client)
        await old.watched(1)
        await client.apply_report(ReportStatus(phase=ReportPhase.ARMED))
    async with ApiServer(folder, tls=True, port=port) as renewed, client:
        await renewed.watched(1)
        await client.apply_report(ReportStatus(phase=ReportPhase.FINISHED))
        follower.task.cancel()
        await asyncio.gather(follower.task, return_exceptions=True)
    assert renewed.reports[-1]["phase"] == "Finished"


async def test_the_report_of_the_next_attempt_is_read(server: ApiServer) -> None:
    async with KubeClient(server.settings) as client:
        assert await client.successor() is None, "nobody has made one"
        server.successor = {"phase": "Capturing", "fieldOfANewerVersion": 5}
        found = await client.successor()
        assert found is not None
        assert found.phase is ReportPhase.CAPTURING
        server.successor = {"phase": "Dreaming"}
        with pytest.raises(KubeError, match="version"):
            await client.successor()
        server.refuse = 403
        with pytest.raises(KubeError, match="403"):
            await client.successor()


async def test_no_answer_is_a_kube_error(server: ApiServer) -> None:
    settings = server.settings
    await server.__aexit__()
    async with KubeClient(settings) as client:
        with pytest.raises(KubeError, match="PATCH failed"):
            await client.apply_report(ReportStatus(phase=ReportPhase.ARMED))
    await server.__aenter__()
