"""One Matroska track in the making: placed frames in, blocks out, and an account of what was written and what was missing.

Sound is made continuous (`audio`), pictures keep their gaps. What a lane knows is plain data (SoundState, PictureState), so that
it can be saved between any two frames; a writer is a view on it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from isotrack_api.base import MediaKind, TrackSource
from isotrack_api.manifest import GapReason, SizeChange
from isotrack_recorder.errors import ParseError
from isotrack_recorder.matroska.codec_private_video import VIDEO_FORMS, Memory
from isotrack_recorder.matroska.muxer import Block, TrackHeader
from isotrack_recorder.media import CodecInfo
from isotrack_recorder.spool.facts import SpoolFacts, TrackFacts
from isotrack_recorder.timeline.placement import SECOND

from .audio import Continuity, Hole, Packet, SoundPosition
from .gaps import BEYOND, Cause, GapLog, Missing, before_first, causes_of, crash_of, explain, only
from .model import FilePlan
from .sound_forms import OpusForm, SoundForm, sound_form

_STILL_NS: Final = 2 * SECOND
"""Pictures further apart leave a gap worth telling."""
_USUAL_NS: Final = SECOND // 30
_FAR_NS: Final = 1 << 62
_LONGEST_PICTURE_NS: Final = SECOND // 10
_MAX_SIZES: Final = 1000
_APART_NS: Final = SECOND // 1000
"""Two pictures of one instant (an SFU that goes over to another layer sends the same one in both) would have one time in a file, which
decoders take for a fault."""


class Placed(NamedTuple):
    """One received frame of a lane, placed in time."""

    ns: int
    log: str
    ticks: int
    span: int
    """Ticks of one span count from one base."""
    data: bytes
    key: bool
    lost: int
    """Packets that were abandoned before it."""
    damaged: bool
    """Made from pictures that never came."""
    codec: int
    """Codec span of its log."""
    segment: int
    """Where it lies in its log: the segment, and the offset behind it."""
    end: int


class Size(NamedTuple):
    """Picture size from a moment of the call's timeline on."""

    at_ms: int
    width: int
    height: int
    rotation: int


@dataclass(slots=True)
class LaneState:
    """What any lane keeps account of."""

    number: int
    """Of the Matroska track, from 1."""
    source: TrackSource
    codec: CodecInfo
    track_id: str
    """Of its first track, as the SFU names it."""
    logs: list[str] = field(default_factory=list)
    """Keys of the logs that its frames came from. Sound that goes on begins with that of the part before: it may stay silent here."""
    gaps: GapLog = field(default_factory=GapLog)
    first_ns: int | None = None
    last_ns: int | None = None
    """Place of the newest frame."""
    end_ns: int | None = None
    frames: int = 0
    key_frames: int = 0
    bytes: int = 0
    packets_lost: int = 0
    """Abandoned right before one of its frames."""
    goes_on: bool = False
    """The part before has the frames that came before."""


@dataclass(slots=True)
class SoundState(LaneState):
    """A lane of sound."""

    at: SoundPosition = field(default_factory=SoundPosition)
    opus: OpusForm = field(default_factory=OpusForm)
    """What packets of Opus told so far."""


@dataclass(slots=True)
class PictureState(LaneState):
    """A lane of pictures."""

    private: str = ""
    """CodecPrivate in hex."""
    memory: Memory = field(default_factory=list)
    """Of the block writer."""
    sizes: list[Size] = field(default_factory=list)
    sized: dict[str, int] = field(default_factory=dict)
    """How many of a log's size changes hold."""
    largest: tuple[int, int] = (0, 0)
    rotation: int | None = None
    usual_ns: int = _USUAL_NS
    damaged_ns: int | None = None
    """Since when pictures come that do not decode."""


class LaneWriter:
    """What both kinds share."""

    def __init__(self, plan: FilePlan, state: LaneState, facts: SpoolFacts) -> None:
        self._plan = plan
        self._facts = facts
        self._lane = state
        self._kin: tuple[tuple[int, int], list[TrackFacts]] = ((0, 0), [])
        """See `_tracks`, and how many logs were known then."""

    def _begin(self, placed: Placed, file_begins_ns: int) -> None:
        """Before the lane's first frame: what is missing before the file (or, of pictures, before them) begins."""
        if placed.log not in self._lane.logs:
            self._lane.logs.append(placed.log)
        # NB: sound has a hole of its own from the file's zero on, and gaps do not overlap.
        if self._lane.goes_on:
            self.declare_beyond(BEYOND, self._plan.zero_ns, file_begins_ns)
            return
        begins_ns = file_begins_ns if self._plan.part > 1 else min(self._crashed_before(), file_begins_ns)
        for missing in before_first(self._published_ns(), begins_ns, self._causes()):
            self._lane.gaps.add(missing)
        self._declare(begins_ns, file_begins_ns, GapReason.SILENT)

    def _wrote(self, frames: Sequence[Placed], end_ns: int) -> None:
        """Account for frames of one log that were written; the last one ends at `end_ns`, or another of them, if that is later."""
        lane, first = self._lane, frames[0]
        if lane.first_ns is None:
            lane.first_ns = first.ns
        if first.log not in lane.logs:
            lane.logs.append(first.log)
        lane.last_ns = frames[-1].ns
        lane.end_ns = max(lane.end_ns or 0, end_ns)
        lane.frames += len(frames)
        lane.bytes += sum([len(placed.data) for placed in frames])
        lane.packets_lost += sum([placed.lost for placed in frames])

    @property
    def crash(self) -> Cause | None:
        """The crash that the lane's last log ended with."""
        return crash_of(self._facts, self._facts.tracks[self._lane.logs[-1]]) if self._lane.logs else None

    def declare_beyond(self, reasons: Collection[GapReason], start_ns: int, end_ns: int) -> None:
        """What is missing for these reasons before the lane's frames or behind them. It belongs to no hole."""
        for missing in only(reasons, start_ns, end_ns, self._causes()) if self._lane.logs else ():
            self._lane.gaps.add(missing)

    def _causes(self) -> tuple[Cause, ...]:
        known, last_ns = causes_of(self._facts, self._tracks()), self._lane.last_ns
        if last_ns is None:
            return known
        logs = (self._facts.tracks[log] for log in self._lane.logs)
        return known + tuple(Cause(last_ns, log.ended_ns or _FAR_NS, GapReason.LOST) for log in logs if log.is_cut)

    def _tracks(self) -> list[TrackFacts]:
        """All logs of the lane's tracks, also those that have none of its frames: a process may have seen nothing but a mute."""
        known = (len(self._lane.logs), len(self._facts.tracks))
        if known != self._kin[0]:
            ids = {(track.track_id, track.source) for track in map(self._facts.tracks.__getitem__, self._lane.logs)}
            tracks = self._facts.tracks_of(self._plan.peer_id)
            self._kin = (known, [track for track in tracks if (track.track_id, track.source) in ids])
        return self._kin[1]

    def _declare(self, start_ns: int, end_ns: int, otherwise: GapReason) -> None:
        for missing in explain(start_ns, end_ns, self._causes(), otherwise) if start_ns < end_ns else ():
            self._lane.gaps.add(missing)

    def _published_ns(self) -> int:
        """Since when the first track is known, or known again: where the session came back, its end tells the rest."""
        peer = self._facts.peers.get(self._plan.peer_id)
        back_ns = max((end for end in peer.ends if end < self._plan.zero_ns), default=0) if peer is not None else 0
        return max(back_ns, min(track.opened_ns for track in self._tracks()))

    def _crashed_before(self) -> int:
        """Since when a process received this source that died before anything of it was on the disk; far in the future without one."""
        facts, lane = self._facts, self._lane
        begun = [
            track.codecs[0].at_ns
            for track in facts.tracks_of(self._plan.peer_id)
            if track.source is lane.source and track.key not in lane.logs and track.codecs and crash_of(facts, track)
        ]
        return min(begun, default=_FAR_NS)


class SoundWriter(LaneWriter):
    """Sound, continuous from the file's zero."""

    def __init__(self, plan: FilePlan, state: SoundState, facts: SpoolFacts) -> None:
        super().__init__(plan, state, facts)
        self.state = state
        self._form: SoundForm = state.opus if state.codec.name == "opus" else sound_form(state.codec)
        self._rate = self._form.rate
        self._continuity = Continuity(self._form, state.at)

    def write(self, frames: Sequence[Placed]) -> list[Block]:
        """Take the next packets, all of one log."""
        blocks: list[Block] = []
        at = 0
        while at < len(frames):
            if count := self._run_on(frames[at:], blocks):
                at += count
            else:
                blocks += self._write_one(frames[at])
                at += 1
        return blocks

    def _run_on(self, frames: Sequence[Placed], blocks: list[Block]) -> int:
        """Add blocks of packets that simply follow one another; how many there are."""
        if self.state.first_ns is None or frames[0].span != frames[-1].span or frames[0].log not in self.state.logs:
            return 0
        rate, zero = self._rate, self._plan.zero_ns
        lengths = self._form.lengths([placed.data for placed in frames])
        coming = [
            (placed.ticks, round((placed.ns - zero) * rate / SECOND), length) for placed, length in zip(frames, lengths)
        ]
        positions = self._continuity.run_on(_base(frames[0]), coming)
        times = [position * SECOND // rate for position in positions]
        frames, number = frames[: len(times) - 1], self.state.number
        if frames:
            rows = zip(times, times[1:], frames)
            blocks += [(time, number, following - time, placed.data, True, False) for time, following, placed in rows]
            self._form.note([placed.data for placed in frames])
            lasting = zip(frames, positions, positions[1:])
            self._wrote(frames, max([placed.ns + (end - start) * SECOND // rate for placed, start, end in lasting]))
        return len(frames)

    def _write_one(self, placed: Placed) -> list[Block]:
        if self.state.first_ns is None:
            self._begin(placed, min(placed.ns, self._plan.zero_ns))
        hole, packets = self._continuity.add(*self._coming(placed), placed.data)
        if hole is not None:
            if placed.log not in self.state.logs:
                self.state.logs.append(placed.log)  # its mutes may explain the hole before its first packet
            self._declare_hole(hole, GapReason.LOST if placed.lost else GapReason.SILENT)
        self._wrote((placed,), placed.ns + packets[-1].ticks * SECOND // self._rate)
        return self._blocks(packets)

    def follow(self, before: str, after: str, ticks: int) -> None:
        """The log `after` goes on with what `before` has, with ticks that are less by so many: packet follows packet."""
        self._continuity.follow(before, after, ticks)

    def pass_time(self, until_ns: int, upcoming: Placed | None) -> list[Block]:
        """Silence where there is a hole; all packets placed before `until_ns` must have been written.

        Args:
            upcoming: The next one; None = there is none for some seconds.
        """
        now = (until_ns - self._plan.zero_ns) * self._rate // SECOND
        return self._blocks(self._continuity.pass_time(now, self._coming(upcoming) if upcoming else None))

    def fill_until(self, until_ns: int) -> list[Block]:
        """Make the lane last until then. Nothing follows."""
        hole, packets = self._continuity.fill_until((until_ns - self._plan.zero_ns) * self._rate // SECOND)
        if hole is not None:
            self._declare_hole(hole, GapReason.SILENT)
        return self._blocks(packets)

    def header(self) -> TrackHeader:
        """What the file's head says of this lane."""
        return TrackHeader(
            MediaKind.AUDIO,
            self.state.codec.name,
            str(self.state.source),
            private=self._form.private(),
            channels=self._form.channels,
            sample_rate=self._form.sample_rate,
            tags={"SOURCE": str(self.state.source), "TRACK_ID": self.state.track_id},
        )

    @property
    def silence_ms(self) -> int:
        """Declared silence that was written."""
        return self.state.at.silent * 1000 // self._rate

    @property
    def overlap_ms(self) -> int:
        """By how much more sound decodes than the lane lasts."""
        return self.state.at.squeezed * 1000 // self._rate

    @property
    def late_ms(self) -> float:
        """How much later than on the timeline its packets lie in the file, on average."""
        at = self.state.at
        return -at.early * 1000 / (at.packets * self._rate) if at.packets else 0.0

    @property
    def end_ns(self) -> int:
        """Until where there is sound, from the file's zero."""
        return self.state.at.position * SECOND // self._rate

    def _coming(self, placed: Placed) -> tuple[str, int, int]:
        target = round((placed.ns - self._plan.zero_ns) * self._rate / SECOND)
        return _base(placed), placed.ticks, target

    def _blocks(self, packets: list[Packet]) -> list[Block]:
        rate, number = self._rate, self.state.number
        blocks: list[Block] = []
        for position, ticks, data, _ in packets:
            time = position * SECOND // rate
            blocks.append((time, number, (position + ticks) * SECOND // rate - time, data, True, False))
        return blocks

    def _declare_hole(self, hole: Hole, otherwise: GapReason) -> None:
        start = self._plan.zero_ns + hole.start * SECOND // self._rate
        self._declare(start, start + hole.ticks * SECOND // self._rate, otherwise)


class PictureWriter(LaneWriter):
    """Pictures; gaps stay gaps."""

    def __init__(self, plan: FilePlan, state: PictureState, facts: SpoolFacts) -> None:
        super().__init__(plan, state, facts)
        self.state = state
        self._form = VIDEO_FORMS[state.codec.name]
        self._block = self._form.writer(state.memory)

    def write(self, frames: Sequence[Placed], *, beside_sound: bool) -> list[Block]:
        """Take the next pictures, all of one log."""
        blocks: list[Block] = []
        at = 0
        while at < len(frames):
            if count := self._run_on(frames[at:] if at else frames, blocks, beside_sound=beside_sound):
                at += count
            else:
                blocks.append(self._write_one(frames[at], beside_sound=beside_sound))
                at += 1
        return blocks

    def _run_on(self, frames: Sequence[Placed], blocks: list[Block], *, beside_sound: bool) -> int:
        """Add blocks of pictures of which nothing is to be told; how many there are."""
        state, before, last_ns = self.state, len(blocks), self.state.last_ns
        if last_ns is None or state.damaged_ns is not None:
            return 0
        usual_ns, end_ns, has_private = state.usual_ns, 0, bool(state.private)
        block, number, zero, add = self._block, state.number, self._plan.zero_ns, blocks.append
        resized = self._next_size(frames[0].log)
        for ns, _, ticks, span, data, key, lost, damaged, _, _, _ in frames:
            place = max(ns, last_ns + _APART_NS)
            waited = place - last_ns
            if lost or damaged or waited > 2 * usual_ns or (key and not has_private):
                break
            if resized is not None and resized <= (span, ticks):
                break
            usual_ns = min(waited, _LONGEST_PICTURE_NS)
            end_ns = max(end_ns, place + usual_ns)
            add((place - zero, number, 0 if beside_sound else usual_ns, block(data), key, key))
            last_ns = place
        count = len(blocks) - before
        if count:
            state.usual_ns = usual_ns
            state.key_frames += sum([placed.key for placed in frames[:count]])
            self._wrote(frames[:count], end_ns)
            state.last_ns = last_ns
        return count

    def _write_one(self, placed: Placed, *, beside_sound: bool) -> Block:
        if self.state.first_ns is None:
            self._begin(placed, placed.ns)
        elif self.state.last_ns is not None and placed.ns < self.state.last_ns + _APART_NS:
            placed = placed._replace(ns=self.state.last_ns + _APART_NS)
        sizes = self._facts.tracks[placed.log].sizes
        if self.state.sized.get(placed.log, 0) < len(sizes):
            self._take_sizes(placed)
        data = self._payload(placed.data, key=placed.key)
        duration = self._usual_duration(placed)
        if not placed.damaged:
            self._end_damage(placed.ns)
        elif self.state.damaged_ns is None:
            self.state.damaged_ns = placed.ns
        self.state.key_frames += placed.key
        self._wrote((placed,), placed.ns + duration)
        # Sound tells how long a file is; the last picture simply stands until then.
        time = placed.ns - self._plan.zero_ns
        return time, self.state.number, 0 if beside_sound else duration, data, placed.key, placed.key

    def header(self) -> TrackHeader:
        """What the file's head says of this lane."""
        width, height = self.state.largest
        return TrackHeader(
            MediaKind.VIDEO,
            self.state.codec.name,
            str(self.state.source),
            private=bytes.fromhex(self.state.private),
            width=max(width, 1),
            height=max(height, 1),
            rotation=self.state.rotation or 0,
            tags={"SOURCE": str(self.state.source), "TRACK_ID": self.state.track_id},
        )

    def sizes(self) -> tuple[SizeChange, ...]:
        """Size changes as the manifest lists them."""
        return tuple(SizeChange(**size._asdict()) for size in self.state.sizes)

    def _payload(self, frame: bytes, *, key: bool) -> bytes:
        if key and not self.state.private:
            try:
                self.state.private = self._form.configuration(frame).hex()
            except ParseError:  # the next key frame may bring it
                self.state.private = ""
        return self._block(frame)

    def _usual_duration(self, placed: Placed) -> int:
        """How long this picture probably stands; declares what was missing before it."""
        state = self.state
        if state.last_ns is not None:
            waited = placed.ns - state.last_ns
            if placed.lost or waited >= _STILL_NS or self._is_known(placed.ns, waited):
                reason = GapReason.LOST if placed.lost else GapReason.SILENT
                self._end_damage(min(state.last_ns + state.usual_ns, placed.ns))
                self._declare(state.last_ns + state.usual_ns, placed.ns, reason)
            elif waited > 0:
                state.usual_ns = min(waited, _LONGEST_PICTURE_NS)
        return state.usual_ns

    def _end_damage(self, at_ns: int) -> None:
        """Pictures from here on decode, or there are none."""
        if self.state.damaged_ns is not None:
            self._lane.gaps.add(Missing(self.state.damaged_ns, at_ns, GapReason.DAMAGED))
            self.state.damaged_ns = None

    def _is_known(self, until_ns: int, waited: int) -> bool:
        """Whether the journal knows why no picture came: then the shortest gap is worth telling."""
        start_ns = until_ns - waited
        return waited > 2 * self.state.usual_ns and any(
            cause.start_ns < until_ns and start_ns < cause.end_ns for cause in self._causes()
        )

    def finish(self, end_ns: int) -> None:
        """Nothing follows until `end_ns`, where the session ended or the part was cut."""
        state, crash = self.state, self.crash
        if state.last_ns is None or state.end_ns is None:
            return
        self._end_damage(state.last_ns + state.usual_ns)
        told_ns = state.end_ns
        if crash is not None and crash.start_ns < end_ns:
            self._declare(state.last_ns + state.usual_ns, crash.end_ns, GapReason.SILENT)
            told_ns = max(told_ns, crash.end_ns)
        self.declare_beyond(BEYOND, told_ns, end_ns)

    def _next_size(self, log: str) -> tuple[int, int] | None:
        """Span and ticks from which on the next change of size holds."""
        sizes, at = self._facts.tracks[log].sizes, self.state.sized.get(log, 0)
        return (sizes[at].span, sizes[at].ticks) if at < len(sizes) else None

    def _take_sizes(self, placed: Placed) -> None:
        """Apply the size changes that hold from this frame on; at the first frame the newest of them."""
        state, sizes = self.state, self._facts.tracks[placed.log].sizes
        at = state.sized.get(placed.log, 0)
        begun = at > 0
        while at < len(sizes) and (sizes[at].span, sizes[at].ticks) <= (placed.span, placed.ticks):
            at += 1
        before, state.sized[placed.log] = state.sized.get(placed.log, 0), at
        for size in sizes[before:at] if begun else sizes[max(at - 1, 0) : at]:
            if state.rotation is None:
                state.rotation = size.rotation
            last = state.sizes[-1] if state.sizes else None
            if last is not None and (size.width, size.height, size.rotation) == last[1:]:
                continue
            state.largest = max(state.largest, (size.width, size.height), key=lambda wh: wh[0] * wh[1])
            if len(state.sizes) < _MAX_SIZES:
                at_ms = to_ms(placed.ns - self._plan.origin_ns)
                state.sizes.append(Size(at_ms, size.width, size.height, size.rotation))


def base_of(log: str, span: int) -> str:
    """What ticks of a span of a log count from."""
    return f"{log}/{span}"


def _base(placed: Placed) -> str:
    return base_of(placed.log, placed.span)


def to_ms(ns: int) -> int:
    """Whole milliseconds on the call's timeline, which has no negative ones."""
    return max(0, (ns + 500_000) // 1_000_000)
