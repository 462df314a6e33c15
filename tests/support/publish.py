"""Play people in a LiveKit room through libwebrtc, and write down what was sent: `python -m support.publish`.

One process plays a whole cast. All sources of all people run on one clock: slot n of a camera is the instant n / fps,
chunk n of a sound the instant n / 100, so flash and beep of one second belong together and so do those of two people.
Each source is one task that lives from publish to unpublish; each person has one task that carries out actions in
order. Actions come from the cast's script or as JSON lines on stdin; end of stdin (or SIGTERM) makes everybody leave.

stdout carries events as JSON lines; the ledger has the same and each frame:
`{"event": "frame", "who", "what", "serial", "t", "digest"?}`, `{"event": "beep", "who", "what", "second", "t"}`; `t` is in
seconds since the clock's zero, whose wall-clock time is in the first line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import queue
import secrets
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from livekit import api, rtc

from .encoder import Encoder
from .people import Action, Cast, Person, Picture, Source
from .signs import CHUNK, FLASH_SECONDS, SAMPLE_RATE, Sign, draw, play
from .units import unit_digest

CODECS = {
    "vp8": rtc.VideoCodec.VP8,
    "vp9": rtc.VideoCodec.VP9,
    "av1": rtc.VideoCodec.AV1,
    "h264": rtc.VideoCodec.H264,
    "h265": rtc.VideoCodec.H265,
}
LATE_SECONDS = 0.25
"""A picture that is so late is left out (and is not in the ledger)."""
KINDS: dict[Source, Any] = {
    "camera": rtc.TrackSource.SOURCE_CAMERA,
    "microphone": rtc.TrackSource.SOURCE_MICROPHONE,
    "screenshare": rtc.TrackSource.SOURCE_SCREENSHARE,
    "screenshare_audio": rtc.TrackSource.SOURCE_SCREENSHARE_AUDIO,
}


class Clock:
    """The one clock of all sources; zero is its making, or as given (on the monotonic clock)."""

    def __init__(self, zero: float | None) -> None:
        self.zero = time.monotonic() if zero is None else zero
        self.wall = time.time() - self.now()

    def now(self) -> float:
        """Seconds since zero."""
        return time.monotonic() - self.zero

    async def until(self, instant: float) -> None:
        """Sleep until an instant; returns at once when it has passed."""
        await asyncio.sleep(max(0.0, instant - self.now()))


class Ledger:
    """Where events and frames go. Events also go to stdout.

    A thread of its own writes the file: a disk that is busy (images, builds) holds up a write for seconds, and would hold
    up all sources with it.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self._clock = clock
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write, args=(path,), name="ledger", daemon=True)
        self._writer.start()
        self.tell("clock", wall=clock.wall)

    def close(self) -> None:
        """Write what is left; nothing can be told afterwards."""
        self._lines.put(None)
        self._writer.join()

    def tell(self, event: str, **fields: object) -> None:
        """Report an event."""
        line = self._line(event, fields)
        sys.stdout.write(line)
        sys.stdout.flush()

    def note(self, event: str, **fields: object) -> None:
        """Write a frame or beep to the ledger only."""
        self._line(event, fields)

    def _line(self, event: str, fields: dict[str, object]) -> str:
        fields.setdefault("t", round(self._clock.now(), 6))
        line = json.dumps({"event": event, **{key: value for key, value in fields.items() if value is not None}}) + "\n"
        self._lines.put(line)
        return line

    def _write(self, path: Path) -> None:
        with path.open("w", buffering=1) as file:
            while (line := self._lines.get()) is not None:
                file.write(line)


class Player:
    """One published source of one person; its task ends with it."""

    def __init__(self, number: int, person: Person, what: Source, clock: Clock, ledger: Ledger) -> None:
        self.what, self.muted, self.hushed = what, False, False
        self.track: Any = None
        self.sid = ""
        self._number, self._person, self._clock, self._ledger = number, person, clock, ledger
        self._screen = what.startswith("screenshare")
        self._picture = person.screen if self._screen else person.camera or Picture()
        self._task: asyncio.Task[None] | None = None
        self._key_wanted = True
        self._encoder = Encoder(self._picture) if self._picture.pre_encoded and self._is_picture else None
        self._source: Any = None

    @property
    def _is_picture(self) -> bool:
        return self.what in ("camera", "screenshare")

    async def publish(self, room: rtc.Room) -> None:
        """Publish and start playing."""
        options = rtc.TrackPublishOptions(source=KINDS[self.what], dtx=self._person.dtx)
        if self._is_picture:
            self._prepare_picture(options)
        else:
            self._source = rtc.AudioSource(SAMPLE_RATE, 1, queue_size_ms=0)
            self.track = rtc.LocalAudioTrack.create_audio_track(self.what, self._source)
        run = self._run_pictures() if self._is_picture else self._run_sound()
        # NB: playing starts before publishing: libwebrtc sends black pictures until the first one is captured.
        self._task = asyncio.create_task(run, name=f"{self._person.identity} {self.what}")
        self._task.add_done_callback(self._ended)
        self.sid = (await room.local_participant.publish_track(self.track, options)).sid

    def _prepare_picture(self, options: rtc.TrackPublishOptions) -> None:
        picture = self._picture
        options.video_codec, options.simulcast = CODECS[picture.codec], picture.simulcast
        if picture.scalability:
            options.scalability_mode = picture.scalability
        options.video_encoding.max_bitrate, options.video_encoding.max_framerate = picture.bitrate, picture.fps
        if self._encoder:
            options.video_encoder = rtc.VideoEncoderBackend.ENCODER_BACKEND_PRE_ENCODED
            self._source = rtc.EncodedVideoSource(picture.width, picture.height)
        else:
            self._source = rtc.VideoSource(picture.width, picture.height, is_screencast=False)
        self.track = rtc.LocalVideoTrack.create_video_track(self.what, self._source)

    async def stop(self) -> None:
        """End playing; the source is gone afterwards."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._source:
            await self._source.aclose()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            self._ledger.tell(
                "failed", who=self._person.identity, what=self.what, error=f"{type(error).__name__}: {error}"
            )

    def _note(self, event: str, **fields: object) -> None:
        if not self.muted:
            self._ledger.note(event, who=self._person.identity, what=self.what, **fields)

    async def _run_pictures(self) -> None:
        fps = self._picture.fps
        slot = int(self._clock.now() * fps) + 1
        while True:
            await self._clock.until(slot / fps)
            if self._clock.now() - slot / fps < LATE_SECONDS:
                self._show(slot, flash=(slot / fps) % 1 < FLASH_SECONDS)
            slot += 1

    def _show(self, slot: int, *, flash: bool) -> None:
        picture = self._picture
        pixels = draw(Sign(self._number, self._screen, slot), picture.width, picture.height, flash=flash)
        digest = None
        if self._encoder:
            at, digest = self._send_encoded(pixels)
        else:
            at = self._clock.now()
            self._source.capture_frame(
                rtc.VideoFrame(picture.width, picture.height, rtc.VideoBufferType.I420, pixels.tobytes())
            )
        self._note("frame", serial=slot, t=round(at, 6), digest=digest, flash=flash or None)

    def _send_encoded(self, pixels: Any) -> tuple[float, str | None]:
        assert self._encoder
        self._key_wanted |= self._source.take_feedback().keyframe_requested
        data, key = self._encoder.encode(pixels, key=self._key_wanted)
        at = self._clock.now()
        accepted = self._source.capture_frame(
            rtc.EncodedVideoFrame(
                data=data,
                width=self._picture.width,
                height=self._picture.height,
                codec=CODECS[self._picture.codec],
                frame_type=rtc.EncodedFrameType.ENCODED_FRAME_KEY if key else rtc.EncodedFrameType.ENCODED_FRAME_DELTA,
                timestamp_us=round((self._clock.zero + at) * 1e6),
            )
        )
        self._key_wanted = not accepted
        return at, unit_digest(data, self._picture.codec) if accepted else None

    async def _run_sound(self) -> None:
        chunk = int(self._clock.now() * SAMPLE_RATE / CHUNK) + 1
        while True:
            position = chunk * CHUNK
            await self._clock.until(position / SAMPLE_RATE)
            frame = rtc.AudioFrame.create(SAMPLE_RATE, 1, CHUNK)
            hushed = self.hushed
            if not hushed:
                np.frombuffer(frame.data, dtype=np.int16)[:] = play(self._number, position, screen=self._screen)
            at = self._clock.now()
            # NB: one at a time, and none left out: its RTP time counts samples.
            await self._source.capture_frame(frame)
            if position % SAMPLE_RATE == 0 and not hushed:
                self._note("beep", second=position // SAMPLE_RATE, t=round(at, 6))
            chunk += 1


class Actor:
    """One person: a room connection and the sources that are published now."""

    def __init__(self, number: int, person: Person, room_name: str, clock: Clock, ledger: Ledger) -> None:
        self.todo: asyncio.Queue[Action] = asyncio.Queue()
        self._number, self._person, self._room_name = number, person, room_name
        self._clock, self._ledger = clock, ledger
        self._room: rtc.Room | None = None
        self._players: dict[Source, Player] = {}

    async def run(self) -> None:
        """Carry out actions in order, until cancelled."""
        while True:
            action = await self.todo.get()
            try:
                await self.act(action)
            except Exception as error:  # noqa: BLE001 - whatever it is, the test must hear of it
                self._tell("failed", do=action.do, what=action.what, error=f"{type(error).__name__}: {error}"[:500])

    async def act(self, action: Action) -> None:
        """Do one thing."""
        match action.do:
            case "join":
                await self._join()
            case "leave":
                await self.leave()
            case "share":
                await self._publish("screenshare")
                if self._person.screen_audio:
                    await self._publish("screenshare_audio")
            case "unshare":
                for what in [what for what in self._players if what.startswith("screenshare")]:
                    await self._unpublish(what)
            case _:
                if action.what is None:
                    raise ValueError(f"{action.do} needs a source")
                await self._act_on(action.do, action.what)

    async def leave(self) -> None:
        """Leave the room, if in it."""
        if not self._room:
            return
        room, self._room = self._room, None
        for player in self._players.values():
            await player.stop()
        self._players.clear()
        await room.disconnect()
        self._tell("left")

    async def _join(self) -> None:
        room = rtc.Room()
        room.on("disconnected", lambda reason: self._disconnected(room, reason))
        grants = api.VideoGrants(room_join=True, room=self._room_name)
        token = api.AccessToken().with_identity(self._person.identity).with_name(self._person.name).with_grants(grants)
        options = rtc.RoomOptions(auto_subscribe=False, encryption=_encryption() if self._person.encrypted else None)
        await room.connect(os.environ["LIVEKIT_URL"], self._person.token or token.to_jwt(), options)
        self._room = room
        self._tell("joined", sid=room.local_participant.sid)
        if self._person.microphone:
            await self._publish("microphone")
        if self._person.camera:
            await self._publish("camera")
        self._tell("ready")

    def _disconnected(self, room: rtc.Room, reason: object) -> None:
        if self._room is room:
            self._tell("disconnected", reason=str(reason))

    async def _act_on(self, do: str, what: Source) -> None:
        if do == "publish":
            await self._publish(what)
        elif do == "unpublish":
            await self._unpublish(what)
        else:
            self._quieten(self._players[what], do)

    def _quieten(self, player: Player, do: str) -> None:
        match do:
            case "mute":
                player.muted = True
                player.track.mute()
            case "unmute":
                player.muted = False
                player.track.unmute()
            case _:
                player.hushed = do == "hush"
        self._tell({"hush": "hushed", "speak": "spoken"}.get(do, f"{do}d"), what=player.what)

    async def _publish(self, what: Source) -> None:
        if self._room is None or what in self._players:
            raise ValueError(f"cannot publish {what}: not in the room, or published already")
        player = Player(self._number, self._person, what, self._clock, self._ledger)
        await player.publish(self._room)
        self._players[what] = player
        self._tell("published", what=what, sid=player.sid)

    async def _unpublish(self, what: Source) -> None:
        assert self._room
        player = self._players.pop(what)
        await self._room.local_participant.unpublish_track(player.sid)
        await player.stop()
        self._tell("unpublished", what=what)

    def _tell(self, event: str, **fields: object) -> None:
        self._ledger.tell(event, who=self._person.identity, **fields)


def _encryption() -> rtc.E2EEOptions:
    return rtc.E2EEOptions(rtc.KeyProviderOptions(shared_key=secrets.token_bytes(32)))


async def _perform(room_name: str, cast: Cast, ledger_path: Path, zero: float | None) -> None:
    clock = Clock(zero)
    ledger = Ledger(ledger_path, clock)
    actors = {p.identity: Actor(n, p, room_name, clock, ledger) for n, p in enumerate(cast.people)}
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, over.set)
    threading.Thread(target=_read_actions, args=(loop, actors, over), name="stdin", daemon=True).start()
    tasks = [asyncio.create_task(actor.run(), name=identity) for identity, actor in actors.items()]
    tasks.append(asyncio.create_task(_follow(cast.script, actors, clock), name="script"))
    tasks.append(asyncio.create_task(_count(clock, ledger), name="seconds"))
    await over.wait()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for actor in actors.values():
        await actor.leave()
    ledger.tell("done")
    ledger.close()


async def _count(clock: Clock, ledger: Ledger) -> None:
    """Say each full second, so that who waits for media to flow waits for the clock that it flows by."""
    second = int(clock.now())
    while True:
        second += 1
        await clock.until(second)
        ledger.tell("second", second=second)


async def _follow(script: Sequence[Action], actors: dict[str, Actor], clock: Clock) -> None:
    for action in sorted(script, key=lambda action: action.at or 0.0):
        await clock.until(action.at or 0.0)
        actors[action.who].todo.put_nowait(action)


def _read_actions(loop: asyncio.AbstractEventLoop, actors: dict[str, Actor], over: asyncio.Event) -> None:
    for line in sys.stdin:
        action = Action.model_validate_json(line)
        loop.call_soon_threadsafe(actors[action.who].todo.put_nowait, action)
    loop.call_soon_threadsafe(over.set)


def main(argv: Sequence[str] | None = None) -> int:
    """Play a cast. Address and keys: LIVEKIT_URL, LIVEKIT_API_KEY, LIVEKIT_API_SECRET."""
    parser = argparse.ArgumentParser(prog="python -m support.publish", description=main.__doc__)
    parser.add_argument("--room", required=True)
    parser.add_argument("--cast", required=True, type=Path, help="JSON file: people and script (support.people.Cast)")
    parser.add_argument("--ledger", required=True, type=Path, help="written: what was sent when, JSON lines")
    parser.add_argument("--zero", type=float, help="of the clock, in seconds of the monotonic one; default: now")
    options = parser.parse_args(argv)
    asyncio.run(
        _perform(options.room, Cast.model_validate_json(options.cast.read_text()), options.ledger, options.zero)
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
