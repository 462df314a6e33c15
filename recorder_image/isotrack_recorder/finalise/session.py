"""Make the files of one participant session out of the spool, while it grows or afterwards.

    arrivals until the horizon ─▶ timeline: places of five more seconds ─▶ frames before the limit, in the order of their places
                                  ─▶ succession: which lane ─▶ outputs: which parts ─▶ files: lanes, muxers ─▶ sink

A SessionStream advances group by group: `groups` says which is due, and what of the frames may be taken then. Everything that decides
is a function of the spool and of the group: the same spool gives the same bytes in one go, second by second, or continued by
another process.

All state is a SessionState, plain data (`saved`); `save` and `restore` carry it over to another process. Frames before its positions
are needed by nobody any more, provided that what was written lasts. A session that comes back after its end (`PeerFacts.ends`) begins
further parts: its files were complete, and stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from typing import Final

from isotrack_api.base import MediaKind, StreamKind
from isotrack_api.intent import Intent
from isotrack_recorder.errors import IsotrackError, ParseError
from isotrack_recorder.spool.reader import Position, Spool
from isotrack_recorder.timeline.placement import SECOND

from .codecs import usable
from .files import OpenFiles
from .groups import Groups, limit_of
from .lanes import Placed
from .logs import LogWalk
from .model import FileSink
from .outputs import Lane, Output, Router, Stage, ready
from .saved import SessionState, read_state, state_bytes
from .succession import Succession

MAX_FILE_BYTES: Final = 9_900 * 8 * 1024 * 1024
"""A multipart upload takes 10 000 parts."""
_SHORT_SLICE_NS: Final = SECOND
_LONG_SLICE_NS: Final = 5 * SECOND
"""Frames are held in memory for so long: of a group, or of what a file that opened late catches up with. Each slice costs as much as some
frames."""
_LONG_SLICE_BYTES: Final = 4 * 1024 * 1024
"""Slices are long where they hold so much at most, as far as the one before tells. The first of a group is short."""


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
        self._groups = Groups(spool, state)
        self._walks = self._groups.walks
        self._files = OpenFiles(state, spool.facts, intent, sink, self._walks, max_file_bytes)
        for kind in StreamKind:
            state.stages.setdefault(kind, Stage())
        self._layers = intent.layers
        self._routers = self._begin_routers()
        self._lanes = Succession(state.stages, self._walks, self._routers, self._files)
        self._restored = False
        self.known_ns: int | None = None
        """Until when the logs hold all that was captured, where the journals know more; None: as far as these do."""

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
        return self._files.settled(name)

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
        if group.limit_ns is None:
            self._take_steps(count(group.number))
            self._take(None)
            return self._end()
        self._take(group.limit_ns)
        following = self._groups.following(group)
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
        self._routers.update(self._begin_routers())
        self._lanes.begin()

    def _take_steps(self, groups: Iterable[int]) -> None:
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
        slice_ns = _SHORT_SLICE_NS  # NB: not what the group before came to: a process that goes on from a saved state does not know
        while (until_ns := _slice_end(walks, limit_ns, slice_ns)) is not None:
            before = self._files.bytes
            self._take_slice(walks, until_ns)
            grown = (self._files.bytes - before) * _LONG_SLICE_NS // slice_ns
            slice_ns = _LONG_SLICE_NS if grown <= _LONG_SLICE_BYTES else _SHORT_SLICE_NS
            if until_ns != limit_ns:
                self._files.flush_before(until_ns)
        self._lanes.inherit()
        if limit_ns is None:
            return  # NB: not flushed: the silence at the end belongs between what was taken last
        self._files.pass_time(limit_ns)
        self._files.close()
        self._files.flush()

    def _take_slice(self, walks: Sequence[LogWalk], until_ns: int) -> None:
        """Write all frames placed before `until_ns`, a few seconds."""
        self._lanes.cut_overlaps(walks, until_ns)
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
            lane = self._lanes.lane_of(walk)
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
        full = any(self._files.is_full(name, size) for name, size in sizes.items())
        return None if full else routes

    def _open(self, kind: StreamKind, limit_ns: int | None) -> bool:
        """Open a stage if it is time to; its first frames are not taken yet."""
        first: dict[MediaKind, tuple[Placed, LogWalk]] = {}
        for walk in self._walks.values():
            if walk.track.source.stream_kind is kind:
                head = walk.first_usable(limit_ns)
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
            self._lanes.give(lanes[-1])
        router.open(lanes, first_ns)
        return True

    def _route(self, walk: LogWalk, head: Placed) -> None:
        """Take the next frame of a log and write it where it belongs."""
        if walk.state.is_cut or not walk.is_usable(head):
            walk.take()
            return
        lane = self._lanes.lane_of(walk)
        if lane is None:
            lane = self._lanes.lane_for(walk, head)
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
        router.note_full({name for name in names if self._files.is_full(name)})

    def _write(self, walk: LogWalk, names: Sequence[str], frames: Sequence[Placed]) -> None:
        """Write frames of one log to their parts."""
        codec = walk.codec_of(frames[0].codec)
        assert codec is not None
        written = usable(walk.track.kind, codec.name, frames)
        for name in names if written else ():
            self._files.write(name, walk.track.kind, written)

    def _end(self) -> bool:
        """The spell is over: finish everything."""
        self._files.close(everything=True)
        for stage in self.state.stages.values():
            for output in stage.outputs:
                _rest(output)
            stage.outputs = [output for output in stage.outputs if output.number == 1]
        self.state.over = True
        return True

    def _begin_routers(self) -> dict[StreamKind, Router]:
        return {kind: Router(kind, self.state.stages[kind], self._layers, self._files) for kind in StreamKind}


def _contradiction(error: Exception) -> ParseError:
    """What made going on from a saved state fail."""
    return ParseError(f"the state of a session contradicts itself: {type(error).__name__}")


def _rest(output: Output) -> None:
    """No frame goes anywhere; what comes later begins the next part."""
    output.route, output.following, output.codecs, output.first_ns = {}, {}, {}, {}


def _slice_end(walks: Sequence[LogWalk], limit_ns: int | None, slice_ns: int) -> int | None:
    """End of the seconds in which the next frame lies: so much is taken at a time. None = no frame is placed before the limit."""
    heads = [head.ns for walk in walks if (head := walk.peek(limit_ns)) is not None]
    if not heads:
        return None
    end = (min(heads) // slice_ns + 1) * slice_ns
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
