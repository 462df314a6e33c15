"""G.711 and G.722 as Microsoft's audio compression manager names them."""

from __future__ import annotations

import struct

import pytest

from isotrack_recorder.matroska.codec_private_acm import ACM_FORMATS, wave_format
from isotrack_recorder.matroska.muxer import CODEC_IDS


@pytest.mark.parametrize(
    ("codec", "channels", "fields"),
    [
        ("pcmu", 1, (7, 1, 8000, 8000, 1, 8, 0)),
        ("pcmu", 2, (7, 2, 8000, 16000, 2, 8, 0)),
        ("pcma", 1, (6, 1, 8000, 8000, 1, 8, 0)),
        ("g722", 1, (0x28F, 1, 16000, 8000, 1, 4, 0)),
    ],
)
def test_wave_format(codec: str, channels: int, fields: tuple[int, ...]) -> None:
    """Tag, channels, samples and bytes per second, block, bits, extra bytes."""
    assert struct.unpack("<HHIIHHH", wave_format(codec, channels)) == fields


def test_every_codec_of_this_kind_has_a_format() -> None:
    assert set(ACM_FORMATS) == {codec for codec, codec_id in CODEC_IDS.items() if codec_id == "A_MS/ACM"}
