"""`isotrack verify`: decode every file of a recording and prove it against its manifest. One line per file, an exit code."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from typing import Any

from pydantic.alias_generators import to_camel

from isotrack_recorder.verify.judge import Verdict
from isotrack_recorder.verify.place import find_place, parse_manifest
from isotrack_recorder.verify.run import verify_files
from isotrack_recorder.verify.whole import judge_manifest, judge_others

from .changes import plain


def run(arguments: argparse.Namespace) -> int:
    """Verify the recording named by `arguments.recording`. Returns 0 when everything is as declared, else 1.

    Raises:
        ConfigError: There is no manifest, or it is none.
        OutputError, StorageError, StorageRefusedError: Something cannot be read.
    """
    place = find_place(str(arguments.recording), os.environ)
    manifest = parse_manifest(place.manifest(), str(arguments.recording))
    problems = [*judge_manifest(manifest), *judge_others(place.others({file.name for file in manifest.files}))]
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
    """The file's line as it was found, behind it what contradicts the manifest; foreign text is made fit to print."""
    name, found = plain(verdict.name, 200), plain(verdict.summary, 1024)
    if verdict.ok:
        return f"ok    {name}: {found}"
    wrong = "; ".join(plain(problem, 400) for problem in verdict.problems)
    return f"FAIL  {name}: {found}; wrong: {wrong}" if found else f"FAIL  {name}: {wrong}"
