"""One line about a file, from its entry in the manifest: how much of what was sent is in it, and when (pure).

The entry carries it, and `isotrack verify` holds it against the entry and then the entry against the file.
"""

from __future__ import annotations

from collections.abc import Iterator

from isotrack_api.base import MediaKind
from isotrack_api.manifest import ManifestFile, ManifestTrack

from .gaps import LOSSES


def summarise(file: ManifestFile) -> str:
    """Say per track frames, share of packets received and gaps; then seconds lost, drift, A/V offset and duration."""
    return ", ".join(_facts(file))


def _facts(file: ManifestFile) -> Iterator[str]:
    yield from (_track(track) for track in file.tracks)
    lost = sum(gap.duration_ms for track in file.tracks for gap in track.gaps if gap.reason in LOSSES)
    yield f"{lost / 1000:.2f} s lost"
    drift = next((track.drift_ppm for track in file.tracks if track.drift_ppm is not None), None)
    if drift is not None:
        yield f"drift {drift:+.0f} ppm"
    starts = {track.kind: track.start_ms for track in reversed(file.tracks)}
    if len(starts) == len(MediaKind):
        yield f"A/V {starts[MediaKind.VIDEO] - starts[MediaKind.AUDIO]:+d} ms"
    yield f"{file.duration_ms / 1000:.2f} s"


def _track(track: ManifestTrack) -> str:
    sent = track.packets + track.packets_lost
    share = f" ({100.0 * track.packets / sent:.1f} % of packets)" if track.packets else ""
    gaps = f"{len(track.gaps)} gap" + "s" * (len(track.gaps) != 1)
    return f"{track.codec} {track.frames} frames{share}, {gaps}"
