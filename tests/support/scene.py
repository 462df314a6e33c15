"""A recording whose pods die: real agent processes on spools of a test's making, and the commands that finish what they left."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isotrack_api.intent import Intent, S3Destination
from isotrack_api.manifest import Manifest
from isotrack_dev.servers import S3Info
from isotrack_recorder.ship.checkpoints import STATE_NAME

from .bucket import Bucket
from .recorder_end import RecorderEnd
from .shipping import a_shipping_intent
from .spools import Call
from .stores import destination, write_secret
from .waiting import until

RECORDER = Path(sys.executable).with_name("isotrack-recorder")
ISOTRACK = Path(sys.executable).with_name("isotrack")


@dataclass
class Scene:
    """A recording, the folders of its pods, its folder in the bucket."""

    path: Path
    storage: S3Destination
    bucket: Bucket
    s3: S3Info

    @property
    def root(self) -> str:
        return f"{self.storage.prefix}/{self.intent().folder}"

    def intent(self, attempt: int = 1) -> Intent:
        return a_shipping_intent(attempt=attempt, storage=self.storage)

    def spool(self, pod: str) -> Path:
        return self.path / pod / "spool"

    def environment(self, pod: str, attempt: int = 1) -> dict[str, str]:
        """Of a pod, as the operator's Jobs set it, but for paths."""
        (self.path / pod / "tmp").mkdir(parents=True, exist_ok=True)
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "ISOTRACK_"))},
            "ISOTRACK_INTENT": self.intent(attempt).to_json(),
            "ISOTRACK_SPOOL": str(self.spool(pod)),
            "ISOTRACK_RUN": str(self.path / pod / "run"),
            "ISOTRACK_STORAGE_CREDENTIALS": str(self.path / "storage"),
            "ISOTRACK_TERMINATION_LOG": str(self.path / pod / "termination"),
            "TMPDIR": str(self.path / pod / "tmp"),
        }

    def start(self, command: str, pod: str, attempt: int = 1, **environment: str) -> subprocess.Popen[bytes]:
        """A pod's process."""
        variables = {**self.environment(pod, attempt), **environment}
        with (self.path / f"{pod}.log").open("ab") as output:
            return subprocess.Popen([RECORDER, command], env=variables, stdout=output, stderr=output)

    async def run(self, command: str, pod: str, attempt: int = 1, **environment: str) -> int:
        """A pod's process, until it ends."""
        process = self.start(command, pod, attempt, **environment)
        return await asyncio.to_thread(process.wait, 150)

    def log(self, pod: str) -> str:
        return (self.path / f"{pod}.log").read_text()

    def termination(self, pod: str) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads((self.path / pod / "termination").read_text())
        return loaded

    def by_hand(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`isotrack finalise` of somebody with the bucket's credentials."""
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "ISOTRACK_"))},
            "AWS_ACCESS_KEY_ID": self.s3.access_key,
            "AWS_SECRET_ACCESS_KEY": self.s3.secret_key,
            "AWS_REGION": self.s3.region,
            "AWS_ENDPOINT_URL_S3": self.s3.endpoint,
        }
        command = [str(ISOTRACK), "finalise", f"s3://{self.bucket.name}/{self.root}", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)

    def stored(self, suffix: str = "") -> list[str]:
        prefix = f"{self.root}/"
        return [key.removeprefix(prefix) for key in self.bucket.keys(prefix) if key.endswith(suffix)]

    def recording(self) -> Manifest:
        return self.bucket.manifest(f"{self.root}/")

    def media(self) -> dict[str, bytes]:
        return {name: self.bucket.read(f"{self.root}/{name}") for name in self.stored(".mkv")}


def a_scene(path: Path, s3: S3Info, bucket: Bucket, prefix: str) -> Scene:
    """A recording below this prefix, with a checkpoint a second."""
    write_secret(path / "storage", s3.access_key, s3.secret_key)
    storage = destination(s3, bucket=bucket.name, prefix=prefix, checkpoint_seconds=1)
    return Scene(path, storage, bucket, s3)


def copied(spool: Path) -> int:
    """Bytes of the spool that its agent knows to be in the bucket."""
    try:
        return sum(json.loads((spool / STATE_NAME).read_text())["sent"].values())
    except FileNotFoundError:
        return 0


def on_disk(spool: Path) -> int:
    return sum(path.stat().st_size for path in spool.glob("i*/*") if path.name != "reserve")


async def killed(scene: Scene, call: Call, pod: str = "pod", attempt: int = 1, *, until_s: float = 2.0) -> None:
    """An agent that is killed without a word once everything up to a moment is in checkpoints."""
    spool = scene.spool(pod)
    call.write(until=until_s)
    async with RecorderEnd(scene.path / pod / "run") as recorder:
        recorder.say("Capturing")
        process = scene.start("agent", pod, attempt)
        try:
            await asyncio.to_thread(until, lambda: copied(spool) == on_disk(spool), "everything in checkpoints")
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
