"""Make the files of one participant session out of the spool, while it grows or afterwards.

    arrivals until the horizon ─▶ timeline: places of five more seconds ─▶ frames before the limit, in the order of their places
                                  ─▶ outputs: which parts ─▶ lanes, muxers ─▶ sink

A SessionStream advances group by group: `groups` says which is due, and what of the frames may be taken then. Everything that decides
is a function of the spool and of the group: the same spool gives the same bytes in one go, second by second, or continued by
another process.

All state is a SessionState, plain data (`saved`); `save` and `restore` carry it over to another process. Frames before its positions
are needed by nobody any more, provided that what was written lasts. A session that comes back after its end (`PeerFacts.ends`) begins
further parts: its files were complete, and stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from isotrack_api.base import MediaKind, StreamKind
from isotrack_api.intent import Intent
from isotrack_recorder.errors import IsotrackError, ParseError
from isotrack_recorder.spool.facts import TrackFacts
from isotrack_recorder.spool.reader import Position, Spool
from isotrack_recorder.timeline.placement import SECOND
from isotrack_recorder.timeline.session import LogTimeline

from .codecs import is_usable, usable
from .groups import Groups, limit_of
from .lanes import Placed
from .logs import Heir, LogWalk
from .model import FileSink
from .outputs import NOWHERE, REPUBLISH_OVERLAP_NS, Lane, Output, PartDraft, Router, Stage, ready
from .overlap import REACH_NS, seam
from .parts import Part, begin_part
from .saved import SessionState, read_state, state_bytes

MAX_FILE_BYTES: Final = 9_900 * 8 * 1024 * 1024
"""A multipart upload takes 10 000 parts."""
_SLICE_NS: Final = SECOND
"""Frames are held in memory for so long: of a group, or of what a file that opened late catches up with."""


class SessionStream:
    """One session in this process. Used by one thread at a time."""

    def __init__(
        self,
        spool: Spool,
        intent: Intent,
        state: SessionState,
        sink: FileSink,
        *,
        max_file_bytes: int = MAX_FILE_BYTES,
    ) -> None:
        self.state = state
        self._spool = spool
        self._intent = intent
        self._sink = sink
        self._max_file_bytes = max_file_bytes
        self._groups = Groups(spool, state)
        self._walks = self._groups.walks
        self._lanes: dict[str, Lane] = {}
        self._parts: dict[str, Part] = {}
        self._routers: dict[StreamKind, Router] = {}
        self._restored = False
        self.known_ns: int | None = None
        """Until when the logs hold all that was captured, where the journals know more; None: as far as these do."""
        for part in state.parts:
            if part.result is None:
                self._parts[part.plan.name] = Part(part, spool.facts, sink)
        self._begin_stages()

    @classmethod
    def restore(cls, spool: Spool, intent: Intent, saved: bytes, sink: FileSink) -> SessionStream:
        """Go on from a saved state.

        Raises:
            ParseError: It is none, of another version, or none of this spool.
        """
        state = read_state(saved, spool.facts)
        try:
            stream = cls(spool, intent, state, sink)
        except Exception as error:
            raise _contradiction(error) from error
        stream._restored = True
        return stream

    def save(self) -> bytes:
        """The state as JSON; the sink holds all bytes that belong to it."""
        return state_bytes(self.state)

    def positions(self) -> Mapping[str, Position]:
        """By log: frames before this position are not needed any more. A log that is not named is needed whole."""
        return {key: min(log.behind, log.ahead) for key, log in self.state.logs.items()}

    def settled(self, name: str) -> int:
        """Bytes of an open file, from its beginning, that will not change any more but for its head."""
        return self._parts[name].settled

    def forget(self, name: str) -> None:
        """A finished file has been delivered."""
        self.state.parts = [part for part in self.state.parts if part.plan.name != name or part.result is None]

    def advance(
        self, *, whole: bool, most_groups: int | None = None, goes_on: Callable[[], bool] = lambda: True
    ) -> bool:
        """Do what is due.

        Args:
            whole: All that was captured of this spell lies in the spool.
            most_groups: Stop after so many groups of seconds, to let others have their turn.
            goes_on: Asked between two groups: False stops, too.
        Returns:
            Whether there is more to do at once: it was stopped.
        Raises:
            OSError: The spool cannot be read.
            ParseError: The saved state that it goes on from contradicts itself.
            Whatever the sink raises passes through. After any of them only a saved state can go on.
        """
        try:
            return self._advance(whole, most_groups, goes_on)
        except (OSError, MemoryError, IsotrackError):
            raise
        except Exception as error:
            if not self._restored:
                raise
            raise _contradiction(error) from error

    def _advance(self, whole: bool, most_groups: int | None, goes_on: Callable[[], bool]) -> bool:
        done = 0
        try:
            while not self.state.over:
                if done and ((most_groups is not None and done >= most_groups) or not goes_on()):
                    return True
                if not self._next_group(whole=whole):
                    return False
                done += 1
            return False
        finally:
            self._groups.rest()

    def _next_group(self, *, whole: bool) -> bool:
        """One group, or with nothing left the end. False: it is not due."""
        if not self._groups.find_logs() and self.state.group is None:
            return self._end() if whole else False
        group = self._groups.decide_next(whole=whole, known_ns=self.known_ns)
        if group is None:
            return False
        following = self._groups.following(group)
        if group.limit_ns is None:
            self._take_steps(range(group.number, 1 << 62))
        self._take(group.limit_ns)
        if group.limit_ns is None:
            return self._end()
        self._take_steps(range(group.number + 1, following))
        self.state.group = following
        return True

    def goes_on(self) -> bool:
        """Whether something came after the end of a spell that is over."""
        if not self.state.over:
            return False
        self._groups.find_logs()
        return any(next(self._spool.frames(key, walk.state.ahead), None) for key, walk in self._walks.items())

    def come_back(self) -> None:
        """Begin the next spell: the session goes on after its end."""
        state = self.state
        state.spell, state.over = state.spell + 1, False
        for stage in state.stages.values():
            stage.opened = False
            stage.lanes.clear()
        for log in state.logs.values():
            log.begun = False
        self._lanes.clear()
        self._begin_stages()

    def _take_steps(self, groups: range) -> None:
        """Take what is left in the steps in which it would be taken while the call goes on: of these groups, which have nothing to decide."""
        for number in groups:
            limit_ns = limit_of(number)
            if limit_ns > self._newest_ns():
                return
            self._take(limit_ns)

    def _newest_ns(self) -> int:
        """Place of the last frame that is left; 0 = there is none."""
        ends = [walk.state.timeline.end_ns for walk in self._groups.active if walk.state.number < walk.state.decided]
        return max([end for end in ends if end is not None], default=0)

    # ── frames ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _take(self, limit_ns: int | None) -> None:
        """Write all frames placed before `limit_ns`; None = all there are."""
        waiting = {kind for kind in StreamKind if not self.state.stages[kind].opened}
        for kind in list(waiting):
            if self._open(kind, limit_ns):
                waiting.discard(kind)
        walks = [walk for walk in self._groups.active if walk.track.source.stream_kind not in waiting]
        while (until_ns := _slice_end(walks, limit_ns)) is not None:
            self._take_slice(walks, until_ns)
            if until_ns != limit_ns:
                for part in self._parts.values():
                    part.flush_before(until_ns)
        self._inherit()
        if limit_ns is None:
            return  # NB: not flushed: the silence at the end belongs between what was taken last
        self._pass_time(limit_ns)
        self._close_parts()
        for part in self._parts.values():
            part.flush()

    def _take_slice(self, walks: Sequence[LogWalk], until_ns: int) -> None:
        """Write all frames placed before `until_ns`, a few seconds."""
        self._cut_overlaps(walks, until_ns)
        runs = [(walk, frames) for walk in walks if (frames := walk.peek_all(until_ns))]
        routes = self._settled(runs)
        if routes is not None:
            for (walk, frames), names in zip(runs, routes):
                walk.take(len(frames))
                self._write(walk, names, frames)
            return
        left = [walk for walk, _ in runs]
        while left:
            first, others_ns = _earliest(left, until_ns)
            if first is None:
                break
            while (head := first.peek(until_ns)) is not None and head.ns <= others_ns:
                self._route(first, head)

    def _settled(self, runs: Sequence[tuple[LogWalk, Sequence[Placed]]]) -> list[list[str]] | None:
        """The parts of each log, where nothing is to be decided about any of these frames: then their order does not matter.

        None: a lane, a part or a codec begins, or a part becomes full, and each frame must know of all before it.
        """
        routes = []
        sizes: dict[str, int] = {}
        for walk, frames in runs:
            lane = self._lanes.get(walk.state.key)
            codec = frames[-1].codec
            if (
                lane is None
                or walk.state.heir is not None
                or not walk.state.begun
                or codec != walk.state.codec
                or walk.codec_of(codec) is None
            ):
                return None
            names = self._routers[walk.track.source.stream_kind].settled_parts(lane)
            if names is None:
                return None
            routes.append(names)
            size = sum([len(placed.data) for placed in frames])
            sizes.update((name, sizes.get(name, 0) + size) for name in names)
        full = any(self._parts[name].bytes + size >= self._max_file_bytes for name, size in sizes.items())
        return None if full else routes

    def _open(self, kind: StreamKind, limit_ns: int | None) -> bool:
        """Open a stage if it is time to; its first frames are not taken yet."""
        first: dict[MediaKind, tuple[Placed, LogWalk]] = {}
        for walk in self._walks.values():
            if walk.track.source.stream_kind is kind:
                head = self._first_usable(walk, limit_ns)
                known = first.get(walk.track.kind)
                if head is not None and (known is None or head.ns < known[0].ns):
                    first[walk.track.kind] = (head, walk)
        router = self._routers[kind]
        first_ns = {media: head.ns for media, (head, _) in first.items()}
        kinds = ready([output for wanted in router.wanted for output in wanted], first_ns, limit_ns)
        if not kinds:
            return False
        lanes = []
        for media in kinds:
            head, walk = first[media]
            codec = walk.track.codecs[head.codec].codec
            lanes.append(Lane(media, 1, walk.track.source, codec, walk.track.track_id, walk.state.key))
            self._lanes[walk.state.key] = lanes[-1]
        router.open(lanes, first_ns)
        return True

    def _first_usable(self, walk: LogWalk, limit_ns: int | None) -> Placed | None:
        while (head := walk.peek(limit_ns)) is not None:
            if self._is_usable(walk, head):
                return head
            walk.take()
        return None

    @staticmethod
    def _is_usable(walk: LogWalk, head: Placed) -> bool:
        codec = walk.codec_of(head.codec)
        begun = walk.state.begun and head.codec == walk.state.codec
        return codec is not None and is_usable(walk.track.kind, codec.name, head.data, key=head.key, begun=begun)

    def _route(self, walk: LogWalk, head: Placed) -> None:
        """Take the next frame of a log and write it where it belongs."""
        if walk.state.is_cut or not self._is_usable(walk, head):
            walk.take()
            return
        lane = self._lanes.get(walk.state.key)
        if lane is None and (rival := self._rival(walk)) is not None:
            lane = self._take_over(walk, head, rival)
            if lane is None:
                return
        if lane is None:
            lane = self._join(walk, head)
            if lane is None:
                return
        walk.take()
        walk.state.begun = True
        if walk.state.follows:
            head, walk.state.follows = head._replace(lost=0), False
        track = walk.track
        lane.codec = track.codecs[head.codec].codec
        router = self._routers[track.source.stream_kind]
        names = router.parts_of(lane, head.ns, key=head.key or track.kind is MediaKind.AUDIO)
        self._write(walk, names, (head,))
        for name in names:
            if self._parts[name].bytes >= self._max_file_bytes:
                self._note_full(track.source.stream_kind, name)

    def _write(self, walk: LogWalk, names: Sequence[str], frames: Sequence[Placed]) -> None:
        """Write frames of one log to their parts."""
        codec = walk.codec_of(frames[0].codec)
        assert codec is not None
        written = usable(walk.track.kind, codec.name, frames)
        for name in names if written else ():
            self._parts[name].write(walk.track.kind, written)

    def _join(self, walk: LogWalk, head: Placed) -> Lane | None:
        """The lane that a log's frames go to from now on: one whose log is at its end, or a new one.

        None: the log that it replaces has frames left; this one begins right behind them.
        """
        track, at = walk.track, head.ns
        stage = self.state.stages[track.source.stream_kind]
        same = [lane for lane in stage.lanes if lane.kind is track.kind]
        free = [lane for lane in same if self._end_of(lane) - REPUBLISH_OVERLAP_NS <= at]
        # The same track goes on (a new process, a new codec) before another one of the source replaces it.
        free.sort(key=lambda lane: lane.track_id != track.track_id)
        codec = track.codecs[head.codec].codec
        if free:
            lane = free[0]
            before = self._walks.get(lane.log)
            if before is not None:
                if before.state.number < before.state.decided and self._end_of(lane) >= at:
                    walk.not_before(self._end_of(lane) + 1)
                    return None
                before.state.begun = False
                self._lanes.pop(lane.log, None)
            lane.log, lane.track_id, lane.source = walk.state.key, track.track_id, track.source
        else:
            lane = Lane(track.kind, len(same) + 1, track.source, codec, track.track_id, walk.state.key)
            self._routers[track.source.stream_kind].add_lane(lane)
        self._lanes[walk.state.key] = lane
        return lane

    # ── two pods that record the same track ──────────────────────────────────────────────────────────────────────────

    def _rival(self, walk: LogWalk) -> Lane | None:
        """The lane whose log is another pod's of the same track, recorded at the same time and with frames left; None: there is none."""
        for lane in self.state.stages[walk.track.source.stream_kind].lanes:
            other = self._walks.get(lane.log)
            if lane.kind is walk.track.kind and other is not None and _overlap_ns(other.track, walk.track) > 0:
                return lane if other.state.heir is not None or other.peek(None) is not None else None
        return None

    def _cut_overlaps(self, walks: Sequence[LogWalk], until_ns: int) -> None:
        """Before frames placed until then are taken, decide where to cut logs of which another pod has the rest."""
        self._inherit()
        for walk in walks:
            lane = None if walk.state.key in self._lanes or walk.state.is_cut else self._rival(walk)
            if lane is not None and lane.log < walk.state.key:
                head = self._first_usable(walk, None)
                if head is not None and head.ns - REACH_NS < until_ns:
                    self._cut(self._walks[lane.log], walk, head.ns)

    def _cut(self, before: LogWalk, walk: LogWalk, begins_ns: int) -> None:
        """Decide with which frame `walk` takes over from `before`, unless these frames do not tell."""
        if before.state.heir is not None:
            return
        until_ns = begins_ns + REACH_NS
        older, newer = before.peek_all(until_ns), walk.peek_all(until_ns)
        found = seam(older, newer, pictures=walk.track.kind is MediaKind.VIDEO)
        if found is None or (found.shift is None and not _is_long(before.track, walk.track)):
            return
        if found.skipped:
            walk.take(found.skipped)
        # NB: nothing of `before` may be placed behind it, or this log would begin in the middle of that one.
        walk.not_before((older[found.kept - 1].ns if found.kept else before.state.last_ns) + 1)
        walk.state.follows = True
        before.state.heir = Heir(walk.state.key, before.state.number + found.kept, found.shift)

    def _take_over(self, walk: LogWalk, head: Placed, lane: Lane) -> Lane | None:
        """The lane of a rival, if a log's next frame is to be written there.

        None: it is not to be written, or not before others.
        """
        before = self._walks[lane.log]
        if lane.log > walk.state.key:
            walk.take()  # the newer pod has it, too
            return None
        if before.state.heir is None:
            self._cut(before, walk, head.ns)
            if before.state.heir is None and not _is_long(before.track, walk.track):
                return self._join(walk, head)
            if before.state.heir is None:
                walk.take()
            return None
        heir = self._walks[before.state.heir.log]
        if heir is walk:
            return self._hand_on(self.state.stages[walk.track.source.stream_kind], lane, before, before.state.heir)
        following = heir.peek(None)
        if following is not None and following.ns >= head.ns:
            walk.not_before(following.ns + 1)  # a third pod waits until the second one has the lane
        else:
            walk.take()
        return None

    def _inherit(self) -> None:
        """Logs take over the lanes of those that were cut, once all of these is written that is to be."""
        for stage in self.state.stages.values():
            for lane in stage.lanes:
                while (before := self._walks.get(lane.log)) is not None and before.state.is_cut and before.state.heir:
                    self._hand_on(stage, lane, before, before.state.heir)

    def _hand_on(self, stage: Stage, lane: Lane, before: LogWalk, heir: Heir) -> Lane:
        """Give a lane to the log that goes on with it."""
        walk = self._walks[heir.log]
        for output in stage.outputs:
            name = output.route.get(MediaKind.AUDIO)
            if heir.shift is not None and output.number == lane.number and name in self._parts:
                self._parts[name].follow(before.state.key, heir.log, heir.shift)
        before.state.begun = False
        self._lanes.pop(lane.log, None)
        lane.log, lane.track_id, lane.source = heir.log, walk.track.track_id, walk.track.source
        self._lanes[heir.log] = lane
        return lane

    def _end_of(self, lane: Lane) -> int:
        """Place of the last frame of the log that a lane has now, as far as places are decided."""
        walk = self._walks.get(lane.log)
        end = walk.state.timeline.end_ns if walk is not None else None
        if walk is None or end is None:
            return 0
        return max(min(end, self._spool.facts.latest_ns), walk.state.last_ns)

    def _note_full(self, kind: StreamKind, name: str) -> None:
        for output in self.state.stages[kind].outputs:
            output.full |= output.latest == name

    # ── time and ends ────────────────────────────────────────────────────────────────────────────────────────────────

    def _pass_time(self, limit_ns: int) -> None:
        """Where no sound lies before the limit any more, silence takes its place: while its track lives, or pictures go on."""
        for stage in self.state.stages.values():
            for lane in stage.lanes:
                if lane.kind is MediaKind.AUDIO:
                    walk = self._walks.get(lane.log)
                    head = walk.peek(None) if walk is not None else None
                    until = min(limit_ns, self._lives_until(lane))
                    for output in stage.outputs:
                        name = output.route.get(MediaKind.AUDIO, NOWHERE)
                        if output.number == lane.number and name != NOWHERE:
                            self._parts[name].pass_time(until, limit_ns, head)

    def _lives_until(self, lane: Lane) -> int:
        """When a lane's track ended; far in the future while it lasts."""
        track = self._spool.facts.tracks.get(lane.log)
        ended = None if track is None else track.ended_ns
        end = 1 << 62 if ended is None else ended
        return min(end, self._spell_end_ns())

    def _spell_end_ns(self) -> int:
        facts = self._spool.facts
        peer = facts.peers.get(self.state.peer_id)
        end = peer.end_of(self.state.spell) if peer is not None else None
        return facts.session_end_ns(self.state.peer_id) if end is None else end

    def _close_parts(self, *, everything: bool = False) -> None:
        """Finish the files to which no frame goes any more."""
        fed = set[str]()
        for stage in self.state.stages.values():
            for output in stage.outputs:
                fed |= output.open_parts()
        timelines: dict[str, LogTimeline] = {key: log.timeline for key, log in self.state.logs.items()}
        for name in [name for name in self._parts if everything or name not in fed]:
            self._parts.pop(name).finish(timelines, self._spell_end_ns())

    def _end(self) -> bool:
        """The spell is over: finish everything."""
        self._close_parts(everything=True)
        for stage in self.state.stages.values():
            for output in stage.outputs:
                _rest(output)
            stage.outputs = [output for output in stage.outputs if output.number == 1]
        self.state.over = True
        return True

    # ── Parts ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def open_part(self, layer: int, draft: PartDraft) -> str:
        """See `outputs.Parts`."""
        state = begin_part(
            draft, self._intent.layers[layer], self.state.peer_id, self._spool.facts, self._intent, self.state.names
        )
        name = state.plan.name
        self.state.names.append(name)
        self.state.parts.append(state)
        self._parts[name] = Part(state, self._spool.facts, self._sink)
        return name

    def cut_part(self, name: str, at_ns: int) -> None:
        """See `outputs.Parts`."""
        self._parts[name].state.cut_ns = at_ns

    def is_alive(self, lane: Lane, at_ns: int) -> bool:
        """See `outputs.Parts`."""
        return self._lives_until(lane) > at_ns or self._end_of(lane) > at_ns

    def _begin_stages(self) -> None:
        for kind in StreamKind:
            stage = self.state.stages.setdefault(kind, Stage())
            self._routers[kind] = Router(kind, stage, self._intent.layers, self)
            self._lanes.update((lane.log, lane) for lane in stage.lanes)


def _overlap_ns(one: TrackFacts, other: TrackFacts) -> int:
    """For how long two pods recorded the same track side by side; 0 or less = they did not."""
    first, second = sorted((one, other), key=lambda track: track.key)
    same = one.track_id == other.track_id and one.source is other.source and _process(one) != _process(other)
    return first.ended_ns - second.opened_ns if same and first.ended_ns is not None else 0


def _is_long(one: TrackFacts, other: TrackFacts) -> bool:
    """Whether they did so for longer than clocks of two nodes are apart."""
    return _overlap_ns(one, other) > REPUBLISH_OVERLAP_NS


def _process(track: TrackFacts) -> str:
    return track.key.partition("/")[0]


def _contradiction(error: Exception) -> ParseError:
    """What made going on from a saved state fail."""
    return ParseError(f"the state of a session contradicts itself: {type(error).__name__}")


def _rest(output: Output) -> None:
    """No frame goes anywhere; what comes later begins the next part."""
    output.route, output.following, output.codecs, output.first_ns = {}, {}, {}, {}


def _slice_end(walks: Sequence[LogWalk], limit_ns: int | None) -> int | None:
    """End of the seconds in which the next frame lies: so much is taken at a time. None = no frame is placed before the limit."""
    heads = [head.ns for walk in walks if (head := walk.peek(limit_ns)) is not None]
    if not heads:
        return None
    end = (min(heads) // _SLICE_NS + 1) * _SLICE_NS
    return end if limit_ns is None else min(end, limit_ns)


def _earliest(walks: list[LogWalk], limit_ns: int | None) -> tuple[LogWalk | None, int]:
    """The log whose next frame comes first, and the place of the next frame of any other log behind which it is not first.

    None = no frame is placed before the limit. Drops logs that have none.
    """
    best: LogWalk | None = None
    best_ns = others_ns = 1 << 62
    for walk in list(walks):
        head = walk.peek(limit_ns)
        if head is None:
            walks.remove(walk)
        elif head.ns < best_ns:
            best, best_ns, others_ns = walk, head.ns, best_ns - 1  # of equal ones the log that was opened first
        else:
            others_ns = min(others_ns, head.ns)
    return best, others_ns
