"""G.711 and G.722 in RTP (RFC 3551 sections 4.5.14 and 4.5.2): the payload is the sound, any number of samples of it.

All three code 8000 bytes per second and channel and count time in 8000 ticks per second: a byte is a tick. G.722 samples at
16 kHz, two samples to a byte; its RTP clock of 8000 is an old mistake that RFC 3551 keeps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from isotrack_recorder.codecs.base import Frame, Octets
from isotrack_recorder.errors import ParseError

CLOCK_RATE: Final = 8000
MAX_PACKET_BYTES: Final = 8000
"""A second; usual are 20 ms."""

SILENCE: Final[Mapping[str, int]] = MappingProxyType({"pcmu": 0xFF, "pcma": 0xD5, "g722": 0xFF})
"""Byte that codes silence. G.711: the smallest positive value (ITU-T G.711 tables 1a and 2a). G.722 has no silence: this is its
smallest step, within 20 ms below -57 dB of full scale, as quiet as what an encoder makes of zeros."""


def is_frame(payload: Octets) -> bool:
    """Tell whether a payload is a frame."""
    return 0 < len(payload) <= MAX_PACKET_BYTES


class PcmDepacketizer:
    """Passes packets on."""

    __slots__ = ()

    def __init__(self, fmtp: str = "") -> None:
        """None of the three has parameters."""

    def starts_frame(self, payload: Octets) -> bool:
        """Each packet is a frame."""
        return bool(payload)

    def frame(self, payloads: Sequence[Octets]) -> Frame:
        """See Depacketizer."""
        if len(payloads) != 1 or not 0 < len(payloads[0]) <= MAX_PACKET_BYTES:
            sizes = [len(payload) for payload in payloads[:4]]
            raise ParseError(f"a packet of 1 to {MAX_PACKET_BYTES} bytes of sound is a frame, got {sizes}")
        return Frame(bytes(payloads[0]), True)
