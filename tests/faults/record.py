"""The campaign's results in a file: what is to be done, and what came of it."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

from isotrack_dev.paths import REPOSITORY

from .kinds import Job, parse_job
from .result import Result


@dataclass(slots=True)
class Record:
    """What a campaign is to do and what came of it, in a file: a campaign that was ended goes on from there."""

    path: Path
    command: str
    seed: int
    planned: list[str] = field(default_factory=list)
    seconds: float = 0.0
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By job."""
    missing: dict[str, str] = field(default_factory=dict)
    """S3 servers that are not to be had here, and why."""
    cluster: dict[str, Any] = field(default_factory=dict)
    """What came of breaking a whole cluster, see `cluster`; empty = that was not done."""
    whole: bool = False
    """Nothing was left out when it was planned."""
    again: list[dict[str, Any]] = field(default_factory=list)
    """What came first of jobs that were done again, in their order."""

    @classmethod
    def read(cls, path: Path) -> Self:
        """What lies there.

        Raises:
            FileNotFoundError: Nothing does.
        """
        saved = json.loads(path.read_text())
        results = {row["job"]: row for row in saved["results"]}
        return cls(
            path,
            saved["command"],
            saved["seed"],
            saved["planned"],
            saved["seconds"],
            results,
            saved["missing"],
            saved["cluster"],
            saved["whole"],
            saved["again"],
        )

    def plan(self, jobs: Iterable[Job]) -> None:
        """Add jobs."""
        self.planned += [text for text in map(str, jobs) if text not in self.planned]

    def add(self, result: Result) -> None:
        """Add what came of one, instead of what came of it before."""
        before = self.results.get(result.job)
        if before is not None:
            self.again.append({name: before[name] for name in ("job", "findings", "invalid")})
        self.results[result.job] = asdict(result)

    def due(self, kinds: Sequence[str]) -> list[Job]:
        """Planned jobs of these kinds that have not passed yet."""
        jobs = (parse_job(text) for text in self.planned)
        return [job for job in jobs if job.kind in kinds and not self._passed(str(job))]

    def _passed(self, job: str) -> bool:
        row = self.results.get(job)
        return row is not None and not row["findings"] and not row["invalid"]

    def values(self) -> dict[str, Any]:
        """For the file, and for `report`."""
        return {
            "command": self.command,
            "seed": self.seed,
            "seconds": self.seconds,
            "versions": versions(),
            "missing": self.missing,
            "cluster": self.cluster,
            "whole": self.whole,
            "again": self.again,
            "planned": self.planned,
            "results": [self.results[job] for job in self.planned if job in self.results],
        }

    def write(self) -> None:
        """Keep it."""
        beside = self.path.with_suffix(".new")
        beside.write_text(json.dumps(self.values(), indent=1) + "\n")
        beside.replace(self.path)


def versions() -> dict[str, str]:
    """Of what took part."""
    found = {"isotrack": version("isotrack"), "CPython": platform.python_version()}
    for program, module in (("livekit-server", "livekit"), ("versitygw", "versitygw")):
        text = (REPOSITORY / "dev" / "tools" / module / "go.mod").read_text()
        match = re.search(rf"/{program} v(\S+)", text)
        found[program] = match[1] if match else "?"
    return found
