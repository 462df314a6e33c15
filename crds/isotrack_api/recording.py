"""Recording: one recording of one call, asked for by a user.

`spec` belongs to users, `status` to the operator. What a recording's class can give has no default here: absent means the
class's value, resolved once at the start and shown in `status.effective`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from .base import Container, OutputType, PeerId, Timestamp, UserId
from .conditions import Condition
from .manifest import StopReason
from .markers import WHOLE, Immutable, ListMap, ListSet, ObjectModel
from .resource import CallId, DnsLabel, Integer, KubernetesObject, ObjectName
from .templates import FileNamePrefix, FileNameTemplate

MAX_STATUS_FILES = 50
MAX_STATUS_TRANSITIONS = 50
MAX_STATUS_ATTEMPTS = 50
MAX_LAYERS = 8

OutputTypes = Annotated[tuple[OutputType, ...], Field(min_length=1, max_length=6), ListSet()]
Seq = Annotated[int, Field(strict=True, ge=1, le=2**31 - 1), WHOLE]
Message = Annotated[str, Field(max_length=1024)]
Word = Annotated[str, Field(max_length=63)]


class DesiredState(StrEnum):
    """What the user wants of a recording."""

    RUNNING = "Running"
    PAUSED = "Paused"
    STOPPED = "Stopped"


class Phase(StrEnum):
    """Summary of the conditions for people; nothing decides by it."""

    INVOKED = "Invoked"
    RECORDING = "Recording"
    PAUSED = "Paused"
    UPLOADING = "Uploading"
    UPLOADED = "Uploaded"
    PARTIALLY_UPLOADED = "PartiallyUploaded"
    ERRORED = "Errored"


class AttemptResult(StrEnum):
    """How an attempt ended."""

    FINISHED = "Finished"
    """The recording was over and everything verified in the bucket."""
    DRAINED = "Drained"
    """In good order before the recording was over; a successor goes on."""
    FAILED = "Failed"
    """With an error; `reason` names it."""
    LOST = "Lost"
    """Its pod or node vanished without a result."""


class StartReason(StrEnum):
    """Why a recording began."""

    REQUESTED = "Requested"
    """Somebody created the Recording."""


class CallRef(ObjectModel):
    """A call of the class's SFU."""

    id: Annotated[CallId, Immutable("call.id cannot change: create another Recording for another call")]
    """Room name at a LiveKit server."""


class Participants(ObjectModel):
    """Whom to record."""

    user_ids: Annotated[tuple[UserId, ...], Field(min_length=1, max_length=100), ListSet()] | None = None
    """Allowlist of identities at the SFU, for present and future participants. Absent = everybody. May change while running."""


class RecordingLimits(ObjectModel):
    """When a recording ends by itself. Absent = the class's value. Values may grow while running."""

    max_duration_seconds: Annotated[int, Field(strict=True, ge=1, le=604800), WHOLE] | None = None
    """Longest duration, from the first moment of capture. Without a value in the class: 86400."""
    empty_timeout_seconds: Annotated[int, Field(strict=True, ge=0, le=86400), WHOLE] | None = None
    """Seconds without any participant after which the call counts as over; 0 = wait for the SFU to say so.
    Without a value in the class: 60."""
    start_timeout_seconds: Annotated[int, Field(strict=True, ge=0, le=604800), WHOLE] | None = None
    """How long to wait for the call to begin; 0 = for ever. No pod runs meanwhile. Without a value in the class: 300."""


class Layer(ObjectModel):
    """A named set of files. What it does not say it takes from the Recording, else from the class."""

    name: DnsLabel
    """Name of the layer: {layer} of a template, and of each file in the manifest."""
    file_name_prefix: FileNamePrefix | None = None
    """{prefix} of a template. Absent = the layer's name."""
    output_types: OutputTypes | None = None
    """Which files to make per participant session. Absent = the Recording's, else the class's."""
    container: Container | None = None
    """Container of the files. Absent = the Recording's, else the class's."""
    file_name_template: FileNameTemplate | None = None
    """Template of file names. Absent = the Recording's, else the class's."""


Layers = Annotated[tuple[Layer, ...], Field(min_length=1, max_length=MAX_LAYERS), ListMap("name")]


class RecordingSpec(ObjectModel):
    """What to record. Users own it."""

    class_name: Annotated[
        ObjectName, Immutable("className cannot change: create another Recording to use another class")
    ]
    """Name of the RecordingClass that says where the call lives and where files go."""
    call: CallRef
    """The call to record."""
    output_types: OutputTypes | None = None
    """Which files to make per participant session. Absent = the class's, else audio_video and screenshare_audio_video.
    Taken at the start."""
    layers: Layers | None = None
    """Named sets of files, all made from the same capture. Absent = with outputTypes one layer "default", else the class's layers,
    else one layer "default". Files of two layers that would share a name are told apart by the layer's name. Taken at the start."""
    participants: Participants | None = None
    """Whom to record. Absent = everybody. May change while running."""
    container: Container | None = None
    """Container of the files; webm falls back to mkv, with a reason, where the codec is not legal in WebM.
    Absent = the class's, else mkv. Taken at the start."""
    file_name_template: FileNameTemplate | None = None
    """Template of file names. Absent = the class's, else {prefix}_{user_id}_{peer_id}_{stream_kind}_{media_kind}_{started_ms}.
    Taken at the start."""
    storage: DnsLabel | None = None
    """Name of one of the class's storages. Absent = the class's default, else its first. Taken at the start."""
    desired_state: DesiredState | None = None
    """Running, Paused or Stopped. Absent = Running. The first Stopped is final: later edits have no effect."""
    limits: RecordingLimits | None = None
    """When the recording ends by itself. Taken at the start."""


class StopInfo(ObjectModel):
    """Why a recording ended."""

    reason: StopReason
    """Cause, for scripts."""
    message: Message = ""
    """Cause, for people."""


class StopRequest(ObjectModel):
    """The first stop that was seen. Never changes."""

    time: Timestamp
    """When the operator saw it."""
    by: Annotated[str, Field(max_length=256)]
    """What asked for it: desiredState, or deletion; with the field manager where that is known."""


class Attempt(ObjectModel):
    """One pod's run at this recording."""

    n: Seq
    """Number, from 1."""
    job: Annotated[str, Field(max_length=253)]
    """Its Job, in the Recording's namespace."""
    pod_uid: Annotated[str, Field(max_length=64)] | None = None
    """Its pod, once there is one."""
    started_at: Timestamp
    """When the Job was created."""
    ended_at: Timestamp | None = None
    """When its pod ended. Absent while it runs."""
    result: AttemptResult | None = None
    """How it ended. Absent while it runs."""
    reason: Word | None = None
    """Cause of the end, for scripts."""
    message: Message | None = None
    """Cause of the end, for people."""


class EffectiveLimits(ObjectModel):
    """Limits in force."""

    max_duration_seconds: Integer
    """Longest duration."""
    empty_timeout_seconds: Integer
    """Seconds without participants; 0 = wait for the SFU to say so."""
    start_timeout_seconds: Integer
    """Seconds to wait for the call; 0 = for ever."""


class EffectiveLayer(ObjectModel):
    """A named set of files as it is made."""

    name: DnsLabel
    """Name of the layer."""
    file_name_prefix: Annotated[str, Field(max_length=100)]
    """{prefix} of the template."""
    output_types: OutputTypes
    """Files per participant session."""
    container: Container
    """Container of the files."""
    file_name_template: Annotated[str, Field(max_length=512)]
    """Template of file names."""


class Effective(ObjectModel):
    """What this recording resolved to, class included."""

    layers: Annotated[tuple[EffectiveLayer, ...], Field(min_length=1, max_length=MAX_LAYERS), ListMap("name")]
    """Named sets of files."""
    storage: DnsLabel
    """Storage of the class."""
    limits: EffectiveLimits
    """Limits in force, cut to the class's maxima."""


class RecordingTotals(ObjectModel):
    """Sums over all attempts."""

    participants: Integer = 0
    """People seen in the call, recorded or not."""
    files: Integer = 0
    """Finished files."""
    bytes: Integer = 0
    """Size of the finished files."""
    lost_seconds: Integer = 0
    """Media that never arrived or was lost, summed over tracks, rounded up."""


class FileStatus(ObjectModel):
    """One file in the bucket."""

    name: Annotated[str, Field(min_length=1, max_length=1024)]
    """Name inside the recording's folder."""
    output_type: OutputType
    """What it was made for."""
    user_id: UserId
    """Whom it shows."""
    peer_id: PeerId
    """In which session."""
    duration_ms: Integer
    """Length."""
    bytes: Integer
    """Size."""
    start_offset_ms: Integer
    """Where it begins on the call's timeline, which starts at `epochMs`."""


class Transition(ObjectModel):
    """One change of the phase, or of its reason."""

    seq: Seq
    """Number, from 1, without holes."""
    phase: Phase
    """Phase from then on."""
    time: Timestamp
    """When."""
    reason: Word
    """Cause, for scripts."""


class ManifestRef(ObjectModel):
    """Where recording.json is."""

    uri: Annotated[str, Field(max_length=2048)]
    """s3://bucket/key."""
    digest: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$", max_length=71)]
    """Of its content."""


class RecordingStatus(ObjectModel):
    """What became of it. The operator owns it."""

    observed_generation: Integer | None = None
    """metadata.generation that this status answers."""
    phase: Phase | None = None
    """Summary of the conditions for people; scripts read the conditions."""
    conditions: Annotated[tuple[Condition, ...], Field(max_length=16), ListMap("type")] = ()
    """Ready, Capturing, Finished, Succeeded, Reconciling, Stalled, StorageReady, UploadLagging, TracksUnrecorded."""
    started_at: Timestamp | None = None
    """When the first attempt was able to capture."""
    stopped_at: Timestamp | None = None
    """When capture ended for good."""
    duration_seconds: Integer | None = None
    """From startedAt to stoppedAt."""
    start_reason: StartReason | None = None
    """Why it began."""
    stop_reason: StopInfo | None = None
    """Why it ended."""
    stop_request: StopRequest | None = None
    """The first stop that was seen; from then on spec.desiredState has no effect."""
    attempts: Annotated[tuple[Attempt, ...], Field(max_length=MAX_STATUS_ATTEMPTS), ListMap("n")] = ()
    """The newest 50 attempts."""
    effective: Effective | None = None
    """What the spec and the class resolved to at the start."""
    totals: RecordingTotals | None = None
    """Sums over all attempts."""
    files: Annotated[tuple[FileStatus, ...], Field(max_length=MAX_STATUS_FILES), ListMap("name")] = ()
    """The newest 50 files; the manifest has all of them."""
    transitions: Annotated[tuple[Transition, ...], Field(max_length=MAX_STATUS_TRANSITIONS), ListMap("seq")] = ()
    """The newest 50 changes of the phase or of its reason; Events derive from them."""
    manifest: ManifestRef | None = None
    """recording.json, once it is written."""
    call_sid: Annotated[str, Field(max_length=128)] | None = None
    """Session of the call at the SFU."""
    epoch_ms: Integer | None = None
    """Zero of the call's timeline, Unix milliseconds."""


class Recording(KubernetesObject):
    """One recording of one call: creating it starts it, deleting it stops it."""

    kind: Literal["Recording"] = "Recording"
    spec: RecordingSpec
    status: RecordingStatus = RecordingStatus()
