"""What the agent tells the recorder, and how an attempt ends."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from isotrack_api.base import TrackSource
from isotrack_api.manifest import StopReason
from isotrack_api.recording import DesiredState
from isotrack_api.recording_report import ReportPhase, ReportStatus, TrackReport
from isotrack_recorder.control import Command, Phase, State, TrackState
from isotrack_recorder.pod.agent_settings import AgentSettings
from isotrack_recorder.pod.decisions import (
    JOINED_EARLIER_NS,
    Leaving,
    command_for,
    has_taken_over,
    is_known_to_storage,
    is_left_behind,
    outcome_of,
)
from isotrack_recorder.settings import PodPaths
from isotrack_recorder.ship.kube import RecordingView
from isotrack_recorder.spool.facts import PeerFacts, SpoolFacts
from support.shipping import a_shipping_intent

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


def a_state(phase: Phase, reason: StopReason | None = None, **fields: Any) -> State:
    return State(phase=phase, stop_reason=reason, **fields)


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
        pytest.param(50, 55, 2, False, True, id="came while the first one may still have recorded"),
        pytest.param(70, 90, 2, False, False, id="came to the second attempt"),
        pytest.param(70, None, 2, True, True, id="came, and goes on in the third"),
    ],
)
def test_sessions_that_attempts_share_are_left_to_the_end(
    joined: int, left: int | None, attempt: int, goes: bool, left_behind: bool
) -> None:
    facts = SpoolFacts(armed_ns=0)
    peer = PeerFacts("PA_a", "alice", "", True, joined * SECOND, None if left is None else left * SECOND)
    assert is_left_behind(peer, facts, attempt=attempt, goes=goes) is left_behind


@pytest.mark.parametrize(
    ("left", "goes", "left_behind"),
    [
        pytest.param(40, False, False, id="over before there was another pod"),
        pytest.param(60, False, True, id="over while there were two"),
        pytest.param(None, False, True, id="over with the call"),
        pytest.param(None, True, True, id="goes on"),
    ],
)
def test_what_two_pods_may_have_is_left_to_the_end(left: int | None, goes: bool, left_behind: bool) -> None:
    """Whichever of them ends the recording: the files of a session are made of both."""
    peer = PeerFacts("PA_a", "alice", "", True, 0, None if left is None else left * SECOND)
    facts = SpoolFacts(armed_ns=0)
    assert is_left_behind(peer, facts, attempt=1, goes=goes, followed_ns=50 * SECOND) is left_behind


def a_track(track_id: str, **more: Any) -> TrackState:
    fields = {"frames": 9, "last_packet_age_ms": 20, **more}
    return TrackState(
        track="t1", track_id=track_id, user_id="alice", peer_id="PA_a", source=TrackSource.CAMERA, **fields
    )


def a_report(*track_ids: str, phase: ReportPhase = ReportPhase.CAPTURING, frames: int = 3) -> ReportStatus:
    rows = [
        TrackReport(
            id=track_id, track_id=track_id, user_id="alice", peer_id="PA_a", source=TrackSource.CAMERA, frames=frames
        )
        for track_id in track_ids
    ]
    return ReportStatus(phase=phase, tracks=tuple(rows))


TWO = (a_track("TR_1"), a_track("TR_2"))


@pytest.mark.parametrize(
    ("successor", "tracks", "taken_over"),
    [
        pytest.param(a_report("TR_1", "TR_2"), TWO, True, id="all"),
        pytest.param(a_report("TR_1"), TWO, False, id="one-is-missing"),
        pytest.param(a_report("TR_1", "TR_2", frames=0), TWO, False, id="no-key-frame-yet"),
        pytest.param(a_report("TR_1"), (TWO[0], a_track("TR_2", muted=True)), True, id="muted"),
        pytest.param(a_report("TR_1"), (TWO[0], a_track("TR_2", ended=True)), True, id="over"),
        pytest.param(a_report("TR_1"), (TWO[0], a_track("TR_2", shed=True)), True, id="given-up"),
        pytest.param(a_report("TR_1"), (TWO[0], a_track("TR_2", frames=0)), True, id="we-have-nothing-of-it"),
        pytest.param(a_report("TR_1"), (TWO[0], a_track("TR_2", last_packet_age_ms=9000)), True, id="nothing-comes"),
        pytest.param(a_report(phase=ReportPhase.ARMED), (), True, id="a-silent-call"),
        pytest.param(a_report(phase=ReportPhase.PAUSED), (), True, id="paused"),
        pytest.param(a_report(phase=ReportPhase.JOINING), (), False, id="on-its-way"),
        pytest.param(ReportStatus(), (), False, id="made-and-not-begun"),
        pytest.param(a_report(*map(str, range(200))), (a_track("TR_2"), *TWO), True, id="more-than-a-report-tells"),
    ],
)
def test_a_successor_has_taken_over_when_it_has_all_that_comes(
    successor: ReportStatus, tracks: tuple[TrackState, ...], taken_over: bool
) -> None:
    assert has_taken_over(successor, State(phase="Capturing", tracks=tracks)) is taken_over


@pytest.mark.parametrize(
    ("leaving", "grace", "seconds"),
    [
        pytest.param(Leaving(100.0), 300, 15, id="nobody-follows"),
        pytest.param(Leaving(100.0, made=True), 300, 40, id="somebody-is-on-the-way"),
        pytest.param(Leaving(100.0, made=True, taken_over_at=107.0), 300, 9, id="and-records"),
        pytest.param(Leaving(100.0, made=True, taken_over_at=139.5), 300, 40, id="late"),
        pytest.param(Leaving(100.0, made=True), 85, 30, id="half-of-a-short-grace"),
        pytest.param(Leaving(100.0, made=True), 30, 15, id="as-long-as-without-at-least"),
    ],
)
def test_a_pod_that_is_to_go_captures_until_its_successor_does(leaving: Leaving, grace: float, seconds: float) -> None:
    settings = AgentSettings(intent=a_shipping_intent(), paths=PodPaths(), grace_seconds=grace)
    assert leaving.ends_at(settings) == 100 + seconds


def test_what_a_successor_takes_for_its_own_came_after_the_pod_before_was_gone() -> None:
    """A session that both saw is made of both."""
    fields = AgentSettings.__dataclass_fields__
    followed, stop = fields["followed_seconds"].default, fields["stop_seconds"].default
    assert (followed + stop) * SECOND <= JOINED_EARLIER_NS


@pytest.mark.parametrize(
    ("attempt", "epoch_ms", "let_in", "is_known"),
    [
        pytest.param(1, None, False, False, id="first"),
        pytest.param(1, None, True, True, id="begun again"),
        pytest.param(2, None, False, False, id="behind one that was never in the call"),
        pytest.param(2, 1_760_000_000_000, False, True, id="successor in mid-call"),
    ],
)
def test_a_refusal_ends_only_what_the_storage_never_took(
    attempt: int, epoch_ms: int | None, let_in: bool, is_known: bool
) -> None:
    """A node goes while the key is being changed: the call goes on, and so does its recording."""
    intent = a_shipping_intent(attempt=attempt, epoch_ms=epoch_ms)
    assert is_known_to_storage(intent, let_in=let_in) is is_known
