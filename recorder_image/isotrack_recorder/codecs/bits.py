"""Read bitstreams bit by bit, most significant bit first: parameter sets and frame headers of video codecs.

Descriptors are named as in the documents: u(n) and f(n) are `read`, ue(v) is `golomb`, se(v) is `signed_golomb`.
"""

from __future__ import annotations

from isotrack_recorder.errors import ParseError


class Bits:
    """A position in `data`; `name` says in errors what was read."""

    __slots__ = ("_end", "_name", "_position", "_value")

    def __init__(self, data: bytes, name: str) -> None:
        self._value = int.from_bytes(data, "big")
        self._end = len(data) * 8
        self._position = 0
        self._name = name

    @property
    def position(self) -> int:
        """Bits read so far."""
        return self._position

    def read(self, count: int) -> int:
        """u(n)

        Raises:
            ParseError: Fewer bits are left.
        """
        self._position += count
        if self._position > self._end:
            raise ParseError(f"{self._name} ends early")
        return (self._value >> (self._end - self._position)) & ((1 << count) - 1)

    def golomb(self) -> int:
        """ue(v), ITU-T H.264 and H.265 section 9; AV1 calls it uvlc()."""
        zeros = 0
        while not self.read(1):
            zeros += 1
            if zeros > 31:
                raise ParseError(f"{self._name} holds an over-long code")
        return (1 << zeros) - 1 + (self.read(zeros) if zeros else 0)

    def signed_golomb(self) -> int:
        """se(v)"""
        code = self.golomb()
        return (code + 1) // 2 if code & 1 else -(code // 2)


def without_emulation_prevention(unit: bytes) -> bytes:
    """RBSP of a NAL unit (ITU-T H.264 section 7.4.1, H.265 section 7.4.2)."""
    return unit.replace(b"\x00\x00\x03", b"\x00\x00")
