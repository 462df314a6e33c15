"""A small volume that a call fills up while the storage is away: what is given back afterwards is room for real.

Capture, agent, S3 server and file system are the real ones; the SFU is played at the recorder's seam, so that pictures of any size cost
nothing else. Mounting takes root.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from isotrack_api.base import MediaKind, TrackSource
from isotrack_api.manifest import GapReason, Manifest, StopReason
from isotrack_dev.servers import S3Info
from isotrack_recorder.capture import Capture
from isotrack_recorder.clock import SystemClock
from isotrack_recorder.earlier import Earlier
from isotrack_recorder.media import CodecInfo, TrackCounters, TrackSink
from isotrack_recorder.orders import orders_of
from isotrack_recorder.pod.agent import Agent
from isotrack_recorder.pod.agent_settings import AgentSettings
from isotrack_recorder.settings import PodPaths
from isotrack_recorder.ship import retry
from isotrack_recorder.sources.base import Joined, ParticipantSeen, Ready, SourceHandler, TrackSeen
from isotrack_recorder.spool.records import Flag
from isotrack_recorder.spool.room import Room, WatchedRoom
from isotrack_recorder.spool.watermarks import segment_bytes
from isotrack_recorder.spool.writer import SpoolWriter
from support.bucket import Bucket
from support.fake_source import FakeSource
from support.fault_proxy import UNAVAILABLE, FaultProxy
from support.media import opus_packets, video_frames
from support.recorder_end import RecorderEnd
from support.shipping import a_shipping_intent
from support.stores import destination, write_secret
from support.waiting import until

SIZE = 192 * 2**20
PICTURE_BYTES = 28_000
BALLAST = 0.55
"""Of the volume lies there for other reasons, and stays: else it would take the call minutes to fill it."""
MIC, CAMERA = "TR_mic", "TR_camera"
KEYS_EVERY = 15
"""Pictures: half a second."""


@contextmanager
def small_volume(folder: Path) -> Iterator[Path]:
    """A file system of its own."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=700", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


class Studio:
    """Alice in front of microphone and camera, as an SFU hands her over: what nobody wants is not sent."""

    def __init__(self, spool: Path) -> None:
        room = Room(spool)
        self.spool = SpoolWriter(spool, segment_bytes(room.measure().capacity))
        intent = a_shipping_intent()
        self.capture = Capture(
            orders_of(intent),
            self.spool,
            SystemClock(),
            self._open,
            WatchedRoom(room.measure, self.spool),
            Earlier(),
            lambda: None,
        )
        self.handed_over: Counter[str] = Counter()
        """Frames by track."""
        self._sinks: dict[str, TrackSink] = {}
        self._packets = opus_packets(50)
        key, delta = (data + bytes(PICTURE_BYTES - len(data)) for data, _ in video_frames(2))
        self._pictures = key, delta

    def _open(self, handler: SourceHandler) -> FakeSource:
        self.source = FakeSource(handler)
        self.source.totals = {MIC: TrackCounters(), CAMERA: TrackCounters()}
        return self.source

    def come(self) -> None:
        """She joins and publishes."""
        mic = TrackSeen(MIC, "PA_a", TrackSource.MICROPHONE, MediaKind.AUDIO, encrypted=False, muted=False)
        camera = TrackSeen(CAMERA, "PA_a", TrackSource.CAMERA, MediaKind.VIDEO, encrypted=False, muted=False)
        self.source.tell(Joined("RM_1"), Ready(), ParticipantSeen("PA_a", "alice", "Alice", True), mic, camera)

    async def perform(self) -> None:
        """Send, in real time, until cancelled."""
        began = time.monotonic()
        for slot in range(1_000_000):
            await asyncio.sleep(max(0.0, began + slot / 50 - time.monotonic()))
            self._send(
                MIC, MediaKind.AUDIO, slot * 960, CodecInfo("opus", 48_000, 2), self._packets[slot % 50], key=True
            )
            if slot % 2 == 0:
                key = slot // 2 % KEYS_EVERY == 0
                picture = self._pictures[0 if key else 1]
                self._send(CAMERA, MediaKind.VIDEO, slot * 1800, CodecInfo("vp8", 90_000, 1), picture, key=key)

    def _send(self, track: str, kind: MediaKind, ticks: int, codec: CodecInfo, data: bytes, *, key: bool) -> None:
        if track not in self.source.wanted:
            self._sinks.pop(track, None)
            return
        sink = self._sinks.get(track)
        first = sink is None
        if sink is None:
            if not key:
                return  # an SFU begins with a key frame
            sink = self.capture.open_track(track, kind)
            if sink is None:
                return
            self._sinks[track] = sink
            sink.codec(codec)
            sink.source_changed(1234, ticks)
        flags = (Flag.KEY if key else Flag(0)) | (Flag.DISCONTINUITY if first else Flag(0))
        sink.frame(ticks, time.monotonic_ns(), int(flags), data)
        self.handed_over[track] += 1

    async def journalled(self, event: str) -> None:
        """Return when the journal says so."""
        journal = self.spool.folder / "journal.ndjson"
        await asyncio.to_thread(until, lambda: f'"e":"{event}"' in journal.read_text(), event, seconds=150)


def full(spool: Path) -> float:
    """How full the volume is, as the kernel says."""
    volume = os.statvfs(spool)
    return 1 - volume.f_bavail / volume.f_blocks


async def test_a_full_volume_is_given_back_when_the_storage_is_there_again(
    s3: S3Info, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "LONGEST_PAUSE_SECONDS", 0.5)  # else the storage is noticed ten seconds late
    url = urlsplit(s3.endpoint)
    assert url.hostname
    assert url.port
    with small_volume(tmp_path / "spool") as spool:
        async with FaultProxy(url.hostname, url.port) as proxy, RecorderEnd(tmp_path / "run") as recorder:
            storage = destination(s3, prefix="full", endpoint=proxy.url)
            intent = a_shipping_intent(storage=storage)
            paths = PodPaths(spool=spool, run=tmp_path / "run")
            secret = write_secret(tmp_path / "storage", s3.access_key, s3.secret_key)
            settings = AgentSettings(intent=intent, paths=paths, storage=secret, termination_log=tmp_path / "log")
            prefix = f"full/{intent.folder}/"
            studio = Studio(spool)
            with (spool / "ballast").open("wb") as ballast:
                os.posix_fallocate(ballast.fileno(), 0, int(BALLAST * SIZE))
            recorder.say("Capturing")
            capturing = asyncio.create_task(studio.capture.run())
            shipping = asyncio.create_task(Agent(settings).run())
            await asyncio.sleep(0.1)
            studio.come()
            performing = asyncio.create_task(studio.perform())
            try:
                await asyncio.to_thread(
                    until, lambda: any(".ckpt" in key for key in bucket.keys(prefix)), "a checkpoint"
                )
                proxy.always = UNAVAILABLE
                proxy.drop()
                await studio.journalled("shed")
                assert 0.78 < full(spool) < 0.97
                assert CAMERA not in studio.source.wanted
                assert MIC in studio.source.wanted
                proxy.always = ""
                await studio.journalled("unshed")
                assert full(spool) < 0.71
                assert not list(spool.glob("i0001/t*.000001.log")), "of the frames, the oldest"
                await asyncio.sleep(3)
                performing.cancel()
                studio.capture.stop(StopReason.REQUESTED)
                await capturing
                recorder.say("Stopped", stop_reason="Requested")
                async with asyncio.timeout(120):
                    assert await shipping == 0
            finally:
                for task in (performing, capturing, shipping):
                    task.cancel()
                await asyncio.gather(performing, capturing, shipping, return_exceptions=True)
            assert proxy.fired[UNAVAILABLE] > 0
        assert studio.spool.failure is None, "never was it really full"
    manifest = Manifest.model_validate_json(bucket.read(f"{prefix}recording.json"))
    (file,) = manifest.files
    assert manifest.complete
    gaps = {track.source: [gap.reason for gap in track.gaps] for track in file.tracks}
    assert gaps == {TrackSource.CAMERA: [GapReason.SHED], TrackSource.MICROPHONE: []}
    frames = {track.source: track.frames for track in file.tracks}
    assert frames[TrackSource.CAMERA] == studio.handed_over[CAMERA]
    assert frames[TrackSource.MICROPHONE] >= studio.handed_over[MIC]
