"""A whole recorder pod without a cluster: `capture` and `agent` as their own processes, a real SFU, a real S3 server."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from isotrack_api.intent import Intent, LiveKitSource, RecordingRef, S3Destination
from isotrack_api.manifest import GapReason, StopReason
from isotrack_dev.servers import S3Info
from isotrack_recorder.sources.livekit.access import MintedTokens
from support.bucket import Bucket
from support.call import Call
from support.ledger import Ledger
from support.people import Action, Person
from support.recording_check import check_recording
from support.waiting import until

pytestmark = pytest.mark.realtime

RECORDER = Path(sys.executable).with_name("isotrack-recorder")
IDENTITY = "isotrack-whole-pod"


class Pod:
    """Folders, environment and the two commands of one attempt's pod."""

    def __init__(self, call: Call, s3: S3Info, attempt: int = 1) -> None:
        self.folder = call.folder / f"pod-{attempt}"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.metrics_port = free.getsockname()[1]
        secret = self.folder / "storage"
        secret.mkdir(parents=True)
        (self.folder / "run").mkdir()
        (secret / "accessKeyId").write_text(s3.access_key)
        (secret / "secretAccessKey").write_text(s3.secret_key)
        token = MintedTokens(call.server.api_key, call.server.api_secret, call.room, IDENTITY).current()
        (self.folder / "token").write_text(token)
        uid = str(uuid.uuid5(uuid.NAMESPACE_URL, call.room))
        self.intent = Intent(
            recording=RecordingRef(namespace="test", name="pod", uid=uid),
            attempt=attempt,
            call_id=call.room,
            source=LiveKitSource(url=call.server.url, identity=IDENTITY),
            storage=S3Destination(bucket=s3.bucket, prefix="pods", endpoint=s3.endpoint, region=s3.region),
            folder=f"test/{call.room}",
        )

    @property
    def prefix(self) -> str:
        """Of the recording's keys."""
        return f"pods/{self.intent.folder}/"

    def journal(self) -> str:
        """All journal lines so far."""
        return "".join(path.read_text() for path in sorted((self.folder / "spool").glob("i*/journal.ndjson")))

    def termination(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads((self.folder / "termination-log").read_text())
        return loaded

    def log(self, command: str) -> str:
        return (self.folder / f"{command}.log").read_text(errors="replace")

    def metrics(self) -> str:
        """What Prometheus would read now."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=60) as answer:
            return str(answer.read().decode())

    @contextmanager
    def container(self, command: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run one of the two; it is gone afterwards."""
        environment = {
            "PATH": os.environ["PATH"],
            "ISOTRACK_INTENT": self.intent.to_json(),
            "ISOTRACK_TOKEN_FILE": str(self.folder / "token"),
            "ISOTRACK_SPOOL": str(self.folder / "spool"),
            "ISOTRACK_RUN": str(self.folder / "run"),
            "ISOTRACK_STORAGE_CREDENTIALS": str(self.folder / "storage"),
            "ISOTRACK_TERMINATION_LOG": str(self.folder / "termination-log"),
            "ISOTRACK_METRICS_PORT": str(self.metrics_port),
        }
        with (self.folder / f"{command}.log").open("ab") as log:
            process = subprocess.Popen([RECORDER, command], env=environment, stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Containers that end with the test, or before."""
    with ExitStack() as stack:
        yield stack


def test_a_crash_and_a_departure_later_every_file_is_in_the_bucket(
    call: Call, s3: S3Info, bucket: Bucket, stack: ExitStack
) -> None:
    """The recorder is killed and starts again in place; one person leaves early; the SFU ends the call."""
    pod = Pod(call, s3)
    with call.people([Person(identity="alice"), Person(identity="bob")]) as people:
        people.join("alice", "bob")
        agent = stack.enter_context(pod.container("agent"))
        with pod.container("capture") as recorder:
            until(lambda: pod.journal().count('"e":"report"') >= 2, "media of both arrives")
            recorder.send_signal(signal.SIGKILL)
        stack.enter_context(pod.container("capture"))
        until(lambda: pod.journal().count('"e":"armed"') == 2, "the recorder is back")
        people.play(3)
        people.leave("bob")
        shipped = until(lambda: [key for key in bucket.keys(pod.prefix) if "_bob_" in key], "bob's file")
        assert pod.prefix + "recording.json" not in bucket.keys(pod.prefix), "the call goes on"
        check_metrics(pod.metrics())
        call.end()
        assert agent.wait(120) == 0, pod.log("agent")
    manifest = bucket.download(pod.prefix, call.output)
    assert manifest.stop_reason is StopReason.CALL_ENDED
    assert shipped[0] in [pod.prefix + file.name for file in manifest.files]
    crashes = [
        gap for file in manifest.files for track in file.tracks for gap in track.gaps if gap.reason is GapReason.CRASHED
    ]
    assert crashes, "the crash is not declared"
    recorded = check_recording(call.output, people.cast, Ledger.load(people.ledger))
    assert {checked.file.user_id for checked in recorded.files} == {"alice", "bob"}
    said = pod.termination()
    assert (said["reason"], said["stopReason"], said["files"]) == ("Uploaded", "CallEnded", len(manifest.files))
    assert said["callSid"] == manifest.call_sid
    assert not bucket.uploads(pod.prefix)


def check_metrics(text: str) -> None:
    """One person is in the call, another one has left and is shipped, and the recorder had to begin again."""
    values = {
        key: float(value) for key, _, value in (line.rpartition(" ") for line in text.splitlines()) if key[0] != "#"
    }
    assert values["isotrack_recorder_up"] == values["isotrack_recorder_restarts_total"] == 1
    assert values["isotrack_files_total"] >= 1
    assert values["isotrack_upload_bytes_total"] >= values["isotrack_file_bytes_total"] > 0
    assert values["isotrack_spool_bytes"] > 0
    packets = {key: value for key, value in values.items() if key.startswith("isotrack_track_packets_total")}
    assert {source for key in packets for source in ("camera", "microphone") if f'"{source}"' in key} == {
        "camera",
        "microphone",
    }
    assert any(packets.values())
    assert "alice" not in text


def test_a_drained_pod_hands_over_to_its_successor(call: Call, s3: S3Info, bucket: Bucket, stack: ExitStack) -> None:
    """SIGTERM of attempt 1 while attempt 2 takes over: two attempts, one recording, one file over both."""
    first, second = Pod(call, s3), Pod(call, s3, attempt=2)
    with call.people([Person(identity="alice")]) as people:
        people.join("alice")
        agent = stack.enter_context(first.container("agent"))
        stack.enter_context(first.container("capture"))
        until(lambda: first.journal().count('"e":"report"') >= 2, "media arrives")
        successor = stack.enter_context(second.container("agent"))
        agent.terminate()
        assert agent.wait(120) == 75, first.log("agent")
        stack.enter_context(second.container("capture"))
        until(lambda: second.journal().count('"e":"report"') >= 2, "media arrives again")
        call.end()
        assert successor.wait(120) == 0, second.log("agent")
    manifest = bucket.download(first.prefix, call.output)
    assert [(attempt.n, attempt.stop_reason) for attempt in manifest.attempts] == [
        (1, StopReason.DRAINED), (2, StopReason.CALL_ENDED),
    ]  # fmt: skip
    assert [(file.user_id, file.attempt) for file in manifest.files] == [("alice", 2)]
    for track in manifest.files[0].tracks:
        assert GapReason.CRASHED in {gap.reason for gap in track.gaps}, "the time between the two is declared"
    assert not [key for key in bucket.keys(first.prefix) if key.endswith(".ckpt")]
    check_recording(call.output, people.cast, Ledger.load(people.ledger))
    assert first.termination()["reason"] == "Drained"


class Ballast:
    """Fills a pod's spool volume up to a percentage, as media that cannot be shipped would."""

    def __init__(self, pod: Pod, capacity: int) -> None:
        self._file = pod.folder / "spool" / "ballast"
        self._capacity = capacity

    def fill(self, percent: int) -> None:
        """Make the volume so full; the call adds a percent or two."""
        with self._file.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, self._capacity * percent // 100)


def test_a_volume_that_fills_up_costs_cameras_then_screens_then_sound_and_all_comes_back(
    call: Call, s3: S3Info, bucket: Bucket, stack: ExitStack
) -> None:
    """What is missing is declared to the picture, in files that go on behind the gap."""
    capacity = 200_000_000
    pod = Pod(call, s3)
    pod.intent = pod.intent.model_copy(update={"spool_bytes": capacity})
    ballast = Ballast(pod, capacity)

    def told(event: str, times: int) -> None:
        until(lambda: pod.journal().count(f'"e":"{event}"') >= times, f"{event}, {times} times")

    with call.people([Person(identity="alice")]) as people:
        people.join("alice")
        agent = stack.enter_context(pod.container("agent"))
        stack.enter_context(pod.container("capture"))
        told("codec", 2)
        people.do(Action(who="alice", do="share"))
        told("codec", 4)
        people.play(2)
        for percent, shed in ((82, 1), (92, 2), (98, 4)):
            ballast.fill(percent)
            told("shed", shed)
            people.play(2)
        given_up = [line for line in pod.metrics().splitlines() if line.startswith("isotrack_track_shed{")]
        assert [line[-2:] for line in given_up] == [" 1"] * 4
        for percent, back in ((85, 2), (75, 3), (40, 4)):
            ballast.fill(percent)
            told("unshed", back)
            people.play(2)
        call.end()
        assert agent.wait(120) == 0, pod.log("agent")
    manifest = bucket.download(pod.prefix, call.output)
    recorded = check_recording(call.output, people.cast, Ledger.load(people.ledger))
    assert manifest.complete
    assert {checked.file.output_type for checked in recorded.files} == {"audio_video", "screenshare_audio_video"}
    gaps = {
        track.source.value: [gap for gap in track.gaps if gap.reason is GapReason.SHED]
        for file in manifest.files
        for track in file.tracks
    }
    assert {source: len(found) for source, found in gaps.items()} == dict.fromkeys(gaps, 1)
    lengths = {source: found[0].duration_ms for source, found in gaps.items()}
    assert lengths["camera"] > lengths["screenshare"] > lengths["microphone"] > 1500
    assert manifest.lost_ms >= sum(lengths.values())
