"""The agent with a real spool and a real S3 server; the recorder's end of the socket is played by the test.

Most tests run the agent in the test's own process, to shorten what is long in a pod; two run the entry point as a pod does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from isotrack_api.intent import Intent, S3Destination
from isotrack_api.manifest import GapReason, Manifest, StopReason
from isotrack_dev.servers import S3Info
from isotrack_recorder.pod.agent import Agent
from isotrack_recorder.pod.agent_settings import AgentSettings
from isotrack_recorder.settings import PodPaths
from support.api_server import ApiServer
from support.bucket import Bucket
from support.fault_proxy import UNAVAILABLE, FaultProxy
from support.recorder_end import RecorderEnd
from support.shipping import a_shipping_intent, two_people
from support.waiting import until


@dataclass
class Pod:
    """Folders, intent and settings of one attempt's pod, and what is in its bucket folder."""

    path: Path
    intent: Intent
    settings: AgentSettings
    bucket: Bucket

    @property
    def spool(self) -> Path:
        return self.settings.paths.spool

    @property
    def run(self) -> Path:
        return self.settings.paths.run

    def stored(self) -> list[str]:
        """Keys below the recording's folder."""
        root = f"{self._root}/"
        return sorted(key.removeprefix(root) for key in self.bucket.keys(root))

    def manifest(self, key: str = "recording.json") -> Manifest:
        return Manifest.model_validate_json(self.bucket.read(f"{self._root}/{key}"))

    def termination(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads(self.settings.termination_log.read_text())
        return loaded

    @property
    def _root(self) -> str:
        assert self.intent.storage is not None
        return f"{self.intent.storage.prefix}/{self.intent.folder}"

    def environment(self) -> dict[str, str]:
        """As the operator's Job sets it, but for paths."""
        return {
            **os.environ,
            "ISOTRACK_INTENT": self.intent.to_json(),
            "ISOTRACK_SPOOL": str(self.spool),
            "ISOTRACK_RUN": str(self.run),
            "ISOTRACK_STORAGE_CREDENTIALS": str(self.settings.storage),
            "ISOTRACK_TERMINATION_LOG": str(self.settings.termination_log),
            "ISOTRACK_HANDOVER_SECONDS": "0",
        }

    def start(self) -> subprocess.Popen[bytes]:
        """The entry point, as its own process."""
        command = [sys.executable, "-c", "from isotrack_recorder.pod import main; raise SystemExit(main())", "agent"]
        with (self.path / "agent.log").open("ab") as output:
            return subprocess.Popen(command, env=self.environment(), stdout=output, stderr=output)


@pytest.fixture
def pod(s3: S3Info, bucket: Bucket, tmp_path: Path, request: pytest.FixtureRequest) -> Pod:
    secret = tmp_path / "storage"
    secret.mkdir()
    (secret / "accessKeyId").write_text(s3.access_key)
    (secret / "secretAccessKey").write_text(s3.secret_key)
    storage = S3Destination(
        bucket=s3.bucket, prefix=f"agent/{request.node.name}", endpoint=s3.endpoint, region=s3.region
    )
    intent = a_shipping_intent(storage=storage)
    settings = AgentSettings(
        intent=intent,
        paths=PodPaths(spool=tmp_path / "spool", run=tmp_path / "run"),
        storage=secret,
        termination_log=tmp_path / "termination-log",
        round_seconds=0.05,
        report_seconds=1.5,
    )
    return Pod(tmp_path, intent, settings, bucket)


@asynccontextmanager
async def running(pod: Pod, **settings: Any) -> AsyncIterator[tuple[Agent, asyncio.Task[int]]]:
    """The agent in this process."""
    agent = Agent(replace(pod.settings, **settings))
    task = asyncio.create_task(agent.run())
    try:
        yield agent, task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def ended(task: asyncio.Task[int], seconds: float = 120) -> int:
    return await asyncio.wait_for(task, seconds)


async def test_a_call_that_ends_becomes_files_and_a_manifest(pod: Pod) -> None:
    call = two_people(pod.spool)
    async with RecorderEnd(pod.run) as recorder, running(pod) as (_, task):
        recorder.say("Capturing", call_sid="RM_1", participants=2)
        call.write(stop=5, reason="CallEnded")
        recorder.say("Stopped", stop_reason="CallEnded", call_sid="RM_1")
        assert await ended(task) == 0
    whole = pod.manifest()
    names = [file.name for file in whole.files]
    assert pod.stored() == sorted(
        [
            *names,
            "attempts/1/claim.json",
            "attempts/1/intent.json",
            "attempts/1/manifest.json",
            "intent.json",
            "recording.json",
        ]
    )
    assert (len(names), whole.stop_reason, whole.complete) == (2, StopReason.CALL_ENDED, True)
    message = pod.termination()
    assert (message["reason"], message["stopReason"], message["files"]) == ("Uploaded", "CallEnded", 2)
    assert message["manifestUri"].endswith("/recording.json")
    assert message["callSid"] == "RM_1"
    assert message["epochMs"] == 1_760_000_000_000


async def test_a_session_is_shipped_while_the_call_goes_on(pod: Pod) -> None:
    call = two_people(pod.spool, alice_leaves=3.0)
    call.write(until=4.0)
    async with (
        ApiServer(pod.path / "api") as api,
        RecorderEnd(pod.run) as recorder,
        running(pod, kube=api.settings) as (_, task),
    ):
        recorder.say("Capturing")
        await api.reported_that(lambda report: report.get("files"))
        assert [key for key in pod.stored() if "alice" in key]
        assert not [key for key in pod.stored() if "bob" in key]
        call.write(stop=5, reason="CallEnded")
        recorder.say("Stopped", stop_reason="CallEnded")
        assert await ended(task) == 0
    assert len(pod.manifest().files) == 2


async def shipped(pod: Pod, user: str) -> None:
    """Return once a file of this person is in the bucket."""
    async with asyncio.timeout(60):
        while not [key for key in pod.stored() if user in key]:  # noqa: ASYNC110 - nothing but the bucket tells
            await asyncio.sleep(0.1)


async def test_sigterm_alone_drains_the_attempt(pod: Pod) -> None:
    call = two_people(pod.spool)
    call.write(until=4.0)
    async with RecorderEnd(pod.run) as recorder, running(pod, handover_seconds=0.5) as (agent, task):
        recorder.say("Capturing")
        await recorder.connected()
        await shipped(pod, "alice")
        agent.terminate()
        command = await recorder.command("Stopped")
        assert command.stop_reason is StopReason.DRAINED
        call.write(stop=5, reason="Drained")
        recorder.say("Stopped", stop_reason="Drained")
        assert await ended(task) == 75
    assert "recording.json" not in pod.stored()
    left = pod.manifest("attempts/1/manifest.json")
    assert ([file.user_id for file in left.files], left.unfinished) == (["alice"], ("PA_b",))
    assert any(key.endswith(".ckpt") for key in pod.stored()), "who goes on needs them"
    assert pod.termination()["reason"] == "Drained"


TRACK = {"track": "t1", "track_id": "TR_1", "user_id": "bob", "peer_id": "PA_b", "source": "camera", "frames": 9}


async def test_after_sigterm_capture_goes_on_until_a_successor_records_all_of_it(pod: Pod) -> None:
    """What ends meanwhile may be in both pods: it is left to whoever ends the recording."""
    call = two_people(pod.spool)
    call.write(until=2.0)
    async with (
        ApiServer(pod.path / "api") as api,
        RecorderEnd(pod.run) as recorder,
        running(pod, kube=api.settings, handover_seconds=60, grace_seconds=600.0) as (agent, task),
    ):
        recorder.say("Capturing", tracks=[TRACK])
        await api.reported("Capturing")
        agent.terminate()
        told = await api.reported_that(lambda report: report.get("stopReason") == "Drained")
        assert told["phase"] == "Capturing", "it says so before it ends"
        api.successor = {}
        reads = api.reads
        await api.read(reads + 2)
        api.successor = {"phase": "Capturing", "tracks": []}
        await api.read(reads + 4)
        call.write(until=4.0)  # Alice has left
        assert {command.desired for command in recorder.commands} == {"Running"}, "it has nothing of Bob"
        row = {"id": "x", "trackId": "TR_1", "userId": "bob", "peerId": "PA_b", "source": "camera", "frames": 1}
        api.successor = {"phase": "Capturing", "tracks": [row]}
        assert (await recorder.command("Stopped")).stop_reason is StopReason.DRAINED
        call.write(stop=5, reason="Drained")
        recorder.say("Stopped", stop_reason="Drained")
        assert await ended(task) == 75
    left = pod.manifest("attempts/1/manifest.json")
    assert (left.files, left.unfinished) == ((), ("PA_a", "PA_b"))


async def test_a_recording_that_ends_while_two_pods_record_is_made_of_both(pod: Pod) -> None:
    """Of this one's checkpoints here: the other one has left none."""
    call = two_people(pod.spool)
    call.write(until=2.0)
    async with (
        ApiServer(pod.path / "api") as api,
        RecorderEnd(pod.run) as recorder,
        running(pod, kube=api.settings, handover_seconds=60) as (agent, task),
    ):
        recorder.say("Capturing", tracks=[TRACK])
        await api.reported("Capturing")
        api.successor = {}
        reads = api.reads
        agent.terminate()
        await api.read(reads + 2)
        call.write(stop=5, reason="CallEnded")
        recorder.say("Stopped", stop_reason="CallEnded")
        assert await ended(task) == 0
    left = pod.manifest("attempts/1/manifest.json")
    assert (left.files, left.unfinished) == ((), ("PA_a", "PA_b"))
    whole = pod.manifest()
    assert sorted(file.user_id for file in whole.files) == ["alice", "bob"]
    assert (whole.complete, whole.stop_reason) == (True, StopReason.CALL_ENDED)
    assert not [key for key in pod.stored() if key.endswith(".ckpt")]


async def test_after_sigterm_a_pod_that_the_sfu_puts_out_ends(pod: Pod) -> None:
    call = two_people(pod.spool)
    call.write(until=4.0)
    async with RecorderEnd(pod.run) as recorder, running(pod, handover_seconds=60) as (agent, task):
        recorder.say("Capturing")
        await recorder.connected()
        await shipped(pod, "alice")
        agent.terminate()
        call.write(stop=5, reason="Fenced")
        recorder.say("Stopped", stop_reason="Fenced")
        assert await ended(task) == 75
    assert {command.desired for command in recorder.commands} == {"Running"}, "nobody stopped it"
    assert [file.user_id for file in pod.manifest("attempts/1/manifest.json").files] == ["alice"]


async def test_a_deletion_that_is_seen_only_after_sigterm_is_a_full_stop(pod: Pod) -> None:
    """A namespace that is deleted loses its pods before its Recordings."""
    call = two_people(pod.spool)
    async with (
        ApiServer(pod.path / "api") as api,
        RecorderEnd(pod.run) as recorder,
        running(pod, kube=api.settings, handover_seconds=60) as (agent, task),
    ):
        recorder.say("Capturing")
        await api.reported("Capturing")
        reads = api.reads
        agent.terminate()
        await api.read(reads + 1)  # and there it still is
        api.recording["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"  # no event tells
        assert (await recorder.command("Stopped")).stop_reason is StopReason.DELETED
        call.write(stop=5, reason="Deleted")
        recorder.say("Stopped", stop_reason="Deleted")
        assert await ended(task) == 0
    assert pod.manifest().stop_reason is StopReason.DELETED


async def test_sigterm_in_a_namespace_that_is_deleted_is_a_full_stop(pod: Pod) -> None:
    """It loses its pods before its Recordings, and no successor can be made there."""
    call = two_people(pod.spool)
    async with (
        ApiServer(pod.path / "api") as api,
        RecorderEnd(pod.run) as recorder,
        running(pod, kube=api.settings, handover_seconds=60) as (agent, task),
    ):
        recorder.say("Capturing")
        await api.reported("Capturing")
        api.namespace["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        agent.terminate()
        assert (await recorder.command("Stopped")).stop_reason is StopReason.DELETED
        call.write(stop=5, reason="Deleted")
        recorder.say("Stopped", stop_reason="Deleted")
        assert await ended(task) == 0
    assert pod.manifest().stop_reason is StopReason.DELETED


async def test_a_fenced_attempt_ships_the_sessions_that_are_over(pod: Pod) -> None:
    two_people(pod.spool).write(stop=5, reason="Fenced")
    async with RecorderEnd(pod.run) as recorder, running(pod) as (_, task):
        recorder.say("Stopped", stop_reason="Fenced")
        assert await ended(task) == 75
    assert "recording.json" not in pod.stored()
    left = pod.manifest("attempts/1/manifest.json")
    assert ([file.user_id for file in left.files], left.unfinished) == (["alice"], ("PA_b",))
    assert any(key.endswith(".ckpt") for key in pod.stored()), "who goes on needs them"


async def test_wishes_are_relayed_and_progress_is_reported(pod: Pod) -> None:
    call = two_people(pod.spool)
    call.write(until=1.0)
    async with (
        ApiServer(pod.path / "api") as api,
        RecorderEnd(pod.run) as recorder,
        running(pod, kube=api.settings) as (_, task),
    ):
        recorder.say("Capturing", participants=2, call_sid="RM_1")
        report = await api.reported("Capturing")
        assert (report["callSid"], report["participants"]) == ("RM_1", 2)
        assert report["epochMs"] == 1_760_000_000_000
        await api.change(spec={"desiredState": "Paused", "participants": {"userIds": ["alice"]}})
        assert (await recorder.command("Paused")).user_ids == ("alice",)
        await api.change(spec={"desiredState": "Stopped"})
        assert (await recorder.command("Stopped")).stop_reason is StopReason.REQUESTED
        call.write(stop=5, reason="Requested")
        recorder.say("Stopped", stop_reason="Requested")
        assert await ended(task) == 0
        last = await api.reported("Finished")
    assert last["storage"] == {"ready": True, "reason": "", "message": ""}
    assert last["manifest"]["uri"].endswith("/recording.json")
    assert (last["totals"]["files"], len(last["files"])) == (2, 2)


async def test_a_slow_report_of_before_does_not_become_the_last_word(pod: Pod) -> None:
    """Requests are handled side by side: what was sent later may take effect sooner."""
    two_people(pod.spool).write(stop=5, reason="CallEnded")
    async with ApiServer(pod.path / "api") as api, RecorderEnd(pod.run) as recorder:
        api.slow = "Capturing"
        async with running(pod, kube=api.settings) as (_, task):
            recorder.say("Capturing")
            await api.held.wait()
            recorder.say("Stopped", stop_reason="CallEnded")
            await asyncio.to_thread(until, pod.settings.termination_log.exists, "all is over but the last report")
            with contextlib.suppress(TimeoutError):  # a last report that does not wait comes at once
                await api.reported("Finished", seconds=1)
            api.release.set()
            assert await ended(task) == 0
    assert [report["phase"] for report in api.reports[-2:]] == ["Capturing", "Finished"]


async def test_a_paused_recording_s_attempt_is_not_resumed_before_the_api_server_was_heard(pod: Pod) -> None:
    two_people(pod.spool).write(stop=5)
    paused = pod.intent.model_copy(update={"paused": True})
    async with ApiServer(pod.path / "api") as api:
        api.refuse = 503
        async with RecorderEnd(pod.run) as recorder, running(pod, kube=api.settings, intent=paused) as (_, task):
            await recorder.command("Paused")
            assert {command.desired for command in recorder.commands} == {"Paused"}
            recorder.say("Stopped", stop_reason="CallEnded")
            assert await ended(task) == 0


async def test_sigterm_of_a_deleted_recording_is_a_full_stop(pod: Pod) -> None:
    """The watch may be behind the kubelet, so the API server is asked."""
    call = two_people(pod.spool)
    async with (
        ApiServer(pod.path / "api") as api,
        RecorderEnd(pod.run) as recorder,
        running(pod, kube=api.settings) as (agent, task),
    ):
        recorder.say("Capturing")
        await api.reported("Capturing")
        api.recording["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"  # no event tells
        agent.terminate()
        assert (await recorder.command("Stopped")).stop_reason is StopReason.DELETED
        call.write(stop=5, reason="Deleted")
        recorder.say("Stopped", stop_reason="Deleted")
        assert await ended(task) == 0
    assert pod.manifest().stop_reason is StopReason.DELETED


async def test_without_the_api_server_everything_works(pod: Pod) -> None:
    two_people(pod.spool).write(stop=5)
    async with ApiServer(pod.path / "api") as api:
        api.refuse = 503
        async with RecorderEnd(pod.run) as recorder, running(pod, kube=api.settings) as (_, task):
            recorder.say("Stopped", stop_reason="Requested")
            assert await ended(task) == 0
    assert len(pod.manifest().files) == 2


async def test_a_recorder_that_restarts_is_followed_and_told_again(pod: Pod) -> None:
    call = two_people(pod.spool)
    async with ApiServer(pod.path / "api") as api, running(pod, kube=api.settings) as (_, task):
        async with RecorderEnd(pod.run) as first:
            first.say("Capturing")
            await api.change(spec={"desiredState": "Paused"})
            await first.command("Paused")
        async with RecorderEnd(pod.run, incarnation=2) as second:
            assert (await second.command("Paused")).desired == "Paused"
            second.say("Paused")
            assert "once" in (await api.reported("Paused"))["message"]
            call.write(stop=5, reason="CallEnded")
            second.say("Stopped", stop_reason="CallEnded")
            assert await ended(task) == 0


async def test_a_recorder_that_does_not_come_back_ends_the_attempt(pod: Pod) -> None:
    two_people(pod.spool).write()
    async with running(pod, recorder_lost_seconds=0.5) as (_, task):
        assert await ended(task) == 1
    assert pod.termination()["reason"] == "RecorderCrashing"
    left = pod.manifest("attempts/1/manifest.json")
    assert (len(left.files), left.complete) == (2, False)


async def test_a_recorder_that_hangs_at_the_stop_is_not_waited_for(pod: Pod) -> None:
    two_people(pod.spool).write()
    async with ApiServer(pod.path / "api") as api, RecorderEnd(pod.run) as recorder:
        await api.change(spec={"desiredState": "Stopped"})
        async with running(pod, kube=api.settings, stop_seconds=0.5) as (_, task):
            recorder.say("Capturing")
            assert await ended(task) == 0
    assert pod.manifest().stop_reason is StopReason.REQUESTED
    assert len(pod.manifest().files) == 2


@pytest.mark.parametrize(("code", "over"), [(69, False), (77, True)])
async def test_a_capture_that_failed_decides_the_exit_code(pod: Pod, code: int, over: bool) -> None:
    two_people(pod.spool).write(stop=5, reason="InternalError")
    async with RecorderEnd(pod.run) as recorder, running(pod) as (_, task):
        recorder.say(
            "Failed", stop_reason="InternalError", error_reason="SourceX", error_exit_code=code, message="gone"
        )
        assert await ended(task) == code
    assert ("recording.json" in pod.stored()) is over
    message = pod.termination()
    assert (message["reason"], message["message"]) == ("SourceX", "gone")


async def test_a_missing_bucket_ends_the_attempt_in_its_first_seconds(pod: Pod) -> None:
    assert pod.intent.storage is not None
    storage = pod.intent.storage.model_copy(update={"bucket": "no-such-bucket"})
    intent = pod.intent.model_copy(update={"storage": storage})
    async with RecorderEnd(pod.run) as recorder, running(pod, intent=intent) as (_, task):
        recorder.say("Capturing")
        assert await ended(task) == 73
    message = pod.termination()
    assert message["reason"] == "StorageRefused"
    assert "create it" in message["message"]


async def test_a_storage_that_is_away_is_waited_for_while_capture_goes_on(pod: Pod, s3: S3Info) -> None:
    url = urlsplit(s3.endpoint)
    assert url.hostname
    assert url.port
    async with FaultProxy(url.hostname, url.port) as proxy, ApiServer(pod.path / "api") as api:
        proxy.faults.extend([UNAVAILABLE] * 3)
        assert pod.intent.storage is not None
        storage = pod.intent.storage.model_copy(update={"endpoint": proxy.url})
        intent = pod.intent.model_copy(update={"storage": storage})
        async with RecorderEnd(pod.run) as recorder, running(pod, intent=intent, kube=api.settings) as (_, task):
            recorder.say("Capturing")
            two_people(pod.spool).write(stop=5)
            recorder.say("Stopped", stop_reason="Requested")
            assert await ended(task) == 0
        assert proxy.connections > 3, "the faults did not fire"
    assert len(pod.manifest().files) == 2


async def test_an_outage_beyond_the_grace_is_told(pod: Pod) -> None:
    two_people(pod.spool).write(stop=5, reason="Drained")
    assert pod.intent.storage is not None
    storage = pod.intent.storage.model_copy(update={"endpoint": "http://127.0.0.1:9"})
    intent = pod.intent.model_copy(update={"storage": storage})
    async with (
        ApiServer(pod.path / "api") as api,
        RecorderEnd(pod.run) as recorder,
        running(pod, intent=intent, kube=api.settings, grace_seconds=2, grace_margin_seconds=1) as (agent, task),
    ):
        recorder.say("Stopped", stop_reason="Drained")
        await api.reported_that(lambda report: report.get("stopReason") == "Drained")  # the end of capture is known
        agent.terminate()
        assert await ended(task) == 74
    message = pod.termination()
    assert message["reason"] == "StorageUnavailable"
    assert "not everything could be uploaded" in message["message"]


async def test_the_second_attempt_takes_the_first_one_s_timeline(pod: Pod) -> None:
    two_people(pod.spool).write(stop=5, reason="Drained")
    async with RecorderEnd(pod.run) as recorder, running(pod) as (_, task):
        recorder.say("Stopped", stop_reason="Drained")
        assert await ended(task) == 75
    intent = pod.intent.model_copy(update={"attempt": 2})
    paths = PodPaths(spool=pod.path / "spool-2", run=pod.path / "run-2")
    two_people(paths.spool, attempt=2, started=60).write(stop=65, reason="CallEnded")
    async with RecorderEnd(paths.run) as recorder, running(pod, intent=intent, paths=paths) as (_, task):
        recorder.say("Stopped", stop_reason="CallEnded")
        assert await ended(task) == 0
    whole = pod.manifest()
    assert [attempt.n for attempt in whole.attempts] == [1, 2]
    offsets = {(file.user_id, file.attempt): file.start_offset_ms for file in whole.files}
    assert offsets["alice", 2] - offsets["alice", 1] == pytest.approx(60_000, abs=5)
    [bob] = [file for file in whole.files if file.user_id == "bob"]
    assert (bob.attempt, bob.tracks[0].frames) == (2, 120), "his session goes over both attempts"
    assert [gap.reason for gap in bob.tracks[0].gaps if gap.duration_ms > 30_000] == [GapReason.CRASHED]
    assert len(pod.stored()) == 3 + 6 + 3, pod.stored()
    assert not [key for key in pod.stored() if key.endswith(".ckpt")]


async def test_a_killed_agent_goes_on_where_it_was(pod: Pod) -> None:
    """kill -9 of the real process between two sessions; its successor ships the rest and nothing twice."""
    call = two_people(pod.spool, alice_leaves=3.0)
    call.write(until=4.0)
    async with RecorderEnd(pod.run) as recorder:
        recorder.say("Capturing")
        first = pod.start()
        try:
            await asyncio.to_thread(until, lambda: [key for key in pod.stored() if "alice" in key], "alice's file")
        finally:
            first.kill()
            first.wait()
        call.write(stop=5, reason="CallEnded")
        recorder.say("Stopped", stop_reason="CallEnded")
        second = pod.start()
        try:
            assert await asyncio.to_thread(second.wait, 120) == 0, (pod.path / "agent.log").read_text()
        finally:
            second.kill()
    assert len(pod.manifest().files) == 2
    assert not pod.bucket.uploads()


async def test_the_process_stays_small_and_ends_on_sigterm(pod: Pod) -> None:
    """Files of many parts: memory is parts on the way, not media."""
    two_people(pod.spool, padding=200_000, pictures=750).write(stop=30, reason="CallEnded")
    async with RecorderEnd(pod.run) as recorder:
        recorder.say("Capturing")
        process = pod.start()
        try:
            await recorder.connected(seconds=60)
            process.send_signal(signal.SIGTERM)
            await recorder.command("Stopped", seconds=60)
            recorder.say("Stopped", stop_reason="CallEnded")
            peak = 0
            while process.poll() is None:
                peak = max(peak, peak_kilobytes(process.pid))
                await asyncio.sleep(0.05)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == 0, (pod.path / "agent.log").read_text()
    assert max(file.bytes for file in pod.manifest().files) > 140_000_000
    assert peak < 135_000, f"{peak} kB at the peak"


def peak_kilobytes(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")), 0)
