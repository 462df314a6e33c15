"""Files of one incarnation's journal: segments, and what is left of those that were given back.

    journal.past                 lines of given-back segments that still matter, behind a line that names the last of them (`through`)
    journal.ndjson               segment 1
    journal.000002.ndjson …      the writer begins the next one where the last was full

Read as one stream: the past, then the segments behind it. A JournalReader follows it while it grows and never reads a torn last
line; it is read again when it is whole. A damaged line costs itself alone, is counted, and is told as an event: from when until when
nothing is known.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

from .journal import MAX_LINE_BYTES, UNREAD_EVENT, behind_hole, decode_line

PAST_NAME: Final = "journal.past"
THROUGH_EVENT: Final = "past"
"""First line of the past. No fact about the call."""
_NAME: Final = re.compile(r"journal(?:\.([0-9]{6}))?\.ndjson")
_TRIES: Final = 3


def journal_path(folder: Path, number: int) -> Path:
    """One segment of the journal in an incarnation's folder."""
    return folder / ("journal.ndjson" if number == 1 else f"journal.{number:06}.ndjson")


def journal_numbers(folder: Path) -> list[int]:
    """Segments of the journal that are there, ascending."""
    found = (_NAME.fullmatch(path.name) for path in folder.glob("journal*.ndjson"))
    return sorted(int(match[1] or 1) for match in found if match)


class JournalReader:
    """One journal, read once from its beginning on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.number = 0
        """Segment that is read now: those before it were read whole. 0 before the first."""
        self._offset = 0
        self.damaged = 0
        """Lines that could not be read."""
        self._read_at: object = None
        """`at` of the newest line that could be."""
        self._has_skipped = False
        """Behind it came some that could not."""

    @property
    def position(self) -> tuple[int, int]:
        """Segment and offset behind the event that came last."""
        return self.number, self._offset

    def events(self) -> Iterator[dict[str, Any]]:
        """What is new, in order.

        Raises:
            OSError: a file cannot be read.
        """
        if self.number == 0:
            yield from self._past()
        while self.number:
            # NB: looked for before this one is read: where the next one exists, nothing more is appended to this one.
            goes_on = journal_path(self._folder, self.number + 1).exists()
            torn = yield from self._segment()
            if not goes_on:
                return
            self._skip(torn)
            self.number, self._offset = self.number + 1, 0

    def _past(self) -> Iterator[dict[str, Any]]:
        """Find the beginning; nothing happens while there is none."""
        for _ in range(_TRIES):
            past = _open(self._folder / PAST_NAME)
            try:
                first = 1 + (_through(past) if past is not None else 0)
                # NB: another past may have taken the place of the one that was opened, and this segment with it.
                if not journal_path(self._folder, first).exists():
                    continue
                if past is not None:
                    yield from self._lines(past)
                self.number, self._offset = first, 0
                return
            finally:
                if past is not None:
                    past.close()

    def _segment(self) -> Generator[dict[str, Any], None, bool]:
        """Lines of the present segment; returns whether its last one is torn."""
        file = _open(journal_path(self._folder, self.number))
        if file is None:
            return False
        with file:
            file.seek(self._offset)
            return (yield from self._lines(file))

    def _lines(self, file: BinaryIO) -> Generator[dict[str, Any], None, bool]:
        while line := file.readline(MAX_LINE_BYTES + 2):
            whole = line.endswith(b"\n")
            if not whole and len(line) <= MAX_LINE_BYTES:
                return True
            self._offset += len(line)  # of the past this means nothing: it is read in one go
            intact = behind_hole(line)
            event = decode_line(intact[:-1]) if whole else None
            self._skip(event is None or len(intact) < len(line))
            if event is None:
                continue
            if self._has_skipped and isinstance(self._read_at, int):
                yield {"e": UNREAD_EVENT, "at": event["at"], "since_ns": self._read_at}
            self._read_at, self._has_skipped = event["at"], False
            yield event
        return False

    def _skip(self, lines: int) -> None:
        self.damaged += lines
        self._has_skipped = self._has_skipped or lines > 0


def read_lines(folder: Path, through: int) -> Iterator[bytes]:
    """Lines of the past and of all segments up to number `through`, as they are.

    Raises:
        OSError: a file cannot be read.
    """
    past = _open(folder / PAST_NAME)
    first = 1
    if past is not None:
        with past:
            first = 1 + _through(past)
            yield from past
    for number in range(first, through + 1):
        with journal_path(folder, number).open("rb") as file:
            yield from file


def _through(past: BinaryIO) -> int:
    event = decode_line(past.readline(MAX_LINE_BYTES + 2)[:-1])
    through = event.get("through") if event is not None else None
    return through if isinstance(through, int) and 0 < through < 1_000_000 else 0


def _open(path: Path) -> BinaryIO | None:
    try:
        return path.open("rb")
    except FileNotFoundError:
        return None
