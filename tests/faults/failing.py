"""Trials in which a process dies at a failpoint: at one named call, before, after or within it."""

from __future__ import annotations

import asyncio
import secrets
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from support.api_server import ApiServer
from support.looped import looped
from support.waiting import until

from .evidence import Evidence, Kill
from .gather import Done, gather
from .people import EVERYBODY, LARGE, Somebody
from .pod_changes import lose
from .pods import END_SECONDS, GOOD_ENDS, VICTIMS, Container, Pod
from .runner import fired_at
from .sites import MARK, Failpoint
from .trial import Place, recorded, start

CALL_SECONDS: Final = 2.5
"""How long a call goes on in which a failpoint is waited for."""
ON_ITS_WAY_SECONDS: Final = 0.3
"""Through the SFU, on a busy machine: what was sent so shortly before the wish to stop may not be there yet when it is obeyed."""
CHECKPOINTS: Final = 3
"""Of a pod that is to be lost; a second lies between them."""
QUIET_SECONDS: Final = 1.0
"""How long its successor waits for a sign of life of it."""
SUCCESSOR_SECONDS: Final = 4.0
"""With what the first pod copied, pictures for a file of several parts."""
RUNNER: Final = (sys.executable, "-m", "faults.runner")


def crash_at(
    place: Place,
    room: str,
    failpoints: Sequence[Failpoint],
    people: Sequence[Somebody] = EVERYBODY,
    *,
    seconds: float = CALL_SECONDS,
    segment_bytes: int = 0,
) -> Evidence:
    """Let processes of a pod die at a failpoint, each once at most, and start them again in place.

    Args:
        failpoints: Of different processes; none records what is passed only: the traces are in the pod's folder.
        people: Who is in the call; large files pass other sites than small ones.
        seconds: How long the call goes on.
        segment_bytes: Of the spool's segments; 0 = as the recorder chooses.
    """
    with (
        looped(ApiServer(place.folder / f"{room}-api", tls=True)) as (loop, server),
        Pod(place.folder / room, place.livekit, place.s3, room, api=server.settings) as pod,
    ):
        server.settings.token_file.write_text(secrets.token_urlsafe())
        armed = Armed(pod, failpoints, {"FAULTS_SEGMENT_BYTES": str(segment_bytes or "")})
        with place.studio.publishing(room, people) as ledger:
            armed.start()
            began = recorded(pod, armed.tend)
            armed.tend_until(began + seconds)
            recorded(pod, armed.tend)
            ended = time.time() - ON_ITS_WAY_SECONDS
            asyncio.run_coroutine_threadsafe(server.change(spec={"desiredState": "Stopped"}), loop).result(END_SECONDS)
            until(armed.tend, "the agent's end", seconds=END_SECONDS)
        armed.finish()
        return gather(place.bucket, Done([pod], ledger, (began, ended), armed.kills, armed.faults, server.reports))


def crash_successor(place: Place, room: str, failpoints: Sequence[Failpoint]) -> Evidence:
    """A pod is lost with its spool once it has copied something; processes of the next attempt die at a failpoint, each once at most."""
    folder = place.folder / room
    folder.mkdir()
    lost_pod = Pod(folder / "attempt-1", place.livekit, place.s3, room, checkpoint_seconds=1)
    successor = Pod(folder / "attempt-2", place.livekit, place.s3, room, 2, checkpoint_seconds=1)
    with lost_pod, successor:
        armed = Armed(successor, failpoints, {"FAULTS_QUIET_SECONDS": str(QUIET_SECONDS)}, folder)
        with place.studio.publishing(room, LARGE) as ledger:
            start(lost_pod)
            began = recorded(lost_pod)
            copies = f"{lost_pod.prefix}attempts/1/checkpoints/"
            until(lambda: len(place.bucket.keys(copies)) >= CHECKPOINTS, "it has copied something", seconds=END_SECONDS)
            lost = lose(lost_pod)
            armed.start()
            armed.tend_until(recorded(successor, armed.tend) + SUCCESSOR_SECONDS)
            recorded(successor, armed.tend)
            ended = time.time() - ON_ITS_WAY_SECONDS
            armed.mark()
            place.end_call(room)
            until(armed.tend, "the agent's end", seconds=END_SECONDS)
        armed.finish()
        done = Done([lost_pod, successor], ledger, (began, ended), [lost, *armed.kills], armed.faults)
        return gather(place.bucket, done)


class Armed:
    """A pod whose processes run in `runner`, told where to die; starts again what died."""

    def __init__(
        self, pod: Pod, failpoints: Sequence[Failpoint], more: Mapping[str, str], traces: Path | None = None
    ) -> None:
        """`more`: environment of both processes; `traces`: where they go, if not into the pod's folder."""
        self._pod, self._failpoints, self._more, self._traces = pod, failpoints, more, traces or pod.folder
        self.kills: list[Kill] = []

    def start(self) -> None:
        """Start both containers, armed."""
        for container in (self._pod.recorder, self._pod.agent):
            self._start(container)

    def _start(self, container: Container) -> None:
        """NB: with its failpoint each time; once it died there, a process lets it pass."""
        at = next((str(one) for one in self._failpoints if one.command == container.command), "")
        container.start({"FAULTS_TRACE": str(self._trace(container)), "FAULTS_AT": at, **self._more}, RUNNER)

    @property
    def faults(self) -> dict[str, int]:
        """Failpoint → how often a process was seen to die there."""
        died = [kill.victim for kill in self.kills if kill.hit]
        return {str(failpoint): died.count(VICTIMS[failpoint.command]) for failpoint in self._failpoints}

    def mark(self) -> None:
        """Note in the traces that from here on a scenario is different from others."""
        for container in (self._pod.recorder, self._pod.agent):
            with self._trace(container).open("a") as trace:
                trace.write(f"{MARK}\n")

    def tend(self) -> bool:
        """Start again what died of its failpoint; whether the agent has done its work."""
        for container in (self._pod.recorder, self._pod.agent):
            process = container.process
            if process is not None and process.poll() == -signal.SIGKILL:
                self._note_death(container)
                self._start(container)
        return self._pod.agent.has_ended

    def tend_until(self, instant: float) -> None:
        """Tend until then."""
        while time.time() < instant:
            self.tend()
            time.sleep(0.02)

    def finish(self) -> None:
        """As `Pod.finish`; the recorder may die of its failpoint even now, and nobody starts it again."""
        if self._pod.finish((*GOOD_ENDS, -signal.SIGKILL)) == -signal.SIGKILL:
            self._note_death(self._pod.recorder)

    def _note_death(self, container: Container) -> None:
        at = fired_at(self._trace(container).read_text())
        self.kills.append(Kill(VICTIMS[container.command], at or time.time(), at is not None))

    def _trace(self, container: Container) -> Path:
        return self._traces / f"{container.command}.trace"
