"""What a sweep finds in a bucket, and what it leaves alone."""

from __future__ import annotations

import time

import pytest

from isotrack_api.intent import S3Destination
from isotrack_recorder.errors import ConfigError
from isotrack_recorder.pod.finaliser import abandoned
from isotrack_recorder.ship.abandoned import find_folders, open_folder
from isotrack_recorder.ship.layout import layout_of
from support.memory_store import MemoryStore
from support.shipping import a_shipping_intent

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
    assert abandoned(a_bucket("standup-1", *keys), BUCKET, 600) == (["calls/team-a/standup-1"] if found else [])


@pytest.mark.parametrize(
    ("age", "checkpoint_seconds", "found"),
    [(599, 5, False), (601, 5, True), (3600, 0, False), (86400 + 3601, 0, True)],
)
def test_a_recording_at_work_is_left_alone(age: float, checkpoint_seconds: int, found: bool) -> None:
    """One that writes no checkpoints may be silent for as long as it may last."""
    store = a_bucket("x", INTENT, BEGUN, ENDED, age=age, checkpoint_seconds=checkpoint_seconds)
    assert bool(abandoned(store, BUCKET, 600)) is found


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
