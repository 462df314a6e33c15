"""Say why media is missing: intervals without frames against what the journal knows (pure)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from isotrack_api.manifest import Gap, GapReason
from isotrack_recorder.spool.facts import Span, SpoolFacts, TrackFacts

MAX_GAPS: Final = 10_000
_EDGE_NS: Final = 250_000_000
"""What a cause leaves unexplained at its edges belongs to it: the last packets before a mute, the first ones after."""
_EDGES_NS: Final = {GapReason.CRASHED: (1_000_000_000, 2_000_000_000)}
"""The same where it is more: a process that died had not written its newest frames, though it had told of later things; and
being in the call again, a recorder has yet to subscribe and to get a key frame."""
_NOTICE_NS: Final = 40_000_000_000
"""Longest time from the last packet until we notice that a connection is lost: ICE consent (RFC 7675) expires after 30 s."""
_RESUME_NS: Final = 5_000_000_000
"""Longest time from a new connection until its first packet, or key frame."""
_MERGE_NS: Final = 100_000_000
"""Gaps of one reason that is no loss become one with less media between them: comfort noise every 400 ms is not media."""
_TOUCH_NS: Final = 1_000_000
"""The same of losses: each lost packet counts, and nothing that came between two."""
LOSSES: Final = frozenset(
    (GapReason.LOST, GapReason.DAMAGED, GapReason.DISCONNECTED, GapReason.CRASHED, GapReason.SHED)
)
"""Reasons that count as lost seconds."""
BEYOND: Final = frozenset((GapReason.MUTED, GapReason.SHED, GapReason.LOST))
"""Reasons, where the journal knows them (what was lost: by being damaged itself), that are told before a track's first frame and behind its last one, too: nothing else would tell of them."""


class Cause(NamedTuple):
    """A known stretch during which nothing could come."""

    start_ns: int
    end_ns: int
    reason: GapReason


class Missing(NamedTuple):
    """A stretch without media and why."""

    start_ns: int
    end_ns: int
    reason: GapReason
    between_ns: int = 0
    """What lies between the gaps that became this one in a list that was too long, and does not count as they do."""

    @property
    def missing_ns(self) -> int:
        """How much of it counts."""
        return self.end_ns - self.start_ns - self.between_ns


def causes_of(facts: SpoolFacts, tracks: Iterable[TrackFacts]) -> tuple[Cause, ...]:
    """All that the journal knows, the strongest cause first."""
    tracks = list(tracks)
    mutes = [span for track in tracks for span in track.mutes]
    sheds = [span for track in tracks for span in track.sheds]
    peers = {track.peer_id: facts.peers[track.peer_id] for track in tracks if track.peer_id in facts.peers}
    excluded = [span for peer in peers.values() for span in peer.excluded]
    by_reason: tuple[tuple[GapReason, Sequence[Span]], ...] = (
        (GapReason.CRASHED, facts.crashes),
        (GapReason.DISCONNECTED, facts.disconnects),
        (GapReason.PAUSED, facts.pauses),
        (GapReason.EXCLUDED, excluded),
        (GapReason.MUTED, mutes),
        (GapReason.SHED, sheds),  # NB: behind, for who was muted lost nothing by it
        (GapReason.LOST, _unread_of(facts, tracks)),  # NB: last, for it may have been anything
    )
    end = 1 << 62
    return tuple(
        Cause(span.start_ns, end if span.end_ns is None else span.end_ns, reason)
        for reason, spans in by_reason
        for span in spans
    )


def _unread_of(facts: SpoolFacts, tracks: Sequence[TrackFacts]) -> list[Span]:
    """When these tracks may have sent what nothing tells of."""
    return [
        span for span in facts.unread if any((track.ended_ns or span.start_ns) >= span.start_ns for track in tracks)
    ]


def crash_of(facts: SpoolFacts, track: TrackFacts) -> Cause | None:
    """The crash that a log ended with; None when it ended otherwise, or the crash is not over yet."""
    for span in facts.crashes:
        if span.start_ns == track.ended_ns and span.end_ns is not None:
            return Cause(span.start_ns, span.end_ns, GapReason.CRASHED)
    return None


def explain(start_ns: int, end_ns: int, causes: Sequence[Cause], otherwise: GapReason) -> Iterator[Missing]:
    """Split one stretch by its causes; what none explains is `otherwise`."""
    rest = [(start_ns, end_ns)]
    found: list[Missing] = []
    for cause in causes:
        left: list[tuple[int, int]] = []
        for start, end in rest:
            low, high = max(start, cause.start_ns), min(end, cause.end_ns)
            if low >= high:
                left.append((start, end))
                continue
            before_ns, after_ns = _EDGES_NS.get(cause.reason, (_EDGE_NS, _EDGE_NS))
            low = start if low - start <= before_ns else low
            high = end if end - high <= after_ns else high
            found.append(Missing(low, high, cause.reason))
            left += [(a, b) for a, b in ((start, low), (high, end)) if a < b]
        rest = left
    found += [Missing(start, end, _beside(start, end, found, otherwise)) for start, end in rest]
    yield from sorted(found)


def only(reasons: Collection[GapReason], start_ns: int, end_ns: int, causes: Sequence[Cause]) -> Iterator[Missing]:
    """The parts of a stretch that are missing for these reasons, whether or not a file reaches so far."""
    if start_ns < end_ns:
        yield from (part for part in explain(start_ns, end_ns, causes, GapReason.SILENT) if part.reason in reasons)


def before_first(start_ns: int, end_ns: int, causes: Sequence[Cause]) -> Iterator[Missing]:
    """What is told of a stretch before the first frame of all.

    Who sends nothing yet misses nothing, so only what was muted or given up is told; and, as of a later mute, how long it took from
    its end to the first frame.
    """
    before: GapReason | None = None
    for part in explain(start_ns, end_ns, causes, GapReason.SILENT) if start_ns < end_ns else ():
        if part.reason in BEYOND or (before, part.reason, part.end_ns) == (GapReason.MUTED, GapReason.SILENT, end_ns):
            yield part
        before = part.reason


def _beside(start_ns: int, end_ns: int, found: Sequence[Missing], otherwise: GapReason) -> GapReason:
    """What no cause explains is no silence of the sender right before a connection was lost, nor right after the next one stood."""
    lost = [gap for gap in found if gap.reason is GapReason.DISCONNECTED]
    before = end_ns - start_ns <= _NOTICE_NS and any(gap.start_ns == end_ns for gap in lost)
    after = end_ns - start_ns <= _RESUME_NS and any(gap.end_ns == start_ns for gap in lost)
    return GapReason.DISCONNECTED if otherwise is GapReason.SILENT and (before or after) else otherwise


@dataclass(slots=True)
class GapLog:
    """Collects the gaps of one lane in order and merges neighbours. Bounded: beyond MAX_GAPS it grows coarser. Plain data."""

    gaps: list[Missing] = field(default_factory=list)

    def add(self, gap: Missing) -> None:
        """Take the next gap; its start never lies before that of the last one."""
        if gap.end_ns <= gap.start_ns:
            return
        last = self.gaps[-1] if self.gaps else None
        apart_ns = _TOUCH_NS if gap.reason in LOSSES else _MERGE_NS
        if last is not None and last.reason is gap.reason and gap.start_ns - last.end_ns <= apart_ns:
            self.gaps[-1] = Missing(last.start_ns, max(last.end_ns, gap.end_ns), gap.reason, last.between_ns)
            return
        self.gaps.append(gap)
        if len(self.gaps) > MAX_GAPS:  # pairs become one, which tells how much of it is missing
            pairs = zip(self.gaps[::2], self.gaps[1::2])
            self.gaps = [_joined(*pair) for pair in pairs] + self.gaps[len(self.gaps) // 2 * 2 :]

    def rows(self, zero_ns: int) -> tuple[Gap, ...]:
        """As the manifest lists them; what rounds to nothing is left out."""
        rows = []
        for gap in self.gaps:
            start = max(0, (gap.start_ns - zero_ns + 500_000) // 1_000_000)
            end = (gap.end_ns - zero_ns + 500_000) // 1_000_000
            if end > start:
                missing = min((gap.missing_ns + 500_000) // 1_000_000, end - start) if gap.between_ns else None
                rows.append(Gap(start_ms=start, duration_ms=end - start, reason=gap.reason, missing_ms=missing))
        return tuple(rows)


def _joined(first: Missing, second: Missing) -> Missing:
    """One gap over both; what was lost outweighs what was not sent, and is all that counts then."""
    reason = second.reason if second.reason in LOSSES else first.reason
    start_ns, end_ns = first.start_ns, max(first.end_ns, second.end_ns)
    counted = [gap for gap in (first, second) if (gap.reason in LOSSES) is (reason in LOSSES)]
    return Missing(start_ns, end_ns, reason, max(0, end_ns - start_ns - sum(gap.missing_ns for gap in counted)))
