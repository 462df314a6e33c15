"""What the operator does next: one row per situation."""

from __future__ import annotations

from typing import Any

import pytest

from isotrack_operator.decision import Plan
from isotrack_operator.plan import CHECKS, MAX_FRUITLESS, plan
from isotrack_operator.view import Account, Call, Claim, ClaimState, Secret, View
from support.operated import (
    NOW,
    a_class,
    a_job,
    a_pod,
    a_recording,
    a_report,
    a_view,
    ago,
    capturing,
    job_name,
)

WAITING = {"phase": "Invoked", "reason": "WaitingForCall", "seq": 1}
LIMITED = {"livekit": {"url": "wss://x", "credentialsSecretName": "livekit"}}


def decide(view: View) -> Plan:
    return plan(view, NOW)


def test_order_of_checks_is_pinned() -> None:
    """Each place in the order has its reason beside it in `plan` and `gate`."""
    assert [check.__name__ for check in CHECKS] == [
        "recording_has_ended",
        "attempt_finished_it",
        "attempt_was_refused",
        "attempts_are_exhausted",
        "its_time_passed_without_a_pod",
        "stopped_with_its_last_attempt_over",
        "stopped_before_start",
        "pod_does_not_start_in_time",
        "join_token_went_stale",
        "stopped_before_its_pod_ran",
        "agent_is_killed_again_and_again",
        "stop_takes_too_long",
        "attempt_is_alive",
        "stopped_on_a_lost_node",
        "attempt_ends_by_itself",
        "node_may_only_have_been_unheard",
        "agent_may_yet_say_that_it_hands_over",
        "next_attempt_must_wait",
        "class_does_not_exist",
        "recording_is_disabled",
        "call_is_not_allowed",
        "storage_does_not_exist",
        "namespace_has_too_many",
        "source_secret_is_missing",
        "storage_secret_is_missing",
        "storage_account_is_missing",
        "somebody_else_records_it",
        "call_is_unclaimed",
        "source_does_not_answer",
        "call_does_not_exist",
        "attempt_may_start",
    ]


@pytest.mark.parametrize(
    ("view", "reason"),
    [
        pytest.param(a_view(recording_class=None), "ClassNotFound", id="no-class"),
        pytest.param(a_view(recording_class=a_class(mode="disabled")), "RecordingDisabled", id="disabled"),
        pytest.param(a_view(recording_class=a_class(calls=[])), "CallNotAllowed", id="nobody-may-record-anything"),
        pytest.param(a_view(a_recording(call={"id": "team-b_x"})), "CallNotAllowed", id="call-of-another-namespace"),
        pytest.param(a_view(a_recording(storage="nope")), "StorageNotFound", id="no-such-storage"),
        pytest.param(
            a_view(recording_class=a_class(limits={"concurrentPerNamespace": 2}), active_in_namespace=2),
            "TooManyRecordings",
            id="too-many",
        ),
        pytest.param(
            a_view(source_secret=Secret(name="livekit", namespace="isotrack-system", problem="does not exist")),
            "SourceSecretNotFound",
            id="sfu-secret",
        ),
        pytest.param(
            a_view(storage_secret=Secret(name="archive", namespace="team-a", problem="does not exist")),
            "StorageSecretNotFound",
            id="storage-secret",
        ),
        pytest.param(
            a_view(storage_secret=None, storage_account=Account(name="recorder", namespace="team-a", exists=False)),
            "ServiceAccountNotFound",
            id="storage-account",
        ),
        pytest.param(
            a_view(call=Call(problem_reason="SourceUnavailable", problem="wss://x cannot be reached")),
            "SourceUnavailable",
            id="sfu-down",
        ),
    ],
)
def test_gate_says_what_somebody_must_do(view: View, reason: str) -> None:
    """Nothing is made; it starts by itself when the obstacle is gone."""
    found = decide(view)
    assert (str(found.reason), found.needs_somebody, found.start, found.verdict) == (reason, True, None, None)
    assert found.message


def test_strangers_learn_nothing_about_storages_and_secrets() -> None:
    """Who may not record a call is told that, whatever else is wrong."""
    missing = Secret(name="secret-name", namespace="isotrack-system", problem="does not exist")
    found = decide(a_view(a_recording(call={"id": "x"}, storage="nope"), source_secret=missing))
    assert found.reason == "CallNotAllowed"
    assert "secret-name" not in found.message


@pytest.mark.parametrize(
    ("namespaces", "looks_again"),
    [({"selector": {"matchLabels": {"may-record": "true"}}}, True), ({"names": ["team-b"]}, False)],
)
def test_a_namespace_that_gets_its_label_later_is_noticed(namespaces: dict[str, Any], looks_again: bool) -> None:
    """No event tells of it; an edit of the class is one."""
    found = decide(a_view(recording_class=a_class(calls=[{"namespaces": namespaces, "ids": ["*"]}])))
    assert found.reason == "CallNotAllowed"
    assert (found.again_after is not None) == looks_again


def test_everything_in_place_starts_attempt_1() -> None:
    assert decide(a_view()).start == 1


def test_claim_comes_before_anything_is_made() -> None:
    found = decide(a_view(claim=Claim(state=ClaimState.FREE)))
    assert (found.take_claim, found.start) == (True, None)
    assert decide(a_view(claim=Claim(state=ClaimState.ABANDONED, resource_version="3"))).take_claim


@pytest.mark.parametrize(("namespace", "named"), [("team-a", True), ("team-b", False)])
def test_winner_is_named_to_its_neighbours_only(namespace: str, named: bool) -> None:
    claim = Claim(state=ClaimState.TAKEN, holder_namespace=namespace, holder_name="retro")
    found = decide(a_view(claim=claim))
    assert found.verdict is not None
    assert found.verdict.reason == "AlreadyRunning"
    assert ("retro" in found.message) is named
    assert "team-b" not in found.message


def test_waits_without_a_pod_until_somebody_joins() -> None:
    found = decide(a_view(call=Call(exists=False)))
    assert (found.reason, found.waits_for_call, found.start, found.needs_somebody) == (
        "WaitingForCall",
        True,
        None,
        False,
    )


@pytest.mark.parametrize(
    ("timeout", "waited", "reason"),
    [(300, 299, None), (300, 301, "CallNotFound"), (0, 100_000, None), (None, 301, "CallNotFound")],
)
def test_waits_for_the_call_as_long_as_it_may(timeout: int | None, waited: int, reason: str | None) -> None:
    limits = {} if timeout is None else {"limits": {"startTimeoutSeconds": timeout}}
    recording = a_recording(**limits).status(transitions=[WAITING | {"time": ago(waited)}])
    verdict = decide(a_view(recording, call=Call(exists=False))).verdict
    assert (verdict.reason if verdict else None) == reason


def test_time_before_the_gate_opened_does_not_count_as_waiting() -> None:
    """A class that came late must not make the call late."""
    blocked = {"phase": "Invoked", "reason": "ClassNotFound", "seq": 1, "time": ago(5000)}
    recording = a_recording().status(transitions=[blocked, WAITING | {"seq": 2, "time": ago(10)}])
    assert decide(a_view(recording, call=Call(exists=False))).verdict is None


LIVE: dict[str, Any] = {"jobs": [a_job()], "pods": [a_pod().running()], "reports": [capturing()]}


def test_what_runs_is_left_alone() -> None:
    found = decide(a_view(**LIVE))
    assert (found.start, found.verdict, found.delete_jobs, found.delete_pods) == (None, None, (), ())


def test_class_edits_do_not_touch_what_runs() -> None:
    for recording_class in (None, a_class(mode="disabled"), a_class(calls=[])):
        assert decide(a_view(recording_class=recording_class, **LIVE)).reason == "Starting"


def test_pending_attempt_is_completed() -> None:
    """After a crash between Job and join token the pod would wait for ever."""
    assert decide(a_view(jobs=[a_job()], pods=[a_pod()])).complete == 1
    assert decide(a_view(**LIVE)).complete is None
    assert decide(a_view(**{**LIVE, "reports": []})).complete == 1, "the operator died before it made the report"


@pytest.mark.parametrize(
    "pod",
    [
        pytest.param(a_pod().running().disrupted(), id="evicted"),
        pytest.param(a_pod().running().with_("metadata.deletionTimestamp", ago(0)), id="deleted"),
        pytest.param(a_pod().unreachable(), id="node-lost"),
    ],
)
def test_disrupted_attempt_gets_its_successor_at_once(pod: Any) -> None:
    """While it still captures: a drain leaves no gap."""
    assert decide(a_view(jobs=[a_job()], pods=[pod], reports=[capturing()])).start == 2


@pytest.mark.parametrize(
    ("pod", "said", "start"),
    [
        pytest.param(a_pod().running().told_to_go(1), {}, None, id="its-agent-may-yet-say-so"),
        pytest.param(a_pod().running().about_to_be_evicted(1), {}, None, id="it-is-about-to-hear-it"),
        pytest.param(a_pod().running().about_to_be_evicted(5), {}, 2, id="it-never-does"),
        pytest.param(a_pod().running().told_to_go(1), {"stopReason": "Drained"}, 2, id="it-has"),
        pytest.param(a_pod().running().told_to_go(5), {}, 2, id="it-does-not"),
        pytest.param(a_pod().running().told_to_go(1), {"phase": "Uploading"}, 2, id="it-captures-no-more"),
        pytest.param(a_pod().running().told_to_go(1), {"phase": "Reconnecting"}, 2, id="it-is-not-in-the-call"),
        pytest.param(a_pod().unreachable().told_to_go(1), {}, 2, id="nobody-hears-it"),
        pytest.param(a_pod().agent_killed().told_to_go(1), {}, 2, id="it-is-not-there"),
    ],
)
def test_an_agent_that_is_to_go_has_a_moment_to_say_that_it_hands_over(
    pod: Any, said: dict[str, Any], start: int | None
) -> None:
    """Its successor joins beside it then. That it was told to does not prove that it heard it."""
    found = decide(a_view(jobs=[a_job()], pods=[pod], reports=[capturing(**said)]))
    assert found.start == start
    assert start or 0 < (found.again_after or 0) < 5


@pytest.mark.parametrize(
    ("silent_for", "heard_ago", "start"),
    [
        pytest.param(3, 60, None, id="its-kubelet-may-speak-yet"),
        pytest.param(12, 60, 2, id="dead"),
        pytest.param(12, 5, None, id="its-agent-reports"),
        pytest.param(300, 200, 2, id="its-agent-did-report"),
    ],
)
def test_node_that_was_only_not_heard_costs_no_attempt(silent_for: int, heard_ago: int, start: int | None) -> None:
    """When the API server comes back after an outage, every node seems dead for a moment."""
    report = capturing(lastUpdate=ago(heard_ago))
    found = decide(a_view(jobs=[a_job()], pods=[a_pod().unreachable(silent_for)], reports=[report]))
    assert found.start == start
    assert start or found.again_after


def test_no_third_attempt_beside_a_live_second_one() -> None:
    view = a_view(jobs=[a_job(1), a_job(2)], pods=[a_pod(1).running().disrupted(), a_pod(2)], reports=[capturing(1)])
    assert decide(view).start is None


@pytest.mark.parametrize("recording", [a_recording(desiredState="Stopped"), a_recording().deleted()])
def test_disrupted_attempt_of_a_stopped_recording_ends_by_itself(recording: Any) -> None:
    view = a_view(recording, jobs=[a_job()], pods=[a_pod().running().disrupted()], reports=[capturing()])
    found = decide(view)
    assert (found.start, found.verdict) == (None, None)


@pytest.mark.parametrize(
    ("code", "next_step"),
    [(75, 2), (69, 2), (74, 2), (1, 2), (137, 2), (64, None), (66, None), (73, None), (77, None)],
)
def test_exit_code_decides_on_another_attempt(code: int, next_step: int | None) -> None:
    found = decide(a_view(jobs=[a_job().failed()], pods=[a_pod().ended(code)], reports=[capturing()]))
    assert found.start == next_step
    assert (found.finalise is None) is (next_step is not None), "what is in the bucket is finished before the end"


def test_lost_pod_gets_a_successor() -> None:
    assert decide(a_view(jobs=[a_job().failed()], reports=[capturing()])).start == 2


def test_refusal_without_media_is_an_error_and_with_media_a_part() -> None:
    pods = [a_pod().ended(77, said={"reason": "SourceRefused", "message": "token expired"})]
    nothing = decide(a_view(jobs=[a_job().failed()], pods=pods)).verdict
    written = {"reason": "SourceRefused", "message": "token expired", "manifestUri": "s3://b/f/recording.json"}
    some = decide(
        a_view(jobs=[a_job().failed()], pods=[a_pod().ended(77, said=written)], reports=[capturing()])
    ).verdict
    assert nothing is not None
    assert some is not None
    assert (nothing.reason, nothing.message) == ("SourceRefused", "token expired")
    assert (some.reason, some.message) == ("PartiallyUploaded", "SourceRefused: token expired")


def test_fruitless_attempts_pause_longer_and_longer_and_end() -> None:
    pauses = []
    for count in range(1, MAX_FRUITLESS):
        jobs = [a_job(n).failed() for n in range(1, count + 1)]
        pods = [a_pod(n).ended(69, ended_ago=0) for n in range(1, count + 1)]
        found = decide(a_view(jobs=jobs, pods=pods))
        assert found.start is None
        assert found.again_after is not None
        pauses.append(found.again_after)
    assert pauses == sorted(pauses)
    assert pauses[0] <= 2
    jobs = [a_job(n).failed() for n in range(1, MAX_FRUITLESS + 1)]
    pods = [a_pod(n).ended(69) for n in range(1, MAX_FRUITLESS + 1)]
    verdict = decide(a_view(jobs=jobs, pods=pods)).verdict
    assert verdict is not None
    assert verdict.reason == "AttemptsExhausted"


def waited(n: int, begun_ago: float, seconds: float = 481) -> dict[str, Any]:
    """Record of an attempt that no node took for so long; its Job was taken back then."""
    ended: dict[str, Any] = {"endedAt": ago(begun_ago - seconds), "result": "Lost", "reason": "PodLost"}
    return {"n": n, "job": job_name(n), "startedAt": ago(begun_ago), **ended}


def many_that_waited(*, begun_ago: float = 481 * 2 * MAX_FRUITLESS + 11) -> list[dict[str, Any]]:
    """Twice as many as may achieve nothing, the newest of which was taken back a moment ago."""
    return [waited(n + 2, begun_ago - 481 * n) for n in range(2 * MAX_FRUITLESS)]


def test_pods_that_no_node_took_do_not_exhaust_a_recording() -> None:
    """A cluster without room for an hour cost the rest of the call: they had no chance to achieve anything."""
    recording = a_recording().status(startedAt=ago(9000), attempts=many_that_waited())
    found = decide(a_view(recording, jobs=[a_job(1).failed()], pods=[a_pod(1).ended(75)], reports=[capturing(1)]))
    assert (found.verdict, found.start) == (None, 2 * MAX_FRUITLESS + 2)


def test_attempts_that_are_taken_back_at_once_do_not_follow_one_another_without_a_pause() -> None:
    """The operator's clock is ten minutes ahead: each join token looks stale as soon as it is made."""
    made = [waited(n, 600 + 5 * (9 - n), seconds=601) for n in range(1, 9)]
    open_one = {"n": 9, "job": job_name(9), "startedAt": ago(600)}
    for attempts in (made, [*made, open_one]):
        found = decide(a_view(a_recording().status(attempts=attempts)))
        assert (found.start, found.verdict) == (None, None)
        assert found.again_after is not None
        assert found.again_after > 5


def test_pods_that_no_node_took_do_not_hide_those_that_achieved_nothing() -> None:
    count = MAX_FRUITLESS
    jobs = [a_job(n).failed() for n in range(1, count + 1)]
    pods = [a_pod(n).ended(69) for n in range(1, count + 1)]
    recording = a_recording().status(attempts=[waited(count + 1, 481)])
    verdict = decide(a_view(recording, jobs=jobs, pods=pods)).verdict
    assert verdict is not None
    assert verdict.reason == "AttemptsExhausted"


def test_jobs_that_somebody_deletes_again_and_again_do_exhaust_a_recording() -> None:
    attempts = [waited(n, 100 - n, seconds=1) for n in range(1, MAX_FRUITLESS + 1)]
    verdict = decide(a_view(a_recording().status(attempts=attempts))).verdict
    assert verdict is not None
    assert verdict.reason == "AttemptsExhausted"


def test_a_recording_does_not_wait_for_a_node_for_longer_than_it_may_last() -> None:
    limits = {"maxDurationSeconds": 3600, "emptyTimeoutSeconds": 60, "startTimeoutSeconds": 0}
    layer = {"name": "default", "fileNamePrefix": "p", "outputTypes": ["audio_only"], "container": "mkv"}
    effective = {"layers": [layer | {"fileNameTemplate": "{user_id}"}], "storage": "archive", "limits": limits}

    def found(started_ago: float) -> Plan:
        recording = a_recording().status(startedAt=ago(started_ago), attempts=many_that_waited(), effective=effective)
        attempt: dict[str, Any] = {"jobs": [a_job(1).failed()], "pods": [a_pod(1).ended(75)]}
        return decide(a_view(recording, **attempt, reports=[capturing(1)]))

    assert found(3599).start is not None
    late = found(3600)
    assert late.start is None
    assert late.finalise is not None
    assert late.finalise.reason == "MaxDuration"


def test_media_makes_earlier_fruitless_attempts_forgotten() -> None:
    jobs = [a_job(n).failed() for n in (1, 2, 3)]
    pods = [a_pod(n).ended(69, ended_ago=0) for n in (1, 2, 3)]
    assert decide(a_view(jobs=jobs, pods=pods, reports=[capturing(3)])).start == 4


def test_finished_attempt_is_the_end() -> None:
    said = {"reason": "Completed", "stopReason": "CallEnded", "files": 2, "complete": True}
    verdict = decide(
        a_view(jobs=[a_job().complete()], pods=[a_pod().ended(0, said=said)], reports=[capturing()])
    ).verdict
    assert verdict is not None
    assert (verdict.succeeded, verdict.reason) == (True, "Uploaded")
    assert verdict.stop is not None
    assert verdict.stop.reason == "CallEnded"


@pytest.mark.parametrize(
    ("first", "complete", "reason"),
    [
        pytest.param(a_pod().ended(75), True, "Uploaded", id="drained-in-good-order"),
        pytest.param(None, None, "PartiallyUploaded", id="first-attempt-vanished-with-its-media"),
        pytest.param(None, True, "Uploaded", id="first-attempt-vanished-after-it-had-shipped"),
        pytest.param(a_pod().ended(75), False, "PartiallyUploaded", id="manifest-says-incomplete"),
    ],
)
def test_lost_media_is_never_called_uploaded(first: Any, complete: bool | None, reason: str) -> None:
    view = a_view(
        jobs=[a_job(1).failed(), a_job(2).complete()],
        pods=[*([first] if first else []), a_pod(2).ended(0, said={} if complete is None else {"complete": complete})],
        reports=[capturing(1), capturing(2)],
    )
    verdict = decide(view).verdict
    assert verdict is not None
    assert verdict.reason == reason


ENCRYPTED = {"id": "TR_1", "userId": "alice", "source": "camera", "reason": "Encrypted"}


@pytest.mark.parametrize(
    ("said", "reported"),
    [
        pytest.param({"complete": False, "unrecorded": [ENCRYPTED], "unrecordedTracks": 1}, [], id="as-the-agent-says"),
        pytest.param({"complete": False}, [ENCRYPTED], id="as-reported"),
        pytest.param(None, [ENCRYPTED], id="last-words-lost"),
    ],
)
def test_the_verdict_says_which_tracks_could_not_be_recorded(said: Any, reported: list[Any]) -> None:
    pod = a_pod().ended(0, said=said) if said else a_pod().ended(0)
    verdict = decide(a_view(jobs=[a_job().complete()], pods=[pod], reports=[capturing(unrecorded=reported)])).verdict
    assert verdict is not None
    assert verdict.reason == "PartiallyUploaded"
    assert verdict.message.endswith("; not recorded: alice camera (end-to-end encrypted)")


def test_the_verdict_counts_the_tracks_that_it_does_not_name() -> None:
    said = {"complete": False, "unrecorded": [{**ENCRYPTED, "reason": "NoMedia"}] * 5, "unrecordedTracks": 12}
    verdict = decide(
        a_view(jobs=[a_job().complete()], pods=[a_pod().ended(0, said=said)], reports=[capturing()])
    ).verdict
    assert verdict is not None
    assert verdict.message.endswith("alice camera (nothing in it can be decoded) and 7 more")


def test_end_waits_for_an_earlier_attempt_that_still_ships() -> None:
    """Its files join the manifest late; until then the recording is not over, and nothing is called lost."""
    jobs = [a_job(1), a_job(2).complete()]
    reports = [capturing(1), capturing(2)]
    last = a_pod(2).ended(0, said={"complete": False}, ended_ago=5)
    draining = decide(a_view(jobs=jobs, pods=[a_pod(1).running().disrupted(), last], reports=reports))
    assert (draining.reason, draining.verdict, draining.start) == ("Uploading", None, None)
    drained = a_pod(1).ended(75, said={"complete": True}, ended_ago=1)
    verdict = decide(a_view(jobs=jobs, pods=[drained, last], reports=reports)).verdict
    assert verdict is not None
    assert verdict.reason == "Uploaded"


@pytest.mark.parametrize(
    ("first", "ended_ago"),
    [
        pytest.param(a_pod(1).unreachable().disrupted("DeletionByTaintManager"), 5, id="its-node-is-lost"),
        pytest.param(a_pod(1).running().disrupted(), 400, id="it-takes-longer-than-its-grace"),
    ],
)
def test_end_does_not_wait_for_what_will_not_come(first: Any, ended_ago: int) -> None:
    last = a_pod(2).ended(0, said={"complete": False}, ended_ago=ended_ago)
    view = a_view(jobs=[a_job(1), a_job(2).complete()], pods=[first, last], reports=[capturing(1), capturing(2)])
    verdict = decide(view).verdict
    assert verdict is not None
    assert verdict.reason == "PartiallyUploaded"


def test_job_that_completed_without_a_trace_of_its_pod_is_finished() -> None:
    """The operator was down and the pod is gone: the Job's word counts, nobody waits for a report."""
    verdict = decide(a_view(jobs=[a_job().complete()])).verdict
    assert verdict is not None
    assert verdict.succeeded


@pytest.mark.parametrize("recording", [a_recording(desiredState="Stopped"), a_recording().deleted()])
@pytest.mark.parametrize("facts", [{}, {"recording_class": None}, {"call": Call(exists=False)}])
def test_stop_before_start_ends_it_whatever_it_waits_for(recording: Any, facts: dict[str, Any]) -> None:
    verdict = decide(a_view(recording, **facts)).verdict
    assert verdict is not None
    assert verdict.reason == "StoppedBeforeStart"


def test_stop_while_the_pod_is_on_its_way_takes_it_back() -> None:
    found = decide(a_view(a_recording(desiredState="Stopped"), jobs=[a_job()], pods=[a_pod()]))
    assert found.verdict is not None
    assert found.delete_jobs == (job_name(),)


@pytest.mark.parametrize("recording", [a_recording(desiredState="Stopped"), a_recording().deleted()])
@pytest.mark.parametrize("created_ago", [1, 5000])
@pytest.mark.parametrize("pods", [[], [a_pod(2)], [a_pod(2).unschedulable()]], ids=["none", "scheduled", "no-room"])
@pytest.mark.parametrize("first", [a_pod(1).running().disrupted(), a_pod(1).ended(75)], ids=["alive", "drained"])
def test_stop_while_a_successor_is_on_its_way_takes_it_back(
    recording: Any, created_ago: int, pods: list[Any], first: Any
) -> None:
    jobs = [a_job(1), a_job(2, created_ago=created_ago)]
    found = decide(a_view(recording, jobs=jobs, pods=[first, *pods], reports=[capturing(1)]))
    assert (found.delete_jobs, found.start, found.verdict) == ((job_name(2),), None, None)
    assert found.reason == "Stopping"


TAKEN_BACK = a_recording(desiredState="Stopped").status(
    attempts=[{"n": n, "job": job_name(n), "startedAt": ago(5)} for n in (1, 2)]
)


@pytest.mark.parametrize(
    ("first", "reason", "verdict"),
    [
        pytest.param(a_pod(1).running(), "Stopping", None, id="captures"),
        pytest.param(a_pod(1).running().disrupted(), "Stopping", None, id="drains"),
        pytest.param(a_pod(1).ended(75), "Recovering", None, id="drained"),
        pytest.param(a_pod(1).ended(0), "Uploaded", True, id="finished"),
    ],
)
def test_where_a_successor_was_taken_back_those_before_it_say_how_it_ends(
    first: Any, reason: str, verdict: bool | None
) -> None:
    found = decide(a_view(TAKEN_BACK, jobs=[a_job(1)], pods=[first], reports=[capturing(1)]))
    assert (found.reason, found.start, found.delete_jobs) == (reason, None, ())
    assert (found.verdict.succeeded if found.verdict else None) is verdict


def test_a_successor_that_said_something_before_its_job_was_deleted_counts() -> None:
    """It may have captured."""
    found = decide(a_view(TAKEN_BACK, jobs=[a_job(1)], pods=[a_pod(1).ended(0)], reports=[capturing(1), capturing(2)]))
    assert (found.reason, found.verdict) == ("Recovering", None)


@pytest.mark.parametrize(
    ("recording", "reason"),
    [(a_recording(desiredState="Stopped"), "Requested"), (a_recording().deleted(), "Deleted")],
)
@pytest.mark.parametrize("pods", [[a_pod().ended(75)], [a_pod().ended(137)], []], ids=["drained", "killed", "vanished"])
def test_no_attempt_joins_the_call_of_a_stopped_recording_only_to_write_the_manifest(
    recording: Any, reason: str, pods: list[Any]
) -> None:
    found = decide(a_view(recording, jobs=[a_job().failed()], pods=pods, reports=[capturing()]))
    assert (found.start, found.verdict, found.reason) == (None, None, "Recovering")
    assert found.finalise is not None
    assert found.finalise.reason == reason


def test_stopped_recording_without_media_has_nothing_to_finish() -> None:
    verdict = decide(
        a_view(a_recording(desiredState="Stopped"), jobs=[a_job().failed()], pods=[a_pod().ended(69)])
    ).verdict
    assert verdict is not None
    assert verdict.reason == "SourceUnavailable"


def test_terminal_is_terminal() -> None:
    """Not even a new Job, a new class or a deletion changes the end; what was held is released."""
    found = decide(a_view(a_recording().finished().deleted(), jobs=[a_job().failed()], pods=[a_pod().ended(1)]))
    assert (found.release, found.start, found.verdict) == (True, None, None)


def test_pod_that_cannot_start_ends_with_its_cause_after_the_start_timeout() -> None:
    recording = a_recording(limits={"startTimeoutSeconds": 60})
    view = a_view(recording, jobs=[a_job(created_ago=61)], pods=[a_pod().waiting("ErrImagePull", "no such image")])
    found = decide(view)
    assert found.verdict is not None
    assert found.verdict.reason == "ImagePullFailed"
    assert "no such image" in found.message
    assert found.delete_jobs == (job_name(),)


def test_the_start_timeout_counts_from_the_first_pod_that_did_not_start() -> None:
    """Each of them gets a new join token after eight minutes: longer timeouts were never reached."""
    recording = a_recording(limits={"startTimeoutSeconds": 900}).status(attempts=[waited(1, 901)])
    found = decide(a_view(recording, jobs=[a_job(2, created_ago=400)], pods=[a_pod(2).unschedulable()]))
    assert found.verdict is not None
    assert (found.verdict.reason, found.delete_jobs) == ("Unschedulable", (job_name(2),))
    recording = a_recording(limits={"startTimeoutSeconds": 900}).status(attempts=[waited(1, 899)])
    found = decide(a_view(recording, jobs=[a_job(2, created_ago=400)], pods=[a_pod(2).unschedulable()]))
    assert found.verdict is None
    assert found.again_after is not None
    assert found.again_after < 3


def test_pod_that_cannot_start_shows_its_cause_at_once() -> None:
    found = decide(a_view(jobs=[a_job()], pods=[a_pod().waiting("ErrImagePull", "no such image")]))
    assert (found.reason, found.needs_somebody, found.verdict) == ("ImagePullFailed", True, None)


def test_successor_is_not_given_up_after_the_start_timeout() -> None:
    """The timeout is about the start of the recording, not of each attempt."""
    recording = a_recording(limits={"startTimeoutSeconds": 60}).status(startedAt=ago(500))
    view = a_view(
        recording,
        jobs=[a_job(1).failed(), a_job(2, created_ago=100)],
        pods=[a_pod(1).ended(75), a_pod(2).unschedulable()],
        reports=[capturing(1)],
    )
    assert decide(view).verdict is None


def test_stale_join_token_gets_a_new_attempt() -> None:
    recording = a_recording(limits={"startTimeoutSeconds": 0})
    view = a_view(recording, jobs=[a_job(created_ago=500)], pods=[a_pod().unschedulable()])
    found = decide(view)
    assert (found.delete_jobs, found.reason) == ((job_name(),), "Unschedulable")


@pytest.mark.parametrize(("heard_ago", "terminated"), [(10, False), (1000, True)])
def test_silent_agent_is_terminated_long_after_the_stop(heard_ago: int, terminated: bool) -> None:
    recording = a_recording(desiredState="Stopped").status(stopRequest={"time": ago(5000), "by": "desiredState"})
    report = capturing(lastUpdate=ago(heard_ago), phase="Uploading")
    found = decide(a_view(recording, jobs=[a_job()], pods=[a_pod().running()], reports=[report]))
    assert bool(found.delete_pods) is terminated


def test_crash_loop_of_the_recorder_is_shown_while_the_attempt_goes_on() -> None:
    view = a_view(
        jobs=[a_job()], pods=[a_pod().running(recorder_restarts=4, reason="Error", exitCode=1)], reports=[a_report()]
    )
    found = decide(view)
    assert (found.reason, found.needs_somebody, found.start, found.verdict) == ("RecorderCrashing", True, None, None)


@pytest.mark.parametrize(
    ("pod", "given_up"),
    [
        pytest.param(a_pod().agent_killed(), False, id="a-moment-ago"),
        pytest.param(a_pod().agent_killed(3, ended_ago=100, waiting="CrashLoopBackOff"), False, id="it-waits"),
        pytest.param(a_pod().agent_killed(6, ended_ago=200, waiting="CrashLoopBackOff"), True, id="it-waits-too-long"),
        pytest.param(a_pod().agent_killed(12, ended_ago=5, waiting="CrashLoopBackOff"), True, id="short-pauses"),
        pytest.param(a_pod().agent_killed(12, ended_ago=500, waiting="").running(), False, id="it-works"),
    ],
)
def test_agent_that_is_killed_again_and_again_costs_its_pod(pod: Any, given_up: bool) -> None:
    """Not lightly: the spool holds what the bucket does not have yet."""
    found = decide(a_view(jobs=[a_job()], pods=[pod], reports=[capturing()]))
    assert bool(found.delete_pods) is given_up
    assert (found.start, found.verdict) == (None, None)


def test_agent_that_never_worked_is_given_up_soon() -> None:
    pod = a_pod().agent_killed(3, ended_ago=5, waiting="CrashLoopBackOff", reason="OOMKilled")
    found = decide(a_view(jobs=[a_job()], pods=[pod]))
    assert found.delete_pods
    assert (found.reason, found.needs_somebody) == ("OutOfMemory", True)


@pytest.mark.parametrize(("blocked_for", "again"), [(0, 3), (20, 3), (120, 12), (100_000, 60)])
def test_what_cannot_be_watched_is_looked_at_less_and_less_often(blocked_for: int, again: float) -> None:
    missing = Secret(name="archive", namespace="team-a", problem="does not exist")
    transition = {"phase": "Invoked", "reason": "StorageSecretNotFound", "seq": 1, "time": ago(blocked_for)}
    assert decide(a_view(a_recording().status(transitions=[transition]), storage_secret=missing)).again_after == again


def test_a_stop_before_the_start_ends_the_same_whether_or_not_the_operator_lived_to_say_so() -> None:
    """It deletes the Job first. One that died right after finds an attempt of its record without any Job."""
    recording = a_recording(desiredState="Stopped").status(attempts=[{"n": 1, "job": job_name(1), "startedAt": ago(5)}])
    verdict = decide(a_view(recording)).verdict
    assert verdict is not None
    assert (verdict.succeeded, verdict.reason) == (False, "StoppedBeforeStart")


@pytest.mark.parametrize(("told", "reason"), [({}, "Uploaded"), ({"reason": "PartiallyUploaded"}, "PartiallyUploaded")])
@pytest.mark.parametrize("is_recorded", [False, True])
def test_what_is_missing_is_known_also_where_the_pod_is_gone_with_its_last_words(
    told: dict[str, str], reason: str, is_recorded: bool
) -> None:
    """Its node was removed while no operator ran; the report stays. Nothing that is missing may count as uploaded."""
    recording = a_recording()
    if is_recorded:
        record = {"n": 1, "job": job_name(), "startedAt": ago(60), "endedAt": ago(5), "result": "Finished"}
        recording = recording.with_("status.attempts", [record])
    report = capturing(phase="Finished", lastUpdate=ago(5), **told)
    verdict = decide(a_view(recording, jobs=[a_job().complete()], reports=[report])).verdict
    assert verdict is not None
    assert (verdict.reason, verdict.succeeded) == (reason, reason == "Uploaded")
