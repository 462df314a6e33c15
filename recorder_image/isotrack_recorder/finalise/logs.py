"""Walk one log of a session twice: ahead, to learn when its frames came, and behind, to take them once their places are decided.

What both walks know is a LogState: plain data.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, repeat
from typing import Final, cast

from isotrack_recorder.media import CodecInfo
from isotrack_recorder.spool.facts import TrackFacts
from isotrack_recorder.spool.reader import BEGINNING, Origin, Position, Spool
from isotrack_recorder.spool.records import Batch, Flag
from isotrack_recorder.timeline.index import Indexer
from isotrack_recorder.timeline.placement import SECOND
from isotrack_recorder.timeline.reports import Report
from isotrack_recorder.timeline.session import WINDOW_SECONDS, LogTimeline

from .codecs import can_be_written, codec_index, is_usable
from .lanes import Placed
from .overlap import Shift

# Plain numbers: an operation on an enum costs as much as reading a frame.
_KEY: Final = int(Flag.KEY)
_DISCONTINUITY: Final = int(Flag.DISCONTINUITY)
_AFTER_GAP: Final = int(Flag.AFTER_GAP)
_UNDECODABLE: Final = int(Flag.UNDECODABLE)
_MAX_LOST: Final = 1 << 32
"""More in a row is no count."""
_MANY_LOSSES: Final = 1000
_OUT_OF_ORDER_SECONDS: Final = 60
"""Of media: no frame lies so far behind another one of its span."""
EARLY_NS: Final = 60 * SECOND
"""A frame is placed so much before the first capture at most: it took its time to us."""


@dataclass(frozen=True, slots=True)
class Heir:
    """Another log of the same track goes on where this one is cut: two pods recorded it for a while."""

    log: str
    at: int
    """Frames of this log from that number on are not written."""
    shift: Shift | None
    """What their ticks differ by, where that is known."""


@dataclass(slots=True)
class LogState:
    """How far one log was walked."""

    key: str
    timeline: LogTimeline
    ahead: Position = BEGINNING
    reported: int = -1
    """Reports that arrived until this second were taken."""
    decided: int = 0
    """Frames whose places are decided."""
    behind: Position = BEGINNING
    """Frames before it were taken: nobody needs them any more."""
    number: int = 0
    """Of the next frame to be taken."""
    span: int = -1
    codec: int = 0
    """Codec span of the last frame that was taken."""
    begun: bool = False
    """A frame was written since the log joined its lane or changed its codec: pictures need no key frame any more."""
    last_ns: int = 0
    """Place of the last frame that was taken. Times never run back."""
    heir: Heir | None = None
    follows: bool = False
    """Its next frame goes on with what its track's log in another pod has: nothing is missing between the two."""

    @property
    def is_cut(self) -> bool:
        """Whether all frames that are to be written were taken."""
        return self.heir is not None and self.number >= self.heir.at


def log_state(track: TrackFacts) -> LogState:
    """A log that nobody has read yet; its first codec must be known."""
    rate = track.codecs[0].codec.clock_rate
    return LogState(track.key, LogTimeline(rate, Indexer(rate)))


@dataclass(slots=True)
class _Cursor:
    """Goes through the batches of a log."""

    batches: Iterator[tuple[Batch, Origin]]
    batch: Batch = field(default_factory=lambda: Batch(b""))
    origin: Origin = field(default_factory=lambda: Origin(0, 0))
    at: int = 0
    """The next record of the batch."""

    def more(self) -> bool:
        """Whether there is a next record; reads on where the batch is used up."""
        while self.at >= len(self.batch.ends):
            row = next(self.batches, None)
            if row is None:
                return False
            self.batch, self.origin = row
            self.at = 0
        return True


@dataclass(slots=True)
class LogWalk:
    """Both walks over one log in this process."""

    state: LogState
    spool: Spool
    track: TrackFacts
    reports: int = 0
    """How many of the journal's reports were looked at."""
    next_second: int | None = None
    """Second of the first frame beyond the last horizon; None = there is none yet."""
    lost: dict[tuple[int, int], int] = field(default_factory=dict)
    """Span and ticks of frames → packets that were abandoned before them. Without frames that were taken a while ago."""
    taken: tuple[int, int] = (0, 0)
    """Span and ticks of the last frame that was taken."""
    ahead: _Cursor | None = None
    behind: _Cursor | None = None
    heads: deque[Placed] = field(default_factory=deque)
    """The next frames to be taken, as far as they were looked at."""
    known: tuple[int, CodecInfo | None] = (-1, None)
    """Codec span that was looked at last."""

    def is_past(self, horizon: int) -> bool:
        """Whether the track ended so long ago that nothing is left to be decided and taken."""
        ended, state = self.track.ended_ns, self.state
        return (
            ended is not None
            and ended // SECOND + WINDOW_SECONDS < horizon
            and self.next_second is None
            and state.number >= state.decided == state.timeline.indexer.frames
        )

    def look_ahead(self, horizon: int) -> None:
        """Take in all arrivals until second `horizon`, frames and reports."""
        state = self.state
        indexer = state.timeline.indexer
        self.next_second = None
        cursor = self.ahead = self.ahead or _Cursor(self.spool.batches(state.key, state.ahead))
        while cursor.more():
            batch, start = cursor.batch, cursor.at
            cursor.at = indexer.add(batch.timestamps, batch.arrivals, batch.flags, start, horizon)
            if cursor.at > start:
                state.ahead = cursor.origin.position(batch.ends[cursor.at - 1])
            if cursor.at < len(batch.ends):
                self.next_second = indexer.second_of(batch.arrivals[cursor.at])
                break
        else:
            self.ahead = None  # it goes on from here when more was written
        self._take_reports(horizon)

    def decide(self, last_second: int) -> None:
        """Places of frames that arrived until `last_second` are decided now."""
        timeline = self.state.timeline
        later = next((bucket.frame for bucket in timeline.indexer.buckets if bucket.second > last_second), None)
        self.state.decided = timeline.indexer.frames if later is None else later

    def codec_of(self, index: int) -> CodecInfo | None:
        """Codec of a span of the log; None where files cannot hold it."""
        if index != self.known[0]:
            codec = self.track.codecs[index].codec
            self.known = (index, codec if can_be_written(codec, self.track.kind) else None)
        return self.known[1]

    def is_usable(self, head: Placed) -> bool:
        """Whether the next frame can be written."""
        codec = self.codec_of(head.codec)
        begun = self.state.begun and head.codec == self.state.codec
        return codec is not None and is_usable(self.track.kind, codec.name, head.data, key=head.key, begun=begun)

    def first_usable(self, limit_ns: int | None) -> Placed | None:
        """The next frame that can be written, as `peek` shows it; those before it are taken."""
        while (head := self.peek(limit_ns)) is not None:
            if self.is_usable(head):
                return head
            self.take()
        return None

    def peek(self, limit_ns: int | None) -> Placed | None:
        """The next frame placed before `limit_ns` (None: any whose place is decided), without taking it."""
        if not self.heads:
            self._read(limit_ns, 1)
        head = self.heads[0] if self.heads else None
        return head if head is not None and (limit_ns is None or head.ns < limit_ns) else None

    def peek_all(self, limit_ns: int) -> list[Placed]:
        """All frames placed before `limit_ns`, without taking them."""
        if not self.heads or self.heads[-1].ns < limit_ns:
            self._read(limit_ns, self.state.decided)
        return [head for head in self.heads if head.ns < limit_ns]

    def take(self, count: int = 1) -> None:
        """Take the first of the frames that were shown."""
        state = self.state
        for _ in range(count - 1):
            self.heads.popleft()
        last = self.heads.popleft()
        state.behind, state.number, state.span = Position(last.segment, last.end), state.number + count, last.span
        state.timeline.passed(state.number)
        if last.codec != state.codec:
            state.codec, state.begun = last.codec, False
        state.last_ns, self.taken = last.ns, (last.span, last.ticks)

    def not_before(self, ns: int) -> None:
        """The next frames lie at `ns` or later."""
        self.state.last_ns = max(self.state.last_ns, ns)
        self.heads = deque(head if head.ns >= ns else head._replace(ns=ns) for head in self.heads)

    def rest(self) -> None:
        """Let go of files; a later call goes on from the state."""
        self.ahead = self.behind = None
        self.heads.clear()
        if len(self.lost) > _MANY_LOSSES:
            span, ticks = self.taken
            until = span, ticks - _OUT_OF_ORDER_SECONDS * self.state.timeline.clock_rate
            self.lost = {frame: packets for frame, packets in self.lost.items() if frame >= until}

    def _read(self, limit_ns: int | None, most: int) -> None:
        """Look at up to `most` more frames placed before `limit_ns` (None: any whose place is decided)."""
        state = self.state
        cursor = self.behind = self.behind or _Cursor(self.spool.batches(state.key, state.behind, checked=False))
        for loss in self.track.losses:
            packets = min(max(loss.packets, 1), _MAX_LOST)
            self.lost[loss.span, loss.before] = self.lost.get((loss.span, loss.before), 0) + packets
        self.track.losses.clear()  # NB: as the reports: a bad path of a day has a hundred thousand of them
        number = state.number + len(self.heads)
        # No frame is heard before or after the call: what a timeline says that is more is no place to fill with silence
        within = (self.spool.facts.started_ns - EARLY_NS, self.spool.facts.latest_ns)
        # NB: with nothing more to read where frames were decided before, the disk is damaged: they are gone.
        while most > 0 and number < state.decided and cursor.more():
            count = min(most, state.decided - number, len(cursor.batch.ends) - cursor.at)
            stop = cursor.at + count
            places = state.timeline.places(number, cursor.batch.timestamps[cursor.at : stop], limit_ns, within)
            self._place(cursor, places)
            number, most = number + len(places), most - len(places)
            if len(places) < count:
                break

    def _place(self, cursor: _Cursor, places: Sequence[int]) -> None:
        """Put the next frames of a batch behind `heads`."""
        state, track, batch, heads, key = self.state, self.track, cursor.batch, self.heads, self.state.key
        segment, base = cursor.origin
        first = state.number == 0 and not heads
        ns, span, codec = state.last_ns, state.span, state.codec
        if heads:
            ns, span, codec = heads[-1].ns, heads[-1].span, heads[-1].codec
        at = cursor.at
        stop = cursor.at = at + len(places)
        if not first and codec + 1 >= len(track.codecs) and max(batch.flags[at:stop], default=0) < _DISCONTINUITY:
            heads += self._run_on(cursor, range(at, stop), accumulate(places, max, initial=ns), span, codec)
            return
        rows = zip(places, batch.timestamps[at:stop], batch.flags[at:stop], batch.starts[at:stop], batch.ends[at:stop])
        for number, (place, ticks, flags, start, end) in enumerate(rows, at):
            if place > ns:
                ns = place
            if first or flags & _DISCONTINUITY:
                span, first = span + 1, False
            frame, is_key = batch.data[start:end], flags & _KEY != 0
            if is_key:
                codec = codec_index(track, codec, batch.arrivals[number], frame)
            lost = self.lost.get((span, ticks), 0) or int(flags & _AFTER_GAP != 0)
            damaged = flags & _UNDECODABLE != 0
            heads.append(Placed(ns, key, ticks, span, frame, is_key, lost, damaged, codec, segment, base + end))

    def _run_on(self, cursor: _Cursor, at: range, places: Iterator[int], span: int, codec: int) -> Iterator[Placed]:
        """Frames that go on in the spans of ticks and of codec, none of them damaged: as columns, without a step of ours for each.

        Args:
            places: Behind that of the frame before.
        """
        next(places)
        batch, (segment, base) = cursor.batch, cursor.origin
        ticks, flags, ends = (column[at.start : at.stop] for column in (batch.timestamps, batch.flags, batch.ends))
        frames = [batch.data[start:end] for start, end in zip(batch.starts[at.start : at.stop], ends)]
        keys = [flag & _KEY != 0 for flag in flags]
        lost: Iterator[int] = repeat(0)
        if self.lost or max(flags, default=0) >= _AFTER_GAP:
            known = self.lost.get
            lost = (known((span, tick), 0) or int(flag & _AFTER_GAP != 0) for tick, flag in zip(ticks, flags))
        rows = zip(
            places, repeat(self.state.key), ticks, repeat(span), frames, keys, lost, repeat(False), repeat(codec),
            repeat(segment), [base + end for end in ends],
        )  # fmt: skip
        return cast("Iterator[Placed]", map(tuple.__new__, repeat(Placed), rows))

    def _take_reports(self, horizon: int) -> None:
        rows = self.track.reports
        while self.reports < len(rows):
            arrival = rows.arrivals[self.reports]
            second = arrival // SECOND
            if second > horizon:
                break
            if second > self.state.reported:
                self.state.timeline.report(Report(arrival, rows.ntps[self.reports], rows.ticks[self.reports]))
            self.reports += 1
        # NB: nobody else reads them; in a long call they would be what the agent's memory is full of.
        del rows.arrivals[: self.reports], rows.ntps[: self.reports], rows.ticks[: self.reports]
        self.reports = 0
        self.state.reported = max(self.state.reported, horizon)
