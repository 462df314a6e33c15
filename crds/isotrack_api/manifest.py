"""Manifest: `recording.json`, the last object written. What exists, when on the call's timeline, what is missing and why.

All `…Ms` offsets count from `startedAt`, the moment at which the first attempt was able to capture.
`attempts/<n>/manifest.json` has the same shape and covers one attempt.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from .base import (
    ApiModel,
    Container,
    Count,
    MediaKind,
    Milliseconds,
    OutputType,
    PeerId,
    Timestamp,
    TrackSource,
    UserId,
)
from .intent import RecordingRef
from .words import StopReason as StopReason  # noqa: PLC0414 - passed on


class GapReason(StrEnum):
    """Why media is missing inside a file."""

    LOST = "Lost"
    """Packets never arrived, retransmission included."""
    MUTED = "Muted"
    SILENT = "Silent"
    """The sender sent nothing (DTX, camera without new pictures)."""
    PAUSED = "Paused"
    EXCLUDED = "Excluded"
    """The person was off the allowlist meanwhile."""
    DISCONNECTED = "Disconnected"
    CRASHED = "Crashed"
    DAMAGED = "Damaged"
    """Pictures came and are in the file, but show nothing whole: they are made from lost ones. Until the next key frame."""
    SHED = "Shed"
    """Not received, because the recorder's disk was nearly full: cameras give way first, then screens, sound last."""


class Gap(ApiModel):
    """A stretch without (usable) media of one track. Audio files play declared silence there, video keeps its last picture."""

    start_ms: Milliseconds
    """On the call's timeline."""
    duration_ms: Milliseconds
    """Its length."""
    reason: GapReason
    """Why; what counts as lost is summed in `lostMs`."""
    missing_ms: Milliseconds | None = None
    """How much of it is missing, where that is less: of a track with more gaps than are listed, neighbours are told as one."""

    @property
    def counted_ms(self) -> int:
        """How much is missing."""
        return self.duration_ms if self.missing_ms is None else self.missing_ms


class SizeChange(ApiModel):
    """Picture size, and how players are to turn it, from this moment on, as the sender chose it."""

    at_ms: Milliseconds
    """On the call's timeline."""
    width: Annotated[int, Field(ge=1, le=65536)]
    """Pixels."""
    height: Annotated[int, Field(ge=1, le=65536)]
    """Pixels."""
    rotation: Annotated[int, Field(ge=0, le=359)] = 0
    """Degrees clockwise. A file's head has that of its first picture only."""


class ManifestTrack(ApiModel):
    """One recorded track inside a file."""

    track_id: Annotated[str, Field(max_length=128)]
    """As the SFU names it."""
    source: TrackSource
    """What it shows or sounds of."""
    kind: MediaKind
    """Sound or pictures."""
    codec: Annotated[str, Field(max_length=32)]
    """Lower case: opus, vp8, h264."""
    start_ms: Milliseconds
    """First frame, on the call's timeline."""
    end_ms: Milliseconds
    """End of the last frame, on the call's timeline."""
    frames: Count
    """Received frames in the file, without silence that was filled in."""
    key_frames: Count
    """Of these, how many a player can begin at."""
    packets: Count
    """RTP packets that came: of sound those of this file; pictures that are cut into several files have the track's in each."""
    packets_lost: Count
    """Never arrived, although asked for again; of the same part of the track as `packets`."""
    packets_recovered: Count
    """Arrived only after they were asked for again; of the whole track."""
    media_bytes: Count
    """Bytes of the frames."""
    silence_ms: Milliseconds = 0
    """Audio: declared silence written for gaps."""
    overlap_ms: Milliseconds = 0
    """Audio of a sender whose clock runs fast: so much more of it decodes than the file lasts. No packet is dropped; time stamps follow closer on one another."""
    drift_ppm: Annotated[float, Field(ge=-1e6, le=1e6)] | None = None
    """Sender's clock against ours; absent while too few sender reports arrived."""
    clock: Annotated[str, Field(max_length=16)] = "arrival"
    """What placed the track on the timeline: `reports` (RTCP sender reports) or `arrival` (no report came)."""
    sizes: Annotated[tuple[SizeChange, ...], Field(max_length=1000)] = ()
    """Pictures: the first size, and each change."""
    gaps: Annotated[tuple[Gap, ...], Field(max_length=10_000)] = ()
    """What is missing, in order."""


class ManifestFile(ApiModel):
    """One deliverable."""

    name: Annotated[str, Field(max_length=1024)]
    """File name inside the recording's folder."""
    attempt: Annotated[int, Field(ge=1)]
    """The attempt that made it."""
    layer: Annotated[str, Field(max_length=63)]
    """Name of the output layer that it belongs to."""
    output_type: OutputType
    """What it holds, which may be less than what was asked for: see `reason`."""
    reason: Annotated[str, Field(max_length=256)] | None = None
    """Why the file is not what was asked for: single-kind fallback, other container, further part."""
    part: Annotated[int, Field(ge=1)] = 1
    """Number of the file among those of its session and output type."""
    container: Container
    """Its format, which may be another than what was asked for: see `reason`."""
    user_id: UserId
    """Identity of the person at the SFU."""
    peer_id: PeerId
    """Session of the person in the call; who comes back has another one."""
    participant_name: Annotated[str, Field(max_length=256)] = ""
    """Name of the person as the SFU shows it."""
    start_offset_ms: Milliseconds
    """Where the file's zero lies on the call's timeline."""
    duration_ms: Milliseconds
    """From the file's zero to the end of its last frame."""
    bytes: Count
    """Size of the file."""
    crc32: Annotated[str, Field(pattern=r"^[0-9a-f]{8}$")] | None = None
    """CRC-32 (zlib) of the whole file, eight hex digits."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """SHA-256 of the whole file; absent for one that was sent in parts while the call ran: see `partsSha256`."""
    parts_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """SHA-256 over the SHA-256 sums (32 bytes each) of the file's parts: `partBytes` each, the last one what is left."""
    part_bytes: Annotated[int, Field(ge=1, le=2**40)] | None = None
    """Size of the parts that `partsSha256` is over."""
    av_offset_ms: Annotated[float, Field(ge=-1e6, le=1e6)] | None = None
    """How much later pictures lie beside the sound than their sender's reports say (lip sync; below 0: earlier), on average; absent where either kind is missing or has no reports. Which kind begins later, and when, is in `startMs` of the tracks."""
    summary: Annotated[str, Field(max_length=1024)] = ""
    """One line for people: frames, share of packets received, gaps, seconds lost, drift, A/V offset (`avOffsetMs`), from when on a kind that begins later is there (in seconds of the file), duration. `isotrack verify` says the same of what it finds in the file."""
    tracks: Annotated[tuple[ManifestTrack, ...], Field(min_length=1, max_length=8)]
    """What is in the file, in the order of its track numbers."""

    @model_validator(mode="after")
    def _has_a_sum(self) -> Self:
        if self.sha256 is None and (self.parts_sha256 is None or self.part_bytes is None):
            raise ValueError("a file has sha256, or partsSha256 with partBytes")
        return self


class ManifestPeer(ApiModel):
    """One session of a person in the call."""

    peer_id: PeerId
    """As the SFU names it."""
    joined_ms: Milliseconds
    """On the call's timeline; 0 for who was there before the recorder."""
    left_ms: Milliseconds | None = None
    """On the call's timeline; absent for who was there when the recording ended."""


class ManifestParticipant(ApiModel):
    """One person, recorded or not."""

    user_id: UserId
    """Identity at the SFU."""
    name: Annotated[str, Field(max_length=256)] = ""
    """As the SFU shows it."""
    recorded: bool = True
    """False when the allowlist excludes the person."""
    peers: Annotated[tuple[ManifestPeer, ...], Field(max_length=1000)] = ()
    """Sessions, in order of joining."""


class UnrecordedTrack(ApiModel):
    """A track that was wanted and could not be recorded."""

    user_id: UserId
    """Identity of the person at the SFU."""
    peer_id: PeerId
    """Session of the person in the call."""
    track_id: Annotated[str, Field(max_length=128)]
    """As the SFU names it."""
    source: TrackSource
    """What it would have shown."""
    reason: Annotated[str, Field(max_length=64)]
    """CodecUnsupported, Encrypted, NoMedia, Shed, SubscriptionRefused."""
    message: Annotated[str, Field(max_length=512)] = ""
    """More about it, for people."""


class ManifestAttempt(ApiModel):
    """One pod's run (or one run of the command line)."""

    n: Annotated[int, Field(ge=1)]
    """Number, from 1."""
    started_at: Timestamp
    """When it was able to capture."""
    ended_at: Timestamp
    """When its capture ended."""
    stop_reason: StopReason
    """Why it ended."""
    message: Annotated[str, Field(max_length=512)] = ""
    """More about it, for people."""


class Manifest(ApiModel):
    """What a recording consists of."""

    version: Literal[1] = 1
    """Of this format. What is added to it keeps the number."""
    generator: Annotated[str, Field(max_length=64)]
    """isotrack/<version>."""
    recording: RecordingRef
    """What was recorded: the Recording, or namespace `local` for the command line."""
    call_id: Annotated[str, Field(max_length=256)]
    """Room name at a LiveKit server."""
    call_sid: Annotated[str, Field(max_length=128)] = ""
    """The SFU's own id of the call's session, the first of several."""
    started_at: Timestamp
    """Zero of the call's timeline."""
    duration_ms: Milliseconds
    """From zero to the end of capture."""
    complete: bool
    """False when something that was sent is known to be missing from the files beyond declared gaps."""
    stop_reason: StopReason
    """Why the recording ended."""
    message: Annotated[str, Field(max_length=512)] = ""
    """More about its end, for people."""
    lost_ms: Milliseconds = 0
    """Sum of what is missing in the gaps with reason Lost, Damaged, Disconnected, Crashed or Shed, over all tracks."""
    attempts: Annotated[tuple[ManifestAttempt, ...], Field(min_length=1, max_length=1000)]
    """Pods that worked on it, in order."""
    participants: Annotated[tuple[ManifestParticipant, ...], Field(max_length=10_000)] = ()
    """Everybody who was in the call, recorded or not."""
    unfinished: Annotated[tuple[PeerId, ...], Field(max_length=10_000)] | None = None
    """In the manifest of one attempt only: participant sessions whose files are made from checkpoints when the recording ends,
    because they went on in another attempt or the attempt could not make them."""
    files: Annotated[tuple[ManifestFile, ...], Field(max_length=100_000)] = ()
    """All files of the recording."""
    unrecorded: Annotated[tuple[UnrecordedTrack, ...], Field(max_length=10_000)] = ()
    """Tracks that were wanted and are in no file."""
