"""What was found against what the manifest says, case by case."""

from __future__ import annotations

from typing import Any

import pytest

from isotrack_api.base import Container, MediaKind, OutputType, TrackSource
from isotrack_api.manifest import Gap, GapReason, ManifestFile, ManifestTrack
from isotrack_recorder.checksums import FileDigest
from isotrack_recorder.finalise.summary import summarise
from isotrack_recorder.verify.judge import MAX_PROBLEMS, judge
from isotrack_recorder.verify.seen import MAX_HOLES, Hole, Seen, SeenError, SeenStream

OFFSET = 5_000
"""Where the file lies on the call's timeline."""
SHA = "0" * 64
DIGEST = FileDigest(0xDEADBEEF, SHA, "2" * 64, 8_388_608)


def sound(**changed: Any) -> ManifestTrack:
    """500 packets of 20 ms, 200 ms of silence put in at 2 s of the file."""
    values: dict[str, Any] = {
        "track_id": "TR_a", "source": TrackSource.MICROPHONE, "kind": MediaKind.AUDIO, "codec": "opus", "start_ms": OFFSET,
        "end_ms": OFFSET + 10_200, "frames": 500, "key_frames": 0, "packets": 500, "packets_lost": 10, "packets_recovered": 0,
        "media_bytes": 50_000, "silence_ms": 200, "gaps": (gap(2_000, 200),),
    }  # fmt: skip
    return ManifestTrack(**values | changed)


def film(**changed: Any) -> ManifestTrack:
    """210 pictures; three seconds are missing at 4 s of the file, those of the next second are made from them."""
    values: dict[str, Any] = {
        "track_id": "TR_v", "source": TrackSource.CAMERA, "kind": MediaKind.VIDEO, "codec": "vp8", "start_ms": OFFSET + 100,
        "end_ms": OFFSET + 10_200, "frames": 210, "key_frames": 4, "packets": 900, "packets_lost": 90, "packets_recovered": 0,
        "media_bytes": 500_000, "drift_ppm": 12.0, "gaps": (gap(4_033, 2_967), gap(7_000, 1_000, GapReason.DAMAGED)),
    }  # fmt: skip
    return ManifestTrack(**values | changed)


def gap(at_ms: int, length_ms: int, reason: GapReason = GapReason.LOST) -> Gap:
    """A gap, its place counted from the file's zero."""
    return Gap(start_ms=OFFSET + at_ms, duration_ms=length_ms, reason=reason)


def file(*tracks: ManifestTrack, **changed: Any) -> ManifestFile:
    values: dict[str, Any] = {
        "name": "a.mkv", "attempt": 1, "layer": "default", "output_type": OutputType.AUDIO_VIDEO, "container": Container.MKV,
        "user_id": "alice", "peer_id": "PA_a", "start_offset_ms": OFFSET, "duration_ms": 10_200, "bytes": 600_000, "sha256": SHA,
        "av_offset_ms": 1.0,
        "tracks": tracks or (sound(), film()),
    }  # fmt: skip
    return ManifestFile(**values | changed)


def heard(**changed: Any) -> SeenStream:
    values: dict[str, Any] = {
        "kind": MediaKind.AUDIO, "codec": "opus", "packets": 510, "bytes": 50_030, "first_ms": 0, "last_ms": 10_180,
        "first_key": True, "decoded": 510, "decoded_ms": 10_200, "silence_ms": 200, "silences": 1, "first_sound_ms": 0,
        "silent": (Hole(start_ms=2_000, end_ms=2_200),), "tags": {"SOURCE": "microphone", "TRACK_ID": "TR_a"},
    }  # fmt: skip
    return SeenStream(**values | changed)


def shown(**changed: Any) -> SeenStream:
    values: dict[str, Any] = {
        "kind": MediaKind.VIDEO, "codec": "vp8", "packets": 210, "bytes": 500_000, "first_ms": 100, "last_ms": 10_167,
        "first_key": True, "decoded": 210, "holes": (Hole(start_ms=4_000, end_ms=7_000),),
    }  # fmt: skip
    return SeenStream(**values | changed)


def seen(*streams: SeenStream, **changed: Any) -> Seen:
    tags = {"USER_ID": "alice", "PEER_ID": "PA_a", "START_OFFSET_MS": str(OFFSET)}
    values: dict[str, Any] = {
        "start_ms": 0,
        "duration_ms": 10_200,
        "tags": tags,
        "streams": streams or (heard(), shown()),
    }
    return Seen(**values | changed)


def error(at_ms: float) -> dict[str, Any]:
    return {"error_count": 1, "errors": (SeenError(at_ms=at_ms, text="bad"),)}


def test_what_agrees_is_proven_with_its_numbers() -> None:
    verdict = judge(file(), 600_000, DIGEST, seen())
    assert verdict.problems == ()
    assert verdict.summary == summarise(file())
    assert [(track.codec, track.present, track.drift_ppm) for track in verdict.tracks] == [
        ("opus", 500, None),
        ("vp8", 210, 12.0),
    ]
    assert [(track.gaps_seen, track.gaps_declared) for track in verdict.tracks] == [(1, 1), (1, 2)]
    assert [(track.start_ms, track.declared_start_ms) for track in verdict.tracks] == [(0, 0), (100, 100)]
    assert (verdict.lost_ms, verdict.av_offset_ms, verdict.declared_av_offset_ms) == (4_167, 1.0, 1.0)


def test_pictures_that_lie_elsewhere_are_out_of_step_by_as_much() -> None:
    verdict = judge(file(), 600_000, DIGEST, seen(heard(), shown(first_ms=140)))
    assert (verdict.av_offset_ms, verdict.declared_av_offset_ms) == (41.0, 1.0)
    assert "A/V offset +41 ms, pictures from 0.140 s on" in verdict.summary
    assert judge(file(av_offset_ms=None), 600_000, DIGEST, seen()).av_offset_ms is None


@pytest.mark.parametrize(
    ("found", "same"),
    [
        pytest.param(seen(heard(first_sound_ms=1_000), shown()), True, id="a-client-began-with-silence"),
        pytest.param(seen(heard(first_sound_ms=None), shown()), True, id="all-silent"),
        pytest.param(seen(heard(), shown(first_ms=104)), True, id="rounded"),
        pytest.param(seen(heard(), shown(first_ms=140)), False, id="pictures-later"),
        pytest.param(seen(duration_ms=10_300), False, id="longer"),
        pytest.param(seen(heard(holes=(Hole(start_ms=20, end_ms=80),)), shown()), False, id="one-gap-more"),
        pytest.param(seen(heard(), shown(codec="vp9")), False, id="other-codec"),
        pytest.param(seen(heard()), False, id="track-missing"),
    ],
)  # fmt: skip
def test_the_line_differs_where_the_file_does(found: Seen, same: bool) -> None:
    assert (judge(file(), 600_000, DIGEST, found).summary == summarise(file())) is same


def test_sound_of_a_fast_clock_may_decode_to_more_by_what_is_declared() -> None:
    entry = file(sound(overlap_ms=180), film())
    assert judge(entry, 600_000, DIGEST, seen(heard(decoded_ms=10_380), shown())).ok
    assert not judge(entry, 600_000, DIGEST, seen()).ok
    assert not judge(file(), 600_000, DIGEST, seen(heard(decoded_ms=10_380), shown())).ok


LINE = (
    "opus 500 frames (98.0 % of packets), 1 gap, vp8 210 frames (90.9 % of packets), 2 gaps, 4.17 s lost, "
    "drift +12 ppm (pictures), A/V offset +1 ms, pictures from 0.100 s on, 10.20 s"
)
STEP = "A/V offset +1 ms, pictures from 0.100 s on"


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("", id="none"),
        pytest.param(LINE, id="ours"),
        pytest.param(LINE.replace(" (pictures)", ""), id="drift-as-version-0.1-began"),
        pytest.param(LINE.replace("98.0 %", "98.1 %"), id="shares-rounded-up-as-version-0.1-began"),
        pytest.param(LINE.replace(STEP, "A/V +100 ms"), id="first-frames-as-version-0.1-began"),
        pytest.param(LINE.removesuffix(", 10.20 s"), id="fewer-facts"),
        pytest.param(f"{LINE}, 12 dB of noise, 3 people", id="more-facts"),
        pytest.param("sound whole, pictures nearly", id="other-words"),
    ],
)
def test_a_summary_of_another_version_may_have_other_words(line: str) -> None:
    assert summarise(file()) == LINE
    assert judge(file(summary=line), 600_000, DIGEST, seen()).problems == ()


@pytest.mark.parametrize(
    ("said", "instead"),
    [
        ("4.17 s lost", "0.00 s lost"),
        ("90.9 %", "100.0 %"),
        ("98.0 % of packets), 1 gap", "98.0 % of packets), 0 gaps"),
        ("vp8 210 frames", "vp8 211 frames"),
        ("vp8 210 frames", "av1 210 frames"),
        ("+12 ppm", "+1 ppm"),
        ("A/V offset +1 ms", "A/V offset +9 ms"),
        ("pictures from 0.100 s on", "pictures from 2.100 s on"),
        (STEP, "A/V +0 ms"),
        (", 10.20 s", ", 20.20 s"),
        (", vp8 210 frames (90.9 % of packets), 2 gaps", ""),
        ("90.9 %", f"{'9' * 800}.9 %"),
    ],
)
def test_a_summary_that_says_something_else_is_told(said: str, instead: str) -> None:
    boasting = file(summary=LINE.replace(said, instead))
    assert boasting.summary != LINE
    problems = judge(boasting, 600_000, DIGEST, seen()).problems
    assert problems
    assert all(problem.startswith("the summary in the manifest says ") for problem in problems)


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        pytest.param(seen(problem="breaks off: x"), "breaks off: x", id="cut-off"),
        pytest.param(seen(start_ms=1), "the file starts at 1.0 ms instead of 0", id="late-start"),
        pytest.param(seen(duration_ms=10_203), "duration is 10203 ms, the manifest says 10200 ms", id="container-duration"),
        pytest.param(seen(heard()), "holds opus, the manifest says opus + vp8", id="track-missing"),
        pytest.param(seen(heard(), shown(codec="vp9")), "holds opus + vp9, the manifest says opus + vp8", id="other-codec"),
        pytest.param(seen(heard(decoded_ms=10_179), shown()), "10179 ms of sound decode", id="sound-too-short"),
        pytest.param(seen(heard(decoded_ms=10_221), shown()), "10221 ms of sound decode", id="sound-too-long"),
        pytest.param(seen(heard(packets=509, bytes=49_930), shown()), "frames are there, the manifest says 500", id="packet-missing"),
        pytest.param(seen(heard(packets=511, bytes=50_033, silence_ms=220), shown()), None, id="one-more-silence"),
        pytest.param(seen(heard(silence_ms=100), shown()), "100 ms of silence are there", id="silence-missing"),
        pytest.param(
            seen(heard(holes=(Hole(start_ms=20, end_ms=80),)), shown()), "undeclared gap: nothing for 60 ms", id="sound-with-hole"
        ),
        pytest.param(seen(heard(**error(100)), shown()), "microphone: does not decode at 0.10 s", id="bad-packet"),
        pytest.param(seen(heard(first_sound_ms=None), shown()), None, id="all-silent"),
        pytest.param(seen(heard(), shown(packets=209)), "camera: 209 frames are there, the manifest says 210", id="picture-missing"),
        pytest.param(seen(heard(), shown(first_key=False)), "does not begin with a key frame", id="no-key"),
        pytest.param(seen(heard(), shown(first_ms=106)), "begins at 106 ms of the file, the manifest says 100 ms", id="late-picture"),
        pytest.param(seen(heard(), shown(decoded=0)), "nothing of it decodes", id="nothing-decodes"),
        pytest.param(
            seen(heard(), shown(holes=(Hole(start_ms=3_700, end_ms=7_000),))), "undeclared gap: 0.33 s at 3.70 s", id="longer-gap"
        ),
        pytest.param(seen(heard(), shown(holes=())), None, id="gap-not-visible"),
        pytest.param(seen(heard(), shown(**error(7_500))), None, id="bad-picture-made-from-lost-ones"),
        pytest.param(seen(heard(), shown(**error(8_500))), "does not decode at 8.50 s", id="bad-picture-behind-the-damage"),
        pytest.param(seen(heard(), shown(**error(3_500))), "does not decode at 3.50 s", id="bad-picture-before-the-loss"),
    ],
)  # fmt: skip
def test_what_contradicts_the_manifest_is_named(found: Seen, problem: str | None) -> None:
    problems = judge(file(), 600_000, DIGEST, found).problems
    if problem is None:
        assert problems == ()
    else:
        assert any(problem in text for text in problems), problems


@pytest.mark.parametrize(
    ("declared", "problem"),
    [
        pytest.param(file(sound(gaps=()), film()), "undeclared gap: 200 ms of silence were put in", id="silence-undeclared"),
        pytest.param(
            file(sound(gaps=(gap(-3_000, 3_000, GapReason.MUTED),)), film()), "undeclared gap: 200 ms", id="muted-before-the-file-only"
        ),
        pytest.param(file(sound(gaps=(gap(-3_000, 3_000, GapReason.MUTED), gap(2_000, 200))), film()), None, id="muted-before"),
        pytest.param(file(sound(), film(gaps=())), "undeclared gap: 3.00 s at 4.00 s", id="gap-undeclared"),
        pytest.param(file(sound(), film(gaps=(gap(4_033, 1_000), gap(5_033, 1_967)))), None, id="two-gaps-cover-one"),
        pytest.param(file(sound(), film(gaps=(gap(4_033, 1_000),))), "undeclared gap", id="half-declared"),
        pytest.param(file(sound(start_ms=OFFSET + 40), film()), "microphone: begins at 0 ms of the file", id="sound-earlier"),
        pytest.param(
            file(sound(gaps=(gap(3_000, 200),)), film()), "there is sound at 3.00 s of the file, where the manifest", id="gap-elsewhere"
        ),
        pytest.param(file(sound(gaps=(gap(2_000, 3_000),)), film()), "there is sound at 2.00 s", id="gap-longer-than-the-silence"),
        pytest.param(
            file(sound(gaps=(gap(2_000, 3_000).model_copy(update={"missing_ms": 200}),)), film()), None, id="gaps-told-as-one"
        ),
        pytest.param(file(sound(gaps=(gap(2_000, 500),)), film()), None, id="losses-told-as-one-by-an-earlier-version"),
        pytest.param(file(sound(gaps=(gap(2_000, 500, GapReason.SILENT),)), film()), None, id="comfort-noise-in-it"),
        pytest.param(
            file(sound(gaps=(gap(2_000, 200), gap(3_000, 200, GapReason.MUTED))), film()), "there is sound at 3.00 s", id="mute-that-was-none"
        ),
        pytest.param(file(sound(end_ms=OFFSET + 10_400), film()), "ends at 10400 ms of a file of 10200 ms", id="sound-ends-later"),
        pytest.param(file(sound(), film(end_ms=OFFSET + 10_300)), "its last picture lies at 10167 ms", id="pictures-end-later"),
        pytest.param(file(sound(), film(end_ms=OFFSET + 10_100)), "its last picture lies at 10167 ms", id="pictures-end-earlier"),
        pytest.param(file(user_id="bob"), "the file's tag USER_ID is 'alice', the manifest says 'bob'", id="somebody-else"),
        pytest.param(file(participant_name="Alice"), None, id="no-such-tag"),
        pytest.param(file(sound(track_id="TR_b"), film()), "TRACK_ID is 'TR_a', the manifest says 'TR_b'", id="another-track"),
        pytest.param(file(sound(source=TrackSource.SCREENSHARE_AUDIO), film()), "SOURCE is 'microphone'", id="another-source"),
        pytest.param(file(bytes=600_001), "600000 bytes, the manifest says 600001", id="size"),
        pytest.param(file(sha256="1" * 64), "sha256 differs", id="digest"),
        pytest.param(file(crc32="deadbee0"), "crc32 differs", id="crc"),
        pytest.param(
            file(sha256=None, parts_sha256="1" * 64, part_bytes=8_388_608), "partsSha256 differs", id="digest-of-parts"
        ),
    ],
)  # fmt: skip
def test_what_the_manifest_leaves_out_is_named(declared: ManifestFile, problem: str | None) -> None:
    problems = judge(declared, 600_000, DIGEST, seen()).problems
    assert problems == () if problem is None else any(problem in text for text in problems), problems


def test_a_file_that_lies_elsewhere_in_the_call_than_it_says_is_named() -> None:
    """Nothing in it moves: only its tag tells."""
    moved = [{"start_ms": row.start_ms + 700, "end_ms": row.end_ms + 700} for row in (sound(gaps=()), film(gaps=()))]
    declared = file(
        sound(**moved[0], gaps=(gap(2_700, 200),)),
        film(**moved[1], gaps=(gap(4_733, 2_967),)),
        start_offset_ms=OFFSET + 700,
    )
    problems = judge(declared, 600_000, DIGEST, seen()).problems
    assert problems == ("the file's tag START_OFFSET_MS is '5000', the manifest says '5700'",)


@pytest.mark.parametrize(
    ("said", "same"), [("\N{REPLACEMENT CHARACTER}li", True), ("\N{REPLACEMENT CHARACTER}l", False), ("Ali", False)]
)
def test_a_name_that_an_earlier_version_could_not_write_is_that_name(said: str, same: bool) -> None:
    problems = judge(
        file(participant_name="\N{ZERO WIDTH JOINER}li"), 600_000, DIGEST, seen(tags={"PARTICIPANT": said})
    ).problems
    assert (problems == ()) is same


def test_of_sound_in_pieces_the_known_silence_counts() -> None:
    """Only the first stretches of silence are told; of gaps behind them nothing is said."""
    many = tuple(Hole(start_ms=n, end_ms=n + 0.5) for n in range(MAX_HOLES))
    found = seen(heard(silent=many, silence_ms=200), shown())
    declared = file(sound(gaps=(gap(10_000, 200),)), film())
    assert judge(declared, 600_000, DIGEST, found).problems == ()


def test_pictures_that_do_not_decode_are_excused_by_losses_only() -> None:
    """A muted camera is no reason for a damaged picture."""
    found = seen(heard(), shown(**error(7_500)))
    muted = film(gaps=(gap(4_033, 2_967), gap(7_000, 1_000, GapReason.MUTED)))
    assert any("does not decode" in text for text in judge(file(sound(), muted), 600_000, DIGEST, found).problems)


def test_g711_is_counted_by_its_bytes() -> None:
    track = sound(codec="pcmu", media_bytes=80_000, silence_ms=200)
    stream = heard(codec="pcmu", bytes=81_600)
    assert judge(file(track, film()), 600_000, DIGEST, seen(stream, shown())).ok
    short = heard(codec="pcmu", bytes=79_840)
    problems = judge(file(track, film()), 600_000, DIGEST, seen(short, shown())).problems
    assert any("79840 bytes are there" in text for text in problems)


def test_problems_are_bounded() -> None:
    holes = tuple(Hole(start_ms=100.0 * n, end_ms=100.0 * n + 60) for n in range(500))
    problems = judge(file(), 600_000, DIGEST, seen(heard(holes=holes), shown())).problems
    assert len(problems) == MAX_PROBLEMS + 1
    assert problems[-1] == "and 480 more"
