"""In which pieces the logs of some sessions come back from checkpoints, and until when they are whole after each (pure).

    heads of a chain ─▶ pieces: checkpoints up to one that left nothing out          pieces of all chains ─▶ by time ─▶ what fits

A session that lasted for a day does not fit on the disk of whoever finishes it. So it is made as it was captured: some seconds, their
parts, then what they were made of goes away, then the next seconds. For that it must be known until when a log that is still
coming is whole. Checkpoint k copied everything that was in the logs when it began, which was after checkpoint k - 1 had read its
journals: so all that was captured before the newest line of those is in k, if nothing was left for later. A process that began later
(by its own clock: it may be another machine's) is not there at all before its journal is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from .checkpoint import MAX_BODY_BYTES, MAX_SLICES, Head

AT_THE_END: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class Piece:
    """Checkpoints of one chain that follow one another."""

    at: int
    """Where their heads begin, in the chain's file of heads."""
    heads: int
    bytes: int
    """Of the wanted logs."""
    known_ns: int
    """With it, and all before it, whatever the chain has captured before is there."""


@dataclass(frozen=True, slots=True)
class Copied:
    """What one checkpoint has of the wanted logs."""

    at: int
    size: int
    """Of its head."""
    bytes: int
    journals: Mapping[str, int | None]
    """Folder of a process → time of the newest line in the copy of its journal, where that grew; None: it has no wanted logs."""
    complete: bool


def is_complete(head: Head) -> bool:
    """Whether a checkpoint took all that there was: else it is as large as one may be."""
    return head.body_bytes < MAX_BODY_BYTES and len(head.slices) < MAX_SLICES


def pieces_of(rows: Iterable[Copied], begins: Mapping[str, int]) -> tuple[Piece, ...]:
    """Cut a chain into pieces; behind the last one nothing wanted comes.

    Args:
        begins: Folder of each process with wanted logs → when it began.
    """
    found: list[Piece] = []
    newest: dict[str, int | None] = {}
    at: int | None = None
    heads = total = wanted = 0
    for row in rows:
        known = _known(newest, begins)
        newest |= row.journals
        at = row.at if at is None else at
        heads, total = heads + 1, total + row.bytes
        if row.complete:
            found.append(Piece(at, heads, total, known))
            wanted = len(found) if total else wanted
            at, heads, total = None, 0, 0
    if at is not None and total:
        found.append(Piece(at, heads, total, AT_THE_END))
        wanted = len(found)
    return tuple(found[:wanted])


def _known(newest: Mapping[str, int | None], begins: Mapping[str, int]) -> int:
    """Until when everything is there, by the journals of the checkpoint before."""
    bounds = [ns for folder, ns in begins.items() if folder not in newest]
    present = max(newest, default=None)  # those before it have ended, so they are whole
    if present is not None:
        ns = newest[present]
        bounds += [ns] if ns is not None else []
    return min(bounds, default=AT_THE_END)


@dataclass(slots=True)
class Pieces:
    """Pieces of several chains, taken in the order of time."""

    chains: Sequence[Sequence[Piece]]
    begins: Sequence[int]
    """When each chain began."""
    _taken: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self._taken = [0] * len(self.chains)

    @property
    def known_ns(self) -> int | None:
        """Until when all that was captured has been taken; None = all there is."""
        return min((self._reached(chain) for chain in self._open()), default=None)

    def take(self, limit: float) -> Iterator[tuple[int, Piece]]:
        """The next pieces, each with the number of its chain: as many as have `limit` bytes, but at least one."""
        left = limit
        while open_ := self._open():
            chain = min(open_, key=self._reached)
            piece = self.chains[chain][self._taken[chain]]
            if piece.bytes > left and left < limit:
                return
            self._taken[chain] += 1
            left -= piece.bytes
            yield chain, piece

    def needed(self) -> int:
        """Bytes of the next piece."""
        open_ = self._open()
        chain = min(open_, key=self._reached) if open_ else None
        return 0 if chain is None else self.chains[chain][self._taken[chain]].bytes

    def end(self, chain: int) -> None:
        """Nothing more of a chain can be had."""
        self._taken[chain] = len(self.chains[chain])

    def _open(self) -> list[int]:
        return [chain for chain, taken in enumerate(self._taken) if taken < len(self.chains[chain])]

    def _reached(self, chain: int) -> int:
        taken = self._taken[chain]
        return self.chains[chain][taken - 1].known_ns if taken else self.begins[chain]
