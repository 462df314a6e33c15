"""The operator without its watches: copies, queue, reconcilers, resync. `handlers` feeds it with events.

Keys name what to look at, never what happened: a Recording, a class, or a claim whose holder was deleted. At start everything is
listed before the first reconcile, so no decision rests on copies that are merely incomplete; each resync lists again and heals what
a lost event left behind.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Any

from .builders import names
from .calls import Calls
from .classes import ClassReconciler
from .cluster import Cluster
from .errors import ClusterError, ConfigError, NotFoundError
from .gather import is_finished
from .health import Health
from .kinds import JOB, POD, RECORDING, RECORDING_CLASS, WATCHED, Kind
from .queue import WorkQueue
from .reconcile import Reconciler, release_claim, utc_now
from .settings import Settings
from .store import Place, Store, place_of, version_of
from .sweep import Sweeper

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RecordingKey:
    """Look at a Recording."""

    place: Place

    def __str__(self) -> str:
        return "/".join(self.place)


@dataclass(frozen=True, slots=True)
class ClassKey:
    """Look at a class."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class ClaimKey:
    """Release a claim: its holder was deleted before it had a finalizer."""

    name: str
    holder: str

    def __str__(self) -> str:
        return self.name


Key = RecordingKey | ClassKey | ClaimKey


class Runtime:
    """Everything that lives as long as the process."""

    def __init__(self, cluster: Cluster, settings: Settings) -> None:
        self.settings = settings
        self.cluster = cluster
        self.store = Store()
        self.health = Health(time.monotonic)
        self._queue: WorkQueue[Key] = WorkQueue(self._work)
        self._with_counters: set[Place] = set()
        self._calls = Calls(lambda place: self._queue.add(RecordingKey(place)))
        self._recordings = Reconciler(
            cluster,
            self.store,
            self._calls,
            settings,
            lambda place, seconds: self._queue.add_after(RecordingKey(place), seconds),
            now=utc_now,
        )
        self._sweeper = Sweeper(cluster, self.store, settings, self.health)
        self._classes = ClassReconciler(
            cluster,
            self.store,
            settings,
            lambda name, seconds: self._queue.add_after(ClassKey(name), seconds),
            now=utc_now,
        )

    # -- events ---------------------------------------------------------------------------------------------------------------

    def saw(self, kind: Kind, body: dict[str, Any], *, deleted: bool) -> None:
        """A watch event: keep the copy, wake what it is about."""
        self.health.saw(kind, version_of(body))
        self.health.counters[f'isotrack_events_total{{kind="{kind.name}"}}'] += 1
        if deleted:
            self.store.drop(kind, body)
        elif not self.store.put(kind, body):
            return  # ours is newer: its reconcile was due to our own write
        self._wake_for(kind, body, deleted=deleted)

    def _wake_for(self, kind: Kind, body: dict[str, Any], *, deleted: bool) -> None:
        if kind is RECORDING:
            self._queue.add(RecordingKey(place_of(body)))
            if deleted and not is_finished(body):
                spec = body.get("spec") or {}
                claim = names.claim_name(spec.get("className", ""), (spec.get("call") or {}).get("id", ""))
                self._queue.add(ClaimKey(claim, body["metadata"]["uid"]))
        elif kind is RECORDING_CLASS:
            name = body["metadata"]["name"]
            self._queue.add(ClassKey(name))
            for place in self.store.recordings_of_class(name):
                recording = self.store.get(RECORDING, place)
                if recording is not None and not is_finished(recording):
                    self._queue.add(RecordingKey(place))
        else:
            about = self.store.recording_of(body)
            if about is not None:
                self._queue.add(RecordingKey(about))
            elif (name := self.store.class_of(body)) is not None:
                self._queue.add(ClassKey(name))

    # -- work -----------------------------------------------------------------------------------------------------------------

    async def _work(self, key: Key) -> None:
        started = time.monotonic()
        kind = type(key).__name__.removesuffix("Key").lower()
        outcome = "failed"
        try:
            match key:
                case RecordingKey(place):
                    counters = place in self._with_counters
                    self._with_counters.discard(place)
                    await self._recordings.reconcile(place, counters=counters)
                case ClassKey(name):
                    await self._classes.reconcile(name)
                case ClaimKey(name, holder):
                    await release_claim(self.cluster, self.settings.namespace, name, holder)
            outcome = "done"
        finally:
            labels = f'{{kind="{kind}",outcome="{outcome}"}}'
            self.health.counters[f"isotrack_reconciles_total{labels}"] += 1
            self.health.counters[f'isotrack_reconcile_milliseconds_total{{kind="{kind}"}}'] += round(
                (time.monotonic() - started) * 1000
            )

    async def prime(self) -> None:
        """List everything that is watched. Before the first reconcile, and at each resync.

        Raises:
            ConfigError: the CRDs are not there.
            ClusterError: the API server does not answer.
        """
        await self.cluster.read_version()
        for kind in WATCHED:
            before, listed, newest = self.store.uids(kind), set[str](), 0
            selector = names.SELECTOR if kind in (JOB, POD) else ""
            try:
                async for page in self.cluster.pages(kind, selector):
                    for body in page:
                        listed.add(body["metadata"]["uid"])
                        newest = max(newest, version_of(body))
                        self.store.put(kind, body)
            except NotFoundError as error:
                raise ConfigError(
                    f"Kubernetes does not know {kind.name}: install the CRDs (kubectl apply -f crds/)"
                ) from error
            for body in self.store.keep_only(kind, before, listed):
                self._wake_for(kind, body, deleted=True)
            self.health.listed(kind, newest)

    def wake_all(self) -> None:
        """Reconcile every class, and every Recording that is not over and done with."""
        for body in self.store.all(RECORDING_CLASS):
            self._queue.add(ClassKey(body["metadata"]["name"]))
        for body in self.store.all(RECORDING):
            if not is_finished(body) or names.FINALIZER in (body["metadata"].get("finalizers") or ()):
                self._with_counters.add(place_of(body))
                self._queue.add(RecordingKey(place_of(body)))

    async def run(self, running: asyncio.Event) -> None:
        """Work until cancelled; `running` is set once all tasks are there. `prime` comes first."""
        self.wake_all()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._queue.run(self.settings.workers, running), name="workers")
            tasks.create_task(self._calls.run(self.settings.room_poll_seconds), name="rooms")
            tasks.create_task(self._resync(), name="resync")
            tasks.create_task(self._sweeper.run(), name="sweep")

    async def _resync(self) -> None:
        while True:
            await asyncio.sleep(self.settings.resync_seconds)
            try:
                await self.prime()
            except (ClusterError, ConfigError) as error:
                log.warning("resync failed", extra={"fields": {"detail": str(error)}})
                continue
            self.wake_all()

    def gauges(self) -> dict[str, float]:
        """For /metrics."""
        found: dict[str, float] = {"isotrack_queue_depth": len(self._queue)}
        for body in self.store.all(RECORDING):
            key = f'isotrack_recordings{{phase="{(body.get("status") or {}).get("phase") or "None"}"}}'
            found[key] = found.get(key, 0) + 1
        return found
