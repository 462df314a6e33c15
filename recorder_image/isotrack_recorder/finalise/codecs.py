"""Which codec a frame of a log belongs to, and whether a file can hold it (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from isotrack_api.base import MediaKind
from isotrack_recorder.codecs.opus import samples_of
from isotrack_recorder.codecs.vp9_header import is_key_frame as is_vp9_key_frame
from isotrack_recorder.matroska.codec_private_video import VIDEO_FORMS
from isotrack_recorder.matroska.muxer import CODEC_IDS
from isotrack_recorder.media import CodecInfo
from isotrack_recorder.spool.facts import TrackFacts

from .lanes import Placed

_CODEC_SLACK_NS: Final = 1_000_000_000
"""The journal names a new codec when its first packet was read; its first frame may have arrived that much earlier."""
_START_CODES: Final = (b"\0\0\0\1", b"\0\0\1")


def codec_index(track: TrackFacts, index: int, arrival_ns: int, frame: bytes) -> int:
    """Codec span of a key frame, if `index` was that of the frame before. A new codec begins with a key frame that looks like it."""
    following = index + 1
    if following < len(track.codecs):
        span = track.codecs[following]
        if arrival_ns >= span.at_ns - _CODEC_SLACK_NS and looks_like(span.codec.name, frame):
            return following
    return index


def looks_like(codec: str, frame: bytes) -> bool:
    """Whether a key frame may be of this codec."""
    match codec:
        case "h264":
            return frame.startswith(_START_CODES) and not _begins_as_h265(frame)
        case "h265":
            return frame.startswith(_START_CODES) and _begins_as_h265(frame)
        case "vp8":
            return frame[3:6] == b"\x9d\x01\x2a"  # RFC 6386 section 9.1
        case "vp9":
            return is_vp9_key_frame(frame)
        case "av1":
            return frame[:1] in (b"\x0a", b"\x0e")  # a sequence header with its size, without or with extension
        case _:
            return True


def _begins_as_h265(frame: bytes) -> bool:
    """A parameter set, delimiter or SEI of the base layer; in H.264 no such unit has 1 as its second byte."""
    at = frame.find(1) + 1
    return len(frame) > at + 1 and 32 <= frame[at] >> 1 <= 40 and frame[at + 1] == 1


def is_usable(kind: MediaKind, codec: str, frame: bytes, *, key: bool, begun: bool) -> bool:
    """Whether a frame can be written: sound that is a packet, pictures from a key frame on."""
    if kind is MediaKind.AUDIO:
        return codec != "opus" or samples_of((frame,))[0] > 0
    return begun or key


def usable(kind: MediaKind, codec: str, frames: Sequence[Placed]) -> Sequence[Placed]:
    """Those of a log's next frames that can be written, where one was written before."""
    if kind is MediaKind.AUDIO and codec == "opus":
        lengths = samples_of([placed.data for placed in frames])
        return frames if all(lengths) else [placed for placed, length in zip(frames, lengths) if length]
    return frames


def can_be_written(codec: CodecInfo, kind: MediaKind) -> bool:
    """Whether files can hold this codec as a track of this kind."""
    return codec.name in CODEC_IDS and (codec.name in VIDEO_FORMS) is (kind is MediaKind.VIDEO)
