"""What follows from the objects of one attempt."""

from __future__ import annotations

import json

import pytest

from isotrack_operator import attempts as judge
from isotrack_operator.attempts import Stage
from isotrack_operator.view import AttemptView, parse_termination, view_attempts
from support.operated import UID, PodBody, a_job, a_pod, a_recording, ago, an_attempt, capturing, job_name


@pytest.mark.parametrize(
    ("attempt", "stage"),
    [
        pytest.param(an_attempt(), Stage.PENDING, id="no-pod-yet"),
        pytest.param(an_attempt(pod=a_pod()), Stage.PENDING, id="pod-pending"),
        pytest.param(an_attempt(pod=a_pod().running()), Stage.RUNNING, id="running"),
        pytest.param(an_attempt(pod=a_pod().running().disrupted()), Stage.DISRUPTED, id="evicted"),
        pytest.param(an_attempt(pod=a_pod().unreachable()), Stage.DISRUPTED, id="node-lost"),
        pytest.param(
            an_attempt(pod=a_pod().running().condition("Ready", "False").condition("ContainersReady", "False")),
            Stage.RUNNING,
            id="container-not-ready-is-no-disruption",
        ),
        pytest.param(
            an_attempt(a_job().with_("metadata.deletionTimestamp", "x"), a_pod().running()),
            Stage.DISRUPTED,
            id="job-deleted",
        ),
        pytest.param(an_attempt(pod=a_pod().agent_killed()), Stage.RUNNING, id="agent-killed-and-on-its-way-back"),
        pytest.param(
            an_attempt(pod=a_pod().agent_killed().restarts_agent_on(139)), Stage.ENDED, id="agent-killed-for-good"
        ),
        pytest.param(
            an_attempt(pod=a_pod().agent_killed().with_("status.phase", "Failed")),
            Stage.ENDED,
            id="kubelet-did-not-know-restart-rules",
        ),
        pytest.param(
            an_attempt(pod=a_pod().agent_killed(2, waiting="CrashLoopBackOff").disrupted()),
            Stage.ENDED,
            id="agent-would-wait-for-a-restart-that-does-not-come",
        ),
        pytest.param(an_attempt(pod=a_pod().ended(0)), Stage.ENDED, id="ended"),
        pytest.param(an_attempt(pod=a_pod().ended(75).disrupted()), Stage.ENDED, id="ended-after-eviction"),
        pytest.param(an_attempt(a_job().complete()), Stage.ENDED, id="complete-without-pod"),
        pytest.param(an_attempt(a_job().failed()), Stage.ENDED, id="failed-without-pod"),
    ],
)
def test_stage(attempt: AttemptView, stage: Stage) -> None:
    assert judge.stage(attempt) is stage


@pytest.mark.parametrize(
    ("attempt", "result", "reason"),
    [
        pytest.param(an_attempt(pod=a_pod().ended(0)), "Finished", "Uploaded", id="exit-0"),
        pytest.param(an_attempt(pod=a_pod().ended(0).disrupted()), "Finished", "Uploaded", id="exit-0-while-evicted"),
        pytest.param(an_attempt(pod=a_pod().ended(75)), "Drained", "Drained", id="exit-75"),
        pytest.param(an_attempt(pod=a_pod().ended(75).disrupted()), "Drained", "Evicted", id="exit-75-evicted"),
        pytest.param(an_attempt(pod=a_pod().ended(64)), "Failed", "InvalidConfiguration", id="exit-64"),
        pytest.param(an_attempt(pod=a_pod().ended(66)), "Failed", "CallNotFound", id="exit-66"),
        pytest.param(an_attempt(pod=a_pod().ended(69)), "Failed", "SourceUnavailable", id="exit-69"),
        pytest.param(an_attempt(pod=a_pod().ended(73)), "Failed", "StorageRefused", id="exit-73"),
        pytest.param(an_attempt(pod=a_pod().ended(74)), "Failed", "StorageUnavailable", id="exit-74"),
        pytest.param(an_attempt(pod=a_pod().ended(77)), "Failed", "SourceRefused", id="exit-77"),
        pytest.param(an_attempt(pod=a_pod().ended(137, reason="OOMKilled")), "Failed", "OutOfMemory", id="agent-oom"),
        pytest.param(
            an_attempt(pod=a_pod().agent_killed(4, waiting="CrashLoopBackOff").with_("metadata.deletionTimestamp", ago(0))),
            "Failed",
            "AgentCrashing",
            id="agent-crash-loop",
        ),
        pytest.param(an_attempt(pod=a_pod().ended(137).disrupted()), "Failed", "Evicted", id="killed-by-eviction"),
        pytest.param(an_attempt(pod=a_pod().ended(1, said={"reason": "RecorderLost"})), "Failed", "RecorderLost", id="agent-knows"),
        pytest.param(an_attempt(pod=a_pod().ended(1, said="Traceback (most…")), "Failed", "InternalError", id="crash"),
        pytest.param(an_attempt(a_job().failed()), "Lost", "PodLost", id="pod-vanished"),
        pytest.param(an_attempt(a_job().failed(), report=capturing()), "Lost", "PodLost", id="vanished-while-capturing"),
        pytest.param(an_attempt(a_job().failed(), report=capturing(phase="Drained")), "Drained", "Drained", id="vanished-once-drained"),
        pytest.param(an_attempt(a_job().failed(), report=capturing(phase="Finished")), "Finished", "Uploaded", id="vanished-once-finished"),
        pytest.param(
            an_attempt(pod=a_pod().with_("status.phase", "Failed").with_("status.reason", "Evicted")),
            "Lost",
            "Evicted",
            id="evicted-before-it-ran",
        ),
    ],
)  # fmt: skip
def test_ending(attempt: AttemptView, result: str, reason: str) -> None:
    end = judge.ending(attempt)
    assert end is not None
    assert (end.result.value, str(end.reason)) == (result, reason)


@pytest.mark.parametrize(("code", "final"), [(0, False), (1, False), (64, True), (66, True), (69, False), (73, True), (74, False), (75, False), (77, True)])  # fmt: skip
def test_only_some_exit_codes_rule_out_another_attempt(code: int, final: bool) -> None:
    end = judge.ending(an_attempt(pod=a_pod().ended(code)))
    assert end is not None
    assert end.is_refusal is final


def test_an_end_that_was_recorded_never_changes() -> None:
    """Objects may vanish or be edited afterwards; the record stands."""
    record = {
        "n": 1,
        "job": job_name(),
        "startedAt": ago(60),
        "endedAt": ago(30),
        "result": "Drained",
        "reason": "Evicted",
    }
    recording = a_recording().status(attempts=[record]).build()
    (attempt,) = view_attempts(recording, [a_job().body], [a_pod().ended(0).body], [])
    end = judge.ending(attempt)
    assert end is not None
    assert (end.result.value, end.reason) == ("Drained", "Evicted")


def test_recorded_attempt_without_job_and_end_is_lost() -> None:
    record = {"n": 1, "job": job_name(), "startedAt": ago(60)}
    (attempt,) = view_attempts(a_recording().status(attempts=[record]).build(), [], [], [])
    end = judge.ending(attempt)
    assert end is not None
    assert end.result.value == "Lost"


def test_jobs_that_only_look_like_ours_do_not_count() -> None:
    """A tenant can make Jobs with any labels; owner and name must fit, too."""
    stranger = a_job().with_("metadata.ownerReferences", [{"uid": "else", "controller": True}])
    misnamed = a_job(2).with_("metadata.name", "standup-6269dc2a-a3")
    huge = a_job(3).with_("metadata.labels", {"isotrack.dev/attempt": "9" * 4000, "isotrack.dev/recording-uid": UID})
    assert view_attempts(a_recording().build(), [stranger.body, misnamed.body, huge.body], [], []) == ()


def test_a_settled_stay_counts_as_progress_even_if_nobody_spoke() -> None:
    report = capturing(armed_ago=120, firstPacketAtMs=None, phase="Armed")
    assert judge.made_progress(an_attempt(pod=a_pod().ended(75), report=report))
    brief = capturing(armed_ago=5, firstPacketAtMs=None, phase="Armed")
    assert not judge.made_progress(an_attempt(pod=a_pod().ended(75), report=brief))


@pytest.mark.parametrize(
    ("pod", "said", "hands_over"),
    [
        pytest.param(a_pod().running().told_to_go(), {"stopReason": "Drained"}, True, id="said-so"),
        pytest.param(
            a_pod().running().told_to_go(), {"stopReason": "Drained", "phase": "Armed"}, True, id="muted-call"
        ),
        pytest.param(a_pod().running().told_to_go(), {}, False, id="told-to-go-only"),
        pytest.param(a_pod().running().told_to_go(), {"stopReason": "Requested"}, False, id="it-ends-the-recording"),
        pytest.param(
            a_pod().running().told_to_go(),
            {"stopReason": "Drained", "phase": "Uploading"},
            False,
            id="captures-no-more",
        ),
        pytest.param(a_pod().unreachable().told_to_go(), {"stopReason": "Drained"}, False, id="and-fell-silent"),
        pytest.param(a_pod().running(), {"stopReason": "Drained"}, False, id="its-pod-stays"),
        pytest.param(a_pod().ended(75).told_to_go(), {"stopReason": "Drained"}, False, id="over"),
    ],
)
def test_only_an_agent_that_says_so_hands_over(pod: PodBody, said: dict[str, str], hands_over: bool) -> None:
    """A pod that does not hear that it is to go records on for ever: only the SFU can end it, by its identity."""
    assert judge.hands_over(an_attempt(pod=pod, report=capturing(**said))) is hands_over


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "{", '{"files": -1, "lostMs": true, "stopReason": 5, "endedAt": "x"}', "\x00" * 5000]
)
def test_termination_messages_may_be_anything(text: str) -> None:
    found = parse_termination(text)
    assert found is None or (found.files, found.lost_ms, found.stop_reason, found.ended_at) == (None, None, None, None)


@pytest.mark.parametrize(
    "rows",
    [5, "x", {}, [None, 5, [], {"userId": "a"}], [{"userId": "a", "source": 5, "reason": "r"}]],
    ids=lambda rows: type(rows).__name__,
)
def test_tracks_of_a_termination_message_may_be_anything(rows: object) -> None:
    found = parse_termination(json.dumps({"unrecorded": rows, "unrecordedTracks": "many"}))
    assert found is not None
    assert (found.unrecorded, found.unrecorded_tracks) == ((), 0)
