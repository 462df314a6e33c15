"""Real encoded media for tests, made by independent encoders (libav)."""

from __future__ import annotations

import functools
from fractions import Fraction

import av
import numpy as np
from numpy.typing import NDArray

from .scheduling import kept_scheduling

OPUS_TICKS = 960
"""20 ms at 48 kHz."""


@functools.cache
def opus_packets(count: int, hertz: int = 440, *, stereo: bool = False) -> tuple[bytes, ...]:
    """A tone, 20 ms per packet."""
    at = np.arange((count + 2) * OPUS_TICKS)
    tone = (8000 * np.sin(2 * np.pi * hertz * at / 48000)).astype(np.int16)
    return encode_opus(np.stack([tone] * (1 + stereo)))[:count]


def encode_opus(sides: NDArray[np.int16], bits_per_second: int | None = None) -> tuple[bytes, ...]:
    """Encode sound at 48 kHz, 20 ms per packet.

    Args:
        sides: One row of samples per channel, one or two.
        bits_per_second: Absent = what libopus chooses.
    """
    layout = "stereo" if len(sides) == 2 else "mono"
    encoder = av.CodecContext.create("libopus", "w")
    assert isinstance(encoder, av.AudioCodecContext)
    encoder.sample_rate = 48000
    encoder.layout = layout
    encoder.format = "s16"
    encoder.time_base = Fraction(1, 48000)
    if bits_per_second is not None:
        encoder.bit_rate = bits_per_second
    packets: list[bytes] = []
    for begin in range(0, sides.shape[1] - OPUS_TICKS + 1, OPUS_TICKS):
        samples = np.ascontiguousarray(sides[:, begin : begin + OPUS_TICKS].T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = 48000, begin, Fraction(1, 48000)
        packets += (bytes(packet) for packet in encoder.encode(frame))
    return tuple(packets)


@functools.cache
def pcm_packets(count: int, codec: str, hertz: int = 440) -> tuple[bytes, ...]:
    """A tone in pcmu, pcma or g722, mono, 20 ms per packet."""
    encoder = av.CodecContext.create({"pcmu": "pcm_mulaw", "pcma": "pcm_alaw", "g722": "g722"}[codec], "w")
    assert isinstance(encoder, av.AudioCodecContext)
    encoder.sample_rate = rate = 16_000 if codec == "g722" else 8000
    encoder.layout = "mono"
    encoder.format = "s16"
    packets: list[bytes] = []
    for number in range(count):
        at = np.arange(number * rate // 50, (number + 1) * rate // 50)
        tone = (8000 * np.sin(2 * np.pi * hertz * at / rate)).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(tone.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, int(at[0]), Fraction(1, rate)
        packets += (bytes(packet) for packet in encoder.encode(frame))
    return tuple(packets)


_ENCODERS: dict[str, tuple[str, dict[str, str]]] = {
    "vp8": ("libvpx", {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"}),
    "vp9": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"}),
    "h264": ("libx264", {"preset": "ultrafast", "tune": "zerolatency"}),
    "h265": (
        "libx265",
        {"preset": "ultrafast", "tune": "zerolatency", "x265-params": "repeat-headers=1:log-level=none"},
    ),
    # low delay takes constant bit rate
    "av1": ("libsvtav1", {"preset": "12", "svtav1-params": "pred-struct=1:rc=2"}),
}


@functools.cache
def video_frames(
    count: int,
    codec: str = "vp8",
    width: int = 160,
    height: int = 120,
    key_every: int = 60,
    *,
    pixels: str = "yuv420p",
    noise: bool = False,
) -> tuple[tuple[bytes, bool], ...]:
    """A moving picture: frames with their key flag, as the encoder writes them.

    H.264 and H.265 are Annex B with parameter sets before each key frame; AV1 temporal units begin with a delimiter.

    Args:
        pixels: Any pixel format of the encoder; yuv420p gives H.264 of the baseline profile.
        noise: So that most frames need several packets.
    """
    name, options = _ENCODERS[codec]
    encoder = av.CodecContext.create(name, "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = width, height, pixels
    encoder.time_base, encoder.framerate = Fraction(1, 30), Fraction(30)
    encoder.bit_rate = 2_000_000 if noise else 200_000
    encoder.gop_size = key_every
    encoder.max_b_frames = 0
    encoder.options = options | ({"profile": "baseline"} if codec == "h264" and pixels == "yuv420p" else {})
    random = np.random.default_rng(1)
    frames: list[tuple[bytes, bool]] = []
    for number in range(count):
        picture = np.full((height * 3 // 2, width), 128, np.uint8)
        picture[:height] = random.integers(0, 255, (height, width)) if noise else (np.arange(width) + 4 * number) % 256
        frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
        if pixels != "yuv420p":
            frame = frame.reformat(format=pixels)
        frame.pts, frame.time_base = number, Fraction(1, 30)
        with kept_scheduling():
            packets = encoder.encode(frame)
        frames += ((bytes(packet), bool(packet.is_keyframe)) for packet in packets)
    frames += ((bytes(packet), bool(packet.is_keyframe)) for packet in encoder.encode(None))
    return tuple(frames[:count])
