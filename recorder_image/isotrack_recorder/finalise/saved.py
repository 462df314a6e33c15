"""The state of a session, and what a saved one may say (pure).

A saved state lies on a volume that is shared with the container that parses hostile bytes. So what is read is held against the spool:
names are names of files of this session, times lie within its call, lengths within a file. A state that holds anything else is
none. What this leaves open (references between its parts) can make going on fail, never write elsewhere or without end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from pydantic import TypeAdapter, ValidationError

from isotrack_api.base import StreamKind
from isotrack_recorder.errors import ParseError
from isotrack_recorder.matroska.muxer import HEAD_BYTES
from isotrack_recorder.spool.facts import SpoolFacts
from isotrack_recorder.timeline.placement import SECOND
from isotrack_recorder.timeline.session import group_of

from .lanes import LaneState
from .logs import EARLY_NS, LogState
from .names import MAX_NAME_BYTES
from .outputs import Stage
from .parts import PartState

VERSION: Final = 1
MAX_OFFSET: Final = 10_000 * 8 * 1024 * 1024
"""A multipart upload takes so much."""
MAX_WINDOW: Final = 20_000
"""Buckets, reports and knots of one log: some hundred are usual."""
_RATES: Final = range(1000, 1_000_001)
_HIGHEST_RATE: Final = 48_000
_COUNTS: Final = range(1 << 62)


@dataclass(slots=True)
class SessionState:
    """All that a session needs to go on."""

    peer_id: str
    version: int = VERSION
    spell: int = 0
    """How often it came back."""
    group: int | None = None
    """The next one; None before the first."""
    over: bool = False
    """This spell is over and all its files are finished."""
    logs: dict[str, LogState] = field(default_factory=dict)
    stages: dict[StreamKind, Stage] = field(default_factory=dict)
    parts: list[PartState] = field(default_factory=list)
    """Open, or finished and not yet forgotten."""
    names: list[str] = field(default_factory=list)
    """Of all files so far."""


_STATE: Final = TypeAdapter(SessionState)


def state_bytes(state: SessionState) -> bytes:
    """A state as JSON."""
    return _STATE.dump_json(state)


def read_state(saved: bytes, facts: SpoolFacts) -> SessionState:
    """Read a state and hold it against its spool.

    Raises:
        ParseError: It is none, of another version, or cannot have come of this spool.
    """
    try:
        state = _STATE.validate_json(saved)
    except ValidationError as error:
        raise ParseError(f"not the state of a session: {error.error_count()} errors") from error
    if state.version != VERSION:
        raise ParseError(f"the state of a session has version {state.version}, not {VERSION}")
    for problem in _problems(state, facts):
        raise ParseError(f"the state of a session contradicts its spool: {problem}")
    return state


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
        if log.heir is not None and (log.heir.log not in state.logs or log.heir.at not in _COUNTS):
            yield "a log goes on in none of its session"
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
        reached = (at.position, at.silent, at.squeezed, at.silent_from, at.hole_end, at.squeezing)
        if any(ticks is not None and abs(ticks) > longest for ticks in reached):
            yield "sound is longer than the call"
