"""The storage goes away in mid-call, in every way that we could think of, and comes back: nothing is lost, nobody has to help.

The server is a real one that is stopped, started with other keys, made read-only, or robbed of its bucket; what it cannot be
made to do is done by a proxy. Meanwhile the agent runs as in a pod.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from isotrack_dev.servers import S3Info, s3_server
from isotrack_recorder.pod import agent as agent_module
from isotrack_recorder.pod.agent import Agent
from isotrack_recorder.pod.agent_settings import AgentSettings
from isotrack_recorder.settings import PodPaths
from isotrack_recorder.ship import retry
from isotrack_recorder.ship.layout import layout_of
from isotrack_recorder.ship.preflight import check_storage
from isotrack_recorder.ship.store import PART_BYTES
from isotrack_recorder.ship.upload import Uploaded, verify
from support import fault_proxy
from support.api_server import ApiServer
from support.bucket import Bucket
from support.fault_proxy import FaultProxy
from support.recorder_end import RecorderEnd
from support.shipping import ROOT, a_shipping_intent, two_people
from support.stores import a_store, destination, write_secret

KEYS = ("devaccess", "dev-secret-of-the-first-day")
OTHER_KEYS = ("devaccess2", "dev-secret-of-the-second-day")


@dataclass
class OwnServer:
    """An S3 server of this test's own, which may be started again with other options at the same place."""

    state: Path
    keys: tuple[str, str] = KEYS
    _running: Any = None
    info: S3Info = field(init=False)

    def start(self, **options: Any) -> None:
        port = int(self.info.endpoint.rpartition(":")[2]) if hasattr(self, "info") else 0
        self._running = s3_server(self.state, port=port, keys=self.keys, **options)
        self.info = self._running.__enter__()

    def stop(self) -> None:
        if self._running is not None:
            self._running.__exit__(None, None, None)
            self._running = None

    @property
    def folder_of_bucket(self) -> Path:
        return self.state / "s3" / self.info.bucket

    def bucket(self) -> Bucket:
        return Bucket(self.info.endpoint, *self.keys, self.info.bucket, self.info.region)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OwnServer]:
    own = OwnServer(tmp_path / "server")
    own.start()
    try:
        yield own
    finally:
        own.stop()


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    return write_secret(tmp_path / "storage", *KEYS)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in production, a hundred times as often."""
    monkeypatch.setattr(agent_module, "REFUSED_PAUSE_SECONDS", 0.3)
    monkeypatch.setattr(retry, "LONGEST_PAUSE_SECONDS", 0.3)


def stop_it(server: OwnServer) -> None:
    server.stop()


def make_it_read_only(server: OwnServer) -> None:
    server.stop()
    server.start(read_only=True)


def take_the_bucket_away(server: OwnServer) -> None:
    server.folder_of_bucket.rename(server.state / "elsewhere")


def change_its_keys(server: OwnServer) -> None:
    server.stop()
    server.keys = OTHER_KEYS
    server.start()


def start_it(server: OwnServer, _: Path) -> None:
    server.start()


def make_it_writable(server: OwnServer, _: Path) -> None:
    server.stop()
    server.start()


def give_the_bucket_back(server: OwnServer, _: Path) -> None:
    shutil.move(server.state / "elsewhere", server.folder_of_bucket)


def renew_the_secret(_: OwnServer, secret: Path) -> None:
    write_secret(secret, *OTHER_KEYS)


@asynccontextmanager
async def running_agent(
    tmp_path: Path, secret: Path, endpoint: str, server: OwnServer, api: ApiServer | None = None
) -> AsyncIterator[tuple[Path, RecorderEnd, asyncio.Task[int]]]:
    """The agent in this process, with the recorder's end of its socket; the folder is the spool."""
    intent = a_shipping_intent(storage=destination(server.info, prefix="calls/", endpoint=endpoint))
    paths = PodPaths(spool=tmp_path / "spool", run=tmp_path / "run")
    settings = AgentSettings(
        intent=intent,
        paths=paths,
        storage=secret,
        termination_log=tmp_path / "termination-log",
        round_seconds=0.05,
        report_seconds=0.5,
        kube=api.settings if api else None,
    )
    async with RecorderEnd(paths.run) as recorder:
        task = asyncio.create_task(Agent(settings).run())
        try:
            yield paths.spool, recorder, task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(
    ("trouble", "remedy", "reason", "words"),
    [
        pytest.param(stop_it, start_it, "StorageUnavailable", "cannot be reached", id="stopped"),
        pytest.param(make_it_read_only, make_it_writable, "StorageRefused", "denies", id="read-only"),
        pytest.param(take_the_bucket_away, give_the_bucket_back, "StorageRefused", "does not exist", id="no-bucket"),
        pytest.param(change_its_keys, renew_the_secret, "StorageRefused", "access key", id="keys-rotated"),
    ],
)
async def test_trouble_in_mid_call_is_told_and_passes_by_itself(
    server: OwnServer,
    secret: Path,
    tmp_path: Path,
    trouble: Callable[[OwnServer], None],
    remedy: Callable[[OwnServer, Path], None],
    reason: str,
    words: str,
) -> None:
    async with (
        ApiServer(tmp_path / "api") as api,
        running_agent(tmp_path, secret, server.info.endpoint, server, api) as (spool, recorder, task),
    ):
        recorder.say("Capturing", call_sid="RM_1", participants=2)
        await api.reported_that(lambda report: report.get("storage", {}).get("ready"))
        trouble(server)
        call = two_people(spool, padding=200_000)  # Alice leaves: her session is due in mid-call
        call.write()
        report = await api.reported_that(lambda report: report.get("storage", {}).get("ready") is False)
        assert report["storage"]["reason"] == reason
        assert words in report["storage"]["message"]
        assert report["phase"] == "Capturing", "capture goes on"
        remedy(server, secret)
        await api.reported_that(lambda report: report.get("storage", {}).get("ready"))
        call.write(stop=5)
        recorder.say("Stopped", stop_reason="Requested", call_sid="RM_1")
        assert await asyncio.wait_for(task, 120) == 0
    _everything_is_there(server)


async def test_an_agent_that_begins_again_while_it_is_refused_waits(
    server: OwnServer, secret: Path, tmp_path: Path
) -> None:
    """Killed in mid-call, at a moment at which nothing can be written: its spool is full, so this is no bad configuration."""
    async with ApiServer(tmp_path / "api") as api:
        async with running_agent(tmp_path, secret, server.info.endpoint, server, api) as (spool, recorder, _):
            recorder.say("Capturing", call_sid="RM_1", participants=2)
            await api.reported_that(lambda report: report.get("storage", {}).get("ready"))
        make_it_read_only(server)
        async with running_agent(tmp_path, secret, server.info.endpoint, server, api) as (_, recorder, task):
            recorder.say("Capturing", call_sid="RM_1", participants=2)
            await api.reported_that(lambda report: report.get("storage", {}).get("ready") is False)
            make_it_writable(server, secret)
            await api.reported_that(lambda report: report.get("storage", {}).get("ready"))
            two_people(spool, padding=200_000).write(stop=5)
            recorder.say("Stopped", stop_reason="Requested", call_sid="RM_1")
            assert await asyncio.wait_for(task, 120) == 0
    _everything_is_there(server)


@pytest.mark.parametrize("fault", [kind for kind in fault_proxy.KINDS if kind != fault_proxy.UNSUPPORTED])
async def test_each_fault_of_the_network_is_survived(
    server: OwnServer, secret: Path, tmp_path: Path, fault: str
) -> None:
    """It strikes again and again while files of several parts go out."""
    url = urlsplit(server.info.endpoint)
    assert url.hostname
    assert url.port
    async with FaultProxy(url.hostname, url.port) as proxy, ApiServer(tmp_path / "api") as api:
        proxy.latency_seconds, proxy.bytes_per_second = 0.2, 2e7
        proxy.cut_after = 50 if fault == fault_proxy.ANSWER_CUT else 700
        async with running_agent(tmp_path, secret, proxy.url, server, api) as (spool, recorder, task):
            recorder.say("Capturing", call_sid="RM_1", participants=2)
            await api.reported_that(lambda report: report.get("storage", {}).get("ready"))
            two_people(spool, padding=200_000).write(stop=5)
            proxy.faults.extend([fault, "", fault, fault, "", fault])
            recorder.say("Stopped", stop_reason="Requested", call_sid="RM_1")
            assert await asyncio.wait_for(task, 120) == 0
        assert proxy.fired[fault] >= 2, "the fault did not fire"
    _everything_is_there(server)


def _everything_is_there(server: OwnServer) -> None:
    bucket = server.bucket()
    manifest = bucket.manifest(f"{ROOT}/")
    assert manifest.complete
    assert len(manifest.files) == 2
    sizes = {file.name: len(bucket.read(f"{ROOT}/{file.name}")) for file in manifest.files}
    assert sizes == {file.name: file.bytes for file in manifest.files}
    assert max(sizes.values()) > PART_BYTES
    assert not bucket.uploads()
    assert not [key for key in bucket.keys(f"{ROOT}/attempts/") if "probe" in key]


async def test_the_check_passes_whichever_answer_is_lost(server: OwnServer, secret: Path) -> None:
    """Each of its requests in turn is carried out, and sent again since nobody heard of it."""
    url = urlsplit(server.info.endpoint)
    assert url.hostname
    assert url.port
    async with FaultProxy(url.hostname, url.port) as proxy:

        def check(prefix: str) -> str:
            storage = destination(server.info, endpoint=proxy.url, prefix=prefix)
            intent = a_shipping_intent(storage=storage)
            store = a_store(server.info, secret, endpoint=proxy.url)
            return check_storage(store, layout_of(intent), intent).warning

        assert await asyncio.to_thread(check, "undisturbed") == ""
        requests = proxy.connections
        for number in range(requests):
            proxy.faults.extend([*[""] * number, fault_proxy.ANSWER_LOST])
            assert await asyncio.to_thread(check, f"disturbed-{number}") == ""
            proxy.faults.clear()
        assert proxy.fired[fault_proxy.ANSWER_LOST] == requests
    bucket = server.bucket()
    assert not bucket.uploads()
    assert not [key for key in bucket.keys("disturbed") if "probe" in key]


async def test_a_part_that_was_cut_off_is_sent_again_whole(server: OwnServer, secret: Path) -> None:
    """What arrived of it is not taken for the part."""
    url = urlsplit(server.info.endpoint)
    assert url.hostname
    assert url.port
    async with FaultProxy(url.hostname, url.port) as proxy:
        store = a_store(server.info, secret, endpoint=proxy.url)
        upload = await asyncio.to_thread(store.create_upload, "a", "video/matroska")
        proxy.cut_after = PART_BYTES // 2
        proxy.faults.append(fault_proxy.REQUEST_CUT)
        part = await asyncio.to_thread(store.upload_part, "a", upload, 1, os.urandom(PART_BYTES))
        assert proxy.fired[fault_proxy.REQUEST_CUT] == 1
        await asyncio.to_thread(store.complete_upload, "a", upload, [part])
        sent = Uploaded("a", PART_BYTES, (part,), multipart=True)
        assert await asyncio.to_thread(verify, store, sent) == "etag"


async def test_a_body_that_is_cut_off_is_read_again_whole(server: OwnServer, secret: Path) -> None:
    url = urlsplit(server.info.endpoint)
    assert url.hostname
    assert url.port
    body = os.urandom(300_000)
    async with FaultProxy(url.hostname, url.port) as proxy:
        store = a_store(server.info, secret, endpoint=proxy.url)
        await asyncio.to_thread(store.put, "a", body, "text/plain")
        proxy.cut_after = 100_000
        proxy.faults.extend([fault_proxy.ANSWER_CUT, "", fault_proxy.ANSWER_CUT])
        assert await asyncio.to_thread(store.get, "a", len(body)) == body
        assert await asyncio.to_thread(store.get_range, "a", 10, 200_000) == body[10:200_010]
        assert proxy.fired[fault_proxy.ANSWER_CUT] == 2
