"""Make a spool of its checkpoints again, byte for byte.

    listing ─▶ runs ─▶ heads, as far as the chain holds ─▶ slices of the wanted files, as far as they are whole ─▶ files

Each run is followed from its first checkpoint to the last, or the first of another chain, so what comes out is a spool as it was at one
moment. A checkpoint that is missing or damaged leaves a hole in its files: zeros, which a reader of spools takes for damage and reads on
behind. Heads stay on the disk (a day of calls has tens of thousands);
of the bodies only the wanted slices are fetched, in ranges. What will be needed next is read ahead: most of it is small, and would cost
the way to the storage and back each time.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from os import SEEK_END
from pathlib import Path
from typing import Final, NamedTuple

from isotrack_recorder.clocks import Bounds, CallClock
from isotrack_recorder.errors import OutputError, ParseError

from .checkpoint import MAX_SEQ, PREAMBLE_BYTES, Head, Slice, decode_head, digest, follows, head_bytes, is_journal
from .lanes import ahead
from .layout import Layout
from .store import Listed, Store

log = logging.getLogger(__name__)

FIRST_READ_BYTES: Final = 64 * 1024
"""Enough for almost every head: one request each."""
RANGE_BYTES: Final = 8 * 1024 * 1024
MAX_HOLE_BYTES: Final = 64 * 1024 * 1024
"""A segment of a spool has half of it."""

Place = Callable[[str], Path | None]
"""Where a file of the spool goes; None = it is not wanted."""


@dataclass(frozen=True, slots=True)
class Run:
    """Checkpoints of one spool, as a listing shows them."""

    attempt: int
    run: str
    seqs: frozenset[int]
    newest: float
    """When the storage took the last of them, Unix seconds by its clock."""

    @property
    def name(self) -> str:
        """`<attempt>/<run>`."""
        return f"{self.attempt}/{self.run}"

    @property
    def reach(self) -> int:
        """Number of the last checkpoint."""
        return max(self.seqs, default=0)

    @property
    def unbroken(self) -> int:
        """Number of the last checkpoint before the first that is missing."""
        reached = 0
        while reached + 1 in self.seqs:
            reached += 1
        return reached


@dataclass(frozen=True, slots=True)
class Chain:
    """The part of a run that can be believed."""

    run: Run
    heads_file: Path
    begun_ms: int
    """When it began, by the agent's clock."""
    length: int
    """Checkpoints in it."""
    is_short: bool = False
    """Some are missing, or cannot be read."""
    storage_clock: Bounds | None = None
    call_clock: CallClock | None = None
    """As the last one has them (`Head`)."""

    def heads(self, at: int = 0) -> Iterator[tuple[Head, int]]:
        """Heads in order, each with its length.

        Args:
            at: Where in the file to begin: the sum of the lengths of those before.
        """
        with self.heads_file.open("rb") as file:
            file.seek(at)
            while start := file.read(PREAMBLE_BYTES):
                encoded = start + file.read(head_bytes(start) - PREAMBLE_BYTES)
                yield decode_head(encoded), len(encoded)

    def sizes(self) -> dict[str, int]:
        """Files and how long they are."""
        return {part.path: part.end for head, _ in self.heads() for part in head.slices}

    def incarnations(self) -> list[str]:
        """Folders of recorder processes in order."""
        return sorted({path.partition("/")[0] for path in self.sizes() if is_journal(path)})


def find_runs(listing: Iterable[Listed], layout: Layout) -> tuple[Run, ...]:
    """All runs of a recording, by attempt."""
    seqs: dict[tuple[int, str], set[int]] = {}
    newest: dict[tuple[int, str], float] = {}
    for found in listing:
        place = layout.checkpoint_of(found.key)
        if place is not None and 1 <= place[2] <= MAX_SEQ:
            attempt, run, seq = place
            seqs.setdefault((attempt, run), set()).add(seq)
            newest[attempt, run] = max(newest.get((attempt, run), 0.0), found.modified)
    return tuple(Run(*key, frozenset(seqs[key]), newest[key]) for key in sorted(seqs))


def follow(store: Store, layout: Layout, run: Run, folder: Path, *, limit: int = MAX_SEQ) -> Chain:
    """Read the heads of a run, as far as its chain holds.

    Args:
        folder: Takes a file with the heads.
        limit: Of checkpoints that are read.
    Raises:
        StorageError: the storage does not answer.
        OutputError: `folder` cannot be written.
    """
    before: Head | None = None
    before_digest = ""
    begun_ms = length = 0
    path = folder / f"{run.attempt}-{run.run}.heads"
    numbers = sorted(run.seqs)[:limit]
    keys = (layout.checkpoint(run.attempt, run.run, seq) for seq in numbers)
    heads = ahead(lambda key: _read_head(store, key), keys, lambda _: FIRST_READ_BYTES)
    try:
        with path.open("wb") as file, closing(heads):
            for seq, found in zip(numbers, heads, strict=True):
                if found is None or not _belongs(found[0], run, seq):
                    log.warning("checkpoint cannot be read", extra={"fields": {"run": run.name, "seq": seq}})
                    continue
                behind_a_hole = seq > (before.seq if before is not None else 0) + 1
                if not behind_a_hole and not follows(before, before_digest, found[0]):
                    log.warning("chain of checkpoints ends", extra={"fields": {"run": run.name, "seq": seq}})
                    break
                before, encoded = found
                before_digest = digest(encoded)
                begun_ms, length = begun_ms or before.at_ms, length + 1
                file.write(encoded)
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror}") from error
    is_short = length < min(run.reach, limit)
    if before is None:
        return Chain(run, path, begun_ms, 0, is_short)
    return Chain(run, path, begun_ms, length, is_short, before.storage_clock, before.call_clock)


def _read_head(store: Store, key: str) -> tuple[Head, bytes] | None:
    data = store.get_range(key, 0, FIRST_READ_BYTES)
    try:
        size = head_bytes(data)
        if size > len(data):
            data += store.get_range(key, len(data), size - len(data))
        return decode_head(data), data[:size]
    except ParseError:
        return None


def _belongs(head: Head, run: Run, seq: int) -> bool:
    return (head.attempt, head.run, head.seq) == (run.attempt, run.run, seq)


class _Span(NamedTuple):
    """Wanted slices that lie side by side in one checkpoint."""

    seq: int
    key: str
    start: int
    parts: list[Slice]

    def ranges(self) -> Iterator[tuple[str, int, int]]:
        """Key, offset and size of each read."""
        end = self.start + sum(part.length for part in self.parts)
        for at in range(self.start, end, RANGE_BYTES):
            yield self.key, at, min(RANGE_BYTES, end - at)


def fetch(store: Store, layout: Layout, chain: Chain, place: Place, *, at: int = 0, heads: int = MAX_SEQ) -> bool:
    """Write the wanted files of a run; False where some of it is missing, or damaged.

    Args:
        at: Where the first head that counts begins (`Chain.heads`); what lies before was fetched.
        heads: How many count.
    Raises:
        StorageError: the storage does not answer.
        OutputError: a file cannot be written.
    """
    ranges = (wanted for span in _spans(layout, chain, place, at, heads) for wanted in span.ranges())
    read = ahead(lambda wanted: store.get_range(*wanted), ranges, lambda wanted: wanted[2])
    all_whole = True
    with closing(read):
        for span in _spans(layout, chain, place, at, heads):
            try:
                whole = _write_span(read, span.parts, place)
            except OSError as error:
                raise OutputError(f"cannot write {error.filename}: {error.strerror}") from error
            if not whole:
                log.warning("checkpoint is damaged", extra={"fields": {"run": chain.run.name, "seq": span.seq}})
                all_whole = False
    return all_whole


def _spans(layout: Layout, chain: Chain, place: Place, first: int, heads: int) -> Iterator[_Span]:
    """All that is wanted of a stretch of a run, in order."""
    for head, at in islice(chain.heads(first), heads):
        key = layout.checkpoint(head.attempt, head.run, head.seq)
        group: list[Slice] = []
        begin = at
        for part in head.slices:
            if place(part.path) is not None:
                begin = begin if group else at
                group.append(part)
            elif group:
                yield _Span(head.seq, key, begin, group)
                group = []
            at += part.length
        if group:
            yield _Span(head.seq, key, begin, group)


def _write_span(read: Iterator[bytes], parts: Sequence[Slice], place: Place) -> bool:
    """Append neighbouring slices to their files; False where bytes are missing, or their sums are wrong.

    NB: all of a span is read whatever it holds, or the next one would get what was meant for this one.
    """
    data, due, whole = memoryview(b""), sum(part.length for part in parts), True
    for part in parts:
        path = place(part.path)
        assert path is not None
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            hole = part.offset - file.tell()
            fits = 0 <= hole <= MAX_HOLE_BYTES  # nothing of ours sends bytes twice, or has a file that is larger
            if hole and fits:
                file.truncate(part.offset)
                file.seek(0, SEEK_END)
            left, crc = part.length, 0
            while left:
                if not data:
                    wanted = min(RANGE_BYTES, due)
                    due -= wanted
                    data = memoryview(next(read).ljust(wanted, b"\0"))  # short: the object ends here
                piece, data = data[:left], data[left:]
                crc = zlib.crc32(piece, crc)
                left -= len(piece)
                if fits:
                    file.write(piece)
            # NB: bytes with a wrong sum stay: each record and each line has one of its own.
            whole = whole and hole == 0 and crc == part.crc32
    return whole
