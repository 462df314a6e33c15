"""Uploads that nobody will complete are found and aborted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from isotrack_recorder.ship.store import Unfinished, clear_abandoned
from support.memory_store import MemoryStore


class Forgetful(MemoryStore):
    """Lists at most one upload of each key, as servers do at the end of a page."""

    def unfinished(self, prefix: str) -> Iterator[Unfinished]:
        yield from {upload.key: upload for upload in super().unfinished(prefix)}.values()


class Stubborn(MemoryStore):
    """Lists uploads that were aborted."""

    def abort_upload(self, key: str, upload_id: str) -> None:
        self.before("abort_upload", upload_id)


@pytest.mark.parametrize("kind", [MemoryStore, Forgetful])
def test_all_uploads_of_the_folder_and_no_others(kind: type[MemoryStore]) -> None:
    store = kind()
    for key in ("a/rec/1", "a/rec/1", "a/rec/1", "a/rec/sub/2", "a/rec-10/1"):
        store.create_upload(key, "video/matroska")
    assert clear_abandoned(store, "a/rec/") == 4
    assert [upload.key for upload in store.unfinished("")] == ["a/rec-10/1"]


def test_an_upload_that_stays_listed_is_aborted_once() -> None:
    aborted: list[str] = []
    store = Stubborn()
    upload = store.create_upload("a/1", "video/matroska")
    store.before = lambda operation, name: aborted.append(name) if operation == "abort_upload" else None
    assert clear_abandoned(store, "a/") == 1
    assert aborted == [upload]


def test_a_prefix_that_could_match_a_neighbour_is_refused() -> None:
    with pytest.raises(ValueError, match="no folder"):
        clear_abandoned(MemoryStore(), "a/rec")
