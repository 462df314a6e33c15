"""Which lane a log's frames go to: a lane goes on through republications, new processes and pods that overlap.

    log ends ──▶ log of the same source begins           it joins the lane (`lane_for`)
    log of one pod ──▶ log of another, side by side      it takes over where `overlap` says (`cut_overlaps`, `lane_for`, `inherit`)

All state is that of lanes and logs, plain data in the SessionState.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from isotrack_api.base import MediaKind, StreamKind
from isotrack_recorder.spool.facts import TrackFacts

from .files import OpenFiles
from .lanes import Placed
from .logs import Heir, LogWalk
from .outputs import NOWHERE, REPUBLISH_OVERLAP_NS, Lane, Router, Stage
from .overlap import REACH_NS, seam


class Succession:
    """The lanes of one session, by the log that they have now."""

    def __init__(
        self,
        stages: Mapping[StreamKind, Stage],
        walks: Mapping[str, LogWalk],
        routers: Mapping[StreamKind, Router],
        files: OpenFiles,
    ) -> None:
        self._stages = stages
        self._walks = walks
        self._routers = routers
        self._files = files
        self._lanes: dict[str, Lane] = {}
        self.begin()

    def begin(self) -> None:
        """Begin with the lanes that the stages have."""
        self._lanes = {lane.log: lane for stage in self._stages.values() for lane in stage.lanes}

    def lane_of(self, walk: LogWalk) -> Lane | None:
        """The lane that a log has; None while it has none."""
        return self._lanes.get(walk.state.key)

    def give(self, lane: Lane) -> None:
        """A lane begins with the log that it names."""
        self._lanes[lane.log] = lane

    def lane_for(self, walk: LogWalk, head: Placed) -> Lane | None:
        """The lane of a log from now on, which has none yet.

        None: its next frame is not to be written (it was taken), or not before others.
        """
        rival = self._rival(walk)
        return self._join(walk, head) if rival is None else self._take_over(walk, head, rival)

    def _join(self, walk: LogWalk, head: Placed) -> Lane | None:
        """The lane that a log's frames go to from now on: one whose log is at its end, or a new one.

        None: the log that it replaces has frames left; this one begins right behind them.
        """
        track, at = walk.track, head.ns
        stage = self._stages[track.source.stream_kind]
        same = [lane for lane in stage.lanes if lane.kind is track.kind]
        free = [lane for lane in same if self._files.end_of(lane) - REPUBLISH_OVERLAP_NS <= at]
        # The same track goes on (a new process, a new codec) before another one of the source replaces it.
        free.sort(key=lambda lane: lane.track_id != track.track_id)
        codec = track.codecs[head.codec].codec
        if free:
            lane = free[0]
            before = self._walks.get(lane.log)
            if before is not None:
                if before.state.number < before.state.decided and self._files.end_of(lane) >= at:
                    walk.not_before(self._files.end_of(lane) + 1)
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
        for lane in self._stages[walk.track.source.stream_kind].lanes:
            other = self._walks.get(lane.log)
            if lane.kind is walk.track.kind and other is not None and _overlap_ns(other.track, walk.track) > 0:
                return lane if other.state.heir is not None or other.peek(None) is not None else None
        return None

    def cut_overlaps(self, walks: Sequence[LogWalk], until_ns: int) -> None:
        """Before frames placed until then are taken, decide where to cut logs of which another pod has the rest."""
        self.inherit()
        for walk in walks:
            lane = None if walk.state.key in self._lanes or walk.state.is_cut else self._rival(walk)
            if lane is not None and lane.log < walk.state.key:
                head = walk.first_usable(None)
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
            return self._hand_on(self._stages[walk.track.source.stream_kind], lane, before, before.state.heir)
        following = heir.peek(None)
        if following is not None and following.ns >= head.ns:
            walk.not_before(following.ns + 1)  # a third pod waits until the second one has the lane
        else:
            walk.take()
        return None

    def inherit(self) -> None:
        """Logs take over the lanes of those that were cut, once all of these is written that is to be."""
        for stage in self._stages.values():
            for lane in stage.lanes:
                while (before := self._walks.get(lane.log)) is not None and before.state.is_cut and before.state.heir:
                    self._hand_on(stage, lane, before, before.state.heir)

    def _hand_on(self, stage: Stage, lane: Lane, before: LogWalk, heir: Heir) -> Lane:
        """Give a lane to the log that goes on with it."""
        walk = self._walks[heir.log]
        for output in stage.outputs:
            if heir.shift is not None and output.number == lane.number:
                name = output.route.get(MediaKind.AUDIO, NOWHERE)
                self._files.follow(name, before.state.key, heir.log, heir.shift)
        before.state.begun = False
        self._lanes.pop(lane.log, None)
        lane.log, lane.track_id, lane.source = heir.log, walk.track.track_id, walk.track.source
        self._lanes[heir.log] = lane
        return lane


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
