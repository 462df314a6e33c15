"""How each video codec goes into Matroska: the CodecPrivate of a key frame, and the form of blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from isotrack_recorder.codecs.vp9_layers import LayerFilter

from .codec_private import avc_configuration, length_prefixed
from .codec_private_av1 import av1_configuration
from .codec_private_h265 import hevc_configuration
from .codec_private_vp9 import vp9_features

BlockWriter = Callable[[bytes], bytes]
"""Turns the frames of one lane into blocks, in order, from a key frame on."""


Memory = list[tuple[int, int]]
"""What a BlockWriter remembers of the frames before; plain data, owned by whoever begins the lane."""


def _unchanged(_memory: Memory) -> BlockWriter:
    return bytes


def _length_prefixed(_memory: Memory) -> BlockWriter:
    return length_prefixed


def _nothing(_: bytes) -> bytes:
    return b""


@dataclass(frozen=True, slots=True)
class VideoForm:
    """One codec."""

    configuration: Callable[[bytes], bytes] = _nothing
    """CodecPrivate from a key frame; raises ParseError where the frame does not hold what it takes."""
    writer: Callable[[Memory], BlockWriter] = _unchanged
    """Begins a lane, or goes on with it."""


VIDEO_FORMS: Final[Mapping[str, VideoForm]] = MappingProxyType(
    {
        "vp8": VideoForm(),
        "vp9": VideoForm(vp9_features, LayerFilter),
        "av1": VideoForm(av1_configuration),
        "h264": VideoForm(avc_configuration, _length_prefixed),
        "h265": VideoForm(hevc_configuration, _length_prefixed),
    }
)
