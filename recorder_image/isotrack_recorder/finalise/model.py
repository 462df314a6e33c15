"""Values that pass between a session's stream and whoever keeps the files.

All `…_ns` times are on the axis of the spool (`spool.reader.SpoolFacts`): nanoseconds of CLOCK_MONOTONIC of the first
incarnation. `…_ms` times count from the zero of the call's timeline.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from isotrack_api.base import Container, MediaKind, OutputType, TrackSource
from isotrack_api.manifest import Gap, SizeChange
from isotrack_recorder.matroska.muxer import HEAD_BYTES

__all__ = ["HEAD_BYTES", "FilePlan", "FileResult", "FileSink", "LaneResult", "Progress"]


class FileSink(Protocol):
    """Takes the bytes of files."""

    def write(self, name: str, offset: int, data: bytes) -> None:
        """Keep `data` for this place of the file `name`; may block.

        The first HEAD_BYTES of a file come last. What was written may be written again: the same when a stream goes on from a
        saved state, other bytes only behind the part of the file that `SessionStream.settled` names.
        """


@dataclass(frozen=True, slots=True)
class FilePlan:
    """One deliverable: what it is called and whose it is. Equal spools give equal plans."""

    name: str
    """File name inside the recording's folder, extension included."""
    attempt: int
    layer: str
    output_type: OutputType
    reason: str | None
    part: int
    container: Container
    user_id: str
    peer_id: str
    participant_name: str
    call_id: str
    zero_ns: int
    """The file's zero: its first frame, or where the part before was cut."""
    call_zero_ns: int
    """Zero of the call's timeline."""

    @property
    def origin_ns(self) -> int:
        """What the file's times in the manifest count from: the call's zero, or its own where that lies before it.

        It does by some milliseconds where the first packets took longer than later ones: then tracks and gaps are told as they
        lie in the file, which the manifest says begins at 0.
        """
        return min(self.call_zero_ns, self.zero_ns)

    @property
    def start_offset_ms(self) -> int:
        """The file's zero on the call's timeline."""
        return max(0, (self.zero_ns - self.call_zero_ns + 500_000) // 1_000_000)


@dataclass(frozen=True, slots=True)
class LaneResult:
    """What was written of one lane."""

    track_id: str
    source: TrackSource
    kind: MediaKind
    codec: str
    start_ms: int
    """First and end of the last frame, on the call's timeline."""
    end_ms: int
    frames: int
    key_frames: int
    media_bytes: int
    packets: int
    packets_lost: int
    packets_recovered: int
    silence_ms: int
    overlap_ms: int
    drift_ppm: float | None
    clock: str
    sizes: tuple[SizeChange, ...]
    gaps: tuple[Gap, ...]
    late_ms: float | None = None
    """How much later than their sender's reports say its frames lie in the file, on average; None where none tell."""


@dataclass(frozen=True, slots=True)
class FileResult:
    """A finished file: all its bytes were written."""

    duration_ms: int
    bytes: int
    """Of the whole file, head and tail included."""
    lanes: tuple[LaneResult, ...]

    @property
    def av_offset_ms(self) -> float | None:
        """How much later pictures lie beside the sound than they should; None where that is not known."""
        late = {lane.kind: lane.late_ms for lane in self.lanes}
        sound, pictures = late.get(MediaKind.AUDIO), late.get(MediaKind.VIDEO)
        return None if sound is None or pictures is None else round(pictures - sound, 1)


Progress = Callable[[str, int], None]
"""Called with a file's name and the bytes of it that are written so far."""
