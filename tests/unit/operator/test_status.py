"""Recording.status from a view and a plan."""

from __future__ import annotations

from typing import Any

import pytest

from isotrack_api.conditions import ConditionStatus
from isotrack_api.recording import MAX_STATUS_FILES, Phase, Recording, RecordingStatus
from isotrack_operator.plan import plan
from isotrack_operator.status import build_status, dump, is_news
from isotrack_operator.view import Call, View
from support.operated import (
    NOW,
    a_finaliser,
    a_finaliser_pod,
    a_job,
    a_pod,
    a_recording,
    a_report,
    a_view,
    ago,
    capturing,
    job_name,
)


def status_of(view: View) -> RecordingStatus:
    return build_status(view, plan(view, NOW), NOW)


def conditions(status: RecordingStatus) -> dict[str, str]:
    return {c.type: f"{c.status.value}/{c.reason}" for c in status.conditions}


RUNNING: dict[str, Any] = {"jobs": [a_job()], "pods": [a_pod().running()]}
ENDED: dict[str, Any] = {"jobs": [a_job().complete()], "pods": [a_pod().ended(0)]}


@pytest.mark.parametrize(
    ("view", "phase", "expected"),
    [
        pytest.param(
            a_view(call=Call(exists=False)),
            Phase.INVOKED,
            {"Ready": "False/WaitingForCall", "Reconciling": "True/WaitingForCall", "Stalled": "False/Reconciled"},
            id="waiting",
        ),
        pytest.param(
            a_view(recording_class=None),
            Phase.INVOKED,
            {"Ready": "False/ClassNotFound", "Reconciling": "False/Reconciled", "Stalled": "True/ClassNotFound"},
            id="blocked",
        ),
        pytest.param(
            a_view(jobs=[a_job()], pods=[a_pod()]),
            Phase.INVOKED,
            {"Ready": "False/Starting", "Reconciling": "True/Starting", "Finished": "False/NotStarted"},
            id="pod-on-its-way",
        ),
        pytest.param(
            a_view(**RUNNING, reports=[capturing(phase="Armed", firstPacketAtMs=None)]),
            Phase.RECORDING,
            {"Ready": "True/Armed", "Capturing": "False/Armed", "Reconciling": "False/Reconciled"},
            id="muted-room-is-ready",
        ),
        pytest.param(
            a_view(**RUNNING, reports=[capturing(storage={"ready": True})]),
            Phase.RECORDING,
            {"Ready": "True/Capturing", "Capturing": "True/Capturing", "StorageReady": "True/StorageAvailable"},
            id="capturing",
        ),
        pytest.param(
            a_view(**RUNNING, reports=[capturing(phase="Paused")]),
            Phase.PAUSED,
            {"Ready": "True/Paused", "Capturing": "False/Paused", "Finished": "False/Capturing"},
            id="paused-is-ready",
        ),
        pytest.param(
            a_view(**RUNNING, reports=[capturing(phase="Reconnecting")]),
            Phase.RECORDING,
            {"Ready": "False/Reconnecting", "Capturing": "False/Reconnecting"},
            id="reconnecting",
        ),
        pytest.param(
            a_view(a_recording(desiredState="Stopped"), **RUNNING, reports=[capturing(phase="Uploading")]),
            Phase.UPLOADING,
            {"Ready": "False/Uploading", "Capturing": "False/Stopped", "Succeeded": "Unknown/Uploading"},
            id="uploading",
        ),
        pytest.param(
            a_view(**RUNNING, reports=[capturing(storage={"ready": True, "message": "it ignores If-None-Match"})]),
            Phase.RECORDING,
            {"Ready": "True/Capturing", "StorageReady": "True/StorageLimited"},
            id="storage-keeps-less",
        ),
        pytest.param(
            a_view(**RUNNING, reports=[capturing(storage={"ready": False, "reason": "StorageRefused", "message": "no such bucket"})]),
            Phase.RECORDING,
            {"Ready": "True/Capturing", "StorageReady": "False/StorageRefused"},
            id="storage-refuses",
        ),
        pytest.param(
            a_view(
                jobs=[a_job(1), a_job(2)],
                pods=[a_pod(1).running().disrupted(), a_pod(2)],
                reports=[capturing(1)],
            ),
            Phase.RECORDING,
            {"Ready": "True/Capturing", "Capturing": "True/Capturing", "Reconciling": "True/Replacing"},
            id="old-attempt-captures-while-the-new-one-comes-up",
        ),
        pytest.param(
            a_view(
                jobs=[a_job(1).failed(), a_job(2)], pods=[a_pod(1).ended(75), a_pod(2)], reports=[capturing(1)]
            ),
            Phase.RECORDING,
            {"Ready": "False/Replacing", "Capturing": "False/Replacing", "Reconciling": "True/Replacing"},
            id="between-attempts",
        ),
        pytest.param(
            a_view(**ENDED, reports=[capturing(stopReason="CallEnded")]),
            Phase.UPLOADED,
            {
                "Ready": "True/Uploaded",
                "Finished": "True/CallEnded",
                "Succeeded": "True/Uploaded",
                "Stalled": "False/Reconciled",
                "Reconciling": "False/Reconciled",
            },
            id="uploaded",
        ),
        pytest.param(
            a_view(jobs=[a_job().failed()], pods=[a_pod().ended(73)]),
            Phase.ERRORED,
            {"Ready": "False/StorageRefused", "Succeeded": "False/StorageRefused", "Stalled": "True/StorageRefused"},
            id="errored",
        ),
        pytest.param(
            a_view(jobs=[a_job().failed()], pods=[a_pod().ended(77)], reports=[capturing()]),
            Phase.UPLOADING,
            {"Ready": "False/Recovering", "Reconciling": "True/Recovering", "Finished": "False/Uploading"},
            id="recovering",
        ),
        pytest.param(
            a_view(jobs=[a_job().failed(), a_finaliser().complete()], pods=[a_pod().ended(77)], reports=[capturing()]),
            Phase.PARTIALLY_UPLOADED,
            {"Succeeded": "False/PartiallyUploaded", "Stalled": "True/PartiallyUploaded"},
            id="partly",
        ),
    ],
)  # fmt: skip
def test_conditions_and_phase(view: View, phase: Phase, expected: dict[str, str]) -> None:
    status = status_of(view)
    assert status.phase is phase
    assert conditions(status).items() >= expected.items()
    assert len(status.conditions) == 9


def filling(level: str, phase: str = "Capturing") -> View:
    """An attempt whose recorder says how full its disk is."""
    spool = {"level": level, "usedBytes": 85, "capacityBytes": 100}
    return a_view(**RUNNING, reports=[capturing(phase=phase, spool=spool)])


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        pytest.param(a_view(**RUNNING, reports=[capturing()]), {"UploadLagging": "Unknown/NotStarted"}, id="not-told"),
        pytest.param(filling("Clear"), {"UploadLagging": "False/SpoolClear", "Ready": "True/Capturing"}, id="clear"),
        pytest.param(filling("Filling"), {"UploadLagging": "True/SpoolFilling", "Ready": "True/Capturing"}, id="warn"),
        pytest.param(
            filling("CameraShed"),
            {"UploadLagging": "True/CamerasShed", "Ready": "True/Capturing", "Capturing": "True/Capturing"},
            id="cameras",
        ),
        pytest.param(filling("ScreenshareShed"), {"UploadLagging": "True/ScreensShed"}, id="screens"),
        pytest.param(
            filling("Full", phase="Armed"),
            {"UploadLagging": "True/SpoolFull", "Ready": "False/SpoolFull", "Capturing": "False/Armed"},
            id="full",
        ),
        pytest.param(
            a_view(**ENDED, reports=[capturing(spool={"level": "Full", "usedBytes": 1, "capacityBytes": 1})]),
            {"UploadLagging": "False/Reconciled"},
            id="over",
        ),
    ],
)
def test_a_disk_that_fills_is_told_by_a_condition(view: View, expected: dict[str, str]) -> None:
    found = conditions(status_of(view))
    assert {kind: found[kind] for kind in expected} == expected


def left_out(n: int = 1, reason: str = "Encrypted", **more: str) -> dict[str, str]:
    return {"id": f"TR_{n}", "userId": "alice", "source": "camera", "reason": reason, **more}


def with_left_out(*rows: dict[str, str], phase: str = "Capturing") -> View:
    """An attempt that tells of tracks that cannot be recorded."""
    return a_view(**RUNNING, reports=[capturing(phase=phase, unrecorded=list(rows))])


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        pytest.param(a_view(jobs=[a_job()], pods=[a_pod()]), "Unknown/NotStarted", id="not-armed"),
        pytest.param(with_left_out(), "False/AllTracksRecorded", id="none"),
        pytest.param(with_left_out(left_out()), "True/EndToEndEncrypted", id="encrypted"),
        pytest.param(with_left_out(left_out(reason="CodecUnsupported")), "True/UnsupportedCodec", id="codec"),
        pytest.param(with_left_out(left_out(reason="SubscriptionRefused")), "True/TrackRefused", id="refused"),
        pytest.param(with_left_out(left_out(reason="SomethingNew")), "True/TrackRefused", id="of-a-newer-recorder"),
        pytest.param(
            with_left_out(left_out(reason="CodecUnsupported"), left_out(2)), "True/EndToEndEncrypted", id="both"
        ),
        pytest.param(
            a_view(
                jobs=[a_job(1).failed(), a_job(2)],
                pods=[a_pod(1).ended(75), a_pod(2).running()],
                reports=[capturing(1, unrecorded=[left_out()]), capturing(2)],
            ),
            "True/EndToEndEncrypted",
            id="of-an-earlier-attempt",
        ),
        pytest.param(
            a_view(
                jobs=[a_job().complete()],
                pods=[a_pod().ended(0, said={"complete": False, "unrecorded": [left_out(reason="NoMedia")]})],
                reports=[capturing()],
            ),
            "True/TrackRefused",
            id="known-at-the-end-only",
        ),
    ],
)
def test_tracks_that_cannot_be_recorded_are_told_by_a_condition(view: View, expected: str) -> None:
    found = conditions(status_of(view))
    assert found["TracksUnrecorded"] == expected


def test_the_rest_is_recorded_all_the_same() -> None:
    found = conditions(status_of(with_left_out(left_out())))
    assert (found["Ready"], found["Stalled"]) == ("True/Capturing", "False/Reconciled")


def told(view: View) -> str:
    return next(c.message for c in status_of(view).conditions if c.type == "TracksUnrecorded")


def test_the_condition_names_who_what_why_and_what_to_do() -> None:
    codec = left_out(2, "CodecUnsupported", userId="bob", source="screenshare", message="video offered as H266")
    text = told(with_left_out(left_out(message="the track is end-to-end encrypted"), codec))
    assert text == (
        "not recorded: alice camera (end-to-end encrypted), bob screenshare (codec not supported: video offered as H266)."
        " The recorder has no key: what is to be recorded must be published without end-to-end encryption."
        " Clients must publish Opus, PCMU, PCMA or G722, and VP8, VP9, AV1, H264 or H265."
    )


@pytest.mark.parametrize(
    ("count", "more"), [(5, ""), (6, " and 1 more"), (49, " and 44 more"), (50, " and at least 45 more")]
)
def test_the_condition_names_five_and_counts_the_rest(count: int, more: str) -> None:
    text = told(with_left_out(*(left_out(n, userId=f"u{n}") for n in range(count))))
    assert text.startswith("not recorded: u0 camera (")
    assert f"u4 camera (end-to-end encrypted){more}. The recorder" in text


def test_hostile_names_are_cut_and_on_one_line() -> None:
    nasty = "\u202e\x1b[2J\n" * 40
    reasons = ("Encrypted", "SubscriptionRefused", "CodecUnsupported", "N" * 63, "M" * 63)
    rows = [left_out(n, reasons[n % 5], userId=nasty, message=nasty) for n in range(50)]
    text = told(with_left_out(*rows))
    assert len(text) < 1024
    assert text.endswith("H265."), "what to do is not cut away"
    assert text.isprintable()


def test_what_was_not_recorded_stays_so_when_its_report_is_gone() -> None:
    """A recorder and an agent that begin again may know of less; their words came with the reports."""
    first = status_of(with_left_out(left_out()))
    view = again(with_left_out(left_out()), first, attempts=())
    later = {c.type: c for c in status_of(view).conditions}["TracksUnrecorded"]
    assert later in first.conditions


def test_bytes_in_the_spool_alone_are_no_news() -> None:
    """They change every second; each write of a Recording wakes everybody who watches it."""
    reports = [capturing(spool={"level": "Filling", "usedBytes": used, "capacityBytes": 100}) for used in (61, 62)]
    old, new = (dump(status_of(a_view(**RUNNING, reports=[report]))) for report in reports)
    assert not is_news(old, new, counters=True)


def test_manifest_and_totals_are_as_the_finaliser_says() -> None:
    digest = "sha256:" + "a" * 64
    said = {"files": 3, "bytes": 7, "lostMs": 4200, "manifestUri": "s3://b/f/recording.json", "manifestDigest": digest}
    status = status_of(
        a_view(
            a_recording(desiredState="Stopped"),
            jobs=[a_job().failed(), a_finaliser().complete()],
            pods=[a_finaliser_pod(0, complete=False, **said)],
            reports=[capturing()],
        )
    )
    assert status.manifest is not None
    assert (status.manifest.uri, status.manifest.digest) == ("s3://b/f/recording.json", digest)
    assert status.totals is not None
    assert (status.totals.files, status.totals.bytes, status.totals.lost_seconds) == (3, 7, 5)


def again(view: View, status: RecordingStatus, **changes: Any) -> View:
    """The same view after the status was written."""
    body = view.recording.to_object() | {"status": dump(status)}
    fields = {name: getattr(view, name) for name in View.__dataclass_fields__}
    return View(**(fields | {"recording": Recording.from_object(body)} | changes))


def a_file(name: str) -> dict[str, Any]:
    """A file in a report."""
    size: dict[str, Any] = {"durationMs": 1, "bytes": 5, "startOffsetMs": 0}
    return {"name": name, "outputType": "audio_video", "userId": "a", "peerId": "p", **size}


def test_nothing_to_write_the_second_time() -> None:
    """Otherwise the operator's own write would wake it for ever."""
    for view in (a_view(call=Call(exists=False)), a_view(**RUNNING, reports=[capturing()])):
        first = status_of(view)
        second = again(view, first)
        assert not is_news(dump(first), dump(status_of(second)), counters=False)


def test_progress_figures_alone_are_no_news() -> None:
    """Each report would rewrite the Recording under every watch."""

    def written(size: int, files: int) -> dict[str, Any]:
        totals = {"bytes": size, "files": files, "participants": 2, "lostSeconds": 0}
        return dump(status_of(a_view(**RUNNING, reports=[capturing(totals=totals)])))

    assert not is_news(written(10, 1), written(99, 1), counters=False)
    assert is_news(written(10, 1), written(99, 1), counters=True)
    assert is_news(written(10, 1), written(10, 2), counters=False)


def test_stop_is_latched() -> None:
    first = status_of(a_view(a_recording(desiredState="Stopped"), **RUNNING, desired_by="kubectl-patch"))
    assert first.stop_request is not None
    assert first.stop_request.by == "desiredState (kubectl-patch)"
    resumed = a_recording(desiredState="Running").status(stopRequest=first.stop_request.model_dump(by_alias=True))
    view = a_view(resumed, **RUNNING)
    assert view.stop_requested
    assert status_of(view).stop_request == first.stop_request


def test_last_transition_time_moves_with_the_status_only() -> None:
    old = {"type": "Ready", "status": "False", "reason": "Starting", "message": "", "lastTransitionTime": ago(20)}
    view = a_view(a_recording().status(conditions=[old]), call=Call(exists=False))
    ready = next(c for c in status_of(view).conditions if c.type == "Ready")
    assert (ready.status, ready.reason, ready.last_transition_time) == (
        ConditionStatus.FALSE,
        "WaitingForCall",
        ago(20),
    )


def test_transitions_are_numbered_without_holes_and_bounded() -> None:
    old = [
        {"seq": n, "phase": "Recording", "reason": "Capturing" if n % 2 else "Reconnecting", "time": ago(99)}
        for n in range(1, 51)
    ]
    view = a_view(a_recording().status(transitions=old), **RUNNING, reports=[capturing()])
    transitions = status_of(view).transitions
    assert [t.seq for t in transitions] == list(range(2, 52))
    assert transitions[-1].reason == "Capturing"


def test_mute_after_the_first_media_is_no_transition() -> None:
    old = [{"seq": 1, "phase": "Recording", "reason": "Capturing", "time": ago(9)}]
    view = a_view(a_recording().status(transitions=old), **RUNNING, reports=[capturing(phase="Armed")])
    assert len(status_of(view).transitions) == 1


def test_attempts_files_and_totals_are_summed() -> None:
    view = a_view(
        jobs=[a_job(1).failed(), a_job(2)],
        pods=[a_pod(1).ended(75), a_pod(2).running()],
        reports=[
            capturing(1, files=[a_file("a1")], totals={"files": 1, "bytes": 5, "participants": 2, "lostSeconds": 1}),
            capturing(2, files=[a_file("a2")], totals={"files": 1, "bytes": 6, "participants": 3, "lostSeconds": 0}),
        ],
    )
    status = status_of(view)
    assert [(a.n, a.result.value if a.result else None, a.job) for a in status.attempts] == [
        (1, "Drained", job_name(1)),
        (2, None, job_name(2)),
    ]
    assert [f.name for f in status.files] == ["a1", "a2"]
    assert status.totals is not None
    assert (status.totals.files, status.totals.bytes, status.totals.participants, status.totals.lost_seconds) == (
        2,
        11,
        3,
        1,
    )


@pytest.mark.parametrize("finished", [False, True])
def test_of_more_files_than_it_holds_the_status_has_the_newest_and_is_written_once(finished: bool) -> None:
    """Else each write of the status would bring about the next one, for ever."""
    files = [a_file(f"f{number:03}") for number in range(3 * MAX_STATUS_FILES)]
    recording = a_recording().finished() if finished else a_recording()
    status = status_of(a_view(recording, **RUNNING, reports=[capturing(files=files[:70])]))
    assert [file.name for file in status.files] == [file["name"] for file in files[20:70]]
    view = again(a_view(recording, **RUNNING, reports=[capturing(files=files)]), status)
    for _ in range(2):
        status = status_of(view)
        assert [file.name for file in status.files] == [file["name"] for file in files[-MAX_STATUS_FILES:]]
        view = again(view, status)
    assert not is_news(dump(status), dump(status_of(view)), counters=True)


def test_files_of_reports_that_are_gone_stay_before_those_that_are_told() -> None:
    status = status_of(a_view(**RUNNING, reports=[capturing(files=[a_file(f"a{number:02}") for number in range(40)])]))
    view = again(a_view(**RUNNING, reports=[capturing(files=[a_file(f"b{number}") for number in range(15)])]), status)
    names = [file.name for file in status_of(view).files]
    assert names == [f"a{number:02}" for number in range(5, 40)] + [f"b{number}" for number in range(15)]
    assert not is_news(dump(status_of(view)), dump(status_of(again(view, status_of(view)))), counters=True)


def test_last_agent_counts_the_whole_recording() -> None:
    """Its termination message sums over all attempts: it is not added to what reports said."""
    said = {
        "files": 2,
        "bytes": 11,
        "participants": 3,
        "lostMs": 1500,
        "manifestUri": "s3://b/k/recording.json",
        "manifestDigest": "sha256:" + "a" * 64,
    }
    view = a_view(
        jobs=[a_job().complete()],
        pods=[a_pod().ended(0, said=said)],
        reports=[capturing(totals={"files": 1, "bytes": 6, "participants": 3, "lostSeconds": 0})],
    )
    status = status_of(view)
    assert status.totals is not None
    assert (status.totals.files, status.totals.bytes, status.totals.lost_seconds) == (2, 11, 2)
    assert status.manifest is not None
    assert status.manifest.uri == "s3://b/k/recording.json"


def test_manifest_of_one_attempt_is_not_that_of_the_recording() -> None:
    said = {"manifestUri": "s3://b/k/attempts/1/manifest.json", "manifestDigest": "sha256:" + "a" * 64}
    view = a_view(jobs=[a_job().failed(), a_job(2)], pods=[a_pod().ended(75, said=said), a_pod(2)])
    assert status_of(view).manifest is None


def test_manifest_of_a_strange_shape_is_left_out() -> None:
    view = a_view(
        jobs=[a_job().complete()], pods=[a_pod().ended(0, said={"manifestUri": "http://evil", "manifestDigest": "x"})]
    )
    assert status_of(view).manifest is None


def test_start_and_end_are_latched() -> None:
    started = a_recording().status(startedAt=ago(100), epochMs=5, stoppedAt=ago(3))
    status = status_of(a_view(started, **ENDED, reports=[capturing()]))
    assert (status.started_at, status.epoch_ms, status.stopped_at) == (ago(100), 5, ago(3))
    assert status.duration_seconds == 97


def test_the_session_of_the_call_is_the_newest_that_an_attempt_told() -> None:
    """A restarted SFU gives the call a new one, and the next attempt must look for that."""
    started = a_recording().status(callSid="RM_0")
    assert status_of(a_view(started, jobs=[a_job()], reports=[a_report()])).call_sid == "RM_0"
    reports = [capturing(callSid="RM_1"), capturing(2, callSid="RM_2")]
    view = a_view(started, jobs=[a_job().failed(), a_job(2)], pods=[a_pod().ended(75), a_pod(2)], reports=reports)
    assert status_of(view).call_sid == "RM_2"


def test_late_edit_of_a_finished_recording_is_observed_and_nothing_else() -> None:
    """kstatus waits for observedGeneration; the verdict stands."""
    recording = a_recording(desiredState="Paused").finished().with_("metadata.generation", 9)
    status = status_of(a_view(recording))
    assert status.observed_generation == 9
    assert [(c.type, c.reason) for c in status.conditions] == [("Finished", "CallEnded"), ("Succeeded", "Uploaded")]


def test_report_that_comes_after_the_end_still_counts() -> None:
    file = {
        "name": "f",
        "outputType": "audio_video",
        "userId": "a",
        "peerId": "p",
        "durationMs": 1,
        "bytes": 5,
        "startOffsetMs": 0,
    }
    view = a_view(a_recording().finished(), **ENDED, reports=[capturing(files=[file], totals={"files": 1, "bytes": 5})])
    status = status_of(view)
    assert [f.name for f in status.files] == ["f"]
    assert conditions(status) == {"Finished": "True/CallEnded", "Succeeded": "True/Uploaded"}


def test_long_and_strange_messages_stay_within_the_bounds_of_the_api() -> None:
    said = {"reason": "x" * 500, "message": "y\n\x00" * 3000, "stopReason": "Nonsense"}
    for pod in (
        a_pod().ended(1, said=said),
        a_pod().ended(1, said="\U0001f600" * 4000),
        a_pod().waiting("ErrImagePull", "z" * 9999),
    ):
        view = a_view(jobs=[a_job()], pods=[pod], reports=[a_report(message="m" * 1024, reason="R" * 63)])
        RecordingStatus.model_validate(dump(status_of(view)))
