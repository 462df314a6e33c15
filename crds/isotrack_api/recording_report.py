"""RecordingReport: what the agent of one attempt has to say, for the operator to read.

The operator creates it, named like the attempt's Job and owned by the Recording; from then on `status` belongs to the agent. It
is to a Recording what an EndpointSlice is to a Service: progress of every few seconds lands here, so that watchers of Recordings
see changes of state only. Nobody waits for it: an attempt's end is known from its Job and pod.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from .base import PeerId, SpoolLevel, Timestamp, TrackSource, UserId
from .manifest import StopReason
from .markers import WHOLE, Immutable, ListMap, ObjectModel
from .recording import FileStatus, ManifestRef, Message, RecordingTotals, Seq, Word
from .resource import Boolean, Integer, KubernetesObject

MAX_REPORT_TRACKS = 200
MAX_REPORT_FILES = 200
MAX_REPORT_UNRECORDED = 50


class ReportPhase(StrEnum):
    """What an attempt is doing. Finished, Drained and Failed are final."""

    STARTING = "Starting"
    """The agent runs; the recorder has not said anything yet."""
    JOINING = "Joining"
    ARMED = "Armed"
    """Joined and able to capture; nothing to capture yet."""
    CAPTURING = "Capturing"
    PAUSED = "Paused"
    RECONNECTING = "Reconnecting"
    UPLOADING = "Uploading"
    """Capture is over."""
    FINISHED = "Finished"
    """The recording is over and everything is verified in the bucket."""
    DRAINED = "Drained"
    """Everything of this attempt is in the bucket; the recording goes on elsewhere."""
    FAILED = "Failed"


IN_THE_CALL = (ReportPhase.ARMED, ReportPhase.CAPTURING, ReportPhase.PAUSED)
"""Phases of an attempt that is in the call and able to record: it has something to hand over, or can take over."""


class TrackReport(ObjectModel):
    """One recorded track."""

    id: Annotated[str, Field(min_length=1, max_length=128)]
    """Key of the list, unique within the attempt."""
    track_id: Annotated[str, Field(max_length=128)]
    """As the SFU names it."""
    user_id: UserId
    """Who sends it."""
    peer_id: PeerId
    """In which session."""
    source: TrackSource
    """What it shows or lets hear."""
    codec: Annotated[str, Field(max_length=32)] = ""
    """Lower case: opus, vp8, h264. Empty before the first packet."""
    muted: Boolean = False
    """Whether the sender muted it."""
    ended: Boolean = False
    """Whether it is over."""
    shed: Boolean = False
    """Whether it is not received at the moment because the spool is nearly full."""
    packets: Integer = 0
    """Received."""
    packets_lost: Integer = 0
    """Never arrived, although asked for again."""
    packets_recovered: Integer = 0
    """Arrived only after they were asked for again."""
    packets_late: Integer = 0
    """Arrived after they were given up on, and dropped."""
    frames: Integer = 0
    """Whole frames written."""
    media_bytes: Integer = 0
    """Size of these frames."""
    key_frame_requests: Integer = 0
    """Video: how often a key frame was asked for (PLI or FIR)."""
    size_changes: Integer = 0
    """Video: how often the picture's size or rotation changed."""
    last_packet_age_seconds: Integer | None = None
    """Time since the newest packet, when this was written. Absent before the first one."""
    width: Annotated[int, Field(strict=True, ge=0, le=65536), WHOLE] = 0
    """Video: newest picture width in pixels; else 0."""
    height: Annotated[int, Field(strict=True, ge=0, le=65536), WHOLE] = 0
    """Video: newest picture height in pixels; else 0."""


class UnrecordedReport(ObjectModel):
    """One track that was wanted and cannot be recorded."""

    id: Annotated[str, Field(min_length=1, max_length=128)]
    """Of the track, as the SFU names it. Key of the list."""
    user_id: UserId
    """Who sends it."""
    source: TrackSource
    """What it shows or lets hear."""
    reason: Word
    """Encrypted, CodecUnsupported or SubscriptionRefused, as in recording.json."""
    message: Annotated[str, Field(max_length=256)] = ""
    """More about it, for people."""


class FileReport(FileStatus):
    """One file of this attempt, verified in the bucket."""

    layer: Annotated[str, Field(max_length=63)] = "default"
    """Output layer that it belongs to."""
    part: Seq = 1
    """Number of the part of its session and output type."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", max_length=64)] | None = None
    """Of its content; absent where the file was sent in parts (the manifest has its sums)."""


class StorageReport(ObjectModel):
    """Whether the agent can write to the storage."""

    ready: Boolean
    """True once something was written and read back."""
    reason: Word = ""
    """Cause when it is not, for scripts."""
    message: Message = ""
    """Cause and what to do, for people."""


class SpoolReport(ObjectModel):
    """The pod's disk, where media waits until it is in the bucket."""

    level: SpoolLevel
    """What its filling means for capture."""
    used_bytes: Integer
    """Captured and not yet given back."""
    capacity_bytes: Integer
    """What fits: the volume's limit, or less where the node's disk has less."""


class ReportSpec(ObjectModel):
    """Which attempt this is about. The operator owns it."""

    recording_uid: Annotated[
        str,
        Field(min_length=8, max_length=36),
        Immutable("recordingUid cannot change: a report belongs to one Recording"),
    ]
    """metadata.uid of the Recording."""
    attempt: Annotated[Seq, Immutable("attempt cannot change: a report belongs to one attempt")]
    """Number of the attempt."""


class ReportStatus(ObjectModel):
    """Progress of the attempt. Its agent owns it."""

    phase: ReportPhase | None = None
    """What the attempt is doing."""
    call_sid: Annotated[str, Field(max_length=128)] | None = None
    """Session of the call at the SFU."""
    armed_at_ms: Integer | None = None
    """When the attempt was first able to capture, Unix milliseconds."""
    first_packet_at_ms: Integer | None = None
    """When the first media packet arrived, Unix milliseconds."""
    epoch_ms: Integer | None = None
    """Zero of the call's timeline as this attempt uses it, Unix milliseconds."""
    stop_reason: StopReason | None = None
    """Why the attempt ended, or is about to."""
    reason: Word | None = None
    """Failed: cause, for scripts."""
    message: Message | None = None
    """Cause, for people."""
    participants: Integer = 0
    """People in the call now, recorded or not."""
    totals: RecordingTotals | None = None
    """Sums over this attempt."""
    tracks: Annotated[tuple[TrackReport, ...], Field(max_length=MAX_REPORT_TRACKS), ListMap("id")] = ()
    """Tracks, those still running first."""
    unrecorded: Annotated[tuple[UnrecordedReport, ...], Field(max_length=MAX_REPORT_UNRECORDED), ListMap("id")] = ()
    """Tracks that cannot be recorded, the first 50 of them; recording.json has all."""
    files: Annotated[tuple[FileReport, ...], Field(max_length=MAX_REPORT_FILES), ListMap("name")] = ()
    """The newest 200 files that are verified in the bucket."""
    storage: StorageReport | None = None
    """Whether the agent can write to the storage."""
    spool: SpoolReport | None = None
    """How full the pod's disk is, as the recorder said last."""
    manifest: ManifestRef | None = None
    """recording.json (or the attempt's own manifest), once it is written."""
    last_update: Timestamp | None = None
    """When the agent wrote this."""


class RecordingReport(KubernetesObject):
    """Progress of one attempt at a Recording."""

    kind: Literal["RecordingReport"] = "RecordingReport"
    spec: ReportSpec
    status: ReportStatus = ReportStatus()
