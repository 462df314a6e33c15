"""What the SFU's words mean for a capture: goodbyes, refusals, rejoins. Pure."""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum
from http import HTTPStatus
from typing import Final

from livekit.protocol import models, rtc

from isotrack_recorder.errors import CallNotFoundError, SourceError, SourceRefusedError
from isotrack_recorder.sources.base import CallEnded, Fenced, Removed

from .roster import people_in, reason_name

Ending = CallEnded | Removed | Fenced

_R: Final = models.DisconnectReason
_CALL_OVER: Final = frozenset((_R.ROOM_DELETED, _R.ROOM_CLOSED))
_REFUSALS: Final = frozenset((_R.PARTICIPANT_REMOVED, _R.JOIN_FAILURE, _R.USER_REJECTED, _R.USER_UNAVAILABLE))
"""Of somebody who was not there yet: asking again would be answered the same."""
_REJOIN_CEILINGS: Final = (0.2, 0.5, 1.0)
_REJOINS_IN_HASTE: Final = 40
"""About forty seconds where connections are refused, some minutes where nothing answers."""
RETURN_SECONDS: Final = 60.0
"""How long we wait in a new session, or for one, for people to come back after their server did. Clients try for about so long."""
MAX_TEXT: Final = 200
"""Of foreign text in an error."""


class Rejoin(Enum):
    """The connection is over but the call is not."""

    NOW = 0


def read_leave(leave: rtc.LeaveRequest) -> Ending | Rejoin:
    """Say what a `leave` from the server asks of us (client protocol 13 and later)."""
    reason = reason_name(leave.reason)
    if leave.reason in _CALL_OVER:
        return CallEnded(reason)
    if leave.reason == _R.DUPLICATE_IDENTITY:
        return Fenced()
    if leave.reason == _R.PARTICIPANT_REMOVED:
        return Removed(reason)
    return Rejoin.NOW


def read_first_leave(leave: rtc.LeaveRequest, *, joined_before: bool) -> Ending | Rejoin:
    """Say what a `leave` means that answers a join. Who was in the call already reads it as in mid-call.

    Raises:
        CallNotFoundError: The first join met a room that ended.
        SourceRefusedError: The first join is refused.
    """
    if not joined_before:
        reason = reason_name(leave.reason)
        if leave.reason in _CALL_OVER:
            raise CallNotFoundError(f"LiveKit ended the room while we joined ({reason})")
        if leave.reason in _REFUSALS:
            raise SourceRefusedError(
                f"LiveKit ends the join ({reason}): the room may be full; the server's log says more"
            )
    return read_leave(leave)


def judge_join(join: rtc.JoinResponse, pinned_sid: str, left_behind: Collection[str]) -> CallEnded | Rejoin | None:
    """Tell whether what we joined is still the call that we recorded; `Rejoin` = not yet to be told.

    A room name can be used again, and joining an ended room makes a new one: both would put strangers into a recording.
    But a server that crashed or was restarted comes back with new sessions, into which its clients return by themselves: where
    somebody is whom we lost without a goodbye, the call goes on. An empty room with the same session is still the call:
    people who lost their connection with us come back later than we, and if they do not, the empty timeout or the server
    itself ends it.

    Args:
        join: The server's answer.
        pinned_sid: Session that we recorded; empty = first join ever.
        left_behind: User ids of those who were there when our connection broke; empty where it did not break.
    """
    if not pinned_sid or not join.room.sid or join.room.sid == pinned_sid:
        return None
    if not left_behind:
        return CallEnded("the room has a new session")
    present = people_in(join)
    if not present.isdisjoint(left_behind):
        return None
    return CallEnded("the room has a new session, of other people") if present else Rejoin.NOW


def read_refusal(status: int, body: str) -> SourceError:
    """Turn the HTTP answer to a join into an error of ours. The token is in neither."""
    text = " ".join(body.split())[:MAX_TEXT]
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return SourceRefusedError(
            f"LiveKit refuses the token ({status}: {text}): check API key and secret, and the clocks"
        )
    if status == HTTPStatus.NOT_FOUND:
        return CallNotFoundError(f"LiveKit has no such room ({text})")
    return SourceError(f"LiveKit answers {status} to the join ({text})")


def rejoin_delay(attempt: int, fraction: float) -> float:
    """Seconds before rejoin `attempt` (0 = first, at once or nearly): full jitter over 0.2, 0.5, 1, then 2 s, later 10 s.

    A server that restarts is away for some seconds, and what people say until we are back is lost.
    """
    if attempt < len(_REJOIN_CEILINGS):
        return _REJOIN_CEILINGS[attempt] * fraction
    return (2.0 if attempt < _REJOINS_IN_HASTE else 10.0) * fraction
