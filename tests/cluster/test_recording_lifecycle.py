"""Recordings from kubectl apply to files in the bucket, on real parts: how they start, go on, and end."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise

import pytest
from livekit import api

from isotrack_api.manifest import GapReason, StopReason
from support.cluster import Object, Tenant, condition, is_true
from support.ledger import Ledger
from support.people import Action, People, Person, Picture
from support.recording_check import BESIDE_A_CLUSTER, Recorded, check_recording

pytestmark = pytest.mark.realtime

SETTLE_SECONDS = 7
"""Sender reports, which put files of several people on one timeline, come every 3 s at first."""
KEY_FRAME_MS = 1000
"""Pictures begin again with a key frame, which is asked for."""
FPS = 15
"""Of everybody's camera: serials of all of them count the same slots."""
ALICE = Person(identity="alice", camera=Picture(pre_encoded=True))
BOB = Person(identity="bob", camera=Picture(codec="h264", pre_encoded=True))


def end_call(tenant: Tenant, call: str) -> None:
    """Have the SFU end a call."""
    one = tenant.cluster.environment

    async def delete() -> None:
        url = one["LIVEKIT_URL"].replace("ws", "http", 1)
        async with api.LiveKitAPI(url, one["LIVEKIT_API_KEY"], one["LIVEKIT_API_SECRET"]) as client:
            await client.room.delete_room(api.DeleteRoomRequest(room=tenant.call(call)))

    asyncio.run(delete())


def checked(tenant: Tenant, name: str, people: People) -> Recorded:
    """Download a finished recording and check every file of it."""
    folder = tenant.download(name)
    return check_recording(folder, people.cast, Ledger.load(people.ledger), BESIDE_A_CLUSTER)


def phases(recording: Object) -> list[str]:
    """The phases that it went through."""
    return [transition["phase"] for transition in recording["status"]["transitions"]]


def assert_uploaded(recording: Object) -> None:
    """Its status says, to people and to scripts, that all went well."""
    status = recording["status"]
    assert status["phase"] == "Uploaded", status
    for kind in ("Finished", "Succeeded", "Ready", "StorageReady"):
        assert is_true(recording, kind), f"{kind}: {condition(recording, kind)}"
    for kind in ("Capturing", "Reconciling", "Stalled"):
        assert not is_true(recording, kind), f"{kind}: {condition(recording, kind)}"
    assert status["observedGeneration"] == recording["metadata"]["generation"]
    seen = phases(recording)
    assert seen[0] == "Invoked"
    assert seen[-2:] == ["Uploading", "Uploaded"]
    steps = status["transitions"]
    assert [step["seq"] for step in steps] == list(range(1, len(steps) + 1))
    assert all((a["phase"], a["reason"]) != (b["phase"], b["reason"]) for a, b in pairwise(steps)), steps


def test_two_recordings_at_once(tenant: Tenant) -> None:
    """One is stopped by its desired state, the other by the end of its call. Late edits are warned about."""
    with tenant.people("first", ALICE, BOB) as first, tenant.people("second", BOB, ALICE) as second:
        first.join("alice", "bob")
        second.join("alice", "bob")
        tenant.record("first")
        tenant.record("second")
        for name in ("first", "second"):
            tenant.wait_capturing(name)
        first.do(Action(who="alice", do="share"))
        first.play(SETTLE_SECONDS)
        tenant.patch("first", desiredState="Stopped")
        end_call(tenant, "second")
        stopped, ended = tenant.wait_finished("first"), tenant.wait_finished("second")
    for recording, reason in ((stopped, StopReason.REQUESTED), (ended, StopReason.CALL_ENDED)):
        assert_uploaded(recording)
        assert recording["status"]["stopReason"]["reason"] == reason
    one, two = checked(tenant, "first", first), checked(tenant, "second", second)
    assert sorted((c.file.user_id, c.file.output_type.value) for c in one.files) == [
        ("alice", "audio_video"),
        ("alice", "screenshare_audio_video"),
        ("bob", "audio_video"),
    ]
    assert sorted((c.file.user_id, c.file.output_type.value) for c in two.files) == [
        ("alice", "audio_video"),
        ("bob", "audio_video"),
    ]
    assert_status_tells_of_files(stopped, one)
    said = tenant.patch("first", desiredState="Running")
    assert "Warning" in said.stderr, "an edit that comes too late is taken, and kubectl says that it has no effect"
    assert tenant.cluster.get("recordings", "first", tenant.namespace)["status"]["phase"] == "Uploaded"


def assert_status_tells_of_files(recording: Object, recorded: Recorded) -> None:
    """Status and manifest agree."""
    status, files = recording["status"], recorded.manifest.files
    assert {file["name"] for file in status["files"]} == {file.name for file in files}
    assert status["totals"]["files"] == len(files)
    assert status["totals"]["bytes"] == sum(file.bytes for file in files)
    assert status["totals"]["participants"] == len(recorded.manifest.participants)
    assert status["manifest"]["uri"].endswith("/recording.json")
    # Whole seconds, until the operator heard that capture was over; on a busy machine that takes some.
    assert -2 <= status["durationSeconds"] - recorded.manifest.duration_ms / 1000 <= 5
    assert [attempt["result"] for attempt in status["attempts"]] == ["Finished"]


def test_a_pause_and_a_narrower_allowlist(tenant: Tenant) -> None:
    """Nothing is received while paused, and nothing from whom the list no longer names; both are declared."""
    with tenant.people("pause", ALICE, BOB) as people:
        people.join("alice", "bob")
        tenant.record("pause")
        tenant.wait_capturing("pause")
        people.play(SETTLE_SECONDS)
        asked = time.monotonic()
        tenant.patch("pause", desiredState="Paused")
        tenant.wait("pause", lambda one: one["status"]["phase"] == "Paused", "it is paused")
        people.play(3)
        tenant.patch("pause", desiredState="Running", participants={"userIds": ["alice"]})
        tenant.wait("pause", lambda one: is_true(one, "Capturing"), "it goes on")
        longest_ms = (time.monotonic() - asked) * 1000
        people.play(5)
        tenant.patch("pause", desiredState="Stopped")
        finished = tenant.wait_finished("pause")
    assert_uploaded(finished)
    assert "Paused" in phases(finished)
    recorded = checked(tenant, "pause", people)
    alice, bob = recorded.one("alice"), recorded.one("bob")
    paused = [gap for track in alice.file.tracks for gap in track.gaps if gap.reason is GapReason.PAUSED]
    assert len(paused) == 2, "one per track"
    assert all(2000 < gap.duration_ms < longest_ms + KEY_FRAME_MS for gap in paused), paused
    assert alice.media.duration > 10
    assert alice.media.film
    assert bob.media.film
    assert bob.media.film.serials[-1] < alice.media.film.serials[-1] - 5 * FPS, "bob is not recorded after the pause"


def test_a_recording_waits_for_its_call(tenant: Tenant) -> None:
    tenant.record("early")
    waiting = tenant.wait(
        "early", lambda one: condition(one, "Ready").get("reason") == "WaitingForCall", "it says what it waits for"
    )
    assert waiting["status"]["phase"] == "Invoked"
    assert not tenant.pods(waiting), "no pod runs while nobody is there"
    with tenant.people("early", ALICE) as people:
        people.join("alice")
        tenant.wait_capturing("early")
        people.play(4)
        people.leave("alice")
        end_call(tenant, "early")
        assert_uploaded(tenant.wait_finished("early"))
        assert checked(tenant, "early", people).one("alice").media.duration > 2
