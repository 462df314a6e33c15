"""Trials of `isotrack record --output s3://…`: the process that ships beside it dies at a failpoint, and is begun again by it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from isotrack_dev.servers import LiveKitInfo
from support.environment import of_servers
from support.waiting import until

from .evidence import Evidence, Kill
from .failing import ON_ITS_WAY_SECONDS
from .gather import Done
from .pods import END_SECONDS, TESTS, VICTIMS, captures
from .runner import FOLDER, PREFIX, fired_at
from .sites import Failpoint
from .trial import BACK_SECONDS, TRACKS, Place, concluded

SHIPPER: Final = "shipper"
CALL_SECONDS: Final = 8.0
"""A checkpoint, and then another one; the process that died is begun again after five seconds."""


@dataclass(slots=True)
class Standalone:
    """One run of `isotrack record`: use as a context manager, its processes are gone afterwards."""

    place: Place
    room: str
    at: str
    """Where what ships beside it is to die."""
    _process: subprocess.Popen[bytes] = field(init=False)
    _started_ns: int = field(init=False)

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True)
        self._started_ns = time.monotonic_ns()
        output = f"s3://{self.place.s3.bucket}/{PREFIX}/{FOLDER}"
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "faults.runner", "record", "--call", self.room, "--output", output],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()  # NB: what ships beside it sees that and ends
            self._process.wait()

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(TESTS),
            "XDG_STATE_HOME": str(self.folder / "state"),
            **of_servers(self.place.livekit, self.place.s3),
            "FAULTS_TRACE": str(self.trace),
            "FAULTS_AT": self.at,
        }

    @property
    def folder(self) -> Path:
        return self.place.folder / self.room

    @property
    def log(self) -> Path:
        return self.folder / "record.log"

    @property
    def trace(self) -> Path:
        """What its shipper passed."""
        return self.folder / f"{SHIPPER}.trace"

    @property
    def prefix(self) -> str:
        """Of the recording's keys."""
        above = f"{PREFIX}/{FOLDER}/"
        found = {
            key.removeprefix(above).partition("/")[0] for key in self.place.bucket.keys(f"{above}{self.room[:40]}-")
        }
        assert len(found) == 1, f"folders of {self.room}: {found}"
        return f"{above}{found.pop()}/"

    @property
    def termination(self) -> Mapping[str, object] | None:
        """It speaks to people only."""
        return None

    def outputs(self) -> dict[str, bytes]:
        """What it and its shipper have written for people."""
        return {"isotrack record": self.log.read_bytes()}

    def secrets(self) -> dict[str, str]:
        """What must not be in any output, by what it is."""
        server: LiveKitInfo = self.place.livekit
        return {"the storage's secret key": self.place.s3.secret_key, "the SFU's secret": server.api_secret}

    def recorded(self) -> float:
        """Wait until it receives everybody; the instant at which that was seen."""

        def look() -> bool:
            assert self._process.poll() is None, (
                f"isotrack record ended with {self._process.returncode}: {self._tail()}"
            )
            spools = [*self.folder.glob("state/isotrack/.isotrack-*/spool")]
            return bool(spools) and captures(spools[0], self._started_ns, TRACKS)

        until(look, f"everybody is recorded in {self.room}", seconds=BACK_SECONDS)
        return time.time()

    def finish(self) -> None:
        """Wait for its end.

        Raises:
            AssertionError: It ended badly, or not at all.
        """
        try:
            code = self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"isotrack record runs on: {self._tail()}") from None
        assert code == 0, f"isotrack record ended with {code}: {self._tail()}"

    def _tail(self) -> str:
        return self.log.read_text(errors="replace")[-1500:]


def crash_shipper(place: Place, room: str, failpoints: Sequence[Failpoint]) -> Evidence:
    """Record a call into the bucket while what ships dies at a failpoint, once; without one, what it passes is recorded only."""
    at = " ".join(map(str, failpoints))
    with ExitStack() as stack:
        with place.studio.publishing(room) as ledger:
            command = stack.enter_context(Standalone(place, room, at))  # NB: it refuses to wait for a call
            began = command.recorded()
            time.sleep(CALL_SECONDS)
            ended = place.end_call(room) - ON_ITS_WAY_SECONDS
        command.finish()
        fired = fired_at(command.trace.read_text())
        kills = [Kill(VICTIMS[SHIPPER], fired, hit=True)] if fired is not None else []
        faults = {str(failpoint): len(kills) for failpoint in failpoints}
        return concluded(place, Done([command], ledger, (began, ended), kills, faults))
