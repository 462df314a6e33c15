"""The load: one sender that plays an SFU's part for N participants, in a process of its own.

It listens on a unix socket, writes its offer as a JSON line, reads the answer and the word to go, then paces packets in
4 ms steps until the other side hangs up; its last line says what it sent. Packets are what LiveKit sends to a recorder:
Opus and video, abs-send-time on video, sender reports every 3 s; transport-wide numbers on request. What is lost on
purpose is sent again when asked for: video as RTX, sound as it was.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import json
import random
import struct
import sys
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.media import FPS, Media, prepare
from isotrack_api.base import MediaKind
from isotrack_recorder.rtp.packet import build_packet, parse_packet
from support.payloads import h264_payloads
from support.rtp import ABS_SEND_TIME, H264, TRANSPORT_CC, VP8, OfferedTrack, Sender, sender_report, vp8_packets

STEP_SECONDS = 0.004
REPORT_SECONDS = 3.0
PAYLOAD_BYTES = 1180
LIMIT = 1 << 24
HISTORY_PACKETS = 1024


@dataclass(frozen=True)
class Kind:
    """What each participant sends."""

    video: str = "vp8"
    """Codec; empty = sound only."""
    loss: float = 0.0
    """Share of packets that do not arrive, repeats included."""
    silent: bool = False
    """Nothing is sent: what a process costs that is in a call in which everybody is muted."""


KINDS: Final = {
    "vp8": Kind(),
    "vp8-loss": Kind(loss=0.01),
    "h264": Kind(video="h264"),
    "opus": Kind(video=""),
    "silent": Kind(silent=True),
}


class Source:
    """One RTP stream, replayed from the prepared frames."""

    def __init__(self, track: OfferedTrack, kind: Kind, media: Media, *, transport_cc: bool) -> None:
        self.ssrc = track.ssrc
        self.video = track.kind is MediaKind.VIDEO
        self._rtx_ssrc = track.rtx_ssrc
        self._rtx_sequence = random.randrange(0x8000)
        self._keeps = kind.loss > 0
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._h264 = self.video and kind.video == "h264"
        self._codec = H264 if self._h264 else VP8
        self._payload_type = self._codec.payload_type if self.video else 111
        self._frames = media.audio if not self.video else media.h264 if self._h264 else media.vp8
        self._interval = 1 / FPS if self.video else 0.02
        self._ticks = 3000 if self.video else 960
        self._number = 0
        self._sequence = random.randrange(0x8000)
        self._base = random.randrange(1 << 31)
        self._phase = random.random() * self._interval
        self._transport_cc = transport_cc
        self.timestamp = self._base

    def due(self) -> float:
        """Seconds since the start at which the next frame leaves."""
        return self._phase + self._number * self._interval

    def packets(self, counter: Iterator[int]) -> Iterator[bytes]:
        """RTP packets of the next frame."""
        payloads = self._payloads(self._frames[self._number % len(self._frames)])
        self.timestamp = (self._base + self._number * self._ticks) & 0xFFFFFFFF
        self._number += 1
        for index, payload in enumerate(payloads):
            marker = 0x80 if self.video and index == len(payloads) - 1 else 0
            extension = b""
            if self.video:
                extension += b"\x32" + (int(time.time() * 0x40000) & 0xFFFFFF).to_bytes(3, "big")
            if self._transport_cc:
                extension += b"\x51" + (next(counter) & 0xFFFF).to_bytes(2, "big")
            extension += bytes(-len(extension) % 4)
            head = struct.pack(
                "!BBHLL",
                0x90 if extension else 0x80,
                marker | self._payload_type,
                self._sequence & 0xFFFF,
                self.timestamp,
                self.ssrc,
            )
            if extension:
                head += struct.pack("!HH", 0xBEDE, len(extension) // 4) + extension
            if self._keeps:
                self._kept[self._sequence & 0xFFFF] = head + payload
                if len(self._kept) > HISTORY_PACKETS:
                    self._kept.popitem(last=False)
            self._sequence += 1
            yield head + payload

    def _payloads(self, frame: bytes) -> list[bytes]:
        if self._h264:
            return h264_payloads(frame, PAYLOAD_BYTES)
        return vp8_packets(frame, picture_id=self._number, size=PAYLOAD_BYTES) if self.video else [frame]

    def repeat(self, sequence: int) -> bytes | None:
        """Packet with this number again; None where it is too old."""
        packet = self._kept.get(sequence)
        if packet is None or not self._rtx_ssrc:
            return packet
        # RFC 4588 section 4: a stream of its own, the original number before the payload
        original = parse_packet(packet)
        self._rtx_sequence = (self._rtx_sequence + 1) & 0xFFFF
        payload = struct.pack("!H", sequence) + original.payload
        return build_packet(
            original._replace(
                payload_type=self._codec.rtx, sequence=self._rtx_sequence, ssrc=self._rtx_ssrc, payload=payload
            )
        )


def tracks(participants: int, kind: Kind, *, transport_cc: bool) -> list[OfferedTrack]:
    """Two m-lines for each participant, or one where it sends sound only."""
    both = {5: TRANSPORT_CC} if transport_cc else {}
    found = []
    for n in range(participants):
        found.append(OfferedTrack(f"a{n}", MediaKind.AUDIO, f"TR_a{n}", ssrc=1_000_000 + n, extensions=both))
        if not kind.video:
            continue
        found.append(
            OfferedTrack(
                f"v{n}",
                MediaKind.VIDEO,
                f"TR_v{n}",
                ssrc=2_000_000 + n,
                rtx_ssrc=3_000_000 + n,
                codecs=(H264 if kind.video == "h264" else VP8,),
                extensions={3: ABS_SEND_TIME, **both},
            )
        )
    return found


def requests(data: bytes) -> Iterator[tuple[int, int]]:
    """SSRC and sequence number of all packets that an RTCP compound asks for (RFC 4585 section 6.2.1)."""
    at = 0
    while at + 12 <= len(data):
        size = 4 + 4 * int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at] & 0x1F == 1 and data[at + 1] == 205:
            ssrc = int.from_bytes(data[at + 8 : at + 12], "big")
            for entry in range(at + 12, at + size, 4):
                first, more = struct.unpack_from("!HH", data, entry)
                yield ssrc, first
                yield from ((ssrc, first + 1 + bit & 0xFFFF) for bit in range(16) if more >> bit & 1)
        at += size


async def _pump(sender: Sender, sources: list[Source], kind: Kind, over: asyncio.Event) -> dict[str, Any]:
    counter = iter(range(1 << 62))
    start = time.monotonic()
    waiting = [(source.due(), index, source) for index, source in enumerate(sources)]
    heapq.heapify(waiting)
    sent = octets = dropped = repeated = 0
    by_ssrc = {source.ssrc: source for source in sources}

    def repeat(data: bytes) -> None:
        nonlocal repeated
        for ssrc, sequence in requests(data):
            packet = by_ssrc[ssrc].repeat(sequence) if ssrc in by_ssrc else None
            if packet is not None and random.random() >= kind.loss:
                repeated += 1
                sender.send(packet)

    sender.on_rtcp = repeat if kind.loss else lambda _: None
    if kind.silent:
        await over.wait()
    latest, reported = 0.0, 0.0
    while not over.is_set():
        now = time.monotonic() - start
        while waiting[0][0] <= now:
            due, index, source = waiting[0]
            latest = max(latest, now - due)
            for packet in source.packets(counter):
                sent += 1
                octets += len(packet)
                if kind.loss and random.random() < kind.loss:
                    continue
                try:
                    sender.send(packet)
                except BlockingIOError:
                    dropped += 1
            heapq.heapreplace(waiting, (source.due(), index, source))
        if now - reported > REPORT_SECONDS:
            reported = now
            for source in sources:
                ntp = int((time.time() + 2_208_988_800) * (1 << 32))
                sender.send_rtcp(sender_report(source.ssrc, ntp, source.timestamp))
        await asyncio.sleep(STEP_SECONDS)
    seconds = time.monotonic() - start
    return {
        "packets_per_second": round(sent / seconds),
        "megabits_per_second": round(octets * 8 / seconds / 1e6, 1),
        "dropped": dropped,
        "repeated": repeated,
        "latest_ms": round(latest * 1000, 1),
        "profile": sender.profile,
    }


async def _run(arguments: argparse.Namespace) -> None:
    media = prepare(arguments.media)
    kind = KINDS[arguments.kind]
    offered = tracks(arguments.participants, kind, transport_cc=arguments.twcc)
    sources = [Source(track, kind, media, transport_cc=arguments.twcc) for track in offered]
    sender = Sender(arguments.profile)
    done = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(json.dumps({"offer": await sender.offer(offered)}).encode() + b"\n")
        await writer.drain()
        await sender.accept(json.loads(await reader.readline())["answer"])
        await reader.readline()
        over = asyncio.Event()
        pump = asyncio.create_task(_pump(sender, sources, kind, over))
        await reader.read()
        over.set()
        sys.stdout.write(json.dumps(await pump) + "\n")
        sys.stdout.flush()
        writer.close()
        done.set()

    server = await asyncio.start_unix_server(serve, arguments.socket, limit=LIMIT)
    async with server:
        await done.wait()


def main() -> None:
    """Entry point of the process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", required=True)
    parser.add_argument("--media", type=Path, required=True)
    parser.add_argument("--participants", type=int, required=True)
    parser.add_argument("--kind", choices=list(KINDS), default="vp8")
    parser.add_argument("--twcc", action="store_true")
    parser.add_argument("--profile", default="")
    asyncio.run(_run(parser.parse_args()))


if __name__ == "__main__":
    main()
