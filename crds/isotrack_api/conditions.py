"""Conditions: their schema (that of metav1.Condition), and every type and reason that isotrack writes.

Types and reasons are part of the contract: scripts match them, so none changes its meaning. Messages are for people and may change.
`Finished`, `Succeeded` and `Ready` together are what `kubectl wait` needs; `Ready`, `Reconciling` and `Stalled` are what kstatus
(Flux, Argo CD, `kubectl` plugins) reads: `Reconciling` and `Stalled` exist as True only while they hold something up.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from .base import Timestamp
from .markers import ObjectModel
from .resource import Integer


class ConditionStatus(StrEnum):
    """Three states of a condition."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(ObjectModel):
    """One aspect of the state of an object."""

    type: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z][A-Za-z0-9]*$")]
    """Aspect, in CamelCase."""
    status: ConditionStatus
    """Whether it holds."""
    observed_generation: Integer | None = None
    """metadata.generation that this was found at."""
    last_transition_time: Timestamp
    """When `status` last changed."""
    reason: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[A-Za-z][A-Za-z0-9]*$")]
    """Cause in one CamelCase word, for scripts."""
    message: Annotated[str, Field(max_length=4096)]
    """Cause and what to do, for people."""


class ConditionType(StrEnum):
    """Types of conditions of a Recording, unless said otherwise."""

    READY = "Ready"
    """The recorder is in the call and able to capture (a muted or paused call included), or all went well and it is over.
    On a RecordingClass: recordings of this class can start."""
    CAPTURING = "Capturing"
    """Media is being received now."""
    FINISHED = "Finished"
    """The recording is over, whatever its result."""
    SUCCEEDED = "Succeeded"
    """Everything is in the bucket. Unknown while the recording runs."""
    RECONCILING = "Reconciling"
    """The operator is working towards what the spec wants: starting, replacing an attempt, uploading."""
    STALLED = "Stalled"
    """It cannot go on by itself; the message says what to do. True after every failure, too."""
    STORAGE_READY = "StorageReady"
    """The agent can write to the storage. On a RecordingClass: the operator can, to every storage that it has a Secret for; what it
    found of each is in status.storages."""
    UPLOAD_LAGGING = "UploadLagging"
    """More is captured than goes to the bucket, and the pod's disk fills. Pictures give way before it is full."""
    TRACKS_UNRECORDED = "TracksUnrecorded"
    """Tracks of people who are recorded cannot be: the message names them. All others are recorded. It stays True: what was sent
    meanwhile is missing for good."""
    SOURCE_READY = "SourceReady"
    """RecordingClass: the SFU answers and takes our credentials."""


class Reason(StrEnum):
    """Reasons of conditions and transitions."""

    # What holds up the start
    CLASS_NOT_FOUND = "ClassNotFound"
    """There is no RecordingClass of this name. The recording starts when it appears."""
    RECORDING_DISABLED = "RecordingDisabled"
    """The class has `mode: disabled`."""
    CALL_NOT_ALLOWED = "CallNotAllowed"
    """The class does not let this namespace record this call (`spec.calls` of the class)."""
    STORAGE_NOT_FOUND = "StorageNotFound"
    """The class has no storage of this name. The recording starts when it appears."""
    SOURCE_SECRET_NOT_FOUND = "SourceSecretNotFound"  # noqa: S105 - the name of a reason
    """The SFU's credentials are missing in the operator's namespace, or lack a key."""
    STORAGE_SECRET_NOT_FOUND = "StorageSecretNotFound"  # noqa: S105 - the name of a reason
    """The storage's credentials are missing in the Recording's namespace (RecordingClass: in the operator's), or lack a key."""
    SERVICE_ACCOUNT_NOT_FOUND = "ServiceAccountNotFound"
    """The service account that the class's storage wants for pods is missing in the Recording's namespace."""
    ALREADY_RUNNING = "AlreadyRunning"
    """Another Recording of the same class records this call."""
    TOO_MANY_RECORDINGS = "TooManyRecordings"
    """The namespace has as many active recordings of this class as `limits.concurrentPerNamespace` allows."""
    WAITING_FOR_CALL = "WaitingForCall"
    """The call does not exist yet; the recording starts when somebody joins it."""
    CALL_NOT_FOUND = "CallNotFound"
    """The call did not begin within `limits.startTimeoutSeconds`."""
    INVALID_CONFIGURATION = "InvalidConfiguration"
    """The attempt refused what it was told. Retrying changes nothing."""

    # What the operator is doing
    STARTING = "Starting"
    """The pod of an attempt is on its way."""
    REPLACING = "Replacing"
    """An attempt ended before the recording did; the next one is on its way."""
    STOPPING = "Stopping"
    """Capture ends; what is left in the spool goes to the bucket."""
    UPLOADING = "Uploading"
    """Capture is over; files are being uploaded and verified."""
    RECOVERING = "Recovering"
    """The attempts are over without a manifest; a Job finishes the recording from what is in the bucket."""
    RECONCILED = "Reconciled"
    """Nothing is left to do."""

    # How capture goes
    ARMED = "Armed"
    """The recorder is in the call, but nobody has sent media yet."""
    CAPTURING = "Capturing"
    """Media arrives."""
    PAUSED = "Paused"
    """Capture is paused by `desiredState: Paused`."""
    RECONNECTING = "Reconnecting"
    """The recorder lost the SFU and is joining again."""
    NOT_STARTED = "NotStarted"
    """No attempt has got this far."""
    STOPPED = "Stopped"
    """Capture is over."""

    # Tracks that cannot be recorded. Of several causes the first one in this order is the reason.
    END_TO_END_ENCRYPTED = "EndToEndEncrypted"
    """Media is encrypted between the people in the call: the recorder has no key, and would record noise."""
    UNSUPPORTED_CODEC = "UnsupportedCodec"
    """A codec that no file format here has a place for."""
    TRACK_REFUSED = "TrackRefused"
    """The SFU does not send a track, or it cannot be recorded for another cause: the message says what is known."""
    ALL_TRACKS_RECORDED = "AllTracksRecorded"
    """No track is left out for what it is."""

    # How it ended
    UPLOADED = "Uploaded"
    """Every file is in the bucket and verified."""
    PARTIALLY_UPLOADED = "PartiallyUploaded"
    """Some media is known to be missing beyond the gaps that the manifest declares."""
    STOPPED_BEFORE_START = "StoppedBeforeStart"
    """The recording was stopped or deleted before an attempt captured anything."""
    ATTEMPTS_EXHAUSTED = "AttemptsExhausted"
    """Too many attempts in a row ended without any media."""
    INTERNAL_ERROR = "InternalError"
    """A bug: the log of the named container tells more."""

    # What is wrong with the pod of an attempt
    UNSCHEDULABLE = "Unschedulable"
    """No node takes the pod."""
    IMAGE_PULL_FAILED = "ImagePullFailed"
    """The node cannot get the recorder's image."""
    CONTAINER_CONFIG_INVALID = "ContainerConfigInvalid"
    """The kubelet cannot make a container from the pod's spec."""
    VOLUME_MOUNT_FAILED = "VolumeMountFailed"
    """A volume of the pod does not come up; mostly a missing Secret."""
    POD_REFUSED = "PodRefused"
    """The namespace does not take the pod: quota, admission policy or pod security."""
    OUT_OF_MEMORY = "OutOfMemory"
    """A container was killed at its memory limit."""
    EVICTED = "Evicted"
    """The node was drained, ran out of a resource, or preempted the pod."""
    NODE_LOST = "NodeLost"
    """The node stopped answering."""
    POD_LOST = "PodLost"
    """The pod or its Job vanished without a result."""
    RECORDER_CRASHING = "RecorderCrashing"
    """The recorder container crashes again and again."""
    AGENT_CRASHING = "AgentCrashing"
    """The agent container crashes again and again."""
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    """An attempt did not end in time after it was told to."""
    DRAINED = "Drained"
    """An attempt ended in good order before the recording did."""

    # The SFU and the storage
    SOURCE_REFUSED = "SourceRefused"
    """The SFU does not take our credentials."""
    SOURCE_UNAVAILABLE = "SourceUnavailable"
    """The SFU cannot be reached."""
    SOURCE_AVAILABLE = "SourceAvailable"
    """The SFU answers and takes our credentials."""
    STORAGE_REFUSED = "StorageRefused"
    """No such bucket, or access denied."""
    STORAGE_UNAVAILABLE = "StorageUnavailable"
    """The storage cannot be reached; the agent keeps trying."""
    STORAGE_AVAILABLE = "StorageAvailable"
    """The agent can write to the bucket."""
    SPOOL_CLEAR = "SpoolClear"
    """The pod's disk has room."""
    SPOOL_FILLING = "SpoolFilling"
    """The pod's disk is more than 60 % full. Everything is still captured."""
    CAMERAS_SHED = "CamerasShed"
    """The pod's disk is more than 80 % full: cameras are not received until it is below 70 %."""
    SCREENS_SHED = "ScreensShed"
    """The pod's disk is more than 90 % full: no pictures are received until it is below 80 %; sound goes on."""
    SPOOL_FULL = "SpoolFull"
    """The pod's disk is full but for a rest that keeps the pod alive: nothing is received until it is below 90 %."""
    STORAGE_CHECKING = "StorageChecking"
    """RecordingClass: a Job tries the storage; what it finds comes here."""
    STORAGE_LIMITED = "StorageLimited"
    """The agent can write to the bucket, but the storage keeps less than S3 promises, or its clock differs: the message says what
    that means."""
    AVAILABLE = "Available"
    """RecordingClass: recordings can start."""
