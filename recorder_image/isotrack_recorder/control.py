"""What recorder and agent of one pod say to each other: JSON lines over a unix socket in a shared folder.

The recorder listens (`capture` must never depend on the agent), the agent connects and reconnects. The first line in each
direction is a Hello; later the agent sends Commands, level-based (the newest is all that counts), and the recorder sends a
State at each change and every second. Unknown members and types are skipped: both ends of one pod come from one image, but
a reader that chokes would cost a call.

The recorder must be in the call within a second, so it writes and reads (`read_command`) without pydantic, which is half of what it
would have to load. The agent does not trust who parses bytes from the network: it reads (`decode`) with pydantic, bounds and all.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal, cast

from isotrack_api.words import SpoolLevel, StopReason, TrackSource

from .errors import ParseError

if TYPE_CHECKING:
    from pydantic import TypeAdapter

VERSION = 1
MAX_LINE_BYTES = 4 * 1024 * 1024
SOCKET_NAME = "control.sock"
MAX_UNRECORDED = 100
"""Tracks that cannot be recorded of which a State tells, the first ones. The journal has all."""
MAX_USER_IDS: Final = 100
MAX_USER_ID: Final = 256


class _Within:
    """Bounds of a number, or of the length of a text or tuple, for pydantic to check."""

    def __init__(self, least: int, most: int) -> None:
        self._least = least
        self._most = most

    def __get_pydantic_core_schema__(
        self, source: object, handler: Callable[[object], dict[str, Any]]
    ) -> dict[str, Any]:
        least, most = ("ge", "le") if source is int else ("min_length", "max_length")
        return handler(source) | {least: self._least, most: self._most}


Count = Annotated[int, _Within(0, 2**53)]
UserId = Annotated[str, _Within(1, MAX_USER_ID)]
PeerId = Annotated[str, _Within(1, 128)]
Phase = Literal["Joining", "Armed", "Capturing", "Paused", "Reconnecting", "Stopped", "Failed"]
Desired = Literal["Running", "Paused", "Stopped"]


def camel(name: str) -> str:
    """Name of a member as it goes over the wire."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


class Message:
    """Base of all messages: unknown members are skipped."""

    __slots__ = ()
    __pydantic_config__: ClassVar[dict[str, Any]] = {
        "alias_generator": camel,
        "validate_by_name": True,
        "validate_by_alias": True,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello(Message):
    """First line in each direction."""

    type: Literal["hello"] = "hello"
    version: int = VERSION
    role: Literal["recorder", "agent"]
    incarnation: int = 0
    """Recorder: number of its spool folder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command(Message):
    """What the agent wants from now on."""

    type: Literal["command"] = "command"
    desired: Desired = "Running"
    stop_reason: StopReason | None = None
    """With Stopped: what goes into the journal. Absent = Requested."""
    user_ids: tuple[str, ...] | None = None
    """Allowlist, MAX_USER_IDS at most; absent = everybody."""


@dataclass(frozen=True, slots=True, kw_only=True)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class UnrecordedState(Message):
    """One track that is wanted and cannot be recorded."""

    track_id: Annotated[str, _Within(0, 128)]
    user_id: UserId
    source: TrackSource
    reason: Annotated[str, _Within(0, 64)]
    """As in the manifest: Encrypted, CodecUnsupported, SubscriptionRefused."""
    message: Annotated[str, _Within(0, 512)] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoolState(Message):
    """How full the spool is, in bytes."""

    level: SpoolLevel = SpoolLevel.CLEAR
    used: Count = 0
    capacity: Count = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class State(Message):
    """What the recorder is doing."""

    type: Literal["state"] = "state"
    phase: Phase
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


def encode(message: Hello | Command | State) -> bytes:
    """One line, newline included. Absent members are left out."""
    return json.dumps(message, default=_members, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> Hello | Command | State | None:
    """Read one line; None for a type that we do not know.

    Raises:
        ParseError: not JSON, or a known type with members that are not what they should be.
    """
    value = _object(line)
    if value.get("type") == "command":
        return _command(value)
    reader = _readers().get(str(value.get("type")))
    try:
        return reader.validate_python(value) if reader else None
    except ValueError as error:  # ValidationError of pydantic
        raise _not_a_message(line) from error


def read_command(line: bytes) -> Command | None:
    """Read one line, as `decode` does, of somebody who waits for Commands only; None for everything else.

    Raises:
        ParseError: as `decode`.
    """
    value = _object(line)
    return _command(value) if value.get("type") == "command" else None


def _object(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:  # nested a thousand deep
        raise _not_a_message(line) from error
    return value if isinstance(value, dict) else {}


def _not_a_message(line: bytes) -> ParseError:
    return ParseError(f"control line of {len(line)} bytes is not a message")


def _command(value: dict[str, Any]) -> Command:
    desired, reason, user_ids = value.get("desired", "Running"), value.get("stopReason"), value.get("userIds")
    try:
        if desired not in ("Running", "Paused", "Stopped"):
            raise ValueError("nothing that can be wanted")
        return Command(
            desired=cast("Desired", desired),
            stop_reason=None if reason is None else StopReason(reason),
            user_ids=None if user_ids is None else _user_ids(user_ids),
        )
    except ValueError as error:
        raise ParseError("a command whose members are not what they should be") from error


def _user_ids(values: object) -> tuple[str, ...]:
    if not isinstance(values, list) or len(values) > MAX_USER_IDS:
        raise ValueError(f"user ids are no list of up to {MAX_USER_IDS}")
    for value in values:
        # What cannot be encoded (half a surrogate pair) is no identity, and could not be written to the journal
        if not isinstance(value, str) or not 0 < len(value) <= MAX_USER_ID or not value.encode():
            raise ValueError("not a user id")
    return tuple(values)


def _members(message: object) -> dict[str, object]:
    """Of a message, by their names on the wire; for `json.dumps`, which asks for what it does not know."""
    kind: Any = type(message)
    pairs = ((alias, getattr(message, name)) for name, alias in _aliases(kind))
    return {alias: value for alias, value in pairs if value is not None}


@cache
def _aliases(kind: Any) -> tuple[tuple[str, str], ...]:
    return tuple((member.name, camel(member.name)) for member in fields(kind))


@cache
def _readers() -> dict[str, TypeAdapter[Hello] | TypeAdapter[State]]:
    from pydantic import TypeAdapter  # by the agent only, see above

    return {"hello": TypeAdapter(Hello), "state": TypeAdapter(State)}
