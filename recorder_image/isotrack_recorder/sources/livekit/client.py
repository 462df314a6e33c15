"""The LiveKit Source: join, answer the server's offers, subscribe to what is wanted, and join again when anything breaks.

    run ── connect ──> join ──> offers, updates … ──> leave: call over, removed, fenced ──> returns
             ^           │                       └──> websocket or media connection lost
             └─ jitter ──┴────────────────────────────┘

LiveKit could resume a session, but only with an ICE restart; we always join anew under the same identity, which gives a
new media connection. The old one is kept until the new join is answered: while only the websocket is gone, media flows on.
Roster, wanted tracks and totals outlive connections; Signalling and MediaConnection are one connection each. All state is
touched from the event loop's thread only. Messages are handled one at a time, so one offer is answered before the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Final, Protocol

from livekit.protocol import models, rtc

from isotrack_api.words import MediaKind, Quality
from isotrack_recorder.clock import Clock
from isotrack_recorder.errors import CallNotFoundError, ParseError, SourceError, SourceRefusedError
from isotrack_recorder.media import MediaListener, TrackCounters
from isotrack_recorder.sources.base import (
    CallEnded,
    Disconnected,
    Event,
    Joined,
    MediaConnection,
    Ready,
    Reconnected,
    Removed,
    SourceHandler,
    TrackEnded,
    TrackSeen,
)
from isotrack_recorder.sources.counters import add_counters

from .policy import RETURN_SECONDS, Ending, Rejoin, judge_join, read_first_leave, read_leave, rejoin_delay
from .roster import Roster, fold, reason_name
from .signalling import Signalling

log = logging.getLogger(__name__)

MAX_CANDIDATE_BYTES: Final = 4096
SETTLE_SECONDS: Final = 1.0
"""Before we leave, packets that are missing may still come: a request, its answer, and once more."""
LAST_WORD_SECONDS: Final = 1.0
"""A server that ends a call says so and closes the media; on another socket, that close may arrive before the word."""
STEADY_SECONDS: Final = 10
"""A connection that lasted so long was a good one: its loss is answered at once. Others are tried again ever later."""
_NS: Final = 1_000_000_000
_QUALITIES: Final = {
    Quality.HIGH: models.VideoQuality.HIGH,
    Quality.MEDIUM: models.VideoQuality.MEDIUM,
    Quality.LOW: models.VideoQuality.LOW,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveKitSettings:
    """How one call is joined."""

    url: str
    """Base URL of the server."""
    call_sid: str = ""
    """Session of the call as an earlier attempt or incarnation saw it; another one means that the call is over."""
    first_join_seconds: float = 30.0
    """How long an unreachable server is tried at the start. A server that says no is not asked again."""
    rejoin_seconds: float = 300.0
    """How long after a loss; below the ten minutes for which a refreshed token is good."""
    media_seconds: float = 15.0
    """From join to a standing media connection. LiveKit itself gives up after 60 s."""
    quality: Quality = Quality.HIGH
    """Layer of simulcast pictures."""


class Tokens(Protocol):
    """Where join tokens come from and refreshed ones go."""

    def current(self) -> str:
        """The newest token."""
        ...

    def refreshed(self, token: str) -> None:
        """The server sent a newer one."""


class LiveKitSource:
    """See `sources.base.Source`."""

    def __init__(
        self,
        settings: LiveKitSettings,
        tokens: Tokens,
        handler: SourceHandler,
        clock: Clock,
        open_media: Callable[[MediaListener], MediaConnection],
    ) -> None:
        self._settings = settings
        self._tokens = tokens
        self._handler = handler
        self._clock = clock
        self._open_media = open_media
        self._roster = Roster()
        self._pinned_sid = settings.call_sid
        self._left_behind: frozenset[str] = frozenset()
        """User ids of those who were there when the connection broke; until the call is known to go on."""
        self._absent_ns: int | None = None
        """Since when the server is there but the call is not."""
        self._kinds: dict[str, MediaKind] = {}
        """Of every track in the room."""
        self._wanted: set[str] = set()
        self._unsent: set[str] = set()
        """Wanted, but the server does not know yet: one message for all that one turn of the loop brings."""
        self._totals: dict[str, TrackCounters] = {}
        """Of media connections that are over; of tracks that are in the room."""
        self._signalling: Signalling | None = None
        self._media: MediaConnection | None = None
        self._was_ready = False
        self._healthy_ns = 0
        """When a media connection last stood (at first: when we began)."""
        self._standing = False
        """A media connection stands now."""
        self._leaving = asyncio.Event()
        self._done = asyncio.Event()
        self._running = False

    async def run(self) -> None:
        """See Source."""
        self._running = True
        stay = asyncio.create_task(self._stay_joined(), name="livekit-stay")
        leaving = asyncio.create_task(self._leaving.wait(), name="livekit-leaving")
        try:
            await asyncio.wait((stay, leaving), return_when=asyncio.FIRST_COMPLETED)
            if stay.done():
                stay.result()
        finally:
            stay.cancel()
            leaving.cancel()
            await asyncio.gather(stay, leaving, return_exceptions=True)
            await self._drop_signalling(leave=True)
            await self._drop_media()
            self._done.set()

    def subscribe(self, track_ids: Iterable[str]) -> None:
        """See Source."""
        new = set(track_ids) - self._wanted
        self._wanted |= new
        if new and not self._unsent:
            asyncio.get_running_loop().call_soon(self._send_unsent)
        self._unsent |= new

    def unsubscribe(self, track_ids: Iterable[str]) -> None:
        """See Source."""
        gone = self._wanted.intersection(track_ids)
        self._wanted -= gone
        self._unsent -= gone
        for track_id in gone:
            self._forget(track_id)
        self._send_subscription(gone, wanted=False)

    def request_key_frame(self, track_id: str) -> None:
        """See Source."""
        if self._media is not None:
            self._media.request_key_frame(track_id)

    def counters(self) -> Mapping[str, TrackCounters]:
        """See Source."""
        totals = dict(self._totals)
        for track_id, counters in (self._media.counters() if self._media is not None else {}).items():
            earlier = totals.get(track_id)
            totals[track_id] = counters if earlier is None else add_counters(earlier, counters)
        return totals

    def totals_of(self, track_id: str) -> TrackCounters | None:
        """See Source."""
        earlier = self._totals.get(track_id)
        counters = self._media.totals_of(track_id) if self._media is not None else None
        if earlier is None or counters is None:
            return earlier or counters
        return add_counters(earlier, counters)

    def receive(self) -> None:
        """See Source."""
        if self._media is not None:
            self._media.receive()

    def flush(self) -> None:
        """See Source."""
        if self._media is not None:
            self._media.flush()

    async def leave(self) -> None:
        """See Source."""
        if self._media is not None:
            await self._media.settle(SETTLE_SECONDS)
        self.flush()
        self._leaving.set()
        if self._running:
            await self._done.wait()

    async def _stay_joined(self) -> None:
        """Join and join again until the call is over for us."""
        self._healthy_ns = self._clock.monotonic_ns()
        attempt = 0
        while True:
            began_ns = self._clock.monotonic_ns()
            try:
                outcome, reason = await self._one_connection()
            except CallNotFoundError:
                if not self._pinned_sid:
                    raise
                outcome, reason = self._await_return(CallEnded("the room is gone")), "the room is gone"
            except SourceRefusedError:
                raise
            except SourceError as error:
                outcome, reason = Rejoin.NOW, str(error)
            if not isinstance(outcome, Rejoin):
                self._handler.on_event(outcome)
                return
            attempt = 0 if self._healthy_ns - began_ns > STEADY_SECONDS * _NS else attempt + 1
            self._give_up_in_time(reason)
            await self._clock.sleep(rejoin_delay(attempt, random.random()))

    def _await_return(self, ended: CallEnded) -> CallEnded | Rejoin:
        """The call is not there: over at once where nobody was lost, else when nobody came back for so long."""
        now_ns = self._clock.monotonic_ns()
        self._absent_ns = self._absent_ns or now_ns
        waits = self._left_behind and now_ns - self._absent_ns < RETURN_SECONDS * _NS
        return Rejoin.NOW if waits else ended

    def _give_up_in_time(self, reason: str) -> None:
        """Raise SourceError when the server has been away for too long."""
        limit = self._settings.rejoin_seconds if self._was_ready else self._settings.first_join_seconds
        if self._clock.monotonic_ns() - self._healthy_ns > limit * _NS:
            raise SourceError(reason)

    async def _one_connection(self) -> tuple[Ending | Rejoin, str]:
        """Live through one signalling connection; say what comes next and why."""
        signalling = await Signalling.connect(self._settings.url, self._tokens.current(), self._clock)
        if isinstance(signalling, rtc.LeaveRequest):
            outcome = read_first_leave(signalling, joined_before=bool(self._pinned_sid) or self._was_ready)
            return outcome, f"LiveKit ends the join ({reason_name(signalling.reason)})"
        self._signalling = signalling
        try:
            ended = await self._enter(signalling.join)
            if ended is not None:
                return ended, "nobody is back in the call"
            return await self._listen(signalling)
        finally:
            if self._standing:
                self._standing, self._healthy_ns = False, self._clock.monotonic_ns()
            # NB: before the next join, or messages would be queued for a dead websocket.
            await self._drop_signalling(leave=self._leaving.is_set())

    async def _enter(self, join: rtc.JoinResponse) -> CallEnded | Rejoin | None:
        """Take a join into account; a result when it is not our call (any more, or not yet again)."""
        self._left_behind |= self._roster.user_ids
        roster, events = fold(self._roster, rtc.SignalResponse(join=join))
        judged = judge_join(join, self._pinned_sid, self._left_behind)
        if judged is not None:
            await self._drop_signalling(leave=True)
            return self._await_return(CallEnded("nobody came back")) if isinstance(judged, Rejoin) else judged
        await self._drop_media()
        self._roster = roster
        self._absent_ns = None
        if join.room.sid:
            self._pinned_sid, self._left_behind = join.room.sid, frozenset()
        self._media = self._open_media(self._handler)
        log.info("joined", extra={"fields": {"call_sid": join.room.sid[:64], "server": join.server_version[:32]}})
        self._handler.on_event(Joined(join.room.sid))
        self._emit(events)
        self._unsent = set(self._wanted)
        self._send_unsent()
        return None

    async def _listen(self, signalling: Signalling) -> tuple[Ending | Rejoin, str]:
        """Handle messages and watch the media connection until one of them is over."""
        assert self._media is not None
        outcome: list[tuple[Ending | Rejoin, str]] = []

        async def handle(message: rtc.SignalResponse) -> None:
            if not outcome and (found := await self._handle(message)) is not None:
                outcome.append(found)
                await signalling.close(leave=False)

        reading = asyncio.create_task(signalling.run(handle), name="livekit-signalling")
        media = asyncio.create_task(self._watch_media(self._media), name="livekit-media")
        try:
            await asyncio.wait((reading, media), return_when=asyncio.FIRST_COMPLETED)
            if not outcome and self._media.closed.done():
                await asyncio.wait((reading,), timeout=LAST_WORD_SECONDS)
            if not outcome:
                outcome.append((Rejoin.NOW, media.result() if media.done() else "signalling connection lost"))
            if reading.done():
                reading.result()
        finally:
            for task in (reading, media):
                task.cancel()
            await asyncio.gather(reading, media, return_exceptions=True)
        if isinstance(outcome[0][0], Rejoin):
            log.warning("connection to the SFU lost", extra={"fields": {"reason": outcome[0][1]}})
            self._handler.on_event(Disconnected(outcome[0][1]))
        return outcome[0]

    async def _watch_media(self, media: MediaConnection) -> str:
        """Report the connection when it stands; return the reason when it is lost."""
        connected = asyncio.create_task(media.connected.wait(), name="livekit-connected")
        try:
            done, _ = await asyncio.wait(
                (connected, media.closed), timeout=self._settings.media_seconds, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            connected.cancel()
        if not done:
            return f"no media connection within {self._settings.media_seconds:.0f} s: is UDP to the SFU open?"
        if connected in done:
            self._handler.on_event(Reconnected() if self._was_ready else Ready())
            self._was_ready = True
            self._standing = True
        reason = await asyncio.shield(media.closed)
        return f"media connection lost: {reason}"

    async def _handle(self, message: rtc.SignalResponse) -> tuple[Ending | Rejoin, str] | None:
        """Act on one message; a result ends the connection."""
        kind = message.WhichOneof("message")
        if kind == "offer":
            return await self._answer(message.offer)
        if kind == "trickle":
            await self._add_candidate(message.trickle)
        elif kind == "leave":
            return read_leave(message.leave), "the server asks for a new join"
        elif kind == "refresh_token":
            self._tokens.refreshed(message.refresh_token)
        elif kind == "room_update":
            return self._name_call(message.room_update.room.sid)
        elif kind == "room_moved":
            return Removed("moved to another room"), ""
        else:
            self._roster, events = fold(self._roster, message)
            self._emit(events)
        return None

    async def _answer(self, offer: rtc.SessionDescription) -> tuple[Rejoin, str] | None:
        assert self._media is not None
        try:
            sdp = await self._media.handle_offer(offer.sdp, dict(offer.mid_to_track_id))
        except (ParseError, OSError) as error:  # OSError: no address, no sockets left
            return Rejoin.NOW, f"offer not answered: {str(error)[:200]}"
        self._send(rtc.SignalRequest(answer=rtc.SessionDescription(type="answer", sdp=sdp, id=offer.id)))
        return None

    async def _add_candidate(self, trickle: rtc.TrickleRequest) -> None:
        """Hand a candidate of the server to the media connection; malformed ones are as good as none."""
        if trickle.target != rtc.SignalTarget.SUBSCRIBER or len(trickle.candidateInit) > MAX_CANDIDATE_BYTES:
            return
        assert self._media is not None
        # ParseError is a ValueError; RecursionError is JSON that nests a thousand deep
        with contextlib.suppress(ValueError, AttributeError, RecursionError):
            candidate = json.loads(trickle.candidateInit).get("candidate", "")
            await self._media.add_candidate(str(candidate).removeprefix("candidate:"))

    def _name_call(self, sid: str) -> tuple[CallEnded, str] | None:
        """The room's session may become known only after the join."""
        if sid and not self._pinned_sid:
            self._pinned_sid = sid
            self._handler.on_event(Joined(sid))
        elif sid and sid != self._pinned_sid:
            if self._left_behind.isdisjoint(self._roster.user_ids):
                return CallEnded("the room has a new session"), ""
            self._pinned_sid = sid
            self._handler.on_event(Joined(sid))
        if sid:
            self._left_behind = frozenset()
        return None

    def _emit(self, events: Iterable[Event]) -> None:
        for event in events:
            if isinstance(event, TrackSeen):
                self._kinds[event.track_id] = event.kind
            elif isinstance(event, TrackEnded):
                self._forget(event.track_id)
                self._kinds.pop(event.track_id, None)
                self._wanted.discard(event.track_id)
                self._unsent.discard(event.track_id)
            self._handler.on_event(event)
            if isinstance(event, TrackEnded):
                self._totals.pop(event.track_id, None)

    def _forget(self, track_id: str) -> None:
        if self._media is not None:
            self._media.forget_track(track_id)

    def _send(self, request: rtc.SignalRequest) -> None:
        if self._signalling is not None:
            self._signalling.send(request)

    def _send_unsent(self) -> None:
        unsent, self._unsent = self._unsent, set()
        self._send_subscription(unsent, wanted=True)
        if unsent and self._media is not None:
            self._media.reconsider()

    def _send_subscription(self, track_ids: AbstractSet[str], *, wanted: bool) -> None:
        """Tell the server what we want, and of pictures which layer."""
        if not track_ids or self._signalling is None:
            return
        owners = self._roster.owners
        by_peer: dict[str, list[str]] = {}
        for track_id in sorted(track_ids):
            by_peer.setdefault(owners.get(track_id, ""), []).append(track_id)
        subscription = rtc.UpdateSubscription(
            subscribe=wanted,
            participant_tracks=[
                models.ParticipantTracks(participant_sid=peer_id, track_sids=tracks)
                for peer_id, tracks in by_peer.items()
                if peer_id
            ],
        )
        self._send(rtc.SignalRequest(subscription=subscription))
        video = [track_id for track_id in sorted(track_ids) if self._kinds.get(track_id) == MediaKind.VIDEO]
        if wanted and video:
            setting = rtc.UpdateTrackSettings(track_sids=video, quality=_QUALITIES[self._settings.quality])
            self._send(rtc.SignalRequest(track_setting=setting))

    async def _drop_signalling(self, *, leave: bool) -> None:
        signalling, self._signalling = self._signalling, None
        if signalling is not None:
            await signalling.close(leave=leave)

    async def _drop_media(self) -> None:
        """Flush and close the media connection, keeping its totals."""
        media = self._media
        if media is None:
            return
        media.flush()
        # NB: a connection knows tracks that are over, too. Kept here, they would be summed and copied each second for ever.
        self._totals = {known: replace(totals) for known, totals in self.counters().items() if known in self._kinds}
        self._media = None
        try:
            await media.close()
        except asyncio.CancelledError:
            await media.close()  # we leave meanwhile: it may be closed in part
            raise
