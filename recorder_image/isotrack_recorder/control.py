"""What recorder and agent of one pod say to each other: JSON lines over a unix socket in a shared folder.

The recorder listens (`capture` must never depend on the agent), the agent connects and reconnects. The first line in each
direction is a Hello; later the agent sends Commands, level-based (the newest is all that counts), and the recorder sends a
State at each change and every second. Unknown members and types are skipped: both ends of one pod come from one image, but
a reader that chokes would cost a call.
"""

from __future__ import annotations

import json
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, ValidationError

from isotrack_api.base import ApiModel, Count, PeerId, SpoolLevel, TrackSource, UserId
from isotrack_api.manifest import StopReason

from .errors import ParseError

VERSION = 1
MAX_LINE_BYTES = 4 * 1024 * 1024
SOCKET_NAME = "control.sock"
MAX_UNRECORDED = 100
"""Tracks that cannot be recorded of which a State tells, the first ones. The journal has all."""


class Message(ApiModel):
    """Base of all messages: unknown members are skipped."""

    model_config = ConfigDict(extra="ignore")


class Hello(Message):
    """First line in each direction."""

    type: Literal["hello"] = "hello"
    version: int = VERSION
    role: Literal["recorder", "agent"]
    incarnation: int = 0
    """Recorder: number of its spool folder."""


class Command(Message):
    """What the agent wants from now on."""

    type: Literal["command"] = "command"
    desired: Literal["Running", "Paused", "Stopped"] = "Running"
    stop_reason: StopReason | None = None
    """With Stopped: what goes into the journal. Absent = Requested."""
    user_ids: Annotated[tuple[UserId, ...], Field(max_length=100)] | None = None
    """Allowlist; absent = everybody."""


class TrackState(Message):
    """One track, as the live table shows it."""

    track: str
    track_id: str
    user_id: UserId
    peer_id: PeerId
    name: str = ""
    source: TrackSource
    codec: str = ""
    muted: bool = False
    ended: bool = False
    shed: bool = False
    packets: Count = 0
    lost: Count = 0
    recovered: Count = 0
    late: Count = 0
    frames: Count = 0
    media_bytes: Count = 0
    plis: Count = 0
    width: int = 0
    height: int = 0
    size_changes: Count = 0
    last_packet_age_ms: Count | None = None


class UnrecordedState(Message):
    """One track that is wanted and cannot be recorded."""

    track_id: Annotated[str, Field(max_length=128)]
    user_id: UserId
    source: TrackSource
    reason: Annotated[str, Field(max_length=64)]
    """As in the manifest: Encrypted, CodecUnsupported, SubscriptionRefused."""
    message: Annotated[str, Field(max_length=512)] = ""


class SpoolState(Message):
    """How full the spool is, in bytes."""

    level: SpoolLevel = SpoolLevel.CLEAR
    used: Count = 0
    capacity: Count = 0


class State(Message):
    """What the recorder is doing."""

    type: Literal["state"] = "state"
    phase: Literal["Joining", "Armed", "Capturing", "Paused", "Reconnecting", "Stopped", "Failed"]
    """Armed: joined, nothing to capture yet. Stopped and Failed are final: the spool is complete."""
    stop_reason: StopReason | None = None
    error_reason: str = ""
    """Failed: `reason` of the error tree, with its exit code beside it."""
    error_exit_code: int = 0
    message: str = ""
    incarnation: int = 0
    call_sid: str = ""
    armed_at_ms: Count | None = None
    """Unix milliseconds at which this incarnation was first able to capture."""
    first_packet_at_ms: Count | None = None
    participants: Count = 0
    """People in the call, recorded or not."""
    spool: SpoolState | None = None
    """Absent before the first look, and once nothing is captured any more."""
    tracks: tuple[TrackState, ...] = ()
    unrecorded: tuple[UnrecordedState, ...] = ()
    """Of the whole attempt, those that are over too. A track may be among `tracks` as well, where it never has a frame."""


_MODELS: dict[str, type[Hello | Command | State]] = {"hello": Hello, "command": Command, "state": State}


def encode(message: Hello | Command | State) -> bytes:
    """One line, newline included."""
    return message.to_json().encode() + b"\n"


def decode(line: bytes) -> Hello | Command | State | None:
    """Read one line; None for a type that we do not know.

    Raises:
        ParseError: not JSON, or a known type with members that are not what they should be.
    """
    try:
        value = json.loads(line)
        model = _MODELS.get(value.get("type", "")) if isinstance(value, dict) else None
        return model.model_validate(value) if model else None
    except (ValueError, RecursionError, ValidationError) as error:  # nested a thousand deep
        raise ParseError(f"control line of {len(line)} bytes is not a message") from error
