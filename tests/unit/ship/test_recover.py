"""Recordings that were left unfinished become the files that they would have been, whoever finishes them and how often."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from isotrack_api.intent import Intent
from isotrack_api.manifest import GapReason, Manifest, StopReason
from isotrack_recorder.clocks import Bounds
from isotrack_recorder.errors import IsotrackError, OutputError, StorageError, StorageRefusedError
from isotrack_recorder.finalise.local import finish_local
from isotrack_recorder.finalise.session import SessionStream
from isotrack_recorder.pod.decisions import is_left_behind
from isotrack_recorder.pod.finaliser import finish_quiet
from isotrack_recorder.ship.abandoned import find_folders
from isotrack_recorder.ship.checkpoint import decode_head, head_bytes, is_journal
from isotrack_recorder.ship.checkpoints import Checkpoints, sign_of_life_seconds
from isotrack_recorder.ship.claim import claim_attempt
from isotrack_recorder.ship.commit import conclude
from isotrack_recorder.ship.deliver import OVER, Delivery, End
from isotrack_recorder.ship.intents import read_intent
from isotrack_recorder.ship.lanes import Lanes
from isotrack_recorder.ship.layout import layout_of
from isotrack_recorder.ship.preflight import check_storage
from isotrack_recorder.ship.recover import Recovery, call_clock_of, epoch_of, longest_silence_seconds, look
from isotrack_recorder.ship.retry import LONGEST_PAUSE_SECONDS, REFUSED_PAUSE_SECONDS, Patience
from isotrack_recorder.spool.room import Room, folder_bytes
from isotrack_recorder.spool.watermarks import Usage
from support.live_spool import LiveSpool
from support.media import opus_packets, video_frames
from support.memory_store import MemoryStore
from support.shipping import ROOT, a_shipping_intent, two_people
from support.spools import MONO_NS, SECOND, WALL_NS, Call, Sender, steady, tone
from support.waiting_store import Waiting

EPOCH_MS = 1_760_000_000_000


class Bucket:
    """A bucket, and pods that come and go."""

    def __init__(self, path: Path, lanes: Lanes) -> None:
        self.path = path
        self.lanes = lanes
        self.store = MemoryStore()

    def intent(self, attempt: int) -> Intent:
        return a_shipping_intent(attempt=attempt, epoch_ms=None if attempt == 1 else EPOCH_MS)

    def spool(self, attempt: int) -> Path:
        return self.path / f"spool-{attempt}"

    def begin(self, attempt: int) -> Checkpoints:
        """The agent of an attempt starts."""
        intent = self.intent(attempt)
        checkpoints = Checkpoints(self.spool(attempt), intent, self.store)
        assert claim_attempt(self.store, layout_of(intent), attempt, checkpoints.run)
        check_storage(self.store, layout_of(intent), intent)
        return checkpoints

    async def drain(
        self, attempt: int, checkpoints: Checkpoints, *, goes: bool = True, followed_ns: int | None = None
    ) -> None:
        """The agent of an attempt ends in good order."""
        delivery = Delivery(self.spool(attempt), self.intent(attempt), self.store, self.lanes)
        delivery.leaves = partial(is_left_behind, attempt=attempt, goes=goes, followed_ns=followed_ns)
        await checkpoints.flush(self.lanes)
        await delivery.finish(End(False))

    def recovery(self, name: str = "scratch", *, end: End | None = None) -> Recovery:
        intent = self.intent(1)
        layout, scratch = layout_of(intent), self.path / name
        return Recovery(self.store, self.lanes, layout, scratch, intent, end=end or OVER)

    def media(self) -> dict[str, bytes]:
        return {key.removeprefix(f"{ROOT}/"): body for key, body in self.store.objects.items() if key.endswith(".mkv")}

    def recording(self) -> Manifest:
        return Manifest.model_validate_json(self.store.objects[f"{ROOT}/recording.json"])

    def checkpoints(self) -> list[str]:
        return sorted(key for key in self.store.objects if key.endswith(".ckpt"))


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[Bucket]:
    with closing(Lanes()) as lanes:
        yield Bucket(tmp_path, lanes)


def die_at(bucket: Bucket, *moments: float) -> Call:
    """A node dies behind its last checkpoint."""
    call = two_people(bucket.spool(1))
    checkpoints = bucket.begin(1)
    for moment in moments:
        call.write(until=moment)
        checkpoints.ship()
    return call


async def test_a_dead_node_leaves_the_files_of_its_last_checkpoint(bucket: Bucket, tmp_path: Path) -> None:
    """They are, byte for byte, those that a pod would have made that stopped there."""
    die_at(bucket, 0.7, 1.4, 2.1)
    await bucket.recovery().finalise()
    finish_local(bucket.spool(1), bucket.intent(1), tmp_path / "local")
    made = {path.name: path.read_bytes() for path in (tmp_path / "local").glob("*.mkv")}
    assert bucket.media() == made
    whole = bucket.recording()
    assert sorted(file.name for file in whole.files) == sorted(made)
    assert (whole.complete, whole.stop_reason, len(whole.attempts)) == (False, StopReason.INTERNAL_ERROR, 1)
    assert "last checkpoint" in whole.message
    assert whole.unfinished is None


async def test_what_came_behind_the_last_checkpoint_costs_nothing_else(bucket: Bucket) -> None:
    call = die_at(bucket, 0.7, 1.4)
    call.write(until=2.5)
    await bucket.recovery().finalise()
    for file in bucket.recording().files:
        [track] = file.tracks
        assert 1100 <= track.end_ms <= 1500


async def test_what_a_lost_pod_tried_the_storage_on_goes_with_its_checkpoints(bucket: Bucket) -> None:
    """It died between the first request of the probe and the last; nobody else knows the name."""
    die_at(bucket, 1.0, 2.0)
    probe = f"{layout_of(bucket.intent(1)).probe(1)}0123abcd"
    bucket.store.put(probe, b"isotrack probes this storage", "application/octet-stream")
    await bucket.recovery().finalise()
    assert bucket.recording()
    assert probe not in bucket.store.objects
    assert not bucket.checkpoints()


async def test_finishing_twice_changes_nothing(bucket: Bucket) -> None:
    die_at(bucket, 1.0, 2.0)
    first = await bucket.recovery().finalise()
    objects, puts = dict(bucket.store.objects), len(bucket.store.puts)
    second = await bucket.recovery("again").finalise()
    assert bucket.store.objects == objects
    assert len(bucket.store.puts) == puts
    assert first is not None
    assert second is not None
    assert first.digest == second.digest


async def test_the_end_of_a_long_call_does_not_look_through_its_checkpoints(bucket: Bucket) -> None:
    """A call of two hours has more than a thousand: where none of them is needed they are listed once, to be deleted."""
    call, checkpoints = two_people(bucket.spool(1)), bucket.begin(1)
    call.write(stop=4.0)
    await bucket.drain(1, checkpoints, goes=False)
    assert bucket.checkpoints()
    listed: list[str] = []
    bucket.store.before = lambda operation, key: listed.append(key) if operation == "list" else None
    await bucket.recovery().finalise()
    assert bucket.recording().complete
    assert not bucket.checkpoints()
    assert set(listed) == {layout_of(bucket.intent(1)).checkpoints(1)}
    assert len(listed) <= 2, "by `versions`, which lists objects in memory by two calls"


async def test_checkpoints_go_when_the_recording_is_whole(bucket: Bucket) -> None:
    die_at(bucket, 1.0, 2.0)
    order: list[str] = []
    bucket.store.before = lambda operation, key: order.append(f"{operation} {key.removeprefix(ROOT)}")
    await bucket.recovery().finalise()
    assert not bucket.checkpoints()
    first_gone = next(number for number, line in enumerate(order) if line.startswith("purge"))
    written = order.index("put /recording.json")
    assert order[written:first_gone].count("get /recording.json") >= 1, "it was not read back before"


async def test_a_checkpoint_that_comes_when_the_others_are_gone_goes_too(bucket: Bucket) -> None:
    """Of an agent that died as it cleared up and began again: it copies at once, and only then hears that all is done."""
    call, checkpoints = two_people(bucket.spool(1)), bucket.begin(1)
    for moment in (1.0, 2.0):
        call.write(until=moment)
        checkpoints.ship()
    await bucket.recovery().finalise()
    call.write(until=2.5)
    checkpoints.ship()
    assert bucket.checkpoints()
    before = bucket.recording(), bucket.media()
    await bucket.recovery("again").finalise()
    assert not bucket.checkpoints()
    assert (bucket.recording(), bucket.media()) == before


async def test_what_a_pod_delivers_behind_a_hasty_end_counts(bucket: Bucket) -> None:
    """Somebody took a recording for abandoned whose pod the storage had refused for a while."""
    call, checkpoints = two_people(bucket.spool(1)), bucket.begin(1)
    call.write(until=1.0)
    checkpoints.ship()
    await bucket.recovery().finalise()
    call.write(stop=4.0)
    await bucket.drain(1, checkpoints, goes=False)
    await bucket.recovery("again").finalise()
    assert bucket.recording().complete
    listed = {file.name: (file.bytes, file.sha256) for file in bucket.recording().files}
    assert listed == {name: (len(body), hashlib.sha256(body).hexdigest()) for name, body in bucket.media().items()}


async def test_what_came_to_checkpoints_behind_a_hasty_end_is_told_as_missing(bucket: Bucket) -> None:
    """Bob's session was left to them; those before are gone, and without them nobody can use these."""
    call = two_people(bucket.spool(1))
    first = bucket.begin(1)
    call.write(stop=4, reason="Drained")
    await bucket.drain(1, first)
    second, call = bucket.begin(2), second_pod(bucket)
    call.write(until=11)
    second.ship()
    await bucket.recovery().finalise()
    call.write(stop=90, reason="CallEnded")
    await bucket.drain(2, second, goes=False)
    for name in ("again", "once more"):
        await bucket.recovery(name).finalise()
        assert not bucket.recording().complete
        assert "attempt 2" in bucket.recording().message
        assert not bucket.checkpoints()


async def test_a_pod_that_comes_behind_a_hasty_end_adds_what_it_captured(bucket: Bucket) -> None:
    """No node had room for a successor, and somebody took the recording for over. Bob goes on in files of the second pod."""
    call = two_people(bucket.spool(1))
    first = bucket.begin(1)
    call.write(stop=4, reason="Drained")
    await bucket.drain(1, first)
    await bucket.recovery().finalise()
    before = bucket.media()
    second = bucket.begin(2)
    second_pod(bucket).write(stop=90, reason="CallEnded")
    await bucket.drain(2, second, goes=False)
    await bucket.recovery("again").finalise()
    files = [(file.user_id, file.attempt) for file in bucket.recording().files]
    assert sorted(files) == [("alice", 1), ("bob", 1), ("bob", 2), ("carol", 2)]
    assert bucket.recording().complete
    assert before.items() <= bucket.media().items()
    assert not bucket.checkpoints()


async def test_uploads_that_nobody_will_complete_are_taken_back(bucket: Bucket) -> None:
    die_at(bucket, 2.0)
    bucket.store.create_upload(f"{ROOT}/alice.mkv", "video/matroska")
    bucket.store.create_upload(f"{ROOT}-neighbour/alice.mkv", "video/matroska")
    await bucket.recovery().finalise()
    assert [upload.key for upload in bucket.store.uploads.values()] == [f"{ROOT}-neighbour/alice.mkv"]


async def test_an_end_that_is_known_is_told(bucket: Bucket) -> None:
    """The operator knows why the recording was to end; the pod that is gone could not say so."""
    die_at(bucket, 1.0)
    await bucket.recovery(end=End(True, StopReason.REQUESTED, "stopped while the node was away")).finalise()
    assert bucket.recording().stop_reason is StopReason.REQUESTED
    assert bucket.recording().message == "stopped while the node was away"
    assert bucket.recording().attempts[0].stop_reason is StopReason.INTERNAL_ERROR


async def test_an_end_that_a_pod_knew_stays(bucket: Bucket) -> None:
    await drained_and_followed(bucket)
    await bucket.recovery(end=End(True, StopReason.REQUESTED)).finalise()
    assert bucket.recording().stop_reason is StopReason.CALL_ENDED


async def test_a_pod_that_was_lost_before_it_copied_anything_is_told(bucket: Bucket) -> None:
    """It may have captured for as long as a checkpoint takes to come; nobody will know. Nothing of it stays behind."""
    await drained_and_followed(bucket)
    bucket.begin(3).ship()
    await bucket.recovery().finalise()
    whole = bucket.recording()
    assert (whole.complete, "attempt 3" in whole.message) == (False, True)
    assert not bucket.checkpoints()
    before = dict(bucket.store.objects)
    await bucket.recovery("again").finalise()
    assert bucket.store.objects == before


async def test_a_pod_that_ended_without_having_captured_makes_nothing_incomplete(bucket: Bucket) -> None:
    await drained_and_followed(bucket)
    await bucket.drain(3, bucket.begin(3))
    await bucket.recovery().finalise()
    assert bucket.recording().complete


async def test_nothing_captured_means_no_recording(bucket: Bucket) -> None:
    bucket.begin(1)
    assert await bucket.recovery().finalise() is None


# ── several attempts ─────────────────────────────────────────────────────────────────────────────────────────────────


def second_pod(bucket: Bucket, *, at: float = 10.0) -> Call:
    """The successor finds Bob still there, and Carol comes later."""
    call = Call(bucket.spool(2), attempt=2, started=at)
    call.person("PA_b", "bob", at)
    call.track("t0001", "PA_b", "bob", "camera", "vp8", at, track_id="TR_t0002")
    call.frames("t0001", Sender(), 90000, steady(video_frames(120)[60:], at + 0.1, 1 / 30), base=100_000)
    call.event("size", at + 0.1, track="t0001", timestamp=0, width=160, height=120, rotation=0)
    call.person("PA_c", "carol", at + 65)
    call.track("t0002", "PA_c", "carol", "camera", "vp8", at + 65)
    call.frames("t0002", Sender(), 90000, steady(video_frames(30), at + 65, 1 / 30))
    return call


async def drained_and_followed(bucket: Bucket) -> None:
    """Attempt 1 is drained with Alice gone and Bob in the call; attempt 2 ends with the call."""
    call = two_people(bucket.spool(1))
    first = bucket.begin(1)
    call.write(until=1.0)
    first.ship()
    call.write(stop=4, reason="Drained")
    await bucket.drain(1, first)
    second = bucket.begin(2)
    second_pod(bucket).write(stop=90, reason="CallEnded")
    await bucket.drain(2, second, goes=False)


async def test_a_small_disk_is_enough_for_one_session_after_the_other(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logs of two sessions never lie on it at once; the files are the same."""
    die_at(bucket, 1.0, 2.0)
    monkeypatch.setattr(Room, "measure", lambda _room: Usage(used=0, capacity=50_000))
    held: list[set[str]] = []

    def watch(operation: str, key: str) -> None:
        if operation == "put" and key.endswith(".mkv"):
            held.append({path.name for path in (bucket.path / "scratch").rglob("t*.log")})

    bucket.store.before = watch
    await bucket.recovery().finalise()
    assert sorted(len({name.partition(".")[0] for name in names}) for names in held) == [1, 1]
    assert {file.user_id for file in bucket.recording().files} == {"alice", "bob"}


def long_call(bucket: Bucket, attempt: int, begin: float, end: float, whole: Path) -> Checkpoints:
    """A session that a pod copied every five seconds, over an outage of twenty; `whole` gets its spool."""
    call = LiveSpool(bucket.spool(attempt), picture_bytes=3000, segment_bytes=65_536, begins=begin, attempt=attempt)
    checkpoints = bucket.begin(attempt)
    for until in range(round(begin) + 5, round(end) + 1, 5):
        call.run(until)
        if not begin + 30 < until < begin + 50:
            checkpoints.ship()
    call.stop()
    checkpoints.ship()
    for place in call.path.glob("i*"):
        shutil.copytree(place, whole / f"i{attempt:04}")
    return checkpoints


@pytest.mark.parametrize(
    "seconds", [(0, 240), (0, 120, 130, 250), (0, 120, 115, 235)], ids=["one", "two", "overlapping"]
)
async def test_a_session_is_made_piece_by_piece_where_its_logs_have_no_room(
    bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: tuple[float, ...]
) -> None:
    """A third of what a session captured is on the disk at once; its files are the same, byte for byte."""
    whole, pairs = tmp_path / "whole", list(zip(seconds[::2], seconds[1::2], strict=True))
    for attempt, (begin, end) in enumerate(pairs, 1):
        long_call(bucket, attempt, begin, end, whole)
    captured = sum(path.stat().st_size for path in whole.rglob("t*.log"))
    scratch = bucket.path / "scratch"
    capacity = folder_bytes(whole) - captured + 7 * 1024 * 1024
    for module in ("bodies", "budget", "ledger", "session", "upload"):
        monkeypatch.setattr(f"isotrack_recorder.ship.{module}.PART_BYTES", 256 * 1024)
    most = 0

    def watch(_operation: str, _key: str) -> None:
        nonlocal most
        most = max(most, sum(path.stat().st_size for path in scratch.rglob("t*.log")))

    bucket.store.before = watch
    intent = bucket.intent(1)
    room = Room(scratch, capacity)
    await Recovery(bucket.store, bucket.lanes, layout_of(intent), scratch, intent, room=room).finalise()
    finish_local(whole, bucket.intent(len(pairs)), tmp_path / "local")
    assert bucket.media() == {path.name: path.read_bytes() for path in (tmp_path / "local").glob("*.mkv")}
    assert 0 < most < captured / 3, f"{most} of {captured} bytes"
    assert not bucket.checkpoints()


@pytest.mark.parametrize("hours", [-3, 3])
async def test_a_successor_whose_clock_is_wrong_by_hours_lies_where_it_belongs(
    bucket: Bucket, tmp_path: Path, hours: float
) -> None:
    """Its node's clock and the first one's were never compared, but both have seen the storage's."""
    truth = WALL_NS - MONO_NS

    def seen(seconds: float) -> Bounds:
        """The storage's clock is wrong, too: that changes nothing."""
        at = truth + 900 * SECOND
        return Bounds(at - round(seconds * SECOND), at + round(seconds * SECOND))

    bucket.store.clock = seen(0.1)
    call = LiveSpool(bucket.spool(1), picture_bytes=300)
    first = bucket.begin(1)
    call.run(10)
    first.ship()  # the node dies
    bucket.store.clock = seen(0.2)
    call = LiveSpool(bucket.spool(2), picture_bytes=300, begins=14, attempt=2, wall_error=hours * 3600)
    second, intent = bucket.begin(2), bucket.intent(2)
    call_clock = call_clock_of(bucket.store, layout_of(intent), 2, bucket.path / "scratch")
    assert call_clock is not None
    assert abs(call_clock.offset.low + call_clock.offset.high - 2 * truth) <= 4_000_000
    second.call_clock = call_clock
    call.run(30)
    call.stop()
    second.ship()
    await bucket.recovery().finalise()
    [file] = bucket.recording().files
    [lost] = {(gap.start_ms // 100, gap.duration_ms // 100) for track in file.tracks for gap in track.gaps}
    assert lost == (100, 40)
    assert (file.start_offset_ms // 100, file.duration_ms // 100) == (0, 300)


async def test_without_a_word_on_clocks_they_are_taken_at_their_word(bucket: Bucket) -> None:
    """Checkpoints of a version that did not measure, and a first attempt that could not capture."""
    LiveSpool(bucket.spool(1), picture_bytes=300).run(5)
    bucket.begin(1).ship()
    bucket.store.clock = Bounds(0, SECOND)
    assert call_clock_of(bucket.store, layout_of(bucket.intent(2)), 2, bucket.path / "scratch") is None
    assert call_clock_of(bucket.store, layout_of(bucket.intent(1)), 1, bucket.path / "scratch") is None


async def test_what_has_no_room_at_all_costs_nothing(bucket: Bucket, tmp_path: Path) -> None:
    """It is told, and whoever comes with a larger disk finishes it."""
    long_call(bucket, 1, 0, 60, tmp_path / "whole")
    held, intent = bucket.checkpoints(), bucket.intent(1)
    room = Room(bucket.path / "scratch", 300_000)
    with pytest.raises(OutputError, match="no room"):
        await Recovery(
            bucket.store, bucket.lanes, layout_of(intent), bucket.path / "scratch", intent, room=room
        ).finalise()
    assert bucket.checkpoints() == held
    await bucket.recovery().finalise()
    finish_local(tmp_path / "whole", intent, tmp_path / "local")
    assert bucket.media() == {path.name: path.read_bytes() for path in (tmp_path / "local").glob("*.mkv")}


async def test_a_session_over_two_attempts_becomes_one_file_with_a_declared_gap(bucket: Bucket) -> None:
    await drained_and_followed(bucket)
    recovery = bucket.recovery()
    await recovery.finalise()
    whole = bucket.recording()
    by_user = {file.user_id: file for file in whole.files}
    assert len(whole.files) == 3
    assert recovery.made == (by_user["bob"],)
    assert {user: file.attempt for user, file in by_user.items()} == {"alice": 1, "bob": 2, "carol": 2}
    [bob] = by_user["bob"].tracks
    assert bob.frames == 120
    lost = [gap for gap in bob.gaps if gap.reason is GapReason.CRASHED]
    assert [(gap.start_ms // 100, (gap.start_ms + gap.duration_ms) // 100) for gap in lost] == [(40, 101)]
    assert by_user["bob"].start_offset_ms < 600
    assert (whole.complete, whole.stop_reason) == (True, StopReason.CALL_ENDED)
    assert [attempt.n for attempt in whole.attempts] == [1, 2]


async def test_sessions_that_end_are_delivered_by_their_attempt_alone(bucket: Bucket) -> None:
    """Only what goes on is left to the end: a drain is quick, and files of people who left do not wait."""
    await drained_and_followed(bucket)
    assert {name.split("_")[1] for name in bucket.media()} == {"alice", "carol"}
    layout = layout_of(bucket.intent(1))
    seen = look(bucket.store, layout)
    assert [seen.manifests[n].unfinished for n in (1, 2)] == [("PA_b",), ("PA_b",)]
    assert [[file.user_id for file in seen.manifests[n].files] for n in (1, 2)] == [["alice"], ["carol"]]


async def test_only_what_was_left_behind_is_fetched(bucket: Bucket) -> None:
    await drained_and_followed(bucket)
    read: dict[str, int] = {}
    original = bucket.store.get_range

    def count(key: str, start: int, size: int) -> bytes:
        data = original(key, start, size)
        read[key] = read.get(key, 0) + len(data)
        return data

    bucket.store.get_range = count  # type: ignore[method-assign]
    held = {key: len(bucket.store.objects[key]) for key in bucket.checkpoints()}
    await bucket.recovery().finalise()
    assert sum(read.values()) < 2.5 * sum(held.values())


async def test_both_nodes_dead(bucket: Bucket) -> None:
    """No manifest at all: everything comes from checkpoints."""
    die_at(bucket, 1.0, 2.0)
    second = bucket.begin(2)
    second_pod(bucket).write(until=14)
    second.ship()
    await bucket.recovery().finalise()
    whole = bucket.recording()
    assert {file.user_id: file.attempt for file in whole.files} == {"alice": 1, "bob": 2}
    assert not whole.complete
    assert [attempt.n for attempt in whole.attempts] == [1, 2]
    bob = next(file for file in whole.files if file.user_id == "bob")
    assert any(gap.reason is GapReason.CRASHED for gap in bob.tracks[0].gaps)


async def test_attempts_that_overlap_leave_no_gap(bucket: Bucket) -> None:
    """A drained pod captures until its successor has its place in the call."""
    call = two_people(bucket.spool(1))
    first = bucket.begin(1)
    call.write(stop=4, reason="Fenced")
    await bucket.drain(1, first)
    second = bucket.begin(2)
    second_pod(bucket, at=2.6).write(stop=90, reason="CallEnded")
    await bucket.drain(2, second, goes=False)
    await bucket.recovery().finalise()
    [bob] = [file for file in bucket.recording().files if file.user_id == "bob"]
    assert bob.tracks[0].frames == 120
    assert not bob.tracks[0].gaps


@pytest.mark.parametrize("goes", [True, False], ids=["drained", "the-call-is-over-for-both"])
async def test_who_leaves_while_two_pods_record_has_one_file(bucket: Bucket, goes: bool) -> None:
    """Of what both have, whichever of them ends the recording: each packet once."""
    call = two_people(bucket.spool(1))
    first = bucket.begin(1)
    call.write(stop=4, reason="Drained" if goes else "CallEnded")
    second = bucket.begin(2)
    beside = Call(bucket.spool(2), attempt=2, started=1.0)
    beside.person("PA_a", "alice", 1.0, 3.0)
    beside.track("t0001", "PA_a", "alice", "microphone", "opus", 1.1, track_id="TR_t0001")
    beside.frames("t0001", Sender(transit=0.02), 48000, tone(opus_packets(100), 0.0)[65:], base=7)
    beside.write(stop=4 if not goes else 9, reason="CallEnded")
    await bucket.drain(2, second, goes=False)
    await bucket.drain(1, first, goes=goes, followed_ns=MONO_NS + SECOND)
    await bucket.recovery().finalise()
    whole = bucket.recording()
    [alice] = [file for file in whole.files if file.user_id == "alice"]
    assert (alice.attempt, alice.tracks[0].frames) == (2, 100)
    assert [gap for gap in alice.tracks[0].gaps if gap.start_ms < 2000] == [], "she speaks for two seconds"
    assert sorted(file.user_id for file in whole.files) == ["alice", "bob"]
    assert whole.complete


async def test_the_first_attempt_may_come_in_last(bucket: Bucket) -> None:
    """Its node was cut off: what the first finish could not know replaces what it made, under the same names."""
    call = two_people(bucket.spool(1))
    first = bucket.begin(1)
    call.write(until=1.0)
    first.ship()
    second = bucket.begin(2)
    second_pod(bucket).write(stop=90, reason="CallEnded")
    await bucket.drain(2, second, goes=False)
    fresh = look(bucket.store, layout_of(bucket.intent(1)))
    assert [run.attempt for run in fresh.behind] == [1, 2]
    call.write(stop=4, reason="Drained")
    await bucket.drain(1, first)
    await bucket.recovery().finalise()
    bob = next(file for file in bucket.recording().files if file.user_id == "bob")
    assert bob.tracks[0].frames == 120


async def test_checkpoints_that_are_gone_do_not_make_worse_files(bucket: Bucket) -> None:
    """Half of them were deleted when the process that did so died."""
    await drained_and_followed(bucket)
    kept = {key: bucket.store.objects[key] for key in bucket.checkpoints()}
    await bucket.recovery().finalise()
    media, recording = bucket.media(), bucket.recording()
    leftover = sorted(kept)[-1]
    bucket.store.objects[leftover] = kept[leftover]
    await bucket.recovery("again").finalise()
    assert (bucket.media(), bucket.recording()) == (media, recording)
    assert not bucket.checkpoints()


async def test_two_at_once_do_not_spoil_each_other_s_work(bucket: Bucket) -> None:
    """The other one is done, and deletes what we are reading."""
    await drained_and_followed(bucket)
    media: list[dict[str, bytes]] = []
    busy = False

    def other(operation: str, key: str) -> None:
        nonlocal busy
        if operation == "get_range" and key.endswith("00000001.ckpt") and not busy and "/2/" in key:
            busy = True
            held = {key: body for key, body in bucket.store.objects.items() if key.endswith(".ckpt")}
            with closing(Lanes()) as lanes:
                rival = Recovery(
                    bucket.store, lanes, layout_of(bucket.intent(1)), bucket.path / "rival", bucket.intent(1)
                )
                asyncio.run(rival.finalise())
            media.append(bucket.media())
            assert held
            assert not bucket.checkpoints()

    bucket.store.before = other
    await bucket.recovery().finalise()
    assert media == [bucket.media()]
    assert {file.user_id for file in bucket.recording().files} == {"alice", "bob", "carol"}


async def test_an_outage_in_the_middle_is_waited_out(bucket: Bucket) -> None:
    die_at(bucket, 1.0, 2.0)
    fails = iter([True, False, True, True, False])

    def fail(operation: str, key: str) -> None:
        if operation == "put" and key.endswith(".mkv") and next(fails, False):
            raise StorageError("away")

    bucket.store.before = fail
    await bucket.recovery().finalise()
    assert len(bucket.recording().files) == 2


async def test_without_patience_checkpoints_stay_for_the_next_try(bucket: Bucket) -> None:
    die_at(bucket, 1.0, 2.0)
    bucket.store.patience = Patience(0)

    def fail(operation: str, key: str) -> None:
        if operation == "put" and key.endswith(".mkv"):
            raise StorageError("away")

    bucket.store.before = fail
    with pytest.raises(StorageError):
        await bucket.recovery().finalise()
    assert bucket.checkpoints()
    assert f"{ROOT}/recording.json" not in bucket.store.objects
    bucket.store.before = lambda _operation, _key: None
    bucket.store.patience = Patience()
    await bucket.recovery("again").finalise()
    assert len(bucket.recording().files) == 2


async def test_what_could_not_be_made_stays_for_another_version(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = two_people(bucket.spool(1))
    checkpoints = bucket.begin(1)
    call.write(stop=4, reason="CallEnded")

    advance = SessionStream.advance

    def fail_for_bob(stream: SessionStream, **how: Any) -> bool:
        if stream.state.peer_id == "PA_b":
            raise ZeroDivisionError
        return advance(stream, **how)

    monkeypatch.setattr(SessionStream, "advance", fail_for_bob)
    with pytest.raises(IsotrackError, match="could not be made"):
        await bucket.drain(1, checkpoints, goes=False)
    with pytest.raises(IsotrackError, match="could not be made"):
        await bucket.recovery().finalise()
    assert not bucket.recording().complete
    assert "could not be made" in bucket.recording().message
    assert [file.user_id for file in bucket.recording().files] == ["alice"]
    assert bucket.checkpoints()
    monkeypatch.undo()
    await bucket.recovery("mended").finalise()
    assert {file.user_id for file in bucket.recording().files} == {"alice", "bob"}
    assert not bucket.checkpoints()


LEAVERS = (
    ("alice", "microphone", "opus", tone(opus_packets(125), 0.0)),
    ("carol", "camera", "vp8", steady(video_frames(75), 0.0, 1 / 30)),
    ("bob", "microphone", "opus", tone(opus_packets(300), 0.0)),
)
"""Two send for two and a half seconds, one for six."""


def damage(bucket: Bucket, number: int, how: str) -> None:
    """Something happens to a checkpoint."""
    key = bucket.checkpoints()[number - 1]
    match how:
        case "gone":
            del bucket.store.objects[key]
        case "empty":
            bucket.store.objects[key] = b""
        case "cut":
            bucket.store.objects[key] = bucket.store.objects[key][:-60]
        case "a bit":
            body = bytearray(bucket.store.objects[key])
            body[-60] ^= 1
            bucket.store.objects[key] = bytes(body)


@pytest.mark.parametrize("how", ["gone", "empty", "cut", "a bit"])
async def test_a_damaged_checkpoint_costs_what_it_held_and_is_told(bucket: Bucket, how: str) -> None:
    """The others were sent, too: what lies in them must not go away unread."""
    die_at(bucket, 0.5, 0.9, 1.3, 2.1)
    damage(bucket, 3, how)
    recovery = bucket.recovery()
    await recovery.finalise()
    whole = bucket.recording()
    assert not whole.complete
    ends, lost = set(), 0
    for file in whole.files:
        [track] = file.tracks
        ends.add(track.end_ms >= 2000)
        rows = [gap for gap in track.gaps if gap.reason in (GapReason.LOST, GapReason.DAMAGED)]
        lost += len(rows)
        assert sum(gap.duration_ms for gap in rows) <= 1300
    assert ends == {True}
    assert lost >= (1 if how == "a bit" else 2)
    assert bucket.checkpoints() == []
    before = dict(bucket.store.objects)
    await bucket.recovery("again").finalise()
    assert bucket.store.objects == before


@pytest.mark.parametrize("how", ["gone", "only journals"])
async def test_the_end_of_who_left_within_a_lost_checkpoint_is_told_as_lost(bucket: Bucket, how: str) -> None:
    """That it was said there, too, made it the sender's silence, and of pictures nothing at all."""
    call = Call(bucket.spool(1))
    for number, (who, kind, codec, frames) in enumerate(LEAVERS, 1):
        log, peer = f"t000{number}", f"PA_{who}"
        call.person(peer, who, 0.0, None if who == "bob" else 2.6)
        call.track(log, peer, who, kind, codec, 0.0)
        rate = 48_000 if codec == "opus" else 90_000
        call.frames(log, Sender(), rate, frames, reports=[1.0, 3.1, 5.0] if who == "bob" else ())
        if who != "bob":
            call.event("track_ended", 2.55, track=log, reason="left")
    call.event("size", 0.1, track="t0002", timestamp=0, width=160, height=120, rotation=0)
    checkpoints = bucket.begin(1)
    for moment in (1.0, 2.0, 3.0, 6.0):
        call.write(until=moment)
        checkpoints.ship()
    key = bucket.checkpoints()[2]
    if how == "gone":
        del bucket.store.objects[key]
    else:
        body = bucket.store.objects[key]
        head = decode_head(body[: head_bytes(body)])
        whole = head_bytes(body) + sum(part.length for part in head.slices if is_journal(part.path))
        bucket.store.objects[key] = body[:whole]
    await bucket.recovery().finalise()
    whole_recording = bucket.recording()
    assert (whole_recording.complete, "checkpoints are missing or damaged" in whole_recording.message) == (False, True)
    for file in whole_recording.files:
        [track] = file.tracks
        [gap] = [gap for gap in track.gaps if gap.reason is GapReason.LOST]
        assert gap.start_ms == pytest.approx(2000, abs=60), file.user_id
        assert gap.start_ms + gap.duration_ms >= 2480, file.user_id
        assert gap.start_ms + gap.duration_ms <= 3200, file.user_id


@pytest.mark.parametrize("goes_on", [False, True])
async def test_frames_whose_journal_is_gone_stay_in_the_bucket(bucket: Bucket, goes_on: bool) -> None:
    """The first checkpoint told what the tracks are, the others at most how they do."""
    call = two_people(bucket.spool(1))
    for at in (1.0, 1.1) if goes_on else ():  # the first line behind a hole is torn
        call.event("counters", at, track="t0001", packets=50)
    checkpoints = bucket.begin(1)
    for moment in (0.7, 1.4, 2.1):
        call.write(until=moment)
        checkpoints.ship()
    damage(bucket, 1, "gone")
    left = bucket.checkpoints()
    for name in ("scratch", "again"):
        with pytest.raises(IsotrackError, match=r"nothing tells what . tracks are"):
            await bucket.recovery(name).finalise()
        assert bucket.checkpoints() == left


async def test_what_cannot_be_made_of_one_attempt_is_not_told_of_another(bucket: Bucket) -> None:
    """Everything of the first attempt was there and made, and its checkpoints were told to be gone."""
    die_at(bucket, 1.0, 2.0)
    second = bucket.begin(2)
    for moment in (11.0, 14.0):
        second_pod(bucket).write(until=moment)
        second.ship()
    damage(bucket, 3, "gone")
    with pytest.raises(IsotrackError, match=r"nothing tells what . tracks are"):
        await bucket.recovery().finalise()
    whole = bucket.recording()
    assert {file.user_id for file in whole.files} == {"alice", "bob"}
    assert whole.message.startswith("checkpoints are missing or damaged: nothing tells what")
    assert "checkpoints of attempt" not in whole.message


async def test_an_agent_of_an_earlier_version_that_comes_in_late_leaves_nothing_out(bucket: Bucket) -> None:
    """Pods go on with the image that they have as isotrack is upgraded: the successor's manifest has fields that theirs does not know."""
    await drained_and_followed(bucket)
    layout = layout_of(bucket.intent(1))
    await bucket.recovery().finalise()
    whole = bucket.recording()
    assert len(whole.attempts) == 2
    for key in (layout.attempt_manifest(2), layout.recovered, layout.intent):
        newer = json.loads(bucket.store.objects[key])
        newer["news"] = {"of": "a later version"}
        for file in newer.get("files", ()):
            file["news"] = True
        bucket.store.objects[key] = json.dumps(newer).encode()
    assert conclude(bucket.store, layout) is not None
    assert bucket.recording() == whole
    intent = bucket.intent(1)
    assert not check_storage(bucket.store, layout, intent).created
    assert read_intent(bucket.store, layout) == intent


async def test_missing_checkpoints_of_an_attempt_that_left_sessions_are_told(bucket: Bucket) -> None:
    await drained_and_followed(bucket)
    for key in bucket.checkpoints():
        del bucket.store.objects[key]
    await bucket.recovery().finalise()
    whole = bucket.recording()
    assert not whole.complete
    assert "checkpoints of attempt 1, 2 are not there" in whole.message


@pytest.mark.parametrize("dies_at", ["unfinished", "abort_upload", "purge"])
async def test_a_finaliser_that_dies_as_it_clears_up_leaves_what_a_sweep_finds(bucket: Bucket, dies_at: str) -> None:
    """Checkpoints go last: a folder that has some is unfinished."""
    die_at(bucket, 1.0, 2.0)
    bucket.store.create_upload(f"{ROOT}/bob.mkv", "video/matroska")

    def killed(operation: str, key: str) -> None:
        if operation == dies_at:
            raise StorageError(f"{operation} {key}")

    bucket.store.before = killed
    with pytest.raises(StorageError):
        await bucket.recovery().finalise()
    assert bucket.recording()
    [folder] = find_folders(bucket.store.list_objects(""))
    assert folder.is_unfinished
    bucket.store.before = lambda _operation, _key: None
    await bucket.recovery("again").finalise()
    assert not bucket.store.uploads
    assert not bucket.checkpoints()


@pytest.mark.parametrize("refused", ["unfinished", "abort_upload"])
async def test_checkpoints_go_where_uploads_may_not_be_taken_back(bucket: Bucket, refused: str) -> None:
    """They are a second copy of private media, and a sweep would be refused, too."""
    die_at(bucket, 1.0, 2.0)
    bucket.store.create_upload(f"{ROOT}/bob.mkv", "video/matroska")

    def refuse(operation: str, key: str) -> None:
        if operation == refused:
            raise StorageRefusedError(f"{operation} of {key!r} denied")

    bucket.store.before = refuse
    with pytest.raises(StorageRefusedError):
        await bucket.recovery().finalise()
    assert bucket.recording()
    assert not bucket.checkpoints()


# ── who is at work ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_attempt_has_one_spool(bucket: Bucket) -> None:
    layout = layout_of(bucket.intent(1))
    first = Checkpoints(bucket.spool(1), bucket.intent(1), bucket.store)
    second = Checkpoints(bucket.spool(2), bucket.intent(1), bucket.store)
    assert claim_attempt(bucket.store, layout, 1, first.run)
    assert claim_attempt(bucket.store, layout, 1, first.run), "an agent that was killed comes back"
    assert not claim_attempt(bucket.store, layout, 1, second.run)


def test_signs_of_life(bucket: Bucket) -> None:
    bucket.store.now = lambda: 1000.0
    die_at(bucket, 1.0)
    seen = look(bucket.store, layout_of(bucket.intent(1)))
    assert seen.alive(1020, patience=25) == {1}
    assert seen.alive(1030, patience=25) == set()


async def test_an_attempt_with_a_manifest_is_not_waited_for(bucket: Bucket) -> None:
    call = two_people(bucket.spool(1))
    call.write(stop=4, reason="Drained")
    await bucket.drain(1, bucket.begin(1))
    assert await bucket.recovery().wait_until_quiet()


def an_attempt(bucket: Bucket, silent: float) -> tuple[Waiting, Callable[[], None], Recovery]:
    """One of which the bucket has heard nothing for some seconds; what gives a further sign of life; and who wants to finish it."""
    call, checkpoints = two_people(bucket.spool(1), pictures=45 * 30), bucket.begin(1)
    call.write(until=1.0)
    checkpoints.ship()
    waiting = Waiting(bucket.store)
    bucket.store.modified = dict.fromkeys(bucket.store.objects, time.time() - silent)
    moments = itertools.count(2)

    def sign() -> None:
        call.write(until=float(next(moments)))
        checkpoints.ship()

    intent = bucket.intent(1)
    layout, scratch = layout_of(intent), bucket.path / "scratch"
    return waiting, sign, Recovery(bucket.store, bucket.lanes, layout, scratch, intent, clock=waiting.clock)


async def test_an_attempt_that_pauses_between_two_tries_is_seen_to_be_at_work(bucket: Bucket) -> None:
    """It was refused, and tries again after half a minute; its last sign of life was due a little before."""
    waiting, sign, recovery = an_attempt(bucket, silent=44)
    waiting.at(1, sign)
    assert not await recovery.wait_until_quiet(at_once=True, silence=longest_silence_seconds(5))


async def test_a_dead_attempt_is_not_waited_for_longer_than_one_at_work_is_silent(bucket: Bucket) -> None:
    waiting, _, recovery = an_attempt(bucket, silent=44)
    assert await recovery.wait_until_quiet(at_once=True, silence=longest_silence_seconds(5))
    assert waiting.now <= longest_silence_seconds(5) - 44 + 2


@pytest.mark.parametrize("interval", [1, 5, 60, 300])
def test_the_longest_silence_covers_the_longest_pause(interval: int) -> None:
    longest = max(LONGEST_PAUSE_SECONDS, REFUSED_PAUSE_SECONDS)
    assert longest_silence_seconds(interval) > longest + sign_of_life_seconds(interval)


async def test_an_attempt_that_dies_now_counts_as_dead_in_the_end_whatever_its_interval(bucket: Bucket) -> None:
    """Longer than an attempt that goes on writing is waited for."""
    waiting, _, recovery = an_attempt(bucket, silent=0)
    assert longest_silence_seconds(300) > 90
    assert await recovery.wait_until_quiet(silence=longest_silence_seconds(300))
    assert waiting.now <= 102


async def test_after_an_outage_an_attempt_has_its_time_to_show_itself(bucket: Bucket) -> None:
    """Whoever wants to finish it waited for the storage, too: what is old by then says nothing."""
    waiting, sign, recovery = an_attempt(bucket, silent=5)

    def away(operation: str, _key: str) -> None:
        bucket.store.before = lambda _operation, _key: None
        waiting.goes_on(1800)

    bucket.store.before = away
    waiting.at(1825, sign)
    assert not await recovery.wait_until_quiet(at_once=True, silence=longest_silence_seconds(5))


async def test_a_finaliser_leaves_an_attempt_alone_that_goes_on_writing(bucket: Bucket) -> None:
    """The node cannot be reached by the cluster, and its pod can reach the storage."""
    waiting, sign, recovery = an_attempt(bucket, silent=1)
    upload = bucket.store.create_upload(f"{ROOT}/bob.mkv", "video/matroska")
    for moment in range(5, 200, 5):
        waiting.at(moment, sign)
    with pytest.raises(StorageError, match="still writes"):
        await finish_quiet(recovery, longest_silence_seconds(5))
    assert waiting.now < 100
    assert upload in bucket.store.uploads
    assert f"{ROOT}/attempts/1/manifest.json" not in bucket.store.objects


async def test_a_finaliser_ends_the_recording_once_the_attempt_is_silent(bucket: Bucket) -> None:
    waiting, sign, recovery = an_attempt(bucket, silent=1)
    waiting.at(10, sign)
    committed = await finish_quiet(recovery, longest_silence_seconds(5))
    assert len(committed.manifest.files) == 2
    assert 55 < waiting.now < 75


def test_the_timeline_s_zero_is_known_from_a_dead_attempt(bucket: Bucket) -> None:
    layout = layout_of(bucket.intent(2))
    assert epoch_of(bucket.store, layout, bucket.path / "scratch") is None
    die_at(bucket, 1.0)
    assert epoch_of(bucket.store, layout, bucket.path / "scratch") == EPOCH_MS


async def test_what_was_given_back_on_the_disk_is_whole_in_the_bucket(bucket: Bucket, tmp_path: Path) -> None:
    """A node dies whose spool, journal and all, had been given back as far as possible: nothing is missing, nothing differs."""
    call = LiveSpool(bucket.spool(1), picture_bytes=300, segment_bytes=16_384, facts_per_tick=1)
    checkpoints, whole = bucket.begin(1), tmp_path / "whole"
    delivery = Delivery(call.path, bucket.intent(1), bucket.store, bucket.lanes)
    for until in range(10, 100, 10):
        call.run(until)
        shutil.copytree(call.path, whole, dirs_exist_ok=True, ignore=shutil.ignore_patterns("ship", "journal.past"))
        checkpoints.ship()
        await delivery.round()
        await delivery.reclaim(checkpoints.sent)
    assert not (call.path / "i0001" / "journal.ndjson").exists()
    assert not (call.path / "i0001" / "t0002.000001.log").exists()
    await bucket.recovery().finalise()
    finish_local(whole, bucket.intent(1), tmp_path / "local")
    assert bucket.media() == {path.name: path.read_bytes() for path in (tmp_path / "local").glob("*.mkv")}
    call.stop()


@pytest.mark.parametrize(("beside", "waits"), [(2, True), (3, False), (None, False)], ids=["it", "another", "nobody"])
async def test_an_attempt_that_has_just_begun_is_waited_for_by_the_one_beside_it(
    bucket: Bucket, beside: int | None, waits: bool
) -> None:
    """It may have captured, and copied nothing yet."""
    two_people(bucket.spool(1)).write(stop=4, reason="CallEnded")
    await bucket.drain(1, bucket.begin(1), goes=False)
    bucket.begin(2)
    waiting, intent = Waiting(bucket.store), bucket.intent(1)
    recovery = Recovery(
        bucket.store, bucket.lanes, layout_of(intent), bucket.path / "scratch", intent, clock=waiting.clock
    )
    assert await recovery.wait_until_quiet(beside=beside)
    assert (waiting.now >= sign_of_life_seconds(5)) is waits
    assert waiting.now <= sign_of_life_seconds(5) + 12, "it may have died as it began"
