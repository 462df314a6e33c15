"""Record log: frames of one track as they came, in order, each with its own length and CRC.

A segment file `<track>.<number:06>.log` is `MAGIC` followed by records; a record is

     0      4      8              16             24   26   28
     +------+------+--------------+--------------+----+----+----------
     | size | crc  | timestamp    | arrival      |flag| 0  | frame …
     +------+------+--------------+--------------+----+----+----------

all little-endian. `size` is the frame's length in bytes, `crc` the CRC-32 (zlib) of everything behind it up to the
frame's end, `timestamp` the signed extended RTP timestamp in ticks of the track's clock, `arrival` nanoseconds of
CLOCK_MONOTONIC at which the kernel received the packet that completed the frame's first piece.

A record that is short, at the end of what is there, is torn, or on its way. A damaged one (its CRC is wrong, or what says how long it
is) costs itself alone: the next intact one is looked for.
"""

from __future__ import annotations

import itertools
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntFlag
from typing import Final, NamedTuple
from zlib import crc32

MAGIC: Final = b"isotrk\x00\x01"
HEADER: Final = struct.Struct("<IIqQHH")
_SIZE_CRC: Final = struct.Struct("<II")
_BODY: Final = struct.Struct("<qQHH")
_pack_size_crc, _pack_body = _SIZE_CRC.pack, _BODY.pack
MAX_FRAME_BYTES: Final = 16 * 1024 * 1024
"""Larger frames do not exist in a call; a length beyond it means that the file is damaged."""


_FLAGS_AT: Final = 24
_FLAGS: Final = re.compile(rb"[\x00-\x0f]\x00\x00\x00")
"""Flags and the two bytes behind them, as every header has them."""
_NOT_ZERO: Final = re.compile(rb"[^\x00]")


class Flag(IntFlag):
    """What is known of a frame without decoding it."""

    KEY = 1
    """A decoder can start here."""
    AFTER_GAP = 2
    """Packets between the frame before and this one never arrived."""
    DISCONTINUITY = 4
    """First frame of a new SSRC or of a new timestamp base: only a new anchor places it."""
    UNDECODABLE = 8
    """Made from frames that never came: a decoder shows it damaged, or not at all."""


class Record(NamedTuple):
    """One frame as the spool holds it."""

    timestamp: int
    arrival_ns: int
    flags: int
    frame: bytes


def encode_header(timestamp: int, arrival_ns: int, flags: int, frame: bytes) -> bytes:
    """Build the 28 bytes that stand before `frame`."""
    body = _pack_body(timestamp, arrival_ns, flags, 0)
    return _pack_size_crc(len(frame), crc32(frame, crc32(body))) + body


@dataclass(slots=True)
class Batch:
    """Records that lie one behind the other in `data`, as columns: a list of numbers costs a tenth of an object per record."""

    data: bytes
    timestamps: list[int] = field(default_factory=list)
    arrivals: list[int] = field(default_factory=list)
    flags: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    """Where in `data` each frame begins."""
    ends: list[int] = field(default_factory=list)
    """Where it ends, and with it the record."""


def find_records(data: bytes, offset: int = 0, most: int | None = None, *, intact: int = 0) -> Batch:
    """Find the whole, intact records of a piece of a segment.

    Args:
        offset: Where the first of them begins. Stops at the first that is torn or damaged.
        most: Stop after so many.
        intact: Of those that end here or before, sums were found right before.
    """
    batch = Batch(data)
    timestamps, arrivals, all_flags = batch.timestamps.append, batch.arrivals.append, batch.flags.append
    starts, ends = batch.starts.append, batch.ends.append
    view, length, unpack = memoryview(data), len(data), HEADER.unpack_from
    for _ in itertools.count() if most is None else range(most):
        if (start := offset + HEADER.size) > length:
            break
        size, crc, timestamp, arrival_ns, flags, reserved = unpack(data, offset)
        end = start + size
        if end > length or size > MAX_FRAME_BYTES or reserved:
            break
        if end > intact and crc32(view[offset + 8 : end]) != crc:
            break
        timestamps(timestamp)
        arrivals(arrival_ns)
        all_flags(flags)
        starts(start)
        ends(end)
        offset = end
    return batch


def is_refused(data: bytes, offset: int) -> bool:
    """Whether what begins here is damaged, and no record of which the end is still to come."""
    if len(data) - offset < HEADER.size:
        return False
    size, _crc, _timestamp, _arrival_ns, _flags, reserved = HEADER.unpack_from(data, offset)
    return bool(reserved or size > MAX_FRAME_BYTES or offset + HEADER.size + size <= len(data))


def next_record(data: bytes, offset: int) -> int | None:
    """Where the first intact record from `offset` on begins; None where there is none."""
    at = offset + _FLAGS_AT
    while (match := _FLAGS.search(data, at)) is not None:
        start = match.start() - _FLAGS_AT
        # Blocks of zeros, as a file system leaves them: none begins in there
        if not any(data[start : start + _SIZE_CRC.size]):
            following = _NOT_ZERO.search(data, start + _SIZE_CRC.size)
            if following is None:
                return None
            at = following.start() - _SIZE_CRC.size + 1 + _FLAGS_AT
            continue
        if find_records(data, start, 1).ends:
            return start
        at = match.start() + 1
    return None


def decode_records(data: bytes) -> Iterator[tuple[Record, int]]:
    """Yield whole, intact records of one segment, each with the offset behind it; none without its magic."""
    if not data.startswith(MAGIC):
        return
    batch = find_records(data, len(MAGIC))
    for timestamp, arrival, flags, start, end in zip(
        batch.timestamps, batch.arrivals, batch.flags, batch.starts, batch.ends
    ):
        yield Record(timestamp, arrival, flags, data[start:end]), end
