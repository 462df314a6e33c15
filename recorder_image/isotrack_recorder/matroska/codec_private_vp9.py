"""VP9: codec feature metadata (WebM container guidelines, VP9 CodecPrivate) from a key frame.

Features are |id (1)|length (1)|value|. The level is left out: it follows from a frame rate that nobody promises.
"""

from __future__ import annotations

from typing import Final

from isotrack_recorder.codecs.vp9_header import color_config

_PROFILE: Final = 1
_BIT_DEPTH: Final = 3
_CHROMA: Final = 4
_CHROMA_OF_SUBSAMPLING: Final = {(1, 1): 1, (1, 0): 2, (0, 0): 3}
"""4:2:0 with chroma at luma (0, 0), the default of the VP codec binding; 4:2:2; 4:4:4. 4:4:0 has no number."""


def vp9_features(frame: bytes) -> bytes:
    """Write profile, bit depth and chroma subsampling.

    Raises:
        ParseError: Not a key frame.
    """
    config = color_config(frame)
    features = bytes((_PROFILE, 1, config.profile, _BIT_DEPTH, 1, config.bit_depth))
    chroma = _CHROMA_OF_SUBSAMPLING.get((config.subsampling_x, config.subsampling_y))
    return features if chroma is None else features + bytes((_CHROMA, 1, chroma))
