"""What synthetic people sent, read back from the file that the publishing process wrote.

All instants are seconds on that process' clock; `wall` is the Unix time of its zero. Frames and beeps of a muted or
unpublished source are not in it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

HURRIED_SECONDS = 0.05
"""A picture later than this in its slot was given to libwebrtc by a process that had no processor in time."""


@dataclass(frozen=True, slots=True)
class SentFrame:
    """A picture that was given to libwebrtc."""

    serial: int
    at: float
    digest: str | None


@dataclass(slots=True)
class Sent:
    """All that one source of one person sent."""

    frames: dict[int, SentFrame] = field(default_factory=dict)
    """By serial."""
    beeps: dict[int, float] = field(default_factory=dict)
    """Second → instant at which its first sample was given to libwebrtc."""

    def lateness(self, fps: int) -> list[float]:
        """How long after the instant that it shows or sounds each picture and beep was given to libwebrtc, in seconds."""
        pictures = [frame.at - frame.serial / fps for frame in self.frames.values()]
        return pictures + [at - second for second, at in self.beeps.items()]

    def was_hurried(self, serial: int, fps: int) -> bool:
        """Whether the publisher was late around this picture: libwebrtc leaves out pictures when it has to catch up."""
        around = (self.frames[near] for near in range(serial - 2, serial + 3) if near in self.frames)
        return any(frame.at - frame.serial / fps > HURRIED_SECONDS for frame in around)


@dataclass(slots=True)
class Ledger:
    """The whole call."""

    wall: float = 0.0
    sources: dict[tuple[str, str], Sent] = field(default_factory=dict)
    """By identity and source."""
    events: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a ledger; the process may still write to it."""
        ledger = cls()
        complete, _, _ = path.read_text().rpartition("\n")
        for line in complete.splitlines():
            ledger._add(json.loads(line))
        return ledger

    def include(self, other: Ledger) -> None:
        """Take in what another process sent whose clock has the same zero; `wall` stays."""
        for source, sent in other.sources.items():
            mine = self.sent(*source)
            mine.frames |= sent.frames
            mine.beeps |= sent.beeps
        self.events += other.events

    def sent(self, who: str, what: str) -> Sent:
        """What a source sent; empty when it never was published."""
        return self.sources.setdefault((who, what), Sent())

    def event(self, event: str, who: str, what: str | None = None, *, nth: int = 1) -> dict[str, Any]:
        """The nth event of a kind."""
        found = [
            e for e in self.events if e["event"] == event and e.get("who") == who and what in (None, e.get("what"))
        ]
        return found[nth - 1]

    def _add(self, line: dict[str, Any]) -> None:
        match line["event"]:
            case "clock":
                self.wall = float(line["wall"])
            case "frame":
                frame = SentFrame(int(line["serial"]), float(line["t"]), line.get("digest"))
                self.sent(line["who"], line["what"]).frames[frame.serial] = frame
            case "beep":
                self.sent(line["who"], line["what"]).beeps[int(line["second"])] = float(line["t"])
            case _:
                self.events.append(line)
