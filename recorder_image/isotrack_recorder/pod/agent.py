"""`isotrack-recorder agent`: the main container, whose exit code is the truth about the attempt.

    API server ─▶ watch ─▶ command ─▶ recorder          (decisions.command_for)
    recorder ─▶ state ─▶ over? ─┐
    spool ─▶ delivery, session by session ─▶ bucket ─▶ manifests ─▶ exit code, termination message
                    └─▶ RecordingReport

Five tasks live as long as capture does and each owns one conversation: the recorder's socket, the watch, the report, metrics, and
shipping. `_govern` is the only one that decides: it turns wishes into commands and finds that capture is over. Shipping then
finishes, and its end is the agent's end. Neither the API server nor the recorder is ever waited for without a bound; the
storage is, because files are all that this is about: until SIGTERM plus grace, or an hour after the call.

SIGTERM alone is the complete graceful path. What it means depends on the Recording: stopped or deleted → the recording is
over; neither → this attempt is (exit 75), and capture goes on until a successor records all that we do, or has had its time to. What
both record is left to whoever ends the recording: the two are made into one (`finalise.overlap`). Our report says at once that we are
about to go: only then does the operator let the successor join beside us, and not in our place.
Meanwhile the API server is asked again and again: the watch may be behind the kubelet, and a namespace that is deleted loses its
pods before its Recordings.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from isotrack_api.intent import Intent
from isotrack_api.manifest import ManifestFile, StopReason
from isotrack_api.recording_report import ReportPhase, ReportStatus, StorageReport
from isotrack_recorder.clocks import CallClock, wall_offset
from isotrack_recorder.control import SOCKET_NAME
from isotrack_recorder.earlier import read_earlier
from isotrack_recorder.errors import DrainedError, IsotrackError, StorageError
from isotrack_recorder.logs import configure_logging
from isotrack_recorder.ship.checkpoints import Checkpoints
from isotrack_recorder.ship.claim import claim_attempt
from isotrack_recorder.ship.commit import Committed
from isotrack_recorder.ship.credentials import pod_credentials
from isotrack_recorder.ship.deliver import Delivered, Delivery, End
from isotrack_recorder.ship.kube import KubeClient, KubeError, RecordingView
from isotrack_recorder.ship.lanes import Lanes
from isotrack_recorder.ship.layout import layout_of
from isotrack_recorder.ship.live import keep_delivering
from isotrack_recorder.ship.preflight import check_storage
from isotrack_recorder.ship.recover import Recovery, call_clock_of, epoch_of, look
from isotrack_recorder.ship.retry import REFUSED_PAUSE_SECONDS, Patience
from isotrack_recorder.ship.s3 import S3Store
from isotrack_recorder.spool.facts import PeerFacts, SpoolFacts
from isotrack_recorder.spool.room import Room

from .agent_report import Ending, Facts
from .agent_settings import TERMINATION_LOG, AgentSettings, read_settings
from .decisions import (
    Leaving,
    Outcome,
    begin_with,
    command_for,
    has_taken_over,
    is_final,
    is_known_to_storage,
    is_left_behind,
    outcome_of,
)
from .heap import share_one_heap
from .kept import KeptCommand
from .kept_clock import load_call_clock, save_call_clock
from .metrics import metrics_text
from .metrics_server import serve_metrics
from .recorder_link import RecorderLink
from .reporter import ASK_SECONDS, Reporter
from .tasks import deaf_at_the_end, set_within, unessential
from .termination import write_termination

log = logging.getLogger(__name__)

USAGE: Final = """usage: isotrack-recorder agent

The main container of a recorder pod. Reads ISOTRACK_INTENT; ships what the recorder captures.
"""
SCRATCH: Final = "ship/recovery"
"""Folder below the spool for spools of earlier attempts."""
CALL_CLOCK: Final = "ship/call-clock.json"
"""File below the spool."""
LET_IN: Final = "ship/storage-took-us"
"""File below the spool: an earlier process of this attempt passed the storage's check."""


def main(arguments: Sequence[str]) -> int:
    """Entry point. Exit code of `errors`; 0 only when the recording is over and everything is verified in the bucket."""
    if arguments:
        wants_help = list(arguments) in (["--help"], ["-h"])
        (sys.stdout if wants_help else sys.stderr).write(USAGE)
        return 0 if wants_help else 64
    configure_logging(os.environ, sys.stderr)
    share_one_heap()
    try:
        return asyncio.run(deaf_at_the_end(Agent(read_settings(os.environ)).run()))
    except IsotrackError as error:  # of the settings: everything later has its place in `_end`
        log.error("cannot start", extra={"fields": {"reason": error.reason, "detail": str(error)}})
        ending = Ending(error.reason, str(error), None, None, (), None, "", 0)
        write_termination(Path(os.environ.get("ISOTRACK_TERMINATION_LOG") or TERMINATION_LOG), ending)
        return error.exit_code


class Agent:
    """One attempt, from the agent's start to its exit code."""

    def __init__(self, settings: AgentSettings) -> None:
        self._settings = settings
        self._intent: Intent = settings.intent
        self._layout = layout_of(settings.intent)
        self._wake = asyncio.Event()
        self._report_wake = asyncio.Event()
        self._leaving: Leaving | None = None
        """Since SIGTERM."""
        self._followed_ns: int | None = None
        """Since when another pod may record beside us, on the spool's axis.

        NB: never taken back, for what is left to others is reclaimed.
        """
        # NB: an agent that begins again while the API server is away must not undo a pause, nor admit whom the allowlist has lost.
        self._view, self._command = begin_with(self._intent, KeptCommand(settings.paths.run).read())
        self._link = RecorderLink(settings.paths.run / SOCKET_NAME, self._news)
        self._let_in = settings.paths.spool / LET_IN
        # NB: an agent that begins in mid-call must not take a passing refusal for a storage that never worked: the attempt would end with
        # everything in its spool, and the recording with it.
        is_known = is_known_to_storage(self._intent, let_in=self._let_in.exists())
        self._patience = Patience(refused_pause_seconds=REFUSED_PAUSE_SECONDS if is_known else None)
        assert settings.intent.storage is not None
        self._store = S3Store(settings.intent.storage, pod_credentials(settings.storage), self._patience)
        self._outcome: asyncio.Future[Outcome] | None = None
        self._delivery: Delivery | None = None
        self._goes = False
        """The attempt is over and the recording goes on: sessions that are not over are left to whoever ends it."""
        self._checkpoints: Checkpoints | None = None
        self._stitched: tuple[ManifestFile, ...] = ()
        """Files that were made of checkpoints, once this attempt has ended the recording."""
        self._warning = ""
        self._storage_checked = False
        self._facts = Facts(None, epoch_ms=settings.intent.epoch_ms)
        self._kube: KubeClient | None = KubeClient(settings.kube) if settings.kube and settings.kube.report else None
        self._reporter: Reporter | None = None
        if self._kube:
            self._reporter = Reporter(self._kube, self._facts_now, self._report_wake, settings.report_seconds)

    async def run(self) -> int:
        """Do everything; returns the exit code. Handles SIGTERM and SIGINT of the process."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.terminate)
        self._outcome = loop.create_future()
        with closing(Lanes()) as lanes:
            background: list[asyncio.Task[None]] = [
                asyncio.create_task(self._link.run(), name="recorder"),
                asyncio.create_task(self._govern(), name="govern"),
            ]
            if self._kube and self._reporter:
                kube, reporter = self._kube, self._reporter
                background += [
                    asyncio.create_task(unessential(lambda: kube.watch_recording(self._saw)), name="watch"),
                    asyncio.create_task(unessential(reporter.run), name="report"),
                ]
            if port := self._settings.metrics_port:
                spool = self._settings.paths.spool
                serving = unessential(lambda: serve_metrics(port, spool, self._metrics))
                background.append(asyncio.create_task(serving, name="metrics"))
            shipping = asyncio.create_task(self._ship(lanes), name="ship")
            every: list[asyncio.Task[Any]] = [shipping, *background]
            try:
                await asyncio.wait(every, return_when=asyncio.FIRST_COMPLETED)
                for task in background:
                    if task.done():
                        task.result()  # none of them ends by itself but by a bug: let it be seen
                return await self._end(shipping)
            finally:
                self._patience.end_within(0)  # what still runs in a thread ends at its next request
                for task in every:
                    task.cancel()
                await asyncio.gather(*every, return_exceptions=True)
                if self._kube:
                    await self._kube.close()

    def terminate(self) -> None:
        """SIGTERM: from now on the grace period runs."""
        if self._leaving is None:
            log.info("terminating")
            self._leaving = Leaving(time.monotonic())
            self._patience.end_within(max(0.0, self._settings.grace_seconds - self._settings.grace_margin_seconds))
            self._wake.set()
            self._report_wake.set()

    # ── what the recorder is to do, and when it is done ──────────────────────────────────────────────────────────────

    def _saw(self, view: RecordingView) -> None:
        if view != self._view:
            log.info("recording changed", extra={"fields": {"desired": view.desired, "deleted": view.deleted}})
            self._view = view
            self._wake.set()

    def _news(self) -> None:
        self._wake.set()
        self._report_wake.set()

    async def _govern(self) -> None:
        """Relay wishes until capture is over, and go on listening for a weightier reason to stop."""
        asked_at: float | None = None
        ask_the_server_at = 0.0
        while True:
            self._wake.clear()
            if self._leaving is not None and time.monotonic() >= ask_the_server_at:
                await self._ask_the_server()
                ask_the_server_at = time.monotonic() + 1.0
            command = command_for(self._view, terminating=self._has_time_gone(), before=self._command)
            if command != self._command:
                self._command = command
                fields = {"desired": command.desired, "reason": command.stop_reason}
                log.info("recorder is told", extra={"fields": fields})
            self._link.command(command)
            if command.desired == "Stopped" and asked_at is None:
                asked_at = time.monotonic()
            self._look_for_the_end(asked_at)
            await set_within(self._wake, 1.0)

    def _has_time_gone(self) -> bool:
        """Whether the successor records all that we do, or has had its time to."""
        return self._leaving is not None and time.monotonic() >= self._leaving.ends_at(self._settings)

    async def _ask_the_server(self) -> None:
        if self._kube is None:
            self._may_be_followed()
            return
        try:
            async with asyncio.timeout(ASK_SECONDS):
                self._saw(await self._kube.recording())
                if not self._view.deleted:  # nobody follows then, and the right to ask goes with it
                    self._saw_successor(await self._kube.successor())
        except (KubeError, TimeoutError):
            log.warning("API server did not say whether the recording goes on")
            self._may_be_followed()

    def _saw_successor(self, status: ReportStatus | None) -> None:
        assert self._leaving is not None
        if status is None:
            return
        self._may_be_followed()
        self._leaving = replace(self._leaving, made=True)
        if self._leaving.taken_over_at is None and has_taken_over(status, self._link.state):
            log.info("successor records")
            self._leaving = replace(self._leaving, taken_over_at=time.monotonic())

    def _may_be_followed(self) -> None:
        """From now on sessions may be recorded by another pod as well, as far as we know."""
        assert self._outcome is not None
        if self._followed_ns is None and not self._outcome.done():
            # NB: as far as the spool was looked through: of what came later nobody knows yet whether it ends in both.
            self._followed_ns = self._delivery.seen_ns if self._delivery else 0

    def _look_for_the_end(self, asked_at: float | None) -> None:
        assert self._outcome is not None
        if self._outcome.done():
            return
        now, settings, link = time.monotonic(), self._settings, self._link
        lost = ""
        if not is_final(link.state):
            if asked_at is not None and now - asked_at > settings.stop_seconds:
                lost = "the recorder did not stop in time: what it had written counts"
            elif link.lost_at is not None and now - link.lost_at > settings.recorder_lost_seconds:
                lost = "the recorder did not come back: its container's log tells why"
            else:
                return
            log.warning("recorder is not waited for", extra={"fields": {"detail": lost}})
        self._outcome.set_result(outcome_of(self._command.stop_reason, link.state, lost))
        self._patience.end_failing_for(settings.upload_seconds)
        self._patience.end_within(settings.upload_most_seconds)
        self._report_wake.set()

    # ── shipping ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _ship(self, lanes: Lanes) -> Delivered:
        """Check the storage, deliver sessions as they end, then everything.

        Raises:
            DrainedError: another pod is this attempt.
            StorageRefusedError: the storage takes nothing from us, and did not from the start.
            StorageError: patience ended before everything was in the bucket.
        """
        checkpoints = await lanes.request(Checkpoints, self._settings.paths.spool, self._intent, self._store)
        if not await lanes.request(claim_attempt, self._store, self._layout, self._intent.attempt, checkpoints.run):
            raise DrainedError("another pod has this attempt: what this one captured is not used")
        check = await lanes.request(check_storage, self._store, self._layout, self._intent)
        if check.warning:
            log.warning("storage check warns", extra={"fields": {"detail": check.warning}})
        self._warning, self._storage_checked = check.warning, True
        self._patience.refused_pause_seconds = REFUSED_PAUSE_SECONDS
        await lanes.request(self._note_let_in)
        self._report_wake.set()
        if not checkpoints.enabled:
            return await self._deliver(await self._begin_delivery(checkpoints, lanes), checkpoints, lanes)
        self._checkpoints = checkpoints
        # NB: before anything else is asked of the storage. What a successor has to know of earlier attempts takes seconds to read, and
        # what it captures meanwhile is not to be lost with its node.
        copying = asyncio.create_task(checkpoints.keep(lanes), name="checkpoints")
        try:
            return await self._deliver(await self._begin_delivery(checkpoints, lanes), checkpoints, lanes)
        finally:
            copying.cancel()
            await asyncio.gather(copying, return_exceptions=True)

    async def _begin_delivery(self, checkpoints: Checkpoints, lanes: Lanes) -> Delivery:
        """Find out where the recording's zero is, as earlier attempts have told it, and go on from there."""
        spool = self._settings.paths.spool
        if self._intent.attempt > 1 and self._intent.epoch_ms is None:
            epoch_ms = await lanes.request(epoch_of, self._store, self._layout, spool / SCRATCH)
            self._intent = self._intent.model_copy(update={"epoch_ms": epoch_ms})
        call_clock = await lanes.request(self._read_call_clock) if self._intent.attempt > 1 else None
        checkpoints.call_clock = call_clock
        self._delivery = Delivery(
            spool, self._intent, self._store, lanes,
            walls=lambda _folder, boot, offset_ns: wall_offset(offset_ns, boot, call_clock),
        )  # fmt: skip
        self._delivery.copied = self._copied
        if checkpoints.enabled:
            self._delivery.leaves = self._is_left_behind
        return self._delivery

    def _read_call_clock(self) -> CallClock | None:
        """The clock of the attempt that set the recording's zero: measured once, so that equal spools give equal files."""
        spool = self._settings.paths.spool
        kept = load_call_clock(spool / CALL_CLOCK)
        call_clock = kept or call_clock_of(self._store, self._layout, self._intent.attempt, spool / SCRATCH)
        if call_clock is not None and kept is None:
            save_call_clock(spool / CALL_CLOCK, call_clock)
        ours = time.time_ns() - time.monotonic_ns()
        wrong_ns = ours - wall_offset(ours, "", call_clock)
        if wrong_ns:
            fields = {"ahead_s": round(wrong_ns / 1e9, 1)}
            log.warning("clock differs from that of the first attempt: its own counts", extra={"fields": fields})
        return call_clock

    def _copied(self) -> Mapping[str, int] | None:
        return self._checkpoints.sent if self._checkpoints else None

    def _is_left_behind(self, peer: PeerFacts, facts: SpoolFacts) -> bool:
        return is_left_behind(peer, facts, attempt=self._intent.attempt, goes=self._goes, followed_ns=self._followed_ns)

    async def _deliver(self, delivery: Delivery, checkpoints: Checkpoints, lanes: Lanes) -> Delivered:
        """Deliver sessions as they end, and at the end what is this attempt's to deliver; or the whole recording."""
        assert self._outcome is not None
        await self._rounds(delivery)
        outcome = self._outcome.result()
        fields = {"reason": outcome.reason, "stop_reason": outcome.stop_reason, "over": outcome.recording_over}
        log.info("capture is over", extra={"fields": fields})
        stopped = read_earlier(self._settings.paths.spool).stop_reason
        end = End(False, outcome.stop_reason if stopped != outcome.stop_reason else None, outcome.message)
        self._goes = outcome.exit_code == DrainedError.exit_code
        if checkpoints.enabled and (self._goes or self._is_one_of_several or delivery.gave_up):
            await checkpoints.flush(lanes)  # NB: before the manifest, which says that the rest is in checkpoints
        delivered, failure = await _finished(delivery, end)
        if checkpoints.enabled and (failure is not None or delivery.gave_up):
            # Of them the rest is made; where they stay, another version may make what this one could not
            await checkpoints.flush(lanes)
        if outcome.recording_over:
            delivered = replace(delivered, recording=await self._conclude(checkpoints, lanes))
        elif delivered.recording is not None:
            delivered = await self._come_late(delivery, end, checkpoints, lanes)
        if failure is not None:
            raise failure
        return delivered

    async def _conclude(self, checkpoints: Checkpoints, lanes: Lanes) -> Committed | None:
        """Finish the recording: stitch what attempts left behind, write `recording.json`, delete checkpoints."""
        await lanes.request(checkpoints.close)  # NB: one that comes behind recording.json would stay for ever
        spool, intent = self._settings.paths.spool, self._intent
        room = Room(spool, intent.spool_bytes)
        recovery = Recovery(self._store, lanes, self._layout, spool / SCRATCH, intent, room=room)
        if self._is_one_of_several:
            await recovery.wait_until_quiet(beside=intent.attempt + 1 if self._followed_ns is not None else None)
        recording = await recovery.finalise()
        self._stitched = recovery.made
        return recording

    @property
    def _is_one_of_several(self) -> bool:
        """Whether another pod may have recorded of this call what was left to the end."""
        return self._intent.attempt > 1 or self._followed_ns is not None

    async def _come_late(self, delivery: Delivery, end: End, checkpoints: Checkpoints, lanes: Lanes) -> Delivered:
        """Somebody finished the recording before this attempt was done: add what they could not know."""
        await lanes.request(checkpoints.close)
        seen = await lanes.request(look, self._store, self._layout)
        known = seen.recovered.checkpoints if seen.recovered else {}
        if known.get(f"{self._intent.attempt}/{checkpoints.run}", 0) < checkpoints.seq and not seen.behind:
            self._goes = False
            delivery.leaves = lambda _peer, _facts: False
        delivered = await delivery.finish(end)
        return replace(delivered, recording=await self._conclude(checkpoints, lanes))

    def _note_let_in(self) -> None:
        """For an agent that begins again; without the note it decides as at the start."""
        try:
            self._let_in.parent.mkdir(parents=True, exist_ok=True)
            self._let_in.touch()
        except OSError as error:
            log.warning("spool takes no note", extra={"fields": {"why": error.strerror}})

    async def _rounds(self, delivery: Delivery) -> None:
        """Deliver what is due until capture is over."""
        assert self._outcome is not None
        await keep_delivering(
            delivery,
            self._copied,
            self._outcome,
            round_seconds=self._settings.round_seconds,
            delivered=self._report_wake.set,
        )

    # ── telling ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _facts_now(self) -> Facts:
        assert self._outcome is not None
        over = self._outcome.done()
        state = self._link.state
        if self._facts.epoch_ms is None and state is not None and state.armed_at_ms is not None:
            # NB: the first incarnation's moment, as the timeline counts; not that of the one that speaks now.
            epoch_ms = self._intent.epoch_ms or read_earlier(self._settings.paths.spool).armed_at_ms
            self._facts = replace(self._facts, epoch_ms=epoch_ms)
        people = max(self._facts.participants_seen, state.participants if state else 0)
        self._facts = replace(
            self._facts,
            state=state,
            restarts=self._link.restarts,
            capture_over=over,
            storage=self._storage(),
            files=(*(self._delivery.files if self._delivery else ()), *self._stitched),
            checkpoint_age_seconds=self._checkpoints.age_seconds if self._checkpoints and not over else None,
            stop_reason=self._outcome.result().stop_reason if over else self._command.stop_reason or self._about_to(),
            participants_seen=people,
        )
        return self._facts

    def _about_to(self) -> StopReason | None:
        """NB: the operator takes this for a promise that we end by ourselves."""
        return StopReason.DRAINED if self._leaving is not None else None

    def _storage(self) -> StorageReport | None:
        trouble = self._store.trouble
        if trouble is not None:
            return StorageReport(ready=False, reason=trouble.reason, message=trouble.message[:1024])
        return StorageReport(ready=True, message=self._warning) if self._storage_checked else None

    def _metrics(self, spool_bytes: int) -> str:
        return metrics_text(self._facts_now(), self._store.traffic, spool_bytes, recorder_up=self._link.connected)

    async def _end(self, shipping: asyncio.Task[Delivered]) -> int:
        """Tell how it ended, everywhere, and choose the exit code."""
        assert self._outcome is not None
        delivered: Delivered | None = None
        error: IsotrackError | None = None
        try:
            delivered = await shipping
        except IsotrackError as caught:
            error = caught
        except Exception as bug:
            log.exception("shipping failed")
            error = IsotrackError(f"shipping failed: {type(bug).__name__}")
        facts = self._facts_now()
        if error is not None or not self._outcome.done():
            error = error or IsotrackError("shipping ended before capture did")
            code, reason, message = error.exit_code, error.reason, self._what_is_missing(error)
            phase = _PHASES.get(code, ReportPhase.FAILED)
            log.error("attempt failed", extra={"fields": {"reason": reason, "detail": message}})
        else:
            outcome = self._outcome.result()
            code, reason, message = outcome.exit_code, outcome.reason, outcome.message
            phase = _PHASES.get(code, ReportPhase.FAILED)
            log.info(
                "attempt ended", extra={"fields": {"reason": reason, "exit_code": code, "files": len(facts.files)}}
            )
        committed = (delivered.recording or delivered.attempt) if delivered else None
        ending = Ending(
            reason=reason,
            message=message,
            stop_reason=facts.stop_reason,
            delivered=delivered,
            files=facts.files,
            epoch_ms=facts.epoch_ms,
            call_sid=facts.state.call_sid if facts.state else "",
            participants=facts.participants_seen,
        )
        write_termination(self._settings.termination_log, ending)
        last = replace(facts, ending=phase, reason=reason if code else "", message=message, manifest=committed)
        self._facts = last  # of which a report would tell that comes after all
        if self._reporter is not None:
            await self._reporter.conclude(last)
        return code

    def _what_is_missing(self, error: IsotrackError) -> str:
        if isinstance(error, StorageError) and self._outcome is not None and self._outcome.done():
            count = len(self._delivery.files) if self._delivery else 0
            return f"not everything could be uploaded ({count} files were): {error}"
        return str(error)


async def _finished(delivery: Delivery, end: End) -> tuple[Delivered, IsotrackError | None]:
    """Finish what is an attempt's to deliver; a file that cannot be made must not cost the recording its end.

    Raises:
        StorageError: patience ended before everything was in the bucket.
    """
    try:
        return await delivery.finish(end), None
    except StorageError:
        raise
    except IsotrackError as error:
        return Delivered(delivery.files, None, None), error


_PHASES: Final = {0: ReportPhase.FINISHED, DrainedError.exit_code: ReportPhase.DRAINED}
