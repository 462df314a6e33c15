"""People in real calls whose every payload carries a serial: `python -m faults.publisher`, one process for all calls of a campaign.

Real RTP through a real LiveKit server, without an encoder: a person costs next to no processor, so what is measured are the
recorder's losses and not a busy encoder's. Pictures answer key frame requests as browsers do; a sender report of the instant that
was due goes out every second.

Commands come as JSON lines on stdin: `{"do": "play", "room", "people", "ledger"}`, `{"do": "stop", "room"}`. Events go to stdout:
`{"event": "playing", "room"}` once everybody is in the call, and `{"event": "over", "room", "error"}` when the ledger is written. One
event loop plays them all: the end of stdin is the end of it. `studio` is the other side.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from isotrack_api.base import MediaKind
from isotrack_dev.servers import LiveKitInfo
from support.raw_publisher import NTP_EPOCH, RawTrack, joined
from support.rtp import OPUS, VP8, OfferedTrack, Sender, packetize, sender_report, vp8_packets

from .evidence import Published, Source
from .people import Ledger, Somebody, read_people
from .serials import Stamp, picture, sound

KEY_EVERY_SECONDS: Final = 4
_PLI, _FIR = (206, 1), (206, 4)
"""RTCP packet type and format, RFC 4585 section 6.3.1, RFC 5104 section 4.3.1."""


class Call:
    """Everybody of one room."""

    def __init__(self, server: LiveKitInfo, room: str, people: Sequence[Somebody], ledger: Path) -> None:
        self._server, self.room, self._people, self._path = server, room, people, ledger
        self._ledger = Ledger.of(people)
        self._missing = len(people)
        self._over = asyncio.Event()

    def stop(self) -> None:
        """Have everybody leave."""
        self._over.set()

    async def run(self) -> None:
        """Play until stopped, then write the ledger."""
        error = ""
        try:
            async with asyncio.TaskGroup() as group:
                for person in self._people:
                    group.create_task(self._play_one(person), name=f"{person.identity} in {self.room}")
        except Exception as failure:  # noqa: BLE001 - whatever it was, whoever waits for this call must hear of it
            error = repr(failure)
        self._path.write_text(self._ledger.to_json())
        tell("over", room=self.room, error=error)

    async def _play_one(self, person: Somebody) -> None:
        tracks = [RawTrack(kind, OPUS if kind is MediaKind.AUDIO else VP8, (), 0) for kind in person.kinds]
        async with joined(self._server, self.room, person.identity, tracks) as (sender, lines):
            wanted = asyncio.Event()
            sender.on_rtcp = lambda data: wanted.set() if asks_for_key_frame(data) else None
            self._missing -= 1
            if not self._missing:
                tell("playing", room=self.room)
            async with asyncio.TaskGroup() as group:
                for line in lines:
                    published = self._ledger.published[Source(person.identity, line.kind)]
                    playing = self._play(sender, line, published, person.picture_bytes, wanted)
                    group.create_task(playing, name=f"{person.identity} {line.kind}")

    async def _play(
        self, sender: Sender, line: OfferedTrack, published: Published, picture_bytes: int, wanted: asyncio.Event
    ) -> None:
        codec, rate = line.codecs[0], published.per_second
        ticks = codec.clock_rate // rate
        begin, wall = time.monotonic(), time.time()
        sequence = serial = 0
        while not self._over.is_set():
            stamp, timestamp = Stamp(published.stamp, serial), 1000 + serial * ticks
            if line.kind is MediaKind.AUDIO:
                payloads = [sound(stamp)]
            else:
                key = serial % (KEY_EVERY_SECONDS * rate) == 0 or wanted.is_set()
                wanted.clear()
                payloads = vp8_packets(picture(stamp, key=key, size=picture_bytes), picture_id=serial)
            packets = packetize(
                payloads, payload_type=codec.payload_type, sequence=sequence, timestamp=timestamp, ssrc=line.ssrc
            )
            sequence += len(packets)
            published.sent[serial] = time.time()
            for packet in packets:
                sender.send(packet)
            if serial % rate == 0:
                ntp = wall + serial / rate + NTP_EPOCH
                sender.send_rtcp(sender_report(line.ssrc, int(ntp * 2**32), timestamp))
            serial += 1
            await asyncio.sleep(max(0.0, begin + serial / rate - time.monotonic()))


def asks_for_key_frame(compound: bytes) -> bool:
    """Whether one of the packets of an RTCP compound is a PLI or FIR."""
    at = 0
    while at + 4 <= len(compound):
        if (compound[at + 1], compound[at] & 0x1F) in (_PLI, _FIR):
            return True
        at += 4 * (1 + int.from_bytes(compound[at + 2 : at + 4], "big"))
    return False


def tell(event: str, **fields: object) -> None:
    """Write an event."""
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


async def serve(server: LiveKitInfo) -> None:
    """Carry out commands until stdin ends."""
    loop, commands = asyncio.get_running_loop(), asyncio.Queue[dict[str, Any] | None]()

    def listen() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(commands.put_nowait, json.loads(line))
        loop.call_soon_threadsafe(commands.put_nowait, None)

    threading.Thread(target=listen, name="commands", daemon=True).start()
    calls: dict[str, Call] = {}
    tasks: set[asyncio.Task[None]] = set()
    while (command := await commands.get()) is not None:
        room = command["room"]
        if command["do"] == "play":
            calls[room] = Call(server, room, read_people(command["people"]), Path(command["ledger"]))
            tasks.add(asyncio.create_task(calls[room].run(), name=room))
        else:
            calls.pop(room).stop()
        tasks = {task for task in tasks if not task.done()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def main() -> int:
    """Address and keys: LIVEKIT_URL, LIVEKIT_API_KEY, LIVEKIT_API_SECRET."""
    server = LiveKitInfo(
        url=os.environ["LIVEKIT_URL"],
        http_url="",
        api_key=os.environ["LIVEKIT_API_KEY"],
        api_secret=os.environ["LIVEKIT_API_SECRET"],
        pid=0,
    )
    asyncio.run(serve(server))
    return 0


if __name__ == "__main__":
    sys.exit(main())
