"""The codecs that can be recorded. A further codec is one module and one line here: answerer and plane follow."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from isotrack_api.words import MediaKind
from isotrack_recorder.codecs import av1, h264, h265, opus, pcm, vp8, vp9
from isotrack_recorder.codecs.base import CodecSpec

CODECS: Final[Mapping[str, CodecSpec]] = MappingProxyType(
    {
        "opus": CodecSpec(MediaKind.AUDIO, 48_000, opus.OpusDepacketizer, is_frame=opus.is_frame),
        "pcmu": CodecSpec(MediaKind.AUDIO, pcm.CLOCK_RATE, pcm.PcmDepacketizer, is_frame=pcm.is_frame),
        "pcma": CodecSpec(MediaKind.AUDIO, pcm.CLOCK_RATE, pcm.PcmDepacketizer, is_frame=pcm.is_frame),
        "g722": CodecSpec(MediaKind.AUDIO, pcm.CLOCK_RATE, pcm.PcmDepacketizer, is_frame=pcm.is_frame),
        "vp8": CodecSpec(
            MediaKind.VIDEO, 90_000, vp8.Vp8Depacketizer, layer=vp8.layer_of, picture_id=vp8.picture_id_of
        ),
        # RFC 6184 section 5.4: mode 2 interleaves access units
        "h264": CodecSpec(MediaKind.VIDEO, 90_000, h264.H264Depacketizer, refuses=("packetization-mode=2",)),
        # RFC 7798 section 7.1: layers of one picture over several streams
        "h265": CodecSpec(MediaKind.VIDEO, 90_000, h265.H265Depacketizer, refuses=("tx-mode=mrst", "tx-mode=mrmt")),
        "vp9": CodecSpec(
            MediaKind.VIDEO, 90_000, vp9.Vp9Depacketizer, layer=vp9.layer_of, picture_id=vp9.picture_id_of
        ),
        "av1": CodecSpec(MediaKind.VIDEO, 90_000, av1.Av1Depacketizer),
    }
)


def find_codec(name: str, kind: MediaKind, clock_rate: int, fmtp: str) -> CodecSpec | None:
    """Look up an offered codec; None where we cannot record it in this form."""
    spec = CODECS.get(name.lower())
    if spec is None or spec.kind is not kind or spec.clock_rate != clock_rate:
        return None
    parameters = {part.strip().lower() for part in fmtp.split(";")}
    return None if parameters.intersection(spec.refuses) else spec
