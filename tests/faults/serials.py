"""Payloads that say who they are: an Opus packet or a VP8 frame whose bytes carry its source and its serial (pure).

    [codec's head] "isoT" [source: 2] [serial: 4] [size: 4] [CRC-32 of these: 4] [filling that follows from them]

The heads are valid, nothing behind them would decode: SFU and recorder look at heads only, and what is recorded is recorded bit
for bit. A payload that was altered, cut or put together of two is recognised as nobody's.
"""

from __future__ import annotations

import struct
import zlib
from typing import Final, NamedTuple

MAGIC: Final = b"isoT"
_BODY: Final = struct.Struct("!4sHIII")
_OPUS_HEAD: Final = b"\xf8"
"""RFC 6716 section 3.1: configuration 31 (CELT, full band, 20 ms), mono, one frame."""
_VP8_KEY: Final = b"\x10\x00\x00\x9d\x01\x2a" + struct.pack("<HH", 320, 240)
"""RFC 6386 section 9.1: frame tag, start code, size."""
_VP8_DELTA: Final = b"\x11\x00\x00"
_SOUND_BYTES: Final = 60
PICTURE_BYTES: Final = 600
DECLARED_SILENCE: Final = frozenset(
    bytes((config << 3 | stereo, 0xFF, 0xFE)) for config in range(28, 32) for stereo in (0, 4)
)
"""What the recorder puts in for sound that is missing."""


class Stamp(NamedTuple):
    """What a payload says of itself."""

    source: int
    serial: int


def sound(stamp: Stamp) -> bytes:
    """An Opus packet of 20 ms."""
    return _fill(_OPUS_HEAD, stamp, _SOUND_BYTES)


def picture(stamp: Stamp, *, key: bool, size: int = PICTURE_BYTES) -> bytes:
    """A VP8 frame."""
    return _fill(_VP8_KEY if key else _VP8_DELTA, stamp, size)


def read(payload: bytes) -> Stamp | None:
    """What a recorded payload says; None unless it is, to the last bit, one that `sound` or `picture` makes."""
    for head in (_OPUS_HEAD, _VP8_DELTA, _VP8_KEY):
        if payload.startswith(head + MAGIC) and len(payload) >= len(head) + _BODY.size:
            _, source, serial, _, _ = _BODY.unpack_from(payload, len(head))
            stamp = Stamp(source, serial)
            return stamp if payload == _fill(head, stamp, len(payload)) else None
    return None


def _fill(head: bytes, stamp: Stamp, size: int) -> bytes:
    crc = zlib.crc32(struct.pack("!HII", *stamp, size))
    start = head + _BODY.pack(MAGIC, *stamp, size, crc)
    filling = crc.to_bytes(4, "big") * (size // 4 + 1)
    return (start + filling)[:size]
