"""Recorder pods without a cluster: the two entry points as processes of their own, restarted as the kubelet would.

A Pod has the folders and the environment of one attempt. A Container is one of its two processes through all its restarts. The
recorder is restarted in place at once, as the kubelet does with a sidecar whose last start is not the third in a row.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Protocol, Self
from urllib.parse import urlsplit

from isotrack_api.base import DEFAULT_CHECKPOINT_SECONDS
from isotrack_api.intent import Intent, LiveKitSource, RecordingRef, S3Destination
from isotrack_dev.servers import LiveKitInfo, S3Info
from isotrack_recorder.ship.kube import KubeSettings
from isotrack_recorder.sources.livekit.access import MintedTokens
from isotrack_recorder.spool.journal import decode_journal
from isotrack_recorder.spool.journal_files import PAST_NAME, journal_numbers, journal_path
from support.waiting import until

from .evidence import Kill
from .runner import FOLDER, PREFIX

RECORDER: Final = Path(sys.executable).with_name("isotrack-recorder")
TESTS: Final = Path(__file__).parents[1]
END_SECONDS: Final = 90.0
"""For whoever is to end."""
GOOD_ENDS: Final = (0, -signal.SIGTERM)
"""Of a recorder. −SIGTERM: it had been killed a moment ago, and was told to go before it could listen."""
Command = Literal["capture", "agent"]
VICTIMS: Final[Mapping[str, str]] = {
    "capture": "recorder",
    "agent": "agent",
    "finalise": "finaliser",
    "sweep": "sweeper",
    "check": "checker",
    "shipper": "shipper",
    "operator": "operator",
}
"""What people call a process, by what a failpoint calls it."""


class Recorder(Protocol):
    """Whoever recorded: a pod, or `isotrack record`."""

    @property
    def prefix(self) -> str:
        """Of the recording's keys."""

    @property
    def termination(self) -> Mapping[str, object] | None:
        """Its last words for machines; None where it speaks to people only."""

    def finish(self) -> object:
        """Wait until it has done its work.

        Raises:
            AssertionError: It ended badly, or not at all.
        """

    def outputs(self) -> dict[str, bytes]:
        """All that it has written for people."""

    def secrets(self) -> dict[str, str]:
        """What must not be in any output, by what it is."""


@dataclass(slots=True)
class Container:
    """One of the two processes, through all its restarts."""

    command: Command
    environment: Mapping[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    started_ns: int = 0
    """When its present process was started, CLOCK_MONOTONIC."""
    pids: list[int] = field(default_factory=list)
    """Of all its processes."""

    def start(self, extra: Mapping[str, str] | None = None, program: tuple[str, ...] = ()) -> None:
        """Start it, or start it again. `program` instead of the entry point: see `runner`."""
        assert self.process is None or self.process.poll() is not None, f"{self.command} is still running"
        self.started_ns = time.monotonic_ns()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*(program or (str(RECORDER),)), self.command],
                env={**self.environment, **(extra or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.starts += 1
        self.pids.append(self.process.pid)

    def kill(self) -> Kill:
        """SIGKILL; it is gone afterwards."""
        assert self.process is not None
        running = self.process.poll() is None
        at = time.time()
        self.process.kill()
        code = self.process.wait()
        return Kill(VICTIMS[self.command], at, running and code == -signal.SIGKILL)

    def wait(self, seconds: float) -> int:
        """Its exit code.

        Raises:
            AssertionError: It runs on; with the end of its log.
        """
        assert self.process is not None
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.command} runs on after {seconds:g} s: {self.tail()}") from None

    @property
    def has_ended(self) -> bool:
        """Whether it was started and runs no more."""
        return self.process is not None and self.process.poll() is not None

    def terminate(self) -> None:
        """SIGTERM."""
        assert self.process is not None
        self.process.terminate()

    def tail(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-1500:]


@dataclass(slots=True)
class Pod:
    """One attempt's pod: use as a context manager, its processes are gone afterwards."""

    folder: Path
    livekit: LiveKitInfo
    s3: S3Info
    room: str
    attempt: int = 1
    endpoint: str = ""
    """Of a proxy before the S3 server; empty = the server itself."""
    api: KubeSettings | None = None
    """The API server of the agent; None = there is no cluster."""
    more: Mapping[str, str] = field(default_factory=dict)
    """Further environment of both processes."""
    checkpoint_seconds: int = DEFAULT_CHECKPOINT_SECONDS
    beside: bool = False
    """It joins beside the attempt before, under the other identity of two."""
    recorder: Container = field(init=False)
    agent: Container = field(init=False)
    intent: Intent = field(init=False)
    token: str = field(init=False)

    def __post_init__(self) -> None:
        secret = self.folder / "storage"
        secret.mkdir(parents=True)
        (self.folder / "run").mkdir()
        (secret / "accessKeyId").write_text(self.s3.access_key)
        (secret / "secretAccessKey").write_text(self.s3.secret_key)
        identity = f"isotrack-{self.room}" + ("-2" if self.beside and self.attempt % 2 == 0 else "")
        self.token = MintedTokens(self.livekit.api_key, self.livekit.api_secret, self.room, identity).current()
        (self.folder / "token").write_text(self.token)
        recording = RecordingRef(
            namespace=self.api.namespace if self.api else "faults",
            name=self.api.recording if self.api else self.room[:40],
            uid=self.api.uid if self.api else str(uuid.uuid5(uuid.NAMESPACE_URL, self.room)),
        )
        storage = S3Destination(
            bucket=self.s3.bucket,
            prefix=PREFIX,
            endpoint=self.endpoint or self.s3.endpoint,
            region=self.s3.region,
            checkpoint_seconds=self.checkpoint_seconds,
        )
        self.intent = Intent(
            recording=recording,
            attempt=self.attempt,
            call_id=self.room,
            source=LiveKitSource(url=self.livekit.url, identity=identity),
            storage=storage,
            folder=f"{FOLDER}/{self.room}",
        )
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(TESTS),  # for the runner
            "ISOTRACK_INTENT": self.intent.to_json(),
            "ISOTRACK_TOKEN_FILE": str(self.folder / "token"),
            "ISOTRACK_SPOOL": str(self.spool),
            "ISOTRACK_RUN": str(self.folder / "run"),
            "ISOTRACK_STORAGE_CREDENTIALS": str(secret),
            "ISOTRACK_TERMINATION_LOG": str(self.folder / "termination-log"),
            **self.more,
        }
        if self.api:
            server = urlsplit(self.api.server)
            environment |= {
                "KUBERNETES_SERVICE_HOST": str(server.hostname),
                "KUBERNETES_SERVICE_PORT": str(server.port),
                "ISOTRACK_SERVICE_ACCOUNT": str(self.api.token_file.parent),
                "ISOTRACK_REPORT": self.api.report,
            }
        self.recorder = Container("capture", environment, self.folder / "recorder.log")
        self.agent = Container("agent", environment, self.folder / "agent.log")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End what still runs."""
        for container in (self.recorder, self.agent):
            if container.process is not None:
                container.kill()

    @property
    def spool(self) -> Path:
        return self.folder / "spool"

    @property
    def prefix(self) -> str:
        """Of the recording's keys."""
        return f"{PREFIX}/{self.intent.folder}/"

    @property
    def termination(self) -> dict[str, Any]:
        """The agent's last words; empty before it spoke any."""
        try:
            loaded: dict[str, Any] = json.loads((self.folder / "termination-log").read_text())
        except FileNotFoundError:
            return {}
        return loaded

    def finish(self, good: Collection[int] = GOOD_ENDS) -> int:
        """Wait for the agent's end, then end the recorder as the kubelet does; the recorder's exit code.

        Raises:
            AssertionError: The agent ended badly, the recorder with another code than `good`, or one of them runs on.
        """
        code = self.agent.wait(END_SECONDS)
        assert code == 0, f"the agent ended with {code}: {self.agent.tail()}"
        self.recorder.terminate()
        code = self.recorder.wait(END_SECONDS)
        assert code in good, f"the recorder ended with {code}: {self.recorder.tail()}"
        return code

    def outputs(self) -> dict[str, bytes]:
        """All that its processes have written for people."""
        names = ("recorder.log", "agent.log", "termination-log")
        paths = [path for name in names if (path := self.folder / name).exists()]
        return {f"attempt {self.attempt}: {path.name}": path.read_bytes() for path in paths}

    def secrets(self) -> dict[str, str]:
        """What must not be in any output, by what it is."""
        found = {"the storage's secret key": self.s3.secret_key, "the SFU's secret": self.livekit.api_secret}
        found[f"the join token of attempt {self.attempt}"] = self.token
        if self.api is not None:
            found[f"the API token of attempt {self.attempt}"] = self.api.token_file.read_text()
        kept = self.folder / "run" / "token"
        if kept.exists():
            found[f"the newer join token of attempt {self.attempt}"] = kept.read_text()
        return found

    def left_at(self) -> float:
        """When the recorder's newest process had stopped capturing.

        Raises:
            AssertionError: It has not said so within 30 s.
        """

        def look() -> float:
            journals = sorted(self.spool.glob("i*/journal.ndjson"))
            events = list(decode_journal(journals[-1].read_bytes()))
            offsets = [event["wall_ns"] - event["at"] for event in events if event["e"] == "start"]
            return next(((event["at"] + offsets[-1]) / 1e9 for event in events if event["e"] == "stop"), 0.0)

        return until(look, f"{self.room}: attempt {self.attempt} has left the call", seconds=30)

    def captures(self, tracks: int) -> bool:
        """Whether the present process of the recorder receives so many tracks."""
        return captures(self.spool, self.recorder.started_ns, tracks)


def captures(spool: Path, since_ns: int, tracks: int) -> bool:
    """Whether a process that was started after that instant (CLOCK_MONOTONIC) receives so many tracks."""
    folders = sorted(spool.glob("i*"))
    own, seen = False, set()
    for event in decode_journal(_journal(folders[-1])) if folders else ():
        if event["e"] == "start":
            own = event["at"] >= since_ns
        elif event["e"] == "codec":
            seen.add(event["track"])
    return own and len(seen) >= tracks


def _journal(folder: Path) -> bytes:
    """All that is there of an incarnation's journal."""
    paths = [folder / PAST_NAME, *(journal_path(folder, number) for number in journal_numbers(folder))]
    found = []
    for path in paths:
        with suppress(FileNotFoundError):  # given back at this moment, or nothing was yet
            found.append(path.read_bytes())
    return b"".join(found)
