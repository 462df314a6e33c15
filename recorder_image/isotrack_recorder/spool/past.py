"""Give back segments of a journal, and keep of them what still matters.

Nearly all of a long call's journal is reports (24 hours of a hundred people: a gigabyte with the totals beside them). Whoever has
placed the frames that a report belongs to, in a state that lasts, never reads it again; of totals, and of what is written, only
the newest counts.
Everything else is kept as it was written: it is what a reader holds in memory, too.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .journal import UNREAD_EVENT, behind_hole, decode_line, encode_line
from .journal_files import PAST_NAME, THROUGH_EVENT, journal_numbers, journal_path, read_lines


@dataclass(frozen=True, slots=True)
class Taken:
    """What of a log's facts nobody needs any more, by the clock of its journal."""

    reports_ns: int
    """Reports that arrived before."""
    gaps_ns: int
    """Gaps that were noticed before."""


_NEVER: Final = 1 << 62
NOTHING: Final = Taken(0, 0)
EVERYTHING: Final = Taken(_NEVER, _NEVER)


def abridge(lines: Iterable[bytes], taken: Mapping[str, Taken]) -> Iterator[bytes]:
    """Leave out lines that nobody needs. Pure.

    The first report of a log that is left out leaves an `abridged` line in its place: its frames cannot be placed anew.

    Args:
        lines: Whole lines of one journal.
        taken: By log (`t0001`).
    """
    totals: dict[str, bytes] = {}
    written = b""
    has_skipped = False
    abridged: set[str] = set()
    read_at: object = None
    for line in lines:
        intact = behind_hole(line)
        event = decode_line(intact[:-1])
        has_skipped = has_skipped or event is None or len(intact) < len(line)
        if event is None:
            continue
        line = intact
        if has_skipped and isinstance(read_at, int) and isinstance(event["at"], int):
            yield encode_line(UNREAD_EVENT, event["at"], {"since_ns": read_at})
        read_at, has_skipped = event["at"], False
        log = str(event.get("track", ""))
        at = event["at"] if isinstance(event["at"], int) else _NEVER
        done = taken.get(log, NOTHING)
        match event["e"]:
            case "counters":
                totals[log] = line
            case "written":
                written = line
            case "abridged":
                abridged.add(log)
                yield line
            case "report" if at < done.reports_ns:
                if log not in abridged:
                    abridged.add(log)
                    yield encode_line("abridged", at, {"track": log})
            case "gap" if at < done.gaps_ns:
                pass
            case _:
                yield line
    yield from totals.values()
    if written:
        yield written


def give_back_journal(folder: Path, through: int, taken: Mapping[str, Taken]) -> int:
    """Replace an incarnation's journal up to segment `through` by its past. Bytes that became free.

    Nothing happens while it would not halve what is replaced: the past is written anew each time. Safe to be killed in: a segment
    goes away once the past that stands for it lasts.

    Raises:
        OSError: the disk is full, or the files cannot be deleted. The journal is as it was.
    """
    past = folder / PAST_NAME
    numbers = [number for number in journal_numbers(folder) if number <= through]
    segments = sum(journal_path(folder, number).stat().st_size for number in numbers)
    before = past.stat().st_size if past.exists() else 0
    if not numbers or segments < before:
        return 0
    beside = past.with_suffix(".past.new")
    try:
        with beside.open("wb") as file:
            file.write(encode_line(THROUGH_EVENT, 0, {"through": through}))
            file.writelines(abridge(read_lines(folder, through), taken))
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        beside.rename(past)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    for number in numbers:
        journal_path(folder, number).unlink()
    return segments + before - size
