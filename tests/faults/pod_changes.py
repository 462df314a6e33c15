"""Trials in which pods come and go: lost with their spool as with their node, or drained while a successor takes over."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Self

from isotrack_recorder.errors import DrainedError
from support.waiting import until

from .evidence import Evidence, Kill
from .gather import Done, gather
from .pods import END_SECONDS, Pod
from .trial import Place, concluded, recorded, start

ISOTRACK: Final = Path(sys.executable).with_name("isotrack")
FINALISE_SECONDS: Final = 120.0
PODS: Final = 3
BESIDE: Final = {"ISOTRACK_HANDOVER_SECONDS": "15"}
"""How long a pod that is told to go captures on without an API server; a successor has joined by then, on a busy machine too."""


class Attempts:
    """Pods of one recording, one behind the other: use as a context manager, their processes are gone afterwards."""

    def __init__(self, place: Place, room: str, *, beside: bool = False) -> None:
        self._place, self._room, self._beside = place, room, beside
        self.all: list[Pod] = []

    @property
    def last(self) -> Pod:
        return self.all[-1]

    def begin(self, more: Mapping[str, str] | None = None) -> None:
        """Start the next one; `more` is its environment."""
        attempt = len(self.all) + 1
        folder = self._place.folder / self._room / f"attempt-{attempt}"
        place, beside = self._place, self._beside
        self.all.append(Pod(folder, place.livekit, place.s3, self._room, attempt, more=more or {}, beside=beside))
        start(self.last)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pod in self.all:
            pod.__exit__()


def replace_lost_pods(place: Place, room: str, seed: int) -> Evidence:
    """Pods are lost at random times, the next attempt begins at once; the last one ends the recording."""
    chance = random.Random(seed)
    kills: list[Kill] = []
    began = 0.0
    with Attempts(place, room) as pods:
        with place.studio.publishing(room) as ledger:
            while len(pods.all) < PODS:
                if pods.all:
                    kills.append(lose(pods.last))
                pods.begin()
                seen = recorded(pods.last)
                began = began or seen
                time.sleep(chance.uniform(1.0, 9.0))
            ended = place.end_call(room)
        return concluded(place, Done(pods.all, ledger, (began, ended), kills))


def finish_by_hand(place: Place, room: str, seed: int) -> Evidence:
    """The only pod is lost and nobody replaces it; somebody with the bucket's credentials finishes what lies there, twice."""
    chance = random.Random(seed)
    with Pod(place.folder / room, place.livekit, place.s3, room) as pod:
        with place.studio.publishing(room) as ledger:
            start(pod)
            began = at_work(place, pod)
            time.sleep(chance.uniform(2.0, 14.0))
            killed = lose(pod)
        outputs = {f"finalise {number}": finalise(place, pod) for number in (1, 2)}
        done = Done([pod], ledger, (began, killed.at), [killed])
        return gather(place.bucket, done, outputs, last_words=False)


def hand_over(place: Place, room: str, seed: int) -> Evidence:
    """Pods are told to go (SIGTERM) at random times; the successor's start and the signal come in either order."""
    chance = random.Random(seed)
    changes: list[Kill] = []
    drained = 0
    with Attempts(place, room) as pods:
        with place.studio.publishing(room) as ledger:
            pods.begin()
            began = at_work(place, pods.last)
            while len(pods.all) < PODS:
                time.sleep(chance.uniform(0.5, 3.0))
                before = pods.last
                signal_first = chance.random() < 0.5
                if signal_first:
                    before.agent.terminate()
                    time.sleep(chance.uniform(0.0, 0.5))
                pods.begin()
                at_work(place, pods.last)
                if not signal_first:
                    before.agent.terminate()
                changes.append(Kill("handed over", before.left_at(), hit=True))
                code = before.agent.wait(END_SECONDS)
                assert code == DrainedError.exit_code, f"a drained agent ended with {code}: {before.agent.tail()}"
                drained += 1
                before.recorder.terminate()
                before.recorder.wait(END_SECONDS)
            time.sleep(chance.uniform(0.5, 2.0))
            ended = place.end_call(room)
        faults = {"drained": drained}
        return concluded(place, Done(pods.all, ledger, (began, ended), changes, faults))


def overlap(place: Place, room: str, seed: int) -> Evidence:
    """Pods are told to go (SIGTERM) at random times; the successor joins beside each, and both record for a while."""
    chance = random.Random(seed)
    together = 0
    with Attempts(place, room, beside=True) as pods:
        with place.studio.publishing(room) as ledger:
            pods.begin(BESIDE)
            began = at_work(place, pods.last)
            while len(pods.all) < PODS:
                time.sleep(chance.uniform(0.5, 3.0))
                before = pods.last
                before.agent.terminate()
                time.sleep(chance.uniform(0.0, 0.5))
                pods.begin(BESIDE)
                both = at_work(place, pods.last)
                together += before.left_at() > both
                code = before.agent.wait(END_SECONDS)
                assert code == DrainedError.exit_code, f"a drained agent ended with {code}: {before.agent.tail()}"
                before.recorder.terminate()
                before.recorder.wait(END_SECONDS)
            time.sleep(chance.uniform(0.5, 2.0))
            ended = place.end_call(room)
        faults = {"recorded side by side": together}
        return concluded(place, Done(pods.all, ledger, (began, ended), [], faults))


def at_work(place: Place, pod: Pod) -> float:
    """Wait until a pod records everybody and its agent has said in the bucket who it is; when the former was seen.

    On a busy machine a Python process takes seconds to its first word: lost before that, a pod leaves nothing that could be finished,
    and a signal ends it without a word.
    """
    seen = recorded(pod)
    intent = f"{pod.prefix}attempts/{pod.attempt}/intent.json"
    until(lambda: place.bucket.keys(intent), f"the agent of {pod.room} has said who it is", seconds=END_SECONDS)
    return seen


def lose(pod: Pod) -> Kill:
    """Both processes die at the same instant, and their disk is gone."""
    first, second = pod.recorder.kill(), pod.agent.kill()
    for name in ("spool", "run"):
        shutil.rmtree(pod.folder / name, ignore_errors=True)
    return Kill("pod", first.at, first.hit and second.hit)


def finalise(place: Place, pod: Pod) -> bytes:
    """Run `isotrack finalise s3://…`; what it says.

    Raises:
        AssertionError: It failed.
    """
    environment = {
        "PATH": os.environ["PATH"],
        "AWS_ACCESS_KEY_ID": place.s3.access_key,
        "AWS_SECRET_ACCESS_KEY": place.s3.secret_key,
        "AWS_REGION": place.s3.region,
        "AWS_ENDPOINT_URL_S3": place.s3.endpoint,
    }
    # --force: it would look for a minute whether the recording goes on, and we know that it does not.
    command = [str(ISOTRACK), "finalise", "--force", f"s3://{place.s3.bucket}/{pod.prefix.rstrip('/')}"]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=FINALISE_SECONDS)
    said = done.stdout + done.stderr
    assert done.returncode == 0, f"finalise ended with {done.returncode}: {said[-1500:].decode(errors='replace')}"
    return said
