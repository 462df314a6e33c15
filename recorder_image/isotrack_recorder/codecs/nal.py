"""What H.264 and H.265 share: NAL units in a byte stream, and parameter sets, which are told apart by their ids.

Their headers differ (1 byte and 2), and so does what a unit's type means: that is in `h264` and `h265`.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from typing import Final

START_CODE: Final = b"\x00\x00\x00\x01"

MAX_PARAMETER_SET_BYTES: Final = 2048
"""Real ones have tens of bytes. A larger one stays in its frame and is not remembered, so that a stream's memory is bounded."""


def byte_stream(units: Sequence[bytes]) -> bytes:
    """Join units as annex B of ITU-T H.264 and H.265 writes them."""
    return START_CODE + START_CODE.join(units)


def announced_units(pattern: re.Pattern[str], fmtp: str) -> Iterator[bytes]:
    """Units that format parameters hold in Base64, separated by commas, as the pattern's first group. Unreadable ones are passed over."""
    for found in pattern.finditer(fmtp):
        for text in found[1].split(","):
            try:
                yield base64.b64decode(text, validate=True)
            except binascii.Error:
                continue


def first_code(unit: bytes, header_bytes: int) -> tuple[int, int]:
    """Length and bits of the first ue(v) behind the header: of a picture parameter set its id. Equal codes are equal ids; those up to
    255 fit the 4 bytes read."""
    bits = int.from_bytes(unit[header_bytes : header_bytes + 4].ljust(4, b"\0"), "big")
    zeros = 32 - bits.bit_length()
    length = min(32, 2 * zeros + 1)
    return length, bits >> (32 - length)
