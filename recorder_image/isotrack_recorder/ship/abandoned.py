"""Recordings that nobody works on any more: find them in a bucket, and open one by its folder alone.

`intent.json` holds all that a stranger needs (should it be damaged, each attempt wrote it once more); where the bucket is, and with which credentials, the stranger knows better (an
endpoint inside of a cluster has another name outside).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from isotrack_api.intent import Intent, S3Destination
from isotrack_recorder.errors import ConfigError

from .intents import intent_of_an_attempt, read_intent
from .layout import Layout
from .store import Listed, Store

ABANDONED_SECONDS: Final = 600.0
"""A recording at work writes at least once a minute. Ten minutes forgive a storage that was away, and clocks."""
_RECORDING: Final = "recording.json"
_OF_ATTEMPT: Final = re.compile(r"(.*)/attempts/([0-9]+/.+|recovered\.json)")


@dataclass(frozen=True, slots=True)
class Folder:
    """One recording's folder, as a listing shows it."""

    root: str
    newest: float
    """When anything was last written there, Unix seconds by the storage's clock."""
    concluded: bool
    """It has a `recording.json`."""
    checkpoints: bool
    """It has checkpoints."""
    manifests: bool
    """Some attempt left a manifest."""
    objects: int
    traces: int
    """Changes with every object that comes, goes or is written again. Means nothing in another process."""

    @property
    def is_unfinished(self) -> bool:
        """Whether there is anything to do: media without a recording, or checkpoints that should have been deleted."""
        return self.checkpoints or (self.manifests and not self.concluded)


def find_folders(listing: Iterable[Listed]) -> Iterator[Folder]:
    """Folders of recordings below a prefix. Keeps a few values per folder in memory, no keys."""
    folders: dict[str, Folder] = {}
    for found in listing:
        match = _OF_ATTEMPT.fullmatch(found.key)
        root, name = (match[1], match[2]) if match else found.key.rpartition("/")[::2]
        known = folders.get(root) or Folder(
            root, 0.0, concluded=False, checkpoints=False, manifests=False, objects=0, traces=0
        )
        folders[root] = Folder(
            root,
            max(known.newest, found.modified),
            known.concluded or name == _RECORDING,
            known.checkpoints or (match is not None and name.endswith(".ckpt")),
            known.manifests or (match is not None and name.endswith("/manifest.json")),
            known.objects + 1,
            known.traces + hash(found),
        )
    yield from folders.values()


def open_folder(store: Store, destination: S3Destination, root: str) -> tuple[Layout, Intent]:
    """Read what a recording was to be.

    Args:
        root: Key prefix of the folder.
    Returns:
        Where everything lies; and the intent, pointing there.
    Raises:
        ConfigError: this is no recording's folder.
        StorageError: the storage does not answer.
    """
    layout = Layout(destination.bucket, root)
    intent = read_intent(store, layout) or intent_of_an_attempt(store, layout)
    if intent is None:
        where = layout.uri(layout.intent)
        if store.head(layout.intent) is None:
            raise ConfigError(f"{where} is not there: that is not the folder of a recording")
        raise ConfigError(f"{where} cannot be read, nor can that of any attempt: it is damaged, or of a newer version")
    seconds = {"checkpoint_seconds": intent.storage.checkpoint_seconds} if intent.storage else {}
    storage = destination.model_copy(update={"prefix": "", **seconds})
    return layout, intent.model_copy(update={"storage": storage, "folder": root})


def quiet_seconds(intent: Intent, minimum: float, *, uploads_only: bool = False) -> float:
    """How long nothing may have come to a folder before the recording counts as abandoned.

    One that writes no checkpoints may be silent for as long as it may last: parts of uploads are not seen in a listing.

    Args:
        uploads_only: There is nothing in it but unfinished uploads, which nobody needs.
    """
    if uploads_only or (intent.storage is not None and intent.storage.checkpoint_seconds == 0):
        return max(minimum, intent.limits.max_duration_seconds + 3600.0)
    return minimum
