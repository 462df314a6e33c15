"""One spool over all attempts of a recording: their recorder processes one after the other, numbered anew.

    chains (attempt, run) ─▶ i0001, i0002, … of each, by attempt and time ─▶ journals ─▶ who was left behind? ─▶ their logs

Placing them on one axis is the reader's work (`spool.facts`): processes of one boot share a clock, others are placed by their
wall clocks. Logs are fetched for a few sessions at a time, so that the disk holds what is being made into files, not the call.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from isotrack_api.manifest import Manifest
from isotrack_recorder.spool.facts import TrackFacts
from isotrack_recorder.spool.journal_files import journal_numbers, journal_path
from isotrack_recorder.spool.reader import Spool

from .checkpoint import is_journal, is_log
from .layout import Layout
from .rebuild import Chain, fetch
from .store import Store


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where one incarnation of the stitched spool comes from."""

    number: int
    """In the stitched spool."""
    chain: Chain
    folder: str
    """`i0001` in the spool that it was copied from."""

    @property
    def name(self) -> str:
        """Its folder in the stitched spool."""
        return f"i{self.number:04}"


class Stitched:
    """The spool. Journals are there from `fetch_journals` on, logs between `fetch_logs` and `drop_logs`."""

    def __init__(self, path: Path, chains: Sequence[Chain]) -> None:
        self.path = path
        ordered = sorted(chains, key=lambda chain: (chain.run.attempt, chain.begun_ms, chain.run.run))
        every = [(chain, folder) for chain in ordered for folder in chain.incarnations()]
        self._origins = tuple(_Origin(number, *row) for number, row in enumerate(every, 1))
        self._chains = tuple(ordered)
        self._attempt_of = {origin.name: origin.chain.run.attempt for origin in self._origins}
        self._spool = Spool(path)
        self.is_short = any(chain.length < chain.run.reach for chain in chains)
        """Something that was listed could not be read."""

    def fetch_journals(self, store: Store, layout: Layout) -> None:
        """Get all journals.

        Raises:
            StorageError, OutputError: see `fetch`.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self._fetch(store, layout, frozenset(), journals=True)
        self._drop_doubles()
        self._spool.refresh()

    def fetch_logs(self, store: Store, layout: Layout, peers: Sequence[str], manifests: Mapping[int, Manifest]) -> None:
        """Get the logs of some sessions, from the attempts that left them behind.

        Raises:
            StorageError, OutputError: see `fetch`.
        """
        tracks = self._spool.facts.tracks.values()
        keys = {track.key for track in tracks if track.peer_id in peers and self._is_left(track, manifests)}
        self._fetch(store, layout, frozenset(keys), journals=False)

    def drop_logs(self) -> None:
        """Make room for those of others."""
        for path in self.path.glob("i*/t*.log"):
            path.unlink()

    def sessions(self, manifests: Mapping[int, Manifest]) -> list[tuple[int, list[str]]]:
        """Sessions that were left behind, by the last attempt that has something of them."""
        last: dict[str, int] = {}
        for track in self._spool.facts.tracks.values():
            if self._is_left(track, manifests):
                last[track.peer_id] = max(self._attempt(track), last.get(track.peer_id, 0))
        return [(n, sorted(peer for peer in last if last[peer] == n)) for n in sorted(set(last.values()))]

    def batches(self, peers: Sequence[str], limit: float) -> list[list[str]]:
        """Cut sessions into groups whose logs fit into `limit` bytes; one that does not fit is tried by itself."""
        sizes: dict[str, int] = {}
        for origin in self._origins:
            for path, size in origin.chain.sizes().items():
                folder, _, name = path.partition("/")
                if folder == origin.folder and is_log(path):
                    track = self._spool.facts.tracks.get(f"{origin.name}/{name.partition('.')[0]}")
                    if track is not None:
                        sizes[track.peer_id] = sizes.get(track.peer_id, 0) + size
        groups: list[list[str]] = []
        left = 0.0
        for peer in peers:
            size = sizes.get(peer, 0)
            if not groups or size > left:
                groups.append([])
                left = limit
            groups[-1].append(peer)
            left -= size
        return groups

    def spool_of(self, attempt: int) -> Spool:
        """What one attempt captured, without the logs."""
        place = self.path.parent / f"attempt-{attempt}"
        place.mkdir(exist_ok=True)
        for origin in self._origins:
            if origin.chain.run.attempt == attempt and (self.path / origin.name).is_dir():
                (place / origin.name).symlink_to(self.path / origin.name)
        spool = Spool(place)
        spool.refresh()
        return spool

    def _attempt(self, track: TrackFacts) -> int:
        return self._attempt_of[track.key.partition("/")[0]]

    def _is_left(self, track: TrackFacts, manifests: Mapping[int, Manifest]) -> bool:
        manifest = manifests.get(self._attempt(track))
        return manifest is None or track.peer_id in (manifest.unfinished or ())

    def _fetch(self, store: Store, layout: Layout, keys: frozenset[str], *, journals: bool) -> None:
        for chain in self._chains:
            names = {origin.folder: origin.name for origin in self._origins if origin.chain is chain}

            def place(path: str, names: Mapping[str, str] = names) -> Path | None:
                folder, _, name = path.partition("/")
                wanted = is_journal(path) if journals else f"{names.get(folder)}/{name.partition('.')[0]}" in keys
                return self.path / names[folder] / name if wanted and folder in names else None

            if not fetch(store, layout, chain, place):
                self.is_short = True

    def _drop_doubles(self) -> None:
        """A process that stands in two runs (an agent lost its notes and began another) counts once: the longer copy."""
        copies: dict[bytes, tuple[int, Path]] = {}
        for origin in self._origins:
            folder = self.path / origin.name
            journal = journal_path(folder, 1)
            if not journal.is_file():
                continue
            with journal.open("rb") as file:
                first = file.readline(4096)
            size = sum(journal_path(folder, number).stat().st_size for number in journal_numbers(folder))
            known = copies.get(first)
            if known is not None:
                shutil.rmtree(min((size, folder), known)[1])
            copies[first] = max((size, folder), known or (size, folder))
