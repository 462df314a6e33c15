"""Make a new input of old ones. Pure: equal generator state, corpus and tokens give equal inputs."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final

# Edges of lengths, counters and signs, in the widths that our formats have
_BYTES: Final = (0, 1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 63, 64, 127, 128, 192, 254, 255)
_SHORTS: Final = (0, 1, 3, 0x7F, 0x80, 0xFF, 0x100, 0x3FFF, 0x4000, 0x7FFF, 0x8000, 0x8001, 0xBEDE, 0xFFFE, 0xFFFF)
_LONGS: Final = (0, 1, 0xFFFF, 0x1_0000, 0x00FF_FFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF)
_NUMBERS: Final = (b"0", b"1", b"-1", b"127", b"255", b"256", b"65535", b"65536", b"2147483648", b"4294967296",
                   b"9223372036854775807", b"9223372036854775808", b"18446744073709551616", b"9" * 40)  # fmt: skip
_PRINTABLE: Final = bytes(range(32, 127)) + b"\r\n\t"

Change = Callable[["Mutator", bytearray], None]


class Mutator:
    """Owns a random generator and the words of one format."""

    def __init__(self, seed: int, max_bytes: int, tokens: Sequence[bytes] = (), *, text: bool = False) -> None:
        self.random = random.Random(seed)
        self._max_bytes = max_bytes
        self._tokens = tokens
        changes = [_flip, _set, _insert, _delete, _repeat, _short, _long, _truncate]
        if tokens:
            changes += [_token, _token, _replace_by_token]
        if text:
            changes += [_number, _number, _line]
        self._changes: tuple[Change, ...] = tuple(changes)
        self._alphabet = _PRINTABLE if text else bytes(range(256))

    def make(self, corpus: Sequence[bytes]) -> bytes:
        """A further input, from one or two of `corpus`; rather of its end, where the newest finds are."""
        rng = self.random
        data = bytearray(corpus[-1 - int(rng.random() ** 2 * len(corpus))])
        if rng.random() < 0.1:
            _splice(self, data, corpus[int(rng.random() * len(corpus))])
        for _ in range(1 << int(rng.random() * 4)):
            self._changes[int(rng.random() * len(self._changes))](self, data)
        del data[self._max_bytes :]
        return bytes(data)

    def at(self, data: bytearray) -> int:
        """A place in `data`, its end included; rather near the front, where headers are."""
        fraction = self.random.random()
        return int((fraction * fraction if fraction < 0.5 else fraction) * (len(data) + 1))

    def byte(self) -> int:
        """Any byte of the alphabet."""
        return self._alphabet[int(self.random.random() * len(self._alphabet))]

    def token(self) -> bytes:
        """Any word of the format."""
        return self.random.choice(self._tokens)


def _splice(mutator: Mutator, data: bytearray, other: bytes) -> None:
    cut, begin = mutator.at(data), mutator.random.randrange(len(other) + 1)
    data[cut:] = other[begin:]


def _flip(mutator: Mutator, data: bytearray) -> None:
    if data:
        data[mutator.at(data) % len(data)] ^= 1 << int(mutator.random.random() * 8)


def _set(mutator: Mutator, data: bytearray) -> None:
    if data:
        at = mutator.at(data) % len(data)
        data[at] = mutator.random.choice(_BYTES) if mutator.random.random() < 0.5 else mutator.byte()


def _insert(mutator: Mutator, data: bytearray) -> None:
    at = mutator.at(data)
    count = 1 if mutator.random.random() < 0.7 else mutator.random.randrange(1, 65)
    data[at:at] = bytes([mutator.byte()]) * count if mutator.random.random() < 0.3 else bytes(
        mutator.byte() for _ in range(count)
    )  # fmt: skip


def _delete(mutator: Mutator, data: bytearray) -> None:
    at = mutator.at(data)
    del data[at : at + 1 + int(mutator.random.random() ** 3 * 64)]


def _repeat(mutator: Mutator, data: bytearray) -> None:
    """Copy a stretch to another place: elements, lines, parts twice."""
    begin = mutator.at(data)
    piece = data[begin : begin + 1 + int(mutator.random.random() ** 2 * 128)]
    at = mutator.at(data)
    data[at:at] = piece * (1 if mutator.random.random() < 0.9 else 8)


def _short(mutator: Mutator, data: bytearray) -> None:
    at, value = mutator.at(data), mutator.random.choice(_SHORTS)
    data[at : at + 2] = value.to_bytes(2, "big" if mutator.random.random() < 0.7 else "little")


def _long(mutator: Mutator, data: bytearray) -> None:
    at, value = mutator.at(data), mutator.random.choice(_LONGS)
    data[at : at + 4] = value.to_bytes(4, "big" if mutator.random.random() < 0.7 else "little")


def _truncate(mutator: Mutator, data: bytearray) -> None:
    if mutator.random.random() < 0.3:
        del data[mutator.at(data) :]


def _token(mutator: Mutator, data: bytearray) -> None:
    at = mutator.at(data)
    data[at:at] = mutator.token()


def _replace_by_token(mutator: Mutator, data: bytearray) -> None:
    at, token = mutator.at(data), mutator.token()
    data[at : at + len(token)] = token


def _number(mutator: Mutator, data: bytearray) -> None:
    """Replace the digits at some place, or behind it, by an edge."""
    at = mutator.at(data)
    while at < len(data) and not 48 <= data[at] <= 57:
        at += 1
    end = at
    while end < len(data) and 48 <= data[end] <= 57:
        end += 1
    data[at:end] = mutator.random.choice(_NUMBERS)


def _line(mutator: Mutator, data: bytearray) -> None:
    """Drop a line or put it twice."""
    begin = data.rfind(b"\n", 0, mutator.at(data)) + 1
    end = data.find(b"\n", begin) + 1 or len(data)
    line = bytes(data[begin:end])
    data[begin:end] = line * 2 if mutator.random.random() < 0.5 else b""
