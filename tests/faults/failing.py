"""Trials in which a process dies at a failpoint: at one named call, before, after or within it."""

from __future__ import annotations

import asyncio
import secrets
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from support.api_server import ApiServer
from support.looped import looped
from support.waiting import until

from .evidence import Evidence, Kill
from .gather import Done, gather
from .people import EVERYBODY, Somebody
from .pods import VICTIMS, Container, Pod
from .runner import FIRED
from .sites import Failpoint
from .trial import END_SECONDS, GOOD_ENDS, Place, recorded

CALL_SECONDS: Final = 2.5
"""How long a call goes on in which a failpoint is waited for."""
ON_ITS_WAY_SECONDS: Final = 0.3
"""Through the SFU, on a busy machine: what was sent so shortly before the wish to stop may not be there yet when it is obeyed."""
RUNNER: Final = (sys.executable, "-m", "faults.runner")


def crash_at(
    place: Place,
    room: str,
    failpoints: Sequence[Failpoint],
    people: Sequence[Somebody] = EVERYBODY,
    *,
    seconds: float = CALL_SECONDS,
) -> Evidence:
    """Let processes of a pod die at a failpoint, each once at most, and start them again in place.

    Args:
        failpoints: Of different processes; none records what is passed only: the traces are in the pod's folder.
        people: Who is in the call; large files pass other sites than small ones.
        seconds: How long the call goes on.
    """
    with (
        looped(ApiServer(place.folder / f"{room}-api", tls=True)) as (loop, server),
        Pod(place.folder / room, place.livekit, place.s3, room, api=server.settings) as pod,
    ):
        server.settings.token_file.write_text(secrets.token_urlsafe())
        armed = Armed(pod, failpoints)
        with place.studio.publishing(room, people) as ledger:
            armed.start()
            began = recorded(pod, armed.tend)
            armed.tend_until(began + seconds)
            recorded(pod, armed.tend)
            ended = time.time() - ON_ITS_WAY_SECONDS
            asyncio.run_coroutine_threadsafe(server.change(spec={"desiredState": "Stopped"}), loop).result(END_SECONDS)
            until(armed.tend, "the agent's end", seconds=END_SECONDS)
        armed.finish()
        died = [kill.victim for kill in armed.kills if kill.hit]
        faults = {str(failpoint): died.count(VICTIMS[failpoint.command]) for failpoint in failpoints}
        return gather(place.bucket, Done([pod], ledger, (began, ended), armed.kills, faults, server.reports))


class Armed:
    """A pod whose processes run in `runner`, told where to die; starts again what died."""

    def __init__(self, pod: Pod, failpoints: Sequence[Failpoint]) -> None:
        self._pod = pod
        self._at = {failpoint.command: str(failpoint) for failpoint in failpoints}
        self.kills: list[Kill] = []

    def start(self) -> None:
        """Start both containers, armed."""
        for container in (self._pod.recorder, self._pod.agent):
            at = self._at.get(container.command, "")
            container.start({"FAULTS_TRACE": str(self._trace(container)), "FAULTS_AT": at}, RUNNER)

    def tend(self) -> bool:
        """Start again, without its failpoint, what died of it; whether the agent has done its work."""
        for container in (self._pod.recorder, self._pod.agent):
            process = container.process
            if process is not None and process.poll() == -signal.SIGKILL:
                self._note_death(container)
                container.start({"FAULTS_TRACE": str(self._trace(container)), "FAULTS_AT": ""}, RUNNER)
        return self._pod.agent.has_ended

    def tend_until(self, instant: float) -> None:
        """Tend until then."""
        while time.time() < instant:
            self.tend()
            time.sleep(0.02)

    def finish(self) -> None:
        """As `trial.finish`; the recorder may die of its failpoint even now, and nobody starts it again."""
        code = self._pod.agent.wait(END_SECONDS)
        assert code == 0, f"the agent ended with {code}: {self._pod.agent.tail()}"
        recorder = self._pod.recorder
        recorder.terminate()
        code = recorder.wait(END_SECONDS)
        if code == -signal.SIGKILL:
            self._note_death(recorder)
        else:
            assert code in GOOD_ENDS, f"the recorder ended with {code}: {recorder.tail()}"

    def _note_death(self, container: Container) -> None:
        at = fired_at(self._trace(container).read_text())
        self.kills.append(Kill(VICTIMS[container.command], at or time.time(), at is not None))

    def _trace(self, container: Container) -> Path:
        return self._pod.folder / f"{container.command}.trace"


def fired_at(trace: str) -> float | None:
    """When the newest death of a trace was; None when there was none."""
    return max((float(line.split()[1]) for line in trace.splitlines() if line.startswith(FIRED)), default=None)
