"""A spool that grows as a recorder's does, through the recorder's own writer, but as fast as the disk takes it.

    call = LiveSpool(path, people=3); call.run(until=600); …; call.run(until=660); call.stop()

Each person has a microphone (Opus, 20 ms) and a camera (pictures of `picture_bytes`, 30 a second, a key frame every 20 s).
Segments are small, so that something can be given back soon. `facts_per_tick` more totals make a journal as
long in seconds as it is after hours. Pictures may be sent `picture_age_ms` after they were taken: only
reports tell, and without them pictures lie elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from isotrack_recorder.spool.records import Flag
from isotrack_recorder.spool.writer import SpoolWriter, TrackLog

from .media import opus_packets, video_frames
from .spools import MONO_NS, SECOND, WALL_NS

FLUSH_NS = SECOND // 2
TICK_NS = SECOND // 100


class LiveSpool:
    """One incarnation of a recorder with `people` in the call from the start."""

    def __init__(
        self, path: Path, *, people: int = 1, picture_bytes: int = 6250, segment_bytes: int = 4 * 1024 * 1024,
        facts_per_tick: int = 0, picture_age_ms: int = 0, begins: float = 0, attempt: int = 1, wall_error: float = 0,
    ) -> None:  # fmt: skip
        self.path = path
        self._facts_per_tick = facts_per_tick
        self._picture_age_ms = picture_age_ms
        self._writer = SpoolWriter(path, segment_bytes)
        self._now = self._begun = round(begins * SECOND)
        self._people: list[tuple[TrackLog, TrackLog]] = []
        self._packets = opus_packets(50)
        encoded = video_frames(60)
        self._key, self._delta = (
            data + bytes(max(0, picture_bytes - len(data))) for data in (encoded[0][0], encoded[1][0])
        )
        self._somebody_left = False
        self._journal(
            "start",
            version=1,
            wall_ns=WALL_NS + self._now + round(wall_error * SECOND),
            attempt=attempt,
            recording_uid="0123456789abcdef",
            tells_written=True,
        )
        self._journal("call", call_id="team-a-standup", call_sid="RM_1")
        self._journal("armed")
        for number in range(people):
            self._join(number)

    def run(self, until: float) -> None:
        """Go on until this second of the call."""
        end = round(until * SECOND)
        while self._now < end:
            self._tick()
            self._now += TICK_NS
        self._writer.flush()

    def leave(self, number: int) -> None:
        """A person leaves."""
        for log in self._people[number]:
            self._journal("track_ended", track=log.name, reason="left")
            log.released = True
        self._journal("participant_left", peer_id=f"PA_{number}", reason="left")
        self._somebody_left = True

    def stop(self) -> None:
        """The end, in good order."""
        self._journal("stop", reason="Requested", message="")
        self._writer.close()

    def _join(self, number: int) -> None:
        peer, user = f"PA_{number}", f"user-{number}"
        self._journal("participant", peer_id=peer, user_id=user, name=user, recorded=True)
        logs = []
        for source, kind, codec, rate, channels in (
            ("microphone", "audio", "opus", 48_000, 2),
            ("camera", "video", "vp8", 90_000, 1),
        ):
            log = self._writer.open_track()
            logs.append(log)
            self._journal("track", track=log.name, track_id=f"TR_{log.name}", peer_id=peer, user_id=user, source=source,
                          kind=kind)  # fmt: skip
            self._journal("codec", track=log.name, codec=codec, clock_rate=rate, channels=channels, fmtp="")
            self._journal("ssrc", track=log.name, ssrc=1, timestamp=0)
        self._journal("size", track=logs[1].name, timestamp=0, width=160, height=120, rotation=0)
        self._people.append((logs[0], logs[1]))

    def _tick(self) -> None:
        tick = self._now // TICK_NS
        for number, (sound, picture) in enumerate(self._people):
            if sound.released:
                continue
            first = Flag.DISCONTINUITY if self._now == self._begun else 0
            arrival = MONO_NS + self._now + 20_000_000 + number * 1000
            if tick % 2 == 0:
                packet = self._packets[tick // 2 % len(self._packets)]
                sound.append(tick * 480, arrival, int(Flag.KEY | first), packet)
            if tick % 10 in (0, 3, 6):
                key = tick % 2000 == 0 or first
                data = self._key if key else self._delta
                picture.append(tick * 900, arrival, int((Flag.KEY if key else 0) | first), data)
            for _ in range(self._facts_per_tick):
                self._journal(
                    "counters", track=picture.name, packets=tick, lost=0, recovered=0, frames=tick, bytes=tick
                )
            if tick % 500 == 250:
                self._journal("counters", track=sound.name, packets=tick // 2)
                self._journal("report", track=sound.name, ntp=self._ntp(), timestamp=tick * 480)
                age = self._picture_age_ms * 90
                self._journal("report", track=picture.name, ntp=self._ntp(), timestamp=tick * 900 + age)
        if self._now % FLUSH_NS == 0:
            self._writer.flush()
            if self._somebody_left:
                self._somebody_left = False
                self._writer.journal("written", MONO_NS + self._now + 1)

    def _ntp(self) -> int:
        return (WALL_NS + self._now) * 2**32 // SECOND

    def _journal(self, event: str, **fields: object) -> None:
        self._writer.journal(event, MONO_NS + self._now, **fields)


def segments(spool: Path) -> Iterator[Path]:
    """Files that hold frames."""
    yield from sorted(spool.glob("i*/*.log"))
