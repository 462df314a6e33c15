"""The lives of a Recording in which the operator writes anything: each is a scenario, and says how it has to end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import yaml
from livekit import api

from isotrack_api.recording import Phase
from isotrack_dev.servers import LiveKitInfo

from .operator_evidence import ANY, Aftermath, Expected
from .operator_place import OperatorPlace
from .operator_trial import NAME, Operator, Story, crashing, ended, running
from .sites import Failpoint
from .trial import Place

GOOD: Final = {"reason": "Uploaded", "files": 1, "bytes": 9, "lostMs": 0, "complete": True}
SOMEBODY_ELSES: Final = "example.org/hold"
URI: Final = {"manifestUri": "s3://recordings/x/recording.json", "manifestDigest": f"sha256:{'0' * 64}"}


def recorded(story: Story) -> Expected:
    """Waits for its call, captures, is stopped, is uploaded."""
    story.begin()
    pod = story.capture(1)
    story.api.stop(NAME)
    _seen(story)
    _end(story, pod, "Requested")
    story.finished()
    return Expected(phase="Uploaded", reason="Uploaded", attempts=("Finished",))


def lost(story: Story) -> Expected:
    """Its pod is lost, a successor captures, is told to stop and is lost, too: a Job finishes the recording."""
    story.begin()
    pod = story.capture(1)
    story.operator.mark()
    story.api.lose_pod(pod["metadata"]["name"])
    pod = story.capture(2)
    story.api.stop(NAME)
    _seen(story)
    story.api.lose_pod(pod["metadata"]["name"])
    finaliser = story.pod_of("-finalise")
    story.api.tell_pod(finaliser["metadata"]["name"], running("finaliser"))
    story.wait("it is being recovered", lambda: _told(story, "Recovering"))
    said = {**GOOD, **URI, "stopReason": "Requested"}
    story.api.tell_pod(finaliser["metadata"]["name"], ended("finaliser", **said))
    story.finished()
    return Expected(phase="Uploaded", reason="Uploaded", attempts=("Lost", "Lost"))


def deleted(story: Story) -> Expected:
    """It is deleted in mid-call: its files are finished first, then it goes."""
    story.begin(SOMEBODY_ELSES)  # so that its end can be seen: without any finalizer it is gone at once
    pod = story.capture(1)
    story.operator.mark()
    story.api.delete_recording(NAME)
    story.wait("the operator has seen it", lambda: _told(story, "Stopping"))
    _end(story, pod, "Deleted")
    story.finished()
    story.api.let_go(NAME)
    return Expected(phase="Uploaded", reason="Uploaded", attempts=("Finished",))


def stopped_early(story: Story) -> Expected:
    """It is stopped before its pod ran: the Job is taken back."""
    story.begin()
    story.pod_of("-a1")
    story.wait("it is told that it starts", lambda: story.attempts)
    story.operator.mark()
    story.api.stop(NAME)
    story.finished()
    return Expected(phase=Phase.ERRORED.value, reason="StoppedBeforeStart", attempts=(ANY,))


def agent_lost(story: Story) -> Expected:
    """Its agent is killed again and again: the operator deletes the pod, and the next attempt is stopped and uploaded."""
    story.begin()
    pod = story.capture(1)
    story.operator.mark()
    name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
    story.api.tell_pod(name, crashing("recorder", "agent"))
    story.wait("its pod is deleted", lambda: uid not in story.pods_now())
    pod = story.capture(2)
    story.api.stop(NAME)
    _seen(story)
    _end(story, pod, "Requested")
    story.finished()
    return Expected(phase="Uploaded", reason="Uploaded", attempts=(ANY, "Finished"))


STORIES: Final[Mapping[str, Callable[[Story], Expected]]] = {
    "recorded": recorded,
    "lost": lost,
    "deleted": deleted,
    "stopped-early": stopped_early,
    "agent-lost": agent_lost,
}


def kill_operator_at(place: Place, room: str, story: str, failpoint: Failpoint | None) -> Aftermath:
    """Tell a story while the operator dies at a failpoint, once; None records what it passes only."""
    assert place.operator is not None, "the campaign starts what its kinds need"
    folder = place.folder / room
    folder.mkdir(parents=True)
    _call(place.livekit, room, begin=True)
    with place.operator.tenant(room) as kube:
        operator = Operator(place.operator, folder, failpoint)
        with operator.running():
            told = Story(kube, operator, f"{room}_call")
            after = told.aftermath(STORIES[story](told), _secrets(place.operator))
    _call(place.livekit, room, begin=False)
    if failpoint is None:
        return after
    return replace(after, faults={str(failpoint): len(operator.kills)})


def _seen(story: Story) -> None:
    def look() -> bool:
        wanted = story.recording["metadata"]["generation"]
        return bool(story.recording["status"].get("observedGeneration") == wanted)

    story.wait("the operator has seen the wish", look)


def _told(story: Story, reason: str) -> bool:
    return any(one["reason"] == reason for one in story.recording["status"].get("transitions", ()))


def _end(story: Story, pod: dict[str, Any], stop_reason: str) -> None:
    """The agent ends the recording, the pod has done its work."""
    name, job = pod["metadata"]["name"], pod["metadata"]["labels"]["job-name"]
    story.api.report(job, {"phase": "Finished", "stopReason": stop_reason, "epochMs": 1, "firstPacketAtMs": 1})
    story.api.tell_pod(name, ended("recorder", "agent", **GOOD, **URI, stopReason=stop_reason))


def _secrets(place: OperatorPlace) -> dict[str, str]:
    own = yaml.safe_load(place.operator_kubeconfig.read_text())["users"][0]["user"]["token"]
    return {"the SFU's secret": place.livekit.api_secret, "the operator's token": own}


def _call(server: LiveKitInfo, room: str, *, begin: bool) -> None:
    """Begin or end the call that is recorded."""

    async def do() -> None:
        async with api.LiveKitAPI(server.http_url, server.api_key, server.api_secret) as client:
            if begin:
                await client.room.create_room(api.CreateRoomRequest(name=f"{room}_call", empty_timeout=600))
            else:
                await client.room.delete_room(api.DeleteRoomRequest(room=f"{room}_call"))

    asyncio.run(do())
