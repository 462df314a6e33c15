"""The judge of fault trials: a good recording passes, and every single thing that can be wrong with one is found."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from faults.evidence import Evidence, Kill, Placed, Published, Recorded, Source, tracks_of
from faults.losses import Loss, histogram, losses
from faults.serials import Stamp, picture, read, sound
from faults.validate import CHECKS, NOTHING_LOST, Bounds, invalid, validate
from isotrack_api.base import MediaKind, TrackSource
from isotrack_api.manifest import Gap, GapReason, Manifest
from isotrack_recorder.finalise.local import finish_local
from support.manifests import a_file, a_manifest, a_track
from support.spools import Call, Sender, an_intent, steady, tone

MICROPHONE = Source("alice", MediaKind.AUDIO)
ZERO = 1_767_261_600.0
"""2026-01-01T10:00:00Z, the zero of `a_manifest`."""
RECORDER = Kill("recorder", ZERO + 5.0, hit=True)
PROCESS_DEATH = Bounds(lost_seconds=1.0, gap_seconds=10.0)
CRASH = Gap(start_ms=4600, duration_ms=1400, reason=GapReason.CRASHED)
BODY = b"a file"


def evidence(gap: Gap | None = CRASH, missing: range = range(230, 300), **changes: Any) -> Evidence:
    """Ten seconds of Alice's microphone: a recorder that was killed at 5.0 s lost what was sent from 4.6 to 6.0 s."""
    track = a_track(gaps=(gap,) if gap else ())
    file = a_file(tracks=(track,), bytes=len(BODY), sha256=hashlib.sha256(BODY).hexdigest())
    manifest = changes.pop("manifest", a_manifest(files=(file,), lost_ms=1400))
    objects = {
        "intent.json": b"{}",
        "attempts/1/intent.json": b"{}",
        "attempts/1/manifest.json": b"{}",
        file.name: BODY,
        "recording.json": manifest.to_json().encode(),
    }
    published = Published(1, 50, {serial: ZERO + serial / 50 for serial in range(500)})
    placed = tuple(Placed(serial, serial * 20.0) for serial in range(500) if serial not in missing)
    values: dict[str, Any] = {
        "published": {MICROPHONE: published},
        "obliged": (ZERO + 1.0, ZERO + 9.0),
        "kills": (RECORDER,),
        "keys": tuple(sorted(objects)),
        "objects": objects,
        "outputs": {"agent.log": b"nothing to hide"},
        "termination": last_words(manifest, objects["recording.json"]),
        "reports": (
            {
                "phase": "Finished",
                "manifest": {"digest": f"sha256:{hashlib.sha256(objects['recording.json']).hexdigest()}"},
                "files": [{"name": file.name, "bytes": file.bytes, "sha256": file.sha256} for file in manifest.files],
            },
        ),
        "secrets": {"the key": "canary-4711"},
        "manifest": manifest,
        "attempts": {1: manifest},
        "recorded": (Recorded(file.name, 1, MICROPHONE, placed, track.gaps),),
    }
    return Evidence(**{**values, **changes})


def last_words(manifest: Manifest, body: bytes) -> dict[str, object]:
    return {
        "reason": "Uploaded",
        "stopReason": str(manifest.stop_reason),
        "files": len(manifest.files),
        "bytes": sum(file.bytes for file in manifest.files),
        "lostMs": manifest.lost_ms,
        "manifestDigest": f"sha256:{hashlib.sha256(body).hexdigest()}",
    }


def recorded(good: Evidence, **changes: Any) -> Evidence:
    return replace(good, recorded=(replace(good.recorded[0], **changes),))


def objects(good: Evidence, **changes: bytes | None) -> Evidence:
    kept = {key: body for key, body in {**good.objects, **changes}.items() if body is not None}
    return replace(good, objects=kept, keys=tuple(sorted(kept)))


def placed(good: Evidence, change: Callable[[list[Placed]], None]) -> Evidence:
    rows = list(good.recorded[0].placed)
    change(rows)
    return recorded(good, placed=tuple(rows))


def swap(rows: list[Placed]) -> None:
    rows[10], rows[11] = rows[11], rows[10]


PLANTED: dict[str, tuple[str, Callable[[Evidence], Evidence]]] = {
    "no-recording-json": (
        "there_is_one_recording_json",
        lambda good: replace(objects(good, **{"recording.json": None}), manifest=None),
    ),
    "a-second-recording-json": (
        "there_is_one_recording_json",
        lambda good: replace(good, keys=(*good.keys, "attempts/1/recording.json")),
    ),
    "an-unreadable-recording-json": ("there_is_one_recording_json", lambda good: replace(good, manifest=None)),
    "a-secret-in-a-log": (
        "no_secret_is_told",
        lambda good: replace(good, outputs={"agent.log": b"key: canary-4711"}),
    ),
    "a-secret-in-an-object": ("no_secret_is_told", lambda good: objects(good, **{"intent.json": b'"canary-4711"'})),
    "a-token-in-a-log": (
        "no_secret_is_told",
        lambda good: replace(
            good, outputs={"agent.log": b"Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJlIQ"}
        ),
    ),
    "incomplete": (
        "manifest_says_whether_it_is_complete",
        lambda good: replace(good, manifest=good.manifest and good.manifest.model_copy(update={"complete": False})),
    ),
    "an-attempt-that-says-otherwise": (
        "attempts_agree_with_it",
        lambda good: replace(good, attempts={1: a_manifest(files=(a_file(bytes=7),))}),
    ),
    "an-attempt-that-is-not-listed": (
        "attempts_agree_with_it",
        lambda good: replace(good, attempts={**good.attempts, 2: a_manifest(n=2)}),
    ),
    "a-missing-file": ("files_are_there_as_listed", lambda good: objects(good, **{a_file().name: None})),
    "a-changed-file": ("files_are_there_as_listed", lambda good: objects(good, **{a_file().name: b"b file"})),
    "an-unreadable-file": ("files_are_there_as_listed", lambda good: replace(good, unreadable=("x.mkv",))),
    "an-unfinished-upload": ("nothing_is_left_over", lambda good: replace(good, uploads=("x.mkv",))),
    "a-checkpoint-after-the-end": (
        "nothing_is_left_over",
        lambda good: objects(good, **{"attempts/1/checkpoints/ab12/00000001.ckpt": b"x"}),
    ),
    "a-file-that-nobody-lists": ("nothing_is_left_over", lambda good: objects(good, **{"old.mkv": b"x"})),
    "last-words-of-something-else": (
        "last_words_agree",
        lambda good: replace(good, termination={**(good.termination or {}), "files": 2}),
    ),
    "no-last-words": ("last_words_agree", lambda good: replace(good, termination={})),
    "a-report-that-never-came": (
        "status_agrees_with_the_bucket",
        lambda good: replace(good, reports=({**good.reports[-1], "phase": "Shipping"},)),
    ),
    "a-report-of-another-manifest": (
        "status_agrees_with_the_bucket",
        lambda good: replace(good, reports=({**good.reports[-1], "manifest": {"digest": "sha256:0"}},)),
    ),
    "a-report-without-a-file": (
        "status_agrees_with_the_bucket",
        lambda good: replace(good, reports=({**good.reports[-1], "files": []},)),
    ),
    "a-file-that-was-announced-and-is-not-there": (
        "status_agrees_with_the_bucket",
        lambda good: replace(
            good, reports=({"files": [{"name": "gone.mkv", "bytes": 1, "sha256": "0"}]}, *good.reports)
        ),
    ),
    "what-nobody-sent": (
        "recorded_was_published",
        lambda good: placed(good, lambda rows: rows.append(Placed(10_000, 9990.0))),
    ),
    "strange-bytes": ("recorded_was_published", lambda good: recorded(good, strange=1)),
    "another-person-s-sound": ("recorded_was_published", lambda good: recorded(good, mixed=(2,))),
    "wrong-order": ("order_is_kept", lambda good: placed(good, swap)),
    "time-runs-back": (
        "order_is_kept",
        lambda good: placed(good, lambda rows: rows.__setitem__(11, Placed(11, 100.0))),
    ),
    "twice": ("nothing_is_there_twice", lambda good: placed(good, lambda rows: rows.insert(10, rows[10]))),
    "twice-in-two-files": (
        "nothing_is_there_twice",
        lambda good: replace(good, recorded=(*good.recorded, replace(good.recorded[0], file="again.mkv"))),
    ),
    "moved-on-the-timeline": (
        "everything_is_in_its_place",
        lambda good: recorded(good, placed=tuple(Placed(p.serial, p.at_ms + 500) for p in good.recorded[0].placed)),
    ),
    "an-undeclared-gap": ("missing_is_declared", lambda good: recorded(good, gaps=())),
    "an-end-that-is-missing-from-what-is-called-complete": (
        "missing_is_declared",
        lambda _: evidence(None, range(400, 500), kills=(replace(RECORDER, at=ZERO + 8.1),)),
    ),
    "a-gap-that-is-too-short": (
        "missing_is_declared",
        lambda good: recorded(good, gaps=(Gap(start_ms=4600, duration_ms=1000, reason=GapReason.CRASHED),)),
    ),
    "a-loss-called-silence": (
        "missing_is_declared",
        lambda good: recorded(good, gaps=(CRASH.model_copy(update={"reason": GapReason.SILENT}),)),
    ),
    "a-loss-without-a-fault": ("loss_is_within_bounds", lambda good: replace(good, kills=())),
    "a-loss-by-a-process-that-may-lose-nothing": (
        "loss_is_within_bounds",
        lambda good: replace(good, kills=(replace(RECORDER, victim="agent"),)),
    ),
    "more-lost-than-promised": (
        "loss_is_within_bounds",
        lambda good: replace(good, kills=(replace(RECORDER, at=ZERO + 5.9),)),
    ),
    "away-for-too-long": (
        "loss_is_within_bounds",
        lambda _: evidence(Gap(start_ms=4600, duration_ms=4400, reason=GapReason.CRASHED), range(230, 500)),
    ),
}


def checks_that_found(judged: Evidence, bounds: Bounds = PROCESS_DEATH) -> set[str]:
    return {finding.check for finding in validate(judged, bounds)}


def test_a_recording_whose_loss_is_declared_and_within_bounds_passes() -> None:
    assert validate(evidence(), PROCESS_DEATH) == ()
    assert invalid(evidence()) == ()


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_violation_is_found(planted: str) -> None:
    check, plant = PLANTED[planted]
    bounds = Bounds(lost_seconds=1.0, gap_seconds=3.0) if planted == "away-for-too-long" else PROCESS_DEATH
    assert check in checks_that_found(plant(evidence()), bounds)


def test_every_check_has_a_violation_that_it_finds() -> None:
    assert {check for check, _ in PLANTED.values()} == {check.__name__ for check in CHECKS}


def test_the_end_of_what_a_lost_pod_captured_is_told_by_the_whole() -> None:
    lost = evidence(None, range(400, 500), kills=(replace(RECORDER, victim="pod", at=ZERO + 8.1),))
    told = replace(lost, manifest=lost.manifest and lost.manifest.model_copy(update={"complete": False}))
    assert "missing_is_declared" not in checks_that_found(told)


def test_a_fault_that_may_cost_nothing_may_cost_nothing() -> None:
    assert checks_that_found(evidence(), NOTHING_LOST) == {"loss_is_within_bounds"}
    assert validate(evidence(None, range(0), kills=(replace(RECORDER, victim="agent"),)), NOTHING_LOST) == ()


@pytest.mark.parametrize(
    ("doubtful", "why"),
    [
        pytest.param({"kills": (replace(RECORDER, hit=False),)}, "hit nothing", id="a-kill-of-what-was-dead"),
        pytest.param({"kills": ()}, "nothing was done", id="no-fault"),
        pytest.param({"faults": {"reset": 2, "slow": 0}}, "slow was not seen", id="a-fault-that-did-not-fire"),
        pytest.param({"published": {}}, "nobody was in the call", id="nobody"),
        pytest.param(
            {"published": {MICROPHONE: Published(1, 50, {0: ZERO})}}, "only 1 payloads", id="hardly-anything-sent"
        ),
    ],
)
def test_a_trial_that_proves_nothing_is_invalid(doubtful: dict[str, Any], why: str) -> None:
    assert any(why in text for text in invalid(evidence(**doubtful)))


def test_what_was_captured_and_what_was_not_are_two_figures() -> None:
    (loss,) = losses(evidence())
    assert (loss.victim, loss.kills) == ("recorder", 1)
    assert (loss.lost_seconds, loss.gap_seconds) == (pytest.approx(0.42, abs=0.001), pytest.approx(1.0, abs=0.001))


def test_kills_with_nothing_recorded_between_them_are_one_death() -> None:
    again = replace(RECORDER, at=ZERO + 5.5)
    (loss,) = losses(evidence(kills=(RECORDER, again)))
    assert loss.kills == 2
    assert loss.gap_seconds == pytest.approx(0.5, abs=0.001)


def test_a_kill_that_costs_nothing_is_counted() -> None:
    elsewhere = Kill("agent", ZERO + 5.0, hit=True)
    assert Loss("agent", 1, 0.0, 0.0) in losses(evidence(kills=(RECORDER, elsewhere)))


def test_a_kill_after_the_call_has_its_share_in_what_is_missing_at_the_end() -> None:
    late = Kill("recorder", ZERO + 9.5, hit=True)
    (loss,) = losses(evidence(None, range(440, 500), kills=(late,)))
    assert loss.lost_seconds == pytest.approx(0.72, abs=0.001)


def test_the_histogram_counts_each_value_once() -> None:
    assert histogram([0.0, 0.1, 0.11, 0.9, 1.0, 5.0], [0.0, 0.1, 0.5, 1.0]) == [2, 1, 2]


@pytest.mark.parametrize(
    "payload",
    [sound(Stamp(3, 70_000)), picture(Stamp(3, 70_000), key=True), picture(Stamp(3, 70_000), key=False, size=5000)],
)
def test_a_payload_says_who_it_is_and_says_nothing_once_it_is_changed(payload: bytes) -> None:
    assert read(payload) == Stamp(3, 70_000)
    assert read(payload[:-1]) is None
    for at in range(len(payload)):
        changed = bytearray(payload)
        changed[at] ^= 0x40
        assert read(bytes(changed)) != Stamp(3, 70_000)


def test_a_real_file_is_taken_apart(tmp_path: Any) -> None:
    """Written by the recorder's own muxer: serials where they were, declared silence no stranger."""
    call = Call(tmp_path / "spool")
    call.person("PA_a", "alice", left=5.0)
    call.track("t0001", "PA_a", "alice", "microphone", "opus", 0.1, ended=4.8)
    packets = [sound(Stamp(1, serial)) for serial in range(200)]
    call.frames("t0001", Sender(), 48_000, tone(packets, 0.5), reports=[1.0], lost=range(50, 60))
    call.track("t0002", "PA_a", "alice", "camera", "vp8", 0.1, ended=4.8)
    frames = [(picture(Stamp(2, serial), key=serial == 0), serial == 0) for serial in range(60)]
    call.frames("t0002", Sender(), 90_000, steady(frames, 0.5, 1 / 15), reports=[1.0])
    call.write(stop=5.0)
    manifest = finish_local(call.spool, an_intent(), tmp_path / "out")
    (file,) = manifest.files
    stamps = {1: MICROPHONE, 2: Source("alice", MediaKind.VIDEO)}
    found = {track.source.name: track for track in tracks_of(file, (tmp_path / "out" / file.name).read_bytes(), stamps)}
    heard, seen = found[TrackSource.MICROPHONE], found[TrackSource.CAMERA]
    assert [placed.serial for placed in heard.placed] == [*range(50), *range(60, 200)]
    assert [placed.serial for placed in seen.placed] == list(range(60))
    assert (heard.strange, seen.strange, heard.mixed, seen.mixed) == (0, 0, (), ())
    assert [gap.reason for gap in heard.gaps] == [GapReason.LOST]
    assert heard.placed[0].at_ms == pytest.approx(530, abs=20)
