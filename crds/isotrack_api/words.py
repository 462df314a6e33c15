"""The contract's words: enumerations and defaults that both ends of a process share.

They stand apart from the models because a recorder that joins a call needs them and no pydantic, which takes longer to load than
all of its own code (`isotrack_recorder.pod`).
"""

from __future__ import annotations

from enum import StrEnum


class MediaKind(StrEnum):
    """Kind of one RTP media stream."""

    AUDIO = "audio"
    VIDEO = "video"


class TrackSource(StrEnum):
    """What a track shows or lets hear."""

    CAMERA = "camera"
    MICROPHONE = "microphone"
    SCREENSHARE = "screenshare"
    SCREENSHARE_AUDIO = "screenshare_audio"

    @property
    def stream_kind(self) -> StreamKind:
        """The group that this source is muxed with."""
        return (
            StreamKind.SCREENSHARE
            if self in (TrackSource.SCREENSHARE, TrackSource.SCREENSHARE_AUDIO)
            else StreamKind.PEER
        )


class StreamKind(StrEnum):
    """`{stream_kind}` of a file name: the person (`peer`) or what the person shares."""

    PEER = "peer"
    SCREENSHARE = "screenshare"


class Container(StrEnum):
    """Container of a file. `webm` falls back to `mkv`, with a reason, where the codec is not legal in WebM."""

    MKV = "mkv"
    WEBM = "webm"


class Quality(StrEnum):
    """Layer of simulcast or scalable pictures that is received."""

    HIGH = "high"
    """The best one that the publisher sends; its publisher keeps sending it."""
    MEDIUM = "medium"
    LOW = "low"


class SpoolLevel(StrEnum):
    """How full a spool is: what is captured gives way to what is more dear, before the volume's limit ends the pod. In order."""

    CLEAR = "Clear"
    """Everything is captured."""
    FILLING = "Filling"
    """Everything is captured, but more comes in than goes out."""
    CAMERA_SHED = "CameraShed"
    """Cameras are not received."""
    SCREENSHARE_SHED = "ScreenshareShed"
    """No pictures are received."""
    FULL = "Full"
    """Nothing is received; who comes and goes is still noted."""


class EncryptionMode(StrEnum):
    """Who encrypts stored objects, in S3's own words."""

    S3 = "AES256"
    """SSE-S3: the storage, with keys of its own."""
    KMS = "aws:kms"
    """SSE-KMS: the storage, with a key of a key management service."""


class OutputType(StrEnum):
    """What one file of a participant session holds."""

    AUDIO_ONLY = "audio_only"
    VIDEO_ONLY = "video_only"
    AUDIO_VIDEO = "audio_video"
    SCREENSHARE_AUDIO_ONLY = "screenshare_audio_only"
    SCREENSHARE_VIDEO_ONLY = "screenshare_video_only"
    SCREENSHARE_AUDIO_VIDEO = "screenshare_audio_video"

    @property
    def stream_kind(self) -> StreamKind:
        """Group of sources that this output takes its tracks from."""
        return StreamKind.SCREENSHARE if self.value.startswith("screenshare_") else StreamKind.PEER

    @property
    def media_kinds(self) -> frozenset[MediaKind]:
        """Kinds of media that this output wants to hold."""
        kinds = self.value.removeprefix("screenshare_")
        return frozenset(kind for kind in MediaKind if kind.value in kinds)


class StopReason(StrEnum):
    """Why a recording (or an attempt) ended."""

    REQUESTED = "Requested"
    CALL_ENDED = "CallEnded"
    ALL_PARTICIPANTS_LEFT = "AllParticipantsLeft"
    MAX_DURATION = "MaxDuration"
    REMOVED = "Removed"
    """The SFU or a moderator removed the recorder."""
    DELETED = "Deleted"
    DRAINED = "Drained"
    """Only this attempt ended (eviction, shutdown); the recording goes on elsewhere."""
    FENCED = "Fenced"
    """A newer attempt took over the identity."""
    INTERNAL_ERROR = "InternalError"


DEFAULT_OUTPUT_TYPES = (OutputType.AUDIO_VIDEO, OutputType.SCREENSHARE_AUDIO_VIDEO)
DEFAULT_FILE_NAME_TEMPLATE = "{prefix}_{user_id}_{peer_id}_{stream_kind}_{media_kind}_{started_ms}"
DEFAULT_FILE_NAME_PREFIX = "default"
DEFAULT_KEY_FRAME_INTERVAL_SECONDS = 20
DEFAULT_CHECKPOINT_SECONDS = 5
DEFAULT_MAX_DURATION_SECONDS = 86400
DEFAULT_EMPTY_TIMEOUT_SECONDS = 60
