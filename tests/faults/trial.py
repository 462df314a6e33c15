"""Do something to one real recording, then say what became of it.

A trial has a room of its own on the servers of its Place, so trials run side by side. It ends with the evidence; whether that is
good enough is the business of `validate`.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from livekit import api

from isotrack_dev.servers import LiveKitInfo, S3Info, livekit_server
from support.bucket import Bucket
from support.waiting import until

from .abandon import Abandoned
from .evidence import Evidence, Kill
from .gather import Done, gather
from .operator_place import OperatorPlace, operator_place
from .people import EVERYBODY
from .plans import Plan, Step
from .pods import Container, Pod
from .stores import USUAL, Running, running
from .studio import Studio, studio

TRACKS: Final = sum(len(person.kinds) for person in EVERYBODY)
BACK_SECONDS: Final = 45.0


@dataclass(frozen=True, slots=True)
class Place:
    """The servers of a campaign."""

    folder: Path
    livekit: LiveKitInfo
    stores: Running
    studio: Studio
    run: str
    """Told apart from the runs whose results are kept in the same folder."""
    operator: OperatorPlace | None = None
    """Where the operator is tried; None in campaigns that do not."""
    abandoned: Abandoned = field(default_factory=Abandoned)
    store: str = USUAL
    """Where a trial's recordings go."""

    @property
    def s3(self) -> S3Info:
        """The S3 server of a trial."""
        return self.stores.infos[self.store]

    def on(self, store: str) -> Place:
        """The same with another S3 server."""
        return replace(self, store=store)

    def room(self, name: str) -> str:
        """A room that no other trial has."""
        return f"{name}-{self.run}"

    @property
    def bucket(self) -> Bucket:
        return Bucket(self.s3.endpoint, self.s3.access_key, self.s3.secret_key, self.s3.bucket, self.s3.region)

    def end_call(self, room: str) -> float:
        """Have the SFU put everybody out; until when whatever was sent has to be recorded."""
        ended = time.time()

        async def delete() -> None:
            server = self.livekit
            async with api.LiveKitAPI(server.http_url, server.api_key, server.api_secret) as client:
                await client.room.delete_room(api.DeleteRoomRequest(room=room))

        asyncio.run(delete())
        return ended


@contextmanager
def servers(folder: Path, stores: Collection[str], *, with_operator: bool) -> Iterator[Place]:
    """A LiveKit server, people who play calls on it, S3 servers, perhaps an API server, for as long as the block runs."""
    with ExitStack() as stack:
        livekit = stack.enter_context(livekit_server(folder / "livekit"))
        started = stack.enter_context(running(folder / "stores", stores))
        playing = stack.enter_context(studio(livekit, folder / "people"))
        operator = stack.enter_context(operator_place(folder / "cluster", livekit)) if with_operator else None
        yield Place(folder, livekit, started, playing, secrets.token_hex(2), operator)


def kill_at_random(place: Place, room: str, plan: Plan) -> Evidence:
    """Kill the processes of one pod as planned and start them again in place."""
    kills: list[Kill] = []
    folder = place.folder / room
    with Pod(folder, place.livekit, place.s3, room) as pod:
        with place.studio.publishing(room) as ledger:
            start(pod)
            began = recorded(pod)
            for step in plan.during:
                time.sleep(step.after)
                kills.append(_kill(pod, step))
            recorded(pod)
            time.sleep(plan.rest)
            ended = place.end_call(room)
        kills += _kill_at_the_end(pod, plan.after_end)
        return concluded(place, Done([pod], ledger, (began, ended), kills))


def start(pod: Pod) -> None:
    """Start both containers."""
    pod.recorder.start()
    pod.agent.start()


def recorded(pod: Pod, tend: Callable[[], object] = lambda: None) -> float:
    """Wait until the recorder's present process receives everybody; the instant at which that was seen."""

    def look() -> bool:
        tend()
        process = pod.recorder.process
        assert process is not None
        assert process.poll() is None, f"the recorder ended with {process.returncode}: {pod.recorder.tail()}"
        return pod.captures(TRACKS)

    until(look, f"everybody is recorded in {pod.room}", seconds=BACK_SECONDS)
    return time.time()


def concluded(place: Place, done: Done) -> Evidence:
    """What a call that is over has left, once whoever recorded it last has done its work.

    Raises:
        AssertionError: It ended badly.
    """
    done.pods[-1].finish()
    return gather(place.bucket, done)


def _container(pod: Pod, step: Step) -> Container:
    return pod.recorder if step.command == "capture" else pod.agent


def _kill(pod: Pod, step: Step) -> Kill:
    container = _container(pod, step)
    killed = container.kill()
    container.start()
    return killed


def _kill_at_the_end(pod: Pod, steps: Sequence[Step]) -> Iterator[Kill]:
    for step in steps:
        time.sleep(step.after)
        process = _container(pod, step).process
        if process is not None and process.poll() is None:
            yield _kill(pod, step)
