"""Put together the View of one Recording: copies from the store, and questions only where the gate needs their answers.

Questions are asked together. What decides about another attempt is never taken from a copy alone: an attempt that our status knows
and the store does not is looked up, and so are the holder of a claim and the class.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from isotrack_api.conditions import ConditionStatus, ConditionType
from isotrack_api.recording import Recording
from isotrack_api.recording_class import RecordingClass, Storage
from isotrack_api.recording_report import RecordingReport

from .builders import names
from .builders.lease import HOLDER_NAME, HOLDER_NAMESPACE
from .calls import Calls
from .cluster import Cluster
from .errors import OperatorError, cut
from .kinds import JOB, LEASE, NAMESPACE, POD, RECORDING, RECORDING_CLASS, RECORDING_REPORT, SECRET, SERVICE_ACCOUNT
from .plan import plan
from .resolve import storage_of
from .settings import Settings
from .source import Access, read_access
from .store import Store
from .together import together
from .view import (
    Account,
    Call,
    Claim,
    ClaimState,
    Secret,
    View,
    desired_state_manager,
    view_attempts,
    view_finaliser,
)

ACCESS_VALID = 5.0
"""Seconds for which credentials that were read are used again: one start needs them three times."""
_MAX_LOOKS = 3
"""At a class that somebody changes all the time."""


class Gatherer:
    """Asks the store, the API server and the SFU."""

    def __init__(self, cluster: Cluster, store: Store, calls: Calls, settings: Settings) -> None:
        self._cluster = cluster
        self._store = store
        self._calls = calls
        self._settings = settings
        self._access: dict[tuple[str, str], tuple[float, Access]] = {}
        self.starting: dict[str, tuple[str, str]] = {}
        """Recordings that passed the gate and are not seen as active yet: uid → (namespace, class)."""

    async def gather(self, body: Mapping[str, Any], now: Callable[[], datetime]) -> View:
        """Everything that the next decision about this Recording needs.

        Raises:
            ClusterError: the API server does not answer.
            OperatorError: the object is not what this version knows as a Recording.
        """
        for _ in range(_MAX_LOOKS):
            view = await self._known(body)
            if plan(view, now()).start is None:
                return view  # nothing that a question could change
            assert view.recording_class is not None
            asked, is_current = await together(self._ask(view), self._is_current(view.recording_class))
            if is_current:
                break
        return asked

    async def _known(self, body: Mapping[str, Any]) -> View:
        try:
            recording = Recording.from_object(body)
        except ValidationError as error:
            raise OperatorError(f"not a Recording of this version: {cut(error)}") from error
        namespace, uid = names.namespace_of(recording), names.uid_of(recording)
        await self._look_up_lost_jobs(recording)
        jobs = self._store.of_recording(JOB, uid, namespace)
        pods = self._store.of_recording(POD, uid, namespace)
        reports = [
            report
            for found in self._store.of_recording(RECORDING_REPORT, uid, namespace)
            if (report := read_report(found)) is not None
        ]
        recording_class = self._class(recording.spec.class_name)
        view = View(
            recording=recording,
            desired_by=desired_state_manager(body),
            recording_class=recording_class,
            attempts=view_attempts(
                recording,
                jobs,
                pods,
                reports,
            ),
            finaliser=view_finaliser(recording, jobs, pods),
            active_in_namespace=self._count_active(recording, recording_class),
        )
        if not view.attempts and recording_class and recording_class.spec.looks_at_labels:
            found = await self._cluster.find(NAMESPACE, None, namespace)
            view = replace(view, namespace_labels=((found or {}).get("metadata") or {}).get("labels") or {})
        return view

    async def _look_up_lost_jobs(self, recording: Recording) -> None:
        """Before "its Job was deleted" is believed: copies may lag behind what an earlier run wrote."""
        namespace = names.namespace_of(recording)
        for record in recording.status.attempts:
            if record.result is None and self._store.get(JOB, (namespace, record.job)) is None:
                job = await self._cluster.find(JOB, namespace, record.job)
                if job is not None:
                    self._store.put(JOB, job)

    async def _is_current(self, copy: RecordingClass) -> bool:
        """Whether a class is still as our copy has it. If not, the store takes what it is now.

        What an attempt was given stays: who changes a class and applies a Recording right behind means the changed one.
        """
        found = await self._cluster.find(RECORDING_CLASS, None, copy.metadata.name)
        if found is not None:
            self._store.put(RECORDING_CLASS, found)
            metadata = found["metadata"]
            return (metadata["uid"], metadata.get("generation")) == (copy.metadata.uid, copy.metadata.generation)
        known = self._store.get(RECORDING_CLASS, ("", copy.metadata.name))
        if known is not None and known["metadata"]["uid"] == copy.metadata.uid:
            self._store.drop(RECORDING_CLASS, known)
        return False

    def _class(self, name: str) -> RecordingClass | None:
        body = self._store.get(RECORDING_CLASS, ("", name))
        return read_class(body) if body else None

    def _count_active(self, recording: Recording, recording_class: RecordingClass | None) -> int:
        """Recordings of the same namespace and class that hold our finalizer, or are about to."""
        limits = recording_class.spec.limits if recording_class else None
        if limits is None or limits.concurrent_per_namespace is None:
            return 0  # nobody asks
        namespace, class_name = names.namespace_of(recording), recording.spec.class_name
        active = {uid for uid, key in self.starting.items() if key == (namespace, class_name)}
        for place in self._store.recordings_of_class(class_name):
            other = self._store.get(RECORDING, place) if place[0] == namespace else None
            if other and names.FINALIZER in (other["metadata"].get("finalizers") or ()):
                active.add(other["metadata"]["uid"])
        return len(active - {names.uid_of(recording)})

    async def _ask(self, view: View) -> View:
        assert view.recording_class is not None
        storage = storage_of(view.recording, view.recording_class)
        assert storage is not None
        # NB: all at once. Together they are the longest stretch between `kubectl apply` and the Job.
        (access, call), stored, account, claim = await together(
            self._ask_source(view),
            self._storage_secret(view.recording, storage),
            self._storage_account(view.recording, storage),
            self._claim(view.recording),
        )
        wanted = view.recording_class.spec.source.livekit.credentials_secret_name
        problem = access if isinstance(access, str) else ""
        secret = Secret(name=wanted, namespace=self._settings.namespace, problem=problem)
        return replace(
            view, source_secret=secret, storage_secret=stored, storage_account=account, claim=claim, call=call
        )

    async def _ask_source(self, view: View) -> tuple[Access | str, Call | None]:
        """Credentials, and with them whether the call exists; later attempts do not ask that."""
        assert view.recording_class is not None
        access = await self.source_access(view.recording_class)
        if isinstance(access, str) or view.attempts:
            return access, None
        spec = view.recording.spec
        return access, await self._calls.look(spec.class_name, spec.call.id, access)

    async def source_access(self, recording_class: RecordingClass) -> Access | str:
        """Credentials for the class's SFU from the operator's own namespace; text that says what is wrong."""
        server = recording_class.spec.source.livekit
        key = (server.url, server.credentials_secret_name)
        known = self._access.get(key)
        if known is not None and time.monotonic() - known[0] < ACCESS_VALID:
            return known[1]
        secret = await self._cluster.find(SECRET, self._settings.namespace, server.credentials_secret_name)
        found = "does not exist" if secret is None else read_access(server.url, secret)
        if isinstance(found, Access):
            self._access[key] = (time.monotonic(), found)
        return found

    async def _storage_secret(self, recording: Recording, storage: Storage) -> Secret | None:
        namespace, name = names.namespace_of(recording), storage.s3.credentials.secret_name
        if name is None:
            return None
        found = await self._cluster.has_secret(namespace, name)
        return Secret(name=name, namespace=namespace, problem="does not exist" if found is False else "")

    async def _storage_account(self, recording: Recording, storage: Storage) -> Account | None:
        namespace, name = names.namespace_of(recording), storage.s3.credentials.service_account_name
        if name is None:
            return None
        found = await self._cluster.find(SERVICE_ACCOUNT, namespace, name)
        return Account(name=name, namespace=namespace, exists=found is not None)

    async def _claim(self, recording: Recording) -> Claim:
        name = names.claim_name(recording.spec.class_name, recording.spec.call.id)
        lease = await self._cluster.find(LEASE, self._settings.namespace, name)
        if lease is None:
            return Claim(state=ClaimState.FREE)
        metadata = lease["metadata"]
        holder = (lease.get("spec") or {}).get("holderIdentity")
        notes = metadata.get("annotations") or {}
        claim = Claim(
            state=ClaimState.OURS,
            resource_version=metadata["resourceVersion"],
            holder_namespace=notes.get(HOLDER_NAMESPACE, ""),
            holder_name=notes.get(HOLDER_NAME, ""),
        )
        if holder == names.uid_of(recording):
            return claim
        return replace(claim, state=ClaimState.TAKEN if await self._is_active(claim, holder) else ClaimState.ABANDONED)

    async def _is_active(self, claim: Claim, uid: str | None) -> bool:
        if not claim.holder_namespace or not claim.holder_name:
            return False
        # NB: asked for, not taken from a copy: at start-up copies are incomplete, and a claim is stolen once for all.
        body = await self._cluster.find(RECORDING, claim.holder_namespace, claim.holder_name)
        return body is not None and body["metadata"]["uid"] == uid and not is_finished(body)


def is_finished(body: Mapping[str, Any]) -> bool:
    """Whether a Recording object is over."""
    return any(
        condition.get("type") == ConditionType.FINISHED and condition.get("status") == ConditionStatus.TRUE
        for condition in (body.get("status") or {}).get("conditions") or ()
    )


def read_class(body: Mapping[str, Any]) -> RecordingClass | None:
    """A class; None when this version cannot read it."""
    try:
        return RecordingClass.from_object(body)
    except ValidationError:
        return None


def read_report(body: Mapping[str, Any]) -> RecordingReport | None:
    """A report; None when this version cannot read it: it is never waited for."""
    try:
        return RecordingReport.from_object(body)
    except ValidationError:
        return None
