"""What goodbyes, refusals and rejoins mean."""

from __future__ import annotations

import pytest
from livekit.protocol import models, rtc

from isotrack_recorder.errors import CallNotFoundError, SourceError, SourceRefusedError
from isotrack_recorder.sources.base import CallEnded, Fenced, Removed
from isotrack_recorder.sources.livekit.policy import (
    Ending,
    Rejoin,
    judge_join,
    read_first_leave,
    read_leave,
    read_refusal,
    rejoin_delay,
)
from isotrack_recorder.sources.livekit.signalling import endpoint, host_of

R = models.DisconnectReason


LEAVES: dict[int, Ending | Rejoin] = {
    R.UNKNOWN_REASON: Rejoin.NOW,
    R.CLIENT_INITIATED: Rejoin.NOW,
    R.DUPLICATE_IDENTITY: Fenced(),
    R.SERVER_SHUTDOWN: Rejoin.NOW,
    R.PARTICIPANT_REMOVED: Removed("PARTICIPANT_REMOVED"),
    R.ROOM_DELETED: CallEnded("ROOM_DELETED"),
    R.STATE_MISMATCH: Rejoin.NOW,
    R.JOIN_FAILURE: Rejoin.NOW,
    R.MIGRATION: Rejoin.NOW,
    R.SIGNAL_CLOSE: Rejoin.NOW,
    R.ROOM_CLOSED: CallEnded("ROOM_CLOSED"),
    R.USER_UNAVAILABLE: Rejoin.NOW,
    R.USER_REJECTED: Rejoin.NOW,
    R.SIP_TRUNK_FAILURE: Rejoin.NOW,
    R.CONNECTION_TIMEOUT: Rejoin.NOW,
    R.MEDIA_FAILURE: Rejoin.NOW,
    R.AGENT_ERROR: Rejoin.NOW,
}
"""What each goodbye asks of who is in the call."""
FIRST_LEAVES: dict[int, type[SourceError]] = {
    R.PARTICIPANT_REMOVED: SourceRefusedError,
    R.ROOM_DELETED: CallNotFoundError,
    R.JOIN_FAILURE: SourceRefusedError,
    R.ROOM_CLOSED: CallNotFoundError,
    R.USER_UNAVAILABLE: SourceRefusedError,
    R.USER_REJECTED: SourceRefusedError,
}
"""Those that mean something else to who was never let in."""
REASONS = [pytest.param(reason, id=name) for name, reason in R.items()]


@pytest.mark.parametrize("reason", [*REASONS, pytest.param(77, id="not known yet")])
def test_a_leave_ends_the_call_or_asks_for_a_new_join(reason: int) -> None:
    leave = rtc.LeaveRequest(reason=reason)  # type: ignore[arg-type]
    expected = LEAVES[reason] if reason != 77 else Rejoin.NOW
    assert read_leave(leave) == expected
    assert read_first_leave(leave, joined_before=True) == expected


@pytest.mark.parametrize("reason", [*REASONS, pytest.param(77, id="not known yet")])
def test_a_leave_that_answers_the_first_join_refuses_it_or_asks_for_another(reason: int) -> None:
    leave = rtc.LeaveRequest(reason=reason)  # type: ignore[arg-type]
    refusal = FIRST_LEAVES.get(reason)
    if refusal is None:
        assert read_first_leave(leave, joined_before=False) == read_leave(leave)
        return
    with pytest.raises(refusal, match=R.Name(reason)) as raised:  # type: ignore[arg-type]
        read_first_leave(leave, joined_before=False)
    assert type(raised.value) is refusal


@pytest.mark.parametrize(
    ("sid", "pinned", "left_behind", "present", "verdict"),
    [
        pytest.param("RM_1", "", [], ["bob"], None, id="first join"),
        pytest.param("RM_1", "RM_1", ["bob"], [], None, id="same session"),
        pytest.param("RM_2", "RM_1", [], ["bob"], CallEnded, id="new session although nothing broke"),
        pytest.param("RM_2", "RM_1", ["bob", "eve"], ["bob"], None, id="new session of those whom we lost"),
        pytest.param("RM_2", "RM_1", ["bob"], [], Rejoin, id="new session that is still empty"),
        pytest.param("RM_2", "RM_1", ["bob"], ["eve"], CallEnded, id="new session of strangers"),
        pytest.param("", "RM_1", ["bob"], ["eve"], None, id="session not told yet"),
    ],
)
def test_a_rejoin_into_another_session_goes_on_only_with_those_who_were_there(
    sid: str, pinned: str, left_behind: list[str], present: list[str], verdict: type | None
) -> None:
    people = [models.ParticipantInfo(sid=f"PA_{who}", identity=who) for who in present]
    people.append(models.ParticipantInfo(sid="PA_x", identity="robot", kind=models.ParticipantInfo.AGENT))
    join = rtc.JoinResponse(room=models.Room(sid=sid), other_participants=people)
    judged = judge_join(join, pinned, left_behind)
    assert judged is None if verdict is None else isinstance(judged, verdict)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, SourceRefusedError),
        (403, SourceRefusedError),
        (404, CallNotFoundError),
        (500, SourceError),
        (200, SourceError),
    ],
)
def test_refusals_have_their_own_errors(status: int, kind: type[SourceError]) -> None:
    error = read_refusal(status, "no\r\n  such " + "x" * 1000)
    assert type(error) is kind
    assert "\n" not in str(error)
    assert len(str(error)) < 400


def test_rejoins_wait_longer_each_time_up_to_ten_seconds() -> None:
    ceilings = [rejoin_delay(attempt, 1.0) for attempt in range(100)]
    assert ceilings == sorted(ceilings)
    assert ceilings[0] <= 0.2
    assert ceilings[-1] == 10.0
    assert rejoin_delay(5, 0.0) == 0.0


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("ws://sfu:7880", "ws://sfu:7880/rtc?"),
        ("http://sfu:7880/", "ws://sfu:7880/rtc?"),
        ("wss://sfu/base/", "wss://sfu/base/rtc?"),
        ("https://sfu", "wss://sfu/rtc?"),
    ],
)
def test_the_signalling_address_keeps_host_path_and_security(url: str, expected: str) -> None:
    assert endpoint(url, "/rtc", "ws").startswith(expected)
    assert "auto_subscribe=0" in endpoint(url, "/rtc", "ws")


def test_texts_name_the_host_without_user_and_password() -> None:
    assert host_of("wss://user:secret@sfu:7880/x") == "sfu:7880"
