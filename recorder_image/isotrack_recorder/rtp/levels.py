"""How loud a sound track is, by what its packets say of themselves (RFC 6464), folded to one statement a second.

     0                   1
     0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
    |  ID   | len=0 |V|    level    |      level: -dBov, 0 = loudest, 127 = silence; V: the sender hears speech
    +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+

Who speaks when can be told from it without decoding anything. Levels are the sender's claim: shown, never acted upon.
"""

from __future__ import annotations

from typing import Final

SECOND_NS: Final = 1_000_000_000
SILENCE: Final = 127


class LevelMeter:
    """One SSRC's levels since the last statement. Plain numbers: this runs once per packet."""

    __slots__ = ("_due_ns", "_loudest", "_packets", "_sum", "_voiced")

    def __init__(self) -> None:
        self._due_ns = 0
        self._clear()

    def _clear(self) -> None:
        self._packets = self._sum = self._voiced = 0
        self._loudest = SILENCE

    def add(self, octet: int, at_ns: int) -> tuple[int, int, int, int] | None:
        """Take one packet's octet; returns what the second before it came to, when it is over."""
        told = None
        if at_ns >= self._due_ns:
            told = self.take()
            self._due_ns = at_ns + SECOND_NS
        level = octet & 0x7F
        self._packets += 1
        self._sum += level
        self._voiced += octet >> 7
        if level < self._loudest:
            self._loudest = level
        return told

    def take(self) -> tuple[int, int, int, int] | None:
        """Packets, loudest and mean level in -dBov, packets with speech, since the last statement; None = no packet came."""
        if not self._packets:
            return None
        told = (self._packets, self._loudest, (self._sum + self._packets // 2) // self._packets, self._voiced)
        self._clear()
        return told
