"""What is known after a trial: what was sent, what was done to the recording, and what lies in the bucket. Plain values.

Instants are Unix seconds of this machine, on which publishers and recorders run; `…_ms` are milliseconds of the call's timeline.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from isotrack_api.base import MediaKind, TrackSource
from isotrack_api.manifest import Gap, Manifest, ManifestFile
from isotrack_recorder.matroska.reader import blocks, read_file

from .serials import DECLARED_SILENCE, Stamp, read


class Source(NamedTuple):
    """One source of one person."""

    user_id: str
    kind: MediaKind

    @property
    def name(self) -> TrackSource:
        return TrackSource.MICROPHONE if self.kind is MediaKind.AUDIO else TrackSource.CAMERA


@dataclass(slots=True)
class Published:
    """What one source sent."""

    stamp: int
    """Its number in the payloads."""
    per_second: int
    sent: dict[int, float] = field(default_factory=dict)
    """Serial → instant."""


class Placed(NamedTuple):
    """One recorded payload."""

    serial: int
    at_ms: float


@dataclass(frozen=True, slots=True)
class Recorded:
    """One track of one file in the bucket."""

    file: str
    attempt: int
    source: Source
    placed: tuple[Placed, ...]
    """In file order."""
    gaps: tuple[Gap, ...] = ()
    strange: int = 0
    """Payloads that nobody sent, and that are no declared silence."""
    mixed: tuple[int, ...] = ()
    """Source numbers of payloads that belong to another track."""


@dataclass(frozen=True, slots=True)
class Kill:
    """A process that was killed (SIGKILL)."""

    victim: str
    """A name of `pods.VICTIMS`, or `pod` (recorder and agent, and the spool is gone); `handed over` is no kill, but may cost something, too."""
    at: float
    hit: bool
    """It was running, and the kill is what ended it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that a trial left behind."""

    published: Mapping[Source, Published]
    obliged: tuple[float, float]
    """From when until when whatever is sent has to be recorded, or declared."""
    kills: tuple[Kill, ...] = ()
    faults: Mapping[str, int] = field(default_factory=dict)
    """Faults of other kinds → how often each was seen to happen."""
    keys: tuple[str, ...] = ()
    """All keys of the recording, relative to its folder."""
    objects: Mapping[str, bytes] = field(default_factory=dict)
    """Their contents."""
    uploads: tuple[str, ...] = ()
    """Keys of multipart uploads that nobody completed."""
    outputs: Mapping[str, bytes] = field(default_factory=dict)
    """Logs and termination messages by name."""
    termination: Mapping[str, object] | None = None
    """Last words of the attempt that ended the recording; None when none of them did."""
    reports: tuple[Mapping[str, Any], ...] = ()
    """What the API server was told, in order; nothing where there was none."""
    secrets: Mapping[str, str] = field(default_factory=dict)
    """What must not be in any output, by what it is."""
    manifest: Manifest | None = None
    """`recording.json`; None when there is none, or none that can be read."""
    attempts: Mapping[int, Manifest] = field(default_factory=dict)
    """The attempts' manifests."""
    recovered: tuple[ManifestFile, ...] = ()
    """Files that were made of checkpoints (`attempts/recovered.json`)."""
    recorded: tuple[Recorded, ...] = ()
    unreadable: tuple[str, ...] = ()
    """Files that are no Matroska."""
    copied: bool = False
    """What was recorded is a copy of what others judge, too: nothing of it counts but what was done to the copy."""

    @property
    def zero(self) -> float:
        """Instant of the call's zero."""
        assert self.manifest is not None
        return datetime.fromisoformat(self.manifest.started_at).timestamp()


def tracks_of(file: ManifestFile, content: bytes, stamps: Mapping[int, Source]) -> list[Recorded]:
    """Take a file apart.

    Raises:
        ParseError: It is no Matroska file.
    """
    film = read_file(content)
    found: list[Recorded] = []
    all_blocks = list(blocks(content, film))
    for info, track in zip(film.tracks, file.tracks, strict=True):
        source = Source(file.user_id, track.kind)
        placed: list[Placed] = []
        strange, mixed = 0, set()
        for block in (block for block in all_blocks if block.track == info.number):
            stamp = read(block.data)
            if stamp is None:
                strange += block.data not in DECLARED_SILENCE
            elif stamps.get(stamp.source) != source:
                mixed.add(stamp.source)
            else:
                placed.append(Placed(stamp.serial, file.start_offset_ms + block.time_ms))
        found.append(
            Recorded(file.name, file.attempt, source, tuple(placed), track.gaps, strange, tuple(sorted(mixed)))
        )
    return found


__all__ = ["Evidence", "Kill", "Placed", "Published", "Recorded", "Source", "Stamp", "tracks_of"]
