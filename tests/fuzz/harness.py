"""What a harness is, and how it takes an input apart.

A harness is a function of bytes that raises nothing when the parser does what it promises: the errors that it documents
are caught inside, broken invariants are AssertionErrors, anything else that comes out is a defect. It keeps no state
from one input to the next, so that a reproducer is one file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CORPUS: Final = Path(__file__).parent / "corpus"
MAX_BYTES: Final = 4096
_LAST: Final = 0x8000


@dataclass(frozen=True, slots=True)
class Harness:
    """One parser under test."""

    name: str
    """Also the folder of its seeds in corpus/."""
    fuzz: Callable[[bytes], None]
    max_bytes: int = MAX_BYTES
    """Longest input worth trying."""
    share: float = 1.0
    """Of the inputs that a campaign asks for: less for what reads whole files."""
    tokens: tuple[bytes, ...] = ()
    """Words of the format, for the mutator."""
    text: bool = False
    """Inputs are text: the mutator prefers printable characters and numbers."""

    def seeds(self) -> list[bytes]:
        """Checked-in inputs in order of their names; an empty one where there are none."""
        folder = CORPUS / self.name
        found = sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
        return [path.read_bytes() for path in found] or [b""]


def parts(data: bytes) -> Iterator[tuple[bytes, bool]]:
    """Take an input apart: `[length, 15 bits, with a mark as bit 15][that many bytes] …`; the last part may be short.

    Yields each part with its mark.
    """
    at = 0
    while at + 2 <= len(data):
        word = data[at] << 8 | data[at + 1]
        size = word & ~_LAST
        yield data[at + 2 : at + 2 + size], bool(word & _LAST)
        at += 2 + size


def join(*pieces: bytes, marked: frozenset[int] = frozenset()) -> bytes:
    """Build what `parts` takes apart; `marked` are indexes of pieces."""
    return b"".join(
        (len(piece) | (_LAST if index in marked else 0)).to_bytes(2, "big") + piece
        for index, piece in enumerate(pieces)
    )


def as_text(data: bytes) -> str:
    """Text of any kind, as a decoder that replaces what is not UTF-8 would give it."""
    return data.decode("utf-8", "replace")
