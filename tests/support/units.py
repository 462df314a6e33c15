"""Digests of access units, the same for what is sent and for what a file holds."""

from __future__ import annotations

import hashlib


def unit_digest(data: bytes, codec: str) -> str:
    """Digest of one access unit of vp8, vp9, av1, h264 or h265 (hevc).

    H264, H265: of its slices only, without start codes or lengths; a muxer may move parameter sets to the file's head.
    AV1: without its temporal delimiter, which files leave out.
    """
    if codec == "h264":
        data = b"\0\0\1".join(unit for unit in annexb_units(data) if unit[0] & 0x1F in (1, 5))
    elif codec in ("h265", "hevc"):
        data = b"\0\0\1".join(unit for unit in annexb_units(data) if unit[0] >> 1 & 0x3F < 32)
    elif codec in ("av1", "libdav1d"):
        data = data.removeprefix(b"\x12\0")
    return hashlib.sha256(data).hexdigest()[:16]


def annexb_units(data: bytes) -> list[bytes]:
    """Split Annex B bytes (ITU-T H.264 annex B) into NAL units."""
    units = data.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1")
    return [unit for unit in units if unit]
