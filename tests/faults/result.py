"""What became of a trial: evidence in, one row of the campaign's results out (pure)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from .evidence import Evidence
from .losses import losses
from .operator_evidence import Aftermath, judge
from .validate import Bounds, invalid, validate

KILLED: Final = ("recorder", "agent", "pod", "finaliser", "sweeper", "checker", "shipper", "operator")


@dataclass(frozen=True, slots=True)
class LossRow:
    """What one death cost; seconds."""

    victim: str
    kills: int
    lost: float
    gap: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one trial."""

    kind: str = ""
    job: str = ""
    """What `--only` takes."""
    seconds: float = 0.0
    kills: dict[str, int] = field(default_factory=dict)
    """Processes that were killed and had been running, by victim."""
    faults: dict[str, int] = field(default_factory=dict)
    losses: tuple[LossRow, ...] = ()
    payloads: int = 0
    """Sent and judged."""
    findings: tuple[str, ...] = ()
    invalid: tuple[str, ...] = ()
    folder: str = ""
    """What it left, where it did not pass."""

    @property
    def verdict(self) -> str:
        """`passed`, `FAILED` or `INVALID`."""
        return "FAILED" if self.findings else "INVALID" if self.invalid else "passed"


def judged(evidence: Evidence | Aftermath, bounds: Bounds) -> Result:
    """The row without what only the campaign knows: which job it was, how long it took, where its files are."""
    copied = isinstance(evidence, Evidence) and evidence.copied
    hits = [kill.victim for kill in evidence.kills if kill.hit and kill.victim in KILLED]
    hits = [victim for victim in hits if victim != "pod"] if copied else hits  # that pod was lost once, for all copies
    kills = {victim: hits.count(victim) for victim in dict.fromkeys(hits)}
    if isinstance(evidence, Aftermath):
        findings, missed = judge(evidence)
        return Result(kills=kills, faults=dict(evidence.faults), findings=findings, invalid=missed)
    return Result(
        kills=kills,
        faults=dict(evidence.faults),
        losses=tuple(LossRow(*loss) for loss in losses(evidence)) if evidence.manifest and not copied else (),
        payloads=0 if copied else sum(len(published.sent) for published in evidence.published.values()),
        findings=tuple(f"{finding.check}: {finding.text}" for finding in validate(evidence, bounds)),
        invalid=invalid(evidence),
    )
