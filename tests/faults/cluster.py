"""The second part of a campaign: a whole cluster is broken, by `tests/cluster`, which measures what each fault costs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from isotrack_dev.paths import REPOSITORY

FILES: Final = ("test_cluster_faults.py", "test_recording_faults.py", "test_sweep.py")
NOTHING_RAN: Final = "the cluster's tests did not run: see the output above"


def break_cluster(folder: Path) -> dict[str, Any]:
    """Run the tests; what became of each, and what each fault cost."""
    folder.mkdir(parents=True, exist_ok=True)
    notes = folder / "faults.json"
    where = REPOSITORY / "tests" / "cluster"
    command = [sys.executable, "-m", "pytest", "-q", *(str(where / name) for name in FILES)]
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
    return {**found, "failed": failed, "seconds": time.monotonic() - began}
