"""Copies of what is watched."""

from __future__ import annotations

from typing import Any

from isotrack_operator.builders import names
from isotrack_operator.kinds import JOB, RECORDING
from isotrack_operator.store import Store
from support.operated import UID, a_job, a_recording


def a_copy(version: int, uid: str = UID, **more: Any) -> dict[str, Any]:
    body = a_recording().body
    body["metadata"].update(resourceVersion=str(version), uid=uid, **more)
    return body


def test_older_copy_never_replaces_a_newer_one() -> None:
    """The answer to our own write arrives before the watch brings it, and older events are still on their way."""
    store = Store()
    assert store.put(RECORDING, a_copy(100))
    assert not store.put(RECORDING, a_copy(99))
    found = store.get(RECORDING, ("team-a", "standup"))
    assert found is not None
    assert found["metadata"]["resourceVersion"] == "100"


def test_deletion_is_final_for_its_uid() -> None:
    store = Store()
    store.put(RECORDING, a_copy(1))
    store.drop(RECORDING, a_copy(2))
    assert not store.put(RECORDING, a_copy(3))
    assert store.put(RECORDING, a_copy(4, uid="another"))


def test_deletion_of_a_namesake_leaves_the_new_object() -> None:
    store = Store()
    store.put(RECORDING, a_copy(5, uid="new"))
    store.drop(RECORDING, a_copy(4, uid="old"))
    assert store.get(RECORDING, ("team-a", "standup")) is not None


def test_jobs_are_found_by_their_recording_in_its_namespace_only() -> None:
    store = Store()
    store.put(JOB, a_job().body)
    stranger = a_job(2).with_("metadata.namespace", "team-b").body
    store.put(JOB, stranger)
    assert [job["metadata"]["name"] for job in store.of_recording(JOB, UID, "team-a")] == [
        a_job().body["metadata"]["name"]
    ]
    store.drop(JOB, a_job().body)
    assert store.of_recording(JOB, UID, "team-a") == []


def test_label_that_changes_moves_the_object() -> None:
    store = Store()
    store.put(JOB, a_job().body)
    store.put(JOB, a_job().with_("metadata.labels", {names.UID_LABEL: "other"}).body)
    assert store.of_recording(JOB, UID, "team-a") == []
    assert len(store.of_recording(JOB, "other", "team-a")) == 1


def test_resync_drops_what_a_lost_event_left_behind_but_not_what_came_meanwhile() -> None:
    store = Store()
    store.put(RECORDING, a_copy(1, uid="old"))
    before = store.uids(RECORDING)
    store.put(RECORDING, a_copy(2, uid="new", name="later"))
    dropped = store.keep_only(RECORDING, before, set())
    assert [body["metadata"]["uid"] for body in dropped] == ["old"]
    assert store.uids(RECORDING) == {"new"}
