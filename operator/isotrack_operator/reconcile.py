"""One turn about one Recording: gather, plan, act, until nothing is left to do at once; then one write of the status.

    claim ─▶ attempt (see `maker`) ─▶ status ─▶ Event
    attempts over without a manifest ─▶ finaliser ─▶ status
    verdict: status ─▶ claim released ─▶ finalizer gone

Each step is a no-op when it was done before, so an operator that dies between two of them goes on at the next start.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from isotrack_api.conditions import ConditionType, Reason
from isotrack_api.recording import Recording, RecordingStatus, StopInfo
from isotrack_api.resource import API_VERSION

from .builders import names
from .builders.event import build_event, build_warning
from .builders.lease import build_claim
from .calls import Calls
from .cluster import Cluster
from .conditions import headline_message
from .decision import Plan, recheck_of
from .errors import AlreadyExistsError, ClusterError, ConflictError, NotFoundError, OperatorError, cut
from .gather import Gatherer
from .kinds import JOB, LEASE, POD, RECORDING
from .maker import AttemptMaker
from .plan import plan
from .recovery import given_up
from .settings import Settings
from .status import build_status, dump, is_news
from .store import Place, Store
from .view import Claim, ClaimState, View, format_time, true_condition

log = logging.getLogger(__name__)

MAX_ROUNDS = 8

Wake = Callable[[Place, float], None]


class Reconciler:
    """Carries Recordings towards their specs."""

    def __init__(
        self,
        cluster: Cluster,
        store: Store,
        calls: Calls,
        settings: Settings,
        wake: Wake,
        *,
        now: Callable[[], datetime],
    ) -> None:
        self._cluster = cluster
        self._store = store
        self._calls = calls
        self._settings = settings
        self._wake = wake
        self._now = now
        self._gatherer = Gatherer(cluster, store, calls, settings)
        self._maker = AttemptMaker(cluster, store, self._gatherer, settings)

    async def reconcile(self, place: Place, *, counters: bool = False) -> None:
        """Do what is to be done about the Recording at `place` now.

        Args:
            counters: Write the status for mere progress figures, too.
        """
        for _ in range(MAX_ROUNDS):
            body = self._store.get(RECORDING, place)
            if body is None:
                self._calls.forget(place)
                return
            try:
                if await self._turn(place, body, counters=counters):
                    return
            except ConflictError:
                await self._refresh(place)
        self._wake(place, 1.0)  # others write to it all the time: leave room for the rest

    async def _turn(self, place: Place, body: dict[str, Any], *, counters: bool) -> bool:
        """One round; False when another one must follow at once."""
        view = await self._gatherer.gather(body, self._now)
        decided = plan(view, self._now())
        if decided.take_claim:
            if not await self._take_claim(view):
                return False
            # What was asked a moment ago still holds: on with the start, without another round of questions.
            view = replace(view, claim=Claim(state=ClaimState.OURS))
            decided = plan(view, self._now())
        if decided.start is not None:
            blocked = await self._start(view, decided.start)
            if blocked is None:
                return False
            decided = blocked
        if decided.finalise is not None:
            hindered = await self._finalise(view, decided, decided.finalise)
            if hindered is None:
                return False
            decided = hindered
        await self._delete(view, decided)
        hindrance: OperatorError | None = None
        if decided.complete is not None:
            try:
                await self._maker.complete(view, decided.complete)
            except ConflictError:
                raise
            except OperatorError as error:
                # NB: the status is written all the same. Else a stop would never be latched, and a pod without rights never be ended.
                hindrance, decided = error, _hindered(decided, error)
        await self._note_waiting(place, view, decided)
        await self._write_status(view, decided, counters=counters)
        if hindrance is not None:
            raise hindrance
        if decided.verdict is not None or (decided.release and _is_held(view.recording)):
            # NB: after the status. Who looks at the claim's holder must find it finished, and without the finalizer the
            # object may be gone before its end was written.
            await self._release(view.recording)
        elif decided.again_after is not None:
            self._wake(place, decided.again_after)
        return True

    # -- acting ---------------------------------------------------------------------------------------------------------------

    async def _take_claim(self, view: View) -> bool:
        """Whether the call is ours now."""
        version = view.claim.resource_version if view.claim else None
        lease = build_claim(view.recording, self._settings.namespace, version)
        try:
            await (self._cluster.create(lease) if version is None else self._cluster.replace(lease))
        except (AlreadyExistsError, ConflictError, NotFoundError):
            return False  # somebody was faster: the next round sees who
        self._log("call claimed", view)
        return True

    async def _start(self, view: View, n: int) -> Plan | None:
        """Make attempt `n`; a Plan when the API server does not let us."""
        recording, recording_class = view.recording, view.recording_class
        assert recording_class is not None
        uid = names.uid_of(recording)
        self._gatherer.starting[uid] = (names.namespace_of(recording), recording.spec.class_name)
        try:
            job = await self._maker.make(view, n)
        except ClusterError as error:
            if not error.is_refusal:
                raise
            return Plan(
                reason=Reason.POD_REFUSED,
                message=f"attempt {n} cannot be made: {cut(error, 900)}",
                needs_somebody=True,
                again_after=recheck_of(view, self._now()),
            )
        finally:
            self._gatherer.starting.pop(uid, None)
        self._log("attempt started", view, attempt=n, job=job["metadata"]["name"])
        return None

    async def _finalise(self, view: View, decided: Plan, stop: StopInfo) -> Plan | None:
        """Make the finaliser; a Plan when the API server does not let us."""
        try:
            job = await self._maker.finalise(view, stop.reason)
        except ClusterError as error:
            if not error.is_refusal:
                raise
            if view.is_deleting:  # with its namespace, where nothing can be made: nobody waits for better times
                return given_up(view, stop.message or decided.message, stop, cut(error, 300))
            return Plan(
                reason=Reason.RECOVERING,
                message=f"the finaliser cannot be made: {cut(error, 900)}",
                needs_somebody=True,
                again_after=recheck_of(view, self._now()),
            )
        self._log("finaliser started", view, job=job["metadata"]["name"], stop_reason=stop.reason.value)
        return None

    async def _release(self, recording: Recording) -> None:
        """Give up the claim, then the finalizer; in that order, because without the finalizer we may never come back."""
        finalizers = list(recording.metadata.finalizers or ())
        await release_claim(
            self._cluster,
            self._settings.namespace,
            names.claim_name(recording.spec.class_name, recording.spec.call.id),
            names.uid_of(recording),
        )
        if names.FINALIZER in finalizers:
            body = self._store.get(RECORDING, (names.namespace_of(recording), recording.metadata.name))
            current = Recording.from_object(body) if body else recording  # the status write made a newer version
            await self._maker.set_finalizers(current, [name for name in finalizers if name != names.FINALIZER])

    async def _delete(self, view: View, decided: Plan) -> None:
        namespace = names.namespace_of(view.recording)
        for name in decided.delete_jobs:
            self._log("deleting job", view, job=name, reason=str(decided.reason))
            await self._cluster.delete(JOB, namespace, name)
        for name in decided.delete_pods:
            self._log("deleting pod", view, pod=name, reason=str(decided.reason))
            await self._cluster.delete(POD, namespace, name)

    async def _note_waiting(self, place: Place, view: View, decided: Plan) -> None:
        if not decided.waits_for_call or view.recording_class is None:
            self._calls.forget(place)
            return
        access = await self._gatherer.source_access(view.recording_class)
        if not isinstance(access, str):
            spec = view.recording.spec
            self._calls.wait(place, spec.class_name, spec.call.id, access)

    # -- status ---------------------------------------------------------------------------------------------------------------

    async def _write_status(self, view: View, decided: Plan, *, counters: bool) -> None:
        recording = view.recording
        status = build_status(view, decided, self._now())
        if not is_news(dump(recording.status), dump(status), counters=counters):
            return
        body = {
            "apiVersion": API_VERSION,
            "kind": "Recording",
            "metadata": {
                "name": recording.metadata.name,
                "namespace": names.namespace_of(recording),
                # NB: both. The uid keeps us from a namesake; the version keeps latches that a stale copy does not show.
                "uid": names.uid_of(recording),
                "resourceVersion": recording.metadata.resource_version,
            },
            "status": dump(status),
        }
        try:
            answer = await self._cluster.apply(body, "status")
        except NotFoundError:
            return  # deleted meanwhile
        self._store.put(RECORDING, answer)
        await self._announce(recording, status)
        await self._warn(recording, status)

    async def _announce(self, recording: Recording, status: RecordingStatus) -> None:
        """Log and announce the transition that this write made; after the write, so that it is never announced in vain."""
        if not status.transitions or status.transitions == recording.status.transitions:
            return
        transition = status.transitions[-1]
        stalled = true_condition(status, ConditionType.STALLED) is not None
        log.info(
            "recording changed",
            extra={
                "fields": {
                    "namespace": recording.metadata.namespace,
                    "recording": recording.metadata.name,
                    "phase": transition.phase.value,
                    "reason": transition.reason,
                }
            },
        )
        note = headline_message(status.conditions) or transition.reason
        instance = self._settings.instance
        await self._cluster.announce(build_event(recording, transition, note, warning=stalled, instance=instance))

    async def _warn(self, recording: Recording, status: RecordingStatus) -> None:
        """Announce that tracks cannot be recorded, once for each cause. The phase knows nothing of it: the recording goes on."""
        before, found = (true_condition(one, ConditionType.TRACKS_UNRECORDED) for one in (recording.status, status))
        if found is None or (before is not None and before.reason == found.reason):
            return
        instance, time = self._settings.instance, format_time(self._now())
        await self._cluster.announce(build_warning(recording, found, time, instance=instance))

    async def _refresh(self, place: Place) -> None:
        body = await self._cluster.find(RECORDING, *place)
        if body is not None:
            self._store.put(RECORDING, body)
        elif (old := self._store.get(RECORDING, place)) is not None:
            self._store.drop(RECORDING, old)

    def _log(self, phrase: str, view: View, **fields: object) -> None:
        recording = view.recording
        names_of = {"namespace": recording.metadata.namespace, "recording": recording.metadata.name}
        log.info(phrase, extra={"fields": names_of | fields})


async def release_claim(cluster: Cluster, namespace: str, name: str, uid: str) -> None:
    """Delete a claim if this Recording holds it."""
    lease = await cluster.find(LEASE, namespace, name)
    if lease is not None and (lease.get("spec") or {}).get("holderIdentity") == uid:
        await cluster.delete(LEASE, namespace, name, uid=lease["metadata"]["uid"])


def _hindered(decided: Plan, error: OperatorError) -> Plan:
    """What the status says where an attempt cannot be given all that it needs: only a refusal is worth a word."""
    refused = isinstance(error, ClusterError) and error.is_refusal
    text = f"attempt {decided.complete} lacks what it needs: {cut(error, 900)}"
    return replace(decided, reason=Reason.POD_REFUSED, message=text, needs_somebody=True) if refused else decided


def _is_held(recording: Recording) -> bool:
    return names.FINALIZER in (recording.metadata.finalizers or ())


def utc_now() -> datetime:
    """The time of day; decisions get it passed in."""
    return datetime.now(UTC)
