"""One file in the making: its name, its lanes, its muxer; from the first frame to the head.

A Part is a view on a PartState, which is plain data: saved between two steps of the stream, it goes on in another process.
"""

from __future__ import annotations

import itertools
from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Final

from isotrack_api.base import MediaKind, OutputType, StreamKind
from isotrack_api.intent import Intent, OutputLayer
from isotrack_api.manifest import GapReason
from isotrack_recorder import __version__
from isotrack_recorder.matroska.muxer import Block, FileHeader, Muxer, MuxState
from isotrack_recorder.spool.facts import SpoolFacts
from isotrack_recorder.timeline.index import PAUSE_NS
from isotrack_recorder.timeline.placement import SECOND
from isotrack_recorder.timeline.session import LogTimeline

from .lanes import LaneState, PictureState, PictureWriter, Placed, SoundState, SoundWriter, base_of, to_ms
from .model import FilePlan, FileResult, FileSink, LaneResult
from .names import file_name
from .outputs import PartDraft
from .overlap import Shift

APP: Final = f"isotrack/{__version__}"
_MS: Final = 1_000_000
_MOST_LATE_MS: Final = 1e5
"""Far more than any timeline comes to."""
_order = itemgetter(0, 1)
"""Of blocks: time and track."""


@dataclass(slots=True)
class PartState:
    """One file, open or finished."""

    plan: FilePlan
    mux: MuxState
    sound: SoundState | None
    picture: PictureState | None
    cut_ns: int | None = None
    """From here on its sound belongs to the next part."""
    result: FileResult | None = None
    """Set when it is finished."""


def call_zero_ns(facts: SpoolFacts, intent: Intent) -> int:
    """Zero of the call's timeline on the spool's axis: set by the first attempt, handed on to later ones."""
    return facts.zero_ns if intent.epoch_ms is None else intent.epoch_ms * _MS - facts.wall_offset_ns


def begin_part(
    draft: PartDraft, layer: OutputLayer, peer_id: str, facts: SpoolFacts, intent: Intent, taken: Collection[str]
) -> PartState:
    """Name a file and open it."""
    peer = facts.peers[peer_id]
    values = {
        "prefix": layer.file_name_prefix,
        "user_id": peer.user_id,
        "peer_id": peer.peer_id,
        "stream_kind": str(draft.output_type.stream_kind),
        "media_kind": "_".join(str(kind) for kind in MediaKind if kind in draft.output_type.media_kinds),
        "started_ms": str((draft.zero_ns + facts.wall_offset_ns) // _MS),
        "layer": layer.name,
        "part": str(draft.part),
        "call_id": intent.call_id,
        "track_id": draft.lanes[0].track_id,
        "codec": "-".join(dict.fromkeys(lane.codec.name for lane in draft.lanes)),
    }
    suffixes = "".join(
        f"_{letter}{number}"
        for letter, number in (("t", draft.number), ("p", draft.part), ("a", intent.attempt))
        if number > 1
    )
    # Layers may have equal prefixes and templates: then the layer's name tells their files apart.
    marks = itertools.chain(("", f"_{layer.name}"), (f"_{layer.name}{number}" for number in itertools.count(2)))
    names = (file_name(layer.file_name_template, values, f"{mark}{suffixes}", str(draft.container)) for mark in marks)
    plan = FilePlan(
        name=next(name for name in names if name not in taken),
        attempt=intent.attempt,
        layer=layer.name,
        output_type=draft.output_type,
        reason=draft.reason,
        part=draft.part,
        container=draft.container,
        user_id=peer.user_id,
        peer_id=peer.peer_id,
        participant_name=peer.name,
        call_id=intent.call_id,
        zero_ns=draft.zero_ns,
        call_zero_ns=call_zero_ns(facts, intent),
    )
    sound = picture = None
    for number, lane in enumerate(draft.lanes, 1):
        goes_on = lane.kind in draft.goes_on
        if lane.kind is MediaKind.AUDIO:
            logs = [lane.log] if goes_on else []
            sound = SoundState(number, lane.source, lane.codec, lane.track_id, logs, goes_on=goes_on)
        else:
            picture = PictureState(number, lane.source, lane.codec, lane.track_id, goes_on=goes_on)
    return PartState(plan, MuxState(draft.container), sound, picture)


class Part:
    """Writes one file."""

    def __init__(self, state: PartState, facts: SpoolFacts, sink: FileSink) -> None:
        self.state = state
        self._facts = facts
        self._sink = sink
        self._muxer = Muxer(state.mux)
        self._sound = SoundWriter(state.plan, state.sound, facts) if state.sound else None
        self._picture = PictureWriter(state.plan, state.picture, facts) if state.picture else None
        self._blocks: list[Block] = []
        """Taken since the last flush. Empty between two steps of the stream."""
        self._waiting = 0

    @property
    def bytes(self) -> int:
        """Of the file so far, about."""
        return self._muxer.offset + self._waiting

    @property
    def settled(self) -> int:
        """No byte before it will change, but those of the head."""
        return self._muxer.settled

    def write(self, kind: MediaKind, frames: Sequence[Placed]) -> None:
        """Take the next frames of one log; each kind comes in the order of places."""
        if kind is MediaKind.AUDIO:
            assert self._sound is not None
            blocks = self._sound.write(frames)
        else:
            assert self._picture is not None
            blocks = self._picture.write(frames, beside_sound=self._sound is not None)
        self._blocks += blocks
        self._waiting += sum([len(data) for _, _, _, data, _, _ in blocks])

    def follow(self, before: str, after: str, shift: Shift) -> None:
        """Sound of the log `before` goes on in the log `after`."""
        if self._sound is not None:
            self._sound.follow(base_of(before, shift.older), base_of(after, shift.newer), shift.ticks)

    def pass_time(self, sound_lives_until_ns: int, until_ns: int, upcoming: Placed | None) -> None:
        """No sound will be placed before `until_ns` any more, and the next is `upcoming`: where it is silent, it goes on with silence.

        It does so while its track lives, and beside pictures.
        """
        if self._sound is None or self.state.cut_ns is not None:
            return
        picture = self.state.picture
        if picture is not None and picture.last_ns is not None:
            sound_lives_until_ns = max(sound_lives_until_ns, picture.last_ns)
        self._blocks += self._sound.pass_time(min(until_ns, sound_lives_until_ns), upcoming)

    def flush(self) -> None:
        """Hand over all that was taken."""
        self._mux(None)

    def flush_before(self, ns: int) -> None:
        """Hand over what nothing will come before any more: all frames placed before `ns` were taken."""
        now = ns - self.state.plan.zero_ns - SECOND
        self._mux(now if self._sound is None else min(now, self._sound.end_ns))

    def _mux(self, until_ns: int | None) -> None:
        """Mux what lies before `until_ns` (from the file's zero), in the order of time: sound is not exactly where it is placed."""
        blocks = sorted(self._blocks, key=_order)
        end = len(blocks) if until_ns is None else bisect_left(blocks, (until_ns, 0), key=_order)
        self._muxer.add(blocks[:end])
        self._blocks = blocks[end:]
        self._waiting = sum(len(data) for _, _, _, data, _, _ in self._blocks)
        for write in self._muxer.take():
            self._sink.write(self.state.plan.name, write.offset, write.data)

    def finish(self, timelines: Mapping[str, LogTimeline], session_end_ns: int) -> None:
        """Write the rest: nothing follows."""
        state = self.state
        if self._sound is not None:
            if state.picture is not None and not state.picture.frames:
                self._without_pictures()
            self._end_sound(self._sound, session_end_ns)
        if self._picture is not None:
            self._picture.finish(session_end_ns if state.cut_ns is None else state.cut_ns)
        self.flush()
        lanes = [lane for lane in (self._sound, self._picture) if lane is not None]
        head = self._muxer.finish(_header(state.plan, self._facts), [lane.header() for lane in lanes])
        self._mux(None)
        self._sink.write(state.plan.name, 0, head)
        state.result = FileResult(
            self._muxer.duration_ms, self._muxer.offset, tuple(self._result(lane, timelines) for lane in lanes)
        )
        state.mux.cues.clear()

    def _end_sound(self, sound: SoundWriter, session_end_ns: int) -> None:
        """Sound lasts until its track ended or was cut, if it fell silent before or a crash cut it off, and until the last picture."""
        state, cut_ns = sound.state, self.state.cut_ns
        last = self.state.plan.zero_ns if state.last_ns is None else state.last_ns
        ended = self._facts.tracks[state.logs[-1]].ended_ns if state.logs else None
        if (crash := sound.crash) is not None:
            until = min(crash.end_ns, session_end_ns)
        else:
            until = session_end_ns if ended is None else ended
            until = until if until - last >= PAUSE_NS else last
        until = until if cut_ns is None else min(until, cut_ns)
        if self.state.picture is not None and self.state.picture.last_ns is not None:
            until = max(until, self.state.picture.last_ns)
        self._blocks += sound.fill_until(until)
        end = self.state.plan.zero_ns + sound.end_ns
        # NB: who is muted until the end has silence until there.
        sound.declare_beyond((GapReason.SHED,), max(until, end), session_end_ns if cut_ns is None else cut_ns)

    def _without_pictures(self) -> None:
        """The pictures that the file was opened for never came."""
        plan = self.state.plan
        prefix = "screenshare_" if plan.output_type.stream_kind is StreamKind.SCREENSHARE else ""
        reason = "; ".join(text for text in (plan.reason, "no picture came") if text)
        self.state.plan = replace(plan, output_type=OutputType(f"{prefix}audio_only"), reason=reason)
        self.state.picture = self._picture = None

    def _result(self, writer: SoundWriter | PictureWriter, timelines: Mapping[str, LogTimeline]) -> LaneResult:
        lane: LaneState = writer.state
        plan = self.state.plan
        zero = plan.origin_ns
        start = plan.zero_ns if lane.first_ns is None else lane.first_ns
        packets, packets_lost, packets_recovered = self._packets(writer)
        clocks = [timelines[log] for log in lane.logs if log in timelines]
        clock = max(clocks, key=lambda clock: clock.knotted, default=None)
        return LaneResult(
            track_id=lane.track_id,
            source=lane.source,
            kind=MediaKind.AUDIO if isinstance(writer, SoundWriter) else MediaKind.VIDEO,
            codec=lane.codec.name,
            start_ms=to_ms(start - zero),
            end_ms=to_ms((start if lane.end_ns is None else lane.end_ns) - zero),
            frames=lane.frames,
            key_frames=lane.key_frames,
            media_bytes=lane.bytes,
            packets=packets,
            packets_lost=packets_lost,
            packets_recovered=packets_recovered,
            silence_ms=writer.silence_ms if isinstance(writer, SoundWriter) else 0,
            overlap_ms=writer.overlap_ms if isinstance(writer, SoundWriter) else 0,
            drift_ppm=clock.drift_ppm if clock else None,
            clock=clock.clock if clock else "arrival",
            sizes=writer.sizes() if isinstance(writer, PictureWriter) else (),
            gaps=lane.gaps.rows(zero),
            late_ms=_late_ms(clocks, writer.late_ms if isinstance(writer, SoundWriter) else 0.0),
        )

    def _packets(self, writer: SoundWriter | PictureWriter) -> tuple[int, int, int]:
        """Packets that came, were lost, and came when asked for again.

        Totals are kept per track. A packet of sound is a frame, so of sound that is cut into several files each tells its own; how
        many packets made a picture is not known.
        """
        lane: LaneState = writer.state
        counters = [self._facts.tracks[log].counters for log in lane.logs]
        came, lost, recovered = (sum(row.get(name, 0) for row in counters) for name in ("packets", "lost", "recovered"))
        whole = self.state.cut_ns is None and self.state.plan.part == 1 and not lane.goes_on
        if came and not whole and isinstance(writer, SoundWriter):
            return lane.frames, lane.packets_lost, recovered
        return came, lost, recovered


def _late_ms(clocks: Sequence[LogTimeline], in_file_ms: float) -> float | None:
    """Of frames of all these logs, which lie in the file `in_file_ms` later than on the timeline."""
    told = [(late, clock.by_reports) for clock in clocks if (late := clock.late_ms) is not None]
    if not told:
        return None
    late_ms = sum(late * seconds for late, seconds in told) / sum(seconds for _, seconds in told) + in_file_ms
    return max(-_MOST_LATE_MS, min(_MOST_LATE_MS, late_ms))


def _header(plan: FilePlan, facts: SpoolFacts) -> FileHeader:
    tags = {
        "CALL_ID": plan.call_id,
        "CALL_SID": facts.call_sid,
        "USER_ID": plan.user_id,
        "PEER_ID": plan.peer_id,
        "PARTICIPANT": plan.participant_name,
        "START_OFFSET_MS": str(plan.start_offset_ms),
    }
    return FileHeader(
        app=APP,
        title=plan.participant_name or plan.user_id,
        date_unix_ns=plan.zero_ns + facts.wall_offset_ns,
        seed=f"{facts.recording_uid}/{plan.attempt}/{plan.name}",
        tags={name: value for name, value in tags.items() if value},
    )
