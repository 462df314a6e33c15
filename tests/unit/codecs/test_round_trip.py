"""Frames of real encoders, packetized by FFmpeg's RTP muxer, come back bit for bit."""

from __future__ import annotations

import contextlib
import socket
from fractions import Fraction

import av
import pytest

from isotrack_api.base import MediaKind
from isotrack_recorder.codecs.base import Octets
from isotrack_recorder.codecs.registry import find_codec
from isotrack_recorder.rtp.packet import parse_packet
from support.media import video_frames

av.logging.set_level(av.logging.FATAL)

TEMPORAL_DELIMITER = b"\x12\x00"


def packetize(codec: str, frames: tuple[tuple[bytes, bool], ...], width: int, height: int) -> list[bytes]:
    """RTP packets of FFmpeg's muxer, through a socket on loopback."""
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as receiver:
        receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        receiver.bind(("127.0.0.1", 0))
        receiver.setblocking(False)
        received: list[bytes] = []
        url = f"rtp://127.0.0.1:{receiver.getsockname()[1]}?pkt_size=1200"
        with av.open(url, "w", format="rtp", options={"strict": "experimental"}) as output:
            stream = output.add_mux_stream({"h265": "hevc"}.get(codec, codec), width=width, height=height)
            for number, (data, key) in enumerate(frames):
                packet = av.Packet(data)
                packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, 90_000), key
                packet.pts = packet.dts = number * 3000
                output.mux(packet)
                with contextlib.suppress(BlockingIOError):
                    while True:
                        received.append(receiver.recv(4096))
        with contextlib.suppress(BlockingIOError):
            while True:
                received.append(receiver.recv(4096))
    return [data for data in received if not 192 <= data[1] <= 223]


def comparable(codec: str, data: bytes) -> bytes | list[bytes]:
    """A frame without what its form in RTP leaves out: kinds of start codes, temporal delimiters."""
    if codec in ("h264", "h265"):
        return [unit for unit in data.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1") if unit]
    return data.removeprefix(TEMPORAL_DELIMITER) if codec == "av1" else data


@pytest.mark.parametrize(
    ("codec", "width", "height", "pixels"),
    [
        pytest.param("vp8", 322, 182, "yuv420p", id="vp8"),
        pytest.param("h264", 320, 180, "yuv420p", id="h264-baseline"),
        pytest.param("h264", 322, 182, "yuv422p10le", id="h264-high-422-10-bits"),
        pytest.param("vp9", 322, 182, "yuv420p", id="vp9-profile-0"),
        pytest.param("vp9", 322, 182, "yuv444p", id="vp9-profile-1"),
        pytest.param("h265", 322, 182, "yuv420p", id="h265-main-cropped"),
        pytest.param("h265", 322, 182, "yuv422p10le", id="h265-422-10-bits"),
        pytest.param("av1", 322, 182, "yuv420p", id="av1-main"),
        pytest.param("av1", 322, 182, "yuv420p10le", id="av1-10-bits"),
    ],
)
def test_frames_survive_packets(codec: str, width: int, height: int, pixels: str) -> None:
    sent = video_frames(24, codec, width, height, 10, pixels=pixels, noise=True)
    spec = find_codec(codec, MediaKind.VIDEO, 90_000, "")
    assert spec is not None
    depacketizer = spec.make("")
    frames, payloads = [], list[Octets]()
    packets = packetize(codec, sent, width, height)
    assert len(packets) > 2 * len(sent), "most frames should need several packets"
    for data in packets:
        packet = parse_packet(data)
        assert depacketizer.starts_frame(packet.payload) or payloads
        payloads.append(packet.payload)
        if packet.marker:
            frames.append(depacketizer.frame(payloads))
            payloads = []
    assert len(frames) == len(sent) == 24
    assert [frame.key for frame in frames] == [key for _, key in sent]
    assert {(frame.width, frame.height) for frame in frames if frame.key} == {(width, height)}
    assert [comparable(codec, frame.data) for frame in frames] == [comparable(codec, data) for data, _ in sent]
