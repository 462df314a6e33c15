"""One spool over all attempts of a recording: their recorder processes one after the other, numbered anew.

    chains (attempt, run) ─▶ i0001, i0002, … of each, by attempt and time ─▶ journals ─▶ who was left behind? ─▶ their logs

Placing them on one axis is the reader's work (`spool.facts`): processes of one boot share a clock, others are placed by their
wall clocks, or where these are wrong by what their attempt knew of the first one's (`clocks`). Logs are fetched for a few sessions at a time, and those of a long session piece by piece (`pieces`), so that the disk
holds what is being made into files, not the call.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isotrack_api.manifest import Manifest
from isotrack_recorder.clocks import wall_offset
from isotrack_recorder.errors import OutputError
from isotrack_recorder.spool.facts import TrackFacts
from isotrack_recorder.spool.journal import MAX_LINE_BYTES, decode_line
from isotrack_recorder.spool.journal_files import journal_numbers, journal_path
from isotrack_recorder.spool.reader import Spool

from .checkpoint import is_journal, is_log
from .layout import Layout
from .pieces import Copied, Piece, Pieces, is_complete, pieces_of
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
    """The spool. Journals are there from `fetch_journals` on, logs between what a Feed fetches and `drop_logs`."""

    def __init__(self, path: Path, chains: Sequence[Chain]) -> None:
        self.path = path
        ordered = sorted(chains, key=lambda chain: (chain.run.attempt, chain.begun_ms, chain.run.run))
        every = [(chain, folder) for chain in ordered for folder in chain.incarnations()]
        self._origins = tuple(_Origin(number, *row) for number, row in enumerate(every, 1))
        self._chains = tuple(ordered)
        self._attempt_of = {origin.name: origin.chain.run.attempt for origin in self._origins}
        self._call_clocks = {origin.name: origin.chain.call_clock for origin in self._origins}
        self._spool = Spool(path, self.walls)
        self.is_short = any(chain.is_short for chain in chains)
        """Something is missing, or could not be read."""

    def fetch_journals(self, store: Store, layout: Layout) -> None:
        """Get all journals.

        Raises:
            StorageError, OutputError: see `fetch`.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        for chain in self._chains:
            names = self.names(chain)

            def place(path: str, names: Mapping[str, str] = names) -> Path | None:
                folder, _, name = path.partition("/")
                return self.path / names[folder] / name if is_journal(path) and folder in names else None

            if not fetch(store, layout, chain, place):
                self.is_short = True
        self._drop_doubles()
        self._spool.refresh()

    def walls(self, folder: str, boot: str, offset_ns: int) -> int:
        """See `spool.facts.Walls`."""
        return wall_offset(offset_ns, boot, self._call_clocks.get(folder))

    @property
    def journal_bytes(self) -> int:
        """Room that all journals take."""
        return sum(size for chain in self._chains for path, size in chain.sizes().items() if is_journal(path))

    def unknown_logs(self) -> list[str]:
        """Logs of which no journal tells what they are: no file can be made of them."""
        found = []
        tracks = self._spool.facts.tracks
        for chain in self._chains:
            names = self.names(chain)
            for path in filter(is_log, chain.sizes()):
                folder, _, log = path.partition(".")[0].partition("/")
                name = names.get(folder, "")
                key = f"{name}/{log}"
                is_double = bool(name) and not (self.path / name).is_dir()
                if not is_double and (key not in tracks or not tracks[key].codecs):
                    found.append(f"{chain.run.name}/{folder}/{log}")
        return sorted(set(found))

    def feed(self, peers: Sequence[str], manifests: Mapping[int, Manifest]) -> Feed:
        """The logs of some sessions, from the attempts that left them behind."""
        tracks = [
            track
            for track in self._spool.facts.tracks.values()
            if track.peer_id in peers and self._is_left(track, manifests)
        ]
        return Feed(self, tracks)

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
        spool = Spool(place, self.walls)
        spool.refresh()
        return spool

    def _attempt(self, track: TrackFacts) -> int:
        return self._attempt_of[track.key.partition("/")[0]]

    def _is_left(self, track: TrackFacts, manifests: Mapping[int, Manifest]) -> bool:
        manifest = manifests.get(self._attempt(track))
        return manifest is None or track.peer_id in (manifest.unfinished or ())

    def names(self, chain: Chain) -> dict[str, str]:
        """Folders of a chain's processes → their names in the stitched spool."""
        return {origin.folder: origin.name for origin in self._origins if origin.chain is chain}

    @property
    def chains(self) -> tuple[Chain, ...]:
        """By attempt and time."""
        return self._chains

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


class Feed:
    """Logs of some sessions on their way to the disk, in the order of time. `fetch` until it `is_whole`."""

    def __init__(self, stitched: Stitched, tracks: Sequence[TrackFacts]) -> None:
        self._stitched = stitched
        self._keys = {track.key for track in tracks}
        self._shifts = {track.key.partition("/")[0]: track.shift_ns for track in tracks}
        """Process → from its clock to the axis. Only processes that have wanted logs."""
        begins = {name: self._begin(name) for name in self._shifts}
        self._chains: list[Chain] = []
        pieces: list[tuple[Piece, ...]] = []
        begun: list[int] = []
        for chain in stitched.chains:
            names = stitched.names(chain)
            mine = {folder: begins[name] for folder, name in names.items() if name in begins}
            found = pieces_of(self._rows(chain, names, mine), mine) if mine else ()
            if found:
                self._chains.append(chain)
                pieces.append(found)
                begun.append(min(mine.values()))
        self._pieces = Pieces(pieces, begun)

    @property
    def known_ns(self) -> int | None:
        """Until when all that was captured is on the disk (or was); None = all of it."""
        return self._pieces.known_ns

    @property
    def is_whole(self) -> bool:
        """Whether nothing is left to be fetched."""
        return self.known_ns is None

    def fetch(self, store: Store, layout: Layout, room: float) -> None:
        """Get the next pieces.

        Args:
            room: Bytes that may be written. Half of them are left to what is made of the logs.
        Raises:
            StorageError: see `rebuild.fetch`.
            OutputError: the same; or even the next piece is too large.
        """
        if self._pieces.needed() > room:
            raise OutputError(
                f"{self._pieces.needed()} bytes of a session have no room on the disk: {int(room)} are left"
            )
        for number, piece in self._pieces.take(room / 2):
            chain = self._chains[number]
            names = self._stitched.names(chain)

            def place(path: str, names: Mapping[str, str] = names) -> Path | None:
                return (
                    self._stitched.path / names[path.partition("/")[0]] / path.partition("/")[2]
                    if self._wants(path, names)
                    else None
                )

            if not fetch(store, layout, chain, place, at=piece.at, heads=piece.heads):
                self._stitched.is_short = True

    def _wants(self, path: str, names: Mapping[str, str]) -> bool:
        folder, _, name = path.partition("/")
        return is_log(path) and f"{names.get(folder)}/{name.partition('.')[0]}" in self._keys

    def _rows(self, chain: Chain, names: Mapping[str, str], begins: Mapping[str, int]) -> Iterator[Copied]:
        at = 0
        latest = dict(begins)
        for head, size in chain.heads():
            journals: dict[str, int | None] = {}
            for part in head.slices:
                folder, _, name = part.path.partition("/")
                if is_journal(part.path):
                    if folder in latest:
                        latest[folder] = max(latest[folder], self._newest(names[folder], name, part.end) or 0)
                    journals[folder] = latest.get(folder)
            wanted = sum(part.length for part in head.slices if self._wants(part.path, names))
            yield Copied(at, size, wanted, journals, is_complete(head))
            at += size

    def _begin(self, name: str) -> int:
        """When a process began, on the axis."""
        with journal_path(self._stitched.path / name, 1).open("rb") as file:
            event = decode_line(file.readline(MAX_LINE_BYTES + 2)[:-1])
        return _moment(event, self._shifts[name]) or 0

    def _newest(self, name: str, journal: str, end: int) -> int | None:
        """Time of the newest whole line before `end` of a journal's segment, on the axis; None where it cannot be read."""
        begin = max(0, end - MAX_LINE_BYTES - 2)
        try:
            with (self._stitched.path / name / journal).open("rb") as file:
                file.seek(begin)
                lines = file.read(end - begin).split(b"\n")
        except FileNotFoundError:
            return None
        event = decode_line(lines[-2]) if len(lines) > 1 else None
        return _moment(event, self._shifts[name])


def _moment(event: Mapping[str, Any] | None, shift_ns: int) -> int | None:
    at = event.get("at") if event is not None else None
    return at + shift_ns if isinstance(at, int) else None
