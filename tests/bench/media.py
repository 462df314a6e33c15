"""The media of one synthetic participant: ten seconds of 720p30 VP8 and H264 at 1.5 Mbit/s and of Opus at 32 kbit/s.

Encoded once by real encoders, kept in a file, replayed by every participant of the load.
"""

from __future__ import annotations

import pickle
from fractions import Fraction
from pathlib import Path
from typing import Final, NamedTuple

SECONDS: Final = 10
WIDTH, HEIGHT, FPS = 1280, 720, 30
VIDEO_BITRATE: Final = 1_500_000
AUDIO_BITRATE: Final = 32_000


class Media(NamedTuple):
    """Encoded frames, in order."""

    vp8: list[bytes]
    h264: list[bytes]
    """Annex B."""
    audio: list[bytes]


def prepare(path: Path) -> Media:
    """Encode into `path`, unless it is there."""
    if not path.exists():
        fresh = path.with_suffix(".part")
        fresh.write_bytes(pickle.dumps(tuple(_encode())))
        fresh.rename(path)
    return Media(*pickle.loads(path.read_bytes()))  # noqa: S301 - our own file


def _encode() -> Media:
    import av  # the load and the recorder under test only read the file

    av.logging.set_level(av.logging.FATAL)
    vpx = {"deadline": "realtime", "cpu-used": "-8", "lag-in-frames": "0", "error-resilient": "1"}
    x264 = {"preset": "ultrafast", "tune": "zerolatency", "profile": "baseline", "x264-params": "repeat-headers=1"}
    return Media(_video("libvpx", vpx), _video("libx264", x264), _audio())


def _video(encoder: str, options: dict[str, str]) -> list[bytes]:
    import av
    import numpy as np

    context = av.CodecContext.create(encoder, "w")
    assert isinstance(context, av.VideoCodecContext)
    context.width, context.height, context.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    context.time_base, context.framerate = Fraction(1, FPS), Fraction(FPS)
    context.bit_rate, context.gop_size = VIDEO_BITRATE, SECONDS * FPS
    context.options = options
    rng = np.random.default_rng(7)
    texture = rng.integers(0, 255, (HEIGHT // 8, WIDTH // 4, 3), dtype=np.uint8).repeat(16, 0).repeat(8, 1)
    packets = []
    for number in range(SECONDS * FPS):
        view = np.ascontiguousarray(texture[number % HEIGHT :, number * 2 % WIDTH :][:HEIGHT, :WIDTH])
        frame = av.VideoFrame.from_ndarray(view, format="rgb24").reformat(format="yuv420p")
        frame.pts = number
        packets += context.encode(frame)
    return [bytes(packet) for packet in packets + context.encode(None)]


def _audio() -> list[bytes]:
    import av
    import numpy as np

    context = av.CodecContext.create("libopus", "w")
    assert isinstance(context, av.AudioCodecContext)
    context.sample_rate, context.format, context.layout = 48_000, "s16", "mono"
    context.bit_rate = AUDIO_BITRATE
    rng = np.random.default_rng(7)
    packets = []
    for number in range(SECONDS * 50):
        samples = (rng.normal(0, 3000, 960) + 8000 * np.sin((np.arange(960) + 960 * number) / 50)).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.pts = 48_000, number * 960
        packets += context.encode(frame)
    return [bytes(packet) for packet in packets]
