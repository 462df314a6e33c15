"""What the agent tells the recorder, and how an attempt ends."""

from __future__ import annotations

import itertools

import pytest

from isotrack_api.manifest import StopReason
from isotrack_api.recording import DesiredState
from isotrack_recorder.control import Command, State
from isotrack_recorder.pod.decisions import command_for, is_left_behind, outcome_of
from isotrack_recorder.ship.kube import RecordingView
from isotrack_recorder.spool.facts import PeerFacts, SpoolFacts

PEOPLE = ("alice",)
RUNNING = RecordingView(user_ids=PEOPLE)
PAUSED = RecordingView(DesiredState.PAUSED, PEOPLE)
STOPPED = RecordingView(DesiredState.STOPPED, PEOPLE)
DELETED = RecordingView(DesiredState.STOPPED, deleted=True)
IDLE = Command(user_ids=PEOPLE)


def stop(reason: StopReason) -> Command:
    return Command(desired="Stopped", stop_reason=reason, user_ids=PEOPLE)


@pytest.mark.parametrize(
    ("view", "terminating", "before", "command"),
    [
        pytest.param(RUNNING, False, IDLE, IDLE, id="nothing-new"),
        pytest.param(RecordingView(), False, IDLE, Command(), id="allowlist-lifted"),
        pytest.param(PAUSED, False, IDLE, Command(desired="Paused", user_ids=PEOPLE), id="pause"),
        pytest.param(RUNNING, False, Command(desired="Paused", user_ids=PEOPLE), IDLE, id="resume"),
        pytest.param(STOPPED, False, IDLE, stop(StopReason.REQUESTED), id="stop"),
        pytest.param(RUNNING, True, IDLE, stop(StopReason.DRAINED), id="sigterm-drains"),
        pytest.param(PAUSED, True, IDLE, stop(StopReason.DRAINED), id="sigterm-drains-what-is-paused"),
        pytest.param(STOPPED, True, IDLE, stop(StopReason.REQUESTED), id="sigterm-of-a-stopped-one-is-a-stop"),
        pytest.param(
            STOPPED, True, stop(StopReason.DRAINED), stop(StopReason.REQUESTED), id="a-stop-outweighs-a-drain"
        ),
        pytest.param(DELETED, True, stop(StopReason.DRAINED), stop(StopReason.DELETED), id="deletion-as-well"),
        pytest.param(RUNNING, False, stop(StopReason.REQUESTED), stop(StopReason.REQUESTED), id="stop-is-latched"),
        pytest.param(DELETED, True, stop(StopReason.REQUESTED), stop(StopReason.REQUESTED), id="first-reason-stays"),
    ],
)
def test_command(view: RecordingView, terminating: bool, before: Command, command: Command) -> None:
    assert command_for(view, terminating=terminating, before=before) == command


def a_state(phase: str, reason: StopReason | None = None, **fields: object) -> State:
    return State.model_validate({"phase": phase, "stop_reason": reason, **fields})


DRAINED, REQUESTED, CALL_ENDED = StopReason.DRAINED, StopReason.REQUESTED, StopReason.CALL_ENDED
FAILED = StopReason.INTERNAL_ERROR


@pytest.mark.parametrize(
    ("asked", "state", "lost", "exit_code", "over", "stop_reason"),
    [
        pytest.param(None, a_state("Stopped", CALL_ENDED), "", 0, True, CALL_ENDED, id="call-ended"),
        pytest.param(REQUESTED, a_state("Stopped", REQUESTED), "", 0, True, REQUESTED, id="stopped"),
        pytest.param(REQUESTED, a_state("Stopped", CALL_ENDED), "", 0, True, CALL_ENDED, id="call-ended-first"),
        pytest.param(DRAINED, a_state("Stopped", DRAINED), "", 75, False, DRAINED, id="drained"),
        pytest.param(DRAINED, a_state("Stopped", CALL_ENDED), "", 0, True, CALL_ENDED, id="call-ended-while-draining"),
        pytest.param(
            None,
            a_state("Stopped", StopReason.FENCED),
            "",
            75,
            False,
            StopReason.FENCED,
            id="a-newer-attempt-took-over",
        ),
        pytest.param(
            REQUESTED, a_state("Stopped", StopReason.FENCED), "", 0, True, REQUESTED, id="stopped-while-fenced"
        ),
        pytest.param(
            StopReason.DELETED,
            a_state("Stopped", DRAINED),
            "",
            0,
            True,
            StopReason.DELETED,
            id="deleted-while-draining",
        ),
        pytest.param(
            None, a_state("Failed", FAILED, error_exit_code=69), "", 69, False, FAILED, id="sfu-away-may-come-back"
        ),
        pytest.param(
            None, a_state("Failed", FAILED, error_exit_code=77), "", 77, True, FAILED, id="sfu-refuses-for-good"
        ),
        pytest.param(None, a_state("Failed", FAILED, error_exit_code=66), "", 66, True, FAILED, id="no-such-call"),
        pytest.param(
            REQUESTED, a_state("Failed", FAILED, error_exit_code=69), "", 0, True, REQUESTED, id="asked-anyway"
        ),
        pytest.param(REQUESTED, a_state("Capturing"), "hangs", 0, True, REQUESTED, id="recorder-hangs-at-the-stop"),
        pytest.param(DRAINED, None, "never came", 75, False, DRAINED, id="drained-before-the-recorder-came"),
        pytest.param(None, None, "never came", 1, False, FAILED, id="recorder-never-came"),
        pytest.param(None, a_state("Capturing"), "vanished", 1, False, FAILED, id="recorder-vanished"),
        pytest.param(None, a_state("Stopped", FAILED), "", 1, False, FAILED, id="recorder-stopped-with-an-error"),
    ],
)
def test_outcome(
    asked: StopReason | None, state: State | None, lost: str, exit_code: int, over: bool, stop_reason: StopReason
) -> None:
    outcome = outcome_of(asked, state, lost)
    assert (outcome.exit_code, outcome.recording_over, outcome.stop_reason) == (exit_code, over, stop_reason)


def test_zero_always_means_that_the_recording_is_over_and_75_that_it_is_not() -> None:
    phases = ["Joining", "Capturing", "Stopped", "Failed"]
    reasons = [None, *StopReason]
    for asked, phase, told, code in itertools.product(reasons, phases, reasons, [0, 1, 64, 66, 69, 77]):
        outcome = outcome_of(asked, a_state(phase, told, error_exit_code=code), "gone")
        if outcome.exit_code == 0:
            assert outcome.recording_over
        if outcome.exit_code == 75:
            assert not outcome.recording_over


SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("joined", "left", "attempt", "goes", "left_behind"),
    [
        pytest.param(0, None, 1, False, False, id="the call is over"),
        pytest.param(0, 50, 1, False, False, id="left in the first attempt"),
        pytest.param(0, None, 1, True, True, id="goes on in the next attempt"),
        pytest.param(0, 50, 1, True, False, id="left before the drain"),
        pytest.param(1, None, 2, False, True, id="was there when the second attempt came"),
        pytest.param(1, 50, 2, False, True, id="was there, and left"),
        pytest.param(30, 50, 2, False, False, id="came to the second attempt"),
        pytest.param(30, None, 2, True, True, id="came, and goes on in the third"),
    ],
)
def test_sessions_that_attempts_share_are_left_to_the_end(
    joined: int, left: int | None, attempt: int, goes: bool, left_behind: bool
) -> None:
    facts = SpoolFacts(armed_ns=0)
    peer = PeerFacts("PA_a", "alice", "", True, joined * SECOND, None if left is None else left * SECOND)
    assert is_left_behind(peer, facts, attempt=attempt, goes=goes) is left_behind
