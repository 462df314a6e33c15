"""Trials in which pods come and go: lost with their spool as with their node, or drained while a successor takes over."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from isotrack_recorder.errors import DrainedError
from support.waiting import until

from .evidence import Evidence, Kill
from .gather import Done, gather
from .pods import Pod
from .trial import END_SECONDS, Place, finish, recorded, start

ISOTRACK: Final = Path(sys.executable).with_name("isotrack")
FINALISE_SECONDS: Final = 120.0
PODS: Final = 3


def replace_lost_pods(place: Place, room: str, seed: int) -> Evidence:
    """Pods are lost at random times, the next attempt begins at once; the last one ends the recording."""
    chance = random.Random(seed)
    pods: list[Pod] = []
    kills: list[Kill] = []
    began = 0.0
    try:
        with place.studio.publishing(room) as ledger:
            while len(pods) < PODS:
                if pods:
                    kills.append(lose(pods[-1]))
                pods.append(_next_pod(place, room, pods))
                start(pods[-1])
                seen = recorded(pods[-1])
                began = began or seen
                time.sleep(chance.uniform(1.0, 9.0))
            ended = time.time()
            place.end_call(room)
        finish(pods[-1])
        return gather(place.bucket, Done(pods, ledger, (began, ended), kills))
    finally:
        for pod in pods:
            pod.__exit__()


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
    pods: list[Pod] = []
    changes: list[Kill] = []
    drained = 0
    try:
        with place.studio.publishing(room) as ledger:
            pods.append(_next_pod(place, room, pods))
            start(pods[-1])
            began = at_work(place, pods[-1])
            while len(pods) < PODS:
                time.sleep(chance.uniform(0.5, 3.0))
                before = pods[-1]
                signal_first = chance.random() < 0.5
                if signal_first:
                    before.agent.terminate()
                    time.sleep(chance.uniform(0.0, 0.5))
                pods.append(_next_pod(place, room, pods))
                start(pods[-1])
                at_work(place, pods[-1])
                if not signal_first:
                    before.agent.terminate()
                changes.append(Kill("handed over", before.left_at(), hit=True))
                code = before.agent.wait(END_SECONDS)
                assert code == DrainedError.exit_code, f"a drained agent ended with {code}: {before.agent.tail()}"
                drained += 1
                before.recorder.terminate()
                before.recorder.wait(END_SECONDS)
            time.sleep(chance.uniform(0.5, 2.0))
            ended = time.time()
            place.end_call(room)
        finish(pods[-1])
        faults = {"drained": drained}
        return gather(place.bucket, Done(pods, ledger, (began, ended), changes, faults))
    finally:
        for pod in pods:
            pod.__exit__()


def _next_pod(place: Place, room: str, pods: Sequence[Pod]) -> Pod:
    attempt = len(pods) + 1
    return Pod(place.folder / room / f"attempt-{attempt}", place.livekit, place.s3, room, attempt)


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
