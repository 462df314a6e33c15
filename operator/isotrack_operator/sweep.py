"""Finish what nobody else finishes: recordings in a bucket whose Recording, or whose whole namespace, is gone.

The credentials of such a namespace are gone with it, so a class names others for its storage, in the operator's own namespace
(`credentials.operatorSecretName`); without them a storage is not swept. Every `sweep_seconds` each such storage gets a Job, one at a
time: its name is made of what it sweeps, so neither two operators nor two classes with one storage make two. The Job looks through the
bucket by itself; nothing is remembered here.

What a pod of ours works on is not the sweep's, and each Job is told which recordings those are. A bucket alone does not tell: pods whose
key was taken away, or whose network lost the storage that the sweep still reaches, write nothing for hours and capture on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence

from isotrack_api.intent import S3Destination
from isotrack_api.recording_class import RecordingClass

from .builders import names
from .builders.worker import build_sweep, sweep_name
from .cluster import Cluster
from .errors import AlreadyExistsError, ClusterError
from .gather import is_finished, read_class
from .health import Health
from .kinds import JOB, POD, RECORDING, RECORDING_CLASS, SECRET
from .resolve import destination_of
from .settings import Settings
from .store import Store, place_of
from .view import JobView, Object, view_job, view_pod

log = logging.getLogger(__name__)

MAX_AT_WORK = 10_000
"""Linux takes 128 KiB for one variable; these are nine bytes each."""

Sweep = tuple[S3Destination, str]
"""A place in object storage, and the operator's Secret for it."""


def sweeps_of(classes: Iterable[RecordingClass]) -> list[Sweep]:
    """What is to be swept: each place once, however many classes name it. Pure."""
    found = {
        sweep_name(destination, secret): (destination, secret)
        for one in classes
        for storage in one.spec.storages
        if (secret := storage.s3.credentials.operator_secret_name) is not None
        for destination in (destination_of(storage),)
    }
    return [found[name] for name in sorted(found)]


def recordings_at_work(store: Store) -> list[str]:
    """What folders of recordings end with that are not over, and that an attempt works on, or is about to."""
    found = []
    for body in store.all(RECORDING):
        uid, (namespace, _) = body["metadata"]["uid"], place_of(body)
        jobs, pods = (_of_attempts(store.of_recording(kind, uid, namespace)) for kind in (JOB, POD))
        live = [job for job in map(view_job, jobs) if not (job.complete or job.failed or job.deleting)]
        if not is_finished(body) and (live or not all(view_pod(pod).is_over for pod in pods)):
            found.append(names.uid8(uid))
    return sorted(found)


def _of_attempts(bodies: Iterable[Object]) -> list[Object]:
    return [body for body in bodies if names.ATTEMPT_LABEL in (body["metadata"].get("labels") or {})]


class Sweeper:
    """Starts the Jobs."""

    def __init__(self, cluster: Cluster, store: Store, settings: Settings, health: Health) -> None:
        self._cluster = cluster
        self._store = store
        self._settings = settings
        self._health = health

    async def run(self) -> None:
        """Sweep now and at each interval, until cancelled. With an interval of 0 nothing is swept."""
        while self._settings.sweep_seconds:
            await self.sweep()
            await asyncio.sleep(self._settings.sweep_seconds)

    async def sweep(self) -> None:
        """Start one Job per storage, unless its last one still works."""
        classes = (read_class(body) for body in self._store.all(RECORDING_CLASS))
        at_work = recordings_at_work(self._store)
        if len(at_work) > MAX_AT_WORK:
            log.warning("no sweep: too many recordings are at work", extra={"fields": {"recordings": len(at_work)}})
            return
        for destination, secret in sweeps_of(one for one in classes if one is not None):
            try:
                await self._sweep(destination, secret, at_work)
            except ClusterError as error:
                fields = {"bucket": destination.bucket, "detail": str(error)}
                log.warning("sweep did not start", extra={"fields": fields})

    async def _sweep(self, destination: S3Destination, secret: str, at_work: Sequence[str]) -> None:
        namespace, name = self._settings.namespace, sweep_name(destination, secret)
        found = await self._cluster.find(JOB, namespace, name)
        if found is not None:
            last = view_job(found)
            if not (last.complete or last.failed):
                return
            self._count(destination, last)
            await self._cluster.delete(JOB, namespace, name, uid=last.uid)
        if await self._cluster.find(SECRET, namespace, secret) is None:
            # Its pod would wait for the volume, and the Job with it, until somebody looked.
            fields = {"bucket": destination.bucket, "secret": secret}
            log.warning("sweep needs a Secret that is not there", extra={"fields": fields})
            return
        body = build_sweep(
            destination,
            secret,
            namespace=namespace,
            image=self._settings.recorder_image,
            pull_secrets=self._settings.recorder_pull_secrets,
            interval_seconds=self._settings.sweep_seconds,
            watch_seconds=self._settings.sweep_watch_seconds,
            at_work=at_work,
        )
        try:
            await self._cluster.create(body)
        except AlreadyExistsError:
            return  # the old one is still being taken away, or another operator was faster

    def _count(self, destination: S3Destination, last: JobView) -> None:
        outcome = "done" if last.complete else "failed"
        self._health.counters[f'isotrack_sweeps_total{{outcome="{outcome}"}}'] += 1
        if last.failed:
            fields = {"bucket": destination.bucket, "job": last.name, "detail": last.message}
            log.warning("sweep failed", extra={"fields": fields})
