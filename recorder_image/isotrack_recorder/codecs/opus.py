"""Opus in RTP (RFC 7587): one packet is one frame; the table of contents byte tells its duration (RFC 6716 section 3)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from isotrack_recorder.codecs.base import Frame, Octets
from isotrack_recorder.errors import ParseError

SAMPLE_RATE: Final = 48_000
MAX_PACKET_SAMPLES: Final = 5760
"""120 ms, RFC 6716 section 3.2.5."""

MUTE_SILENCE: Final = b"\xf8\xff\xfe" + bytes(77)
"""What LiveKit sends for about a second when a track is muted. Real digital silence is 3 bytes long."""

# RFC 6716 section 3.1, table 2: samples per frame at 48 kHz by configuration number
_SILK: Final = (480, 960, 1920, 2880)
_HYBRID: Final = (480, 960)
_CELT: Final = (120, 240, 480, 960)
_FRAME_SAMPLES: Final = _SILK * 3 + _HYBRID * 2 + _CELT * 4
# +-+-+-+-+-+-+-+-+
# |  config |s| c |   c: one frame, two, two, or as many as the second byte says
# +-+-+-+-+-+-+-+-+
_PACKET_SAMPLES: Final = tuple((1, 2, 2, 0)[toc & 3] * _FRAME_SAMPLES[toc >> 3] for toc in range(256))
"""By the first byte of a packet; 0 where the second has a say."""


def packet_samples(packet: Octets) -> int:
    """Duration of one Opus packet in samples at 48 kHz.

    Raises:
        ParseError: Empty, no frame count, or longer than 120 ms.
    """
    if not packet:
        raise ParseError("Opus packet is empty")
    toc = packet[0]
    if samples := _PACKET_SAMPLES[toc]:
        return samples
    if len(packet) < 2:
        raise ParseError("Opus packet of code 3 needs 2 bytes, got 1")
    samples = (packet[1] & 0x3F) * _FRAME_SAMPLES[toc >> 3]
    if not 0 < samples <= MAX_PACKET_SAMPLES:
        raise ParseError(f"Opus packet of {samples} samples, 1 to {MAX_PACKET_SAMPLES} are possible")
    return samples


def samples_of(packets: Iterable[Octets]) -> list[int]:
    """Durations of packets, 0 for what is none: `packet_samples` without a call for each."""
    return [_PACKET_SAMPLES[packet[0]] or _counted(packet) if packet else 0 for packet in packets]


def _counted(packet: Octets) -> int:
    try:
        return packet_samples(packet)
    except ParseError:
        return 0


def is_stereo(packet: Octets) -> bool:
    """Tell whether a packet codes two channels."""
    return bool(packet) and bool(packet[0] & 4)


def is_frame(payload: Octets) -> bool:
    """Tell whether a payload is a frame of a participant."""
    return len(payload) > 0 and payload != MUTE_SILENCE


class OpusDepacketizer:
    """Passes packets on; knows the SFU's mute silence."""

    __slots__ = ()

    def __init__(self, fmtp: str = "") -> None:
        """`fmtp` concerns decoders only."""

    def starts_frame(self, payload: Octets) -> bool:
        """Each packet is a frame."""
        return bool(payload)

    def frame(self, payloads: Sequence[Octets]) -> Frame:
        """See Depacketizer."""
        if len(payloads) != 1 or not payloads[0]:
            raise ParseError(f"an Opus frame is one packet with at least one byte, got {len(payloads)} packets")
        data = bytes(payloads[0])
        return Frame(data, True, 0, 0, data == MUTE_SILENCE)  # by position: half the time of a keyword, once per packet
