"""Read a spool while it grows, or after its writer died.

A Spool follows one folder: `refresh` takes in new incarnations and new journal lines (never a torn last one; it is read
again when it is whole), `batches` and `frames` walk the log of a track over its segments in bounded memory. The reader holds no
file open between calls and never writes.

A disk may give back other bytes than it took. What is damaged costs itself alone: reading goes on behind it, with a frame that is marked
as those are behind packets that never came, and `damage` says so.
"""

from __future__ import annotations

import io
import os
import re
import sys
from bisect import bisect_right
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Final, NamedTuple

from .facts import Folder, SpoolFacts, Walls, by_their_own
from .journal_files import JournalReader
from .records import HEADER, MAGIC, Batch, Flag, Record, find_records, is_refused, next_record

_CHUNK_BYTES: Final = 256 * 1024
_FIRST_CHUNK_BYTES: Final = 64 * 1024
"""While a call runs most walks want five seconds: of sound that is 30 kB, and what is read beyond is read again."""
_BATCH_RECORDS: Final = 64
_INCARNATION = re.compile(r"i(\d{4,6})")
_SEGMENT = re.compile(r"(t\d{4,6})\.\d{6}\.log")


class Position(NamedTuple):
    """Where to go on reading a log: segment number and offset in it. (0, 0) = from the start."""

    segment: int = 0
    offset: int = 0


BEGINNING: Final = Position()
_NEVER: Final = Position(sys.maxsize, 0)


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
        self.over = False
        """Nobody writes any more: what is torn stays so."""
        self._intact: dict[str, tuple[Position, Position]] = {}
        """By log: a stretch in which all sums were found right."""
        self._broken: dict[str, dict[Position, Position]] = {}
        """By log: first frame behind what is damaged → the first of these that a decoder can begin with."""

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

    def damage(self) -> str:
        """What could not be read, for people; empty where there is nothing. Of logs it knows once they were walked."""
        lines = sum(journal.damaged for journal in self._journals.values())
        found = [f"{lines} lines of its journal"] if lines else []
        if self._broken:
            found.append(
                f"parts of {', '.join(sorted(self._broken)[:3])}{' and others' if len(self._broken) > 3 else ''}"
            )
        if unknown := self.unknown_logs() if self.over else []:
            found.append(f"all of {', '.join(unknown[:3])}{' and others' if len(unknown) > 3 else ''}")
        return f"the spool is damaged, these cannot be read: {'; '.join(found)}" if found else ""

    def unknown_logs(self) -> list[str]:
        """Logs with frames of which the journals do not tell what they are: no file can be made of them."""
        names = [f"i{number:04}" for number in self._incarnations()]
        found = {
            f"{name}/{match[1]}"
            for name in names
            if (self.path / name).is_dir()
            for entry in os.scandir(self.path / name)
            if (match := _SEGMENT.fullmatch(entry.name)) and entry.stat().st_size > len(MAGIC) + HEADER.size
        }
        return sorted(key for key in found if key not in self.facts.tracks or not self.facts.tracks[key].codecs)

    def journals(self) -> dict[str, int]:
        """Folder of an incarnation → segment of its journal that is read now: those before were taken in whole."""
        return {f"i{number:04}": journal.number for number, journal in self._journals.items()}

    def restore_taken(self, keys: Iterable[str]) -> None:
        """Have all reports and losses of some logs again: whoever places frames takes them away, and would begin anew without.

        Raises:
            OSError: The folder cannot be read.
        """
        again = Folder(self._walls)
        for number, journal in sorted(self._journals.items()):
            copy, begun = JournalReader(self.path / f"i{number:04}"), False
            for event in copy.events():
                if copy.position > journal.position:
                    break  # not taken in yet
                if not begun:
                    self._begin(number, event, again)
                again.add(number, event)
                begun = True
        for key in keys:
            self.facts.tracks[key].reports = again.facts.tracks[key].reports
            self.facts.tracks[key].losses = again.facts.tracks[key].losses

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
        if checked:
            self._walk_on(key, start)
        broken, ending, expected = False, _Ending.WHOLE, 0
        for number, path, whole in self._segments(folder, log, start.segment):
            offset = start.offset if number == start.segment else 0
            broken, expected = broken or number != (expected or number), number + 1

            def intact(offset: int, number: int = number) -> int:
                return 0 if checked else self._intact_until(key, Position(number, offset))

            walk = _records(path, offset, intact, whole=whole)
            while True:
                try:
                    batch, base, behind_damage = next(walk)
                except StopIteration as end:
                    ending = end.value
                    broken = broken or ending is not _Ending.WHOLE
                    break
                origin = Origin(number, base)
                if broken or behind_damage:
                    self._note_damage(key, origin.position(batch.starts[0]), checked=checked)
                    broken = False
                if checked:
                    self._walk_on(key, self._intact[key][1], origin.position(batch.ends[-1]))
                if key in self._broken:
                    self._flag(key, batch, origin)
                if shift or min(batch.arrivals) < low or max(batch.arrivals) > high:
                    batch.arrivals = [min(max(arrival + shift, low), high) for arrival in batch.arrivals]
                yield batch, origin
        # An orderly end leaves nothing torn
        torn = ending is _Ending.TORN and self.facts.stop is not None and self.over
        if torn or ending is _Ending.DAMAGED:
            self._broken.setdefault(key, {})
            if track is not None:
                track.is_cut = True

    def frames(self, key: str, start: Position = BEGINNING) -> Iterator[tuple[Record, Position]]:
        """Walk the same one by one, each with the position behind it."""
        for batch, origin in self.batches(key, start):
            rows = zip(batch.timestamps, batch.arrivals, batch.flags, batch.starts, batch.ends)
            for timestamp, arrival, flags, begin, end in rows:
                yield Record(timestamp, arrival, flags, batch.data[begin:end]), origin.position(end)

    # ── what was found damaged ───────────────────────────────────────────────────────────────────────────────────────

    def _walk_on(self, key: str, start: Position, end: Position | None = None) -> None:
        """A checked walk begins at `start`, or went on from there to `end`."""
        known = self._intact.get(key)
        if known is None or not known[0] <= start <= known[1]:
            known = (start, start)
        self._intact[key] = (known[0], max(known[1], end or start))

    def _intact_until(self, key: str, at: Position) -> int:
        """Until which offset of its segment all sums were found right from here on; 0 where they were not."""
        begin, end = self._intact.get(key, (_NEVER, _NEVER))
        if not begin <= at <= end:
            return 0
        return end.offset if end.segment == at.segment else sys.maxsize

    def _note_damage(self, key: str, behind: Position, *, checked: bool) -> None:
        """`behind`: behind the header of the first frame behind it."""
        self._broken.setdefault(key, {}).setdefault(behind, _NEVER)
        if checked:  # NB: no stretch reaches over it, so that every walk finds it
            self._intact[key] = (behind, behind)

    def _flag(self, key: str, batch: Batch, origin: Origin) -> None:
        """Mark frames behind what is damaged, up to the first that a decoder can begin with: in each walk the same."""
        stretches = self._broken[key]
        begins = sorted(stretches)
        for number, start in enumerate(batch.starts):
            at = origin.position(start)
            which = bisect_right(begins, at) - 1
            if which < 0 or at >= stretches[begins[which]]:
                continue
            if at == begins[which]:
                batch.flags[number] |= Flag.AFTER_GAP
            if batch.flags[number] & Flag.KEY:
                stretches[begins[which]] = origin.position(batch.ends[number])
            else:
                batch.flags[number] |= Flag.UNDECODABLE

    def _incarnations(self) -> list[int]:
        if not self.path.is_dir():
            return []
        found = (_INCARNATION.fullmatch(entry.name) for entry in os.scandir(self.path) if entry.is_dir())
        return sorted(int(match[1]) for match in found if match)

    def _read_journal(self, number: int) -> bool:
        journal = self._journals.setdefault(number, JournalReader(self.path / f"i{number:04}"))
        news = False
        for event in journal.events():
            if number not in self._begun:
                self._begin(number, event, self._folder)
            self._folder.add(number, event)
            self._begun.add(number)
            news = True
        return news

    def _begin(self, number: int, first: Mapping[str, Any], folder: Folder) -> None:
        """A journal whose first line is damaged begins with what another one says again: of which process, boot and time it is."""
        if first["e"] == "start" or not isinstance(first["at"], int):
            return
        for event in JournalReader(self.path / f"i{number:04}").events():
            at, wall_ns = event["at"], event.get("wall_ns")
            if isinstance(at, int) and isinstance(wall_ns, int):
                moment = {"at": first["at"], "wall_ns": wall_ns - (at - first["at"])}
                folder.add(number, {**event, "e": "start", **moment})
                return

    def _segments(self, folder: str, log: str, first: int) -> Iterator[tuple[int, Path, bool]]:
        """Segments from number `first` on, and whether nothing is appended to them any more; 0 = from the oldest that is there."""
        if not _INCARNATION.fullmatch(folder) or not log.isalnum():
            return
        over = self.over or any(number > int(folder[1:]) for number in self._begun)
        number = first or min(segment_numbers(self.path / folder, log), default=1)
        path = segment_path(self.path / folder, log, number)
        while True:
            # NB: looked for before this one is read: where the next one exists, nothing more is appended to this one.
            following = number + 1
            goes_on = segment_path(self.path / folder, log, following).exists()
            if not goes_on and over:  # one may be missing
                following = min((n for n in segment_numbers(self.path / folder, log) if n > number), default=0)
                goes_on = following > 0
            yield number, path, goes_on or over
            if not goes_on:
                return
            number, path = following, segment_path(self.path / folder, log, following)


def segment_path(folder: Path, log: str, number: int) -> Path:
    """One segment of a log."""
    return folder / f"{log}.{number:06}.log"


def segment_numbers(folder: Path, log: str) -> list[int]:
    """Segments of a log that are there, ascending."""
    paths = folder.glob(f"{log}.[0-9][0-9][0-9][0-9][0-9][0-9].log")
    return sorted(int(path.name.split(".")[1]) for path in paths)


class _Ending(Enum):
    """How a segment ends."""

    WHOLE = 1
    TORN = 2
    """In the midst of a record, as a process does that dies. Or it holds nothing at all."""
    DAMAGED = 3


_Walk = Generator[tuple[Batch, int, bool], None, _Ending]


def _records(path: Path, offset: int, intact: Callable[[int], int], *, whole: bool) -> _Walk:
    """Read one segment in chunks, each with its offset in it and whether what lies before it is damaged; returns how it ends.

    Args:
        intact: Offset → until which one sums were found right before.
        whole: Nothing is appended any more.
    """
    try:
        file = path.open("rb", buffering=0)
    except FileNotFoundError:  # reclaimed meanwhile
        return _Ending.WHOLE
    with file:
        return (yield from _chunked(file, offset, intact, whole=whole))


def _chunked(file: io.FileIO, offset: int, intact: Callable[[int], int], *, whole: bool) -> _Walk:
    rest, broken, ended = b"", False, False
    chunk = wanted = _FIRST_CHUNK_BYTES
    while not ended:
        # NB: the beginning of a record is read again: to put it before what follows would copy all of that.
        file.seek(offset)
        data = file.read(len(rest) + wanted)
        ended = len(data) <= len(rest)
        end = 0
        if offset == 0 and len(data) >= len(MAGIC):
            end = len(MAGIC) if data.startswith(MAGIC) else 0
            broken = end == 0
        while True:
            while (batch := find_records(data, end, _BATCH_RECORDS, intact=max(0, intact(offset + end) - offset))).ends:
                yield batch, offset, broken
                broken, end = False, batch.ends[-1]
            refused = is_refused(data, end) or (broken and end == 0)
            if not refused and not (ended and whole and len(data) > end):
                break
            if refused and not ended:  # damaged: a segment of it in memory at once
                data += file.readall()
                ended = True
            following = next_record(data, end + (0 if broken and end == 0 else 1))
            if following is None:
                return _Ending.DAMAGED if refused else _Ending.TORN
            broken, end = True, following
        offset += end
        rest = data[end:]
        chunk = wanted = min(2 * chunk, _CHUNK_BYTES)
        if len(rest) >= HEADER.size:
            wanted = max(HEADER.size + int.from_bytes(rest[:4], "little") - len(rest), chunk)
    return _Ending.TORN if whole and (rest or offset == 0) else _Ending.WHOLE
