"""Capture on a real LiveKit server: who comes and goes, what is muted and republished, and how a call ends."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from livekit import api
from livekit.protocol import rtc

from isotrack_api.base import Quality
from isotrack_api.intent import Intent, IntentLimits, LiveKitSource, RecordingRef
from isotrack_api.manifest import StopReason
from isotrack_recorder.capture import Capture
from isotrack_recorder.clock import SystemClock
from isotrack_recorder.control import Command
from isotrack_recorder.earlier import Earlier
from isotrack_recorder.errors import CallNotFoundError, SourceError, SourceRefusedError
from isotrack_recorder.orders import orders_of
from isotrack_recorder.sources.base import SourceHandler
from isotrack_recorder.sources.livekit import client
from isotrack_recorder.sources.livekit.access import MintedTokens, find_room
from isotrack_recorder.spool.journal import decode_journal
from isotrack_recorder.spool.records import Flag, Record, decode_records
from isotrack_recorder.spool.room import Room
from isotrack_recorder.spool.writer import SpoolWriter
from isotrack_recorder.webrtc.session import MediaSession, MediaSettings
from support.call import Call
from support.people import Action, People, Person, Picture

IDENTITY = "isotrack-under-test"
VOICE = {"camera": None}


class Recorder:
    """A capture in this process, on a call's room."""

    def __init__(self, call: Call, spool: Path, *, url: str = "", secret: str = "", **intent: object) -> None:
        self.spool = SpoolWriter(spool)
        self._call = call
        self._url, self._secret = url or call.server.url, secret or call.server.api_secret
        self._changed = asyncio.Event()
        base = Intent(
            recording=RecordingRef(namespace="test", name="call", uid=str(uuid.uuid4())),
            call_id=call.room,
            source=LiveKitSource(url=self._url, identity=IDENTITY),
            folder="test/call",
        )
        self._intent = base.model_copy(update=intent)
        self.capture = Capture(
            orders_of(self._intent),
            self.spool,
            SystemClock(),
            self._open,
            Room(spool).measure,
            Earlier(),
            self._changed.set,
        )
        self.task = asyncio.create_task(self.capture.run())

    def _open(self, handler: SourceHandler) -> client.LiveKitSource:
        tokens = MintedTokens(self._call.server.api_key, self._secret, self._call.room, self._intent.source.identity)
        settings = client.LiveKitSettings(url=self._url, first_join_seconds=0, quality=self._intent.source.quality)
        media = MediaSettings(key_frame_interval_seconds=self._intent.key_frame_interval_seconds)
        self.source = client.LiveKitSource(
            settings, tokens, handler, SystemClock(), lambda listener: MediaSession(listener, media)
        )
        return self.source

    def journal(self, *names: str) -> list[dict[str, Any]]:
        """Facts so far."""
        self.spool.flush()
        events = decode_journal((self.spool.folder / "journal.ndjson").read_bytes())
        return [event for event in events if not names or event["e"] in names]

    def frames(self, log: str) -> list[Record]:
        """Frames of a log so far."""
        self.spool.flush()
        files = sorted(self.spool.folder.glob(f"{log}.*.log"))
        return [record for file in files for record, _ in decode_records(file.read_bytes())]

    async def fact(self, name: str, *, nth: int = 1, **fields: object) -> dict[str, Any]:
        """Wait until the nth fact of this kind with these fields is in the journal."""
        async with asyncio.timeout(60):
            while True:
                self._changed.clear()
                found = [event for event in self.journal(name) if fields.items() <= event.items()]
                if len(found) >= nth:
                    return found[nth - 1]
                assert not self.task.done(), self.capture.state()
                await self._changed.wait()

    async def media(self, who: str, source: str, *, more: int = 20, nth: int = 1) -> str:
        """Wait until `more` further frames of a person's nth track of a source are there; returns its log."""
        log = str((await self.fact("track", user_id=who, source=source, nth=nth))["track"])
        before = len(self.frames(log))
        async with asyncio.timeout(60):
            while len(self.frames(log)) < before + more:
                await self.change()
        return log

    async def change(self) -> None:
        """Wait for the next change of state; there is one every second."""
        self._changed.clear()
        await self._changed.wait()

    async def lasted(self, log: str, seconds: int) -> None:
        """Wait until a log holds so much."""
        async with asyncio.timeout(seconds + 60):
            while (frames := self.frames(log))[-1].arrival_ns - frames[0].arrival_ns < seconds * 10**9:
                await self.change()

    async def ended(self) -> StopReason:
        """Wait for the end; the reason in the journal."""
        async with asyncio.timeout(60):
            await self.task
        [stop] = self.journal_on_disk("stop")
        return StopReason(stop["reason"])

    def journal_on_disk(self, *names: str) -> list[dict[str, Any]]:
        """Facts after the end."""
        events = decode_journal((self.spool.folder / "journal.ndjson").read_bytes())
        return [event for event in events if event["e"] in names]


@asynccontextmanager
async def recorder(call: Call, name: str = "spool", **options: Any) -> AsyncIterator[Recorder]:
    """A running capture; stopped at the end if it did not end before."""
    running = Recorder(call, call.folder / name, **options)
    try:
        yield running
    finally:
        running.capture.stop(StopReason.REQUESTED)
        await running.task


@asynccontextmanager
async def people_in(call: Call, *cast: Person, present: tuple[str, ...]) -> AsyncIterator[People]:
    """People, the first of whom are there already. Their process is spoken to from a thread: it blocks."""
    playing = call.people(cast)
    people = await asyncio.to_thread(playing.__enter__)
    try:
        await asyncio.to_thread(people.join, *present)
        yield people
    finally:
        await asyncio.to_thread(playing.__exit__, None, None, None)


async def server_api(call: Call) -> api.LiveKitAPI:
    return api.LiveKitAPI(call.server.http_url, call.server.api_key, call.server.api_secret)


@pytest.mark.realtime
async def test_people_come_mute_republish_and_go(call: Call) -> None:
    """One call, told as it happened: late joiner, mute, republished camera, leave, rejoin."""
    cast = (Person(identity="alice", name="Alice"), Person(identity="bob", camera=None))
    async with people_in(call, *cast, present=("alice",)) as people, recorder(call) as running:
        camera = await running.media("alice", "camera")
        microphone = await running.media("alice", "microphone")
        assert running.frames(camera)[0].flags & Flag.KEY, "the first picture can be decoded"

        await asyncio.to_thread(people.join, "bob")
        await running.media("bob", "microphone")

        people.do(Action(who="alice", do="mute", what="microphone"))
        await running.fact("muted", track=microphone)
        people.do(Action(who="alice", do="unmute", what="microphone"))
        await running.fact("unmuted", track=microphone)
        await running.media("alice", "microphone")

        people.do(Action(who="alice", do="unpublish", what="camera"))
        await running.fact("track_ended", track=camera, reason="unpublished")
        people.do(Action(who="alice", do="publish", what="camera"))
        again = await running.media("alice", "camera", nth=2)
        assert again != camera
        assert running.frames(again)[0].flags & Flag.KEY

        await asyncio.to_thread(people.leave, "bob")
        first = await running.fact("participant", user_id="bob")
        await running.fact("participant_left", peer_id=first["peer_id"])
        await asyncio.to_thread(people.join, "bob")
        await running.media("bob", "microphone", nth=2)
        second = await running.fact("participant", user_id="bob", nth=2)
        assert second["peer_id"] != first["peer_id"]

        state = running.capture.state()
        assert state.phase == "Capturing"
        assert state.participants == 2
        assert sum(not track.ended for track in state.tracks) == 3
        assert running.journal("unrecorded", "gap", "disconnected") == []


@pytest.mark.realtime
async def test_key_frames_come_at_the_interval_although_nothing_is_lost(call: Call) -> None:
    """libwebrtc makes one key frame and then none unless asked: a file could not be cut or sought."""
    async with (
        people_in(call, Person(identity="alice"), present=("alice",)),
        recorder(call, key_frame_interval_seconds=4) as running,
    ):
        camera = await running.media("alice", "camera", more=1)
        await running.lasted(camera, 12)
        keys = [frame.arrival_ns for frame in running.frames(camera) if frame.flags & Flag.KEY]
        assert 3 <= len(keys) <= 7
        assert max(after - before for before, after in pairwise(keys)) < 6 * 10**9, (
            "the interval, a tick and a round trip"
        )


@pytest.mark.realtime
async def test_the_wanted_layer_of_a_simulcast_camera_is_received(call: Call) -> None:
    """Told apart by comparison: a publisher short of CPU shrinks all of its layers."""

    def wanting(quality: Quality) -> LiveKitSource:
        return LiveKitSource(url=call.server.url, identity=f"{IDENTITY}-{quality}", quality=quality)

    camera = Picture(width=640, height=480, simulcast=True, bitrate=1_500_000)
    async with (
        people_in(call, Person(identity="alice", camera=camera), present=("alice",)),
        recorder(call, "high", source=wanting(Quality.HIGH)) as high,
        recorder(call, "low", source=wanting(Quality.LOW)) as low,
    ):
        for running in (high, low):
            await running.media("alice", "camera")
        async with asyncio.timeout(60):
            while low.journal("size")[-1]["width"] >= high.journal("size")[-1]["width"]:
                await low.change()


@pytest.mark.realtime
async def test_the_allowlist_and_pause_hold_at_the_sfu(call: Call) -> None:
    """Who is not wanted is not received at all, and what is said during a pause is nowhere."""
    cast = (Person(identity="alice", camera=None), Person(identity="bob", camera=None))
    async with (
        people_in(call, *cast, present=("alice", "bob")) as _,
        recorder(call, user_ids=("alice",)) as running,
    ):
        log = await running.media("alice", "microphone")
        assert [event["user_id"] for event in running.journal("track")] == ["alice"]

        running.capture.apply(Command(desired="Paused", user_ids=("alice",)))
        held = len(running.frames(log))
        await running.fact("counters", track=log, nth=2)  # five seconds or more of a paused call
        assert len(running.frames(log)) == held

        running.capture.apply(Command(user_ids=("alice", "bob")))
        assert await running.media("alice", "microphone") == log
        await running.media("bob", "microphone")
        paused, resumed = running.journal("paused", "resumed")
        arrivals = [record.arrival_ns for record in running.frames(log)]
        assert not [at for at in arrivals if paused["at"] + 300_000_000 < at < resumed["at"]]


async def test_a_deleted_room_ends_the_call(call: Call) -> None:
    async with people_in(call, Person(identity="alice", **VOICE), present=("alice",)), recorder(call) as running:
        await running.media("alice", "microphone")
        await asyncio.to_thread(call.end)
        assert await running.ended() is StopReason.CALL_ENDED


async def test_being_removed_is_no_end_of_the_call(call: Call) -> None:
    async with people_in(call, Person(identity="alice", **VOICE), present=("alice",)), recorder(call) as running:
        await running.media("alice", "microphone")
        async with await server_api(call) as rooms:
            await rooms.room.remove_participant(api.RoomParticipantIdentity(room=call.room, identity=IDENTITY))
        assert await running.ended() is StopReason.REMOVED


async def test_a_newer_recorder_fences_the_older_one(call: Call) -> None:
    """Both have the identity of the recording; the older one stops and keeps what it has."""
    async with people_in(call, Person(identity="alice", **VOICE), present=("alice",)), recorder(call) as older:
        log = await older.media("alice", "microphone")
        async with recorder(call, "newer") as newer:
            await newer.media("alice", "microphone")
            assert await older.ended() is StopReason.FENCED
            await newer.media("alice", "microphone")
        files = sorted(older.spool.folder.glob(f"{log}.*.log"))
        assert sum(1 for file in files for _ in decode_records(file.read_bytes())) >= 20


async def test_an_empty_call_ends_after_its_timeout(call: Call) -> None:
    limits = IntentLimits(empty_timeout_seconds=2)
    async with (
        people_in(call, Person(identity="alice", **VOICE), present=("alice",)) as people,
        recorder(call, limits=limits) as running,
    ):
        await running.media("alice", "microphone")
        await asyncio.to_thread(people.leave, "alice")
        assert await running.ended() is StopReason.ALL_PARTICIPANTS_LEFT


class Relay:
    """A TCP relay in front of signalling that can be cut."""

    def __init__(self) -> None:
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.url = ""

    async def start(self, url: str) -> None:
        """Relay to the server at `url`."""
        host, port = url.removeprefix("ws://").split(":")

        async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while data := await reader.read(65536):
                    writer.write(data)
            except ConnectionError:
                pass
            finally:
                writer.close()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            far_reader, far_writer = await asyncio.open_connection(host, int(port))
            self._writers |= {writer, far_writer}
            await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

        self._server = await asyncio.start_server(accept, "127.0.0.1", 0)
        self.url = f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def cut(self) -> None:
        """Break what is connected now; new connections work."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()


@pytest.mark.realtime
async def test_a_broken_websocket_costs_next_to_no_media(call: Call) -> None:
    """The media connection is kept until the new join stands: sound goes on in the same log."""
    relay = Relay()
    await relay.start(call.server.url)
    async with (
        people_in(call, Person(identity="alice", **VOICE), present=("alice",)),
        recorder(call, url=relay.url) as running,
    ):
        log = await running.media("alice", "microphone")
        relay.cut()
        await running.fact("reconnected")
        assert await running.media("alice", "microphone") == log
        assert len(running.journal("track")) == 1
        assert len(running.journal("disconnected")) == 1
        arrivals = [record.arrival_ns for record in running.frames(log)]
        longest_ms = max(later - earlier for earlier, later in pairwise(arrivals)) / 1e6
        assert longest_ms < 1500
    await relay.close()


SIMULATIONS = {
    "node-failure": rtc.SimulateScenario(node_failure=True),
    "migration": rtc.SimulateScenario(migration=True),
    "drain": rtc.SimulateScenario(server_leave=True),
}


@pytest.mark.parametrize("simulate", SIMULATIONS.values(), ids=SIMULATIONS.keys())
async def test_a_server_that_puts_us_elsewhere_keeps_both_tracks_in_their_logs(
    call: Call, simulate: rtc.SimulateScenario
) -> None:
    """LiveKit's own simulations of what happens when its nodes fail or are drained."""
    async with people_in(call, Person(identity="alice"), present=("alice",)), recorder(call) as running:
        logs = {source: await running.media("alice", source) for source in ("microphone", "camera")}
        running.source._send(rtc.SignalRequest(simulate=simulate))
        await running.fact("reconnected")
        for source, log in logs.items():
            assert await running.media("alice", source) == log
        assert running.capture.state().phase == "Capturing"
        assert len(running.journal("codec")) == 2, "the codec did not change"
        assert len(running.journal("ssrc")) == 4, "each needs a new anchor"


async def test_wrong_keys_unknown_rooms_and_deaf_hosts_have_their_own_errors(call: Call) -> None:
    async with recorder(call, secret="wrong-" + "x" * 40) as refused:
        await refused.task
        assert isinstance(refused.capture.error, SourceRefusedError)
    async with recorder(call, "deaf", url="ws://127.0.0.1:9") as deaf:
        await deaf.task
        assert type(deaf.capture.error) is SourceError
    with pytest.raises(CallNotFoundError):
        await find_room(call.server.url, call.server.api_key, call.server.api_secret, "no-such-room")
