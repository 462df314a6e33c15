"""Which group of seconds of a session is due, and until where frames are taken behind it.

    arrivals until the horizon ─▶ timeline: places of five more seconds ─▶ frames before the limit may be taken

A group (`timeline.session.GROUP_SECONDS`) is due when the spool is known to be complete up to its horizon, or when the session is
over. Frames are taken HOLD_NS behind the decided seconds, for a frame may be placed earlier than it arrived.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from isotrack_recorder.spool.facts import REJOIN_NS
from isotrack_recorder.spool.reader import Spool
from isotrack_recorder.timeline.placement import SECOND
from isotrack_recorder.timeline.session import GROUP_SECONDS, advance, group_of, horizon_of

from .logs import LogWalk, log_state
from .saved import SessionState

SPOOL_LAG_NS: Final = 3 * SECOND
"""What arrived reaches the spool that much later than the journal's newest line at most: repair, reordering, flush."""
HOLD_NS: Final = 10 * SECOND
"""How much later than its place a frame may arrive and still be written in order: after a blackout LiveKit sends again what it kept
for some ten seconds."""


@dataclass(frozen=True, slots=True)
class Group:
    """A group whose places are decided."""

    number: int
    limit_ns: int | None
    """Frames placed before it are taken; None = all there are: it is the last group of the spell."""
    last_second: int
    """Of the spell."""
    whole: bool
    """All of the spell lies in the spool."""


def limit_of(number: int) -> int:
    """Frames placed before it may be taken once a group is decided, unless it is the last one."""
    return (number + 1) * GROUP_SECONDS * SECOND - HOLD_NS


class Groups:
    """The logs of one session, and how far their places are decided."""

    def __init__(self, spool: Spool, state: SessionState) -> None:
        self._spool = spool
        self._state = state
        self.walks: dict[str, LogWalk] = {}
        """All logs of the session, by key."""
        self.active: list[LogWalk] = []
        """Without those that ended long ago."""

    def find_logs(self) -> bool:
        """Take in logs that began. False: there are none at all yet."""
        facts, state = self._spool.facts, self._state
        for track in facts.tracks_of(state.peer_id):
            if track.key not in self.walks and track.codecs:
                log = state.logs.get(track.key)
                if log is None:
                    log = state.logs[track.key] = log_state(track)
                self.walks[track.key] = LogWalk(log, self._spool, track)
        return bool(state.logs)

    def decide_next(self, *, whole: bool, known_ns: int | None) -> Group | None:
        """Decide the next group; None while it is not due. The first one takes a log.

        Args:
            whole: All that was captured of this spell lies in the spool.
            known_ns: See `SessionStream.known_ns`.
        """
        facts, state = self._spool.facts, self._state
        last_second = self._last_second()
        if state.group is None:
            state.group = group_of(min(facts.tracks[key].opened_ns for key in state.logs) // SECOND)
        horizon = min(horizon_of(state.group), last_second)
        complete_ns = (facts.last_ns if known_ns is None else known_ns) - SPOOL_LAG_NS
        if known_ns is not None and (last_second + 1) * SECOND > complete_ns:
            whole = False  # the journals tell of its end, but its frames are not all there
        if not whole and (horizon_of(state.group) + 1) * SECOND > complete_ns:
            return None
        if not whole and state.group > group_of(last_second):
            return None  # nothing is left but the end
        self.active = [walk for walk in self.walks.values() if not walk.is_past(horizon)]
        for walk in self.active:
            walk.look_ahead(horizon)
        self._decide(state.group)
        is_last = whole and self._is_last(state.group, last_second)
        limit_ns = None if is_last else limit_of(state.group)
        return Group(state.group, limit_ns, last_second, whole)

    def following(self, group: Group) -> int:
        """The next group that has something to decide. Skipping others changes nothing: time passes all the same."""
        walks, number = self.walks.values(), group.number
        seconds = [walk.next_second for walk in walks if walk.next_second is not None]
        newest = max((walk.state.timeline.indexer.second for walk in walks), default=0)
        if group.limit_ns is None or not seconds or newest >= (number + 1) * GROUP_SECONDS or not group.whole:
            return number + 1
        following = min(*seconds, group.last_second)  # its horizon must reach there
        return max(number + 1, -((horizon_of(0) - following) // GROUP_SECONDS))

    def rest(self) -> None:
        """Let go of files; a later call goes on from the state."""
        for walk in self.walks.values():
            walk.rest()

    def _decide(self, group: int) -> None:
        last = (group + 1) * GROUP_SECONDS - 1
        advance([walk.state.timeline for walk in self.active], group)
        for walk in self.active:
            walk.decide(last)

    def _last_second(self) -> int:
        """Frames that arrived later are not of this spell."""
        peer = self._spool.facts.peers.get(self._state.peer_id)
        end = peer.end_of(self._state.spell) if peer is not None else None
        # Groups are never divided between spells.
        return 1 << 62 if end is None else (group_of((end + REJOIN_NS) // SECOND) + 1) * GROUP_SECONDS - 1

    def _is_last(self, group: int, last_second: int) -> bool:
        end = (group + 1) * GROUP_SECONDS
        indexers = [walk.state.timeline.indexer for walk in self.walks.values()]
        seconds = [walk.next_second for walk in self.walks.values() if walk.next_second is not None]
        return all(indexer.second < end for indexer in indexers) and all(second > last_second for second in seconds)
