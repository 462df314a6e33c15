"""What the demo shows at its end: the files, and where they lie on the call's timeline. Pure: a manifest in, lines out."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from isotrack_api.base import MediaKind, OutputType
from isotrack_api.manifest import Gap, Manifest, ManifestFile

WIDTH = 60
"""Columns of the timeline."""
NAMES = {
    OutputType.AUDIO_VIDEO: "microphone + camera",
    OutputType.AUDIO_ONLY: "microphone",
    OutputType.VIDEO_ONLY: "camera",
    OutputType.SCREENSHARE_AUDIO_VIDEO: "shared screen + its sound",
    OutputType.SCREENSHARE_AUDIO_ONLY: "the screen's sound",
    OutputType.SCREENSHARE_VIDEO_ONLY: "shared screen",
}


def timeline(manifest: Manifest, width: int = WIDTH) -> Iterator[str]:
    """Draw one bar per file, `━` where it holds media and `┄` where its sound is declared silence, over seconds."""
    whole = max([manifest.duration_ms, *(file.start_offset_ms + file.duration_ms for file in manifest.files), 1])
    label = max([len(_label(file)) for file in manifest.files] or [0])
    for file in sorted(manifest.files, key=lambda file: (file.user_id, file.start_offset_ms)):
        bar = [" "] * width
        _fill(bar, file.start_offset_ms, file.duration_ms, whole, "━")
        for gap in _silent(file):
            _fill(bar, gap.start_ms, gap.duration_ms, whole, "┄")
        end = (file.start_offset_ms + file.duration_ms) / 1000
        yield f"{_label(file):{label}} ▕{''.join(bar)}▏ {file.start_offset_ms / 1000:.1f} to {end:.1f} s"
    yield f"{'':{label}}  {ruler(whole / 1000, width)}"


def ruler(seconds: float, width: int = WIDTH) -> str:
    """A scale below the bars, with a number about every ten columns."""
    steps = (nice * 10**power for power in itertools.count() for nice in (1, 2, 5))
    step = next(step for step in steps if seconds / step * 10 <= width)
    line = [" "] * (width + 8)
    at = 0
    while at <= seconds:
        text = f"{at} s"
        column = round(at / seconds * width)
        line[column : column + len(text)] = text
        at += step
    return "".join(line).rstrip()


def file_facts(file: ManifestFile, probed: Mapping[str, Any]) -> str:
    """One line about a file, as ffprobe sees it."""
    streams = []
    for stream in probed.get("streams", []):
        size = f" {stream['width']}x{stream['height']}" if stream.get("width") else ""
        streams.append(f"{stream['codec_name']}{size}")
    seconds = float(probed.get("format", {}).get("duration", 0))
    return f"{' + '.join(streams)}, {seconds:.1f} s, {file.bytes / 1000:.0f} kB"


def missing(manifest: Manifest) -> str:
    """What is not there, in one sentence."""
    muted = sum(gap.duration_ms for file in manifest.files for gap in _silent(file))
    lost = f"{manifest.lost_ms / 1000:.1f} s of media lost" if manifest.lost_ms else "nothing lost"
    return f"{lost}, {muted / 1000:.1f} s of declared silence"


def _label(file: ManifestFile) -> str:
    return f"{file.user_id}: {NAMES[file.output_type]}"


def _silent(file: ManifestFile) -> list[Gap]:
    return [gap for track in file.tracks if track.kind is MediaKind.AUDIO for gap in track.gaps]


def _fill(bar: list[str], start_ms: int, duration_ms: int, whole_ms: int, mark: str) -> None:
    first = min(len(bar) - 1, round(start_ms / whole_ms * len(bar)))
    last = min(len(bar), max(first + 1, round((start_ms + duration_ms) / whole_ms * len(bar))))
    bar[first:last] = mark * (last - first)
