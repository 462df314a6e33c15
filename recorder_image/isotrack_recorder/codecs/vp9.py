"""VP9 in RTP (RFC 9628): layer frames of one picture in, one frame out.

A picture may consist of several layer frames, one per spatial layer. A decoder takes them as one chunk, a superframe, with
an index at its end (VP9 bitstream specification annex B). A picture of one layer frame passes as it is. Key flag and size
come from the frames themselves: the descriptor's scalability structure is optional.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from isotrack_recorder.codecs.base import Frame, Layer, Octets, PictureId, read_picture_id
from isotrack_recorder.codecs.vp9_header import SizeTracker
from isotrack_recorder.errors import ParseError

MAX_FRAMES: Final = 8
"""frames_in_superframe_minus_1 has three bits."""

# RFC 9628 section 4.2
_I, _P, _L, _F, _B, _E, _V = 0x80, 0x40, 0x20, 0x10, 0x08, 0x04, 0x02


def descriptor_length(payload: Octets) -> int:
    """Length in bytes of the payload descriptor.

    Raises:
        ParseError: The payload ends inside its descriptor, or holds nothing behind it.
    """
    #      0 1 2 3 4 5 6 7
    #     +-+-+-+-+-+-+-+-+
    #     |I|P|L|F|B|E|V|Z| (required)
    #     +-+-+-+-+-+-+-+-+
    # I:  |M| PICTURE ID  | (7 bits, or 15 where M is set)
    # L:  | TID |U| SID |D|
    #     |   TL0PICIDX   | (only if F is 0)
    # P,F:| P_DIFF      |N| (up to 3 times, again while N is set)
    # V:  | scalability structure
    try:
        flags = payload[0]
        length = 1
        if flags & _I:
            length += 2 if payload[1] & 0x80 else 1
        if flags & _L:
            length += 1 if flags & _F else 2
        if flags & (_P | _F) == _P | _F:
            for _ in range(3):
                length += 1
                if not payload[length - 1] & 1:
                    break
            else:
                raise ParseError("VP9 payload has more than 3 reference indices")
        if flags & _V:
            length = _structure_end(payload, length)
    except IndexError:
        raise ParseError(f"VP9 payload of {len(payload)} bytes ends in its descriptor") from None
    if length >= len(payload):
        raise ParseError(f"VP9 payload of {len(payload)} bytes holds nothing behind its descriptor of {length}")
    return length


def _structure_end(payload: Octets, at: int) -> int:
    """End of the scalability structure that begins at `at` (section 4.2.1)."""
    #     +-+-+-+-+-+-+-+-+
    #     | N_S |Y|G|-|-|-|
    # Y:  | WIDTH, HEIGHT | 16 bits each, N_S + 1 times
    # G:  |      N_G      |
    #     |  TID|U| R |-|-| N_G times, each followed by R times P_DIFF
    head = payload[at]
    at += 1
    if head & 0x10:
        at += 4 * ((head >> 5) + 1)
    if head & 0x08:
        pictures = payload[at]
        at += 1
        for _ in range(pictures):
            at += 1 + (payload[at] >> 2 & 3)
    return at


def picture_id_of(payload: Octets) -> PictureId | None:
    """See CodecSpec.picture_id."""
    if len(payload) < 3 or not payload[0] & _I:
        return None
    return read_picture_id(payload, 1)


def layer_of(payload: Octets) -> Layer | None:
    """See CodecSpec.layer: told in non-flexible mode; in flexible mode there is no TL0PICIDX."""
    if len(payload) < 4 or payload[0] & (_L | _F) != _L:
        return None
    at = 1
    if payload[0] & _I:
        at += 2 if payload[1] & 0x80 else 1
    if len(payload) <= at + 1:
        return None
    return Layer(payload[at] >> 5, payload[at + 1], opens=bool(payload[at] & 0x10))


class Vp9Depacketizer:
    """Joins the layer frames of one picture; remembers the sizes of reference frames."""

    __slots__ = ("_sizes",)

    def __init__(self, fmtp: str = "") -> None:  # noqa: ARG002 - what a DepacketizerFactory takes
        """The profile is in each frame, too."""
        self._sizes = SizeTracker()

    def starts_frame(self, payload: Octets) -> bool:
        """Start of a layer frame that depends on no lower layer of its picture (an SFU may leave those out)."""
        if not payload or not payload[0] & _B:
            return False
        flags = payload[0]
        if not flags & _L:
            return True
        at = 1
        if flags & _I:
            at += 2 if len(payload) > 1 and payload[1] & 0x80 else 1
        return len(payload) > at and not payload[at] & 1  # D: inter-layer dependency

    def frame(self, payloads: Sequence[Octets]) -> Frame:
        """See Depacketizer."""
        layers: list[list[Octets]] = []
        for payload in payloads:
            length = descriptor_length(payload)
            if payload[0] & _B:
                layers.append([])
            elif not layers:
                raise ParseError("VP9 picture does not begin with the start of a frame")
            layers[-1].append(payload[length:])
        frames = [b"".join(layer) for layer in layers]
        if len(frames) == 1:
            data = frames[0]
            frames = frames_of(data)
        else:
            frames = [frame for layer in frames for frame in frames_of(layer)]
            data = superframe(frames)
        headers = [self._sizes.read(frame) for frame in frames]
        width, height = max((header.size for header in headers), key=lambda size: size[0] * size[1])
        return Frame(data, headers[0].key, width, height)


def frames_of(chunk: bytes) -> list[bytes]:
    """Split a chunk by its superframe index; a chunk without one is one frame (annex B).

    Raises:
        ParseError: There is an index, and it does not fit the chunk.
    """
    # | 1 1 0 | bytes per size - 1 (2) | frames - 1 (3) |, sizes (little endian), the first byte again
    mark = chunk[-1] if chunk else 0
    if mark & 0xE0 != 0xC0:
        return [chunk]
    width, count = (mark >> 3 & 3) + 1, (mark & 7) + 1
    index = 2 + width * count
    if len(chunk) < index or chunk[-index] != mark:
        return [chunk]
    frames: list[bytes] = []
    at, end = 0, len(chunk) - index
    for number in range(count):
        place = end + 1 + number * width
        size = int.from_bytes(chunk[place : place + width], "little")
        if at + size > end:
            raise ParseError(f"VP9 superframe of {end} bytes with a frame of {size} at {at}")
        if size:  # an encoder's dropped layer
            frames.append(chunk[at : at + size])
        at += size
    if not frames:
        raise ParseError("VP9 superframe without frames")
    return frames


def superframe(frames: Sequence[bytes]) -> bytes:
    """Join frames into a chunk with an index.

    Raises:
        ParseError: More frames than an index can hold.
    """
    if len(frames) > MAX_FRAMES:
        raise ParseError(f"VP9 picture of {len(frames)} frames, at most {MAX_FRAMES} are possible")
    width = max(1, (max(map(len, frames)).bit_length() + 7) // 8)
    mark = bytes((0xC0 | (width - 1) << 3 | len(frames) - 1,))
    sizes = b"".join(len(frame).to_bytes(width, "little") for frame in frames)
    return b"".join((*frames, mark, sizes, mark))
