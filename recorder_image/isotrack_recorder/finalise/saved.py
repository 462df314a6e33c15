"""What a saved state of a session may say (pure).

A state lies on a volume that is shared with the container that parses hostile bytes. So what is read is held against the spool:
names are names of files of this session, times lie within its call, lengths within a file. A state that holds anything else is
none. What this leaves open (references between its parts) can make going on fail, never write elsewhere or without end.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from isotrack_recorder.errors import ParseError
from isotrack_recorder.matroska.muxer import HEAD_BYTES
from isotrack_recorder.spool.facts import SpoolFacts
from isotrack_recorder.timeline.placement import SECOND
from isotrack_recorder.timeline.session import group_of

from .lanes import LaneState
from .logs import EARLY_NS, LogState
from .names import MAX_NAME_BYTES
from .parts import PartState

if TYPE_CHECKING:
    from .session import SessionState

MAX_OFFSET: Final = 10_000 * 8 * 1024 * 1024
"""A multipart upload takes so much."""
MAX_WINDOW: Final = 20_000
"""Buckets, reports and knots of one log: some hundred are usual."""
_RATES: Final = range(1000, 1_000_001)
_HIGHEST_RATE: Final = 48_000
_COUNTS: Final = range(1 << 62)


def check_state(state: SessionState, facts: SpoolFacts) -> None:
    """Hold a state against its spool.

    Raises:
        ParseError: It cannot have come of it.
    """
    for problem in _problems(state, facts):
        raise ParseError(f"the state of a session contradicts its spool: {problem}")


def _problems(state: SessionState, facts: SpoolFacts) -> Iterator[str]:
    times = range(facts.started_ns - EARLY_NS, facts.latest_ns + EARLY_NS + 1)
    peer = facts.peers.get(state.peer_id)
    if peer is None and (state.logs or state.parts):
        yield "its session is unknown"
    if not 0 <= state.spell <= (0 if peer is None else len(peer.ends)):
        yield "it came back more often than its session"
    if state.group is not None and not _group(times.start) <= state.group <= _group(times.stop) + 1:
        yield "its group of seconds lies outside of the call"
    for key, log in state.logs.items():
        track = facts.tracks.get(key)
        if track is None or track.peer_id != state.peer_id or log.key != key:
            yield "a log is none of its session"
        yield from _log_problems(log, times)
    for name in state.names:
        if not _is_name(name):
            yield "a name is none of a file"
    for part in state.parts:
        if peer is not None and (part.plan.peer_id, part.plan.user_id) != (peer.peer_id, peer.user_id):
            yield "a file is none of its session"
        if part.plan.name not in state.names or not part.plan.name.endswith(f".{part.plan.container}"):
            yield "a file has another name"
        yield from _part_problems(part, times)


def _group(ns: int) -> int:
    return group_of(ns // SECOND)


def _is_name(name: str) -> bool:
    plain = name.isascii() and name.isprintable() and not set(name) & set("/\\ ")
    return plain and not name.startswith(".") and len(name) <= MAX_NAME_BYTES


def _log_problems(log: LogState, times: range) -> Iterator[str]:
    timeline = log.timeline
    seconds = range(times.stop // SECOND + 1)
    if timeline.clock_rate not in _RATES or timeline.indexer.clock_rate not in _RATES:
        yield "a clock has no such rate"
    if len(timeline.indexer.buckets) + len(timeline.reports) + len(timeline.knots) > MAX_WINDOW:
        yield "a timeline remembers too much"
    if timeline.indexer.second not in seconds or log.reported + 1 not in seconds:
        yield "a second lies outside of the call"
    if any(bucket.second not in seconds for bucket in timeline.indexer.buckets):
        yield "a second lies outside of the call"
    numbers = (log.number, log.decided, log.behind.segment, log.behind.offset, log.ahead.segment, log.ahead.offset)
    if any(number not in _COUNTS for number in numbers):
        yield "a position is none"
    if log.last_ns and log.last_ns not in times:
        yield "a frame lies outside of the call"


def _part_problems(part: PartState, times: range) -> Iterator[str]:
    mux = part.mux
    if not HEAD_BYTES <= mux.offset <= MAX_OFFSET:
        yield "a file has no such size"
    if mux.cluster is not None and not HEAD_BYTES <= mux.cluster <= mux.offset:
        yield "a cluster lies outside of its file"
    if part.result is not None and not 0 <= part.result.bytes <= MAX_OFFSET:
        yield "a file has no such size"
    moments: list[int | None] = [part.plan.zero_ns, part.cut_ns]
    lanes: list[LaneState] = [lane for lane in (part.sound, part.picture) if lane is not None]
    for lane in lanes:
        moments += [lane.first_ns, lane.last_ns, lane.end_ns]
    if part.picture is not None:
        moments += [part.picture.damaged_ns, times.start + part.picture.usual_ns]
    if any(moment is not None and moment not in times for moment in moments):
        yield "a moment of a file lies outside of the call"
    if part.sound is not None:
        longest = len(times) * _HIGHEST_RATE // SECOND
        at = part.sound.at
        reached = (at.position, at.silent, at.squeezed, at.silent_from, at.hole_end)
        if any(ticks is not None and abs(ticks) > longest for ticks in reached):
            yield "sound is longer than the call"
