"""Listen to a cluster while something is done to it: every version of its objects, every line of its pods' logs.

    API server ── one watch per kind ───────────────▶ ┐
    nodes' log folders ── each file opened when seen ▶ outputs(): content by name

What was deleted in between is there, too: an object was seen before it went, and a log that the kubelet removed is still open here.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final, Protocol, Self

import aiohttp

from .rawkube import Access

OURS: Final = "/apis/isotrack.dev/v1alpha1"
OBJECTS: Final[Mapping[str, str]] = {
    "Recordings": f"{OURS}/recordings",
    "RecordingReports": f"{OURS}/recordingreports",
    "RecordingClasses": f"{OURS}/recordingclasses",
    "Jobs": "/apis/batch/v1/jobs",
    "Pods": "/api/v1/pods",
    "Events": "/api/v1/events",
    "Leases": "/apis/coordination.k8s.io/v1/leases",
}
"""What people may read who may not read Secrets; of all namespaces."""
OF_A_RECORDING: Final = ("Recordings", "RecordingReports", "Jobs", "Pods", "Events")
"""What there is in the namespace of every Recording whose pod runs."""
LOOK_SECONDS: Final = 0.5
"""The log of a pod is there for longer; and an API server that is away is asked again as often."""


class Watch(Protocol):
    """Everything below a path of the API, then every change to it, in pieces of JSON; ends when the API server hangs up."""

    def __call__(self, path: str) -> AsyncIterator[bytes]: ...


class Overheard:
    """Use as an asynchronous context manager; it listens as long as the block runs, and keeps what it has heard."""

    def __init__(self, watch: Watch, log_folders: Sequence[Path]) -> None:
        """`log_folders`: /var/log/pods of each node, as seen from here; they may come and go."""
        self._watch, self._folders = watch, log_folders
        self._heard: dict[str, list[bytes]] = {what: [] for what in OBJECTS}
        self._logs: dict[str, BinaryIO] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [
            asyncio.create_task(self._listen(what, path), name=f"watch {what}") for what, path in OBJECTS.items()
        ]
        self._tasks.append(asyncio.create_task(self._look(), name="pod logs"))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._open_logs()
        for name, log in self._logs.items():
            with log:
                self._heard[f"log {name}"] = [log.read()]

    def outputs(self) -> dict[str, bytes]:
        """All that was heard, once the block is over: `Jobs`, …, and `log NAMESPACE_POD_UID/CONTAINER/N.log`."""
        return {name: b"".join(pieces) for name, pieces in self._heard.items()}

    async def _listen(self, what: str, path: str) -> None:
        while True:
            with suppress(OSError, aiohttp.ClientError):  # while the API server is away nobody says anything there
                async for piece in self._watch(path):
                    self._heard[what].append(piece)
            self._heard[what].append(b"\n")  # the last line may have been cut off
            await asyncio.sleep(LOOK_SECONDS)

    async def _look(self) -> None:
        while True:
            self._open_logs()
            await asyncio.sleep(LOOK_SECONDS)

    def _open_logs(self) -> None:
        for folder in self._folders:
            for path in folder.glob("*/*/*.log"):
                name = str(path.relative_to(folder))
                if name not in self._logs:
                    with suppress(FileNotFoundError):
                        self._logs[name] = path.open("rb")


def unheard(outputs: Mapping[str, bytes], namespace: str) -> list[str]:
    """What should have been heard of a namespace whose pods ran, and was not: nothing can be said of that (pure)."""
    ran = set()
    for line in outputs["Pods"].splitlines():
        try:
            pod = json.loads(line)["object"]
        except ValueError:
            continue
        meta = pod.get("metadata", {})
        if meta.get("namespace") == namespace and pod.get("status", {}).get("phase") == "Running":
            ran.add(f"log {namespace}_{meta['name']}_{meta['uid']}/")
    missing = [f"{start}…" for start in sorted(ran) if not any(name.startswith(start) for name in outputs)]
    if ran:
        told = f'"namespace":"{namespace}"'.encode()
        missing += [what for what in OF_A_RECORDING if told not in outputs[what]]
    return missing


def watching(access: Access) -> Watch:
    """Watches of a real API server."""

    async def watch(path: str) -> AsyncIterator[bytes]:
        unbounded = aiohttp.ClientTimeout(total=None, connect=10)
        async with (
            aiohttp.ClientSession(access.server, headers=access.headers, timeout=unbounded) as session,
            session.get(path, params={"watch": "1"}, ssl=access.tls) as answer,
        ):
            answer.raise_for_status()
            async for piece in answer.content.iter_any():
                yield piece

    return watch


__all__ = ["OBJECTS", "Overheard", "Watch", "unheard", "watching"]
