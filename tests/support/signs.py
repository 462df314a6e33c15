"""What synthetic people show and play, so that a recording tells who it is and which instant it holds.

A picture is a plane in the person's colour; its two upper rows are 32 black or white blocks: person, source, frame
serial, CRC-8. Blocks are large (1/16 of the width), so they outlive encoders, scaling and layer changes; a picture whose
CRC is wrong counts as unreadable and never as a wrong number. The lower half turns white for the first tenth of each
second ("flash"). A sound is the person's steady tone plus, at each full second, a 60 ms beep whose pitch counts seconds
modulo 16. Flash and beep of second n start at the same instant n of one clock. Everything here is pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Samples = NDArray[np.int16]

SAMPLE_RATE: Final = 48_000
"""Hz, of everything that is played and measured."""
CHUNK: Final = 480
"""Samples per capture: 10 ms, what libwebrtc works in."""
BEEP_SECONDS: Final = 0.06
FLASH_SECONDS: Final = 0.1
BEEPS: Final = 16
"""Beeps have so many pitches: the second's number modulo this."""
BEEP_BASE_HZ: Final = 3000.0
BEEP_STEP_HZ: Final = 200.0
MAX_PEOPLE: Final = 16

_COLUMNS: Final = 16
_ROWS: Final = 2
_BLACK, _WHITE = 16, 235
"""Video range of luma (ITU-R BT.601)."""
_CHROMA: Final = ((90, 180), (170, 90), (80, 100), (180, 170), (128, 200), (200, 128), (60, 150), (150, 60))


@dataclass(frozen=True, slots=True)
class Sign:
    """What a picture says about itself."""

    person: int
    """Number of the person, from 0."""
    screen: bool
    """A shared screen, not a camera."""
    serial: int
    """Frame slot since the clock's zero: instant = serial / frames per second."""


def tone_hz(person: int, *, screen: bool = False) -> float:
    """Pitch of a person's steady tone; a shared screen's sound lies 40 Hz above."""
    return 400.0 + 100.0 * person + (40.0 if screen else 0.0)


def beep_hz(second: int) -> float:
    """Pitch of the beep at a full second."""
    return BEEP_BASE_HZ + BEEP_STEP_HZ * (second % BEEPS)


def draw(sign: Sign, width: int, height: int, *, flash: bool) -> Pixels:
    """Make one I420 picture: `height * 3 // 2` rows of `width` bytes. Width and height must be even."""
    picture = np.empty((height * 3 // 2, width), np.uint8)
    picture[:height] = 110
    u, v = _CHROMA[(sign.person * 2 + sign.screen) % len(_CHROMA)]
    picture[height : height + height // 4] = u
    picture[height + height // 4 :] = v
    bits = np.where(_bits(_word(sign)).reshape(_ROWS, _COLUMNS), _WHITE, _BLACK).astype(np.uint8)
    rows, columns = _grid(height, width)
    top = int(rows[-1])
    row_of = np.searchsorted(rows, np.arange(top), side="right") - 1
    column_of = np.searchsorted(columns, np.arange(width), side="right") - 1
    picture[:top] = bits[row_of][:, np.minimum(column_of, _COLUMNS - 1)]
    picture[height // 2 : height] = _WHITE if flash else 60
    return picture


def read(luma: Pixels) -> Sign | None:
    """Read a decoded luma plane of any size; None where it is not (or no longer) one of our pictures."""
    height, width = luma.shape
    if height < _ROWS * 8 or width < _COLUMNS * 4:
        return None
    rows, columns = _grid(height, width)
    word = 0
    for row in range(_ROWS):
        top, bottom = _core(rows[row], rows[row + 1])
        for column in range(_COLUMNS):
            left, right = _core(columns[column], columns[column + 1])
            word = word << 1 | int(luma[top:bottom, left:right].mean() > 126)
    body, check = word >> 8, word & 0xFF
    if _crc8(body) != check:
        return None
    return Sign(person=body >> 18, screen=bool(body >> 17 & 1), serial=body & 0x1FFFF)


def is_flash(luma: Pixels) -> bool:
    """Whether the lower half is white."""
    height = luma.shape[0]
    return bool(luma[height * 5 // 8 : height * 7 // 8].mean() > 160)


def play(person: int, position: int, *, screen: bool = False) -> Samples:
    """Sound of one chunk.

    Args:
        person: Whose tone.
        position: First sample since the clock's zero, a multiple of CHUNK.
        screen: The sound of a shared screen.
    Returns:
        CHUNK samples, mono.
    """
    at = np.arange(position, position + CHUNK, dtype=np.float64)
    sound = 0.2 * np.sin(at * (2 * np.pi * tone_hz(person, screen=screen) / SAMPLE_RATE))
    second, inside = divmod(position, SAMPLE_RATE)
    if inside < BEEP_SECONDS * SAMPLE_RATE:
        sound += 0.5 * np.sin(at * (2 * np.pi * beep_hz(second) / SAMPLE_RATE))
    return (sound * 32_000).astype(np.int16)


def _word(sign: Sign) -> int:
    body = (sign.person & 0x3F) << 18 | sign.screen << 17 | sign.serial & 0x1FFFF
    return body << 8 | _crc8(body)


def _bits(word: int) -> NDArray[np.bool_]:
    count = _ROWS * _COLUMNS
    return np.array([word >> (count - 1 - index) & 1 for index in range(count)], dtype=np.bool_)


def _crc8(body: int) -> int:
    """CRC-8 (polynomial 0x07, start 0xFF, so that an all-black picture is no sign) over 24 bits."""
    crc = 0xFF
    for byte in body.to_bytes(3, "big"):
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x07 if crc & 0x80 else crc << 1) & 0xFF
    return crc


def _grid(height: int, width: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Edges of the blocks; a row is as high as an eighth of the picture, whatever its shape."""
    rows = np.array([height * row // 8 for row in range(_ROWS + 1)], dtype=np.int64)
    columns = np.array([width * column // _COLUMNS for column in range(_COLUMNS + 1)], dtype=np.int64)
    return rows, columns


def _core(low: Any, high: Any) -> tuple[int, int]:
    """Inner half of a block: its edges blur."""
    margin = int(high - low) // 4
    return int(low) + margin, int(high) - margin
