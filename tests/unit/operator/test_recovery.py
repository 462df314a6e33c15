"""How a Recording ends whose attempts left no manifest."""

from __future__ import annotations

from typing import Any

import pytest

from isotrack_operator.decision import Plan
from isotrack_operator.plan import plan
from isotrack_operator.view import View
from support.operated import (
    NOW,
    a_class,
    a_finaliser,
    a_finaliser_pod,
    a_job,
    a_pod,
    a_recording,
    a_view,
    ago,
    capturing,
)


def decide(view: View) -> Plan:
    return plan(view, NOW)


def a_stopped_view(recording: Any = None, *, jobs: Any = (), pods: Any = (), **facts: Any) -> View:
    """Stopped; its one attempt captured media and vanished."""
    return a_view(
        recording or a_recording(desiredState="Stopped"),
        jobs=[a_job().failed(), *jobs],
        pods=[*pods],
        reports=[capturing()],
        **facts,
    )


@pytest.mark.parametrize(
    ("job", "pod", "verdict", "message"),
    [
        pytest.param(a_finaliser(created_ago=5), None, None, "finishing the recording", id="made"),
        pytest.param(a_finaliser(), a_finaliser_pod().running(), None, "finishing the recording", id="works"),
        pytest.param(a_finaliser(), a_finaliser_pod(74), None, "finishing", id="failed-and-is-tried-again"),
        pytest.param(
            a_finaliser().complete(), a_finaliser_pod(0, complete=True), "Uploaded", "every file", id="complete"
        ),
        pytest.param(
            a_finaliser().complete(), a_finaliser_pod(0, complete=False), "PartiallyUploaded", "gaps", id="incomplete"
        ),
        pytest.param(a_finaliser().complete(), None, "PartiallyUploaded", "gaps", id="nobody-heard-its-words"),
        pytest.param(
            a_finaliser().failed(),
            a_finaliser_pod(74, reason="StorageUnavailable", message="no answer"),
            "PartiallyUploaded",
            "no answer: isotrack finalise s3://…/team-a/standup-6269dc2a",
            id="given-up",
        ),
        pytest.param(
            a_finaliser(), a_finaliser_pod(73, message="no such bucket"), "PartiallyUploaded", "no such", id="refused"
        ),
    ],
)
def test_the_finaliser_decides_how_it_ended(job: Any, pod: Any, verdict: str | None, message: str) -> None:
    found = decide(a_stopped_view(jobs=[job], pods=[pod] if pod else []))
    assert (found.verdict.reason if found.verdict else None) == verdict
    assert message in found.message
    assert (found.start, found.finalise) == (None, None), "nothing is made twice"
    assert found.verdict is not None or found.reason == "Recovering"


def test_the_finaliser_says_which_tracks_could_not_be_recorded() -> None:
    row = {"userId": "alice", "source": "camera", "reason": "CodecUnsupported"}
    pod = a_finaliser_pod(0, complete=False, unrecorded=[row], unrecordedTracks=1)
    found = decide(a_stopped_view(jobs=[a_finaliser().complete()], pods=[pod]))
    assert found.message.endswith("see the gaps in the manifest; not recorded: alice camera (codec not supported)")


def test_a_refused_finaliser_is_not_repeated() -> None:
    found = decide(a_stopped_view(jobs=[a_finaliser()], pods=[a_finaliser_pod(73)]))
    assert found.delete_jobs == ("standup-6269dc2a-finalise",)


def test_a_complete_recording_of_attempts_that_all_failed_is_no_success() -> None:
    view = a_view(
        jobs=[a_job().failed(), a_finaliser().complete()],
        pods=[a_pod().ended(77), a_finaliser_pod(0, complete=True)],
        reports=[capturing()],
    )
    verdict = decide(view).verdict
    assert verdict is not None
    assert (verdict.succeeded, verdict.reason) == (False, "PartiallyUploaded")
    assert verdict.stop is not None
    assert verdict.stop.reason == "InternalError"


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        pytest.param({"recording_class": None}, "RecordingClass default is gone", id="class-gone"),
        pytest.param({"recording_class": a_class(storages=[{"name": "other", "s3": {"bucket": "bbb", "credentials": {"secretName": "s"}}}])}, "does not have its storage", id="storage-gone"),
    ],
)  # fmt: skip
def test_without_class_or_storage_it_says_what_anybody_can_do(facts: dict[str, Any], why: str) -> None:
    recording = a_recording(desiredState="Stopped", storage="archive")
    verdict = decide(a_stopped_view(recording, **facts)).verdict
    assert verdict is not None
    assert why in verdict.message
    assert "isotrack finalise s3://…/team-a/standup-6269dc2a" in verdict.message


def test_a_deletion_waits_for_the_finaliser_unless_that_takes_the_children_first() -> None:
    background = a_recording().deleted().with_("metadata.finalizers", ["isotrack.dev/recording"])
    assert decide(a_stopped_view(background)).finalise is not None
    foreground = a_recording().deleted().with_("metadata.finalizers", ["foregroundDeletion", "isotrack.dev/recording"])
    assert decide(a_stopped_view(foreground)).verdict is not None


@pytest.mark.parametrize(("created_ago", "given_up"), [(60, False), (600, True)])
def test_a_deletion_does_not_wait_for_a_finaliser_that_cannot_start(created_ago: int, given_up: bool) -> None:
    """Its Secret may have gone first."""
    pod = a_finaliser_pod().condition("PodReadyToStartContainers", "False").with_("spec.nodeName", "node-1")
    view = a_stopped_view(a_recording().deleted(), jobs=[a_finaliser(created_ago=created_ago)], pods=[pod])
    found = decide(view)
    assert (found.verdict is not None) is given_up
    assert "Secret archive" in found.message


def test_media_is_not_forgotten_when_its_report_goes_first() -> None:
    """A namespace that is deleted takes reports along; the transitions that we wrote tell of them."""
    transition = {"phase": "Recording", "reason": "Capturing", "seq": 2, "time": "2026-11-21T11:59:00Z"}
    recording = a_recording().deleted().status(transitions=[transition])
    found = decide(a_view(recording, jobs=[a_job().failed()], pods=[a_pod().ended(75)]))
    assert found.finalise is not None


def test_attempts_that_still_ship_come_first() -> None:
    view = a_view(
        a_recording(desiredState="Stopped"),
        jobs=[a_job(1), a_job(2).failed()],
        pods=[a_pod(1).running().disrupted(), a_pod(2).ended(1, ended_ago=5)],
        reports=[capturing(1), capturing(2)],
    )
    found = decide(view)
    assert (found.finalise, found.reason) == (None, "Uploading")


@pytest.mark.parametrize(("silent_for", "finalise"), [(60, False), (300, True)])
def test_a_stop_does_not_wait_for_ever_for_a_node_that_is_lost(silent_for: int, finalise: bool) -> None:
    view = a_view(
        a_recording(desiredState="Stopped"),
        jobs=[a_job()],
        pods=[a_pod().unreachable(silent_for)],
        reports=[capturing()],
    )
    found = decide(view)
    assert (found.finalise is not None) is finalise
    assert found.start is None


def test_a_pod_that_should_be_gone_for_two_minutes_is_not_waited_for_until_its_node_is_called_dead() -> None:
    pod = a_pod().unreachable(60).with_("metadata.deletionTimestamp", ago(150))
    found = decide(a_view(a_recording(desiredState="Stopped"), jobs=[a_job()], pods=[pod], reports=[capturing()]))
    assert found.finalise is not None


def test_somebody_elses_job_of_that_name_is_no_finaliser() -> None:
    stranger = a_finaliser().complete().with_("metadata.ownerReferences", [{"uid": "else", "controller": True}])
    assert decide(a_stopped_view(jobs=[stranger])).finalise is not None
