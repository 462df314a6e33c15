"""Trials in which somebody sets the wall clock while a call is recorded, and those in which a successor's is wrong from the start.

The machine's clock stays as it is. The two processes of the pod see another one through libfaketime, which reads from a file by how
much; monotonic time, which no setting touches, is the real one for them, too. Everybody else (SFU, S3 server, publishers) keeps the
right time, as when the clock of one node is set.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Final, Self

from isotrack_dev import requirements
from isotrack_dev.progress import for_terminal
from isotrack_recorder.spool.journal import decode_journal
from support.wall_clock import preloaded

from .evidence import Evidence, Kill
from .failing import RUNNER
from .gather import Done
from .pod_changes import Attempts, lose
from .pods import VICTIMS as VICTIM_NAMES
from .pods import Container, Pod
from .trial import Place, concluded, recorded

HOUR: Final = 3600
WRONG_BY: Final = 3 * HOUR
FAR_SECONDS: Final = 1800.0
"""No process of a trial is silent for so long."""
VICTIMS: Final = ("", "capture", "agent")
"""Whom a trial kills after the clock was set, by its seed: what begins anew sees the new time only."""


@dataclass(slots=True)
class WallClock:
    """The wall clock of a pod: use as a context manager, nothing is left of it afterwards."""

    file: Path
    pods: list[Pod] = field(default_factory=list)
    """Who saw it."""

    def __enter__(self) -> Self:
        self.set(0)
        return self

    def __exit__(self, *_: object) -> None:
        """Remove what the library leaves behind where a process is killed."""
        self.file.unlink()
        pids = [pid for pod in self.pods for container in (pod.recorder, pod.agent) for pid in container.pids]
        for pid in pids:
            for name in (f"faketime_shm_{pid}", f"sem.faketime_sem_{pid}"):
                Path("/dev/shm", name).unlink(missing_ok=True)

    @property
    def environment(self) -> dict[str, str]:
        """For processes that are to see it (libfaketime(1))."""
        return {**preloaded(), "FAKETIME_TIMESTAMP_FILE": str(self.file), "FAKETIME_NO_CACHE": "1"}

    def set(self, seconds: int) -> None:
        """From now on it is so much ahead of the right time."""
        beside = self.file.with_suffix(".new")
        beside.write_text(f"{seconds:+d}\n")
        beside.replace(self.file)


def set_clock(place: Place, room: str, seed: int) -> Evidence:
    """Set the clock twice during the call: by an hour, then to an hour on the other side of the right time."""
    requirements.ensure(["clock"], for_terminal(), place.folder / "apt.log")
    chance = random.Random(seed)
    first = HOUR if seed % 2 else -HOUR
    victim = VICTIMS[seed // 2 % len(VICTIMS)]
    kills: list[Kill] = []
    with (
        WallClock(place.folder / f"{room}.clock") as clock,
        Pod(place.folder / room, place.livekit, place.s3, room, more=clock.environment) as pod,
    ):
        clock.pods.append(pod)
        with place.studio.publishing(room) as ledger:
            for container in (pod.recorder, pod.agent):
                _start(container)
            began = recorded(pod)
            for ahead in (first, -first):
                time.sleep(chance.uniform(1.5, 3.0))
                clock.set(ahead)
                time.sleep(chance.uniform(0.5, 1.5))
                if victim:
                    container = pod.recorder if victim == "capture" else pod.agent
                    kills.append(container.kill())
                    _start(container)
                recorded(pod)
            time.sleep(chance.uniform(0.5, 1.5))
            ended = place.end_call(room)
        faults = {
            f"a clock that was set, as the {VICTIM_NAMES[container.command]} saw it": steps(
                _trace(container).read_text()
            )
            for container in (pod.recorder, pod.agent)
        }
        return concluded(place, Done([pod], ledger, (began, ended), kills, faults))


def replace_on_wrong_clock(place: Place, room: str, seed: int) -> Evidence:
    """The pod is lost with its spool; the next attempt begins at once, on a node whose clock is wrong by hours, and is lost, too.

    The one behind it, on a node with the right clock again, ends the recording.
    """
    requirements.ensure(["clock"], for_terminal(), place.folder / "apt.log")
    chance = random.Random(seed)
    kills: list[Kill] = []
    began, wrong = 0.0, 0
    with WallClock(place.folder / f"{room}.clock") as clock, Attempts(place, room) as pods:
        clock.set(WRONG_BY if seed % 2 else -WRONG_BY)
        with place.studio.publishing(room) as ledger:
            for attempt in (1, 2, 3):
                if pods.all:
                    kills.append(lose(pods.last))
                pods.begin(clock.environment if attempt == 2 else {})
                clock.pods += pods.all[-1:] if attempt == 2 else []
                seen = recorded(pods.last)
                began = began or seen
                if attempt == 2:
                    wrong = int(abs(_told(pods.last) - time.time()) > FAR_SECONDS)
                time.sleep(chance.uniform(7.0, 10.0))
            ended = place.end_call(room)
        faults = {"a successor's clock that was wrong by hours": wrong}
        return concluded(place, Done(pods.all, ledger, (began, ended), kills, faults))


def _told(pod: Pod) -> float:
    """The time at which its recorder began, by its own clock."""
    journal = (pod.spool / "i0001" / "journal.ndjson").read_bytes()
    return next(float(event["wall_ns"]) / 1e9 for event in decode_journal(journal) if event["e"] == "start")


def steps(trace: str) -> int:
    """How often the wall clock went on or back by far between two lines of a process: so it has seen it set."""
    told = [float(line.rpartition(" ")[2]) for line in trace.splitlines()]
    return sum(abs(after - before) > FAR_SECONDS for before, after in pairwise(told))


def _start(container: Container) -> None:
    container.start({"FAULTS_TRACE": str(_trace(container)), "FAULTS_TIMES": "1"}, RUNNER)


def _trace(container: Container) -> Path:
    return container.log.with_name(f"{container.command}.trace")
