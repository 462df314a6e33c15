"""Trials in which the finaliser dies: the process that makes a recording of what a lost pod had copied to the bucket.

One recording is abandoned per campaign; each trial gets a bucket with a copy of what it left, has the finaliser die at a failpoint
in it, and runs it again, as its Job does.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from isotrack_dev.servers import S3Info, make_bucket
from support.bucket import Bucket

from .abandon import Left
from .evidence import Evidence, Kill
from .failing import fired_at
from .gather import Done, gather
from .people import LARGE
from .pod_changes import lose
from .pods import TESTS, Pod
from .sites import Failpoint
from .trial import Place, recorded, start

CALL_SECONDS: Final = 11.0
"""Two checkpoints, and pictures for a file of several parts."""
FINALISE_SECONDS: Final = 120.0
RUNNER: Final = (sys.executable, "-m", "faults.runner", "finalise")


def crash_finaliser(place: Place, room: str, failpoints: Sequence[Failpoint]) -> Evidence:
    """Finish the abandoned recording; the finaliser dies at a failpoint, once; without one, what it passes is recorded only."""
    left = place.abandoned.get(lambda: _abandon(place))
    folder = place.folder / room
    folder.mkdir()
    with _copy(place, left, f"finalise-{room}"[:63]) as bucket:
        run = _Finaliser(left.pod, bucket, folder)
        at = " ".join(map(str, failpoints))
        kills = [killed] if (killed := run(at)) else []
        if kills:
            again = run("")
            assert again is None, f"the finaliser was killed once more: {again}"
        faults = {str(failpoint): sum(kill.hit for kill in kills) for failpoint in failpoints}
        done = Done([left.pod], left.ledger, left.obliged, [left.lost, *kills], faults)
        outputs = {"the finaliser's log": run.log.read_bytes()}
        return replace(gather(bucket, done, outputs, last_words=False), copied=True)


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


@contextmanager
def _copy(place: Place, left: Left, name: str) -> Iterator[Bucket]:
    """A bucket of its own with what was left; it is gone afterwards."""
    server: S3Info = place.s3
    make_bucket(server.endpoint, server.access_key, server.secret_key, server.region, name)
    bucket = Bucket(server.endpoint, server.access_key, server.secret_key, name, server.region)
    try:
        for key, content in left.objects.items():
            bucket.write(key, content)
        yield bucket
    finally:
        bucket.remove()


class _Finaliser:
    """Runs of it, one after the other."""

    def __init__(self, pod: Pod, bucket: Bucket, folder: Path) -> None:
        self.log, self.trace = folder / "finaliser.log", folder / "finalise.trace"
        storage = pod.intent.storage
        assert storage is not None
        intent = pod.intent.model_copy(update={"storage": storage.model_copy(update={"bucket": bucket.name})})
        scratch = folder / "tmp"
        scratch.mkdir()
        self._environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(TESTS),
            "TMPDIR": str(scratch),
            "ISOTRACK_INTENT": intent.to_json(),
            "ISOTRACK_STOP_REASON": "Requested",
            "ISOTRACK_SILENCE_SECONDS": "0",  # what was copied looks as if it had just been written
            "ISOTRACK_STORAGE_CREDENTIALS": str(pod.folder / "storage"),
            "ISOTRACK_TERMINATION_LOG": str(folder / "termination-log"),
            "FAULTS_TRACE": str(self.trace),
        }

    def __call__(self, at: str) -> Kill | None:
        """Run it to its end; its death, if it died of a failpoint.

        Raises:
            AssertionError: It failed.
        """
        with self.log.open("ab") as log:
            environment = {**self._environment, "FAULTS_AT": at}
            done = subprocess.run(
                RUNNER, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=FINALISE_SECONDS
            )
        if done.returncode == -signal.SIGKILL:
            fired = fired_at(self.trace.read_text())
            return Kill("finaliser", fired or time.time(), fired is not None)
        assert done.returncode == 0, f"the finaliser ended with {done.returncode}: {self.log.read_text()[-1500:]}"
        return None
