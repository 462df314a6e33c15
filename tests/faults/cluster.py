"""The second part of a campaign: a whole cluster is broken, by `tests/cluster`, which measures what each fault costs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from isotrack_dev.paths import REPOSITORY

FILES: Final = ("test_cluster_faults.py", "test_recording_faults.py", "test_sweep.py")
NOTHING_RAN: Final = "the cluster's tests did not run: see the output above"


def break_cluster(folder: Path, before: Mapping[str, Any]) -> dict[str, Any]:
    """Run the tests; what became of each, and what each fault cost. What passed `before` is not done again, and stays in."""
    passed = [test for test in before.get("tests", ()) if test["outcome"] == "passed"]
    again = [test["name"] for test in before.get("tests", ()) if test["outcome"] != "passed"]
    folder.mkdir(parents=True, exist_ok=True)
    notes = folder / "faults.json"
    where = REPOSITORY / "tests" / "cluster"
    command = [sys.executable, "-m", "pytest", "-q", *(str(where / name) for name in FILES)]
    command += ["-k", " or ".join(again)] if again else []
    began = time.monotonic()
    subprocess.run(
        [*command, f"--basetemp={folder / 'tests'}"],
        cwd=REPOSITORY,
        env={**os.environ, "ISOTRACK_FAULT_NOTES": str(notes)},
        stdin=subprocess.DEVNULL,
    )
    found: dict[str, Any] = json.loads(notes.read_text()) if notes.exists() else {"tests": [], "costs": []}
    failed = [test["name"] for test in found["tests"] if test["outcome"] != "passed"]
    if not found["tests"]:
        failed.append(NOTHING_RAN)
    if not failed:
        shutil.rmtree(folder)
    return {
        "tests": passed + found["tests"],
        "costs": [*before.get("costs", ()), *found["costs"]],
        "failed": failed,
        "seconds": before.get("seconds", 0.0) + time.monotonic() - began,
    }
