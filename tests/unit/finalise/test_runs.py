"""What is done with runs of frames at once is what is done with one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isotrack_api.base import Container, MediaKind, OutputType
from isotrack_recorder.finalise.lanes import PictureWriter, Placed
from isotrack_recorder.finalise.local import finish_local
from isotrack_recorder.finalise.outputs import Lane, PartDraft
from isotrack_recorder.finalise.parts import begin_part
from isotrack_recorder.spool.reader import Spool
from support.media import opus_packets, video_frames
from support.spools import MONO_NS, SECOND, Call, Sender, an_intent, steady, tone

LOG = "i0001/t0001"


def a_call(folder: Path) -> Call:
    call = Call(folder)
    call.person("PA_a", "alice", left=40)
    call.track("t0001", "PA_a", "alice", "microphone", "opus", 0.1)
    call.frames("t0001", Sender(drift_ppm=80), 48_000, tone(opus_packets(1000) * 2, 0.5)[:1900], lost=range(300, 330, 7),
                reports=[2, 12, 22, 32])  # fmt: skip
    call.track("t0002", "PA_a", "alice", "camera", "vp8", 0.1)
    call.frames("t0002", Sender(), 90_000, steady(video_frames(300) * 4, 0.6, 1 / 30)[:1150], lost=(400, 401, 777),
                reports=[3, 13, 23, 33])  # fmt: skip
    for at, width in ((0.7, 160), (10.0, 320), (20.0, 160)):
        call.event("size", at, track="t0002", timestamp=Call.ticks(Sender(), 90_000, at, 100_000), width=width,
                   height=120, rotation=0)  # fmt: skip
    return call


def test_a_codec_that_may_come_changes_nothing_about_the_frames_before_it(tmp_path: Path) -> None:
    """With it in sight each frame is looked at by itself."""
    made = []
    for name in ("alone", "followed"):
        call = a_call(tmp_path / name / "spool")
        if name == "followed":
            call.codec("t0001", "pcmu", 39.9)
            call.codec("t0002", "h264", 39.9)
        manifest = finish_local(call.write(stop=40), an_intent(), tmp_path / name / "files")
        made.append(
            ({path.name: path.read_bytes() for path in (tmp_path / name / "files").glob("*.mkv")}, manifest.files)
        )
    assert made[0][0]
    assert made[0] == made[1]


@st.composite
def pictures(draw: st.DrawFn) -> list[Placed]:
    """Pictures of one log: usual ones, and all that is to be told of."""
    found, ns, damaged = [], 0, False
    rows = draw(st.lists(st.tuples(st.sampled_from((0, 400_000, 33_000_000, 40_000_000, 70_000_000, 2_500_000_000)),
                                   st.booleans(), st.integers(0, 9)), min_size=2, max_size=60))  # fmt: skip
    for number, (step, key, chance) in enumerate(rows):
        ns += step
        key = key or number == 0
        damaged = (damaged or chance == 9) and not key
        data = b"\x10\0\0\x9d\x01\x2a" + bytes([number]) * (number % 7)
        found.append(
            Placed(
                MONO_NS + SECOND + ns, LOG, ns * 9 // 100_000, 0, data, key, 3 * (chance == 8), damaged, 0, 1, number
            )
        )
    return found


@pytest.fixture(scope="module")
def spool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spool]:
    call = Call(tmp_path_factory.mktemp("runs"))
    call.person("PA_a", "alice", left=300)
    call.track("t0001", "PA_a", "alice", "camera", "vp8", 0.1)
    for at, width in ((0, 160), (30_000, 320), (30_001, 640), (200_000, 160)):
        call.event("size", 0.2, track="t0001", timestamp=at, width=width, height=120, rotation=0)
    call.event("muted", 1.05, track="t0001")
    call.event("unmuted", 1.1, track="t0001")
    spool = Spool(call.write(stop=300))
    spool.refresh()
    return spool


@settings(max_examples=200, deadline=None)
@given(frames=pictures(), cuts=st.sets(st.integers(1, 59)), beside_sound=st.booleans())
def test_pictures_make_the_same_blocks_and_account_in_runs_of_any_length(
    spool: Spool, frames: list[Placed], cuts: set[int], beside_sound: bool
) -> None:
    facts, intent = spool.facts, an_intent()
    track = facts.tracks[LOG]
    lane = Lane(MediaKind.VIDEO, 1, track.source, track.codecs[0].codec, track.track_id, LOG)
    draft = PartDraft(OutputType.VIDEO_ONLY, (lane,), frames[0].ns, 1, 1, None, Container.MKV)
    states = [begin_part(draft, intent.layers[0], "PA_a", facts, intent, ()) for _ in range(2)]
    alone, runs = (PictureWriter(state.plan, state.picture, facts) for state in states if state.picture is not None)
    ends = [*sorted(cut for cut in cuts if cut < len(frames)), len(frames)]
    one_by_one = [alone._write_one(frame, beside_sound=beside_sound) for frame in frames]
    at_once = []
    for start, end in zip([0, *ends], ends):
        at_once += runs.write(frames[start:end], beside_sound=beside_sound)
    assert at_once == one_by_one
    assert states[0] == states[1]
