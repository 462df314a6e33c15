"""The process that delivers, of `bench.delivery`: what the agent does with a spool, without the pod around it.

It reads one JSON object per line and answers each with one: {"until": seconds} is a round of the call, {"stop": true} its end. It
imports what the agent imports, so its memory is the agent's.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from isotrack_api.intent import Intent, S3Destination
from isotrack_recorder.pod.heap import share_one_heap
from isotrack_recorder.ship.checkpoints import Checkpoints
from isotrack_recorder.ship.credentials import AmbientCredentials
from isotrack_recorder.ship.deliver import Delivery, End
from isotrack_recorder.ship.lanes import Lanes
from isotrack_recorder.ship.layout import layout_of
from isotrack_recorder.ship.preflight import check_storage
from isotrack_recorder.ship.recover import Recovery
from isotrack_recorder.ship.retry import REFUSED_PAUSE_SECONDS, Patience
from isotrack_recorder.ship.s3 import S3Store
from isotrack_recorder.ship.s3_errors import Consequence
from isotrack_recorder.ship.s3_requests import Requests
from isotrack_recorder.ship.store import ObjectInfo, Streamed

P = ParamSpec("P")
R = TypeVar("R")
SHARES = {
    "_begin_turn": "mux",
    "_mux": "mux",
    "_save": "mux",
    "_reclaim": "mux",
    "ship": "checkpoints",
    "_send": "send",
}
"""What a job in a lane counts to; all others, and the event loop, are the rest."""


@dataclass
class Meter:
    """Seconds of this process, by what they were for."""

    cpu: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    """CPU of jobs, by share."""
    jobs: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Wall time of jobs, by their name; several may run at a time."""
    requests: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Wall time of requests, by operation."""
    recorded_at: float = 0.0
    """When `recording.json` was put last (monotonic)."""

    def clear(self) -> None:
        """Begin anew."""
        for counter in (self.cpu, self.jobs, self.requests):
            counter.clear()


class MeteredLanes(Lanes):
    """Lanes that measure their jobs."""

    def __init__(self, meter: Meter) -> None:
        super().__init__()
        self._meter = meter

    async def file_job(self, job: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """See Lanes."""
        return await super().file_job(self._metered(job), *args, **kwargs)

    async def disk_job(self, job: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """See Lanes."""
        return await super().disk_job(self._metered(job), *args, **kwargs)

    def submit(self, job: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """See Lanes."""
        return super().submit(self._metered(job), *args, **kwargs)

    def _metered(self, job: Callable[P, R]) -> Callable[P, R]:
        name = getattr(job, "__name__", type(job).__name__)

        def run(*args: P.args, **kwargs: P.kwargs) -> R:
            cpu, wall = time.thread_time(), time.monotonic()
            try:
                return job(*args, **kwargs)
            finally:
                self._meter.cpu[SHARES.get(name, "rest")] += time.thread_time() - cpu
                self._meter.jobs[name] += time.monotonic() - wall

        return run


class MeteredRequests(Requests):
    """Requests whose time is measured."""

    meter: Meter

    def call(
        self,
        operation: str,
        send: Callable[[Any], R],
        expected: Mapping[Consequence, R] | None = None,
        *,
        patient: bool = False,
    ) -> R:
        """See Requests."""
        began = time.monotonic()
        try:
            return super().call(operation, send, expected, patient=patient)
        finally:
            self.meter.requests[operation] += time.monotonic() - began


class MeteredStore(S3Store):
    """A store that measures its requests."""

    def __init__(self, destination: S3Destination, patience: Patience, meter: Meter, recording: str) -> None:
        """`recording` is the key of `recording.json`."""
        credentials = AmbientCredentials()
        super().__init__(destination, credentials, patience)
        self._requests = requests = MeteredRequests(destination, credentials, patience)
        requests.meter = self._meter = meter
        self._recording = recording

    def put(self, key: str, body: bytes | Streamed, content_type: str) -> ObjectInfo:
        """See Store."""
        answer = super().put(key, body, content_type)
        if key == self._recording:
            self._meter.recorded_at = time.monotonic()
        return answer


class Call:
    """One call."""

    def __init__(self, spool: Path, intent: Intent) -> None:
        assert intent.storage is not None
        self._intent = intent
        self._spool = spool
        self._meter = Meter()
        self._lanes = MeteredLanes(self._meter)
        self._layout = layout_of(intent)
        patience = Patience(3600, refused_pause_seconds=REFUSED_PAUSE_SECONDS)
        self._store = MeteredStore(intent.storage, patience, self._meter, self._layout.recording)
        self._delivery = Delivery(spool, intent, self._store, self._lanes)
        self._now = 0.0
        self._checkpoints = Checkpoints(spool, intent, self._store, clock=lambda: self._now)
        self._cpu = 0.0

    async def begin(self) -> None:
        """Get to know the storage, as at the start of a pod."""
        await self._lanes.request(check_storage, self._store, self._layout, self._intent)
        self._meter.clear()
        self._cpu = time.process_time()

    async def round(self, until: float) -> dict[str, object]:
        """What the agent does every few seconds."""
        self._now = until
        if self._checkpoints.enabled:
            while await self._lanes.request(self._checkpoints.ship):
                pass
        await self._delivery.round()
        await self._delivery.reclaim(self._checkpoints.sent if self._checkpoints.enabled else None)
        return {}

    async def stop(self) -> dict[str, object]:
        """What the agent does at the end of a call, and what all of it took."""
        self._meter.jobs.clear()
        self._meter.requests.clear()
        sent, began, began_cpu = self._store.traffic.bytes_sent, time.monotonic(), time.process_time()
        delivered = await self._delivery.finish(End(recording_over=False))
        await self._lanes.request(self._checkpoints.close)
        scratch = self._spool / "ship" / "recovery"
        recording = await Recovery(self._store, self._lanes, self._layout, scratch, self._intent).finalise()
        ended = time.monotonic()
        assert recording is not None
        assert recording.manifest.complete
        return {
            "cpu": self._cpu_so_far(),
            "stop_cpu": time.process_time() - began_cpu,
            "recorded_seconds": self._meter.recorded_at - began,
            "ended_seconds": ended - began,
            "jobs": dict(self._meter.jobs),
            "requests": dict(self._meter.requests),
            "stop_bytes": self._store.traffic.bytes_sent - sent,
            "sizes": [file.bytes for file in delivered.files],
            "rss_mb": _peak_rss_mb(),
        }

    def close(self) -> None:
        """End the threads."""
        self._lanes.close()

    def _cpu_so_far(self) -> dict[str, float]:
        shares = {share: self._meter.cpu[share] for share in ("mux", "checkpoints", "send")}
        return {**shares, "rest": time.process_time() - self._cpu - sum(shares.values())}


def _peak_rss_mb() -> int:
    """NB: not `ru_maxrss`, which begins with what the process that started this one had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) // 1024


async def deliver(spool: Path, intent: Intent) -> None:
    """Follow a call, line by line."""
    with closing(Call(spool, intent)) as call:
        await call.begin()
        while line := await asyncio.to_thread(sys.stdin.readline):
            word = json.loads(line)
            answer = await (call.stop() if "stop" in word else call.round(word["until"]))
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    share_one_heap()
    asyncio.run(deliver(Path(sys.argv[1]), Intent.model_validate_json(sys.argv[2])))
