"""Intent: all that one attempt's pod is told, frozen by the operator (or by the command line) at its start.

It goes to both containers as the environment variable `ISOTRACK_INTENT` (JSON) and into the bucket as `intent.json`.
It holds no secret: the join token, storage credentials and the API token are files.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from .base import (
    DEFAULT_CHECKPOINT_SECONDS,
    DEFAULT_FILE_NAME_PREFIX,
    DEFAULT_FILE_NAME_TEMPLATE,
    DEFAULT_KEY_FRAME_INTERVAL_SECONDS,
    DEFAULT_OUTPUT_TYPES,
    ApiModel,
    Container,
    EncryptionMode,
    OutputType,
    Quality,
    UserId,
)
from .words import DEFAULT_EMPTY_TIMEOUT_SECONDS, DEFAULT_MAX_DURATION_SECONDS


class RecordingRef(ApiModel):
    """Which Recording this is an attempt of."""

    namespace: Annotated[str, Field(max_length=63)]
    """Of the Recording; `local` for the command line."""
    name: Annotated[str, Field(max_length=253)]
    """Of the Recording; for the command line the call's name, made fit for a folder."""
    uid: Annotated[str, Field(min_length=8, max_length=36)]
    """Tells recordings of one name apart."""


class LiveKitSource(ApiModel):
    """A LiveKit server, joined over its `/rtc` signalling."""

    kind: Literal["livekit"] = "livekit"
    url: Annotated[str, Field(max_length=2048, pattern=r"^(ws|wss|http|https)://")]
    """Base URL of the server."""
    identity: Annotated[str, Field(min_length=1, max_length=128)]
    """Identity that the recorder joins with. Equal for all attempts, so that the SFU evicts the older one; but a successor of an attempt
    that hands over joins beside it, under the other one of two."""
    quality: Quality = Quality.HIGH
    """Layer of simulcast pictures that is subscribed to."""


class OutputLayer(ApiModel):
    """One named set of outputs."""

    name: Annotated[str, Field(min_length=1, max_length=63)] = "default"
    file_name_prefix: Annotated[str, Field(max_length=100)] = DEFAULT_FILE_NAME_PREFIX
    file_name_template: Annotated[str, Field(min_length=1, max_length=512)] = DEFAULT_FILE_NAME_TEMPLATE
    output_types: Annotated[tuple[OutputType, ...], Field(min_length=1, max_length=6)] = DEFAULT_OUTPUT_TYPES
    container: Container = Container.MKV


class IntentLimits(ApiModel):
    """When an attempt ends by itself. The recording's clock starts at `started_at` of the first attempt."""

    max_duration_seconds: Annotated[int, Field(ge=1, le=7 * 86400)] = DEFAULT_MAX_DURATION_SECONDS
    empty_timeout_seconds: Annotated[int, Field(ge=0, le=86400)] = DEFAULT_EMPTY_TIMEOUT_SECONDS
    """Seconds without any human participant after which the call counts as over. 0 = wait for the SFU to say so."""


class Encryption(ApiModel):
    """How the storage is to encrypt what it keeps."""

    mode: EncryptionMode
    kms_key_id: Annotated[str, Field(max_length=2048)] | None = None
    """Of aws:kms. Absent = the storage's default key."""


class S3Destination(ApiModel):
    """Where files go."""

    bucket: Annotated[str, Field(min_length=3, max_length=255)]
    prefix: Annotated[str, Field(max_length=512)] = ""
    """Key prefix of the storage; the recording's own folder follows it."""
    region: Annotated[str, Field(max_length=64)] = "us-east-1"
    endpoint: Annotated[str, Field(max_length=2048)] | None = None
    """Absent = AWS."""
    force_path_style: bool | None = None
    """Absent = a path at endpoints of one's own, a host name at AWS."""
    server_side_encryption: Encryption | None = None
    """Absent = as the bucket does it."""
    checkpoint_seconds: Annotated[int, Field(ge=0, le=300)] = DEFAULT_CHECKPOINT_SECONDS
    """How often what was captured is copied to the bucket: what the death of a node loses. 0 = never."""


class Intent(ApiModel):
    """What one attempt records and where it puts the files."""

    version: Literal[1] = 1
    recording: RecordingRef
    attempt: Annotated[int, Field(ge=1, le=10_000)] = 1
    call_id: Annotated[str, Field(min_length=1, max_length=256)]
    call_sid: Annotated[str, Field(max_length=128)] | None = None
    """Session of the call as an earlier attempt or the operator saw it. A different one means that the call ended."""
    source: LiveKitSource
    layers: Annotated[tuple[OutputLayer, ...], Field(min_length=1, max_length=8)] = (OutputLayer(),)
    user_ids: Annotated[tuple[UserId, ...], Field(max_length=100)] | None = None
    """Allowlist of people. Absent = everybody."""
    paused: bool = False
    """Begin paused: nothing is received before the first command says otherwise."""
    limits: IntentLimits = IntentLimits()
    key_frame_interval_seconds: Annotated[int, Field(ge=0, le=3600)] = DEFAULT_KEY_FRAME_INTERVAL_SECONDS
    """Longest time between two key frames of a picture track that flows. 0 = asked for only when one is needed."""
    storage: S3Destination | None = None
    """Absent = a local folder (command line)."""
    folder: Annotated[str, Field(max_length=512)]
    """The recording's folder in the bucket: `<namespace>/<name>-<uid8>`."""
    spool_bytes: Annotated[int, Field(ge=1, le=2**53)] | None = None
    """Size of the spool's volume: beyond it the kubelet evicts the pod. Absent = as much as the disk has."""
    epoch_ms: Annotated[int, Field(ge=0, le=2**53)] | None = None
    """Zero of the call's timeline, Unix milliseconds, as the first attempt set it. Absent in the first attempt."""
