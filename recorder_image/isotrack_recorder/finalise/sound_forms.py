"""What continuous sound needs to know of each codec: how long a packet is, and what silence looks like.

Lengths and positions count ticks of the codec's RTP clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Protocol

from isotrack_recorder.codecs import opus
from isotrack_recorder.codecs.pcm import CLOCK_RATE, SILENCE
from isotrack_recorder.matroska.codec_private import OPUS_RATE, opus_head
from isotrack_recorder.matroska.codec_private_acm import ACM_FORMATS, wave_format
from isotrack_recorder.media import CodecInfo

_STEREO_BIT: Final = 0x04
# RFC 6716 section 3.1: configurations 28 to 31, CELT full band with 2.5, 5, 10 and 20 ms; then the silence flag is coded.
_OPUS_SILENCE: Final = ((960, 31), (480, 30), (240, 29), (120, 28))
_PCM_SILENCE: Final = CLOCK_RATE // 50
"""Ticks per packet of silence: 20 ms, as senders make them."""


class SoundForm(Protocol):
    """The packets of one lane. Fed in order: silence follows the packets around it."""

    @property
    def rate(self) -> int:
        """Ticks per second."""
        ...

    @property
    def grain(self) -> int:
        """Ticks of the shortest packet of silence."""
        ...

    @property
    def longest(self) -> int:
        """Ticks of the longest one."""
        ...

    @property
    def sample_rate(self) -> int:
        """Of the decoded sound, Hz."""
        ...

    @property
    def channels(self) -> int:
        """Most channels of any packet taken so far."""
        ...

    def length(self, packet: bytes) -> int:
        """Length of a packet in ticks; 0 if it is none."""
        ...

    def lengths(self, packets: Sequence[bytes]) -> list[int]:
        """The same of several."""
        ...

    def note(self, packets: Sequence[bytes]) -> None:
        """Packets were written: one or more, in order."""
        ...

    def silence(self, ticks: int) -> Iterator[tuple[int, bytes]]:
        """Packets of silence, each with its length; they cover `ticks` but for less than a grain."""
        ...

    def private(self) -> bytes:
        """CodecPrivate of the lane."""
        ...


def sound_form(codec: CodecInfo) -> SoundForm:
    """The form of a codec that files can hold."""
    return OpusForm() if codec.name == "opus" else ByteForm(codec.name, min(max(codec.channels, 1), 2))


def opus_silence(samples: int, *, stereo: bool) -> Iterator[tuple[int, bytes]]:
    """Opus packets of digital silence, each with its length; they cover `samples` but for less than 2.5 ms."""
    for length, config in _OPUS_SILENCE:
        packet = bytes((config << 3 | (_STEREO_BIT if stereo else 0), 0xFF, 0xFE))
        while samples >= length:
            samples -= length
            yield length, packet


@dataclass(slots=True)
class OpusForm:
    """Opus: each packet tells its length and channels; silence has those of the packet before. Plain data."""

    rate: ClassVar[int] = OPUS_RATE
    sample_rate: ClassVar[int] = OPUS_RATE
    grain: ClassVar[int] = 120
    longest: ClassVar[int] = 960

    channels: int = 1
    stereo: bool = False

    def length(self, packet: bytes) -> int:
        """See SoundForm."""
        return opus.samples_of((packet,))[0]

    def lengths(self, packets: Sequence[bytes]) -> list[int]:
        """See SoundForm."""
        return opus.samples_of(packets)

    def note(self, packets: Sequence[bytes]) -> None:
        """See SoundForm."""
        self.stereo = opus.is_stereo(packets[-1])
        if self.channels == 1 and any(map(opus.is_stereo, packets)):
            self.channels = 2

    def silence(self, ticks: int) -> Iterator[tuple[int, bytes]]:
        """See SoundForm."""
        return opus_silence(ticks, stereo=self.stereo)

    def private(self) -> bytes:
        """See SoundForm."""
        return opus_head(self.channels)


class ByteForm:
    """G.711 and G.722: a byte per tick and channel."""

    __slots__ = ("_codec", "_silence", "channels")

    rate = CLOCK_RATE
    grain = 1
    longest = _PCM_SILENCE

    def __init__(self, codec: str, channels: int) -> None:
        self.channels = channels
        self._codec = codec
        self._silence = bytes((SILENCE[codec],)) * channels

    @property
    def sample_rate(self) -> int:
        """See SoundForm."""
        return ACM_FORMATS[self._codec].sample_rate

    def length(self, packet: bytes) -> int:
        """See SoundForm."""
        return len(packet) // self.channels

    def lengths(self, packets: Sequence[bytes]) -> list[int]:
        """See SoundForm."""
        return [len(packet) // self.channels for packet in packets]

    def note(self, packets: Sequence[bytes]) -> None:
        """See SoundForm."""

    def silence(self, ticks: int) -> Iterator[tuple[int, bytes]]:
        """See SoundForm."""
        whole, rest = divmod(ticks, _PCM_SILENCE)
        packet = self._silence * _PCM_SILENCE
        for _ in range(whole):
            yield _PCM_SILENCE, packet
        if rest:
            yield rest, self._silence * rest

    def private(self) -> bytes:
        """See SoundForm."""
        return wave_format(self._codec, self.channels)
