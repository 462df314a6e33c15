"""The files of one session that are open: which exist, what goes into them, and when they end.

    Router (`outputs`) ─▶ open_part, cut_part         OpenFiles ─▶ Part, one each ─▶ sink
    SessionStream      ─▶ write, pass_time, close

All state is that of the parts, plain data in the SessionState.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from isotrack_api.base import MediaKind
from isotrack_api.intent import Intent
from isotrack_recorder.spool.facts import SpoolFacts
from isotrack_recorder.timeline.session import LogTimeline

from .lanes import Placed
from .logs import LogWalk
from .model import FileSink
from .outputs import NOWHERE, Lane, PartDraft
from .overlap import Shift
from .parts import Part, begin_part
from .saved import SessionState


class OpenFiles:
    """The open parts of a session, by name; see `outputs.Parts`."""

    def __init__(
        self,
        state: SessionState,
        facts: SpoolFacts,
        intent: Intent,
        sink: FileSink,
        walks: Mapping[str, LogWalk],
        most_bytes: int,
    ) -> None:
        self._state = state
        self._facts = facts
        self._intent = intent
        self._sink = sink
        self._walks = walks
        self._most_bytes = most_bytes
        self._parts = {part.plan.name: Part(part, facts, sink) for part in state.parts if part.result is None}

    def open_part(self, layer: int, draft: PartDraft) -> str:
        """See `outputs.Parts`."""
        state = begin_part(
            draft, self._intent.layers[layer], self._state.peer_id, self._facts, self._intent, self._state.names
        )
        name = state.plan.name
        self._state.names.append(name)
        self._state.parts.append(state)
        self._parts[name] = Part(state, self._facts, self._sink)
        return name

    def cut_part(self, name: str, at_ns: int) -> None:
        """See `outputs.Parts`."""
        self._parts[name].state.cut_ns = at_ns

    def is_alive(self, lane: Lane, at_ns: int) -> bool:
        """See `outputs.Parts`."""
        return self._lives_until(lane) > at_ns or self.end_of(lane) > at_ns

    @property
    def bytes(self) -> int:
        """Of all of them so far, about."""
        return sum([part.bytes for part in self._parts.values()])

    def settled(self, name: str) -> int:
        """Bytes of an open file, from its beginning, that will not change any more but for its head."""
        return self._parts[name].settled

    def is_full(self, name: str, more: int = 0) -> bool:
        """Whether a file has its greatest size, or has it with so many bytes more."""
        return self._parts[name].bytes + more >= self._most_bytes

    def write(self, name: str, kind: MediaKind, frames: Sequence[Placed]) -> None:
        """See `parts.Part.write`."""
        self._parts[name].write(kind, frames)

    def follow(self, name: str, before: str, after: str, shift: Shift) -> None:
        """See `parts.Part.follow`; nothing happens where this file is not open."""
        if name in self._parts:
            self._parts[name].follow(before, after, shift)

    def flush(self) -> None:
        """Hand over all that was taken."""
        for part in self._parts.values():
            part.flush()

    def flush_before(self, ns: int) -> None:
        """Hand over what nothing will come before any more."""
        for part in self._parts.values():
            part.flush_before(ns)

    # ── time and ends ────────────────────────────────────────────────────────────────────────────────────────────────

    def pass_time(self, limit_ns: int) -> None:
        """Where no sound lies before the limit any more, silence takes its place: while its track lives, or pictures go on."""
        for stage in self._state.stages.values():
            for lane in stage.lanes:
                if lane.kind is MediaKind.AUDIO:
                    walk = self._walks.get(lane.log)
                    head = walk.peek(None) if walk is not None else None
                    until = min(limit_ns, self._lives_until(lane))
                    for output in stage.outputs:
                        name = output.route.get(MediaKind.AUDIO, NOWHERE)
                        if output.number == lane.number and name != NOWHERE:
                            self._parts[name].pass_time(until, limit_ns, head)

    def end_of(self, lane: Lane) -> int:
        """Place of the last frame of the log that a lane has now, as far as places are decided."""
        walk = self._walks.get(lane.log)
        end = walk.state.timeline.end_ns if walk is not None else None
        if walk is None or end is None:
            return 0
        return max(min(end, self._facts.latest_ns), walk.state.last_ns)

    def close(self, *, everything: bool = False) -> None:
        """Finish the files to which no frame goes any more."""
        fed = set[str]()
        for stage in self._state.stages.values():
            for output in stage.outputs:
                fed |= output.open_parts()
        timelines: dict[str, LogTimeline] = {key: log.timeline for key, log in self._state.logs.items()}
        for name in [name for name in self._parts if everything or name not in fed]:
            self._parts.pop(name).finish(timelines, self._spell_end_ns())

    def _lives_until(self, lane: Lane) -> int:
        """When a lane's track ended; far in the future while it lasts."""
        track = self._facts.tracks.get(lane.log)
        ended = None if track is None else track.ended_ns
        end = 1 << 62 if ended is None else ended
        return min(end, self._spell_end_ns())

    def _spell_end_ns(self) -> int:
        peer = self._facts.peers.get(self._state.peer_id)
        end = peer.end_of(self._state.spell) if peer is not None else None
        return self._facts.session_end_ns(self._state.peer_id) if end is None else end
