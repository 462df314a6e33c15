"""Hold what was found in a file against what the manifest says of it. Pure.

    whole      the file, and what the manifest says of itself
    tracks     one track

What must agree exactly, does: numbers of frames, sizes, digests, where pictures begin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from isotrack_api.base import MediaKind
from isotrack_api.manifest import ManifestFile, ManifestTrack
from isotrack_recorder.checksums import FileDigest
from isotrack_recorder.finalise.manifest import lost_ms
from isotrack_recorder.finalise.summary import FileFigures, TrackFigures, recorded, tell

from .seen import Seen, SeenStream
from .tracks import PLACE_MS, SOUND_MS, SOUND_PLACE_MS, present_frames, track_problems, undeclared
from .whole import DURATION_MS, file_problems

MAX_PROBLEMS: Final = 20


@dataclass(frozen=True, slots=True)
class TrackVerdict:
    """One track."""

    codec: str
    expected: int
    """Frames, as the manifest says."""
    present: int
    gaps_declared: int
    start_ms: float
    """First frame, from the file's zero, as found."""
    declared_start_ms: float
    gaps_seen: int
    """Pictures: pauses of 2 s and more. Sound: silence of 100 ms and more."""
    drift_ppm: float | None
    """As the manifest says: a file does not tell."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One file."""

    name: str
    problems: tuple[str, ...]
    summary: str = ""
    """The manifest's line about the file, said of what was found in it; empty where it could not be looked at."""
    tracks: tuple[TrackVerdict, ...] = ()
    bytes: int = 0
    duration_ms: int = 0
    decoded_ms: float | None = None
    """Decoded sound; None without sound."""
    lost_ms: int = 0
    av_offset_ms: float | None = None
    """What the manifest says, and how far the tracks lie from where they should be; None where it says nothing."""
    declared_av_offset_ms: float | None = None

    @property
    def ok(self) -> bool:
        """Nothing contradicts the manifest."""
        return not self.problems


def judge_missing(file: ManifestFile, why: str) -> Verdict:
    """A file that could not be looked at."""
    return Verdict(file.name, (why,), bytes=file.bytes, duration_ms=file.duration_ms)


def judge(file: ManifestFile, size: int, digest: FileDigest, seen: Seen) -> Verdict:
    """Judge one file; `size` and `digest` are those of the bytes that `seen` was found in."""
    pairs = list(zip(file.tracks, seen.streams))
    problems = [*file_problems(file, size, digest, seen)]
    for track, stream in pairs:
        problems += (f"{track.source}: {text}" for text in track_problems(file, track, stream))
    sound = next(((t, s) for t, s in pairs if s.kind is MediaKind.AUDIO), None)
    if sound is not None and abs(sound[1].decoded_ms - sound[0].overlap_ms - seen.duration_ms) > SOUND_MS:
        overlap = f" and {sound[0].overlap_ms} ms overlap" if sound[0].overlap_ms else ""
        problems.append(
            f"{sound[1].decoded_ms:.0f} ms of sound decode, the file's duration is {seen.duration_ms:.0f} ms{overlap}"
        )
    figures = _figures(file, seen)
    more = [f"and {len(problems) - MAX_PROBLEMS} more"] if len(problems) > MAX_PROBLEMS else []
    return Verdict(
        name=file.name,
        problems=tuple(problems[:MAX_PROBLEMS] + more),
        summary=tell(figures) if seen.streams else "",
        tracks=tuple(_numbers(*row) for row in zip(file.tracks, seen.streams, recorded(file).tracks, figures.tracks)),
        bytes=size,
        duration_ms=file.duration_ms,
        decoded_ms=sound[1].decoded_ms if sound else None,
        lost_ms=lost_ms([file]),
        av_offset_ms=figures.av_offset_ms,
        declared_av_offset_ms=file.av_offset_ms,
    )


def _figures(file: ManifestFile, seen: Seen) -> FileFigures:
    """What was found, as the manifest tells it: within what the two may differ by, the manifest's figure stands.

    What no decoder can find (packets, drift, why something is missing) is the manifest's.
    """
    declared = recorded(file)
    rows = zip(declared.tracks, file.tracks, seen.streams)
    tracks = tuple(_track_figures(file, figures, track, stream) for figures, track, stream in rows)
    late = {kind: _late(kind, declared.tracks, tracks) for kind in MediaKind}
    offset = declared.av_offset_ms
    return replace(
        declared,
        tracks=tracks,
        av_offset_ms=None if offset is None else offset + late[MediaKind.VIDEO] - late[MediaKind.AUDIO],
        duration_ms=_found(seen.duration_ms, file.duration_ms, DURATION_MS),
    )


def _late(kind: MediaKind, declared: Sequence[TrackFigures], found: Sequence[TrackFigures]) -> float:
    """How much later than declared the first track of a kind begins."""
    return next((are.start_ms - said.start_ms for said, are in zip(declared, found) if said.kind is kind), 0.0)


def _track_figures(file: ManifestFile, figures: TrackFigures, track: ManifestTrack, stream: SeenStream) -> TrackFigures:
    start = float(track.start_ms - file.start_offset_ms)
    if track.kind is MediaKind.VIDEO:
        start = _found(stream.first_ms, start, PLACE_MS) if stream.packets else start
    elif stream.first_sound_ms is not None and stream.first_sound_ms < start - SOUND_PLACE_MS:
        start = stream.first_sound_ms  # NB: a later one is found, too, where a client began with digital silence
    return replace(
        figures,
        kind=stream.kind,
        codec=stream.codec,
        frames=present_frames(track, stream),
        gaps=figures.gaps + len(undeclared(file, track, stream)),
        start_ms=start,
    )


def _found(found: float, declared: float, tolerance: float) -> float:
    return declared if abs(found - declared) <= tolerance else found


def _numbers(track: ManifestTrack, stream: SeenStream, declared: TrackFigures, found: TrackFigures) -> TrackVerdict:
    seen = len(stream.holes) if track.kind is MediaKind.VIDEO else stream.silences
    present = present_frames(track, stream)
    return TrackVerdict(
        codec=track.codec,
        expected=track.frames,
        present=present,
        start_ms=found.start_ms,
        declared_start_ms=declared.start_ms,
        gaps_declared=len(track.gaps),
        gaps_seen=seen,
        drift_ppm=track.drift_ppm,
    )
