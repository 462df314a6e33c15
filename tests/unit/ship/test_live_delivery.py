"""Files on their way to the bucket while the call runs, and what is left of them when agent, disk or storage fail."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from isotrack_api.intent import Intent
from isotrack_api.manifest import Manifest
from isotrack_recorder.errors import IsotrackError, StorageError
from isotrack_recorder.finalise.local import finish_local
from isotrack_recorder.ship.bodies import Bodies
from isotrack_recorder.ship.checkpoints import Checkpoints
from isotrack_recorder.ship.credentials import AmbientCredentials
from isotrack_recorder.ship.deliver import NOBODY, OVER, Delivery, End
from isotrack_recorder.ship.lanes import Lanes
from isotrack_recorder.ship.layout import layout_of
from isotrack_recorder.ship.live import keep_delivering
from isotrack_recorder.ship.reclaim import reclaim
from isotrack_recorder.ship.recover import Recovery
from isotrack_recorder.ship.standalone import finish_recording
from isotrack_recorder.ship.store import PART_BYTES, Part, Streamed, Trouble
from isotrack_recorder.spool import writer as writer_module
from isotrack_recorder.spool.reader import Position
from isotrack_recorder.spool.records import Flag
from isotrack_recorder.spool.room import Room, folder_bytes
from isotrack_recorder.spool.writer import SpoolWriter
from support.live_spool import LiveSpool, segments
from support.media import opus_packets
from support.memory_store import MemoryStore
from support.shipping import ROOT, a_shipping_intent
from support.spools import MONO_NS, SECOND, WALL_NS

RATE = 190_000
"""Bytes per second and person."""


class CountingStore(MemoryStore):
    """Notes each part that was acknowledged, and how many bytes went out."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[tuple[str, int]] = []
        self.bytes = 0

    def upload_part(self, key: str, upload_id: str, number: int, body: bytes | Streamed) -> Part:
        part = super().upload_part(key, upload_id, number, body)
        self.parts.append((key, number))
        self.bytes += part.size
        return part


@pytest.fixture
def lanes() -> Iterator[Lanes]:
    with closing(Lanes()) as lanes:
        yield lanes


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def store() -> CountingStore:
    return CountingStore()


def an_agent(spool: Path, store: MemoryStore, lanes: Lanes) -> Delivery:
    return Delivery(spool, a_shipping_intent(), store, lanes)


def media(store: MemoryStore) -> dict[str, bytes]:
    return {key.removeprefix(f"{ROOT}/"): body for key, body in store.objects.items() if key.endswith(".mkv")}


def made_locally(spool: Path, output: Path, intent: Intent | None = None) -> dict[str, bytes]:
    finish_local(spool, intent or a_shipping_intent(), output)
    return {path.name: path.read_bytes() for path in output.glob("*.mkv")}


async def test_what_is_left_at_the_stop_does_not_grow_with_the_call(tmp_path: Path, lanes: Lanes) -> None:
    left: dict[int, tuple[int, int]] = {}
    for seconds in (100, 300):
        store, call = CountingStore(), LiveSpool(tmp_path / str(seconds))
        delivery = an_agent(call.path, store, lanes)
        for until in range(5, seconds + 1, 5):
            call.run(until)
            await delivery.round()
            await delivery.reclaim(None)
        call.stop()
        before = store.bytes, len(store.parts)
        await delivery.finish(OVER)
        left[seconds] = store.bytes - before[0], len(store.parts) - before[1]
        assert sum(map(len, media(store).values())) > RATE * seconds
    for sent, parts in left.values():
        # Part 1, the seconds that files lie behind the call, and what did not fill a part.
        assert sent <= 2 * PART_BYTES + 30 * RATE
        assert parts <= 3


class StalledLogs:
    """A disk that takes facts, while frames wait until they are let go."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.free = threading.Event()
        write = writer_module.write_all

        def stalled(fd: int, buffers: Sequence[bytes]) -> None:
            assert buffers[0].startswith(b"{") or self.free.wait(60)
            write(fd, buffers)

        patch.setattr(writer_module, "write_all", stalled)


async def test_a_session_is_not_over_before_its_last_frames_are_in_the_spool(
    spool: Path, store: CountingStore, lanes: Lanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the disk takes for them, and however often we look meanwhile."""
    writer, delivery = SpoolWriter(spool), an_agent(spool, store, lanes)
    packets = opus_packets(50)

    def note(event: str, at: float, **fields: object) -> None:
        writer.journal(event, MONO_NS + round(at * SECOND), **fields)

    def speak(numbers: range) -> None:
        for number in numbers:
            log.append(number * 960, MONO_NS + number * 20_000_000, int(Flag.KEY), packets[number % 50])

    note("start", 0, version=1, wall_ns=WALL_NS, attempt=1, recording_uid="0123456789abcdef", tells_written=True)
    note("participant", 0, peer_id="PA_a", user_id="alice", name="Alice", recorded=True)
    log = writer.open_track()
    note(
        "track", 0, track=log.name, track_id="TR_1", peer_id="PA_a", user_id="alice", source="microphone", kind="audio"
    )
    note("codec", 0, track=log.name, codec="opus", clock_rate=48_000, channels=2, fmtp="")
    note("ssrc", 0, track=log.name, ssrc=1, timestamp=0)
    speak(range(100))
    writer.flush()
    disk = StalledLogs(monkeypatch)
    speak(range(100, 125))
    note("track_ended", 2.5, track=log.name, reason="left")
    note("participant_left", 2.5, peer_id="PA_a", reason="left")
    writer.flush_soon()
    for _ in range(3):
        assert await delivery.round() == 0
    note("written", 3)
    disk.free.set()
    writer.flush()
    assert await delivery.round() == 1
    assert [file.tracks[0].frames for file in delivery.files] == [125]
    writer.close()


async def test_live_files_are_those_made_afterwards_and_the_spool_is_given_back(
    spool: Path, store: CountingStore, lanes: Lanes, tmp_path: Path
) -> None:
    call, whole = LiveSpool(spool, people=2), tmp_path / "whole"
    delivery = an_agent(spool, store, lanes)
    most = 0
    for until in range(7, 160, 7):
        call.run(until)
        keep_copy(spool, whole)
        await delivery.round()
        await delivery.reclaim(None)
        most = max(most, sum(path.stat().st_size for path in segments(spool)))
    call.stop()
    keep_copy(spool, whole)
    await delivery.finish(OVER)
    assert media(store) == made_locally(whole, tmp_path / "local")
    assert most < 2 * (40 * RATE + 2 * 4 * 1024 * 1024)
    assert max(Counter(store.parts).values()) == 1
    assert not store.uploads
    assert not list((spool / "ship" / "parts").iterdir())


@pytest.mark.parametrize("seed", range(6))
async def test_an_agent_killed_anywhere_goes_on_without_the_reclaimed_spool(
    spool: Path, store: CountingStore, tmp_path: Path, seed: int
) -> None:
    """Killed at random calls of the storage again and again; nothing acknowledged is sent twice, no byte is other."""
    chance = random.Random(seed)
    call, whole = LiveSpool(spool, people=2, picture_bytes=20_000), tmp_path / "whole"
    kills = 0

    def maybe_die(_operation: str, _key: str) -> None:
        if chance.random() < 0.12:
            raise Killed

    until = 0.0
    while until < 70:
        with closing(Lanes()) as lanes:
            delivery = an_agent(spool, store, lanes)
            store.before = maybe_die
            try:
                while until < 70:
                    until += chance.choice((3, 11, 24))
                    call.run(until)
                    keep_copy(spool, whole)
                    await delivery.round()
                    await delivery.reclaim(None)
            except Killed:
                kills += 1
    call.stop()
    keep_copy(spool, whole)
    while True:
        with closing(Lanes()) as lanes:
            try:
                await an_agent(spool, store, lanes).finish(OVER)
                break
            except Killed:
                kills += 1
    assert kills > 0
    assert media(store) == made_locally(whole, tmp_path / "local")
    # NB: dying is before the storage does anything here, so no acknowledgement is ever lost on the way.
    assert max(Counter(store.parts).values()) == 1
    assert not store.uploads
    assert any(not (spool / path.relative_to(whole)).exists() for path in segments(whole)), "nothing was given back"


async def test_a_long_quiet_call_needs_no_more_disk_than_a_short_one(
    spool: Path, store: CountingStore, tmp_path: Path
) -> None:
    """What is journalled is given back like what is seen: by an agent that is killed all the time, byte for byte the same."""
    call, whole = LiveSpool(spool, picture_bytes=300, segment_bytes=16_384, facts_per_tick=1), tmp_path / "whole"
    checkpoints = Checkpoints(spool, a_shipping_intent(), store)
    most: list[int] = []
    for until in range(10, 200, 10):
        with closing(Lanes()) as lanes:
            delivery = an_agent(spool, store, lanes)
            call.run(until)
            keep_copy(spool, whole)
            await checkpoints.flush(lanes)
            await delivery.round()
            await delivery.reclaim(checkpoints.sent)
            most.append(sum(path.stat().st_size for path in (spool / "i0001").glob("journal*")))
    call.stop()
    keep_copy(spool, whole)
    with closing(Lanes()) as lanes:
        await an_agent(spool, store, lanes).finish(OVER)
    assert media(store) == made_locally(whole, tmp_path / "local")
    journalled = sum(path.stat().st_size for path in (whole / "i0001").glob("journal*"))
    assert max(most[:8]) * 1.2 >= max(most), "it does not grow"
    assert journalled > 5 * max(most)


async def test_a_backlog_of_many_people_is_muxed_by_room(
    spool: Path, store: CountingStore, lanes: Lanes, tmp_path: Path
) -> None:
    """The storage was away for a minute and the spool is two thirds full: making files of it must not fill the rest."""
    capacity = 128 * 1024 * 1024
    call = LiveSpool(spool, people=8, segment_bytes=256 * 1024)
    call.run(58)
    backlog = folder_bytes(spool)
    assert 0.6 < backlog / capacity < 0.7
    call.stop()
    shutil.copytree(spool, tmp_path / "whole")
    checkpoints = Checkpoints(spool, a_shipping_intent(), store)
    await checkpoints.flush(lanes)
    most = 0

    def watch(_operation: str, _key: str) -> None:
        nonlocal most
        most = max(most, folder_bytes(spool))

    store.before = watch
    delivery = Delivery(spool, a_shipping_intent(), store, lanes, room=Room(spool, capacity))
    delivery.copied = lambda: checkpoints.sent
    await delivery.round()
    await delivery.finish(OVER)
    assert media(store) == made_locally(tmp_path / "whole", tmp_path / "local")
    assert most < 0.75 * capacity, f"{most / capacity:.2f} of the disk"


async def test_on_a_full_disk_nothing_is_muxed_while_the_storage_is_away(
    spool: Path, store: CountingStore, lanes: Lanes
) -> None:
    """Nothing of it could be sent, and nothing be given back: it only took what is left for sound, and came to the volume's limit."""
    call = LiveSpool(spool, people=4, segment_bytes=256 * 1024)
    call.run(40)
    checkpoints = Checkpoints(spool, a_shipping_intent(), store)
    delivery = Delivery(spool, a_shipping_intent(), store, lanes, room=Room(spool, round(folder_bytes(spool) / 0.85)))
    delivery.copied = lambda: checkpoints.sent
    store.trouble = Trouble("StorageUnavailable", "away")
    before = folder_bytes(spool)
    for _ in range(3):
        assert await delivery.round() == 0
    assert folder_bytes(spool) - before < 64 * 1024
    store.trouble = None
    await checkpoints.flush(lanes)
    await delivery.round()
    assert folder_bytes(spool / "ship" / "parts") > 0, "it goes on"
    call.stop()
    await delivery.finish(OVER)
    assert len(media(store)) == 4


async def test_what_all_sessions_together_mux_before_it_is_sent_is_bounded(
    spool: Path, store: CountingStore, lanes: Lanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much room there is, and however many people."""
    total = 12 * 1024 * 1024
    monkeypatch.setattr("isotrack_recorder.ship.budget.MOST_BYTES", total)
    call = LiveSpool(spool, people=6)
    call.run(140)
    grown: list[int] = []
    waiting: list[int] = []
    delivery = Delivery(spool, a_shipping_intent(), store, lanes)
    mux, bodies = delivery._mux, delivery._bodies

    def watch(sessions: Any, sending: Any) -> Any:
        before = bodies.written
        done = mux(sessions, sending)
        grown.append(bodies.written - before)
        waiting.append(sum(sending.values()) + grown[-1])
        return done

    monkeypatch.setattr(delivery, "_mux", watch)
    await delivery.round()
    group = 5 * RATE
    assert sum(grown) > 6 * total
    assert max(waiting) < total + 2 * group


async def test_others_are_muxed_while_a_part_is_sent(
    spool: Path, store: CountingStore, lanes: Lanes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first part is taken when something was muxed behind it: one after the other they would wait for each other for ever."""
    monkeypatch.setattr("isotrack_recorder.ship.budget.MOST_BYTES", 24 * 1024 * 1024)
    call = LiveSpool(spool, people=3)
    call.run(100)
    call.stop()
    delivery = an_agent(spool, store, lanes)
    is_sent, goes_on = threading.Event(), threading.Event()
    write = delivery._bodies.write

    def muxed(name: str, offset: int, data: bytes) -> None:
        write(name, offset, data)
        if is_sent.is_set():
            goes_on.set()

    def before(operation: str, _key: str) -> None:
        if operation == "upload_part" and not is_sent.is_set():
            is_sent.set()
            if not goes_on.wait(30):
                raise AssertionError("nothing was muxed meanwhile")

    monkeypatch.setattr(delivery._bodies, "write", muxed)
    store.before = before
    await delivery.finish(OVER)
    assert media(store) == made_locally(spool, tmp_path / "local")


async def test_sessions_that_are_left_to_checkpoints_need_no_disk_once_they_are_in_them(
    spool: Path, store: CountingStore, lanes: Lanes, tmp_path: Path
) -> None:
    """A successor's pod records on for hours what an earlier one began; its files are made of the bucket alone."""
    call, whole = LiveSpool(spool, people=2, segment_bytes=65_536, facts_per_tick=1), tmp_path / "whole"
    checkpoints, delivery = Checkpoints(spool, a_shipping_intent(), store), an_agent(spool, store, lanes)
    delivery.leaves = lambda peer, _facts: peer.peer_id == "PA_0"

    def on_disk() -> dict[str, int]:
        return {f"i0001/{path.name}": path.stat().st_size for path in (spool / "i0001").glob("[tj]*") if path.is_file()}

    call.run(20)
    await delivery.round()
    await delivery.reclaim({})
    assert (spool / "i0001" / "t0002.000001.log").exists(), "nothing is in a checkpoint"
    call.leave(0)
    for until in range(25, 75, 10):
        call.run(until)
        keep_copy(spool, whole)
        await checkpoints.flush(lanes)
        await delivery.round()
        await delivery.reclaim(checkpoints.sent)
        if until == 25:
            names = [name for name in on_disk() if name.startswith(("i0001/t0001", "i0001/t0002"))]
            assert len(names) == 2, "the newest of both may still be written"
    assert not [name for name in on_disk() if name.startswith(("i0001/t0001", "i0001/t0002"))]
    call.stop()
    keep_copy(spool, whole)
    await delivery.finish(OVER)
    local = made_locally(whole, tmp_path / "local")
    assert media(store) == {name: body for name, body in local.items() if "user-1" in name}


async def test_a_session_whose_facts_were_given_back_does_not_begin_anew(
    spool: Path, store: CountingStore, lanes: Lanes
) -> None:
    """Its frames are all there; but without its reports they would lie elsewhere."""
    call = LiveSpool(spool, picture_bytes=100, segment_bytes=1_200_000, facts_per_tick=3)
    delivery = an_agent(spool, store, lanes)
    for until in (25, 65):
        call.run(until)
        await delivery.round()
    assert await delivery.reclaim(None) > 0
    assert len(list(segments(spool))) == 2, "no frame was given back"
    (state,) = (spool / "ship" / "sessions").iterdir()
    state.write_bytes(b"damaged")
    call.stop()
    with pytest.raises(IsotrackError, match="the spool has been reclaimed"):
        await an_agent(spool, store, lanes).finish(OVER)


async def test_facts_that_are_not_checkpointed_stay(spool: Path, store: CountingStore, lanes: Lanes) -> None:
    call = LiveSpool(spool, picture_bytes=300, segment_bytes=8192, facts_per_tick=1)
    call.run(60)
    delivery = an_agent(spool, store, lanes)
    await delivery.round()
    sizes = {path.name: path.stat().st_size for path in (spool / "i0001").glob("journal*.ndjson")}
    sent = {f"i0001/{name}": size for name, size in sizes.items()} | {"i0001/journal.000003.ndjson": 8000}
    await delivery.reclaim(sent)
    left = {path.name for path in (spool / "i0001").glob("journal*.ndjson")}
    assert sizes.keys() - left == {"journal.ndjson", "journal.000002.ndjson"}
    call.stop()


async def test_a_session_that_ends_is_complete_seconds_later(spool: Path, store: CountingStore, lanes: Lanes) -> None:
    call = LiveSpool(spool, people=2)
    delivery = an_agent(spool, store, lanes)
    call.run(70)
    call.leave(0)
    call.run(71)
    assert await delivery.round() == 1
    assert [file.user_id for file in delivery.files] == ["user-0"]
    await delivery.reclaim(None)
    assert not list(spool.glob("i0001/t0001.*")), "nothing of a session that is over is needed"
    call.run(75)
    call.stop()
    await delivery.finish(OVER)
    assert [file.user_id for file in delivery.files] == ["user-0", "user-1"]


async def test_an_upload_that_the_storage_lost_is_made_again_from_the_spool(
    spool: Path, store: CountingStore, lanes: Lanes, tmp_path: Path
) -> None:
    call = LiveSpool(spool, picture_age_ms=80)
    delivery = an_agent(spool, store, lanes)
    call.run(160)
    await delivery.round()
    assert len(store.parts) >= 2
    store.uploads.clear()
    call.run(260)
    await delivery.round()
    call.stop()
    await delivery.finish(OVER)
    assert media(store) == made_locally(spool, tmp_path / "local")


async def test_an_upload_lost_behind_a_reclaimed_spool_is_told_and_costs_no_other_file(
    spool: Path, store: CountingStore, lanes: Lanes
) -> None:
    call = LiveSpool(spool, people=2)
    delivery = an_agent(spool, store, lanes)
    call.run(200)
    await delivery.round()
    assert await delivery.reclaim(None) > 0
    lost = next(iter(store.uploads))
    del store.uploads[lost]
    call.stop()
    with pytest.raises(IsotrackError, match="the spool has been reclaimed"):
        await delivery.finish(OVER)
    assert len(media(store)) == 1
    recording = Manifest.model_validate_json(store.objects[f"{ROOT}/recording.json"])
    assert not recording.complete
    assert "the spool has been reclaimed" in recording.message


async def test_an_upload_lost_behind_a_reclaimed_spool_is_made_good_by_checkpoints(
    spool: Path, store: CountingStore, lanes: Lanes, tmp_path: Path
) -> None:
    """A lifecycle rule ends uploads that are a day old, say. What was muxed of the file fills no disk from then on."""
    call, whole, intent = LiveSpool(spool, picture_bytes=30_000), tmp_path / "whole", a_shipping_intent()
    checkpoints, delivery = Checkpoints(spool, intent, store), an_agent(spool, store, lanes)
    delivery.copied = lambda: checkpoints.sent

    async def shipped_until(seconds: float) -> None:
        call.run(seconds)
        keep_copy(spool, whole)
        await checkpoints.flush(lanes)
        await delivery.round()
        await delivery.reclaim(checkpoints.sent)

    await shipped_until(50)
    assert store.parts, "nothing went out"
    store.uploads.clear()
    await shipped_until(75)
    assert delivery.gave_up
    await shipped_until(85)
    assert not list((spool / "ship" / "parts").iterdir())
    assert len(list(segments(spool))) == 2, "what lies in checkpoints stays on the disk"
    call.stop()
    keep_copy(spool, whole)
    await checkpoints.flush(lanes)
    await delivery.finish(End(recording_over=False))
    recovery = Recovery(store, lanes, layout_of(intent), tmp_path / "scratch", intent)
    recording = await recovery.finalise()
    assert recording is not None
    assert recording.manifest.complete
    assert media(store) == made_locally(whole, tmp_path / "local")
    assert not store.uploads


async def test_what_the_command_line_cannot_make_of_its_spool_is_made_of_its_checkpoints(
    spool: Path, store: CountingStore, lanes: Lanes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, whole, intent = LiveSpool(spool, picture_bytes=30_000), tmp_path / "whole", a_shipping_intent()
    checkpoints, shipper = Checkpoints(spool, intent, store), an_agent(spool, store, lanes)
    call.run(50)
    keep_copy(spool, whole)
    await checkpoints.flush(lanes)
    await shipper.round()
    assert await shipper.reclaim(checkpoints.sent) > 0
    store.uploads.clear()
    call.run(55)
    call.stop()
    keep_copy(spool, whole)
    monkeypatch.setattr("isotrack_recorder.ship.standalone.S3Store", lambda *_: store)
    delivered = await finish_recording(spool, intent, AmbientCredentials(), NOBODY)
    assert delivered.recording is not None
    assert delivered.recording.manifest.complete
    assert media(store) == made_locally(whole, tmp_path / "local")
    assert not [key for key in store.objects if key.endswith(".ckpt")]


async def test_a_session_whose_uploads_are_lost_again_and_again_is_left_to_checkpoints(
    spool: Path, store: CountingStore, lanes: Lanes
) -> None:
    """Somebody aborts whatever is unfinished. Without checkpoints the round fails, and its bytes wait for better times."""
    call = LiveSpool(spool, picture_bytes=30_000)
    call.run(50)
    checkpoints = Checkpoints(spool, a_shipping_intent(), store)
    await checkpoints.flush(lanes)
    store.before = lambda operation, _key: store.uploads.clear() if operation == "upload_part" else None
    alone = an_agent(spool, store, lanes)
    with pytest.raises(StorageError):
        await alone.round()
    before, store.before = store.before, lambda _operation, _key: None
    await alone.round()
    assert store.parts, "better times came"
    store.before = before
    call.run(75)
    await checkpoints.flush(lanes)
    delivery = an_agent(spool, store, lanes)
    delivery.copied = lambda: checkpoints.sent
    await delivery.round()
    assert delivery.gave_up
    await delivery.round()
    assert not list((spool / "ship" / "parts").iterdir())
    call.stop()


async def test_a_session_that_cannot_be_made_keeps_no_other_one_on_the_disk(
    spool: Path, store: CountingStore, lanes: Lanes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its failure, which comes with each round, would fill the disk with everybody's media."""
    call = LiveSpool(spool, people=2, picture_bytes=30_000)
    delivery = an_agent(spool, store, lanes)
    call.run(50)
    await delivery.round()
    await delivery.reclaim(None)
    broken = next(iter(store.uploads))
    other = "t0004" if "user-0" in store.uploads[broken].key else "t0002"
    del store.uploads[broken]
    call.run(75)
    before = {path for path in segments(spool) if path.name.startswith(other)}
    over = asyncio.get_running_loop().create_future()
    to_the_end = delivery.round

    async def last_round() -> int:
        over.set_result(None)
        return await to_the_end()

    monkeypatch.setattr(delivery, "round", last_round)
    await keep_delivering(delivery, lambda: None, over, round_seconds=0, delivered=lambda: None)
    assert before - set(segments(spool))
    call.stop()


async def test_a_full_disk_stops_muxing_until_there_is_room(
    spool: Path, store: CountingStore, lanes: Lanes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = LiveSpool(spool, picture_age_ms=80)
    delivery = an_agent(spool, store, lanes)
    call.run(60)
    await delivery.round()
    write = Bodies.write

    def no_room(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Bodies, "write", no_room)
    call.run(120)
    with pytest.raises(IsotrackError, match="could not be made"):
        await delivery.round()
    monkeypatch.setattr(Bodies, "write", write)
    call.run(180)
    await delivery.round()
    call.stop()
    await delivery.finish(OVER)
    assert media(store) == made_locally(spool, tmp_path / "local")


@pytest.mark.parametrize("damage", [b"", b"00000000 {}", b"\xff" * 100])
async def test_a_damaged_state_is_made_good_from_the_spool(
    spool: Path, store: CountingStore, lanes: Lanes, tmp_path: Path, damage: bytes
) -> None:
    call = LiveSpool(spool)
    call.run(120)
    await an_agent(spool, store, lanes).round()
    (state,) = (spool / "ship" / "sessions").iterdir()
    state.write_bytes(damage)
    call.run(130)
    call.stop()
    await an_agent(spool, store, lanes).finish(OVER)
    assert media(store) == made_locally(spool, tmp_path / "local")
    assert not store.uploads


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda state: state.update(group=1 << 40), id="refused-at-once"),
        pytest.param(lambda state: [log.update(codec=7) for log in state["logs"].values()], id="found-on-the-way"),
    ],
)
async def test_a_state_that_is_wrong_under_a_right_checksum_is_made_good_from_the_spool(
    spool: Path, store: CountingStore, lanes: Lanes, tmp_path: Path, damage: Callable[[dict[str, Any]], object]
) -> None:
    """Who can write the volume can write that."""
    call = LiveSpool(spool)
    call.run(120)
    await an_agent(spool, store, lanes).round()
    (path,) = (spool / "ship" / "sessions").iterdir()
    state = json.loads(path.read_bytes().partition(b" ")[2])
    damage(state)
    text = json.dumps(state).encode()
    path.write_bytes(b"%08x %s" % (zlib.crc32(text), text))
    call.run(130)
    call.stop()
    await an_agent(spool, store, lanes).finish(OVER)
    assert media(store) == made_locally(spool, tmp_path / "local")


async def test_bytes_that_a_state_relies_on_and_that_are_gone_are_made_again(
    spool: Path, store: CountingStore, lanes: Lanes, tmp_path: Path
) -> None:
    call = LiveSpool(spool)
    call.run(120)
    await an_agent(spool, store, lanes).round()
    for path in (spool / "ship" / "parts").iterdir():
        path.unlink()
    call.stop()
    await an_agent(spool, store, lanes).finish(OVER)
    assert media(store) == made_locally(spool, tmp_path / "local")


def test_segments_are_given_back_when_covered_and_checkpointed(tmp_path: Path) -> None:
    def names() -> list[str]:
        return sorted(path.name for path in (tmp_path / "i0001").iterdir())

    (tmp_path / "i0001").mkdir()
    for name in ("t0001.000001.log", "t0001.000002.log", "t0001.000003.log", "t0002.000001.log", "journal.ndjson"):
        (tmp_path / "i0001" / name).write_bytes(bytes(100))
    everything = names()
    assert reclaim(tmp_path, {"i0001/t0001": Position(1, 50), "i0001/t0002": Position()}, None) == 0
    assert reclaim(tmp_path, {"i0001/t0001": Position(3, 50)}, {}) == 0
    assert reclaim(tmp_path, {"i0001/t0001": Position(3, 50)}, {"i0001/t0001.000001.log": 99}) == 0
    assert names() == everything
    assert reclaim(tmp_path, {"i0001/t0001": Position(3, 50)}, {"i0001/t0001.000001.log": 100}) == 100
    assert names() == [name for name in everything if name != "t0001.000001.log"]
    assert reclaim(tmp_path, {"i0001/t0001": Position(3, 50), "i0001/t0003": Position(9)}, None) == 100
    assert names() == ["journal.ndjson", "t0001.000003.log", "t0002.000001.log"]


def keep_copy(spool: Path, whole: Path) -> None:
    """Follow a spool of which segments go away."""
    for path in (*segments(spool), *spool.glob("i*/journal*.ndjson")):
        copy = whole / path.relative_to(spool)
        if not copy.exists() or copy.stat().st_size != path.stat().st_size:
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)


class Killed(BaseException):
    """Stands for kill -9: nobody catches it."""
