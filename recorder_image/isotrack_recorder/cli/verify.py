"""`isotrack verify`: decode every file of a recording and prove it against its manifest. One line per file, an exit code."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from pydantic.alias_generators import to_camel

from isotrack_recorder.verify.judge import TrackVerdict, Verdict, judge_manifest
from isotrack_recorder.verify.place import find_place, parse_manifest
from isotrack_recorder.verify.run import verify_files

from .changes import plain


def run(arguments: argparse.Namespace) -> int:
    """Verify the recording named by `arguments.recording`. Returns 0 when everything is as declared, else 1.

    Raises:
        ConfigError: There is no manifest, or it is none.
        OutputError, StorageError, StorageRefusedError: Something cannot be read.
    """
    place = find_place(str(arguments.recording), os.environ)
    manifest = parse_manifest(place.manifest(), str(arguments.recording))
    problems = judge_manifest(manifest)
    verdicts = []
    for verdict in verify_files(place, manifest):
        verdicts.append(verdict)
        if not arguments.json:
            sys.stdout.write(describe(verdict) + "\n")
            sys.stdout.flush()
    failed = sum(not verdict.ok for verdict in verdicts)
    ok = not failed and not problems
    if arguments.json:
        files = [{"ok": verdict.ok, **_camel(asdict(verdict))} for verdict in verdicts]
        sys.stdout.write(json.dumps({"ok": ok, "problems": problems, "files": files}, indent=2) + "\n")
    else:
        for problem in problems:
            sys.stdout.write(f"FAIL  {problem}\n")
        proven = f"{len(verdicts) - failed} of {len(verdicts)} files are what the manifest says"
        sys.stdout.write(f"{proven}; {manifest.lost_ms / 1000:.2f} s lost in all\n")
    return 0 if ok else 1


def _camel(values: dict[str, Any]) -> dict[str, Any]:
    """Names as recording.json has them, in nested rows, too."""
    return {
        to_camel(name): [_camel(row) if isinstance(row, dict) else row for row in value]
        if isinstance(value, list | tuple)
        else value
        for name, value in values.items()
    }


def describe(verdict: Verdict) -> str:
    """One line; foreign text is made fit to print."""
    name = plain(verdict.name, 200)
    facts = ", ".join(_facts(verdict))
    if verdict.ok:
        return f"ok    {name}: {facts}"
    return f"FAIL  {name}: {'; '.join(plain(problem, 400) for problem in verdict.problems)}" + (
        f" ({facts})" if facts else ""
    )


def _facts(verdict: Verdict) -> Iterator[str]:
    if not verdict.tracks:
        return
    yield from (_track(track) for track in verdict.tracks)
    yield f"{verdict.lost_ms / 1000:.2f} s lost"
    if verdict.drift_ppm is not None:
        yield f"drift {verdict.drift_ppm:+.0f} ppm"
    if verdict.offset_ms is not None:
        yield f"A/V {verdict.offset_ms:+.0f} ms (declared {verdict.declared_offset_ms or 0:+d})"
    decoded = "" if verdict.decoded_ms is None else f", {verdict.decoded_ms / 1000:.2f} s of sound"
    yield f"{verdict.duration_ms / 1000:.2f} s{decoded}"


def _track(track: TrackVerdict) -> str:
    gaps = f"gaps {track.gaps_seen} seen, {track.gaps_declared} declared"
    return f"{plain(track.codec)} {track.present} of {track.expected} frames ({track.percent:.1f} %), {gaps}"
