"""Where media changes hands: the RTP plane calls these, whoever keeps the frames implements them.

All calls come from the event loop's thread, in order, and must not block or raise: the packet loop stands still meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from isotrack_api.words import MediaKind


@dataclass(frozen=True, slots=True)
class CodecInfo:
    """How the payload of a track is to be read, as negotiated."""

    name: str
    """Lower case RTP encoding name: opus, vp8, h264."""
    clock_rate: int
    channels: int = 1
    fmtp: str = ""


@dataclass(slots=True)
class TrackCounters:
    """Running totals of one track since its first packet."""

    packets: int = 0
    lost: int = 0
    """Given up on."""
    recovered: int = 0
    """Arrived by retransmission."""
    late: int = 0
    """Arrived after they were given up on; dropped."""
    duplicates: int = 0
    frames: int = 0
    key_frames: int = 0
    bytes: int = 0
    """Of frames."""
    filler: int = 0
    """Frames that the SFU made up (mute silence, closing key frames); dropped."""
    damaged: int = 0
    """Frames that lacked packets or did not parse; dropped."""
    plis: int = 0
    nacks: int = 0
    """Sequence numbers asked for again."""
    size_changes: int = 0
    last_packet_ns: int = 0
    width: int = 0
    height: int = 0


class TrackSink(Protocol):
    """Takes what one track's stream yields. Timestamps are extended (64 bit, never run over) RTP ticks."""

    def codec(self, codec: CodecInfo) -> None:
        """Frames from now on are of this codec. Called before the first frame and at each change."""

    def source_changed(self, ssrc: int, timestamp: int) -> None:
        """Frames from `timestamp` on come from this SSRC; the first call precedes the first frame."""

    def frame(self, timestamp: int, arrival_ns: int, flags: int, data: bytes) -> None:
        """One whole frame, in order. `flags` are `spool.records.Flag`; `arrival_ns` is CLOCK_MONOTONIC."""

    def gap(self, packets: int, after: int, before: int, at_ns: int) -> None:
        """`packets` between the frames with these timestamps were abandoned."""

    def size(self, timestamp: int, width: int, height: int, rotation: int) -> None:
        """Pictures have this size from `timestamp` on. Called when it changes."""

    def levels(self, at_ns: int, packets: int, loudest: int, mean: int, voiced: int) -> None:
        """Loudness of the `packets` in about the second before `at_ns`, as their sender states it (RFC 6464): the loudest and the
        mean in -dBov (0 = full scale, 127 = silence), and how many hold speech. Only where the SFU passes it on."""

    def sender_report(self, ntp: int, timestamp: int, arrival_ns: int) -> None:
        """RTCP SR: 64-bit NTP time and extended RTP timestamp of the same instant."""


class MediaListener(Protocol):
    """Decides which tracks of a connection are kept."""

    def open_track(self, track_id: str, kind: MediaKind) -> TrackSink | None:
        """An m-line began to carry the SFU's track `track_id`. None = not wanted: its packets are dropped."""
        ...

    def track_unsupported(self, track_id: str, kind: MediaKind, offered: str) -> None:
        """The SFU offered `track_id` with codecs (`offered`, comma separated) of which we know none."""
