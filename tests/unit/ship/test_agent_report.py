"""What the agent tells, and that it fits where it is put."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from isotrack_api.base import SpoolLevel, TrackSource
from isotrack_api.manifest import Gap, GapReason, StopReason, UnrecordedTrack
from isotrack_api.recording_report import (
    MAX_REPORT_FILES,
    MAX_REPORT_TRACKS,
    MAX_REPORT_UNRECORDED,
    ReportPhase,
    ReportStatus,
    SpoolReport,
)
from isotrack_recorder.control import SpoolState, State, TrackState, UnrecordedState
from isotrack_recorder.pod.agent_report import (
    TERMINATION_BYTES,
    Ending,
    Facts,
    report_of,
    termination_message,
    timestamp,
    transition_of,
)
from isotrack_recorder.ship.commit import Committed
from isotrack_recorder.ship.deliver import Delivered
from support.manifests import a_file, a_manifest, a_track

NOW_MS = 1_760_000_000_123


def a_track_state(number: int = 1, **values: Any) -> TrackState:
    named = {"track": f"t{number:04}", "track_id": "TR", "user_id": "alice", "peer_id": "PA", **values}
    return TrackState(**{"source": TrackSource.CAMERA, **named})


def test_before_the_recorder_spoke_the_attempt_is_starting() -> None:
    assert report_of(Facts(None), NOW_MS).phase is ReportPhase.STARTING


def test_progress_is_shown_as_the_recorder_tells_it() -> None:
    tracks = (a_track_state(1, ended=True), a_track_state(2, frames=7, width=640, height=360))
    state = State(
        phase="Capturing", call_sid="RM_1", armed_at_ms=5, first_packet_at_ms=6, participants=3, tracks=tracks
    )
    report = report_of(Facts(state, epoch_ms=4), NOW_MS)
    assert report.phase is ReportPhase.CAPTURING
    assert (report.call_sid, report.armed_at_ms, report.first_packet_at_ms, report.epoch_ms) == ("RM_1", 5, 6, 4)
    assert [track.id for track in report.tracks] == ["i0-t0002", "i0-t0001"], "running ones come first"
    assert report.last_update == "2025-10-09T08:53:20.123Z"


def test_counters_of_a_track_are_all_told() -> None:
    counted = {"packets": 9, "lost": 1, "recovered": 2, "late": 3, "frames": 8, "media_bytes": 700, "plis": 4}
    track = a_track_state(**counted, size_changes=5, last_packet_age_ms=6_900)
    (told,) = report_of(Facts(State(phase="Capturing", tracks=(track,))), NOW_MS).tracks
    assert (told.packets, told.packets_lost, told.packets_recovered, told.packets_late) == (9, 1, 2, 3)
    assert (told.frames, told.media_bytes, told.key_frame_requests, told.size_changes) == (8, 700, 4, 5)
    assert told.last_packet_age_seconds == 6


def test_after_capture_the_attempt_is_uploading_until_its_end() -> None:
    state = State(phase="Stopped", stop_reason=StopReason.CALL_ENDED)
    assert report_of(Facts(state), NOW_MS).phase is ReportPhase.UPLOADING
    assert report_of(Facts(State(phase="Capturing"), capture_over=True), NOW_MS).phase is ReportPhase.UPLOADING
    assert report_of(Facts(state, ending=ReportPhase.DRAINED), NOW_MS).phase is ReportPhase.DRAINED


def test_restarts_of_the_recorder_are_told() -> None:
    once, often = (report_of(Facts(State(phase="Capturing"), restarts=n), NOW_MS) for n in (1, 5))
    assert (once.reason, often.reason) == (None, "RecorderCrashing")
    assert "once" in (once.message or "")
    assert "5 times" in (often.message or "")


def test_totals_count_delivered_files_and_lost_media_once() -> None:
    gaps = (Gap(start_ms=0, duration_ms=1200, reason=GapReason.LOST), Gap(start_ms=5000, duration_ms=9, reason="Muted"))
    track = a_track(gaps=gaps)
    files = (a_file(name="a", bytes=5, tracks=(track,)), a_file(name="b", bytes=6, tracks=(track,)))
    totals = report_of(Facts(None, files=files, participants_seen=4), NOW_MS).totals
    assert totals is not None
    assert (totals.files, totals.bytes, totals.lost_seconds, totals.participants) == (2, 11, 2, 4)


def test_lists_are_cut_to_what_an_object_may_hold() -> None:
    state = State(phase="Capturing", tracks=tuple(a_track_state(number) for number in range(MAX_REPORT_TRACKS + 5)))
    files = tuple(a_file(name=f"{number}.mkv", start_offset_ms=number) for number in range(MAX_REPORT_FILES + 5))
    report = report_of(Facts(state, files=files), NOW_MS)
    assert (len(report.tracks), len(report.files)) == (MAX_REPORT_TRACKS, MAX_REPORT_FILES)
    assert report.files[-1].name == f"{MAX_REPORT_FILES + 4}.mkv", "the newest are kept"


def a_left_out(number: int = 1, **values: Any) -> UnrecordedState:
    named = {"track_id": f"TR_{number}", "user_id": "alice", "reason": "Encrypted", **values}
    return UnrecordedState(**{"source": TrackSource.CAMERA, **named})


def test_tracks_that_cannot_be_recorded_are_told_at_once_and_bounded() -> None:
    none, one, many, more = (
        report_of(Facts(State(phase="Armed", unrecorded=tuple(a_left_out(n) for n in range(count)))), NOW_MS)
        for count in (0, 1, MAX_REPORT_UNRECORDED, MAX_REPORT_UNRECORDED + 5)
    )
    assert transition_of(none) != transition_of(one) != transition_of(many) == transition_of(more)
    assert [(row.id, row.user_id, row.source, row.reason) for row in one.unrecorded] == [
        ("TR_0", "alice", "camera", "Encrypted")
    ]
    assert len(more.unrecorded) == MAX_REPORT_UNRECORDED


def test_room_of_the_spool_is_told_while_something_is_captured() -> None:
    spool = SpoolState(level=SpoolLevel.CAMERA_SHED, used=81, capacity=100)
    state = State(
        phase="Capturing", spool=spool, tracks=(a_track_state(shed=True), a_track_state(2, shed=True, ended=True))
    )
    report = report_of(Facts(state), NOW_MS)
    assert report.spool == SpoolReport(level=SpoolLevel.CAMERA_SHED, used_bytes=81, capacity_bytes=100)
    assert [track.shed for track in report.tracks] == [True, False], "what has ended misses nothing any more"
    assert report_of(Facts(state, capture_over=True), NOW_MS).spool is None


def test_a_level_is_worth_telling_at_once_and_bytes_are_not() -> None:
    few, more, shed = (
        report_of(Facts(State(phase="Capturing", spool=SpoolState(level=level, used=used, capacity=100))), NOW_MS)
        for level, used in ((SpoolLevel.FILLING, 61), (SpoolLevel.FILLING, 79), (SpoolLevel.CAMERA_SHED, 80))
    )
    assert transition_of(few) == transition_of(more) != transition_of(shed)


def test_counters_alone_are_no_transition() -> None:
    calm, busy, other = (
        report_of(Facts(State(phase=phase, tracks=(a_track_state(packets=packets),))), NOW_MS + packets)
        for phase, packets in (("Capturing", 1), ("Capturing", 2000), ("Paused", 2000))
    )
    assert transition_of(calm) == transition_of(busy)
    assert transition_of(busy) != transition_of(other)


texts = st.text(max_size=3000)


@example(name="n" * 300, message="m" * 3000, sid="s" * 129, track_id="t" * 300, width=70_000)
@given(name=texts, message=texts, sid=texts, track_id=st.text(max_size=300), width=st.integers(-5, 2**40))
def test_whatever_the_recorder_says_a_report_comes_out(
    name: str, message: str, sid: str, track_id: str, width: int
) -> None:
    track = a_track_state(track=(name or "t")[:200], track_id=track_id, codec=name, width=width, height=width)
    left_out = (
        a_left_out(track_id=track_id[:128], user_id=(name or "u")[:256], reason=name[:64], message=message[:512]),
    )
    state = State(
        phase="Failed", message=message, call_sid=sid, error_reason=name, tracks=(track,), unrecorded=left_out * 2
    )
    report = report_of(Facts(state, reason=name, message=message), NOW_MS)
    ReportStatus.model_validate_json(report.to_json())


def an_ending(**values: object) -> Ending:
    defaults: dict[str, object] = {
        "reason": "Uploaded",
        "message": "",
        "stop_reason": StopReason.CALL_ENDED,
        "delivered": None,
        "files": (),
        "epoch_ms": 4,
        "call_sid": "RM_1",
        "participants": 2,
    }
    return Ending(**{**defaults, **values})  # type: ignore[arg-type]


def test_termination_message_counts_the_whole_recording_and_times_the_attempt() -> None:
    whole = a_manifest(files=(a_file(name="a", bytes=3), a_file(name="b", bytes=4, attempt=2)), lost_ms=900)
    own = Committed(a_manifest(n=2), "s3://b/attempts/2/manifest.json", "sha256:" + "1" * 64)
    both = Committed(whole, "s3://b/recording.json", "sha256:" + "2" * 64)
    message = json.loads(termination_message(an_ending(delivered=Delivered((), own, both))))
    assert (message["files"], message["bytes"], message["lostMs"], message["complete"]) == (2, 7, 900, True)
    assert (message["manifestUri"], message["manifestDigest"]) == (both.uri, both.digest)
    assert (message["startedAt"], message["endedAt"]) == ("2026-01-01T10:00:00.000Z", "2026-01-01T10:01:00.000Z")
    assert (message["stopReason"], message["epochMs"], message["callSid"]) == ("CallEnded", 4, "RM_1")


@pytest.mark.parametrize(("complete", "reason"), [(True, "Uploaded"), (False, "PartiallyUploaded")])
def test_termination_message_tells_whether_something_is_missing(complete: bool, reason: str) -> None:
    committed = Committed(a_manifest(complete=complete), "s3://b/recording.json", "sha256:" + "1" * 64)
    message = json.loads(termination_message(an_ending(delivered=Delivered((), committed, committed))))
    assert (message["reason"], message["complete"]) == (reason, complete)


@pytest.mark.parametrize(("complete", "reason"), [(True, None), (False, "PartiallyUploaded")])
def test_the_last_report_tells_whether_something_is_missing(complete: bool, reason: str | None) -> None:
    """The pod, and with it the termination message, may be gone before anybody has read it."""
    committed = Committed(a_manifest(complete=complete), "s3://b/recording.json", "sha256:" + "1" * 64)
    facts = Facts(State(phase="Stopped"), ending=ReportPhase.FINISHED, manifest=committed)
    assert report_of(facts, NOW_MS).reason == reason


def a_missing(number: int = 1, **values: object) -> UnrecordedTrack:
    defaults = {
        "user_id": "alice",
        "peer_id": "PA",
        "track_id": f"TR_{number}",
        "source": "camera",
        "reason": "CodecUnsupported",
    }
    return UnrecordedTrack.model_validate({**defaults, **values})


def test_termination_message_names_the_first_tracks_that_are_in_no_file() -> None:
    rows = (a_missing(user_id="u" * 256), *(a_missing(n, reason="NoMedia") for n in range(2, 9)))
    committed = Committed(a_manifest(complete=False, unrecorded=rows), "s3://b/recording.json", "sha256:" + "1" * 64)
    message = json.loads(termination_message(an_ending(delivered=Delivered((), committed, committed))))
    assert message["unrecorded"][:2] == [
        {"userId": "u" * 39 + "…", "source": "camera", "reason": "CodecUnsupported"},
        {"userId": "alice", "source": "camera", "reason": "NoMedia"},
    ]
    assert (len(message["unrecorded"]), message["unrecordedTracks"]) == (5, 8)


def test_names_of_tracks_give_way_to_the_message_and_their_number_stays() -> None:
    """Reports have the names, too; the message is here only."""
    rows = tuple(a_missing(n, user_id="\U0001f600" * 256) for n in range(9))
    committed = Committed(a_manifest(complete=False, unrecorded=rows), "s3://b/recording.json", "sha256:" + "1" * 64)
    ending = an_ending(message="\U0001f600" * 120, delivered=Delivered((), committed, committed))
    message = json.loads(termination_message(ending))
    assert (message["message"], message["unrecordedTracks"]) == ("\U0001f600" * 120, 9)
    assert "unrecorded" not in message


@given(message=texts, sid=texts, reason=texts, uri=texts, name=st.text(min_size=1, max_size=256))
def test_termination_message_is_json_that_fits(message: str, sid: str, reason: str, uri: str, name: str) -> None:
    rows = tuple(a_missing(n, user_id=name, reason=reason[:64]) for n in range(9))
    committed = Committed(a_manifest(unrecorded=rows), uri, "sha256:" + "1" * 64)
    delivered = Delivered((), committed, None)
    text = termination_message(an_ending(message=message, call_sid=sid, reason=reason, delivered=delivered))
    assert len(text.encode()) <= TERMINATION_BYTES
    json.loads(text)


def test_termination_message_keeps_its_numbers_when_texts_are_too_long() -> None:
    committed = Committed(a_manifest(), "s3://" + "\U0001f600" * 1000, "sha256:" + "1" * 64)
    text = termination_message(an_ending(message="\U0001f600" * 1024, delivered=Delivered((), committed, None)))
    assert json.loads(text)["epochMs"] == 4
    assert len(text) <= TERMINATION_BYTES


def test_timestamps_are_rfc_3339_in_utc() -> None:
    assert timestamp(0) == "1970-01-01T00:00:00.000Z"
