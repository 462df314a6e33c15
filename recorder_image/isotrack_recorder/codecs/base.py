"""What the RTP plane needs of a codec: payloads of one frame in, the frame out.

A Depacketizer belongs to one stream and lives as long as it. It may remember what later frames need (parameter
sets), nothing else; it knows neither sequence numbers nor time. Payloads are one frame's, complete and in order: the
plane sees to that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from isotrack_api.words import MediaKind

Octets = bytes | bytearray
"""Payloads arrive as slices of a receive buffer (bytearray) or of a datagram (bytes)."""


class Frame(NamedTuple):
    """One encoded frame as a decoder or a container takes it."""

    data: bytes
    """Empty where the payloads held nothing that is shown (parameter sets alone)."""
    key: bool
    """A decoder can start here."""
    width: int = 0
    """Pixels as coded; 0 where the frame does not say. Parameter sets alone may tell it, too."""
    height: int = 0
    filler: bool = False
    """Made up by an SFU, nothing that a participant sent."""
    borrows: bool = False
    """A key frame that came without parameter sets (a sequence header) and was given those of an earlier one, of a sender that has sent some beside a key
    frame. Where packets are lost before it, they may have held others: then it cannot be decoded with these."""


class Layer(NamedTuple):
    """Where a frame stands among the temporal layers of its stream, as its payload descriptor says. Layer 0 needs layer 0 alone."""

    temporal: int
    base: int
    """8 bits: number of the newest frame of layer 0, this one included."""
    sync: bool = False
    """Of its stream it needs the frame of layer 0 numbered `base` alone."""
    opens: bool = False
    """Later frames of higher layers need none of those layers from before this frame."""


class PictureId(NamedTuple):
    """Number of a picture, one more than that of the picture before, as its payload descriptor says."""

    value: int
    modulus: int
    """Numbers repeat after so many."""


def read_picture_id(payload: Octets, at: int) -> PictureId:
    """The number of 7 or 15 bits at this place, as VP8 and VP9 write it (RFC 7741 section 4.2, RFC 9628 section 4.2): the first bit tells."""
    if payload[at] & 0x80:
        return PictureId((payload[at] & 0x7F) << 8 | payload[at + 1], 1 << 15)
    return PictureId(payload[at], 1 << 7)


def no_picture_id(payload: Octets) -> PictureId | None:  # noqa: ARG001 - see CodecSpec.picture_id
    """Of formats that do not number pictures."""
    return None


def no_layer(payload: Octets) -> Layer | None:  # noqa: ARG001 - see CodecSpec.layer
    """Of formats that tell nothing of layers."""
    return None


class Depacketizer(Protocol):
    """Payload format of one codec."""

    def starts_frame(self, payload: Octets) -> bool:
        """Tell whether this payload can be the first of a frame; used to find whole frames behind a gap."""
        ...

    def frame(self, payloads: Sequence[Octets]) -> Frame:
        """Build the frame.

        Raises:
            ParseError: The payloads are not what the format says.
        """
        ...


class DepacketizerFactory(Protocol):
    """Makes a depacketizer for a stream with these format parameters."""

    def __call__(self, fmtp: str) -> Depacketizer: ...


def never_whole(payload: Octets) -> bool:  # noqa: ARG001 - one of the functions that tell
    """No payload of the codec is a frame as it is."""
    return False


@dataclass(frozen=True, slots=True)
class CodecSpec:
    """A codec that can be recorded."""

    kind: MediaKind
    clock_rate: int
    make: DepacketizerFactory
    refuses: tuple[str, ...] = ()
    """Format parameters (`name=value`, lower case) that we cannot depacketize."""
    layer: Callable[[Octets], Layer | None] = no_layer
    """Reads the first payload of a frame; None where it tells no layer."""
    picture_id: Callable[[Octets], PictureId | None] = no_picture_id
    """Reads the first payload of a frame; None where it has no number."""
    is_frame: Callable[[Octets], bool] = never_whole
    """Tells payloads that are frames as they are, sent by a participant: what a depacketizer would only pass on."""
