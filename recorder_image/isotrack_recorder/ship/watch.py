"""Find out that nobody works on a recording any more, by watching its folder for a while.

    old by its objects ─▶ Watch: looks at all such folders, step by step ─▶ nothing new for long enough ─▶ one more look ─▶ first write

Age alone does not tell. When a storage was away for ten minutes everything in it is that old, and whoever works on it is
in a pause between two tries. So a folder counts as left only when nothing comes to it for longer than an agent at work is
silent, while the storage answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from .abandoned import Folder, find_folders
from .recover import AWAY_SECONDS
from .store import Store

WATCH_SECONDS: Final = 90.0
"""The longest pause of an agent (30 s) and the longest time between its signs of life (60 s, with the usual interval 15 s)."""
STEPS: Final = 6
"""Looks in a watch. An outage in the midst of it is to be noticed, and who is seen at work needs no further look."""
_LISTED_AT_ONCE: Final = 1000
"""Objects of an answer; each may take its time."""

Clock = Callable[[], float]
"""Seconds, steadily."""


class AtWorkError(Exception):
    """Somebody works on this recording, or may do: leave it alone. Handled by whoever wanted to finish it."""


@dataclass(frozen=True, slots=True)
class Look:
    """A folder as it was seen, and how long that took."""

    folder: Folder | None
    """None = it is gone."""
    asked: float
    answered: float

    @property
    def is_prompt(self) -> bool:
        """Whether the storage was there all the while, as far as one can tell."""
        objects = self.folder.objects if self.folder is not None else 0
        return self.answered - self.asked <= AWAY_SECONDS * (1 + objects // _LISTED_AT_ONCE)


@dataclass(frozen=True, slots=True)
class Watch:
    """Folders to which nothing new has come so far. A value: `seen` gives the next one."""

    folders: tuple[Folder, ...]
    seconds: float
    """How long nothing may come."""
    since: float
    """From when on the storage has answered without a break."""

    def left(self, now: float) -> float:
        """Seconds until all that are still here count as left."""
        return max(0.0, self.since + self.seconds - now) if self.folders else 0.0

    def seen(self, looks: Mapping[str, Look]) -> Watch:
        """Go on with those that are as they were. Where the storage was away, the time begins anew: so do those who wait for it."""
        kept = tuple(folder for folder in self.folders if looks[folder.root].folder == folder)
        late = [look.answered for look in looks.values() if not look.is_prompt]
        return Watch(kept, self.seconds, max([self.since, *late]))


def watch(store: Store, folders: Iterable[Folder], seconds: float, clock: Clock = time.monotonic) -> tuple[Folder, ...]:
    """Look at folders for a time; those to which nothing came. None when the store's patience ends before.

    Args:
        seconds: How long nothing may come.
    Raises:
        StorageError: the storage does not answer.
    """
    watched = Watch(tuple(folders), seconds, clock())
    while (left := watched.left(clock())) > 0:
        if not store.patience.pause(min(left, seconds / STEPS)):
            return ()
        watched = watched.seen({folder.root: _look(store, folder.root, clock) for folder in watched.folders})
    return watched.folders


def look_again(store: Store, folder: Folder, clock: Clock = time.monotonic) -> None:
    """Right before the first write to a folder that was watched.

    Raises:
        AtWorkError: it is not as it was.
        StorageError: the storage does not answer.
    """
    look = _look(store, folder.root, clock)
    if look.folder != folder or not look.is_prompt:
        raise AtWorkError(f"something came to {folder.root!r} again")


def _look(store: Store, root: str, clock: Clock) -> Look:
    asked = clock()
    found = {folder.root: folder for folder in find_folders(store.list_objects(f"{root}/"))}
    return Look(found.get(root), asked, clock())
