"""What a depacketizer remembers of its stream is bounded, whatever a sender calls a parameter set."""

from __future__ import annotations

import pytest

from isotrack_recorder.codecs.base import Depacketizer
from isotrack_recorder.codecs.registry import CODECS
from isotrack_recorder.errors import ParseError

LARGE = 60_000
KEPT = 256 * 1024
"""Far above real parameter sets, far below what a stream may cost."""


def ue(value: int) -> bytes:
    """A value below 255 as ue(v), padded with ones to 3 bytes (ITU-T H.264 section 9.1)."""
    code = f"{value + 1:b}"
    bits = "0" * (len(code) - 1) + code
    return int(bits.ljust(24, "1"), 2).to_bytes(3, "big")


def flooded(name: str) -> tuple[Depacketizer, list[bytes]]:
    """A depacketizer that saw many large parameter sets, and the payloads of a key frame that comes without any."""
    depacketizer = CODECS[name].make("")
    if name == "h264":
        sets = [b"\x67\x42\x00\x1f\xac\x2c\xa8\x05\x00\x5b\x90"] + [b"\x68" + ue(n) + bytes(LARGE) for n in range(200)]
        picture = [b"\x65\x88\x84abc"]
    elif name == "h265":
        sets = [b"\x44\x01" + ue(n) + bytes(LARGE) for n in range(60)]
        sets += [bytes((0x40, 1)) + bytes(LARGE), bytes((0x42, 1)) + bytes(LARGE)]
        picture = [b"\x26\x01\xafabc"]
    else:
        sets = [b"\x10\x08" + bytes.fromhex("00000002aff7895f2008") + bytes(8 * LARGE)]
        picture = [b"\x10\x30" + bytes.fromhex("10009680104082000000204e2891a77e84b1743e6500dc7e6aa6f235ccd96b82")]
    for one in sets:
        try:
            depacketizer.frame([one])
        except ParseError:
            continue
    return depacketizer, picture


@pytest.mark.parametrize("name", ["h264", "h265", "av1"])
def test_large_parameter_sets_are_not_kept(name: str) -> None:
    depacketizer, picture = flooded(name)
    try:
        frame = depacketizer.frame(picture)
    except ParseError:
        return
    assert len(frame.data) <= KEPT
