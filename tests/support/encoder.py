"""A live video encoder for publishers whose every access unit a test must know."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
from av.video.codeccontext import VideoCodecContext

from .people import Picture
from .scheduling import kept_scheduling

_VPX = {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0", "error-resilient": "1", "threads": "1"}
"""Threads of libvpx wait for one another by spinning."""
ENCODERS: dict[str, tuple[str, dict[str, str]]] = {
    "vp8": ("libvpx", _VPX),
    "vp9": ("libvpx-vp9", _VPX),
    "av1": ("libsvtav1", {"preset": "8", "svtav1-params": "pred-struct=1:rc=2:scd=0"}),
    "h264": (
        "libx264",
        {
            "preset": "ultrafast",
            "tune": "zerolatency",
            "profile": "baseline",
            "x264-params": "annexb=1:repeat-headers=1:scenecut=0",
        },
    ),
    "h265": (
        "libx265",
        {
            "preset": "ultrafast",
            "tune": "zerolatency",
            "forced-idr": "1",
            "x265-params": "annexb=1:repeat-headers=1:scenecut=0:log-level=none",
        },
    ),
}
"""Of pre-encoded pictures: one frame in, one out, key frames on request only."""


class Encoder:
    """Encodes pictures here, so that the ledger knows every access unit. One reference frame, no delay."""

    def __init__(self, picture: Picture) -> None:
        name, options = ENCODERS[picture.codec]
        context = av.CodecContext.create(name, "w")
        assert isinstance(context, VideoCodecContext)
        context.width, context.height, context.pix_fmt = picture.width, picture.height, "yuv420p"
        context.time_base, context.framerate = Fraction(1, picture.fps), Fraction(picture.fps)
        context.bit_rate, context.gop_size, context.max_b_frames, context.options = picture.bitrate, 100_000, 0, options
        self._context, self._count = context, 0

    def encode(self, pixels: Any, *, key: bool) -> tuple[bytes, bool]:
        """Return one access unit (Annex B for H264) and whether it is a key frame."""
        frame = av.VideoFrame.from_ndarray(pixels, format="yuv420p")
        frame.pts, self._count = self._count, self._count + 1
        frame.pict_type = av.video.frame.PictureType.I if key else av.video.frame.PictureType.NONE
        with kept_scheduling():
            packet, *none = self._context.encode(frame)
        assert not none
        return bytes(packet), packet.is_keyframe
