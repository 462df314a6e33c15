"""Trials of the Jobs that have no call: the finaliser, the sweeper, and the one that tries a storage. Each dies at a failpoint and is
run again, as its Job is.

One recording is abandoned per campaign; finaliser and sweeper get a bucket of their own per trial, with a copy of what it left and an
upload that nobody completes. Whoever tries a storage gets an empty bucket.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

from isotrack_api.conditions import Reason
from isotrack_api.intent import S3Destination
from isotrack_dev.servers import make_bucket
from support.bucket import Bucket

from .abandon import Left
from .evidence import Evidence, Kill
from .gather import Done, gather
from .operator_evidence import Aftermath
from .people import LARGE
from .pod_changes import lose
from .pods import TESTS, VICTIMS, Pod
from .runner import PREFIX, fired_at
from .sites import Failpoint
from .trial import Place, recorded, start

CALL_SECONDS: Final = 11.0
"""Two checkpoints, and pictures for a file of several parts."""
JOB_SECONDS: Final = 120.0
WATCH_SECONDS: Final = 0.2
"""How long a sweeper watches: several looks, and nobody else is there."""


def crash_finaliser(place: Place, room: str, failpoints: Sequence[Failpoint]) -> Evidence:
    """Finish the abandoned recording; the finaliser dies at a failpoint, once; without one, what it passes is recorded only."""
    left = place.abandoned.get(lambda: _abandon(place))
    storage = _storage(left.pod)

    def environment(bucket: Bucket) -> dict[str, str]:
        there = storage.model_copy(update={"bucket": bucket.name})
        return {
            "ISOTRACK_INTENT": left.pod.intent.model_copy(update={"storage": there}).to_json(),
            "ISOTRACK_STOP_REASON": "Requested",
            "ISOTRACK_SILENCE_SECONDS": "0",  # what was copied looks as if it had just been written
        }

    with _copy(place, left, room) as bucket:
        return _finish(place, room, "finalise", environment(bucket), failpoints, left, bucket)


def crash_sweeper(place: Place, room: str, failpoints: Sequence[Failpoint]) -> Evidence:
    """The same by a sweep of the storage, which has to find it first."""
    left = place.abandoned.get(lambda: _abandon(place))
    with _copy(place, left, room) as bucket:
        environment = {
            "ISOTRACK_SWEEP": _storage(left.pod).model_copy(update={"bucket": bucket.name}).to_json(),
            "ISOTRACK_SWEEP_SECONDS": "0",
            "ISOTRACK_SWEEP_WATCH_SECONDS": str(WATCH_SECONDS),
        }
        return _finish(place, room, "sweep", environment, failpoints, left, bucket)


def crash_check(place: Place, room: str, failpoints: Sequence[Failpoint]) -> Aftermath:
    """Try a storage; whoever does dies at a failpoint, once, and the next one has to say that it works, and to leave nothing behind."""
    storage = S3Destination(prefix=PREFIX, bucket=_name(room), endpoint=place.s3.endpoint, region=place.s3.region)
    environment = {"ISOTRACK_CHECK": storage.to_json(), "ISOTRACK_CHECK_NAME": "0123456789abcdef"}
    with _bucket(place, room) as bucket:
        job = _Job(place, room, "check", environment)
        kills = job.crash(failpoints)
        left = [f"object {key}" for key in bucket.keys("")] + [f"upload of {key}" for key in bucket.uploads()]
        assert job.said["reason"] == Reason.STORAGE_AVAILABLE, job.said
    return Aftermath(
        expected=None,
        kills=tuple(kills),
        faults=_faults(failpoints, kills),
        orphans=tuple(left),
        outputs={"the checker's log": job.log.read_text(errors="replace"), "its last words": json.dumps(job.said)},
        secrets={"the storage's secret key": place.s3.secret_key},
    )


def _finish(
    place: Place, room: str, command: str, environment: Mapping[str, str], failpoints: Sequence[Failpoint],
    left: Left, bucket: Bucket,
) -> Evidence:  # fmt: skip
    job = _Job(place, room, command, environment)
    kills = job.crash(failpoints)
    done = Done([left.pod], left.ledger, left.obliged, [left.lost, *kills], _faults(failpoints, kills))
    outputs = {f"the {VICTIMS[command]}'s log": job.log.read_bytes()}
    return replace(gather(bucket, done, outputs, last_words=False), copied=True)


def _faults(failpoints: Sequence[Failpoint], kills: Sequence[Kill]) -> dict[str, int]:
    return {str(failpoint): sum(kill.hit for kill in kills) for failpoint in failpoints}


def _abandon(place: Place) -> Left:
    room = place.room("abandoned-by-all")
    with (
        Pod(place.folder / room, place.livekit, place.s3, room) as pod,
        place.studio.publishing(room, LARGE) as ledger,
    ):
        start(pod)
        began = recorded(pod)
        time.sleep(CALL_SECONDS)
        lost = lose(pod)
    bucket = place.bucket
    objects = {key: bucket.read(key) for key in bucket.keys(pod.prefix)}
    return Left(pod, ledger, (began, lost.at), lost, objects)


def _storage(pod: Pod) -> S3Destination:
    storage = pod.intent.storage
    assert storage is not None
    return storage


def _name(room: str) -> str:
    return f"of-{room}"[:63]


@contextmanager
def _bucket(place: Place, room: str) -> Iterator[Bucket]:
    """A bucket of a trial's own; it is gone afterwards."""
    server, name = place.s3, _name(room)
    make_bucket(server.endpoint, server.access_key, server.secret_key, server.region, name)
    bucket = Bucket(server.endpoint, server.access_key, server.secret_key, name, server.region)
    try:
        yield bucket
    finally:
        bucket.remove()


@contextmanager
def _copy(place: Place, left: Left, room: str) -> Iterator[Bucket]:
    """A bucket with what was left, and with an upload that nobody completes; it is gone afterwards."""
    with _bucket(place, room) as bucket:
        for key, content in left.objects.items():
            bucket.write(key, content)
        bucket.begin_upload(f"{left.pod.prefix}default_alice_PA_1_peer_audio_video_1.mkv")
        yield bucket


class _Job:
    """Runs of one command, one after the other."""

    def __init__(self, place: Place, room: str, command: str, environment: Mapping[str, str]) -> None:
        folder = place.folder / room
        folder.mkdir()
        self.log, self.trace, self._last_words = folder / "job.log", folder / f"{command}.trace", folder / "last-words"
        self._command = command
        for name in ("tmp", "storage"):
            (folder / name).mkdir()
        (folder / "storage" / "accessKeyId").write_text(place.s3.access_key)
        (folder / "storage" / "secretAccessKey").write_text(place.s3.secret_key)
        self._environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(TESTS),
            "TMPDIR": str(folder / "tmp"),
            "ISOTRACK_STORAGE_CREDENTIALS": str(folder / "storage"),
            "ISOTRACK_TERMINATION_LOG": str(self._last_words),
            "FAULTS_TRACE": str(self.trace),
            **environment,
        }

    @property
    def said(self) -> dict[str, Any]:
        """Its last words."""
        said: dict[str, Any] = json.loads(self._last_words.read_text())
        return said

    def crash(self, failpoints: Sequence[Failpoint]) -> list[Kill]:
        """Run it to its end; where it died of a failpoint, once more. Its death.

        Raises:
            AssertionError: It failed, or was killed once more.
        """
        kills = [killed] if (killed := self._run(" ".join(map(str, failpoints)))) else []
        if kills:
            again = self._run("")
            assert again is None, f"the {VICTIMS[self._command]} was killed once more: {again}"
        return kills

    def _run(self, at: str) -> Kill | None:
        command = [sys.executable, "-m", "faults.runner", self._command]
        with self.log.open("ab") as log:
            environment = {**self._environment, "FAULTS_AT": at}
            done = subprocess.run(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=JOB_SECONDS
            )
        if done.returncode == -signal.SIGKILL:
            fired = fired_at(self.trace.read_text())
            return Kill(VICTIMS[self._command], fired or time.time(), fired is not None)
        assert done.returncode == 0, f"{self._command} ended with {done.returncode}: {self.log.read_text()[-1500:]}"
        return None
