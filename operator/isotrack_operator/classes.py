"""RecordingClass.status: does the SFU answer and take our credentials, do the storages that we have a Secret for?

The SFU is asked at each change and each resync. Storages are tried by Jobs (`storage_check`), whose ends bring the class back here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from isotrack_api.conditions import Condition, ConditionStatus, ConditionType, Reason
from isotrack_api.recording_class import (
    ClassMode,
    RecordingClass,
    RecordingClassStatus,
    Storage,
    StorageStatus,
)
from isotrack_api.resource import API_VERSION

from .builders import names
from .builders.check import build_check
from .calls import Ask
from .cluster import Cluster
from .decision import recheck
from .errors import AlreadyExistsError, ClusterError, ConflictError, NotFoundError, SourceError
from .kinds import JOB, POD, RECORDING_CLASS, SECRET
from .resolve import destination_of
from .settings import Settings
from .source import existing_rooms, read_access
from .storage_check import Seen, next_step, state_of, summary
from .store import Store
from .view import format_time, view_worker

log = logging.getLogger(__name__)

PROBE_ROOM = "isotrack-probe"
"""A name for ListRooms: without one the server would return all its rooms."""


def class_conditions(
    recording_class: RecordingClass, problem: tuple[str, str] | None, storages: Sequence[StorageStatus], now: datetime
) -> tuple[Condition, ...]:
    """Conditions of a class whose source has this problem (reason, message), and whose storages are so. Pure.

    `Ready` does not depend on storages: recordings have credentials of their own for them.
    """
    old = {condition.type: condition for condition in recording_class.status.conditions}
    source = (ConditionStatus.FALSE, *problem) if problem else (ConditionStatus.TRUE, Reason.SOURCE_AVAILABLE.value, "")
    ready = source if problem else (ConditionStatus.TRUE, Reason.AVAILABLE.value, "")
    if recording_class.spec.mode is ClassMode.DISABLED:
        ready = (ConditionStatus.FALSE, Reason.RECORDING_DISABLED.value, "mode is disabled: no recording starts")
    elif not recording_class.spec.calls and not problem:
        ready = (ConditionStatus.TRUE, Reason.AVAILABLE.value, "spec.calls is empty: nobody may record anything yet")

    def condition(kind: ConditionType, found: tuple[ConditionStatus, str, str]) -> Condition:
        before = old.get(kind)
        same = before is not None and before.status is found[0]
        return Condition(
            type=kind,
            status=found[0],
            reason=found[1],
            message=found[2][:1024],
            observed_generation=recording_class.metadata.generation,
            last_transition_time=before.last_transition_time if before and same else format_time(now),
        )

    storage = summary(storages)
    return (
        condition(ConditionType.READY, ready),
        condition(ConditionType.SOURCE_READY, source),
        *((condition(ConditionType.STORAGE_READY, storage),) if storage else ()),
    )


class ClassReconciler:
    """Keeps the status of classes true."""

    def __init__(
        self,
        cluster: Cluster,
        store: Store,
        settings: Settings,
        wake: Callable[[str, float], None],
        *,
        now: Callable[[], datetime],
        ask: Ask = existing_rooms,
    ) -> None:
        self._cluster = cluster
        self._store = store
        self._settings = settings
        self._wake = wake
        self._now = now
        self._ask = ask

    async def reconcile(self, name: str) -> None:
        """Look at one class and write its status if that changed."""
        body = self._store.get(RECORDING_CLASS, ("", name))
        if body is None:
            return
        found = RecordingClass.from_object(body)
        problem = await self._problem(found)
        storages, again_after = await self._storages(found)
        conditions = class_conditions(found, problem, storages, self._now())
        status = RecordingClassStatus(
            observed_generation=found.metadata.generation, conditions=conditions, storages=storages
        )
        if status != found.status:
            await self._write(found, status)
        if problem:
            again_after.append(recheck(conditions[1].last_transition_time, self._now()))
        if again_after:
            self._wake(name, min(again_after))

    async def _storages(self, found: RecordingClass) -> tuple[tuple[StorageStatus, ...], list[float]]:
        """What is known of the storages that we have a Secret for, and when to look again. Makes the Jobs that are due."""
        if found.metadata.deletion_timestamp is not None:
            return found.status.storages, []  # what we made now would be taken at once
        known = {status.name: status for status in found.status.storages}
        interval = timedelta(seconds=self._settings.storage_check_seconds)
        steps = []
        for storage in found.spec.storages:
            secret = storage.s3.credentials.operator_secret_name
            if secret is None or not interval:
                continue
            body, seen = await self._seen(found, storage, secret)
            step = next_step(seen, known.get(storage.name), self._now(), interval)
            if step.start:
                await self._start_check(body, seen)
            steps.append(step)
        return tuple(step.status for step in steps), [step.again_after for step in steps]

    async def _seen(self, found: RecordingClass, storage: Storage, secret_name: str) -> tuple[dict[str, Any], Seen]:
        """The Job for a storage as it is now, and what there is of it."""
        where = self._settings.namespace
        secret = await self._cluster.find(SECRET, where, secret_name)
        body = build_check(
            found,
            storage.name,
            destination_of(storage),
            secret_name,
            state=state_of(secret),
            namespace=where,
            image=self._settings.recorder_image,
            pull_secrets=self._settings.recorder_pull_secrets,
        )
        name = body["metadata"]["name"]
        job = self._store.get(JOB, (where, name))
        return body, Seen(
            name=storage.name,
            secret_name=secret_name,
            namespace=where,
            secret=secret,
            job_name=name,
            job=view_worker(job, self._store.all(POD), names.CHECKER) if job else None,
        )

    async def _start_check(self, body: dict[str, Any], seen: Seen) -> None:
        old = seen.job.job if seen.job else None
        if old is not None:  # of hours ago, and read
            await self._cluster.delete(JOB, seen.namespace, seen.job_name, uid=old.uid)
        try:
            self._store.put(JOB, await self._cluster.create(body))
        except AlreadyExistsError:
            return  # another operator was faster, or the old one is still being taken away: its event brings us back
        except ClusterError as error:
            # NB: no reason to leave the class without its other conditions.
            fields = {"storage": seen.name, "job": seen.job_name, "detail": str(error)}
            log.warning("storage check did not start", extra={"fields": fields})

    async def _problem(self, found: RecordingClass) -> tuple[str, str] | None:
        server = found.spec.source.livekit
        where = self._settings.namespace
        secret = await self._cluster.find(SECRET, where, server.credentials_secret_name)
        access = "does not exist" if secret is None else read_access(server.url, secret)
        if isinstance(access, str):
            text = f"Secret {server.credentials_secret_name} in namespace {where} {access}: create it with the keys apiKey and apiSecret"
            return Reason.SOURCE_SECRET_NOT_FOUND, text
        try:
            await self._ask(access, [PROBE_ROOM])
        except SourceError as error:
            return error.reason, str(error)
        return None

    async def _write(self, found: RecordingClass, status: RecordingClassStatus) -> None:
        metadata: dict[str, Any] = {
            "name": found.metadata.name,
            "uid": found.metadata.uid,
            "resourceVersion": found.metadata.resource_version,
        }
        body = {
            "apiVersion": API_VERSION,
            "kind": "RecordingClass",
            "metadata": metadata,
            "status": status.model_dump(mode="json", by_alias=True, exclude_none=True),
        }
        try:
            self._store.put(RECORDING_CLASS, await self._cluster.apply(body, "status"))
        except (ConflictError, NotFoundError):
            return  # it changed: its event brings us back
        ready = status.conditions[0]
        fields = {"class": found.metadata.name, "ready": ready.status.value, "reason": ready.reason}
        fields |= {f"storage_{one.name}": one.reason for one in status.storages}
        log.info("class checked", extra={"fields": fields})
