"""Hold what was found in a file against what the manifest says of it. Pure.

What must agree exactly, does: numbers of frames, sizes, digests, where pictures begin. Frames of sound are counted by their bytes:
a file holds what was received, untouched, and packets of silence whose size is known. What the sender did is no fault of
the file: a picture that does not decode where the manifest says that pictures are `Damaged`, or lost, is as declared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from isotrack_api.base import MediaKind
from isotrack_api.manifest import Gap, Manifest, ManifestFile, ManifestTrack
from isotrack_recorder.checksums import FileDigest
from isotrack_recorder.finalise.gaps import LOSSES
from isotrack_recorder.finalise.manifest import lost_ms
from isotrack_recorder.finalise.summary import FileFigures, TrackFigures, contradictions, recorded, tell

from .seen import Hole, Seen, SeenError, SeenStream

START_MS: Final = 0.5
DURATION_MS: Final = 1.5
"""Container and manifest: both are whole milliseconds."""
SOUND_MS: Final = 20.0
"""Decoded sound and Duration."""
PLACE_MS: Final = 5.0
"""First picture and manifest."""
SOUND_PLACE_MS: Final = 25.0
"""First sound and manifest: it is written to the next free place, at most a packet away."""
UNDECLARED_MS: Final = 200.0
"""Of a gap may lie outside of what is declared: the picture before it stands for a while."""
SILENCE_MS: Final = 50.0
"""Put in and not declared: each gap is rounded to whole milliseconds."""
MAX_PROBLEMS: Final = 20
_OPUS_SILENCE_BYTES: Final = 3


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


def judge_manifest(manifest: Manifest) -> tuple[str, ...]:
    """What the manifest contradicts itself in."""
    lost = lost_ms(manifest.files)
    problems = []
    if lost != manifest.lost_ms:
        problems.append(f"the manifest says {manifest.lost_ms} ms lost, its gaps come to {lost} ms")
    if len({file.name for file in manifest.files}) != len(manifest.files):
        problems.append("two files of the manifest share a name")
    return tuple(problems)


def judge(file: ManifestFile, size: int, digest: FileDigest, seen: Seen) -> Verdict:
    """Judge one file; `size` and `digest` are those of the bytes that `seen` was found in."""
    pairs = list(zip(file.tracks, seen.streams))
    problems = [*_whole(file, size, digest, seen)]
    for track, stream in pairs:
        problems += (f"{track.source}: {text}" for text in _track(file, track, stream))
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
        frames=_present(track, stream),
        gaps=figures.gaps + len(_undeclared(file, track, stream)),
        start_ms=start,
    )


def _found(found: float, declared: float, tolerance: float) -> float:
    return declared if abs(found - declared) <= tolerance else found


def _wrong_sums(file: ManifestFile, found: FileDigest) -> list[str]:
    """Names of the checksums that the manifest states and the bytes do not have."""
    stated = (
        ("sha256", file.sha256, found.sha256),
        ("partsSha256", file.parts_sha256, found.parts_sha256),
        ("crc32", file.crc32, f"{found.crc32:08x}"),
    )
    return [name for name, wanted, is_ in stated if wanted is not None and wanted != is_]


def _whole(file: ManifestFile, size: int, digest: FileDigest, seen: Seen) -> Iterator[str]:
    """What concerns the file and no track."""
    for said, true in contradictions(file.summary, file):
        yield f"the summary in the manifest says {said}, its tracks say {true or 'nothing of it'}"
    if size != file.bytes:
        yield f"the file has {size} bytes, the manifest says {file.bytes}"
    elif wrong := _wrong_sums(file, digest):
        yield f"{' and '.join(wrong)} {'differs' if len(wrong) == 1 else 'differ'} from the manifest: the file was changed"
    if seen.problem:
        yield seen.problem
        return
    if abs(seen.start_ms) > START_MS:
        yield f"the file starts at {seen.start_ms:.1f} ms instead of 0"
    if abs(seen.duration_ms - file.duration_ms) > DURATION_MS:
        yield f"the file's duration is {seen.duration_ms:.0f} ms, the manifest says {file.duration_ms} ms"
    wanted, found = ([(t.kind, t.codec) for t in file.tracks], [(s.kind, s.codec) for s in seen.streams])
    if wanted != found:
        yield f"the file holds {_kinds(found)}, the manifest says {_kinds(wanted)}"


def _kinds(tracks: Sequence[tuple[MediaKind, str]]) -> str:
    return " + ".join(codec for _, codec in tracks) or "nothing"


def _track(file: ManifestFile, track: ManifestTrack, stream: SeenStream) -> Iterator[str]:
    present = _present(track, stream)
    if present != track.frames:
        yield f"{present} frames are there, the manifest says {track.frames}"
    if stream.packets and not stream.decoded:
        yield "nothing of it decodes"
    yield from _errors(file, track, stream)
    if track.kind is MediaKind.VIDEO:
        yield from _pictures(file, track, stream)
    else:
        yield from _sound(file, track, stream)


def _present(track: ManifestTrack, stream: SeenStream) -> int:
    """Received frames in the file: all packets, but for silence that was put in."""
    filler = stream.bytes - track.media_bytes
    if track.kind is MediaKind.VIDEO or track.codec != "opus":
        return stream.packets if track.kind is MediaKind.VIDEO else track.frames
    return stream.packets - filler // _OPUS_SILENCE_BYTES if filler % _OPUS_SILENCE_BYTES == 0 else stream.packets


def _pictures(file: ManifestFile, track: ManifestTrack, stream: SeenStream) -> Iterator[str]:
    if stream.packets and not stream.first_key:
        yield "does not begin with a key frame"
    declared = track.start_ms - file.start_offset_ms
    if stream.packets and abs(stream.first_ms - declared) > PLACE_MS:
        yield f"begins at {stream.first_ms:.0f} ms of the file, the manifest says {declared} ms"
    for hole in _undeclared(file, track, stream):
        open_ms = _uncovered(hole, track.gaps, file.start_offset_ms)
        yield f"undeclared gap: {open_ms / 1000:.2f} s at {hole.start_ms / 1000:.2f} s of the file"


def _sound(file: ManifestFile, track: ManifestTrack, stream: SeenStream) -> Iterator[str]:
    for hole in _undeclared(file, track, stream):
        yield f"undeclared gap: nothing for {hole.end_ms - hole.start_ms:.0f} ms at {hole.start_ms / 1000:.2f} s of the file"
    if track.codec != "opus" and stream.bytes < track.media_bytes:
        yield f"{stream.bytes} bytes are there, the manifest says {track.media_bytes}"
    if stream.silence_ms < track.silence_ms - SOUND_MS:
        yield f"{stream.silence_ms:.0f} ms of silence are there, the manifest says {track.silence_ms} ms"
    declared = sum(_inside(file, gap) for gap in track.gaps)
    if track.silence_ms - declared > max(SILENCE_MS, 0.02 * track.silence_ms):
        yield f"undeclared gap: {track.silence_ms} ms of silence were put in, gaps of {declared} ms are declared"
    start = track.start_ms - file.start_offset_ms
    if stream.first_sound_ms is not None and stream.first_sound_ms < start - SOUND_PLACE_MS:
        yield f"begins at {stream.first_sound_ms:.0f} ms of the file, the manifest says {start} ms"


def _inside(file: ManifestFile, gap: Gap) -> int:
    """How much of a gap lies in the file: a mute may have begun before it."""
    begins, ends = file.start_offset_ms, file.start_offset_ms + file.duration_ms
    return max(0, min(gap.start_ms + gap.duration_ms, ends) - max(gap.start_ms, begins))


def _errors(file: ManifestFile, track: ManifestTrack, stream: SeenStream) -> Iterator[str]:
    open_errors = [error for error in stream.errors if not _excused(error, track, file.start_offset_ms)]
    for error in open_errors[:3]:
        yield f"does not decode at {error.at_ms / 1000:.2f} s of the file: {error.text}"
    if len(open_errors) > 3:
        yield f"does not decode at {len(open_errors) - 3} more places"


def _excused(error: SeenError, track: ManifestTrack, offset_ms: int) -> bool:
    """Whether it lies where pictures are declared damaged or lost."""
    return track.kind is MediaKind.VIDEO and any(
        gap.start_ms - offset_ms <= error.at_ms + UNDECLARED_MS
        and gap.start_ms + gap.duration_ms - offset_ms >= error.at_ms - UNDECLARED_MS
        for gap in track.gaps
        if gap.reason in LOSSES
    )


def _undeclared(file: ManifestFile, track: ManifestTrack, stream: SeenStream) -> tuple[Hole, ...]:
    """Holes that no declared gap explains: in sound any, for declared ones are filled with silence."""
    if track.kind is not MediaKind.VIDEO:
        return stream.holes
    offset_ms = file.start_offset_ms
    return tuple(hole for hole in stream.holes if _uncovered(hole, track.gaps, offset_ms) > UNDECLARED_MS)


def _uncovered(hole: Hole, gaps: Sequence[Gap], offset_ms: int) -> float:
    """How much of a hole no declared gap covers. Gaps come in order and do not overlap."""
    covered, reached = 0.0, hole.start_ms
    for gap in gaps:
        start, end = gap.start_ms - offset_ms, gap.start_ms + gap.duration_ms - offset_ms
        low, high = max(float(start), reached), min(float(end), hole.end_ms)
        if high > low:
            covered, reached = covered + high - low, high
    return hole.end_ms - hole.start_ms - covered


def _numbers(track: ManifestTrack, stream: SeenStream, declared: TrackFigures, found: TrackFigures) -> TrackVerdict:
    seen = len(stream.holes) if track.kind is MediaKind.VIDEO else stream.silences
    present = _present(track, stream)
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
