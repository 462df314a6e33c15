"""One line about a file: how much of what was sent is in it, and when (pure).

The file's entry in the manifest carries it as it was recorded. `isotrack verify` says the same line of what it found in the file,
so whoever reads both compares words, and a file that nobody touched has the same line twice. Versions may differ in how they say
it: what contradicts a line are facts, never words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from isotrack_api.base import MediaKind
from isotrack_api.manifest import ManifestFile

from .gaps import LOSSES

_NAMES: Final = {MediaKind.AUDIO: "sound", MediaKind.VIDEO: "pictures"}

_FACTS: Final = tuple(
    map(
        re.compile,
        (
            r"\w+ \d+ frames",
            r"\d+ gaps?\b",
            r"\d+\.\d+ s lost",
            r"A/V offset [+-]\d+ ms",
            r"\w+ from \d+\.\d+ s on",
            r"A/V [+-]\d+ ms",  # of the first versions: the difference of the first frames
            r"\d+\.\d+ s(?=,|$)",
        ),
    )
)
"""What a line tells, found in its words."""
_SHARE: Final = re.compile(r"(\d{1,3})\.(\d) % of packets")
_DRIFT: Final = re.compile(r"[+-]\d+ ppm")


@dataclass(frozen=True, slots=True)
class TrackFigures:
    """What the line says of one track."""

    kind: MediaKind
    codec: str
    frames: int
    packets: int
    """That came."""
    packets_lost: int
    gaps: int
    start_ms: float
    """First frame, from the file's zero."""
    drift_ppm: float | None


@dataclass(frozen=True, slots=True)
class FileFigures:
    """What the line says."""

    tracks: tuple[TrackFigures, ...]
    lost_ms: int
    av_offset_ms: float | None
    duration_ms: float


def recorded(file: ManifestFile) -> FileFigures:
    """The figures of a file as its entry in the manifest has them."""
    return FileFigures(
        tracks=tuple(
            TrackFigures(
                kind=track.kind,
                codec=track.codec,
                frames=track.frames,
                packets=track.packets,
                packets_lost=track.packets_lost,
                gaps=len(track.gaps),
                start_ms=track.start_ms - file.start_offset_ms,
                drift_ppm=track.drift_ppm,
            )
            for track in file.tracks
        ),
        lost_ms=sum(gap.counted_ms for track in file.tracks for gap in track.gaps if gap.reason in LOSSES),
        av_offset_ms=file.av_offset_ms,
        duration_ms=file.duration_ms,
    )


def tell(figures: FileFigures) -> str:
    """Say per track frames, share of packets received and gaps; then seconds lost, drift, A/V offset, late starts and duration."""
    return ", ".join(_facts(figures))


def summarise(file: ManifestFile) -> str:
    """The line of a file as it was recorded."""
    return tell(recorded(file))


def _facts(figures: FileFigures) -> Iterator[str]:
    yield from (_track(track) for track in figures.tracks)
    yield f"{figures.lost_ms / 1000:.2f} s lost"
    drifts = {track.kind: track.drift_ppm for track in reversed(figures.tracks) if track.drift_ppm is not None}
    several = len({track.kind for track in figures.tracks}) > 1
    if drifts:
        of = {kind: f" ({_NAMES[kind]})" if several else "" for kind in drifts}
        yield "drift " + " and ".join(f"{drifts[kind]:+.0f} ppm{of[kind]}" for kind in MediaKind if kind in drifts)
    if figures.av_offset_ms is not None:
        yield f"A/V offset {round(figures.av_offset_ms):+d} ms"
    for track in figures.tracks:
        if track.start_ms >= 1:
            yield f"{_NAMES[track.kind]} from {track.start_ms / 1000:.3f} s on"
    yield f"{figures.duration_ms / 1000:.2f} s"


def _track(track: TrackFigures) -> str:
    # NB: rounded down, for 100.0 % must mean that nothing was lost.
    sent = track.packets + track.packets_lost
    share = f" ({track.packets * 1000 // sent / 10:.1f} % of packets)" if track.packets else ""
    gaps = f"{track.gaps} gap" + "s" * (track.gaps != 1)
    return f"{track.codec} {track.frames} frames{share}, {gaps}"


def contradictions(line: str, file: ManifestFile) -> Iterator[tuple[str, str]]:
    """What a line about a file says that the file's entry does not: what it says, and what it ought to.

    A fact that is not in the line, or not in our words, contradicts nothing.
    """
    figures = recorded(file)
    ours = ", ".join((*_facts(figures), *_formerly(figures)))
    for fact in _FACTS:
        said, true = fact.findall(line), fact.findall(ours)
        if said and said != true:
            yield " and ".join(said), " and ".join(true)
    shares, true_shares = _shares(line), _shares(ours)
    # NB: the first versions rounded to the nearest tenth.
    if shares and (len(shares) != len(true_shares) or any(abs(a - b) > 1 for a, b in zip(shares, true_shares))):
        yield _in_percent(shares), _in_percent(true_shares)
    drifts, true_drifts = _DRIFT.findall(line), _DRIFT.findall(ours)
    if not set(drifts) <= set(true_drifts):  # the first versions told one of two
        yield " and ".join(drifts), " and ".join(true_drifts)


def _formerly(figures: FileFigures) -> Iterator[str]:
    """What the first versions told in other words."""
    starts = {track.kind: track.start_ms for track in reversed(figures.tracks)}
    if len(starts) == len(MediaKind):
        yield f"A/V {starts[MediaKind.VIDEO] - starts[MediaKind.AUDIO]:+.0f} ms"


def _shares(line: str) -> list[int]:
    """Shares of packets, in tenths of a percent."""
    return [int(whole) * 10 + int(tenth) for whole, tenth in _SHARE.findall(line)]


def _in_percent(shares: list[int]) -> str:
    return " and ".join(f"{share / 10:.1f} %" for share in shares)
