"""Which file each frame of a participant session goes to, decided as frames come (pure).

    frames in the order of their places → lanes → per requested output: the part that is open for this kind of media

A lane is a source through all its republications; a second track of a source at the same time is a further lane and gets
a file of its own. An output that muxes sound and pictures opens when both kinds were seen, or a minute after the first (`ready`);
until then its frames wait in the spool. A kind that comes later, a change of codec and a file of the greatest size begin the next
part. Lanes are cut one by one: sound at the moment itself; pictures go on in the part before until their next key frame, with
which they begin in the new one. So every frame is in exactly one part, and every part can be decoded from its first byte.
Where only one kind is there, a file of that kind stands in (never twice: not if that kind was asked for by itself).

All state is plain data. Nothing here looks ahead but for `Lanes`: what is decided once stays.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from isotrack_api.base import Container, MediaKind, OutputType, StreamKind, TrackSource
from isotrack_api.intent import OutputLayer
from isotrack_recorder.matroska.muxer import WEBM_CODECS
from isotrack_recorder.media import CodecInfo

SECOND_KIND_NS: Final = 60_000_000_000
REPUBLISH_OVERLAP_NS: Final = 1_000_000_000
"""A new track of a source that begins this shortly before the end of the old one replaces it."""
NOWHERE: Final = ""
"""The part of a kind that has a file of its own already."""
FULL: Final = "the part before is full"
CAME_BACK: Final = "the session came back after its end"


@dataclass(slots=True)
class Lane:
    """A source of a participant session through all its republications."""

    kind: MediaKind
    number: int
    """1; 2 and more for further tracks of the same source."""
    source: TrackSource
    codec: CodecInfo
    track_id: str
    log: str
    """Where its frames come from now."""


@dataclass(slots=True)
class Output:
    """One requested output (of one layer) and one lane number: a file, or several parts."""

    layer: int
    output_type: OutputType
    number: int
    parts: int = 0
    latest: str | None = None
    """Name of the newest part; None before the first."""
    route: dict[MediaKind, str] = field(default_factory=dict)
    """Part that frames of a kind go to."""
    following: dict[MediaKind, str] = field(default_factory=dict)
    """Part that pictures go to from their next key frame on."""
    codecs: dict[MediaKind, str] = field(default_factory=dict)
    """Of the newest part."""
    first_ns: dict[MediaKind, int] = field(default_factory=dict)
    full: bool = False
    """The newest part has reached its greatest size."""
    only: MediaKind | None = None
    """Takes frames of this kind alone: a further track of a source, which nothing else belongs to."""

    def open_parts(self) -> set[str]:
        """Parts that frames still go to."""
        return {*self.route.values(), *self.following.values()} - {NOWHERE}


@dataclass(slots=True)
class Stage:
    """All that came of one group of sources: of the person, or of the screen."""

    opened: bool = False
    lanes: list[Lane] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class PartDraft:
    """One file: which lanes, from when, and why it is not simply what was asked for."""

    output_type: OutputType
    lanes: tuple[Lane, ...]
    """Sound first."""
    zero_ns: int
    part: int
    number: int
    reason: str | None
    container: Container
    goes_on: frozenset[MediaKind] = frozenset()
    """Kinds whose frames went to the part before until now."""


class Parts(Protocol):
    """Whoever makes the files."""

    def open_part(self, layer: int, draft: PartDraft) -> str:
        """Open a file; its name."""
        ...

    def cut_part(self, name: str, at_ns: int) -> None:
        """From `at_ns` on sound goes to another part than this one."""

    def is_alive(self, lane: Lane, at_ns: int) -> bool:
        """Whether frames of a lane may come after `at_ns`."""
        ...


def ready(
    wanted: Sequence[OutputType], first_ns: Mapping[MediaKind, int], seen_until_ns: int | None
) -> tuple[MediaKind, ...]:
    """Kinds of media with which the outputs of a stage open now; () = they wait.

    Args:
        wanted: Outputs of the stage, of all layers.
        first_ns: Place of the first frame of each kind that was seen.
        seen_until_ns: No frame will be placed before it any more; None = nothing follows.
    """
    if not first_ns:
        return ()
    begin = min(first_ns.values())
    in_time = tuple(kind for kind in MediaKind if kind in first_ns and first_ns[kind] <= begin + SECOND_KIND_NS)
    pairs = any(len(output.media_kinds) > 1 for output in wanted)
    waited = seen_until_ns is None or seen_until_ns > begin + SECOND_KIND_NS
    return in_time if len(in_time) > 1 or waited or not pairs else ()


class Router:
    """Decides for one stage."""

    def __init__(self, kind: StreamKind, stage: Stage, layers: Sequence[OutputLayer], parts: Parts) -> None:
        self._stage = stage
        self._layers = layers
        self._parts = parts
        self.wanted = [
            [output for output in OutputType if output in layer.output_types and output.stream_kind is kind]
            for layer in layers
        ]
        """Per layer, in a stable order."""
        self._fed: dict[tuple[MediaKind, int], list[Output]] = {}
        for output in stage.outputs:
            self._feed(output)

    def open(self, lanes: Sequence[Lane], first_ns: Mapping[MediaKind, int]) -> None:
        """Begin with these lanes, the first of their kinds."""
        self._stage.opened = True
        self._stage.lanes += lanes
        for layer, wanted in enumerate(self.wanted):
            for output_type in wanted:
                output = self._first_of(layer, output_type)
                within = [lane for lane in lanes if lane.kind in output_type.media_kinds]
                if within:
                    zero = min(first_ns[lane.kind] for lane in within)
                    name = self._begin(output, within, zero, CAME_BACK)
                    output.route = {lane.kind: name for lane in within}
                    output.first_ns = {lane.kind: first_ns[lane.kind] for lane in within}

    def add_lane(self, lane: Lane) -> None:
        """A further lane: of a kind that came later, or a second track of a source."""
        self._stage.lanes.append(lane)
        if lane.number > 1:
            for layer, wanted in enumerate(self.wanted):
                for output_type in wanted:
                    if lane.kind in output_type.media_kinds:
                        self._add(Output(layer, output_type, lane.number, only=lane.kind))

    def parts_of(self, lane: Lane, at_ns: int, *, key: bool) -> list[str]:
        """Parts that the lane's next frame goes to. Frames of all lanes come in the order of their places."""
        names = []
        for output in self._fed.get((lane.kind, lane.number), ()):
            name = output.route.get(lane.kind)
            if name is None or output.codecs.get(lane.kind) != lane.codec.name:
                name = self._next_part(output, lane, at_ns)
            elif key:
                if output.full and (lane.kind is MediaKind.VIDEO or MediaKind.VIDEO not in output.route):
                    name = self._cut(output, lane, at_ns, FULL)
                elif lane.kind in output.following:
                    name = output.route[lane.kind] = output.following.pop(lane.kind)
            if name != NOWHERE:
                names.append(name)
        return names

    def settled_parts(self, lane: Lane) -> list[str] | None:
        """Parts that all its frames go to from now on, as long as its codec stays and no part is full.

        None: a part is to begin or to end.
        """
        names = []
        for output in self._fed.get((lane.kind, lane.number), ()):
            name = output.route.get(lane.kind)
            if name is None or output.full or lane.kind in output.following:
                return None
            if output.codecs.get(lane.kind) != lane.codec.name:
                return None
            if name != NOWHERE:
                names.append(name)
        return names

    def note_full(self, names: Collection[str]) -> None:
        """These parts have reached their greatest size."""
        for output in self._stage.outputs if names else ():
            output.full |= output.latest in names

    def _first_of(self, layer: int, output_type: OutputType) -> Output:
        """The output of the first lanes: a new one, or that of an earlier spell of the session."""
        for output in self._stage.outputs:
            if (output.layer, output.output_type, output.number) == (layer, output_type, 1):
                return output
        output = Output(layer, output_type, 1)
        self._add(output)
        return output

    def _add(self, output: Output) -> None:
        self._stage.outputs.append(output)
        self._feed(output)

    def _feed(self, output: Output) -> None:
        for kind in output.output_type.media_kinds if output.only is None else (output.only,):
            self._fed.setdefault((kind, output.number), []).append(output)

    def _next_part(self, output: Output, lane: Lane, at_ns: int) -> str:
        """The lane is new to this output, or has changed its codec."""
        if output.latest is None:
            output.first_ns[lane.kind] = at_ns
            return self._cut(output, lane, at_ns, None)
        if lane.kind not in output.route:
            if lane.kind in output.first_ns:
                reason = f"{lane.kind} came back"
            else:
                late = at_ns - min(output.first_ns.values())
                other = next(kind for kind in output.first_ns if kind is not lane.kind)
                reason = f"{lane.kind} began {late // 1_000_000_000} s after {other}"
            output.first_ns.setdefault(lane.kind, at_ns)
        else:
            reason = f"the {lane.kind} codec changed from {output.codecs[lane.kind]} to {lane.codec.name}"
        return self._cut(output, lane, at_ns, reason)

    def _cut(self, output: Output, lane: Lane, at_ns: int, why: str | None) -> str:
        """Begin the next part with this lane, and with the other one if it lives."""
        other = next((other for other in self._stage.lanes if self._is_beside(output, lane, other)), None)
        if other is not None and not self._parts.is_alive(other, at_ns):
            other = None
        lanes = sorted((one for one in (lane, other) if one is not None), key=lambda one: one.kind is MediaKind.VIDEO)
        if output.latest:
            self._parts.cut_part(output.latest, at_ns)
        before = output.route
        name = self._begin(output, lanes, at_ns, why)
        output.route, output.following = {lane.kind: name}, {}
        if other is not None and other.kind is MediaKind.VIDEO:
            output.route[other.kind], output.following[other.kind] = before[other.kind], name
        elif other is not None:
            output.route[other.kind] = name
        return name

    def _is_beside(self, output: Output, lane: Lane, other: Lane) -> bool:
        return other.number == lane.number == 1 and other.kind is not lane.kind and other.kind in output.route

    def _begin(self, output: Output, lanes: Sequence[Lane], zero_ns: int, why: str | None) -> str:
        output.full = False
        output.codecs = {lane.kind: lane.codec.name for lane in lanes}
        actual = _type_of(output.output_type, [lane.kind for lane in lanes])
        if actual is not output.output_type and actual in self.wanted[output.layer]:
            output.latest = NOWHERE
            return NOWHERE
        output.parts += 1
        container = self._layers[output.layer].container
        illegal = sorted({lane.codec.name for lane in lanes} - WEBM_CODECS)
        reasons = [_why_single(output.output_type, actual, output.number), why if output.parts > 1 else None]
        if container is Container.WEBM and illegal:
            container = Container.MKV
            reasons.append(f"{' and '.join(illegal)} {'is' if len(illegal) == 1 else 'are'} not allowed in WebM")
        reason = "; ".join(text for text in reasons if text) or None
        goes_on = frozenset(
            lane.kind for lane in lanes if lane.kind in output.route
        )  # NB: the route of the part before
        draft = PartDraft(actual, tuple(lanes), zero_ns, output.parts, output.number, reason, container, goes_on)
        output.latest = self._parts.open_part(output.layer, draft)
        return output.latest


def _type_of(output: OutputType, kinds: Sequence[MediaKind]) -> OutputType:
    if set(kinds) == output.media_kinds:
        return output
    prefix = "screenshare_" if output.stream_kind is StreamKind.SCREENSHARE else ""
    return OutputType(f"{prefix}{kinds[0]}_only")


def _why_single(output: OutputType, actual: OutputType, number: int) -> str | None:
    if number > 1:
        return f"track {number} of the same source has a file of its own"
    if actual is output:
        return None
    missing = next(iter(output.media_kinds - actual.media_kinds))
    return f"{output} without {missing}: there was none"
