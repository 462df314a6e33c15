"""What the RTP plane is told of a connection: one MediaLine per m-line that carries a track now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from isotrack_api.words import MediaKind
from isotrack_recorder.codecs.base import CodecSpec
from isotrack_recorder.media import CodecInfo


@dataclass(frozen=True, slots=True)
class PayloadFormat:
    """How one payload type is read and what feedback it takes."""

    codec: CodecInfo
    spec: CodecSpec
    nack: bool = False
    pli: bool = False
    fir: bool = False
    remb: bool = False


@dataclass(frozen=True, slots=True)
class MediaLine:
    """One m-line as negotiated."""

    mid: str
    track_id: str
    kind: MediaKind
    formats: Mapping[int, PayloadFormat]
    repairs_of: Mapping[int, int] = field(default_factory=dict)
    """RTX payload type → payload type that it repairs."""
    ssrcs: tuple[int, ...] = ()
    """Announced sources of media; an SFU may leave them out and send the MID instead."""
    repair_ssrcs: Mapping[int, int] = field(default_factory=dict)
    """RTX SSRC → SSRC that it repairs."""
    measures: bool = False
    """Round trips are to be measured by extended reports (RFC 3611 section 5.1, rcvr-rtt)."""


@dataclass(frozen=True, slots=True)
class ExtensionIds:
    """Header extension ids, the same on all m-lines of a bundle (RFC 8843 section 9.1); 0 = not negotiated."""

    mid: int = 0
    rid: int = 0
    repaired_rid: int = 0
    transport_cc: int = 0
    orientation: int = 0
    audio_level: int = 0
