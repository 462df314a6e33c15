"""One checkpoint: the new bytes of a spool's files since the checkpoint before. Pure.

     0        8        12       16
     +--------+--------+--------+--------------+-----------------------
     | magic  | size   | crc    | head (JSON)  | bytes of the slices …
     +--------+--------+--------+--------------+-----------------------

`size` and `crc` (CRC-32 of the JSON) are little-endian. The head names the attempt, the run (one agent's spool), the number
within the run (from 1), the digest of the checkpoint before, and the slices in order: file, offset, length, CRC-32. The
digest is the SHA-256 of everything before the first slice, and so vouches for all of it: a reader can follow the chain and
fetch only the files that it needs. Journals come first in the body, because they are read first.

Whoever can write to the bucket can write a checkpoint, so a head is hostile input: files have names that our spools have,
everything has a bound.
"""

from __future__ import annotations

import hashlib
import json
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from isotrack_recorder.clocks import Bounds, CallClock
from isotrack_recorder.errors import ParseError

MAGIC: Final = b"isockp\x00\x01"
PREAMBLE_BYTES: Final = 16
MAX_BODY_BYTES: Final = 64 * 1024 * 1024
MAX_HEAD_BYTES: Final = 4 * 1024 * 1024
MAX_SLICES: Final = 20_000
MAX_FILE_BYTES: Final = 1 << 40
MAX_SEQ: Final = 99_999_999
MAX_CLOCK_NS: Final = 1 << 62
MAX_BOOT: Final = 64
FIRST: Final = "0" * 64
"""Stands for the checkpoint before the first one."""
_JOURNAL: Final = re.compile(r"i[0-9]{4}/journal(?:\.[0-9]{6})?\.ndjson")
_LOG: Final = re.compile(r"i[0-9]{4}/t[0-9]{4,6}\.[0-9]{6}\.log")
RUN: Final = re.compile(r"[0-9a-f]{16}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Slice:
    """Bytes `offset` to `offset + length` of one file of the spool."""

    path: str
    offset: int
    length: int
    crc32: int = 0

    @property
    def end(self) -> int:
        """Offset behind the last byte."""
        return self.offset + self.length


@dataclass(frozen=True, slots=True)
class Head:
    """What a checkpoint says of itself."""

    attempt: int
    run: str
    seq: int
    previous: str
    """Digest of the checkpoint before, FIRST for the first."""
    at_ms: int
    """Unix milliseconds at which sizes were taken, by the agent's clock."""
    slices: tuple[Slice, ...]
    storage_clock: Bounds | None = None
    """The storage's clock against CLOCK_MONOTONIC of this run's machine, as the agent had measured it."""
    call_clock: CallClock | None = None
    """The clock that the recording's zero was told by, where that is an earlier attempt's."""

    @property
    def body_bytes(self) -> int:
        """Length of everything behind the head."""
        return sum(part.length for part in self.slices)


def is_journal(path: str) -> bool:
    """Whether a file of a spool is a segment of a journal."""
    return _JOURNAL.fullmatch(path) is not None


def is_log(path: str) -> bool:
    """Whether a file of a spool is a segment of a track's log."""
    return _LOG.fullmatch(path) is not None


def is_copied(path: str) -> bool:
    """Whether a file of a spool belongs into checkpoints: all of these only ever grow at their ends."""
    return is_journal(path) or is_log(path)


def encode_head(head: Head) -> bytes:
    """Build everything before the first slice."""
    rows = [[part.path, part.offset, part.length, part.crc32] for part in head.slices]
    fields: dict[str, object] = {
        "attempt": head.attempt,
        "run": head.run,
        "seq": head.seq,
        "previous": head.previous,
        "atMs": head.at_ms,
        "slices": rows,
    }
    if head.storage_clock is not None:
        fields["storageClock"] = [head.storage_clock.low, head.storage_clock.high]
    if head.call_clock is not None:
        fields["callClock"] = [head.call_clock.boot, head.call_clock.offset.low, head.call_clock.offset.high]
    text = json.dumps(fields, separators=(",", ":")).encode()
    return MAGIC + len(text).to_bytes(4, "little") + zlib.crc32(text).to_bytes(4, "little") + text


def head_bytes(data: bytes) -> int:
    """Length of the whole head, from its first PREAMBLE_BYTES.

    Raises:
        ParseError: this is no checkpoint.
    """
    if len(data) < PREAMBLE_BYTES or not data.startswith(MAGIC):
        raise ParseError("no checkpoint")
    size = int.from_bytes(data[8:12], "little")
    if size > MAX_HEAD_BYTES:
        raise ParseError(f"a head of {size} bytes")
    return PREAMBLE_BYTES + size


def decode_head(data: bytes) -> Head:
    """Read a head; bytes behind it do not matter.

    Raises:
        ParseError: it is short, damaged, or says what none of ours would.
    """
    end = head_bytes(data)
    text = data[PREAMBLE_BYTES:end]
    if len(data) < end or zlib.crc32(text) != int.from_bytes(data[12:16], "little"):
        raise ParseError("a damaged head")
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ParseError("a head that is no JSON") from error
    if not isinstance(fields, dict):
        raise ParseError("a head that is no object")
    return _head(fields)


def digest(encoded_head: bytes) -> str:
    """Identity of a checkpoint, for the one behind it."""
    return hashlib.sha256(encoded_head).hexdigest()


def _head(fields: Mapping[str, Any]) -> Head:
    rows = fields.get("slices")
    if not isinstance(rows, list) or len(rows) > MAX_SLICES:
        raise ParseError("no list of slices")
    head = Head(
        attempt=_number(fields.get("attempt"), 1, 10_000),
        run=_text(fields.get("run"), RUN),
        seq=_number(fields.get("seq"), 1, MAX_SEQ),
        previous=_text(fields.get("previous"), _DIGEST),
        at_ms=_number(fields.get("atMs"), 0, 2**53),
        slices=tuple(_slice(row) for row in rows),
        storage_clock=_bounds(fields.get("storageClock")),
        call_clock=_call_clock(fields.get("callClock")),
    )
    if head.body_bytes > MAX_BODY_BYTES:
        raise ParseError(f"a body of {head.body_bytes} bytes")
    if len({part.path for part in head.slices}) != len(head.slices):
        raise ParseError("a file twice")
    return head


def _bounds(row: object) -> Bounds | None:
    if row is None:
        return None
    if not isinstance(row, list) or len(row) != 2:
        raise ParseError("a clock with other fields")
    low, high = (_number(value, -MAX_CLOCK_NS, MAX_CLOCK_NS) for value in row)
    if low > high:
        raise ParseError("a clock between nothing")
    return Bounds(low, high)


def _call_clock(row: object) -> CallClock | None:
    if row is None:
        return None
    if not isinstance(row, list) or len(row) != 3 or not isinstance(row[0], str) or len(row[0]) > MAX_BOOT:
        raise ParseError("a clock with other fields")
    bounds = _bounds(row[1:])
    assert bounds is not None
    return CallClock(row[0], bounds)


def _slice(row: object) -> Slice:
    if not isinstance(row, list) or len(row) != 4:
        raise ParseError("a slice with other fields")
    path, offset, length, crc32 = row
    if not isinstance(path, str) or not is_copied(path):
        raise ParseError("a file that no spool has")
    return Slice(
        path,
        _number(offset, 0, MAX_FILE_BYTES),
        _number(length, 1, MAX_BODY_BYTES),
        _number(crc32, 0, 0xFFFFFFFF),
    )


def _number(value: object, low: int, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ParseError("a number out of its bounds")
    return value


def _text(value: object, pattern: re.Pattern[str]) -> str:
    if not isinstance(value, str) or pattern.fullmatch(value) is None:
        raise ParseError("a text of another form")
    return value


# ── what goes into the next one ──────────────────────────────────────────────────────────────────────────────────────


def choose_slices(
    sizes: Mapping[str, int], sent: Mapping[str, int], limit: int = MAX_BODY_BYTES
) -> tuple[tuple[Slice, ...], int]:
    """Choose the bytes of the next checkpoint.

    Journals go whole and first. What is left of `limit` goes to the logs in equal shares, so that after an outage no track
    waits for another: sound, which needs little, is there first.

    Args:
        sizes: Of all files, as they are now. Logs must have been measured before journals.
        sent: How much of each is in earlier checkpoints.
    Returns:
        The slices without checksums, and how many bytes had to be left for later.
    """
    new = {
        path: size - sent.get(path, 0) for path, size in sizes.items() if is_copied(path) and size > sent.get(path, 0)
    }
    facts = sorted((path for path in new if not is_log(path)), key=_age)
    logs = sorted((path for path in new if is_log(path)), key=lambda path: (new[path], path))
    chosen: dict[str, int] = {}
    left = limit
    shares = [(path, 1) for path in facts] + [(path, len(logs) - number) for number, path in enumerate(logs)]
    for path, waiting in shares[:MAX_SLICES]:
        take = min(new[path], left // waiting)
        if take > 0:
            chosen[path] = take
            left -= take
    order = [path for path in facts if path in chosen] + sorted(path for path in logs if path in chosen)
    slices = tuple(Slice(path, sent.get(path, 0), chosen[path]) for path in order)
    return slices, sum(new.values()) - sum(chosen.values())


def _age(path: str) -> str:
    """Sorts segments of journals by age: the first has no number."""
    return path.replace("/journal.ndjson", "/journal.000001.ndjson")


def follows(before: Head | None, before_digest: str, head: Head) -> bool:
    """Whether `head` is the one behind `before` (None: whether it is the first of its run)."""
    if before is None:
        return head.seq == 1 and head.previous == FIRST
    return (
        head.seq == before.seq + 1
        and (head.attempt, head.run) == (before.attempt, before.run)
        and head.previous == before_digest
    )


def behind(sent: Mapping[str, int], slices: Sequence[Slice]) -> dict[str, int]:
    """How much of each file is in checkpoints once these slices are."""
    return {**sent, **{part.path: part.end for part in slices}}
