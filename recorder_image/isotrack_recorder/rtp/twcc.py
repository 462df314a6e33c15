"""Transport-wide congestion control feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01 section 3.1).

A Log takes the transport-wide sequence numbers of arriving packets with their arrival times; `build` empties it into
feedback packets. Each covers at most 250 sequence numbers: larger ones exceed what SRTCP implementations buffer.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

from isotrack_recorder.rtp.rtcp import TRANSPORT_FEEDBACK

FMT_TWCC: Final = 15
MAX_STATUS_COUNT: Final = 250
MAX_PENDING: Final = 20_000
"""Bound on what is remembered between two feedbacks; 50 ms of 400,000 packets per second."""

_DELTA_NS: Final = 250_000
_REFERENCE_NS: Final = 64_000_000
_NOT_RECEIVED, _SMALL, _LARGE = 0, 1, 2


class TransportLog:
    """Arrivals since the last feedback."""

    __slots__ = ("_count", "_highest", "_pending")

    def __init__(self) -> None:
        self._pending: dict[int, int] = {}
        """Extended sequence number → arrival in ns; a repeated number keeps its first arrival."""
        self._highest: int | None = None
        self._count = 0

    def add(self, sequence: int, arrival_ns: int) -> None:
        """Note an arrival. `sequence` has 16 bits."""
        highest = self._highest
        if highest is None:
            highest = sequence + 0x10000  # room for packets that come late
            self._highest = extended = highest
        else:
            extended = highest + ((sequence - highest + 0x8000) & 0xFFFF) - 0x8000
            if extended > highest:
                self._highest = extended
        if len(self._pending) < MAX_PENDING:
            self._pending.setdefault(extended, arrival_ns)

    def build(self, sender: int, source: int) -> Iterator[bytes]:
        """Write feedback for all noted arrivals and forget them."""
        pending, self._pending = self._pending, {}
        group: list[tuple[int, int]] = []
        for sequence in sorted(pending):
            if group and sequence - group[0][0] >= MAX_STATUS_COUNT:
                yield self._packet(sender, source, group)
                group = []
            group.append((sequence, pending[sequence]))
        if group:
            yield self._packet(sender, source, group)

    def _packet(self, sender: int, source: int, group: list[tuple[int, int]]) -> bytes:
        base = group[0][0]
        reference = min(arrival for _, arrival in group) // _REFERENCE_NS
        previous = reference * _REFERENCE_NS
        symbols = [_NOT_RECEIVED] * (group[-1][0] - base + 1)
        deltas = bytearray()
        for sequence, arrival in group:
            delta = round((arrival - previous) / _DELTA_NS)
            delta = max(-0x8000, min(0x7FFF, delta))
            previous += delta * _DELTA_NS  # what the reader will have summed, so that rounding does not add up
            if 0 <= delta <= 0xFF:
                symbols[sequence - base] = _SMALL
                deltas.append(delta)
            else:
                symbols[sequence - base] = _LARGE
                deltas += struct.pack("!h", delta)
        head = struct.pack(
            "!LLHHL", sender, source, base & 0xFFFF, len(symbols), (reference & 0xFFFFFF) << 8 | self._count & 0xFF
        )
        self._count += 1
        body = head + _chunks(symbols) + bytes(deltas)
        padding = -len(body) % 4
        if padding:
            body += bytes(padding - 1) + bytes([padding])
        first = 0x80 | (0x20 if padding else 0) | FMT_TWCC
        return struct.pack("!BBH", first, TRANSPORT_FEEDBACK, len(body) // 4) + body


def _chunks(symbols: list[int]) -> bytes:
    """Run-length chunks (15 bits: type 0, symbol, 13-bit run) where they pay, else vectors of 7 two-bit symbols."""
    chunks = bytearray()
    position = 0
    while position < len(symbols):
        symbol = symbols[position]
        run = 1
        while position + run < len(symbols) and symbols[position + run] == symbol:
            run += 1
        if run >= 7:
            chunks += struct.pack("!H", symbol << 13 | run)
            position += run
            continue
        chunk = 0xC000
        for index, value in enumerate(symbols[position : position + 7]):
            chunk |= value << (12 - 2 * index)
        chunks += struct.pack("!H", chunk)
        position += 7
    return bytes(chunks)
