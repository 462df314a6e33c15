"""The client against a scripted SFU: what a real one cannot be made to do on demand, and what must follow from it.

The server here speaks the real signalling protocol over a real websocket; each connection is played by one script. Media
connections are counters of what was asked of them. Joining, media and orderly ends are tested on a real LiveKit server in
tests/integration.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import WSMsgType, web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from livekit.protocol import models, rtc

from isotrack_api.base import MediaKind, Quality
from isotrack_recorder.clock import SystemClock
from isotrack_recorder.errors import CallNotFoundError, SourceError, SourceRefusedError
from isotrack_recorder.media import TrackCounters, TrackSink
from isotrack_recorder.sources.base import (
    CallEnded,
    Disconnected,
    Event,
    Fenced,
    Joined,
    ParticipantSeen,
    Ready,
    Removed,
    TrackSeen,
)
from isotrack_recorder.sources.livekit.client import LiveKitSettings, LiveKitSource

R = models.DisconnectReason
CAMERA = models.TrackInfo(sid="TR_cam", type=models.TrackType.VIDEO, source=models.TrackSource.CAMERA)
ALICE = models.ParticipantInfo(sid="PA_a", identity="alice", state=models.ParticipantInfo.ACTIVE, tracks=[CAMERA])


class Connection:
    """The server's side of one signalling connection."""

    def __init__(self, ws: web.WebSocketResponse, token: str) -> None:
        self.ws = ws
        self.token = token

    async def send(self, **message: object) -> None:
        await self.ws.send_bytes(rtc.SignalResponse(**message).SerializeToString())  # type: ignore[arg-type]

    async def join(self, *others: models.ParticipantInfo, sid: str = "RM_1") -> None:
        """Let the client in."""
        room = models.Room(sid=sid, name="room")
        own = models.ParticipantInfo(sid="PA_own", identity="rec")
        await self.send(
            join=rtc.JoinResponse(
                room=room, participant=own, other_participants=others, ping_interval=1, ping_timeout=2
            )
        )

    async def leave(self, reason: int, action: int = rtc.LeaveRequest.Action.DISCONNECT) -> None:
        await self.send(leave=rtc.LeaveRequest(reason=reason, action=action))  # type: ignore[arg-type]

    async def receive(self, kind: str) -> rtc.SignalRequest:
        """Wait for a request of this kind; others are skipped."""
        async for frame in self.ws:
            assert frame.type is WSMsgType.BINARY
            request = rtc.SignalRequest.FromString(frame.data)
            if request.WhichOneof("message") == kind:
                return request
        raise AssertionError(f"the client is gone without {kind}")

    async def gone(self) -> None:
        """Wait until the client closes."""
        async for _ in self.ws:
            pass


Script = Callable[[Connection], Awaitable[None]]


class FakeMedia:
    """A media connection that stands at once."""

    made: list[FakeMedia]

    def __init__(self, *, stands: bool = True) -> None:
        self.connected = asyncio.Event()
        self.closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.packets = 0
        self.forgotten: list[str] = []
        self.done: list[str] = []
        self.is_closed = False
        if stands:
            self.connected.set()

    async def handle_offer(self, sdp: str, mid_to_track_id: Mapping[str, str]) -> str:
        return f"answer to {sdp} {dict(mid_to_track_id)}"

    async def add_candidate(self, candidate: str) -> None: ...

    def forget_track(self, track_id: str) -> None:
        self.forgotten.append(track_id)

    def reconsider(self) -> None: ...

    def request_key_frame(self, track_id: str) -> None: ...

    def counters(self) -> Mapping[str, TrackCounters]:
        return {"TR_cam": TrackCounters(packets=self.packets)}

    def totals_of(self, track_id: str) -> TrackCounters | None:
        return self.counters().get(track_id)

    async def settle(self, seconds: float) -> None:
        self.done.append("settled")

    def receive(self) -> None:
        self.done.append("received")

    def flush(self) -> None:
        self.done.append("flushed")

    async def close(self) -> None:
        self.is_closed = True


class Tokens:
    """Counts up with each refresh."""

    def __init__(self) -> None:
        self.token = "first"
        self.on_refresh: Callable[[], None] = lambda: None

    def current(self) -> str:
        return self.token

    def refreshed(self, token: str) -> None:
        self.token = token
        self.on_refresh()


class LeapingClock(SystemClock):
    """The machine's clock, but for what a test lets pass at once."""

    def __init__(self) -> None:
        self._leapt_ns = 0

    def leap(self, seconds: int) -> None:
        self._leapt_ns += seconds * 1_000_000_000

    def monotonic_ns(self) -> int:
        return super().monotonic_ns() + self._leapt_ns


class Client:
    """A client on the scripted server, wanting every track."""

    def __init__(self, url: str, clock: SystemClock | None = None, **settings: object) -> None:
        self.events: list[Event] = []
        self.media: list[FakeMedia] = []
        self.tokens = Tokens()
        self.stands = True
        self.packets = 0
        """That each media connection counts."""
        self.ready = asyncio.Event()
        self.source = LiveKitSource(
            LiveKitSettings(url=url, **{"first_join_seconds": 0, **settings}),  # type: ignore[arg-type]
            self.tokens,
            self,
            clock or SystemClock(),
            self._open_media,
        )

    def _open_media(self, _listener: object) -> FakeMedia:
        self.media.append(FakeMedia(stands=self.stands))
        self.media[-1].packets = self.packets
        return self.media[-1]

    def on_event(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Ready):
            self.ready.set()
        if isinstance(event, TrackSeen):
            self.source.subscribe([event.track_id])

    def open_track(self, track_id: str, kind: MediaKind) -> TrackSink | None:
        return None

    def track_unsupported(self, track_id: str, kind: MediaKind, offered: str) -> None: ...

    @property
    def kinds(self) -> list[str]:
        return [type(event).__name__ for event in self.events]


@asynccontextmanager
async def a_server(*scripts: Script, status: int = 200) -> AsyncIterator[str]:
    """A server that plays one script per connection, the last one again and again; yields its URL."""
    errors: list[BaseException] = []
    turns = iter(scripts)
    last = scripts[-1] if scripts else None

    async def serve(request: web.Request) -> web.StreamResponse:
        if status != 200:
            return web.Response(status=status, text="the reason in words")
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        script = next(turns, last)
        assert script is not None
        try:
            await script(Connection(ws, request.headers["Authorization"].removeprefix("Bearer ")))
        except (AssertionError, ConnectionError) as error:
            errors.append(error)
        finally:
            with suppress(ConnectionError):
                await ws.close()
        return ws

    app = web.Application()
    app.router.add_get("/rtc", serve)
    app.router.add_get("/rtc/validate", serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    try:
        yield f"ws://127.0.0.1:{port}"
    finally:
        await runner.cleanup()
    assert not errors


async def in_time(awaitable: Awaitable[object], seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        await awaitable


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (R.ROOM_CLOSED, CallEnded("ROOM_CLOSED")),
        (R.DUPLICATE_IDENTITY, Fenced()),
        (R.PARTICIPANT_REMOVED, Removed("PARTICIPANT_REMOVED")),
    ],
)
async def test_a_final_leave_ends_the_run(reason: int, expected: Event) -> None:
    async def script(connection: Connection) -> None:
        await connection.join(ALICE)
        await connection.receive("subscription")
        await connection.leave(reason)

    async with a_server(script) as url:
        client = Client(url)
        await in_time(client.source.run())
    assert client.kinds[:3] == ["Joined", "ParticipantSeen", "TrackSeen"]
    assert client.events[-1] == expected
    assert client.media[0].is_closed


@pytest.mark.parametrize(
    ("word", "quality"),
    [
        (Quality.HIGH, models.VideoQuality.HIGH),
        (Quality.MEDIUM, models.VideoQuality.MEDIUM),
        (Quality.LOW, models.VideoQuality.LOW),
    ],
)
async def test_subscriptions_of_one_moment_are_one_message_and_ask_for_the_wanted_layer(
    word: Quality, quality: models.VideoQuality
) -> None:
    requests: list[rtc.SignalRequest] = []

    async def script(connection: Connection) -> None:
        tracks = [models.TrackInfo(sid=f"TR_{n}", type=models.TrackType.VIDEO) for n in range(3)]
        person = models.ParticipantInfo(sid="PA_a", identity="alice", tracks=tracks)
        await connection.join(person)
        requests.append(await connection.receive("subscription"))
        requests.append(await connection.receive("track_setting"))
        await connection.leave(R.ROOM_CLOSED)

    async with a_server(script) as url:
        await in_time(Client(url, quality=word).source.run())
    wanted = requests[0].subscription
    assert wanted.subscribe
    assert [(p.participant_sid, list(p.track_sids)) for p in wanted.participant_tracks] == [
        ("PA_a", ["TR_0", "TR_1", "TR_2"])
    ]
    assert requests[1].track_setting.quality == quality


async def test_offers_are_answered_with_their_number() -> None:
    answers: list[rtc.SessionDescription] = []

    async def script(connection: Connection) -> None:
        await connection.join(ALICE)
        for number in (1, 2):
            offer = rtc.SessionDescription(type="offer", sdp=f"sdp{number}", id=number, mid_to_track_id={"0": "TR_cam"})
            await connection.send(offer=offer)
        answers.extend([(await connection.receive("answer")).answer for _ in range(2)])
        await connection.leave(R.ROOM_CLOSED)

    async with a_server(script) as url:
        await in_time(Client(url).source.run())
    assert [(answer.id, answer.sdp) for answer in answers] == [
        (1, "answer to sdp1 {'0': 'TR_cam'}"),
        (2, "answer to sdp2 {'0': 'TR_cam'}"),
    ]


async def drops(connection: Connection) -> None:
    """The websocket breaks without a word."""
    await connection.join(ALICE)
    await connection.receive("subscription")


async def asks_to_rejoin(connection: Connection) -> None:
    """The server shuts down and sends everybody elsewhere."""
    await connection.join(ALICE)
    await connection.receive("subscription")
    await connection.leave(R.SERVER_SHUTDOWN, rtc.LeaveRequest.Action.RECONNECT)
    await connection.gone()


async def is_closed(connection: Connection) -> None:
    """A call that ends in good order."""
    await connection.join(ALICE)
    await connection.receive("subscription")
    await connection.leave(R.ROOM_CLOSED)


@pytest.mark.parametrize("script", [drops, asks_to_rejoin])
async def test_a_lost_connection_is_joined_again_and_wants_the_same(script: Script) -> None:
    """NB: `is_closed` waits for the subscription of the second join."""
    async with a_server(script, is_closed) as url:
        client = Client(url)
        await in_time(client.source.run())
    assert client.kinds.count("Joined") == 2
    assert client.kinds.count("TrackSeen") == 1, "who stayed is not told again"
    assert client.kinds.index("Disconnected") < client.kinds.index("Reconnected")
    assert client.events[-1] == CallEnded("ROOM_CLOSED")
    assert all(media.is_closed for media in client.media)


async def test_a_lost_media_connection_is_joined_again_and_totals_go_on() -> None:
    async def stays(connection: Connection) -> None:
        await connection.join(ALICE)
        await connection.gone()

    async with a_server(stays, is_closed) as url:
        client = Client(url)
        running = asyncio.create_task(client.source.run())
        await in_time(client.ready.wait())
        client.media[0].packets = 5
        client.media[0].closed.set_result("consent lost")
        await in_time(running)
    assert Disconnected("media connection lost: consent lost") in client.events
    assert client.source.counters()["TR_cam"].packets == 5
    assert client.source.totals_of("TR_cam") == client.source.counters()["TR_cam"]
    assert len(client.media) == 2


async def test_totals_of_tracks_that_are_over_are_not_kept_over_connections() -> None:
    """A call of a day joins again many times, and a thousand people come and go in it."""

    async def leaves(connection: Connection) -> None:
        await connection.join(ALICE)
        await connection.receive("subscription")
        gone = models.ParticipantInfo(sid="PA_a", identity="alice", state=models.ParticipantInfo.DISCONNECTED)
        await connection.send(update=rtc.ParticipantUpdate(participants=[gone]))

    async with a_server(leaves, is_closed) as url:
        client = Client(url)
        client.packets = 5
        await in_time(client.source.run())
    assert client.kinds.count("Joined") == 2
    assert client.source._totals.get("TR_cam") == TrackCounters(packets=5), "of the second connection alone"


async def test_leaving_while_the_connection_of_before_is_closed_closes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, calls = asyncio.Event(), 0
    close = FakeMedia.close

    async def slow(media: FakeMedia) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            begun.set()
            await asyncio.sleep(600)
        await close(media)

    async def stays(connection: Connection) -> None:
        await connection.join(ALICE)
        await connection.gone()

    monkeypatch.setattr(FakeMedia, "close", slow)
    async with a_server(drops, stays) as url:
        client = Client(url)
        running = asyncio.create_task(client.source.run())
        await in_time(begun.wait())
        await in_time(client.source.leave())
        await in_time(running)
    assert [media.is_closed for media in client.media] == [True]


async def test_a_close_of_the_media_that_overtakes_the_word_of_the_end_is_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server says that the room is deleted and closes the media; nothing orders the two sockets."""
    monkeypatch.setattr("isotrack_recorder.sources.livekit.client.LAST_WORD_SECONDS", 60.0)
    media_closed = asyncio.Event()

    async def ends(connection: Connection) -> None:
        await connection.join(ALICE)
        await media_closed.wait()
        await connection.leave(R.ROOM_DELETED)

    async with a_server(ends, is_closed) as url:
        client = Client(url)
        running = asyncio.create_task(client.source.run())
        await in_time(client.ready.wait())
        client.media[0].closed.set_result("closed by the other side")
        await asyncio.sleep(0)
        media_closed.set()
        await in_time(running)
    assert client.events[-1] == CallEnded("ROOM_DELETED")
    assert "Disconnected" not in client.kinds
    assert len(client.media) == 1


async def test_media_that_never_stands_is_joined_again_and_given_up_in_time() -> None:
    clock = LeapingClock()
    joins = 0

    async def stays(connection: Connection) -> None:
        nonlocal joins
        joins += 1
        if joins == 2:
            clock.leap(1000)
        await connection.join(ALICE)
        await connection.gone()

    async with a_server(stays) as url:
        client = Client(url, clock=clock, media_seconds=0.05, first_join_seconds=900)
        client.stands = False
        with pytest.raises(SourceError, match="UDP"):
            await in_time(client.source.run())
    assert "Ready" not in client.kinds
    assert len(client.media) == 2


async def test_a_rejoin_never_enters_another_call() -> None:
    bob = models.ParticipantInfo(sid="PA_b", identity="bob", state=models.ParticipantInfo.ACTIVE)

    async def another(connection: Connection) -> None:
        await connection.join(bob, sid="RM_2")
        await connection.receive("leave")

    async with a_server(drops, another) as url:
        client = Client(url)
        await in_time(client.source.run())
    assert isinstance(client.events[-1], CallEnded)
    assert [event.user_id for event in client.events if isinstance(event, ParticipantSeen)] == ["alice"]


async def test_a_server_that_was_restarted_is_followed_into_the_new_session_of_the_same_people() -> None:
    """It forgot everything: at first there is no room, then an empty one, then Alice under new ids."""
    back = models.TrackInfo(sid="TR_new", type=models.TrackType.VIDEO, source=models.TrackSource.CAMERA)
    again = models.ParticipantInfo(sid="PA_new", identity="alice", tracks=[back])

    async def empty(connection: Connection) -> None:
        await connection.join(sid="RM_2")
        await connection.receive("leave")

    async def returned(connection: Connection) -> None:
        await connection.join(again, sid="RM_2")
        await connection.receive("subscription")
        await connection.leave(R.ROOM_CLOSED)

    async with a_server(drops, empty, empty, returned) as url:
        client = Client(url)
        await in_time(client.source.run())
    assert [event.call_sid for event in client.events if isinstance(event, Joined)] == ["RM_1", "RM_2"]
    assert client.kinds.count("TrackEnded") == 1
    assert [event.peer_id for event in client.events if isinstance(event, ParticipantSeen)] == ["PA_a", "PA_new"]
    assert client.kinds.count("Disconnected") == 1
    assert client.events[-1] == CallEnded("ROOM_CLOSED")


async def test_who_comes_back_is_awaited_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isotrack_recorder.sources.livekit.client.RETURN_SECONDS", 0.5)

    async def empty(connection: Connection) -> None:
        await connection.join(sid="RM_2")
        await connection.receive("leave")

    async with a_server(drops, empty) as url:
        client = Client(url)
        await in_time(client.source.run())
    assert client.events[-1] == CallEnded("nobody came back")


@pytest.mark.parametrize("reason", [R.SERVER_SHUTDOWN, R.JOIN_FAILURE, R.MIGRATION, R.UNKNOWN_REASON], ids=R.Name)
async def test_a_rejoin_that_is_answered_with_a_passing_reason_is_tried_again(reason: int) -> None:
    """A server that drains or restarts says goodbye to joins, too."""

    async def turned_away(connection: Connection) -> None:
        await connection.leave(reason)
        await connection.gone()

    async def returned(connection: Connection) -> None:
        await connection.join(ALICE)
        await connection.receive("subscription")
        await connection.leave(R.ROOM_CLOSED)

    async with a_server(drops, turned_away, turned_away, returned) as url:
        client = Client(url)
        await in_time(client.source.run())
    assert [event.call_sid for event in client.events if isinstance(event, Joined)] == ["RM_1", "RM_1"]
    assert client.kinds.count("Disconnected") == 1
    assert client.events[-1] == CallEnded("ROOM_CLOSED")


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (R.ROOM_CLOSED, CallEnded("ROOM_CLOSED")),
        (R.ROOM_DELETED, CallEnded("ROOM_DELETED")),
        (R.DUPLICATE_IDENTITY, Fenced()),
        (R.PARTICIPANT_REMOVED, Removed("PARTICIPANT_REMOVED")),
    ],
)
async def test_a_rejoin_that_is_answered_with_a_final_leave_ends_the_run(reason: int, expected: Event) -> None:
    async def turned_away(connection: Connection) -> None:
        await connection.leave(reason)
        await connection.gone()

    async with a_server(drops, turned_away) as url:
        client = Client(url)
        await in_time(client.source.run())
    assert client.events[-1] == expected


async def test_rejoins_that_are_turned_away_for_too_long_end_with_their_reason() -> None:
    clock = LeapingClock()

    async def turned_away(connection: Connection) -> None:
        clock.leap(301)
        await connection.leave(R.SERVER_SHUTDOWN)
        await connection.gone()

    async with a_server(drops, turned_away) as url:
        with pytest.raises(SourceError, match="SERVER_SHUTDOWN") as raised:
            await in_time(Client(url, clock=clock).source.run())
    assert not isinstance(raised.value, SourceRefusedError)


async def test_a_first_join_that_is_answered_with_a_leave_says_why() -> None:
    async def turned_away(connection: Connection) -> None:
        await connection.leave(R.JOIN_FAILURE)
        await connection.gone()

    async with a_server(turned_away) as url:
        client = Client(url)
        with pytest.raises(SourceRefusedError, match="JOIN_FAILURE"):
            await in_time(client.source.run())
    assert client.events == []


async def test_a_call_that_is_moved_to_another_room_is_not_followed() -> None:
    async def script(connection: Connection) -> None:
        await connection.join(ALICE)
        await connection.receive("subscription")
        await connection.send(room_moved=rtc.RoomMovedResponse(room=models.Room(sid="RM_2")))
        await connection.gone()

    async with a_server(script) as url:
        client = Client(url)
        await in_time(client.source.run())
    assert client.events[-1] == Removed("moved to another room")
    assert client.kinds.count("Joined") == 1


async def test_an_empty_room_of_the_same_session_is_still_the_call() -> None:
    """After a common outage we may be the first to be back."""

    async def empty(connection: Connection) -> None:
        await connection.join()
        await connection.send(update=rtc.ParticipantUpdate(participants=[ALICE]))
        await connection.receive("subscription")
        await connection.leave(R.ROOM_CLOSED)

    async with a_server(drops, empty) as url:
        client = Client(url)
        await in_time(client.source.run())
    assert client.kinds.count("TrackSeen") == 2
    assert client.events[-1] == CallEnded("ROOM_CLOSED")


async def test_an_earlier_attempts_call_is_pinned_from_the_first_join() -> None:
    async def script(connection: Connection) -> None:
        await connection.join(ALICE)
        await connection.receive("leave")

    async with a_server(script) as url:
        client = Client(url, call_sid="RM_0")
        await in_time(client.source.run())
    assert client.kinds == ["CallEnded"]


async def test_a_session_named_after_the_join_is_told_and_pinned() -> None:
    async def script(connection: Connection) -> None:
        await connection.join(ALICE, sid="")
        await connection.send(room_update=rtc.RoomUpdate(room=models.Room(sid="RM_9")))
        await connection.send(room_update=rtc.RoomUpdate(room=models.Room(sid="RM_10")))
        await connection.gone()

    async with a_server(script) as url:
        client = Client(url)
        await in_time(client.source.run())
    assert [event.call_sid for event in client.events if isinstance(event, Joined)] == ["", "RM_9"]
    assert isinstance(client.events[-1], CallEnded)


async def test_refreshed_tokens_are_used_for_the_next_join() -> None:
    seen: list[str] = []

    async def refreshes(connection: Connection) -> None:
        seen.append(connection.token)
        await connection.join(ALICE)
        await connection.send(refresh_token="second")
        await connection.receive("subscription")

    async def closes(connection: Connection) -> None:
        seen.append(connection.token)
        await is_closed(connection)

    async with a_server(refreshes, closes) as url:
        await in_time(Client(url).source.run())
    assert seen == ["first", "second"]


async def test_a_server_that_answers_no_ping_is_joined_again() -> None:
    async def silent(connection: Connection) -> None:
        await connection.join(ALICE)
        await connection.gone()

    async with a_server(silent, is_closed) as url:
        client = Client(url)
        started = time.monotonic()
        await in_time(client.source.run())
    assert 2 < time.monotonic() - started < 30
    assert client.kinds.count("Joined") == 2


async def test_leaving_says_goodbye_and_ends_the_run() -> None:
    goodbyes: list[int] = []

    async def stays(connection: Connection) -> None:
        await connection.join(ALICE)
        goodbyes.append((await connection.receive("leave")).leave.reason)

    async with a_server(stays) as url:
        client = Client(url)
        running = asyncio.create_task(client.source.run())
        await in_time(client.ready.wait())
        await in_time(client.source.leave())
        await in_time(running)
    assert goodbyes == [R.CLIENT_INITIATED]
    assert client.media[0].is_closed
    assert client.media[0].done[:2] == ["settled", "flushed"], "packets that were asked for had their time"


async def test_unsubscribing_forgets_at_once_and_tells_the_server() -> None:
    async def script(connection: Connection) -> None:
        await connection.join(ALICE)
        assert (await connection.receive("subscription")).subscription.subscribe
        await connection.send(refresh_token="now")
        assert not (await connection.receive("subscription")).subscription.subscribe
        await connection.leave(R.ROOM_CLOSED)

    async with a_server(script) as url:
        client = Client(url)
        client.tokens.on_refresh = lambda: client.source.unsubscribe(["TR_cam"])
        await in_time(client.source.run())
    assert client.media[0].forgotten == ["TR_cam"]


@pytest.mark.parametrize(("status", "error"), [(401, SourceRefusedError), (404, CallNotFoundError), (503, SourceError)])
async def test_a_refused_join_says_why(status: int, error: type[SourceError]) -> None:
    async with a_server(status=status) as url:
        with pytest.raises(error, match="the reason in words"):
            await in_time(Client(url).source.run())


@pytest.mark.parametrize("junk", [b"\xff\xff\xff", b""], ids=["no protobuf", "empty"])
async def test_a_server_of_another_kind_is_named_as_such(junk: bytes) -> None:
    async def script(connection: Connection) -> None:
        await connection.ws.send_bytes(junk)
        await connection.gone()

    async with a_server(script) as url:
        with pytest.raises(SourceError, match="LiveKit server"):
            await in_time(Client(url).source.run())


async def test_junk_in_the_middle_is_skipped() -> None:
    async def script(connection: Connection) -> None:
        await connection.join(ALICE)
        await connection.ws.send_bytes(b"\xff\xff\xff")
        await connection.ws.send_str("text")
        await connection.send(trickle=rtc.TrickleRequest(candidateInit="[]", target=rtc.SignalTarget.SUBSCRIBER))
        await connection.send(trickle=rtc.TrickleRequest(candidateInit="{", target=rtc.SignalTarget.SUBSCRIBER))
        await connection.send(trickle=rtc.TrickleRequest(candidateInit="[" * 4000, target=rtc.SignalTarget.SUBSCRIBER))
        await connection.leave(R.ROOM_CLOSED)

    async with a_server(script) as url:
        client = Client(url)
        await in_time(client.source.run())
    assert client.kinds.count("Joined") == 1


async def test_a_certificate_that_nobody_trusts_is_named(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sfu")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now).not_valid_after(now + timedelta(days=1))
    certificate = builder.sign(key, hashes.SHA256())
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    file = tmp_path / "sfu.pem"
    file.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain) + certificate.public_bytes(pem))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(file)
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    url = f"wss://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    with pytest.raises(SourceError, match="certificate is not trusted"):
        await in_time(Client(url).source.run())
    server.close()


async def test_a_port_that_nobody_listens_on_is_named() -> None:
    with pytest.raises(SourceError, match=r"127\.0\.0\.1:9: .*[Rr]efused"):
        await in_time(Client("ws://127.0.0.1:9").source.run())
