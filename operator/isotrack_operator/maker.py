"""Make all objects of one attempt, in an order that starts fast and orphans nothing.

    ServiceAccount ─▶ Job ─▶ join token (owned by the Job; the pod waits for it, it is there long before the pod is)
    finalizer on the Recording ─▶ Role ─▶ RoleBinding ─▶ RecordingReport      meanwhile: the agent needs them seconds later

An operator that dies in between leaves a Job whose pod waits for its token, or runs without a RecordingReport, which comes last.
`complete` makes what is missing then; every step is a no-op the second time.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from isotrack_api.intent import Intent
from isotrack_api.manifest import StopReason
from isotrack_api.recording import Recording
from isotrack_api.recording_class import RecorderPod, RecordingClass, Storage

from . import attempts as judge
from .builders import names
from .builders.job import RESTART_RULES_SINCE, build_job
from .builders.rbac import build_role, build_role_binding, build_service_account
from .builders.report import build_report
from .builders.token import build_token_secret
from .builders.worker import build_finaliser
from .cluster import Cluster
from .errors import AlreadyExistsError, ForbiddenError, NotFoundError, OperatorError
from .gather import Gatherer
from .kinds import JOB, RECORDING, RECORDING_REPORT
from .resolve import identity_of, intent_of, storage_of
from .settings import Settings
from .source import mint_join_token
from .store import Store
from .together import together
from .view import View, view_job

LISTED_ATTEMPTS = 10
"""Attempts whose reports the Role names: older ones have long ended."""
MAX_KNOWN = 10_000


class AttemptMaker:
    """Makes attempts."""

    def __init__(self, cluster: Cluster, store: Store, gatherer: Gatherer, settings: Settings) -> None:
        self._cluster = cluster
        self._store = store
        self._gatherer = gatherer
        self._settings = settings
        self._complete: OrderedDict[str, None] = OrderedDict()
        """Uids of Jobs that have all they need, as far as this process knows: spares questions, decides nothing."""

    async def make(self, view: View, n: int) -> dict[str, Any]:
        """Make attempt `n`; returns its Job.

        Raises:
            ClusterError: the API server did not let us, or does not answer.
        """
        recording, recording_class, storage = _started_from(view)
        previous = view.latest.job.intent if view.latest and view.latest.job else ""
        beside = view.latest is not None and judge.hands_over(view.latest)
        intent = intent_of(recording, recording_class, storage, n, previous, beside=beside)
        job: dict[str, Any]
        job, _ = await together(
            self._make_job(recording, recording_class, storage, intent),
            self._equip(recording, storage, n),
        )
        self._remember(job)
        return job

    async def complete(self, view: View, n: int) -> None:
        """Make what an earlier run may not have come to, for an attempt that has just begun."""
        attempt = next((attempt for attempt in view.attempts if attempt.n == n), None)
        if attempt is None or attempt.job is None or attempt.job.uid in self._complete:
            return
        job = self._store.get(JOB, (names.namespace_of(view.recording), attempt.name))
        if job is None or view.recording_class is None:
            return
        storage = storage_of(view.recording, view.recording_class)
        if storage is None:
            return
        await together(
            self._equip(view.recording, storage, n),
            self._give_token(view.recording, view.recording_class, n, job),
        )
        self._remember(job)

    async def finalise(self, view: View, stop: StopReason) -> dict[str, Any]:
        """Make the Job that finishes a Recording whose attempts are over; returns it.

        Raises:
            ClusterError: the API server did not let us, or does not answer.
        """
        recording, recording_class, storage = _started_from(view)
        last = next(
            (attempt.job.intent for attempt in reversed(view.attempts) if attempt.job and attempt.job.intent), ""
        )
        n = view.latest.n if view.latest else 1
        body = build_finaliser(
            recording,
            intent_of(recording, recording_class, storage, n, last),
            stop,
            pod=recording_class.spec.recorder or RecorderPod(),
            image=self._settings.recorder_image,
            pull_secrets=self._settings.recorder_pull_secrets,
            credentials=storage.s3.credentials,
            ca=storage.s3.ca_certificate,
        )
        await self._give_account(recording, storage)
        job = await self._create_job(body, names.uid_of(recording))
        self._store.put(JOB, job)
        return job

    async def hold(self, recording: Recording) -> None:
        """Add our finalizer: a deletion waits for the files. One that has begun takes none any more."""
        finalizers = list(recording.metadata.finalizers or ())
        if names.FINALIZER not in finalizers and recording.metadata.deletion_timestamp is None:
            await self.set_finalizers(recording, [*finalizers, names.FINALIZER])

    async def set_finalizers(self, recording: Recording, finalizers: Sequence[str]) -> None:
        """Replace the finalizers, if the Recording is still as it was read.

        Raises:
            ConflictError: it changed meanwhile.
        """
        patch = {"metadata": {"resourceVersion": recording.metadata.resource_version, "finalizers": list(finalizers)}}
        namespace = names.namespace_of(recording)
        with contextlib.suppress(NotFoundError):
            answer = await self._cluster.merge(RECORDING, namespace, recording.metadata.name, patch)
            self._store.put(RECORDING, answer)

    async def _make_job(
        self, recording: Recording, recording_class: RecordingClass, storage: Storage, intent: Intent
    ) -> dict[str, Any]:
        body = build_job(
            recording,
            intent,
            pod=recording_class.spec.recorder or RecorderPod(),
            image=self._settings.recorder_image,
            pull_secrets=self._settings.recorder_pull_secrets,
            credentials=storage.s3.credentials,
            ca=storage.s3.ca_certificate,
            restart_rules=self._cluster.version >= RESTART_RULES_SINCE,
        )
        # NB: first. A pod without its ServiceAccount is refused, and the Job controller tries again only after a pause.
        await self._give_account(recording, storage)
        job = await self._create_job(body, names.uid_of(recording))
        self._store.put(JOB, job)
        await self._give_token(recording, recording_class, intent.attempt, job)
        return job

    async def _create_job(self, body: dict[str, Any], uid: str) -> dict[str, Any]:
        try:
            return await self._cluster.create(body)
        except AlreadyExistsError:
            metadata = body["metadata"]
            found = await self._cluster.get(JOB, metadata["namespace"], metadata["name"])
            if names.is_owned_by(found["metadata"], uid):
                return found  # an earlier run of ours died right after
            raise ForbiddenError(f"Job {metadata['name']} exists and is not ours: delete it", 403) from None

    async def _equip(self, recording: Recording, storage: Storage, n: int) -> None:
        """Give the attempt all but its Job and its token."""
        await self.hold(recording)
        await self._give_rights(recording, storage, n)
        await self._make_report(recording, n)  # NB: last. Where it is there, nothing of this is missing.

    async def _give_account(self, recording: Recording, storage: Storage) -> None:
        """The identity of its pods, unless the class chose one that is not ours to make."""
        if storage.s3.credentials.service_account_name is None:
            await self._cluster.apply(build_service_account(recording))

    async def _give_rights(self, recording: Recording, storage: Storage, n: int) -> None:
        attempts = range(max(1, n - LISTED_ATTEMPTS + 1), n + 1)
        # NB: one after the other. A binding to a Role that is not there yet is refused.
        await self._cluster.apply(build_role(recording, attempts))
        await self._cluster.apply(build_role_binding(recording, storage.s3.credentials.service_account_name))

    async def _make_report(self, recording: Recording, n: int) -> None:
        with contextlib.suppress(AlreadyExistsError):
            self._store.put(RECORDING_REPORT, await self._cluster.create(build_report(recording, n)))

    async def _give_token(
        self, recording: Recording, recording_class: RecordingClass, n: int, job: dict[str, Any]
    ) -> None:
        """The Secret that the recorder waits for. It is never read: one that exists already is good."""
        access = await self._gatherer.source_access(recording_class)
        if isinstance(access, str):
            raise OperatorError(f"no join token: the SFU's Secret {access}")
        # NB: the Job's own word. It may be an earlier run's, which saw the attempt before in another state.
        identity = identity_of(view_job(job).intent, names.uid_of(recording))
        token = mint_join_token(access, room=recording.spec.call.id, identity=identity)
        await self._cluster.ensure(build_token_secret(recording, n, job["metadata"]["uid"], token))

    def _remember(self, job: dict[str, Any]) -> None:
        self._complete[job["metadata"]["uid"]] = None
        while len(self._complete) > MAX_KNOWN:
            self._complete.popitem(last=False)


def _started_from(view: View) -> tuple[Recording, RecordingClass, Storage]:
    """The three that the gate has made sure of."""
    recording, recording_class = view.recording, view.recording_class
    assert recording_class is not None, "class_does_not_exist stands in the gate"
    storage = storage_of(recording, recording_class)
    assert storage is not None, "storage_does_not_exist stands in the gate"
    return recording, recording_class, storage
