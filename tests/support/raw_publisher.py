"""Publish chosen RTP payloads in a LiveKit room: codecs and forms that libwebrtc does not send.

The signalling is LiveKit's own, the transport is `support.rtp.Sender`, payloads come ready from the test and are played over and
over at a steady pace. One thread with an event loop of its own; `raw_publisher` ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import aiohttp
from livekit import api
from livekit.protocol import models, rtc

from isotrack_api.base import MediaKind
from isotrack_dev.servers import LiveKitInfo

from .rtp import OfferedCodec, OfferedTrack, Sender, packetize, sender_report

NTP_EPOCH = 2_208_988_800
JOINING_AT_ONCE = 10
PING_SECONDS = 5
SOURCES = {MediaKind.AUDIO: models.TrackSource.MICROPHONE, MediaKind.VIDEO: models.TrackSource.CAMERA}


@dataclass(frozen=True)
class RawTrack:
    """What is published."""

    kind: MediaKind
    codec: OfferedCodec
    frames: Sequence[Sequence[bytes]]
    """RTP payloads of each frame; the first frame is a key frame. After the last one the first follows again. Where there are none,
    nothing is sent, as of silence that is suppressed."""
    per_second: int
    """Frames."""
    delay: float = 0.0
    """Seconds from the instant of a frame, by its time stamp and the reports, until it is sent: what an encoder takes."""


@contextmanager
def raw_publisher(server: LiveKitInfo, room: str, identity: str, tracks: Sequence[RawTrack]) -> Iterator[None]:
    """Join and publish; inside, media flows.

    Raises:
        AssertionError: It does not within 60 s, or something failed meanwhile.
    """
    with raw_publishers(server, room, {identity: tracks}):
        yield


@contextmanager
def raw_publishers(server: LiveKitInfo, room: str, people: Mapping[str, Sequence[RawTrack]]) -> Iterator[None]:
    """The same for many people, by identity; a few join at a time.

    Raises:
        AssertionError: Not all of them are in the room within 60 s and half a second for each, or something failed meanwhile.
    """
    running, stop = threading.Event(), threading.Event()
    failures: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(_publish_all(server, room, people, running, stop))
        except BaseException as error:  # noqa: BLE001 - the test must hear of whatever it was
            failures.append(error)
        finally:
            running.set()

    thread = threading.Thread(target=run, name=f"raw {', '.join(people)}"[:40], daemon=True)
    thread.start()
    try:
        seconds = 60 + len(people) / 2
        assert running.wait(seconds), f"not all of {len(people)} are published within {seconds} s"
        assert not failures, repr(failures[0])
        yield
    finally:
        stop.set()
        thread.join(60 + len(people) / 10)
    assert not failures, repr(failures[0])


async def _publish_all(
    server: LiveKitInfo,
    room: str,
    people: Mapping[str, Sequence[RawTrack]],
    running: threading.Event,
    stop: threading.Event,
) -> None:
    joining = asyncio.Semaphore(JOINING_AT_ONCE)
    published = asyncio.Barrier(len(people) + 1)

    async def publish(identity: str, tracks: Sequence[RawTrack]) -> None:
        await joining.acquire()
        async with joined(server, room, identity, tracks) as (sender, offered), asyncio.TaskGroup() as group:
            joining.release()
            begin = time.monotonic(), time.time()
            for track, line in zip(tracks, offered, strict=True):
                group.create_task(_play(sender, track, line, begin, stop), name=line.track_id)
            await published.wait()

    async with asyncio.timeout(120 + len(people)), asyncio.TaskGroup() as group:
        for identity, tracks in people.items():
            group.create_task(publish(identity, tracks), name=identity)
        await published.wait()
        running.set()


@asynccontextmanager
async def joined(
    server: LiveKitInfo, room: str, identity: str, tracks: Sequence[RawTrack]
) -> AsyncIterator[tuple[Sender, list[OfferedTrack]]]:
    """Join a room and announce tracks; inside, packets of the yielded m-lines can be sent. Afterwards the person has left."""
    # Who may not subscribe counts as there with the one connection that we make; others have a minute for a second one
    grants = api.VideoGrants(room_join=True, room=room, can_subscribe=False)
    token = api.AccessToken(server.api_key, server.api_secret).with_identity(identity).with_grants(grants).to_jwt()
    query = {"access_token": token, "protocol": "15", "auto_subscribe": "0", "sdk": "python", "version": "1.0.0"}
    sender = Sender()
    async with aiohttp.ClientSession() as http, http.ws_connect(f"{server.url}/rtc", params=query) as socket:
        offered = await _add_tracks(socket, tracks)
        await _connect(socket, sender, offered)
        tasks = [asyncio.create_task(_drain(socket), name="signals"), asyncio.create_task(_ping(socket), name="ping")]
        try:
            yield sender, offered
        finally:
            for task in tasks:
                task.cancel()
            await sender.close()


async def _ping(socket: aiohttp.ClientWebSocketResponse) -> None:
    """Without a sign of life the SFU takes a person for gone after a minute."""
    while not socket.closed:
        await asyncio.sleep(PING_SECONDS)
        with contextlib.suppress(ConnectionError):
            await _send(socket, ping_req=rtc.Ping(timestamp=time.time_ns() // 1_000_000))


async def _send(socket: aiohttp.ClientWebSocketResponse, **request: object) -> None:
    await socket.send_bytes(rtc.SignalRequest(**request).SerializeToString())  # type: ignore[arg-type]


async def _receive(socket: aiohttp.ClientWebSocketResponse) -> rtc.SignalResponse:
    async with asyncio.timeout(60):
        return rtc.SignalResponse.FromString(await socket.receive_bytes())


async def _add_tracks(socket: aiohttp.ClientWebSocketResponse, tracks: Sequence[RawTrack]) -> list[OfferedTrack]:
    while (await _receive(socket)).WhichOneof("message") != "join":
        pass
    offered = []
    for number, track in enumerate(tracks):
        line = OfferedTrack(str(number), track.kind, f"raw-{number}", ssrc=7001 + number, codecs=(track.codec,))
        offered.append(line)
        request = rtc.AddTrackRequest(
            cid=line.track_id,
            name=line.track_id,
            type=models.TrackType.AUDIO if track.kind is MediaKind.AUDIO else models.TrackType.VIDEO,
            source=SOURCES[track.kind],
            disable_red=True,
            stereo="stereo=1" in track.codec.fmtp,
            width=320,
            height=240,
        )
        await _send(socket, add_track=request)
        while (await _receive(socket)).WhichOneof("message") != "track_published":
            pass
    return offered


async def _connect(socket: aiohttp.ClientWebSocketResponse, sender: Sender, offered: Sequence[OfferedTrack]) -> None:
    offer = await sender.offer(offered)
    await _send(socket, offer=rtc.SessionDescription(type="offer", sdp=offer))
    answer = ""
    candidates: list[str] = []
    while not (answer and candidates):
        response = await _receive(socket)
        if response.HasField("answer"):
            answer = response.answer.sdp
        elif response.HasField("trickle") and response.trickle.target == rtc.SignalTarget.PUBLISHER:
            candidates.append(json.loads(response.trickle.candidateInit)["candidate"])
    first, *rest = answer.split("m=")
    assert rest, answer
    rest[0] += "".join(f"a={candidate}\r\n" for candidate in candidates if candidate)
    assert all(f" {line.codecs[0].payload_type}" in rest[n].splitlines()[0] for n, line in enumerate(offered)), answer
    await sender.accept("m=".join([first, *rest]))


async def _drain(socket: aiohttp.ClientWebSocketResponse) -> None:
    with contextlib.suppress(aiohttp.ClientError):
        async for _ in socket:
            pass


async def _play(
    sender: Sender, track: RawTrack, line: OfferedTrack, started: tuple[float, float], stop: threading.Event
) -> None:
    """Play a track; the first frames of all tracks of a person belong to one instant, on the monotonic and the wall clock."""
    codec = line.codecs[0]
    ticks = codec.clock_rate // track.per_second
    begin, wall = started
    sequence = number = 0
    await asyncio.sleep(track.delay)
    while not stop.is_set():
        timestamp = 1000 + number * ticks
        payloads = track.frames[number % len(track.frames)]
        packets = packetize(
            payloads, payload_type=codec.payload_type, sequence=sequence, timestamp=timestamp, ssrc=line.ssrc
        )
        sequence += len(packets)
        for packet in packets:
            sender.send(packet)
        if number % track.per_second == 0:
            # of the instant that was due: a publisher that comes late is no publisher whose clock runs slow
            ntp = wall + number / track.per_second + NTP_EPOCH
            sender.send_rtcp(sender_report(line.ssrc, int(ntp * 2**32), timestamp))
        number += 1
        await asyncio.sleep(max(0.0, begin + track.delay + number / track.per_second - time.monotonic()))
