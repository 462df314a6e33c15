"""One captured track: what the RTP plane says of it goes to its log and to the journal.

A TrackCapture is made when a track is first wanted and lives for the rest of the capture. Reconnects, pauses and mutes do
not end it: whatever comes later under the same track id continues the same log, behind a new `ssrc` line. Excluding a
person ends it; admitting the person again makes another one. Sound that changes its codec goes on in another log: ticks of one log
count from one clock, and a packet of sound does not show whose it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from isotrack_api.words import MediaKind, TrackSource

from .clock import Clock
from .codecs.pcm import SILENCE
from .control import TrackState
from .media import CodecInfo, TrackCounters
from .spool.records import Flag
from .spool.writer import SpoolWriter, TrackLog

RESUME_NS: Final = 5_000_000_000
"""Longest time from asking for a track again to its first frame that still counts as shed. A publisher's key frame takes a second or
two; one who sends nothing for longer is silent."""
MAX_LOGS: Final = 100
"""Of one track of sound. Nobody changes the codec more often but to fill a disk with files: nothing more is kept of that track."""

_USUAL: Final = int(Flag.KEY)
"""Flags of a packet of sound of which nothing else is to be told."""


def _drop(timestamp: int, arrival_ns: int, flags: int, data: bytes) -> None:
    """Keep nothing of a frame."""


class TrackCapture:
    """The TrackSink of one track. Ids and names are bounded by the source."""

    __slots__ = (
        "_clock",
        "_codec",
        "_logs",
        "_on_codec",
        "_resumed",
        "_spool",
        "_totals",
        "codec_name",
        "ended",
        "frame",
        "height",
        "kind",
        "log",
        "muted",
        "name",
        "peer_id",
        "shed",
        "source",
        "track_id",
        "user_id",
        "width",
    )

    def __init__(
        self,
        spool: SpoolWriter,
        clock: Clock,
        *,
        track_id: str,
        peer_id: str,
        user_id: str,
        source: TrackSource,
        kind: MediaKind,
        name: str,
        on_codec: Callable[[], None],
    ) -> None:
        self.track_id = track_id
        self.peer_id = peer_id
        self.user_id = user_id
        self.source = source
        self.kind = kind
        self.name = name
        self._spool = spool
        self._clock = clock
        self._logs = 0
        self._codec: CodecInfo | None = None
        self.codec_name = ""
        self.muted = False
        self._begin_log()
        self.width = 0
        self.height = 0
        self.ended = False
        self.shed = False
        """Not received, because the spool is nearly full."""
        self._resumed: tuple[int, int] | None = None
        """When it was asked for again, and how many frames there were then; None where nothing is awaited."""
        self._totals = TrackCounters()
        self._on_codec = on_codec

    def _begin_log(self) -> None:
        self._logs += 1
        self.log: TrackLog = self._spool.open_track()
        self.frame: Callable[[int, int, int, bytes], None] = self.log.append
        self.note(
            "track",
            track_id=self.track_id,
            peer_id=self.peer_id,
            user_id=self.user_id,
            source=self.source.value,
            kind=self.kind.value,
        )

    def _choose_path(self) -> None:
        """The way of each frame: straight into the log, but while a codec is muted whose silence looks like any sound."""
        if self.frame is not _drop:
            self.frame = self._unless_silent if self.muted and self.codec_name in SILENCE else self.log.append

    def _unless_silent(self, timestamp: int, arrival_ns: int, flags: int, data: bytes) -> None:
        """LiveKit makes up a second of silence behind a mute: nothing that the participant sent. (Of Opus it is told by its bytes.)"""
        if flags != _USUAL or data.count(SILENCE[self.codec_name]) < len(data):
            self.log.append(timestamp, arrival_ns, flags, data)

    def _change_log(self) -> None:
        """End the log and go on in another one."""
        if self._logs >= MAX_LOGS:
            self.frame = _drop
            return
        self.log.released = True
        self.note("track_ended", reason="codec changed")
        self._resumed = None
        self._begin_log()
        if self.muted:
            self.note("muted")

    def note(self, event: str, at_ns: int | None = None, **fields: object) -> None:
        """Write a journal line about this track; `at_ns` absent = now."""
        at_ns = self._clock.monotonic_ns() if at_ns is None else at_ns
        self._spool.journal(event, at_ns, track=self.log.name, **fields)

    def mute(self, *, muted: bool) -> None:
        """Note what the SFU announced. Announcing it twice is one change."""
        if muted != self.muted:
            self.muted = muted
            self.note("muted" if muted else "unmuted")
            self._choose_path()

    def set_shed(self, *, shed: bool) -> None:
        """Note that the track is given up for want of room, or asked for again. Saying it twice is one change."""
        if shed == self.shed:
            return
        self.shed = shed
        if not shed:
            self._resumed = (self._clock.monotonic_ns(), self.log.frames)
        elif self._resumed is not None:
            self._resumed = None  # nothing had come yet: the same gap goes on
        else:
            self.note("shed")

    def settle(self) -> None:
        """Note the end of a gap once frames flow again: until the first key frame nothing could be kept."""
        if self._resumed is None:
            return
        asked_ns, frames = self._resumed
        if self.log.frames > frames or self._clock.monotonic_ns() - asked_ns >= RESUME_NS:
            self._end_gap()

    def _end_gap(self) -> None:
        if self._resumed is not None:
            self._resumed = None
            self.note("unshed")

    def end(self, reason: str) -> None:
        """Note that nothing more comes."""
        if not self.ended:
            self.ended = self.log.released = True
            self._resumed = None
            self.note("track_ended", reason=reason)

    def codec(self, codec: CodecInfo) -> None:
        """See TrackSink."""
        if codec == self._codec:
            return  # a new connection says it again
        if self._codec is not None and self.kind is MediaKind.AUDIO and codec.name != self._codec.name:
            self._change_log()
        self._codec, self.codec_name = codec, codec.name
        self._choose_path()
        self.note(
            "codec", codec=codec.name, clock_rate=codec.clock_rate, channels=codec.channels, fmtp=codec.fmtp[:2048]
        )
        self._on_codec()

    def source_changed(self, ssrc: int, timestamp: int) -> None:
        """See TrackSink."""
        self._end_gap()  # at once: what is missing from here on has another reason
        self.note("ssrc", ssrc=ssrc, timestamp=timestamp)

    def gap(self, packets: int, after: int, before: int, at_ns: int) -> None:
        """See TrackSink."""
        self.note("gap", at_ns, packets=packets, after=after, before=before)

    def size(self, timestamp: int, width: int, height: int, rotation: int) -> None:
        """See TrackSink."""
        self.width, self.height = width, height
        self.note("size", timestamp=timestamp, width=width, height=height, rotation=rotation)

    def levels(self, at_ns: int, packets: int, loudest: int, mean: int, voiced: int) -> None:
        """See TrackSink."""
        self.note("level", at_ns, packets=packets, loudest=loudest, mean=mean, voiced=voiced)

    def sender_report(self, ntp: int, timestamp: int, arrival_ns: int) -> None:
        """See TrackSink."""
        self.note("report", arrival_ns, ntp=ntp, timestamp=timestamp)

    def note_totals(self, totals: TrackCounters) -> None:
        """Write the running totals; they are also what `state` tells from now on where it is given none."""
        self._totals = totals
        self.note(
            "counters",
            packets=totals.packets,
            lost=totals.lost,
            recovered=totals.recovered,
            late=totals.late,
            duplicates=totals.duplicates,
            frames=totals.frames,
            bytes=totals.bytes,
            plis=totals.plis,
            nacks=totals.nacks,
            key_frames=totals.key_frames,
            filler=totals.filler,
            damaged=totals.damaged,
            size_changes=totals.size_changes,
            last_packet_age_ms=_age_ms(totals, self._clock.monotonic_ns()),
        )

    def state(self, totals: TrackCounters | None, now_ns: int) -> TrackState:
        """Snapshot for the agent and the live table."""
        totals = totals or self._totals
        return TrackState(
            track=self.log.name,
            track_id=self.track_id,
            user_id=self.user_id,
            peer_id=self.peer_id,
            name=self.name,
            source=self.source,
            codec=self.codec_name,
            muted=self.muted,
            ended=self.ended,
            shed=self.shed,
            packets=totals.packets,
            lost=totals.lost,
            recovered=totals.recovered,
            late=totals.late,
            frames=self.log.frames,
            media_bytes=self.log.media_bytes,
            plis=totals.plis,
            width=self.width,
            height=self.height,
            size_changes=totals.size_changes,
            last_packet_age_ms=_age_ms(totals, now_ns),
        )


def _age_ms(totals: TrackCounters, now_ns: int) -> int | None:
    """Of the newest packet; None before the first one."""
    return max(0, now_ns - totals.last_packet_ns) // 1_000_000 if totals.last_packet_ns else None
