"""What a sweep finds in a bucket, and what it leaves alone."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from isotrack_api.intent import S3Destination
from isotrack_recorder.errors import ConfigError, IsotrackError, StorageRefusedError
from isotrack_recorder.pod.finaliser import Place, abandoned, sweep
from isotrack_recorder.ship.abandoned import find_folders, open_folder
from isotrack_recorder.ship.checkpoints import Checkpoints
from isotrack_recorder.ship.claim import claim_attempt
from isotrack_recorder.ship.lanes import Lanes
from isotrack_recorder.ship.layout import layout_of
from isotrack_recorder.ship.preflight import check_storage
from isotrack_recorder.ship.watch import Look
from support.memory_store import MemoryStore
from support.shipping import a_shipping_intent, two_people
from support.spools import Call
from support.waiting_store import Waiting

BUCKET = S3Destination(bucket="memory", prefix="calls")
RUN = "0123456789abcdef"
INTENT, RECORDING = "intent.json", "recording.json"
BEGUN, ENDED = "attempts/1/intent.json", "attempts/1/manifest.json"
COPY = f"attempts/1/checkpoints/{RUN}/00000001.ckpt"


def a_bucket(name: str, *keys: str, age: float = 3600, checkpoint_seconds: int = 5) -> MemoryStore:
    """A bucket with one folder, last written to `age` seconds ago."""
    store = MemoryStore()
    intent = a_shipping_intent(storage=BUCKET.model_copy(update={"checkpoint_seconds": checkpoint_seconds}))
    for key in keys:
        body = intent.to_json().encode() if key == INTENT else b"{}"
        store.put(f"calls/team-a/{name}/{key}", body, "application/json")
    store.modified = dict.fromkeys(store.objects, time.time() - age)
    return store


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        pytest.param((INTENT, BEGUN, COPY), True, id="a dead pod's checkpoints"),
        pytest.param((INTENT, BEGUN, ENDED), True, id="drained and not followed"),
        pytest.param((INTENT, BEGUN, COPY, ENDED, RECORDING), True, id="checkpoints that should have been deleted"),
        pytest.param((INTENT, BEGUN, ENDED, RECORDING, "alice.mkv"), False, id="finished"),
        pytest.param((INTENT, BEGUN), False, id="nothing was captured"),
        pytest.param((COPY, BEGUN), False, id="not a recording"),
        pytest.param(("manifest.json", "x.ckpt"), False, id="somebody else's objects"),
    ],
)
def test_a_sweep_finds_what_is_unfinished(keys: tuple[str, ...], found: bool) -> None:
    folders = abandoned(a_bucket("standup-1", *keys), BUCKET, 600, 0)
    assert [folder.root for folder in folders] == (["calls/team-a/standup-1"] if found else [])


@pytest.mark.parametrize(
    ("age", "checkpoint_seconds", "found"),
    [(599, 5, False), (601, 5, True), (3600, 0, False), (86400 + 3601, 0, True)],
)
def test_a_recording_at_work_is_left_alone(age: float, checkpoint_seconds: int, found: bool) -> None:
    """One that writes no checkpoints may be silent for as long as it may last."""
    store = a_bucket("x", INTENT, BEGUN, ENDED, age=age, checkpoint_seconds=checkpoint_seconds)
    assert bool(abandoned(store, BUCKET, 600, 0)) is found


def test_folders_are_told_apart_whatever_they_are_called() -> None:
    store = a_bucket("attempts", INTENT, BEGUN, COPY)
    [folder] = find_folders(store.list_objects("calls/"))
    assert folder.root == "calls/team-a/attempts"
    assert folder.checkpoints


def test_a_folder_is_opened_where_it_was_found() -> None:
    """An endpoint inside of a cluster has another name outside."""
    store = a_bucket("standup-1", INTENT, checkpoint_seconds=60)
    outside = BUCKET.model_copy(update={"endpoint": "https://s3.example.com"})
    layout, intent = open_folder(store, outside, "calls/team-a/standup-1")
    assert layout_of(intent) == layout
    assert intent.storage is not None
    assert (intent.storage.endpoint, intent.storage.checkpoint_seconds) == ("https://s3.example.com", 60)
    with pytest.raises(ConfigError, match="not the folder of a recording"):
        open_folder(store, outside, "calls/team-a")


@pytest.mark.parametrize("damage", [b"", b'{"version": 1, "rec', None], ids=["empty", "cut", "gone"])
def test_a_folder_whose_intent_is_damaged_is_opened_by_that_of_an_attempt(damage: bytes | None) -> None:
    """Whole checkpoints lay there, and nobody could make the files: it counted as no recording's folder."""
    store = a_bucket("standup-1", COPY)
    folder = "calls/team-a/standup-1"
    intent = a_shipping_intent(storage=BUCKET)
    for attempt, body in ((1, b"\0"), (2, intent.model_copy(update={"attempt": 2}).to_json().encode())):
        store.put(f"{folder}/attempts/{attempt}/intent.json", body, "application/json")
    if damage is not None:
        store.put(f"{folder}/{INTENT}", damage, "application/json")
    layout, found = open_folder(store, BUCKET, folder)
    assert (layout.root, found.recording, found.folder) == (folder, intent.recording, folder)


def test_a_folder_of_which_no_intent_can_be_read_is_told_from_none() -> None:
    store = a_bucket("standup-1", BEGUN, COPY)
    store.put(f"calls/team-a/standup-1/{INTENT}", b'{"version": 2}', "application/json")
    with pytest.raises(ConfigError, match="damaged, or of a newer version"):
        open_folder(store, BUCKET, "calls/team-a/standup-1")


# ── who is at work ───────────────────────────────────────────────────────────────────────────────────────────────────


class Scene:
    """A bucket with recordings of which everything is an hour old: the storage was away, or nobody is left."""

    def __init__(self, path: Path, lanes: Lanes) -> None:
        self.store = MemoryStore()
        self.waiting = Waiting(self.store)
        self._path, self._lanes = path, lanes

    def recording(self, name: str) -> tuple[Call, Checkpoints]:
        """One whose agent has copied a second of it, and has begun to upload a file."""
        folder = f"team-a/{name}"
        intent = a_shipping_intent().model_copy(update={"folder": folder})
        call = two_people(self._path / name)
        checkpoints = Checkpoints(self._path / name, intent, self.store)
        assert claim_attempt(self.store, layout_of(intent), 1, checkpoints.run)
        check_storage(self.store, layout_of(intent), intent)
        call.write(until=1.0)
        checkpoints.ship()
        self.store.create_upload(f"calls/{folder}/bob.mkv", "video/matroska")
        self.grow_old()
        return call, checkpoints

    def grow_old(self) -> None:
        """An hour passes."""
        self.store.modified = dict.fromkeys(self.store.objects, time.time() - 3600)

    async def sweep(self, watched: float = 90, at_work: Collection[str] = ()) -> int:
        finished, failures = await self.try_all(watched, at_work)
        assert not failures
        return finished

    async def try_all(self, watched: float = 90, at_work: Collection[str] = ()) -> tuple[int, list[IsotrackError]]:
        """A sweep that may fail."""
        place = Place(self._path, self._path / "termination", self._path / "scratch", None, self.waiting)
        return await sweep(
            self.store, self._lanes, BUCKET, place,
            minimum=600, watched=watched, at_work=at_work, clock=self.waiting.clock,
        )  # fmt: skip

    def is_untouched(self, name: str) -> bool:
        """Neither finished nor cleared."""
        root = f"calls/team-a/{name}/"
        written = {key.removeprefix(root) for key in self.store.objects if key.startswith(root)}
        ended = {"recording.json", "attempts/1/manifest.json", "attempts/recovered.json"}
        uploads = list(self.store.unfinished(root))
        return not written & ended and any(key.endswith(".ckpt") for key in written) and len(uploads) == 1


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with closing(Lanes()) as lanes:
        yield Scene(tmp_path, lanes)


async def test_a_recording_that_nobody_writes_to_is_finished(scene: Scene) -> None:
    scene.recording("left")
    assert await scene.sweep() == 1
    assert "calls/team-a/left/recording.json" in scene.store.objects
    assert not [key for key in scene.store.objects if key.endswith(".ckpt")]
    assert not scene.store.uploads
    assert scene.waiting.now == 90


async def test_a_recording_that_is_not_over_is_left_alone_however_silent(scene: Scene) -> None:
    """Its pod was refused for an hour, or cannot reach the storage from where it is, and captures on."""
    scene.recording("standup-01234567")
    scene.recording("left-89abcdef")
    assert await scene.sweep(at_work={"01234567"}) == 1
    assert scene.is_untouched("standup-01234567")


@pytest.mark.parametrize("moment", [1, 50, 89])
async def test_an_agent_that_comes_back_from_an_outage_is_left_alone(scene: Scene, moment: float) -> None:
    """The storage was away for an hour, so everything looks an hour old; the agent is in a pause between two tries."""
    call, checkpoints = scene.recording("live")

    def write() -> None:
        call.write(until=2.0)
        checkpoints.ship()

    scene.waiting.at(moment, write)
    assert await scene.sweep() == 0
    assert scene.is_untouched("live")


async def test_what_nobody_can_make_files_of_is_tried_once_and_stays(scene: Scene) -> None:
    """Its first checkpoint is gone, and with it what its tracks are. Each sweep failed at it, every ten minutes, for ever."""
    call, checkpoints = scene.recording("hopeless")
    call.write(until=2.0)
    checkpoints.ship()
    copies = [key for key in scene.store.objects if key.endswith(".ckpt")]
    del scene.store.objects[copies[0]]
    scene.grow_old()
    finished, failures = await scene.try_all()
    assert finished == 0
    assert "nothing tells what 2 tracks are" in str(failures[0])
    scene.grow_old()
    before, watched = dict(scene.store.objects), scene.waiting.now
    assert await scene.sweep() == 0  # takes back what it had begun to upload
    assert not scene.store.uploads
    assert scene.waiting.now > watched
    watched = scene.waiting.now
    assert await scene.sweep() == 0
    assert scene.waiting.now == watched  # nothing is left to be watched
    assert scene.store.objects == before
    assert copies[1] in before


async def test_what_comes_behind_a_hopeless_try_is_tried_again(scene: Scene) -> None:
    call, checkpoints = scene.recording("hopeless")
    call.write(until=2.0)
    checkpoints.ship()
    del scene.store.objects[next(key for key in scene.store.objects if key.endswith(".ckpt"))]
    scene.grow_old()
    await scene.try_all()
    call.write(until=3.0)
    checkpoints.ship()
    scene.grow_old()
    _, failures = await scene.try_all()
    assert len(failures) == 1


async def test_folders_are_watched_at_the_same_time(scene: Scene) -> None:
    scene.recording("left")
    scene.recording("also-left")
    call, checkpoints = scene.recording("live")
    scene.waiting.at(60, lambda: (call.write(until=2.0), checkpoints.ship()))
    assert await scene.sweep() == 2
    assert scene.is_untouched("live")
    assert scene.waiting.now == 90


async def test_an_agent_that_comes_back_as_its_recording_is_read_is_left_alone(scene: Scene) -> None:
    """Right before the first write to a folder it is looked at once more: others before it took their time."""
    call, checkpoints = scene.recording("live")

    def read(operation: str, key: str) -> None:
        if operation == "get_range" and key.endswith(".ckpt"):
            scene.store.before = lambda _operation, _key: None
            call.write(until=2.0)
            checkpoints.ship()

    scene.store.before = read
    assert await scene.sweep() == 0
    assert scene.is_untouched("live")


async def test_a_storage_that_goes_away_again_has_the_watch_begin_anew(scene: Scene) -> None:
    """Who was kept from writing for most of it was not silent."""
    call, checkpoints = scene.recording("live")

    def away(operation: str, _key: str) -> None:
        if operation == "list" and 60 <= scene.waiting.now < 100:
            scene.waiting.goes_on(240)

    scene.store.before = away
    scene.waiting.at(330, lambda: (call.write(until=2.0), checkpoints.ship()))
    assert await scene.sweep() == 0
    assert scene.is_untouched("live")


def an_upload(scene: Scene, *keys: str, age: float, checkpoint_seconds: int = 0) -> None:
    """A folder with an unfinished upload and without checkpoints."""
    store = a_bucket("x", INTENT, *keys, age=age, checkpoint_seconds=checkpoint_seconds)
    scene.store.objects |= store.objects
    scene.store.modified |= store.modified
    scene.store.create_upload("calls/team-a/x/bob.mkv", "video/matroska")


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param((BEGUN,), id="lost without checkpoints"),
        pytest.param((BEGUN, ENDED, RECORDING), id="whoever finished it died before the end"),
    ],
)
async def test_uploads_that_nobody_will_complete_are_taken_back(scene: Scene, keys: tuple[str, ...]) -> None:
    an_upload(scene, *keys, age=86400 + 3700)
    before = dict(scene.store.objects)
    assert await scene.sweep() == 0, "there is nothing to make files of"
    assert not scene.store.uploads
    assert scene.store.objects == before
    assert scene.waiting.now == 90


@pytest.mark.parametrize("checkpoint_seconds", [0, 5])
async def test_uploads_alone_are_left_for_as_long_as_a_recording_may_last(
    scene: Scene, checkpoint_seconds: int
) -> None:
    """Parts that arrive are not seen in a listing."""
    an_upload(scene, BEGUN, age=86400, checkpoint_seconds=checkpoint_seconds)
    await scene.sweep()
    assert scene.store.uploads


async def test_uploads_of_a_folder_that_is_written_to_while_it_is_watched_are_left(scene: Scene) -> None:
    an_upload(scene, BEGUN, age=86400 + 3700)
    scene.waiting.at(80, lambda: scene.store.put("calls/team-a/x/alice.mkv", b"x", "video/matroska"))
    await scene.sweep()
    assert scene.store.uploads


async def test_a_storage_that_lists_no_uploads_is_swept_all_the_same(scene: Scene) -> None:
    scene.recording("left")

    def refuse(operation: str, key: str) -> None:
        if operation == "unfinished" and key == "calls/":
            raise StorageRefusedError("no right to list uploads")

    scene.store.before = refuse
    assert await scene.sweep() == 1


async def test_a_sweep_that_is_told_to_go_takes_nothing(scene: Scene) -> None:
    scene.recording("left")
    scene.waiting.at(30, lambda: scene.waiting.end_within(0))
    assert await scene.sweep() == 0
    assert scene.is_untouched("left")


@pytest.mark.parametrize(
    ("objects", "seconds", "is_prompt"), [(1, 20, True), (1, 21, False), (17_000, 300, True), (17_000, 361, False)]
)
def test_a_long_listing_is_no_outage(objects: int, seconds: float, is_prompt: bool) -> None:
    [folder] = find_folders(a_bucket("x", INTENT, BEGUN, COPY).list_objects("calls/"))
    assert Look(replace(folder, objects=objects), 100, 100 + seconds).is_prompt is is_prompt
