"""Trials in which the operator dies before or after one of its writes, and is started again: a Recording's whole life each.

    scenario:  user, kubelet and agent do something ─▶ wait until the Recording shows it ─▶ … ─▶ it is over ─▶ deleted ─▶ Aftermath

What follows upon the death is the second process' work alone. Each step waits for what the operator has to make of the one before,
so a scenario passes the same writes in every run.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from isotrack_dev import deploy
from isotrack_operator.builders import names
from support.waiting import until

from .evidence import Kill
from .operator_evidence import Aftermath, Expected
from .operator_place import KINDS, Api, Object, OperatorPlace
from .pods import TESTS
from .runner import fired_at
from .sites import MARK, Failpoint

NAME: Final = "standup"
STEP_SECONDS: Final = 60.0
RUNNER: Final = (sys.executable, "-m", "faults.runner", "operator", "run")


class Operator:
    """The operator's process, started again when it has died of its failpoint."""

    def __init__(
        self, place: OperatorPlace, folder: Path, failpoint: Failpoint | None, *, sweep_seconds: float = 0
    ) -> None:
        self._place, self._failpoint, self._sweep_seconds = place, failpoint, sweep_seconds
        self.trace, self.log = folder / "operator.trace", folder / "operator.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.kills: list[Kill] = []

    def start(self, at: str) -> None:
        """Run it; `at` = where to die."""
        flags = {
            "kubeconfig": self._place.operator_kubeconfig,
            "namespace": deploy.NAMESPACE,
            "recorder-image": "recorder:none",
            "liveness-port": 0,
            "room-poll-seconds": 0.3,
            "sweep-seconds": self._sweep_seconds,
            "log-format": "text",
        }
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.log.parent),
            "PYTHONPATH": str(TESTS),
            "FAULTS_TRACE": str(self.trace),
            "FAULTS_AT": at,
        }
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*RUNNER, *(f"--{name}={value}" for name, value in flags.items())],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def tend(self) -> None:
        """Start it again, without its failpoint, if it has died.

        Raises:
            AssertionError: It ended by itself.
        """
        assert self._process is not None
        code = self._process.poll()
        if code is None:
            return
        assert code == -signal.SIGKILL, f"the operator ended with {code}: {self.log.read_text()[-1500:]}"
        at = fired_at(self.trace.read_text())
        self.kills.append(Kill("operator", at or time.time(), at is not None))
        self.start("")

    def mark(self) -> None:
        """Note in the trace that from here on a scenario is different from others."""
        with self.trace.open("a") as trace:
            trace.write(f"{MARK}\n")

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run it, armed, as long as the block does."""
        self.start(str(self._failpoint) if self._failpoint else "")
        try:
            yield
        finally:
            assert self._process is not None
            self._process.kill()
            self._process.wait()


class Story:
    """One Recording, and what happens to it."""

    def __init__(self, kube: Api, operator: Operator, call: str) -> None:
        self.api, self.operator, self._call = kube, operator, call
        self.recording: Object = {}
        """As it was seen last."""
        self._jobs: dict[tuple[str, str], None] = {}
        self._pods: dict[tuple[str, str], None] = {}

    @property
    def uid(self) -> str:
        return str(self.recording["metadata"]["uid"])

    def begin(self, *finalizers: str) -> None:
        """A user applies the Recording."""
        self.recording = self.api.record(NAME, self._call, finalizers)

    def wait(self, what: str, holds: Callable[[], Any]) -> Any:
        """Look at everything again and again, until something holds."""

        def look() -> Any:
            self.operator.tend()
            self.look()
            return holds()

        return until(look, what, seconds=STEP_SECONDS, interval=0.1)

    def look(self) -> None:
        """See the Recording as it is, and note what there is of Jobs and pods."""
        self.recording = self.api.recording(NAME) or self.recording
        for job in self.api.belonging("jobs", self.uid):
            self._jobs[job["metadata"]["name"], job["metadata"]["uid"]] = None
        for pod in self.api.belonging("pods", self.uid):
            self._pods[pod["metadata"]["labels"]["batch.kubernetes.io/job-name"], pod["metadata"]["uid"]] = None

    def pod_of(self, end: str) -> Object:
        """Wait for the pod of the Job whose name ends so, and for all that it needs."""

        def there() -> Object | None:
            pods = [
                p for p in self.api.belonging("pods", self.uid) if p["metadata"]["labels"]["job-name"].endswith(end)
            ]
            return pods[0] if pods else None

        return dict(self.wait(f"the pod of …{end}", there))

    def pods_now(self) -> set[str]:
        """Uids of the pods that are there and are to stay."""
        pods = self.api.belonging("pods", self.uid)
        return {pod["metadata"]["uid"] for pod in pods if "deletionTimestamp" not in pod["metadata"]}

    def condition(self, kind: str) -> bool:
        """Whether a condition holds."""
        found = self.recording.get("status", {}).get("conditions", ())
        return any(one["type"] == kind and one["status"] == "True" for one in found)

    def capture(self, n: int) -> Object:
        """The pod of attempt `n` runs and captures; it."""
        pod = self.pod_of(f"-a{n}")
        job = pod["metadata"]["labels"]["job-name"]
        token = names.token_secret_name(job)
        self.wait("its join token is there", lambda: token in self._named("secrets"))  # all that a kubelet waits for
        self.api.tell_pod(pod["metadata"]["name"], running("recorder", "agent"))
        self.wait("its report, its rights and the finalizer are there", lambda: self._has_all(job))
        armed = int(time.time() * 1000)
        capturing = {"phase": "Capturing", "armedAtMs": armed, "firstPacketAtMs": armed, "epochMs": armed}
        self.api.report(job, {**capturing, "callSid": "RM_1"})
        self.wait("it captures", lambda: self.condition("Capturing") and len(self.attempts) == n)
        return pod

    @property
    def attempts(self) -> list[Object]:
        return list(self.recording.get("status", {}).get("attempts", ()))

    def _named(self, plural: str) -> set[str]:
        return {one["metadata"]["name"] for one in self.api.belonging(plural, self.uid)}

    def _has_all(self, job: str) -> object:
        held = names.FINALIZER in self.recording["metadata"].get("finalizers", ())
        return job in self._named("recordingreports") and self._named("rolebindings") and held

    def finished(self) -> None:
        """Wait until it is over and the operator has given back what it held."""
        self.wait("it is over", lambda: self.condition("Finished"))

        def given_back() -> bool:
            return names.FINALIZER not in self.recording["metadata"].get("finalizers", ()) and not self.api.claims(
                self.uid
            )

        with suppress(AssertionError):  # `held` says what is not
            self.wait("claim and finalizer are given back", given_back)

    def aftermath(self, expected: Expected, secrets: dict[str, str]) -> Aftermath:
        """Everything as plain values. The Recording is deleted, and what it leaves is given time to go."""
        last = self.recording
        held = [f"Lease {one['metadata']['name']}" for one in self.api.claims(self.uid)]
        held += [f"finalizer {name}" for name in last["metadata"].get("finalizers", ()) if name == names.FINALIZER]
        if self.api.recording(NAME):
            self.api.delete_recording(NAME)
        with suppress(AssertionError):  # `orphans` says what is left
            self.wait("all of it is gone", lambda: not self._left())
        outputs = {"the operator's log": self.operator.log.read_text(errors="replace")}
        outputs |= {"the Recording": json.dumps(last), "the Events": json.dumps(self.api.events())}
        return Aftermath(
            expected=expected,
            recording=last,
            kills=tuple(self.operator.kills),
            jobs=tuple(self._jobs),
            pods=tuple(self._pods),
            held=tuple(held),
            orphans=tuple(self._left()),
            outputs=outputs,
            secrets=secrets,
        )

    def _left(self) -> list[str]:
        found = [f"{one} {o['metadata']['name']}" for one in KINDS for o in self.api.belonging(one, self.uid)]
        found += [f"lease {one['metadata']['name']}" for one in self.api.claims(self.uid)]
        return found + (["the Recording"] if self.api.recording(NAME) else [])


def running(*containers: str) -> Object:
    """Status of a pod whose containers run."""
    now = _time()
    kinds = ("PodScheduled", "PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready")
    return {
        "phase": "Running",
        "startTime": now,
        "conditions": [{"type": kind, "status": "True", "lastTransitionTime": now} for kind in kinds],
        **_states(containers, {"running": {"startedAt": now}}, ready=True),
    }


def crashing(*containers: str) -> Object:
    """Status of a pod whose last container is killed again and again, and has been away for long."""
    status = running(*containers)
    long_ago = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 600))
    killed = {"exitCode": 137, "reason": "OOMKilled", "startedAt": long_ago, "finishedAt": long_ago}
    [agent] = status["containerStatuses"]
    agent |= {"ready": False, "started": False, "restartCount": 12}
    agent |= {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": killed}}
    return status


def ended(*containers: str, **said: Any) -> Object:
    """Status of a pod whose work is done; the last container says so."""
    now = _time()
    over = {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now}}
    status = {"phase": "Succeeded", **_states(containers, over, ready=False)}
    status["containerStatuses"][0]["state"]["terminated"]["message"] = json.dumps(said)
    return status


def _states(containers: tuple[str, ...], state: Object, *, ready: bool) -> Object:
    *sidecars, main = containers
    found = [
        {
            "name": n,
            "state": json.loads(json.dumps(state)),
            "ready": ready,
            "restartCount": 0,
            "image": "x",
            "imageID": "x",
        }
        for n in (*sidecars, main)
    ]
    return {"initContainerStatuses": found[:-1], "containerStatuses": found[-1:]}


def _time() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
