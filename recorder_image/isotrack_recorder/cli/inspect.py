"""`isotrack inspect`: show what a finished recording consists of.

Reads `recording.json` from a folder, a file or a bucket, bounded, and prints tables or the manifest itself. rich is loaded
only for tables, object storage only for `s3://`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from isotrack_api.manifest import Manifest, ManifestFile, ManifestTrack
from isotrack_recorder.verify.place import find_place, parse_manifest

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_MAX_GAP_ROWS: Final = 50


def run(arguments: argparse.Namespace) -> int:
    """Print the recording named by `arguments.recording`; `arguments.json` = as it is.

    Raises:
        ConfigError: There is no manifest, or it is none.
        OutputError, StorageError, StorageRefusedError: It cannot be read.
    """
    place = str(arguments.recording)
    manifest = parse_manifest(find_place(place, os.environ).manifest(), place)
    if arguments.json:
        sys.stdout.write(manifest.to_json(indent=2) + "\n")
    else:
        print_tables(manifest)
    return 0


def print_tables(manifest: Manifest) -> None:
    """Print a manifest for people on stdout."""
    from rich.console import Console
    from rich.text import Text

    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 200)
    state = "complete" if manifest.complete else "incomplete"
    console.print(
        Text(
            f"{_plain(manifest.recording.namespace)}/{_plain(manifest.recording.name)}: call {_plain(manifest.call_id)}, "
            f"{manifest.started_at}, {_seconds(manifest.duration_ms)}, {manifest.stop_reason}, {state}, "
            f"{_seconds(manifest.lost_ms)} lost"
        )
    )
    if manifest.message:
        console.print(Text(_plain(manifest.message, 500)))
    if len(manifest.attempts) > 1:
        rows = ((str(a.n), a.started_at, a.ended_at, a.stop_reason) for a in manifest.attempts)
        _print(console, "attempts", ("n", "from", "to", "ended by"), rows)
    _print(console, "participants", ("who", "name", "session", "joined", "left"), _participant_rows(manifest))
    _print(
        console,
        "files",
        ("file", "holds", "from", "length", "MB", "frames", "packets lost", "silence", "drift"),
        (row for file in manifest.files for row in _file_rows(file)),
    )
    reasons = ((file.name, file.reason) for file in manifest.files if file.reason)
    _print(console, "files that differ from what was asked for", ("file", "why"), reasons)
    gaps = [(gap, file.name, track.source) for file in manifest.files for track in file.tracks for gap in track.gaps]
    title = f"gaps (the longest {_MAX_GAP_ROWS} of {len(gaps)})" if len(gaps) > _MAX_GAP_ROWS else "gaps"
    gaps = sorted(gaps, key=lambda row: -row[0].duration_ms)[:_MAX_GAP_ROWS]
    gaps.sort(key=lambda row: (row[1], row[0].start_ms))
    shown = (
        (name, str(source), _seconds(gap.start_ms), _seconds(gap.duration_ms), gap.reason) for gap, name, source in gaps
    )
    _print(console, title, ("file", "track", "at", "length", "why"), shown)
    missing = ((_plain(t.user_id), str(t.source), t.reason, _plain(t.message, 200)) for t in manifest.unrecorded)
    _print(console, "not recorded", ("who", "what", "why", "detail"), missing)


def _participant_rows(manifest: Manifest) -> Iterable[tuple[str, ...]]:
    for person in manifest.participants:
        who = _plain(person.user_id) + ("" if person.recorded else " (not recorded)")
        for peer in person.peers:
            left = "" if peer.left_ms is None else _seconds(peer.left_ms)
            yield who, _plain(person.name), _plain(peer.peer_id), _seconds(peer.joined_ms), left


def _file_rows(file: ManifestFile) -> Iterable[tuple[str, ...]]:
    for number, track in enumerate(file.tracks):
        drift = "" if track.drift_ppm is None else f"{track.drift_ppm:+.0f} ppm"
        name, size = (file.name, f"{file.bytes / 1e6:.2f}") if number == 0 else ("", "")
        lost = f"{track.packets_lost} of {track.packets + track.packets_lost}"
        length = _seconds(track.end_ms - track.start_ms)
        silence = _seconds(track.silence_ms) if track.silence_ms else ""
        yield name, _holds(track), _seconds(track.start_ms), length, size, str(track.frames), lost, silence, drift


def _holds(track: ManifestTrack) -> str:
    sizes = list(dict.fromkeys(f"{size.width}x{size.height}" for size in track.sizes))
    picture = f" {sizes[0]}" + (f" +{len(sizes) - 1} sizes" if len(sizes) > 1 else "") if sizes else ""
    return f"{track.source} {track.codec}{picture}"


def _print(console: Console, title: str, columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    """Print a table unless it is empty."""
    from rich.text import Text

    table = _table(title, columns)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    if table.row_count:
        console.print(table)


def _table(title: str, columns: tuple[str, ...]) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _seconds(ms: int) -> str:
    return f"{ms / 1000:.2f} s"


def _plain(text: str, limit: int = 60) -> str:
    """Foreign text, fit to print."""
    clean = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
    return clean if len(clean) <= limit else f"{clean[: limit - 1]}…"
