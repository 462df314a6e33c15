"""VP8 in RTP (RFC 7741): strip the payload descriptor, read key flag and size from the frame header (RFC 6386 section 9.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from isotrack_recorder.codecs.base import Frame, Layer, Octets, PictureId, read_picture_id
from isotrack_recorder.errors import ParseError

FILLER_SIZE: Final = (8, 8)
"""Picture that LiveKit sends as key frames when it closes a track."""

_START_CODE: Final = b"\x9d\x01\x2a"


def descriptor_length(payload: Octets) -> int:
    """Length in bytes of the payload descriptor.

    Raises:
        ParseError: The payload ends inside its descriptor.
    """
    #      0 1 2 3 4 5 6 7
    #     +-+-+-+-+-+-+-+-+
    #     |X|R|N|S|R| PID | (required)
    #     +-+-+-+-+-+-+-+-+
    # X:  |I|L|T|K|  RSV  |
    #     +-+-+-+-+-+-+-+-+
    # I:  |M| PictureID   | (7 bits, or 15 where M is set)
    # L:  |   TL0PICIDX   |
    # T/K:|TID|Y| KEYIDX  |
    try:
        if not payload[0] & 0x80:
            length = 1
        else:
            flags = payload[1]
            length = 2
            if flags & 0x80:
                length += 2 if payload[2] & 0x80 else 1
            if flags & 0x40:
                length += 1
            if flags & 0x30:
                length += 1
    except IndexError:
        raise ParseError(f"VP8 payload of {len(payload)} bytes ends in its descriptor") from None
    if length >= len(payload):
        raise ParseError(f"VP8 payload of {len(payload)} bytes holds nothing behind its descriptor of {length}")
    return length


def picture_id_of(payload: Octets) -> PictureId | None:
    """See CodecSpec.picture_id."""
    if len(payload) < 4 or not payload[0] & 0x80 or not payload[1] & 0x80:
        return None
    return read_picture_id(payload, 2)


def layer_of(payload: Octets) -> Layer | None:
    """See CodecSpec.layer: told where the descriptor has both TL0PICIDX and TID."""
    if len(payload) < 5 or not payload[0] & 0x80 or payload[1] & 0x60 != 0x60:
        return None
    at = 2
    if payload[1] & 0x80:
        at += 2 if payload[2] & 0x80 else 1
    if len(payload) <= at + 1:
        return None
    return Layer(payload[at + 1] >> 6, payload[at], sync=bool(payload[at + 1] & 0x20))


def _is_filler(frame: Octets) -> bool:
    """LiveKit ends a frame that is under way when it closes a track, with a packet of the same timestamp that holds such a picture."""
    return len(frame) >= 10 and frame[3:6] == _START_CODE and _size_of(frame) == FILLER_SIZE


def _size_of(key_frame: Octets) -> tuple[int, int]:
    """Width and height; the two bits above each say how to scale what is shown."""
    return (key_frame[6] | key_frame[7] << 8) & 0x3FFF, (key_frame[8] | key_frame[9] << 8) & 0x3FFF


class Vp8Depacketizer:
    """Joins the payloads of one frame."""

    __slots__ = ()

    def __init__(self, fmtp: str = "") -> None:
        """VP8 needs no parameters."""

    def starts_frame(self, payload: Octets) -> bool:
        """S set in partition 0."""
        return bool(payload) and payload[0] & 0x17 == 0x10

    def frame(self, payloads: Sequence[Octets]) -> Frame:
        """See Depacketizer."""
        if not self.starts_frame(payloads[0]):
            raise ParseError("VP8 frame does not begin with the start of partition 0")
        first = payloads[0]
        length = descriptor_length(first)
        # The descriptors of one frame differ in nothing but S, as a rule. Where one does, or nothing follows it, each is read
        head = bytes((first[0] & ~0x10,)) + first[1:length]
        pieces = [first[length:], *[payload.removeprefix(head) for payload in payloads[1:]]]
        data = b"".join(pieces)
        if len(data) != sum(map(len, payloads)) - length * len(payloads) or not all(pieces):
            pieces = [payload[descriptor_length(payload) :] for payload in payloads]
            if self.starts_frame(payloads[-1]) and len(pieces) > 1 and _is_filler(pieces[-1]):
                raise ParseError("VP8 frame was cut off: the SFU ended it with a picture of its own")
            data = b"".join(pieces)
        if data[0] & 1:  # P: an interframe
            return Frame(data, False)
        if len(data) < 10 or data[3:6] != _START_CODE:
            raise ParseError("VP8 key frame has no start code")
        width, height = _size_of(data)
        if not width or not height:
            raise ParseError(f"VP8 key frame of {width}x{height}")
        return Frame(data, True, width, height, (width, height) == FILLER_SIZE)
