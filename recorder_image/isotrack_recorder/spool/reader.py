"""Read a spool while it grows, or after its writer died.

A Spool follows one folder: `refresh` takes in new incarnations and new journal lines (never a torn last one; it is read
again when it is whole), `batches` and `frames` walk the log of a track over its segments in bounded memory. The reader holds no
file open between calls and never writes.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from .facts import Folder, SpoolFacts, Walls, by_their_own
from .journal_files import JournalReader
from .records import HEADER, MAGIC, MAX_FRAME_BYTES, Batch, Record, find_records

_CHUNK_BYTES: Final = 256 * 1024
_FIRST_CHUNK_BYTES: Final = 64 * 1024
"""While a call runs most walks want five seconds: of sound that is 30 kB, and what is read beyond is read again."""
_BATCH_RECORDS: Final = 64
_INCARNATION = re.compile(r"i(\d{4,6})")


class Position(NamedTuple):
    """Where to go on reading a log: segment number and offset in it. (0, 0) = from the start."""

    segment: int = 0
    offset: int = 0


BEGINNING: Final = Position()


class Origin(NamedTuple):
    """Where the bytes of a batch come from."""

    segment: int
    offset: int

    def position(self, at: int) -> Position:
        """The position of byte `at` of the batch."""
        return Position(self.segment, self.offset + at)


class Spool:
    """One spool folder.

    Args:
        path: The folder that holds `i0001`, `i0002`, …; it may still be empty or missing.
        walls: Which wall clock counts for each of them.
    """

    def __init__(self, path: Path, walls: Walls = by_their_own) -> None:
        self.path = path
        self._walls = walls
        self._folder = Folder(walls)
        self._journals: dict[int, JournalReader] = {}
        self._begun: set[int] = set()

    @property
    def facts(self) -> SpoolFacts:
        """What the journals said until the last `refresh`. Grows in place."""
        return self._folder.facts

    def refresh(self) -> bool:
        """Take in what was journalled since the last call; True if there was anything.

        Raises:
            OSError: The folder cannot be read.
        """
        news = False
        numbers = self._incarnations()
        for number in numbers:
            if number != numbers[-1] and any(other > number for other in self._begun):
                continue  # a successor has begun, so this one is complete
            news |= self._read_journal(number)
        return news

    def journals(self) -> dict[str, int]:
        """Folder of an incarnation → segment of its journal that is read now: those before were taken in whole."""
        return {f"i{number:04}": journal.number for number, journal in self._journals.items()}

    def restore_reports(self, keys: Iterable[str]) -> None:
        """Have all reports of some logs again: whoever places frames takes them away, and would begin anew without.

        Raises:
            OSError: The folder cannot be read.
        """
        again = Folder(self._walls)
        for number, journal in sorted(self._journals.items()):
            copy = JournalReader(self.path / f"i{number:04}")
            for event in copy.events():
                if copy.position > journal.position:
                    break  # not taken in yet
                again.add(number, event)
        for key in keys:
            self.facts.tracks[key].reports = again.facts.tracks[key].reports

    def batches(self, key: str, start: Position = BEGINNING, *, checked: bool = True) -> Iterator[tuple[Batch, Origin]]:
        """Walk the records of a log in batches up to its present end, each with where its `data` comes from.

        Arrivals are put on the axis of `facts`, and inside of the time that a call can take.

        Args:
            key: Of `SpoolFacts.tracks`.
            start: A position that was reached before.
            checked: False: the records from `start` on were found intact before.
        """
        folder, _, log = key.partition("/")
        track = self.facts.tracks.get(key)
        shift = track.shift_ns if track is not None else 0
        low, high = self.facts.started_ns, self.facts.latest_ns
        for number, path in self._segments(folder, log, start.segment):
            offset = start.offset if number == start.segment else 0
            for batch, base in _records(path, offset, checked=checked):
                if shift or min(batch.arrivals) < low or max(batch.arrivals) > high:
                    batch.arrivals = [min(max(arrival + shift, low), high) for arrival in batch.arrivals]
                yield batch, Origin(number, base)

    def frames(self, key: str, start: Position = BEGINNING) -> Iterator[tuple[Record, Position]]:
        """Walk the same one by one, each with the position behind it."""
        for batch, origin in self.batches(key, start):
            rows = zip(batch.timestamps, batch.arrivals, batch.flags, batch.starts, batch.ends)
            for timestamp, arrival, flags, begin, end in rows:
                yield Record(timestamp, arrival, flags, batch.data[begin:end]), origin.position(end)

    def _incarnations(self) -> list[int]:
        if not self.path.is_dir():
            return []
        found = (_INCARNATION.fullmatch(entry.name) for entry in os.scandir(self.path) if entry.is_dir())
        return sorted(int(match[1]) for match in found if match)

    def _read_journal(self, number: int) -> bool:
        journal = self._journals.setdefault(number, JournalReader(self.path / f"i{number:04}"))
        news = False
        for event in journal.events():
            self._folder.add(number, event)
            self._begun.add(number)
            news = True
        return news

    def _segments(self, folder: str, log: str, first: int) -> Iterator[tuple[int, Path]]:
        """Segments from number `first` on; 0 = from the oldest that is there."""
        if not _INCARNATION.fullmatch(folder) or not log.isalnum():
            return
        number = first or min(segment_numbers(self.path / folder, log), default=1)
        path = segment_path(self.path / folder, log, number)
        while True:
            # NB: looked for before this one is read: where the next one exists, nothing more is appended to this one.
            following = segment_path(self.path / folder, log, number + 1)
            goes_on = following.exists()
            yield number, path
            if not goes_on:
                return
            number, path = number + 1, following


def segment_path(folder: Path, log: str, number: int) -> Path:
    """One segment of a log."""
    return folder / f"{log}.{number:06}.log"


def segment_numbers(folder: Path, log: str) -> list[int]:
    """Segments of a log that are there, ascending."""
    paths = folder.glob(f"{log}.[0-9][0-9][0-9][0-9][0-9][0-9].log")
    return sorted(int(path.name.split(".")[1]) for path in paths)


def _records(path: Path, offset: int, *, checked: bool) -> Iterator[tuple[Batch, int]]:
    """Read one segment in chunks, each with its offset in it; ends at a short or damaged record."""
    try:
        file = path.open("rb", buffering=0)
    except FileNotFoundError:  # reclaimed meanwhile
        return
    with file:
        if offset == 0:
            if file.read(len(MAGIC)) != MAGIC:
                return
            offset = len(MAGIC)
        else:
            file.seek(offset)
        yield from _chunked(file, offset, checked=checked)


def _chunked(file: io.FileIO, offset: int, *, checked: bool) -> Iterator[tuple[Batch, int]]:
    rest = b""
    chunk = wanted = _FIRST_CHUNK_BYTES
    while data := file.read(wanted):
        data = rest + data if rest else data
        end = 0
        while (batch := find_records(data, end, _BATCH_RECORDS, checked=checked)).ends:
            yield batch, offset
            end = batch.ends[-1]
        offset += end
        rest = data[end:]
        chunk = wanted = min(2 * chunk, _CHUNK_BYTES)
        if len(rest) >= HEADER.size:
            need = HEADER.size + int.from_bytes(rest[:4], "little") - len(rest)
            if need <= 0 or need > MAX_FRAME_BYTES + HEADER.size:
                return  # a whole record that was refused, or a length that no frame has: damaged
            wanted = max(need, chunk)
