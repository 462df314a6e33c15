"""What of one track of a file contradicts the manifest. Pure.

Frames of sound are counted by their bytes: a file holds what was received, untouched, and packets of silence whose size is known.
What the sender did is no fault of the file: a picture that does not decode where the manifest says that pictures are `Damaged`, or
lost, is as declared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from isotrack_api.base import MediaKind
from isotrack_api.manifest import Gap, ManifestFile, ManifestTrack
from isotrack_recorder.finalise.gaps import LOSSES

from .seen import MAX_HOLES, Hole, SeenError, SeenStream

SOUND_MS: Final = 20.0
"""Decoded sound and Duration."""
PLACE_MS: Final = 5.0
"""First picture and manifest."""
SOUND_PLACE_MS: Final = 25.0
"""First sound and manifest: it is written to the next free place, at most a packet away."""
END_MS: Final = 105.0
"""Last picture and its end in the manifest: how long it stood is a guess. Sound may lie a correction away from its place."""
UNDECLARED_MS: Final = 200.0
"""Of a gap may lie outside of what is declared: the picture before it stands for a while."""
SILENCE_MS: Final = 50.0
"""Put in and not declared: each gap is rounded to whole milliseconds."""
_LEAST_SILENT: Final = 0.1
"""Of a declared gap: short ones with less than 100 ms between them are told as one, comfort noise with them (and by earlier versions any sound)."""
_OPUS_SILENCE_BYTES: Final = 3


def track_problems(file: ManifestFile, track: ManifestTrack, stream: SeenStream) -> Iterator[str]:
    """What of the track is not as the manifest says."""
    present = present_frames(track, stream)
    if present != track.frames:
        yield f"{present} frames are there, the manifest says {track.frames}"
    if stream.packets and not stream.decoded:
        yield "nothing of it decodes"
    yield from _errors(file, track, stream)
    if track.kind is MediaKind.VIDEO:
        yield from _pictures(file, track, stream)
    else:
        yield from _sound(file, track, stream)


def present_frames(track: ManifestTrack, stream: SeenStream) -> int:
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
    end = track.end_ms - file.start_offset_ms
    if stream.packets and not -PLACE_MS <= end - stream.last_ms <= END_MS:
        yield f"its last picture lies at {stream.last_ms:.0f} ms of the file, the manifest says that it ends at {end} ms"
    for hole in undeclared(file, track, stream):
        open_ms = _uncovered(hole, track.gaps, file.start_offset_ms)
        yield f"undeclared gap: {open_ms / 1000:.2f} s at {hole.start_ms / 1000:.2f} s of the file"


def _sound(file: ManifestFile, track: ManifestTrack, stream: SeenStream) -> Iterator[str]:
    for hole in undeclared(file, track, stream):
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
    if track.end_ms - file.start_offset_ms > file.duration_ms + END_MS:
        yield f"the manifest says that it ends at {track.end_ms - file.start_offset_ms} ms of a file of {file.duration_ms} ms"
    for gap in _not_silent(file, track, stream):
        at = (gap.start_ms - file.start_offset_ms) / 1000
        yield f"there is sound at {at:.2f} s of the file, where the manifest says that {gap.counted_ms} ms are missing"


def _not_silent(file: ManifestFile, track: ManifestTrack, stream: SeenStream) -> Iterator[Gap]:
    """Declared gaps in which there is hardly any silence."""
    known_ms = stream.silent[-1].end_ms if len(stream.silent) == MAX_HOLES else float(file.duration_ms)
    silent = iter(stream.silent)
    stretch = next(silent, None)
    for gap in track.gaps:
        begin, inside = gap.start_ms - file.start_offset_ms, _inside(file, gap)
        end = begin + gap.duration_ms
        while stretch is not None and stretch.end_ms <= begin:
            stretch = next(silent, None)
        found = 0.0
        while stretch is not None and stretch.start_ms < end:
            found += min(stretch.end_ms, end) - max(stretch.start_ms, begin)
            if stretch.end_ms > end:
                break
            stretch = next(silent, None)
        least = max(SOUND_MS, _LEAST_SILENT * inside * gap.counted_ms / gap.duration_ms)
        if inside >= 2 * SILENCE_MS and end <= known_ms and found < least:
            yield gap


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


def undeclared(file: ManifestFile, track: ManifestTrack, stream: SeenStream) -> tuple[Hole, ...]:
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
