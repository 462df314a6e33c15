"""Spools with known truth: what a sender captured when, over a network and clocks with known faults.

A Call writes one incarnation of a spool through the recorder's own encoders. Times are seconds of the call; the
receiver's monotonic clock starts at MONO_NS, its wall clock at WALL_NS.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from isotrack_api.intent import Intent, LiveKitSource, OutputLayer, RecordingRef
from isotrack_recorder.spool.journal import encode_line
from isotrack_recorder.spool.records import MAGIC, Flag, encode_header

SECOND = 1_000_000_000
MONO_NS = 5_000 * SECOND
SOUND_RATES = {"opus": 48_000, "pcmu": 8000, "pcma": 8000, "g722": 8000}
"""RTP clocks; pictures have 90 kHz."""
WALL_NS = 1_760_000_000 * SECOND
_SOUND = {"opus": (48000, 2), "pcmu": (8000, 1), "pcma": (8000, 1), "g722": (8000, 1)}
"""Clock rate and channels."""


def an_intent(*, attempt: int = 1, epoch_ms: int | None = None, **layer: object) -> Intent:
    """An Intent with one layer."""
    return Intent(
        recording=RecordingRef(namespace="team-a", name="standup", uid="0123456789abcdef"),
        attempt=attempt,
        call_id="team-a-standup",
        source=LiveKitSource(url="ws://127.0.0.1:7880", identity="rec"),
        layers=(OutputLayer.model_validate(layer),),
        folder="team-a/standup-01234567",
        epoch_ms=epoch_ms,
    )


@dataclass
class Sender:
    """One participant's clocks and way to us."""

    wall_error: float = 0.0
    """Seconds by which the NTP clock is wrong."""
    drift_ppm: float = 0.0
    """By which RTP clocks run fast."""
    transit: float = 0.03
    """Shortest way, seconds."""
    jitter: Callable[[int], float] = lambda number: (number * 7 % 11) * 0.0007


@dataclass
class Call:
    """Writes one incarnation."""

    spool: Path
    incarnation: int = 1
    started: float = 0.0
    attempt: int = 1
    _lines: list[bytes] = field(default_factory=list)
    _events: list[tuple[int, int, str, dict[str, object]]] = field(default_factory=list)
    _logs: dict[str, list[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        process = {"version": 1, "wall_ns": WALL_NS + self._ns(self.started) - MONO_NS, "attempt": self.attempt,
                   "recording_uid": "0123456789abcdef"}  # fmt: skip
        self.event("start", self.started, **process)
        self.event("call", self.started, call_id="team-a-standup", call_sid="RM_1")
        self.event("armed", self.started, **process)

    @staticmethod
    def _ns(at: float) -> int:
        return MONO_NS + round(at * SECOND)

    def event(self, kind: str, at: float, /, **fields: object) -> None:
        """Journal something; lines are sorted by time when the spool is written."""
        self._events.append((self._ns(at), len(self._events), kind, fields))

    def person(self, peer_id: str, user_id: str, at: float = 0.0, left: float | None = None, name: str = "") -> None:
        """A participant session."""
        self.event("participant", at, peer_id=peer_id, user_id=user_id, name=name or user_id, recorded=True)
        if left is not None:
            self.event("participant_left", left, peer_id=peer_id, reason="left")

    def track(
        self, log: str, peer_id: str, user_id: str, source: str, codec: str, at: float, ended: float | None = None,
        track_id: str = "",
    ) -> None:  # fmt: skip
        """A log with its first codec and SSRC."""
        kind = "audio" if codec in _SOUND else "video"
        self.event("track", at, track=log, track_id=track_id or f"TR_{log}", peer_id=peer_id, user_id=user_id,
                   source=source, kind=kind)  # fmt: skip
        self.codec(log, codec, at)
        self._logs.setdefault(log, [])
        if ended is not None:
            self.event("track_ended", ended, track=log, reason="unpublished")

    def codec(self, log: str, codec: str, at: float) -> None:
        """The codec from now on."""
        rate, channels = _SOUND.get(codec, (90000, 1))
        self.event("codec", at, track=log, codec=codec, clock_rate=rate, channels=channels, fmtp="")

    def frames(
        self, log: str, sender: Sender, rate: int, frames: Iterable[tuple[float, bytes, bool]], *,
        base: int = 100_000, reports: Iterable[float] = (), not_before: float = 0.0, lost: Iterable[int] = (),
        new_ssrc: bool = True,
    ) -> None:  # fmt: skip
        """Frames captured at given seconds, over the sender's clocks and way.

        Args:
            reports: When sender reports are sent.
            not_before: Nothing arrives earlier: an SFU hands over its backlog then.
            lost: Numbers of frames that never arrive, each a packet.
        """
        gone = set(lost)
        missing, damaged = 0, False
        first = new_ssrc
        previous = 0
        for number, (at, data, key) in enumerate(frames):
            ticks = self.ticks(sender, rate, at, base)
            if number in gone:
                missing, damaged = missing + 1, True
                continue
            damaged = damaged and not key
            arrival = self._ns(max(at + sender.transit + sender.jitter(number), not_before))
            if first:
                self._events.append((arrival, len(self._events), "ssrc",
                                     {"track": log, "ssrc": 1234, "timestamp": ticks}))  # fmt: skip
            if missing:
                self._events.append((arrival, len(self._events), "gap",
                                     {"track": log, "packets": missing, "after": previous, "before": ticks}))  # fmt: skip
            flags = (
                Flag.KEY * key
                | Flag.DISCONTINUITY * first
                | Flag.AFTER_GAP * (missing > 0)
                | Flag.UNDECODABLE * damaged
            )
            self.record(log, ticks, arrival, flags, data)
            first, missing, previous = False, 0, ticks
        for at in reports:
            ntp = round((WALL_NS / SECOND + at + sender.wall_error) * 2**32)
            self.event("report", at + sender.transit + 0.004, track=log, ntp=ntp,
                       timestamp=self.ticks(sender, rate, at, base))  # fmt: skip

    @staticmethod
    def ticks(sender: Sender, rate: int, at: float, base: int) -> int:
        """RTP time of a moment."""
        return base + round(at * rate * (1 + sender.drift_ppm / 1e6))

    def record(self, log: str, ticks: int, arrival_ns: int, flags: int, data: bytes) -> None:
        """One record as it is."""
        self._logs.setdefault(log, []).append(encode_header(ticks, arrival_ns, flags, data) + data)

    def write(self, *, until: float | None = None, stop: float | None = None, reason: str = "Requested") -> Path:
        """Write the spool, or only what had arrived at `until`.

        A further call with a later `until` writes a longer prefix of the same.
        """
        if stop is not None:
            self.event("stop", stop, reason=reason, message="")
        limit = 1 << 62 if until is None else self._ns(until)
        folder = self.spool / f"i{self.incarnation:04}"
        folder.mkdir(parents=True, exist_ok=True)
        lines = [encode_line(name, at, fields) for at, _, name, fields in sorted(self._events, key=lambda e: e[:2])
                 if at <= limit]  # fmt: skip
        (folder / "journal.ndjson").write_bytes(b"".join(lines))
        for log, records in self._logs.items():
            arrivals = (int.from_bytes(record[16:24], "little") for record in records)
            kept = sum(1 for _ in itertools.takewhile(lambda at: at <= limit, arrivals))
            half = len(records) // 2  # two segments each; a longer prefix only ever appends
            for segment, part in ((1, records[: min(half, kept)]), (2, records[half:kept])):
                if part:
                    (folder / f"{log}.{segment:06}.log").write_bytes(MAGIC + b"".join(part))
        return self.spool


def steady(frames: Iterable[tuple[bytes, bool]], start: float, step: float) -> list[tuple[float, bytes, bool]]:
    """Frames captured at a steady rate."""
    return [(start + number * step, data, key) for number, (data, key) in enumerate(frames)]


def tone(packets: Iterable[bytes], start: float) -> list[tuple[float, bytes, bool]]:
    """Opus packets of 20 ms one after the other."""
    return steady(((packet, True) for packet in packets), start, 0.02)
