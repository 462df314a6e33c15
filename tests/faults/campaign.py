"""Do many trials, some at a time, and say what came of them."""

from __future__ import annotations

import random
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, cycle
from typing import Any, Final

from .kinds import KINDS, Job
from .result import Result, judged
from .sites import Failpoint, new_failpoints, operator_failpoints, side_by_side
from .stores import USUAL
from .trial import Place

RANDOM_KINDS: Final = ("recorder-killed", "agent-killed", "both-killed")
FAILPOINT_KINDS: Final = tuple(name for name, row in KINDS.items() if row.fails)
TRACES_AT_ONCE: Final = 3
TRIES: Final = 2
"""Of a trial that proved nothing: its fault did not happen, so it is done once more."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a campaign is to consist of."""

    seed: int
    kills: int
    kinds: tuple[str, ...] = tuple(KINDS)
    failpoints: int | None = None
    """How many, chosen by the seed; None = all."""
    trials: int | None = None
    """Of each kind that is neither kills nor failpoints; None = as its row says."""


def random_jobs(asked: Asked) -> list[Job]:
    """Trials for so many kills at random times, the kinds in turn; and those of the other kinds."""
    jobs: list[Job] = []
    kinds = [kind for kind in RANDOM_KINDS if kind in asked.kinds]
    planned = 0
    for number, kind in enumerate(cycle(kinds)):
        if planned >= asked.kills:
            break
        jobs.append(Job(kind, asked.seed + number))
        planned += KINDS[kind].kills
    for kind, row in KINDS.items():
        if kind in asked.kinds and kind not in (*RANDOM_KINDS, *FAILPOINT_KINDS):
            count = row.trials if asked.trials is None else min(asked.trials, row.trials)
            jobs += [Job(kind, asked.seed + number) for number in range(count)]
    return jobs


def jobs_elsewhere(asked: Asked, stores: Sequence[str]) -> list[Job]:
    """Their share on S3 servers other than the usual one."""
    return [
        Job(kind, asked.seed + number, store=store)
        for store in stores
        for kind, row in KINDS.items()
        if kind in asked.kinds
        for number in range(row.elsewhere if asked.trials is None else min(asked.trials, row.elsewhere))
        if store != USUAL
    ]


def failpoint_jobs(place: Place, asked: Asked) -> Iterator[Job]:
    """Find out what the processes pass, and make trials of each failpoint; those of a further scenario only where it differs."""
    known: set[Failpoint] = set()
    kinds = [kind for kind in FAILPOINT_KINDS if kind in asked.kinds]
    with _lanes(TRACES_AT_ONCE) as submit:
        traces = {kind: submit(kind, _trace, place, Job(kind, asked.seed)) for kind in kinds}
    for kind in kinds:
        passed = traces[kind].result()
        if "operator" in passed:
            details = [str(failpoint) for failpoint in operator_failpoints(passed["operator"])]
        else:
            found = [new_failpoints(name, lines, known) for name, lines in passed.items()]
            known.update(chain.from_iterable(found))
            details = side_by_side(*found)
        if asked.failpoints is not None:
            details = random.Random(asked.seed).sample(details, min(len(details), asked.failpoints))
        yield from (Job(kind, asked.seed, detail) for detail in details)


def _trace(place: Place, job: Job) -> dict[str, list[str]]:
    """Do it once without a failpoint: what each process passes."""
    kind, room = KINDS[job.kind], place.room(f"trace-{job.kind}")
    kind.run(place, room, job)
    passed = {process: (place.folder / room / f"{process}.trace").read_text().splitlines() for process in kind.fails}
    shutil.rmtree(place.folder / room)
    return passed


@contextmanager
def _lanes(at_once: int) -> Iterator[Callable[..., Future[Any]]]:
    """Threads for trials: `submit(kind, function, *arguments)`.

    Those of the operator come one after the other beside the others: there is one cluster, and it looks after all of that.
    """
    with (
        ThreadPoolExecutor(at_once, thread_name_prefix="trial") as pool,
        ThreadPoolExecutor(1, thread_name_prefix="operator") as lane,
    ):

        def submit(kind: str, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
            return (lane if "operator" in KINDS[kind].fails else pool).submit(function, *arguments)

        yield submit


def run_jobs(place: Place, jobs: Sequence[Job], at_once: int, until: float) -> Iterator[Result]:
    """Do them; results come as they end. None is begun after `until` (time.monotonic())."""
    with _lanes(at_once) as submit:
        running = [submit(job.kind, _run, place, number, job, until) for number, job in enumerate(jobs)]
        try:
            for done in as_completed(running):
                if (result := done.result()) is not None:
                    yield result
        finally:
            for future in running:
                future.cancel()


def _run(place: Place, number: int, job: Job, until: float) -> Result | None:
    if time.monotonic() > until:
        return None
    name = place.room(f"{job.kind}-{number}")
    result = _try(place, name, job)
    for again in range(1, TRIES):
        if result.verdict != "INVALID":
            break
        result = _try(place, f"{name}-{again}", job)
    return result


def _try(place: Place, room: str, job: Job) -> Result:
    kind, began = KINDS[job.kind], time.monotonic()
    folder = place.folder / room
    try:
        evidence = kind.run(place.on(job.store), room, job)
    except Exception as error:  # noqa: BLE001 - whatever it was, the trial did not do what it has to
        folder.mkdir(exist_ok=True)
        (folder / "error.txt").write_text(traceback.format_exc())
        text = f"trial: {type(error).__name__}: {error}"
        seconds = time.monotonic() - began
        return Result(kind=job.kind, job=str(job), seconds=seconds, findings=(text,), folder=str(folder))
    found = judged(evidence, kind.bounds)
    result = replace(found, kind=job.kind, job=str(job), seconds=time.monotonic() - began, folder=str(folder))
    if result.verdict == "passed":
        shutil.rmtree(folder)
    return result
