"""Recordings whose pods died: real agent processes, a real S3 server, and the commands that finish what they left."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from isotrack_api.manifest import Manifest, StopReason
from isotrack_dev.servers import S3Info
from isotrack_recorder.finalise.local import finish_local
from support.bucket import Bucket
from support.recorder_end import RecorderEnd
from support.scene import Scene, a_scene, killed
from support.shipping import two_people
from support.waiting import until


@pytest.fixture
def scene(s3: S3Info, bucket: Bucket, tmp_path: Path, request: pytest.FixtureRequest) -> Scene:
    return a_scene(tmp_path, s3, bucket, f"recovery/{request.node.name}")


async def test_a_killed_pod_s_media_is_finished_by_hand(scene: Scene) -> None:
    """Node, pod and spool are gone; what is in the bucket becomes the same files that the pod would have made of it."""
    await killed(scene, two_people(scene.spool("pod"), alice_leaves=None))
    result = await asyncio.to_thread(scene.by_hand, "--force", "--json")
    assert result.returncode == 0, result.stderr
    assert Manifest.model_validate_json(result.stdout) == scene.recording()
    finish_local(scene.spool("pod"), scene.intent(), scene.path / "local")
    assert scene.media() == {path.name: path.read_bytes() for path in (scene.path / "local").glob("*.mkv")}
    assert len(scene.media()) == 2
    assert not scene.stored(".ckpt")
    assert not scene.bucket.uploads(f"{scene.root}/")
    before = {key: scene.bucket.read(f"{scene.root}/{key}") for key in scene.stored()}
    again = await asyncio.to_thread(scene.by_hand, "--json")
    assert again.returncode == 0, again.stderr
    assert again.stdout == result.stdout
    assert {key: scene.bucket.read(f"{scene.root}/{key}") for key in scene.stored()} == before


async def test_a_recording_that_goes_on_is_left_alone(scene: Scene) -> None:
    call = two_people(scene.spool("pod"), pictures=450)
    call.write(until=1.0)
    async with RecorderEnd(scene.path / "pod" / "run") as recorder:
        recorder.say("Capturing")
        process = scene.start("agent", "pod")
        try:
            await asyncio.to_thread(until, lambda: scene.stored(".ckpt"), "a checkpoint")
            by_hand = asyncio.create_task(asyncio.to_thread(scene.by_hand))
            for step in range(15, 100):  # as long as the command may take on a busy machine
                call.write(until=step / 10)
                done, _ = await asyncio.wait((by_hand,), timeout=1.5)
                if done:
                    break
            refused = await by_hand
            assert refused.returncode == 64, refused.stderr
            assert "is being recorded to at this moment" in refused.stderr
            call.write(stop=16, reason="CallEnded")
            recorder.say("Stopped", stop_reason="CallEnded")
            assert await asyncio.to_thread(process.wait, 150) == 0, scene.log("pod")
        finally:
            process.kill()
            process.wait()
    assert len(scene.recording().files) == 2
    assert not scene.stored(".ckpt")


async def test_the_finaliser_job_ends_a_recording_whose_pods_are_gone(scene: Scene) -> None:
    await killed(scene, two_people(scene.spool("pod")))
    variables = {"ISOTRACK_STOP_REASON": "Requested", "ISOTRACK_SILENCE_SECONDS": "3"}
    assert await scene.run("finalise", "job", **variables) == 0, scene.log("job")
    told = scene.termination("job")
    assert (told["reason"], told["stopReason"], told["files"]) == ("PartiallyUploaded", "Requested", 2)
    assert told["manifestUri"].endswith("/recording.json")
    assert scene.recording().stop_reason is StopReason.REQUESTED
    assert not list((scene.path / "job" / "tmp").iterdir()), "temporary files stayed"
    assert await scene.run("finalise", "job", **variables) == 0
    assert scene.termination("job") == told


async def test_a_sweep_finishes_what_nobody_else_does(scene: Scene) -> None:
    await killed(scene, two_people(scene.spool("pod")))
    sweep = {"ISOTRACK_SWEEP": scene.storage.to_json()}
    assert await scene.run("sweep", "sweeper", **sweep) == 0, scene.log("sweeper")
    assert "recording.json" not in scene.stored(), "ten minutes are not over"
    assert await scene.run("sweep", "sweeper", **sweep, ISOTRACK_SWEEP_SECONDS="0") == 0, scene.log("sweeper")
    assert len(scene.recording().files) == 2
    assert scene.termination("sweeper")["message"].startswith("1 abandoned recordings finished, 0 not")


async def test_the_successor_stitches_what_a_dead_node_left(scene: Scene) -> None:
    """The second pod finds both still there; at the end the session of each is one file over both pods."""
    await killed(scene, two_people(scene.spool("pod"), alice_leaves=None))
    call = two_people(scene.spool("second"), attempt=2, started=10, alice_leaves=None)
    call.write(stop=20, reason="CallEnded")
    async with RecorderEnd(scene.path / "second" / "run") as recorder:
        recorder.say("Stopped", stop_reason="CallEnded")
        assert await scene.run("agent", "second", 2) == 0, scene.log("second")
    whole = scene.recording()
    assert [attempt.n for attempt in whole.attempts] == [1, 2]
    frames = {file.user_id: file.tracks[0].frames for file in whole.files}
    assert len(whole.files) == 2
    assert frames["bob"] > 60 + 40
    assert scene.termination("second")["files"] == 2
    assert not scene.stored(".ckpt")


async def test_the_second_pod_of_an_attempt_goes_without_a_trace(scene: Scene) -> None:
    two_people(scene.spool("pod")).write(until=1.0)
    two_people(scene.spool("twin")).write(stop=5, reason="CallEnded")
    async with RecorderEnd(scene.path / "pod" / "run") as first, RecorderEnd(scene.path / "twin" / "run") as second:
        first.say("Capturing")
        second.say("Capturing")
        process = scene.start("agent", "pod")
        try:
            await asyncio.to_thread(until, lambda: scene.stored(".ckpt"), "a checkpoint")
            before = [key for key in scene.stored() if not key.endswith(".ckpt")]
            assert await scene.run("agent", "twin") == 75, scene.log("twin")
            assert [key for key in scene.stored() if not key.endswith(".ckpt")] == before
            assert len({key.split("/")[3] for key in scene.stored(".ckpt")}) == 1
        finally:
            process.kill()
            process.wait()
    assert scene.termination("twin")["reason"] == "Drained"
