"""What is known after a trial without media, of the operator mostly, and what is wrong with it (pure)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

from support.secrecy import told_secrets

from .evidence import Kill

ANY: Final = "any"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """How the Recording has to end."""

    phase: str
    reason: str
    """Of the condition Succeeded."""
    attempts: tuple[str, ...]
    """Results, in order; ANY where it depends on when the operator looked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Aftermath:
    """All that a trial of the operator left behind, or one of a Job that touches no media."""

    expected: Expected | None
    """None: it was not about a Recording."""
    recording: Mapping[str, Any] = field(default_factory=dict)
    """As it was last: finished, or on its way out."""
    kills: tuple[Kill, ...] = ()
    faults: Mapping[str, int] = field(default_factory=dict)
    """Failpoint → how often a process was seen to die there."""
    jobs: tuple[tuple[str, str], ...] = ()
    """(name, uid) of every Job that ever was."""
    pods: tuple[tuple[str, str], ...] = ()
    """(name of its Job, or uid where Jobs of one name follow each other, and uid) of every pod that ever was."""
    held: tuple[str, ...] = ()
    """Claims and finalizers that were there when the Recording was over and the operator at rest."""
    orphans: tuple[str, ...] = ()
    """What was there after the Recording was deleted and the garbage collector had come by."""
    outputs: Mapping[str, str] = field(default_factory=dict)
    """Logs of the operator, and what it wrote for people."""
    secrets: Mapping[str, str] = field(default_factory=dict)
    """What must not be in any output, by what it is."""


Check = Callable[[Aftermath], Iterator[str]]


def it_ended_as_it_should(after: Aftermath) -> Iterator[str]:
    """The same end as without the death."""
    if after.expected is None:
        return
    status = after.recording.get("status", {})
    conditions = {one["type"]: one for one in status.get("conditions", ())}
    found = (status.get("phase"), conditions.get("Succeeded", {}).get("reason"))
    if found != (after.expected.phase, after.expected.reason):
        yield f"it ended as {found}, not as {after.expected.phase}, {after.expected.reason}"
    if conditions.get("Finished", {}).get("status") != "True":
        yield "its condition Finished is not True"
    results = tuple(attempt.get("result", "") for attempt in status.get("attempts", ()))
    expected = after.expected.attempts
    if len(results) != len(expected) or any(
        want not in (ANY, got) for want, got in zip(expected, results, strict=True)
    ):
        yield f"its attempts ended as {results}, not as {after.expected.attempts}"


def nothing_was_made_twice(after: Aftermath) -> Iterator[str]:
    """One Job for each attempt, one pod for each Job."""
    twice = [name for name, count in Counter(name for name, _ in after.jobs).items() if count > 1]
    if twice:
        yield f"Jobs that were made again: {twice}"
    crowded = [name for name, count in Counter(name for name, _ in after.pods).items() if count > 1]
    if crowded:
        yield f"Jobs with several pods: {crowded}"


def no_transition_is_missing_or_told_twice(after: Aftermath) -> Iterator[str]:
    """Their numbers have no hole; two in a row differ."""
    if after.expected is None:
        return
    transitions: Sequence[Mapping[str, Any]] = after.recording.get("status", {}).get("transitions", ())
    numbers = [one["seq"] for one in transitions]
    if not numbers or numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        yield f"transitions are numbered {numbers}"
    told = [(one["phase"], one["reason"]) for one in transitions]
    if any(one == following for one, following in pairwise(told)):
        yield f"a transition is told twice: {told}"


def nothing_is_held(after: Aftermath) -> Iterator[str]:
    """The claim on the call and the finalizer are given back."""
    yield from (f"{what} is still there" for what in after.held)


def nothing_is_orphaned(after: Aftermath) -> Iterator[str]:
    """All that was made for the Recording goes with it."""
    yield from (f"{what} has stayed behind" for what in after.orphans)


def no_secret_is_told(after: Aftermath) -> Iterator[str]:
    """Not in a log, a status or an Event; nor anything that looks like a token."""
    yield from told_secrets({name: text.encode() for name, text in after.outputs.items()}, after.secrets)


CHECKS: Final[tuple[Check, ...]] = (
    it_ended_as_it_should,
    nothing_was_made_twice,
    no_transition_is_missing_or_told_twice,
    nothing_is_held,
    nothing_is_orphaned,
    no_secret_is_told,
)


def judge(after: Aftermath) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """All that is wrong, and why the trial proves nothing (empty where it does)."""
    findings = tuple(f"{check.__name__}: {text}" for check in CHECKS for text in check(after))
    missed = [f"{fault} was not seen to happen" for fault, count in after.faults.items() if not count]
    missed += [f"the kill of the {kill.victim} hit nothing" for kill in after.kills if not kill.hit]
    if not after.faults:
        missed.append("nothing was done to it")
    return findings, tuple(missed)
