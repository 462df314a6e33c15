"""What people do with their devices in mid-call, and what of it lies in the files."""

from __future__ import annotations

from itertools import pairwise

import pytest

from isotrack_api.base import MediaKind, TrackSource
from isotrack_api.manifest import Gap, GapReason, ManifestFile
from support.call import Call
from support.ledger import Ledger
from support.people import Action, Deed, People, Person, Picture, Source
from support.recording_check import Checked, allowance, check_recording

pytestmark = pytest.mark.realtime

QUIET_SECONDS = 3
SETTLE_SECONDS = 4
"""Until sender reports came of all tracks."""
EDGE_SECONDS = 0.5
"""Between what a person does and what comes of it. Clients wait 0.2 s before they suppress silence."""
HICCUP_MS = 500
"""Shorter gaps are those of a publisher without a processor."""
KEY_FRAME_SECONDS = 1.0
"""Pictures come back with a key frame that the SFU asks for."""


def do(people: People, deed: Deed, what: Source, *who: str) -> None:
    """Have some people do the same."""
    people.do(*(Action(who=identity, do=deed, what=what) for identity in who))


def gaps_of(file: ManifestFile, kind: MediaKind) -> list[Gap]:
    """As the manifest lists them, of the only track of a kind."""
    (track,) = (track for track in file.tracks if track.kind is kind)
    return [gap for gap in track.gaps if gap.duration_ms >= HICCUP_MS]


def instants(checked: Checked, ledger: Ledger, what: Source, *events: str) -> list[float]:
    """When a person did something, in seconds of the file."""
    return [ledger.event(event, checked.file.user_id, what)["t"] - checked.placement.zero for event in events]


def stretch(checked: Checked, gap: Gap) -> tuple[float, float]:
    """A declared gap in seconds of the file."""
    begin = (gap.start_ms - checked.file.start_offset_ms) / 1000
    return begin, begin + gap.duration_ms / 1000


def test_a_muted_camera_is_a_declared_gap_that_ends_with_a_key_frame(call: Call) -> None:
    """Cameras are muted while their sound goes on, are shown again, and are unpublished before the end."""
    who = ("alice", "bob")
    cast = [Person(identity="alice"), Person(identity="bob", camera=Picture(codec="h264", pre_encoded=True))]
    with call.people(cast) as people, call.recorded(people, *who) as recorder:
        people.play(SETTLE_SECONDS)
        do(people, "mute", "camera", *who)
        recorder.wait("muted", nth=2)
        people.play(QUIET_SECONDS)
        do(people, "unmute", "camera", *who)
        recorder.wait("unmuted", nth=2)
        people.play(3)
        do(people, "unpublish", "camera", *who)
        recorder.wait("track_ended", nth=2)
        people.play(1)
        recorder.interrupt()
        ended = recorder.ended()
    assert ended.code == 0, ended.stderr
    ledger = Ledger.load(people.ledger)
    recorded = check_recording(call.output, people.cast, ledger)
    assert recorded.manifest.complete
    assert recorded.manifest.lost_ms == 0
    for identity in who:
        checked = recorded.one(identity)
        assert_muted_pictures(checked, ledger, allowance(people.cast, ledger))
        assert gaps_of(checked.file, MediaKind.AUDIO) == [], f"{identity} was heard all the time"


def assert_muted_pictures(checked: Checked, ledger: Ledger, late: float) -> None:
    """From mute to unmute there is no picture, and the manifest says why; what an SFU or a client fills in is none."""
    film = checked.media.film
    assert film
    muted, unmuted = instants(checked, ledger, "camera", "muted", "unmuted")
    (gap,) = gaps_of(checked.file, MediaKind.VIDEO)
    assert gap.reason is GapReason.MUTED
    begin, end = stretch(checked, gap)
    assert abs(begin - muted) < EDGE_SECONDS + late
    assert -EDGE_SECONDS < end - unmuted < KEY_FRAME_SECONDS + late
    (holes,) = [(a.at, b.at) for a, b in pairwise(film.pictures) if b.at - a.at > QUIET_SECONDS / 2]
    assert holes[0] == pytest.approx(begin, abs=0.1)
    assert holes[1] == pytest.approx(end, abs=0.01)
    assert holes[1] in film.keys
    assert film.unreadable == 0, "pictures that nobody showed"
    assert film.sizes == {(320, 240)}
    assert film.pictures[-1].at > unmuted + 2


def test_a_camera_that_is_muted_when_the_recorder_comes_says_so_until_its_first_picture(call: Call) -> None:
    """Nothing in the file would tell: it begins with the sound. Where the pictures begin is no fault of their sync."""
    with call.people([Person(identity="alice")]) as people:
        people.join("alice")
        do(people, "mute", "camera", "alice")
        with call.record() as recorder:
            recorder.recording("alice", "microphone")
            people.play(SETTLE_SECONDS)
            do(people, "unmute", "camera", "alice")
            recorder.recording("alice", "camera")
            people.play(SETTLE_SECONDS)
            recorder.interrupt()
            ended = recorder.ended()
    assert ended.code == 0, ended.stderr
    ledger = Ledger.load(people.ledger)
    checked = check_recording(call.output, people.cast, ledger).one("alice")
    film = checked.media.film
    assert film
    (unmuted,) = instants(checked, ledger, "camera", "unmuted")
    (camera,) = (track for track in checked.file.tracks if track.kind is MediaKind.VIDEO)
    muted, *rest = camera.gaps
    assert (muted.reason, muted.start_ms) == (GapReason.MUTED, pytest.approx(0, abs=1000 * EDGE_SECONDS))
    late = allowance(people.cast, ledger)
    assert -EDGE_SECONDS < stretch(checked, muted)[1] - unmuted < KEY_FRAME_SECONDS + late
    assert max(stretch(checked, gap)[1] for gap in (muted, *rest[:1])) >= film.pictures[0].at - 0.01
    assert checked.file.av_offset_ms == pytest.approx(0, abs=20)
    begins_ms = camera.start_ms - checked.file.start_offset_ms
    assert begins_ms == pytest.approx(film.pictures[0].at * 1000, abs=2)
    assert f", pictures from {begins_ms / 1000:.3f} s on, " in checked.file.summary


def test_mute_silence_suppression_and_encryption(call: Call) -> None:
    """Alice mutes, Bob's client sends next to nothing while he is silent, of Carol nothing can be recorded."""
    cast = [
        Person(identity="alice", camera=None),
        Person(identity="bob", camera=None, dtx=True),
        Person(identity="carol", encrypted=True),
    ]
    with call.people(cast) as people:
        people.join("carol")
        with call.recorded(people, "alice", "bob") as recorder:
            people.play(SETTLE_SECONDS)
            do(people, "mute", "microphone", "alice")
            do(people, "hush", "microphone", "bob")
            recorder.wait("muted")
            people.play(QUIET_SECONDS)
            do(people, "unmute", "microphone", "alice")
            do(people, "speak", "microphone", "bob")
            recorder.wait("unmuted")
            people.play(3)
            recorder.interrupt()
            ended = recorder.ended()
    assert ended.code == 0, ended.stderr
    ledger = Ledger.load(people.ledger)
    recorded = check_recording(call.output, people.cast, ledger)
    late = allowance(people.cast, ledger)
    alice, bob = recorded.one("alice"), recorded.one("bob")
    assert_one_silence(alice, GapReason.MUTED, instants(alice, ledger, "microphone", "muted", "unmuted"), late)
    assert_one_silence(bob, GapReason.SILENT, instants(bob, ledger, "microphone", "hushed", "spoken"), late)
    (track,) = bob.file.tracks
    assert track.frames < bob.media.duration * 50 - 100, "Bob's client did suppress silence"
    assert {checked.file.user_id for checked in recorded.files} == {"alice", "bob"}
    assert not recorded.manifest.complete
    assert {(row.user_id, row.source, row.reason) for row in recorded.manifest.unrecorded} == {
        ("carol", TrackSource.MICROPHONE, "Encrypted"),
        ("carol", TrackSource.CAMERA, "Encrypted"),
    }
    assert "carol camera: not recorded, end-to-end encrypted" in ended.stderr


def assert_one_silence(checked: Checked, reason: GapReason, quiet: list[float], late: float) -> None:
    """Sound is as long as its file, silent in this stretch alone, and only this is declared missing."""
    sound = checked.media.sound
    assert sound
    assert abs(sound.seconds - checked.media.duration) <= 0.02
    (gap,) = gaps_of(checked.file, MediaKind.AUDIO)
    assert gap.reason is reason
    (silence,) = ((begin, end) for begin, end in sound.silences if end - begin >= HICCUP_MS / 1000)
    for found in (stretch(checked, gap), silence):
        for edge, done in zip(found, quiet, strict=True):
            assert abs(edge - done) < EDGE_SECONDS + late, (found, quiet)
