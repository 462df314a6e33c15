"""G.711 and G.722: Matroska has no codec of theirs, only A_MS/ACM, whose CodecPrivate is a WAVEFORMATEX structure.

Tags are those registered with Microsoft (RFC 2361 for G.711); 0x028F is what FFmpeg and Windows use for G.722. The
extensible form, which also says where channels play, is not used: mkvmerge takes it for Vorbis. So ffmpeg notes that it
guesses the layout of G.711 ("mono").
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple


class AcmFormat(NamedTuple):
    """One codec in WAVEFORMATEX."""

    tag: int
    sample_rate: int
    """Hz."""
    bits_per_sample: int


ACM_FORMATS: Final = {
    "pcmu": AcmFormat(0x0007, 8000, 8),
    "pcma": AcmFormat(0x0006, 8000, 8),
    "g722": AcmFormat(0x028F, 16000, 4),
}
_BYTES_PER_SECOND: Final = 8000
"""Of one channel, all three."""


def wave_format(codec: str, channels: int) -> bytes:
    """WAVEFORMATEX without extra bytes."""
    tag, rate, bits = ACM_FORMATS[codec]
    return struct.pack("<HHIIHHH", tag, channels, rate, _BYTES_PER_SECOND * channels, channels, bits, 0)
