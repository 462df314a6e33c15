"""What all models share: camelCase on the wire, frozen, closed, descriptions from attribute docstrings."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class ApiModel(BaseModel):
    """Base of every model: unknown fields are errors, instances are values."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )

    def to_json(self, *, indent: int | None = None) -> str:
        """Serialise for the wire: camelCase, absent fields left out, equal input gives equal text."""
        return self.model_dump_json(by_alias=True, exclude_none=True, indent=indent)


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


DEFAULT_OUTPUT_TYPES = (OutputType.AUDIO_VIDEO, OutputType.SCREENSHARE_AUDIO_VIDEO)
DEFAULT_FILE_NAME_TEMPLATE = "{prefix}_{user_id}_{peer_id}_{stream_kind}_{media_kind}_{started_ms}"
DEFAULT_FILE_NAME_PREFIX = "default"
DEFAULT_KEY_FRAME_INTERVAL_SECONDS = 20
DEFAULT_CHECKPOINT_SECONDS = 5

UserId = Annotated[str, Field(min_length=1, max_length=256)]
"""Identity of a person at the SFU. The same person may come several times: see PeerId."""
PeerId = Annotated[str, Field(min_length=1, max_length=128)]
"""One participant session at the SFU; a reconnect of the person gets a new one."""
Count = Annotated[int, Field(ge=0, le=2**53)]
Milliseconds = Annotated[int, Field(ge=0, le=2**53)]
Timestamp = Annotated[
    str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?Z$", max_length=40)
]
"""RFC 3339, always UTC with Z."""
