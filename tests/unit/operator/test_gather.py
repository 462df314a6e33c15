"""What a start is decided from is what there is now, not what a watch told last."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from isotrack_api.recording_class import RecordingClass
from isotrack_operator.calls import Calls
from isotrack_operator.cluster import Cluster
from isotrack_operator.gather import Gatherer
from isotrack_operator.kinds import RECORDING, RECORDING_CLASS, Kind
from isotrack_operator.settings import Settings
from isotrack_operator.store import Store
from isotrack_operator.view import View
from support.operated import NOW, a_class, a_recording

Json = dict[str, Any]


def storing(prefix: str, *, generation: int, uid: str = "c1a55") -> Json:
    """A class whose recordings go below a prefix."""
    s3 = {"bucket": "recordings", "prefix": prefix, "credentials": {"secretName": "archive"}}
    body: Json = a_class(storages=[{"name": "archive", "s3": s3}]).model_dump(
        mode="json", by_alias=True, exclude_none=True
    )
    body["metadata"].update(uid=uid, generation=generation, resourceVersion=str(100 + generation))
    return body


class Api:
    """Has one class, and counts how often it is asked for."""

    def __init__(self, body: Json | None, store: Store, *, watched: bool) -> None:
        self.body = body
        self.asked = 0
        self._store = store
        self._watched = watched
        """The watch tells while the answer is on its way."""

    async def find(self, kind: Kind, namespace: str | None, name: str) -> Json | None:
        if kind is not RECORDING_CLASS:
            return None
        self.asked += 1
        if self._watched and self.body is not None:
            self._store.put(RECORDING_CLASS, self.body)
        return self.body

    async def has_secret(self, namespace: str, name: str) -> bool:
        return True


def gathered(copy: Json, now: Json | None, *, stopped: bool = False, watched: bool = False) -> tuple[View, Api]:
    """The view of a Recording that has no attempt yet; `copy` is the class as the store has it."""
    store = Store()
    api = Api(now, store, watched=watched)
    recording = a_recording(desiredState="Stopped") if stopped else a_recording()
    store.put(RECORDING, recording.body)
    store.put(RECORDING_CLASS, copy)
    settings = Settings(
        recorder_image="recorder:1", recorder_pull_secrets=(), namespace="isotrack-system", instance="me"
    )
    gatherer = Gatherer(cast("Cluster", api), store, Calls(lambda _: None), settings)
    return asyncio.run(gatherer.gather(recording.body, lambda: NOW)), api


def prefix_of(recording_class: RecordingClass | None) -> str | None:
    assert recording_class is not None
    return recording_class.spec.storages[0].s3.prefix


@pytest.mark.parametrize("watched", [False, True], ids=["unheard", "heard-meanwhile"])
@pytest.mark.parametrize(
    "now",
    [
        pytest.param(storing("new", generation=4), id="changed"),
        pytest.param(storing("new", generation=1, uid="c1a56"), id="made-anew"),
    ],
)
def test_a_recording_begins_under_its_class_as_it_is_now(now: Json, watched: bool) -> None:
    """Who changes a class and applies a Recording right behind means the changed one; a watch may tell of it later."""
    view, api = gathered(storing("old", generation=3), now, watched=watched)
    assert prefix_of(view.recording_class) == "new"
    assert api.asked == 2


def test_a_class_that_is_as_it_was_is_asked_for_once() -> None:
    view, api = gathered(storing("old", generation=3), storing("old", generation=3))
    assert prefix_of(view.recording_class) == "old"
    assert api.asked == 1


def test_nothing_begins_under_a_class_that_is_gone() -> None:
    view, _ = gathered(storing("old", generation=3), None)
    assert view.recording_class is None


def test_where_nothing_begins_the_class_is_not_asked_for() -> None:
    _, api = gathered(storing("old", generation=3), storing("new", generation=4), stopped=True)
    assert api.asked == 0
