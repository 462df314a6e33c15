"""`python -m faults.runner {capture|agent|finalise|sweep|check|operator …}`: the real entry point, in a process that notes what it passes and dies where it is told.

    FAULTS_TRACE=FILE       append a line for each passage of a site
    FAULTS_AT=…             a `sites.Failpoint`: die there by SIGKILL, at once and without a word; unless the trace says that this was done
    FAULTS_TIMES=1          end each line with the wall clock as this process sees it
    FAULTS_SEGMENT_BYTES=…  (capture) close segments of the spool at that size, so that a short call has many
    FAULTS_QUIET_SECONDS=…  (agent) wait only so long for a sign of life of an attempt that was lost: the trial knows that there is none

Wrapped are the calls by which a process changes something that outlives it: file system calls (`os`), requests to the object
storage (botocore's one door), requests that write to the API server (aiohttp's one door). The entry point itself is the product's.
`python -m faults.runner record …` is `isotrack record`, and what dies is the process that ships beside it (`shipper`).
"""

from __future__ import annotations

import asyncio
import functools
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from .sites import TORN, Failpoint, parse, plain, write_of

FIRED: Final = "fired"
PREFIX: Final = "faults"
"""Of all keys of a campaign in its bucket."""
FOLDER: Final = "faults"
"""What a namespace is elsewhere: below it each recording has a folder."""


class Tracer:
    """Counts passages; dies at one of them. Thread-safe."""

    def __init__(self, trace: Path, at: Failpoint | None, roots: Sequence[Path], *, times: bool = False) -> None:
        self._fd = os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._at = at
        self._times = times
        self._roots = [(str(root.parent) + "/", root.name) for root in roots]
        self._lock = threading.Lock()
        self._count = 0
        self._write = os.write  # NB: before anything is wrapped

    def passes(self, site: str, call: Callable[[], Any], torn: Callable[[], object] | None = None) -> Any:
        """Do what happens at a site, or some of it."""
        due = self._note(site)
        if due == "before":
            self._die()
        if due == TORN and torn is not None:
            torn()
            self._die()
        try:
            return call()
        finally:
            if due == "after":
                self._die()

    async def passes_async(self, site: str, call: Callable[[], Any]) -> Any:
        """The same for a coroutine function."""
        due = self._note(site)
        if due == "before":
            self._die()
        try:
            return await call()
        finally:
            if due == "after":
                self._die()

    def place(self, path: object) -> str:
        """How a site names a path: relative to the pod's folders; empty for one that is not in them."""
        if isinstance(path, int):
            try:
                path = os.readlink(f"/proc/self/fd/{path}")  # noqa: PTH115 - pathlib's is slower, and this is on every write
            except OSError:
                return ""
        text = os.fspath(path) if isinstance(path, str | os.PathLike) else ""
        for parent, name in self._roots:
            if text.startswith(f"{parent}{name}/"):
                return plain(text.removeprefix(parent))
        return ""

    def _note(self, site: str) -> str:
        with self._lock:
            self._write(self._fd, (f"{site} {time.time()}\n" if self._times else f"{site}\n").encode())
            if self._at is None or site != self._at.site:
                return ""
            self._count += 1
            return self._at.side if self._count == self._at.nth else ""

    def _die(self) -> None:
        self._write(self._fd, f"{FIRED} {time.time()}\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)


def wrap_files(tracer: Tracer) -> None:
    """Wrap the calls of `os` that change what lies in the pod's folders."""

    def one(name: str, which: int = 0) -> None:
        real = getattr(os, name)

        @functools.wraps(real)
        def wrapped(*arguments: Any, **more: Any) -> Any:
            place = tracer.place(arguments[which])
            if not place:
                return real(*arguments, **more)
            return tracer.passes(f"{name} {place}", lambda: real(*arguments, **more), lambda: _torn(name, arguments))

        setattr(os, name, wrapped)

    write = os.write

    def _torn(name: str, arguments: Sequence[Any]) -> None:
        data = b"".join(arguments[1]) if name == "writev" else bytes(arguments[1])
        write(arguments[0], data[: len(data) // 2])

    for name in ("fsync", "mkdir", "unlink", "ftruncate", "writev", "write", "posix_fallocate"):
        one(name)
    for name in ("rename", "replace", "link"):
        one(name, 1)


def wrap_storage(tracer: Tracer) -> None:
    """Wrap each request to the object storage, repetitions included."""
    from botocore.client import BaseClient

    real = BaseClient._make_api_call  # type: ignore[attr-defined]

    def call(client: Any, operation: str, parameters: dict[str, Any]) -> Any:
        key = str(parameters.get("Key", parameters.get("Prefix", ""))).removeprefix(f"{PREFIX}/")
        relative = key.partition("/")[2].partition("/")[2] if key.startswith(f"{FOLDER}/") else key
        return tracer.passes(f"s3 {operation} {plain(relative)}".rstrip(), lambda: real(client, operation, parameters))

    BaseClient._make_api_call = call  # type: ignore[attr-defined]


def wrap_api(tracer: Tracer) -> None:
    """Wrap each request that writes to the API server."""
    from aiohttp import ClientSession

    real = ClientSession._request

    async def request(session: ClientSession, method: str, url: Any, **more: Any) -> Any:
        site = write_of(method.upper(), str(url))
        if not site:
            return await real(session, method, url, **more)
        return await tracer.passes_async(site, lambda: real(session, method, url, **more))

    ClientSession._request = request  # type: ignore[method-assign, assignment]


def wrap_shipper() -> None:
    """Have what ships beside `isotrack record` run here, too; it gets our environment."""
    real = asyncio.create_subprocess_exec

    async def begin(*command: Any, **more: Any) -> asyncio.subprocess.Process:
        if command[1:3] == ("-m", "isotrack_recorder.cli.shipper"):
            command = (command[0], "-m", "faults.runner", "shipper", *command[3:])
        return await real(*command, **more)

    asyncio.create_subprocess_exec = begin


def close_segments_at(size: int) -> None:
    """Of the spool that this process writes."""
    from isotrack_recorder.spool import watermarks

    watermarks.MIN_SEGMENT_BYTES = watermarks.MAX_SEGMENT_BYTES = size  # type: ignore[misc]


def wait_for_the_lost(seconds: float) -> None:
    """Instead of the time after which nobody can be at work any more."""
    from isotrack_recorder.ship import recover

    vars(recover).update(GRACE_SECONDS=seconds, sign_of_life_seconds=lambda _interval: 0)


def main() -> int:
    """Wrap, then be the entry point."""
    command, *arguments = sys.argv[1:]
    if command == "record":
        wrap_shipper()
        from isotrack_recorder.cli import main as run_for_people

        return run_for_people([command, *arguments])
    tracer = _tracer([Path(arguments[0]) / "spool"] if command == "shipper" else [])
    size, quiet = os.environ.pop("FAULTS_SEGMENT_BYTES", ""), os.environ.pop("FAULTS_QUIET_SECONDS", "")
    if size and command == "capture":
        close_segments_at(int(size))
    if quiet and command == "agent":
        wait_for_the_lost(float(quiet))
    if command != "capture":
        wrap_api(tracer)
    if command == "operator":
        from isotrack_operator.__main__ import main as run_operator

        return run_operator(arguments)
    if command != "capture":
        wrap_storage(tracer)
    wrap_files(tracer)
    if command == "shipper":
        from isotrack_recorder.cli.shipper import main as run_shipper

        return run_shipper(arguments)
    from isotrack_recorder.pod import main as run_container

    return run_container([command])


def _tracer(roots: Sequence[Path]) -> Tracer:
    at, times = os.environ.pop("FAULTS_AT", ""), bool(os.environ.pop("FAULTS_TIMES", ""))
    folders = [Path(os.environ[name]) for name in ("ISOTRACK_SPOOL", "ISOTRACK_RUN") if name in os.environ]
    trace = Path(os.environ.pop("FAULTS_TRACE"))
    died = trace.exists() and fired_at(trace.read_text()) is not None
    return Tracer(trace, parse(at) if at and not died else None, [*roots, *folders], times=times)


def fired_at(trace: str) -> float | None:
    """When the newest death of a trace was; None when there was none."""
    return max((float(line.split()[1]) for line in trace.splitlines() if line.startswith(FIRED)), default=None)


if __name__ == "__main__":
    sys.exit(main())
