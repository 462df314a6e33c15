"""What a spool's journals say, folded into facts.

A Folder takes the events of all incarnations in order and keeps what files are made of. All times become nanoseconds on
one axis: CLOCK_MONOTONIC of the first incarnation. A further incarnation of the same boot shares that clock, wherever the
wall clock has been set meanwhile; one of another boot is put on the axis by its wall clock, or by what is known of it (`Walls`). Reports, the only facts that grow with time, are kept as plain numbers
(24 bytes each). What an event lacks or gets wrong is skipped: the journal was written by the process that parses
hostile bytes.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from isotrack_api.words import MediaKind, StopReason, TrackSource
from isotrack_recorder.media import CodecInfo

_SAME_BOOT_NS: Final = 2_000_000_000
"""Two incarnations of which one does not tell its boot share one if their clocks differ by less."""
REJOIN_NS: Final = 3_000_000_000
"""A session that comes back sooner had not ended."""
MAX_CALL_NS: Final = 8 * 86_400 * 1_000_000_000
"""A recording lasts seven days at most (Intent, limits). What claims to be later would be filled with silence up to there."""
_MAX_WALL_NS: Final = 1 << 62
"""Year 2116."""
_MAX_EVENTS: Final = 100_000
"""Of one kind in one track: more is no call but an attack on memory."""


class Span(NamedTuple):
    """A stretch of time; `end_ns` None = lasts on."""

    start_ns: int
    end_ns: int | None


class CodecSpan(NamedTuple):
    """Frames of a log that were completed from `at_ns` on are of this codec."""

    at_ns: int
    codec: CodecInfo


class LostPackets(NamedTuple):
    """Packets abandoned between the frames with these ticks, in the log's SSRC span number `span`."""

    span: int
    packets: int
    after: int
    before: int


class PictureSize(NamedTuple):
    """Size in pixels and rotation in degrees clockwise from `ticks` on, in the log's SSRC span number `span`."""

    span: int
    ticks: int
    width: int
    height: int
    rotation: int


@dataclass(slots=True)
class Reports:
    """Sender reports of one log, in order of arrival."""

    arrivals: array[int] = field(default_factory=lambda: array("q"))
    ntps: array[int] = field(default_factory=lambda: array("Q"))
    ticks: array[int] = field(default_factory=lambda: array("q"))

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        return zip(self.arrivals, self.ntps, self.ticks)

    def __len__(self) -> int:
        return len(self.arrivals)


@dataclass(slots=True)
class TrackFacts:
    """One log."""

    key: str
    """`i0001/t0001`: folder and log."""
    track_id: str
    peer_id: str
    user_id: str
    source: TrackSource
    kind: MediaKind
    opened_ns: int
    shift_ns: int = 0
    """From the clock that its records were stamped with to the axis."""
    ended_ns: int | None = None
    codecs: list[CodecSpan] = field(default_factory=list)
    spans: int = 0
    """SSRC spans that began."""
    reports: Reports = field(default_factory=Reports)
    losses: list[LostPackets] = field(default_factory=list)
    sizes: list[PictureSize] = field(default_factory=list)
    mutes: list[Span] = field(default_factory=list)
    sheds: list[Span] = field(default_factory=list)
    """While the spool had no room for it."""
    counters: Mapping[str, int] = field(default_factory=dict)
    """Newest totals: packets, lost, recovered, …"""
    is_cut: bool = False
    """The end of its log is damaged: there were more frames. Known once it was walked."""
    abridged: bool = False
    """Its first reports were given back: the beginning of its timeline cannot be made again."""


@dataclass(slots=True)
class PeerFacts:
    """One participant session."""

    peer_id: str
    user_id: str
    name: str
    recorded: bool
    joined_ns: int
    left_ns: int | None = None
    """When its files can be made; None while it lasts."""
    ends: list[int] = field(default_factory=list)
    """Earlier ends: the session came back later than REJOIN_NS afterwards, and what came then has files of its own."""
    excluded: list[Span] = field(default_factory=list)
    """While the person was off the allowlist, having been on it before."""

    def end_of(self, spell: int) -> int | None:
        """End of the session's spell number `spell`, from 0; None while it is not known."""
        if spell < len(self.ends):
            return self.ends[spell]
        return self.left_ns if spell == len(self.ends) else None


@dataclass(frozen=True, slots=True)
class Unrecorded:
    """A track that was wanted and cannot be recorded."""

    track_id: str
    peer_id: str
    user_id: str
    source: TrackSource
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class StopFacts:
    """How capture ended in good order."""

    at_ns: int
    reason: StopReason
    message: str


@dataclass(slots=True)
class SpoolFacts:
    """Everything but the frames."""

    attempt: int = 1
    recording_uid: str = ""
    call_id: str = ""
    call_sid: str = ""
    wall_offset_ns: int = 0
    """Unix time minus the axis."""
    started_ns: int = 0
    armed_ns: int | None = None
    last_ns: int = 0
    """Time of the newest journal line."""
    tells_written: bool = False
    """The recorder says when frames are written: `written_ns` can be relied on."""
    written_ns: int = 0
    """Frames that were captured before lie in their logs, as far as the recorder says so; what a dead process had queued is lost."""
    incarnations: int = 0
    crashes: list[Span] = field(default_factory=list)
    """From the last sign of a process that died to the moment at which its successor could capture, or found the call over."""
    peers: dict[str, PeerFacts] = field(default_factory=dict)
    tracks: dict[str, TrackFacts] = field(default_factory=dict)
    unrecorded: list[Unrecorded] = field(default_factory=list)
    pauses: list[Span] = field(default_factory=list)
    disconnects: list[Span] = field(default_factory=list)
    unread: list[Span] = field(default_factory=list)
    """Stretches of which the journals are damaged: who came, left or was muted then nobody knows."""
    stop: StopFacts | None = None

    @property
    def zero_ns(self) -> int:
        """Zero of the call's timeline as this spool knows it: the moment of being able to capture, in whole ms."""
        at = self.started_ns if self.armed_ns is None else self.armed_ns
        return at - (at + self.wall_offset_ns) % 1_000_000

    @property
    def latest_ns(self) -> int:
        """No call lasts longer than until here."""
        return self.started_ns + MAX_CALL_NS

    def session_end_ns(self, peer_id: str) -> int:
        """When a participant session ended, as far as it is known."""
        peer = self.peers.get(peer_id)
        if peer is not None and peer.left_ns is not None:
            return peer.left_ns
        return self.stop.at_ns if self.stop is not None else self.last_ns

    def tracks_of(self, peer_id: str) -> list[TrackFacts]:
        """Logs of one participant session, in the order in which they were opened."""
        return [track for track in self.tracks.values() if track.peer_id == peer_id]


Walls = Callable[[str, str, int], int]
"""Folder of a process, boot, its Unix time minus CLOCK_MONOTONIC by its own wall clock → the same by the clock that counts."""


def by_their_own(_folder: str, _boot: str, offset_ns: int) -> int:
    """Wall clocks are taken at their word."""
    return offset_ns


class Folder:
    """Folds journal events into `facts`. Owned by the reader; grows with the spool."""

    def __init__(self, walls: Walls = by_their_own) -> None:
        self._walls = walls
        self.facts = SpoolFacts()
        self._incarnation = 0
        self._boot = ""
        """Of the first incarnation, whose clock is the axis."""
        self._shift_ns = 0
        self._crashed_ns: int | None = None
        self._present: set[str] = set()
        """Sessions of which the present process has told."""

    def add(self, incarnation: int, event: Mapping[str, Any]) -> None:
        """Take the next event. Incarnations must come in order."""
        at = event.get("at")
        if not isinstance(at, int) or not 0 <= at < 1 << 62:
            return
        handler = getattr(self, f"_on_{event['e']}", None) if isinstance(event.get("e"), str) else None
        if incarnation != self._incarnation:
            self._begin(incarnation, at, event)
        at += self._shift_ns
        if not 0 <= at <= self.facts.latest_ns:
            return
        self.facts.last_ns = max(self.facts.last_ns, at)
        if handler is not None:
            handler(at, _Fields(event, incarnation))

    def _begin(self, incarnation: int, at: int, event: Mapping[str, Any]) -> None:
        """The first line of a further process."""
        facts = self.facts
        wall = event.get("wall_ns")
        offset = facts.wall_offset_ns
        if isinstance(wall, int) and 0 <= wall < _MAX_WALL_NS:
            offset = wall - at
        boot = _Fields(event, incarnation).text("boot", 64)
        offset = self._walls(f"i{incarnation:04}", boot, offset)
        if not facts.incarnations:
            facts.wall_offset_ns, facts.started_ns, self._boot = offset, at, boot
        else:
            difference = offset - facts.wall_offset_ns
            same = boot == self._boot if boot and self._boot else abs(difference) < _SAME_BOOT_NS
            self._shift_ns = 0 if same else difference
            # NB: a process that died before it was in the call ends no crash: what is missing began with the one before.
            if self._crashed_ns is None and (facts.stop is None or event.get("attempt") != facts.attempt):
                self._crashed_ns = facts.last_ns  # another pod took over: what came in between is as lost
            self._close_open(facts.last_ns)
        facts.incarnations += 1
        self._incarnation = incarnation
        self._present.clear()

    def _close_open(self, at: int) -> None:
        """What a dead process left open ends with it."""
        for track in self.facts.tracks.values():
            track.ended_ns = at if track.ended_ns is None else track.ended_ns
            _end_span(track.mutes, at)
            _end_span(track.sheds, at)
        for peer in self.facts.peers.values():
            _end_span(peer.excluded, at)
        _end_span(self.facts.disconnects, at)
        _end_span(self.facts.pauses, at)

    def _on_start(self, at: int, fields: _Fields) -> None:
        self.facts.tells_written, self.facts.written_ns = bool(fields.get("tells_written", False)), at
        self.facts.attempt = max(1, fields.number("attempt", 1))
        self.facts.recording_uid = fields.text("recording_uid", 36)

    def _on_call(self, at: int, fields: _Fields) -> None:  # noqa: ARG002 - all handlers look alike
        self.facts.call_id = fields.text("call_id", 256) or self.facts.call_id
        self.facts.call_sid = fields.text("call_sid", 128) or self.facts.call_sid

    def _on_armed(self, at: int, fields: _Fields) -> None:  # noqa: ARG002
        self.facts.stop = None  # only a process that captures again takes a stop back
        if self.facts.armed_ns is None:
            self.facts.armed_ns = at
        if self._end_crash(at):
            self._end_absent(at)

    def _end_crash(self, at: int) -> bool:
        """Whether there was one."""
        ends = self._crashed_ns is not None and self._crashed_ns < at  # attempts may overlap
        if self._crashed_ns is not None and ends:
            self.facts.crashes.append(Span(self._crashed_ns, at))
        self._crashed_ns = None
        return ends

    def _end_absent(self, at: int) -> None:
        """Whoever is not there when a process is in the call again left while nobody looked: who is there is told before that."""
        for peer in self.facts.peers.values():
            if peer.left_ns is None and peer.peer_id not in self._present:
                peer.left_ns = at

    def _on_participant(self, at: int, fields: _Fields) -> None:
        peer_id, user_id = fields.text("peer_id", 128), fields.text("user_id", 256)
        if not peer_id or not user_id:
            return
        self._present.add(peer_id)
        known = self.facts.peers.get(peer_id)
        recorded = bool(fields.get("recorded", True))
        if known is None:
            name = fields.text("name", 256)
            self.facts.peers[peer_id] = PeerFacts(peer_id, user_id, name, recorded, joined_ns=at)
        else:
            if known.left_ns is not None and at - known.left_ns > REJOIN_NS and len(known.ends) < _MAX_EVENTS:
                known.ends.append(known.left_ns)
            if recorded:
                _end_span(known.excluded, at)
            elif known.recorded and len(known.excluded) < _MAX_EVENTS:
                _begin_span(known.excluded, at)
            known.left_ns, known.recorded = None, known.recorded or recorded

    def _on_participant_left(self, at: int, fields: _Fields) -> None:
        peer = self.facts.peers.get(fields.text("peer_id", 128))
        if peer is not None:
            peer.left_ns = at
            _end_span(peer.excluded, at)

    def _on_written(self, at: int, fields: _Fields) -> None:  # noqa: ARG002
        self.facts.written_ns = at

    def _on_track(self, at: int, fields: _Fields) -> None:
        log, kind = fields.text("track", 64), fields.text("kind", 16)
        peer_id, user_id = fields.text("peer_id", 128), fields.text("user_id", 256)
        if not log.isalnum() or kind not in tuple(MediaKind) or not peer_id or not user_id:
            return
        key = f"i{fields.incarnation:04}/{log}"
        source = _source(fields.text("source", 32), MediaKind(kind))
        self.facts.tracks[key] = TrackFacts(
            key,
            fields.text("track_id", 128),
            peer_id,
            user_id,
            source,
            MediaKind(kind),
            opened_ns=at,
            shift_ns=self._shift_ns,
        )
        self.facts.peers.setdefault(peer_id, PeerFacts(peer_id, user_id, "", recorded=True, joined_ns=at))

    def _on_codec(self, at: int, fields: _Fields) -> None:
        track, rate = self._track(fields), fields.number("clock_rate", 0)
        if track is None or not 1000 <= rate <= 1_000_000 or len(track.codecs) >= _MAX_EVENTS:
            return
        channels = min(max(fields.number("channels", 1), 1), 8)
        codec = CodecInfo(fields.text("codec", 32).lower(), rate, channels, fields.text("fmtp", 1024))
        if not track.codecs or track.codecs[-1].codec != codec:
            track.codecs.append(CodecSpan(at, codec))

    def _on_ssrc(self, at: int, fields: _Fields) -> None:  # noqa: ARG002
        track = self._track(fields)
        if track is not None:
            track.spans += 1

    def _on_report(self, at: int, fields: _Fields) -> None:
        track, ntp, ticks = self._track(fields), fields.number("ntp", -1), fields.number("timestamp", -(1 << 62))
        if track is None or not 0 <= ntp < 1 << 64 or not -(1 << 61) < ticks < 1 << 61:
            return
        track.reports.arrivals.append(at)
        track.reports.ntps.append(ntp)
        track.reports.ticks.append(ticks)

    def _on_gap(self, at: int, fields: _Fields) -> None:  # noqa: ARG002
        track = self._track(fields)
        if track is not None and len(track.losses) < _MAX_EVENTS:
            numbers = fields.number("packets", 0), fields.number("after", 0), fields.number("before", 0)
            track.losses.append(LostPackets(max(track.spans - 1, 0), *numbers))

    def _on_size(self, at: int, fields: _Fields) -> None:  # noqa: ARG002
        track, width, height = self._track(fields), fields.number("width", 0), fields.number("height", 0)
        if track is None or not (1 <= width <= 65536 and 1 <= height <= 65536) or len(track.sizes) >= _MAX_EVENTS:
            return
        span, rotation = max(track.spans - 1, 0), fields.number("rotation", 0) % 360
        track.sizes.append(PictureSize(span, fields.number("timestamp", 0), width, height, rotation))

    def _on_muted(self, at: int, fields: _Fields) -> None:
        track = self._track(fields)
        if track is not None and len(track.mutes) < _MAX_EVENTS:
            _begin_span(track.mutes, at)

    def _on_unmuted(self, at: int, fields: _Fields) -> None:
        track = self._track(fields)
        if track is not None:
            _end_span(track.mutes, at)

    def _on_shed(self, at: int, fields: _Fields) -> None:
        track = self._track(fields)
        if track is not None and len(track.sheds) < _MAX_EVENTS:
            _begin_span(track.sheds, at)

    def _on_unshed(self, at: int, fields: _Fields) -> None:
        track = self._track(fields)
        if track is not None:
            _end_span(track.sheds, at)

    def _on_track_ended(self, at: int, fields: _Fields) -> None:
        track = self._track(fields)
        if track is not None:
            track.ended_ns = at
            _end_span(track.mutes, at)
            _end_span(track.sheds, at)

    def _on_unrecorded(self, at: int, fields: _Fields) -> None:  # noqa: ARG002
        source = fields.text("source", 32)
        if source not in tuple(TrackSource) or len(self.facts.unrecorded) >= _MAX_EVENTS:
            return
        row = Unrecorded(
            fields.text("track_id", 128),
            fields.text("peer_id", 128),
            fields.text("user_id", 256),
            TrackSource(source),
            fields.text("reason", 64),
            fields.text("message", 512),
        )
        if row.peer_id and row.user_id and row not in self.facts.unrecorded[-1000:]:
            self.facts.unrecorded.append(row)

    def _on_paused(self, at: int, fields: _Fields) -> None:  # noqa: ARG002
        _begin_span(self.facts.pauses, at)

    def _on_resumed(self, at: int, fields: _Fields) -> None:  # noqa: ARG002
        _end_span(self.facts.pauses, at)

    def _on_disconnected(self, at: int, fields: _Fields) -> None:  # noqa: ARG002
        _begin_span(self.facts.disconnects, at)

    def _on_reconnected(self, at: int, fields: _Fields) -> None:  # noqa: ARG002
        _end_span(self.facts.disconnects, at)

    def _on_counters(self, at: int, fields: _Fields) -> None:  # noqa: ARG002
        track = self._track(fields)
        if track is not None:
            track.counters = fields.counts()

    def _on_abridged(self, at: int, fields: _Fields) -> None:  # noqa: ARG002
        track = self._track(fields)
        if track is not None:
            track.abridged = True

    def _on_unread(self, at: int, fields: _Fields) -> None:
        since = fields.number("since_ns", at) + self._shift_ns
        if 0 <= since <= at and len(self.facts.unread) < _MAX_EVENTS:
            self.facts.unread.append(Span(since, at))

    def _on_stop(self, at: int, fields: _Fields) -> None:
        self._end_crash(at)  # the call was over before the successor was in it
        reason = fields.text("reason", 32)
        known = StopReason(reason) if reason in tuple(StopReason) else StopReason.INTERNAL_ERROR
        self.facts.stop = StopFacts(at, known, fields.text("message", 512))

    def _track(self, fields: _Fields) -> TrackFacts | None:
        return self.facts.tracks.get(f"i{fields.incarnation:04}/{fields.text('track', 64)}")


class _Fields:
    """Fields of one event, read with a type and a bound."""

    __slots__ = ("_event", "incarnation")

    def __init__(self, event: Mapping[str, Any], incarnation: int) -> None:
        self._event = event
        self.incarnation = incarnation

    def get(self, name: str, default: object) -> object:
        return self._event.get(name, default)

    def text(self, name: str, limit: int) -> str:
        value = self._event.get(name)
        return value[:limit] if isinstance(value, str) else ""

    def number(self, name: str, default: int) -> int:
        value = self._event.get(name)
        return value if isinstance(value, int) and abs(value) < 1 << 64 else default

    def counts(self) -> dict[str, int]:
        return {
            name: value
            for name, value in self._event.items()
            if name != "at" and isinstance(value, int) and 0 <= value < 1 << 53
        }


def _source(text: str, kind: MediaKind) -> TrackSource:
    """Unknown sources count by kind."""
    source = TrackSource(text) if text in tuple(TrackSource) else None
    audio = kind is MediaKind.AUDIO
    if source is None or (source in (TrackSource.MICROPHONE, TrackSource.SCREENSHARE_AUDIO)) is not audio:
        return TrackSource.MICROPHONE if audio else TrackSource.CAMERA
    return source


def _begin_span(spans: list[Span], at: int) -> None:
    if not spans or spans[-1].end_ns is not None:
        spans.append(Span(at, None))


def _end_span(spans: list[Span], at: int) -> None:
    if spans and spans[-1].end_ns is None:
        spans[-1] = Span(spans[-1].start_ns, max(at, spans[-1].start_ns))
