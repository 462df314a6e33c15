"""Capture one call: what a source delivers goes to the spool, by the Orders of its Intent and the commands of the moment.

A Capture owns the SpoolWriter and the Source for one process's run. The source reports who is there and what they publish;
Capture decides what is wanted (allowlist, pause, encryption), subscribes to it, and gives each wanted track a TrackCapture
as its sink. One ticker flushes the spool and checks limits every half second, looks at the spool's room every second and
journals totals every five seconds. Where room runs short, tracks are given up by `spool.watermarks`: unsubscribed, declared,
and taken up again in the same log when there is room.

    source events ──> Capture ──> journal        stop: a command, a limit, the call's end, a full disk; the first one counts
    frames ──────────> TrackCapture ──> log

However `run` ends, the spool is closed; a capture that ended in good order has a `stop` line at the end of its journal.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from isotrack_api.words import MediaKind, StopReason

from .capture_state import (
    Ending,
    KnownPeer,
    KnownTrack,
    Progress,
    nobody_for_too_long,
    phase_of,
    seconds_left,
    started_before,
)
from .clock import Clock
from .control import MAX_UNRECORDED, Command, SpoolState, State, UnrecordedState
from .earlier import Earlier
from .errors import IsotrackError, StorageError
from .media import TrackSink
from .orders import Orders
from .shedding import Shedding
from .sources import base
from .spool.journal import VERSION
from .spool.watermarks import Usage
from .spool.writer import SpoolWriter
from .track_capture import TrackCapture

log = logging.getLogger(__name__)

FLUSH_SECONDS: Final = 0.5
"""Longest time media stays in memory only: what a killed process loses."""
TICKS_PER_STATE: Final = 2
TICKS_PER_LOOK: Final = 2
"""At the spool's room."""
TICKS_PER_COUNTERS: Final = 10
MAX_ENDED_TRACKS: Final = 200
"""Of which a State still tells."""


class Capture:
    """One run of capturing one call. Everything happens on the event loop's thread.

    `open_source` makes the source that reports to us; `measure` tells how full the spool is; `earlier` is what this attempt's
    earlier processes left; `changed` is called after each change of what `state()` tells, and every second.
    """

    def __init__(
        self,
        orders: Orders,
        spool: SpoolWriter,
        clock: Clock,
        open_source: Callable[[base.SourceHandler], base.Source],
        measure: Callable[[], Usage],
        earlier: Earlier,
        changed: Callable[[], None],
    ) -> None:
        self._orders = orders
        self._spool = spool
        self._clock = clock
        self._changed = changed
        self._user_ids = frozenset(orders.user_ids) if orders.user_ids is not None else None
        self._paused = orders.paused
        self._shedding = Shedding(measure)
        self._peers: dict[str, KnownPeer] = {}
        self._tracks: dict[str, KnownTrack] = {}
        self._captures: list[TrackCapture] = []
        self._left_out = {row.track_id: row for row in earlier.unrecorded}
        self._progress = Progress(
            started_ns=started_before(orders.epoch_ms, earlier, clock, orders.max_duration_seconds)
        )
        self._ending = Ending()
        self._somebody_left = False
        """Since the last flush: a reader waits to hear that what they sent is written."""
        self._source = open_source(self)
        self._note_process("start")
        if self._paused:
            self._note("paused")

    @property
    def error(self) -> IsotrackError | None:
        """What made the capture fail, if it did."""
        return self._ending.error

    @property
    def first_packet_at_ms(self) -> int | None:
        """As in `state()`, which costs a walk over all tracks."""
        return self._progress.first_packet_at_ms

    async def run(self) -> None:
        """Capture until the end. Failing is an ending like others: see `error` and `state()`."""
        try:
            self._spool.flush()
            self._shedding.look(self._spool.taken)  # a predecessor that was killed may have left a full disk
            await self._run_tasks()
            self._note_counters()
            self._note_stop()
        finally:
            self._spool.close()
        if self._spool.failure is not None:
            self._fail(_spool_error(self._spool.failure))
        self._ending.over = True
        self._changed()

    def stop(self, reason: StopReason, message: str = "") -> None:
        """End the capture in good order; only the first reason counts."""
        if self._ending.reason is None:
            self._ending.reason, self._ending.message = reason, message[:512]
            self._ending.wanted.set()

    def apply(self, command: Command) -> None:
        """Follow the newest command; the same one again changes nothing."""
        if command.desired == "Stopped":
            self.stop(command.stop_reason or StopReason.REQUESTED)
            return
        paused = command.desired == "Paused"
        if paused != self._paused:
            self._paused = paused
            self._note("paused" if paused else "resumed")
        self._user_ids = frozenset(command.user_ids) if command.user_ids is not None else None
        self._reconsider()
        self._changed()

    # What the source tells

    def on_event(self, event: base.Event) -> None:
        """See SourceHandler."""
        match event:
            case base.ParticipantSeen():
                self._participant_seen(event)
            case base.TrackSeen():
                self._track_seen(event)
            case base.TrackMuted():
                self._track_muted(event)
            case base.TrackEnded():
                self._track_ended(event)
            case base.ParticipantLeft():
                self._participant_left(event)
            case base.TrackRefused():
                self._unrecorded(event.track_id, event.reason, event.message)
            case base.CallEnded():
                self.stop(StopReason.CALL_ENDED, event.reason)
            case base.Removed():
                self.stop(StopReason.REMOVED, event.reason)
            case base.Fenced():
                self.stop(StopReason.FENCED, "a newer attempt has joined")
            case _:
                self._connection_changed(event)
        self._changed()

    def open_track(self, track_id: str, kind: MediaKind) -> TrackSink | None:
        """See MediaListener."""
        track = self._tracks.get(track_id)
        if track is None or track.capture is None or not self._is_received(track) or track.seen.kind != kind:
            return None
        return track.capture

    def track_unsupported(self, track_id: str, kind: MediaKind, offered: str) -> None:
        """See MediaListener."""
        self._unrecorded(track_id, "CodecUnsupported", f"{kind.value} offered as {offered[:200]}")

    def _connection_changed(self, event: base.Event) -> None:
        progress = self._progress
        match event:
            case base.Joined():
                if event.call_sid and event.call_sid != progress.call_sid:
                    progress.call_sid = event.call_sid[:128]
                    self._note("call", call_id=self._orders.call_id, call_sid=progress.call_sid)
            case base.Ready():
                progress.connected = True
                progress.armed_at_ms = self._clock.wall_ns() // 1_000_000
                if progress.started_ns is None:
                    progress.started_ns = self._clock.monotonic_ns()
                # NB: with all of it once more: a journal whose first line is damaged would lie in 1970.
                self._note_process("armed")
                # Who was there before this process and is not any more left in between, without a word.
                self._somebody_left = self._somebody_left or self._spool.incarnation > 1
                self._spool.flush_soon()
                log.info("armed", extra={"fields": {"call_sid": progress.call_sid}})
            case base.Disconnected():
                if progress.connected:
                    progress.connected = False
                    self._note("disconnected", reason=event.reason[:512])
            case base.Reconnected():
                progress.connected = True
                self._note("reconnected")
        self._watch_emptiness()

    def _participant_seen(self, event: base.ParticipantSeen) -> None:
        peer = KnownPeer(event, self._is_allowed(event.user_id))
        self._peers[event.peer_id] = peer
        self._note_participant(peer)
        self._watch_emptiness()

    def _participant_left(self, event: base.ParticipantLeft) -> None:
        peer = self._peers.pop(event.peer_id, None)
        if peer is not None:
            self._note("participant_left", peer_id=event.peer_id, reason=event.reason[:512])
            self._somebody_left = True
        self._watch_emptiness()

    def _track_seen(self, event: base.TrackSeen) -> None:
        track = self._tracks[event.track_id] = KnownTrack(event, event.muted)
        if self._admit(track) and self._is_received(track):
            self._source.subscribe((event.track_id,))

    def _track_muted(self, event: base.TrackMuted) -> None:
        track = self._tracks.get(event.track_id)
        if track is not None:
            track.muted = event.muted
            if track.capture is not None:
                track.capture.mute(muted=event.muted)

    def _track_ended(self, event: base.TrackEnded) -> None:
        track = self._tracks.pop(event.track_id, None)
        if track is not None and track.capture is not None:
            self._retire(track.capture, event.reason)

    # What is wanted

    def _is_allowed(self, user_id: str) -> bool:
        return self._user_ids is None or user_id in self._user_ids

    def _is_received(self, track: KnownTrack) -> bool:
        """Whether an admitted track is subscribed to now."""
        return not self._paused and not self._shedding.sheds(track.seen.source)

    def _reconsider(self) -> None:
        """Bring participants, tracks and subscriptions in line with allowlist, pause and the spool's room."""
        for peer in self._peers.values():
            if peer.recorded != self._is_allowed(peer.seen.user_id):
                peer.recorded = not peer.recorded
                self._note_participant(peer)
        admitted = {track_id for track_id, track in self._tracks.items() if self._admit(track)}
        wanted = {track_id for track_id in admitted if self._is_received(self._tracks[track_id])}
        self._source.unsubscribe(self._tracks.keys() - wanted)
        for track_id in self._tracks.keys() - admitted:
            self._exclude(self._tracks[track_id])
        self._source.subscribe(wanted)

    def _admit(self, track: KnownTrack) -> bool:
        """Give a track its log if it belongs to somebody who is recorded; tell whether it has one."""
        seen, peer = track.seen, self._peers.get(track.seen.peer_id)
        if peer is None or not peer.recorded:
            return False
        if seen.encrypted:
            self._unrecorded(seen.track_id, "Encrypted", "the track is end-to-end encrypted")
            return False
        if track.capture is None:
            track.capture = TrackCapture(
                self._spool,
                self._clock,
                track_id=seen.track_id,
                peer_id=seen.peer_id,
                user_id=peer.seen.user_id,
                source=seen.source,
                kind=seen.kind,
                name=peer.seen.name,
                on_codec=self._first_packet,
            )
            track.capture.mute(muted=track.muted)
            self._captures.append(track.capture)
        track.capture.set_shed(shed=self._shedding.sheds(seen.source))
        return True

    def _exclude(self, track: KnownTrack) -> None:
        """Take the log away from a track that may not be recorded any more."""
        if track.capture is not None:
            self._retire(track.capture, "excluded")
            track.capture = None

    def _retire(self, capture: TrackCapture, reason: str) -> None:
        """End a track; the oldest of many that ended is forgotten."""
        if (totals := self._source.totals_of(capture.track_id)) is not None:
            capture.note_totals(totals)
        capture.end(reason)
        ended = [known for known in self._captures if known.ended]
        if len(ended) > MAX_ENDED_TRACKS:
            self._captures.remove(ended[0])

    def _unrecorded(self, track_id: str, reason: str, message: str) -> None:
        """Declare a wanted track that cannot be recorded; once per track, and not where frames came."""
        track = self._tracks.get(track_id)
        peer = self._peers.get(track.seen.peer_id) if track else None
        if track is None or peer is None or not peer.recorded:
            return
        if track.refused or (track.capture and track.capture.log.frames):
            return
        track.refused = True
        user_id, source, message = peer.seen.user_id, track.seen.source, message[:512]
        self._note(
            "unrecorded",
            track_id=track_id,
            peer_id=peer.seen.peer_id,
            user_id=user_id,
            source=source.value,
            reason=reason,
            message=message,
        )
        if len(self._left_out) < MAX_UNRECORDED or track_id in self._left_out:
            self._left_out[track_id] = UnrecordedState(
                track_id=track_id, user_id=user_id, source=source, reason=reason, message=message
            )
        log.warning("track cannot be recorded", extra={"fields": {"track_id": track_id, "why": reason}})

    # Time

    async def _run_tasks(self) -> None:
        """Run source and ticker until the source is done or somebody asks to stop."""
        source = asyncio.create_task(self._source.run(), name="source")
        ticker = asyncio.create_task(self._tick(), name="ticker")
        wanted = asyncio.create_task(self._ending.wanted.wait(), name="stop-wanted")
        try:
            await asyncio.wait((source, ticker, wanted), return_when=asyncio.FIRST_COMPLETED)
            if ticker.done():
                ticker.result()
            if not source.done():
                await self._source.leave()
            await source
        except IsotrackError as error:
            self._fail(error)
        finally:
            for task in (source, ticker, wanted):
                task.cancel()
            await asyncio.gather(source, ticker, wanted, return_exceptions=True)
        self.stop(StopReason.INTERNAL_ERROR, "the source ended without a reason")

    async def _tick(self) -> None:
        """Flush, check, count; never returns."""
        tick = 0
        while True:
            await self._clock.sleep(min(FLUSH_SECONDS, max(0.05, self._seconds_left())))
            tick += 1
            self._source.receive()  # what lies in its socket would be lost with the process, too
            self._spool.flush_soon()
            if self._somebody_left:
                # NB: behind the flush. The line is written with the next one, and flushes are written one after the other.
                self._somebody_left = False
                self._note("written")
            if self._spool.failure is not None:
                self._fail(_spool_error(self._spool.failure))
            self._check_limits()
            if tick % TICKS_PER_LOOK == 0:
                self._look_at_the_room()
            if tick % TICKS_PER_STATE == 0:
                self._changed()
            if tick % TICKS_PER_COUNTERS == 0:
                self._note_counters()

    def _look_at_the_room(self) -> None:
        """Give tracks up, or take them up again, as the spool's room demands."""
        for capture in self._captures:
            capture.settle()
        if self._shedding.look(self._spool.taken):
            self._reconsider()

    def _seconds_left(self) -> float:
        return seconds_left(self._orders.max_duration_seconds, self._progress.started_ns, self._clock.monotonic_ns())

    def _check_limits(self) -> None:
        orders = self._orders
        if self._seconds_left() <= 0:
            self.stop(StopReason.MAX_DURATION, f"{orders.max_duration_seconds} s are over")
        if nobody_for_too_long(orders.empty_timeout_seconds, self._progress, self._clock.monotonic_ns()):
            self.stop(StopReason.ALL_PARTICIPANTS_LEFT, f"nobody was there for {orders.empty_timeout_seconds} s")

    def _watch_emptiness(self) -> None:
        """Note since when nobody is there. A lost connection says nothing about that."""
        progress = self._progress
        if not progress.connected or any(peer.seen.human for peer in self._peers.values()):
            progress.empty_since_ns = None
        elif progress.empty_since_ns is None:
            progress.empty_since_ns = self._clock.monotonic_ns()

    def _humans(self) -> int:
        return sum(peer.seen.human for peer in self._peers.values())

    def _first_packet(self) -> None:
        if self._progress.first_packet_at_ms is None:
            self._progress.first_packet_at_ms = self._clock.wall_ns() // 1_000_000
            self._changed()

    def _fail(self, error: IsotrackError) -> None:
        self._ending.error = self._ending.error or error
        self.stop(StopReason.INTERNAL_ERROR, str(error))

    # What is told

    def _note_process(self, event: str) -> None:
        """Journal something, and which process this is by which clocks."""
        self._note(
            event,
            version=VERSION,
            wall_ns=self._clock.wall_ns(),
            boot=self._clock.boot(),
            attempt=self._orders.attempt,
            recording_uid=self._orders.recording_uid,
            tells_written=True,
        )

    def _note(self, event: str, **fields: object) -> None:
        self._spool.journal(event, self._clock.monotonic_ns(), **fields)

    def _note_stop(self) -> None:
        ending = self._ending
        error = ending.error.reason if ending.error else None
        self._note("stop", reason=str(ending.reason or ""), message=ending.message, error=error)

    def _note_participant(self, peer: KnownPeer) -> None:
        seen = peer.seen
        self._note("participant", peer_id=seen.peer_id, user_id=seen.user_id, name=seen.name, recorded=peer.recorded)

    def _note_counters(self) -> None:
        counters = self._source.counters()
        for capture in self._captures:
            totals = counters.get(capture.track_id)
            # Of what is shed nothing grows, and each line takes of the last room
            if totals is not None and not capture.ended and not capture.shed:
                capture.note_totals(totals)

    def state(self) -> State:
        """Snapshot for the agent and the live table."""
        progress, ending = self._progress, self._ending
        counters = self._source.counters()
        now_ns = self._clock.monotonic_ns()
        receiving = any(capture.codec_name and not capture.ended and not capture.shed for capture in self._captures)
        usage = self._shedding.usage
        shown = sorted(self._captures, key=lambda capture: capture.ended)
        return State(
            phase=phase_of(progress, ending, paused=self._paused, receiving=receiving),
            stop_reason=ending.reason,
            error_reason=ending.error.reason if ending.error else "",
            error_exit_code=ending.error.exit_code if ending.error else 0,
            message=ending.message,
            incarnation=self._spool.incarnation,
            call_sid=progress.call_sid,
            armed_at_ms=progress.armed_at_ms,
            first_packet_at_ms=progress.first_packet_at_ms,
            participants=self._humans(),
            spool=SpoolState(level=self._shedding.level, used=usage.used, capacity=usage.capacity),
            tracks=tuple(
                # NB: of a track that is over the source may know the last connection alone, or what came behind an exclusion
                capture.state(None if capture.ended else counters.get(capture.track_id), now_ns)
                for capture in shown
            ),
            unrecorded=tuple(self._left_out.values()),
        )


def _spool_error(error: OSError) -> StorageError:
    return StorageError(f"the spool cannot be written ({error.strerror}): give it more room")
