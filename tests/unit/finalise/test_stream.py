"""Files that are made while the spool grows are those that are made afterwards, however they came to be."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isotrack_api.base import OutputType
from isotrack_api.intent import Intent
from isotrack_api.manifest import GapReason
from isotrack_recorder.errors import ParseError
from isotrack_recorder.finalise.groups import HOLD_NS, SPOOL_LAG_NS
from isotrack_recorder.finalise.local import finish_local
from isotrack_recorder.finalise.model import HEAD_BYTES, FileResult
from isotrack_recorder.finalise.saved import SessionState
from isotrack_recorder.finalise.session import SessionStream
from isotrack_recorder.matroska.reader import blocks, read_file
from isotrack_recorder.spool.reader import Position, Spool
from isotrack_recorder.timeline.session import GROUP_SECONDS, LOOK_AHEAD_SECONDS
from support.files import MemoryFiles
from support.media import opus_packets, video_frames
from support.spools import SECOND, Call, Sender, an_intent, steady, tone

BEHIND = HOLD_NS / SECOND + SPOOL_LAG_NS / SECOND + LOOK_AHEAD_SECONDS + 2 * GROUP_SECONDS + 1
"""Seconds by which files follow the journal at most."""
SENDER = Sender(drift_ppm=150, wall_error=-3000, jitter=lambda n: 0.4 if n % 190 > 180 else (n * 7 % 11) * 0.0007)


def beats(call: Call, end: float) -> None:
    """Totals every five seconds, as a recorder journals them."""
    for n in range(1, int(end / 5)):
        call.event("counters", 5.0 * n, track="t0001", packets=n)


def mute_and_drift(call: Call) -> None:
    call.person("PA_a", "alice", left=75)
    call.track("t0001", "PA_a", "alice", "microphone", "opus", 0.1)
    call.track("t0002", "PA_a", "alice", "camera", "vp8", 0.1)
    packets = opus_packets(1000)
    call.frames("t0001", SENDER, 48_000, tone(packets, 0.5) + tone(packets[:700], 55.0), lost=range(200, 220),
                reports=[2 + 5 * n for n in range(14)])  # fmt: skip
    call.event("muted", 20.6, track="t0001")
    call.event("unmuted", 54.9, track="t0001")
    call.frames("t0002", SENDER, 90_000, steady(video_frames(600) * 3, 0.6, 1 / 30), base=3,
                reports=[3 + 2 * n for n in range(30)])  # fmt: skip
    call.event("size", 0.7, track="t0002", timestamp=0, width=160, height=120, rotation=0)


def late_camera_of_two_codecs(call: Call) -> None:
    call.person("PA_a", "alice", left=100)
    call.track("t0001", "PA_a", "alice", "microphone", "opus", 0.1)
    call.frames("t0001", SENDER, 48_000, tone(opus_packets(1000) * 5, 0.5)[:4900], reports=[2, 30, 70])
    call.track("t0002", "PA_a", "alice", "camera", "vp8", 70)
    call.frames("t0002", SENDER, 90_000, steady(video_frames(300), 71, 1 / 30), base=0)
    call.codec("t0002", "h264", 81.045)
    call.frames("t0002", SENDER, 90_000, steady(video_frames(300, "h264"), 81, 1 / 30), base=0, new_ssrc=False)


def republished_and_twice(call: Call) -> None:
    call.person("PA_a", "alice", left=60)
    for log, at in (("t0001", 1.0), ("t0002", 14.8), ("t0003", 25.0)):
        call.track(log, "PA_a", "alice", "camera", "vp8", at, ended=at + 14)
        call.frames(log, SENDER, 90_000, steady(video_frames(420), at, 1 / 30))
    call.track("t0004", "PA_a", "alice", "microphone", "opus", 0.5)
    call.frames("t0004", SENDER, 48_000, tone(opus_packets(1000) * 3, 0.5)[:2500])
    call.track("t0005", "PA_a", "alice", "screenshare", "vp8", 5)
    call.frames("t0005", SENDER, 90_000, steady(video_frames(60), 5, 1))


def pictures_outlast_sound(call: Call) -> None:
    """Before a long pause of both, and at the end."""
    call.person("PA_a", "alice", left=100)
    call.track("t0001", "PA_a", "alice", "microphone", "opus", 0.1)
    call.track("t0002", "PA_a", "alice", "camera", "vp8", 0.1)
    call.event("size", 0.7, track="t0002", timestamp=0, width=160, height=120, rotation=0)
    packets, pictures = opus_packets(1000) * 2, video_frames(600) * 2
    call.frames("t0001", SENDER, 48_000, tone(packets[:1000], 0.5) + tone(packets[:500], 75.0), lost=range(300, 600),
                reports=[2, 7, 12, 17])  # fmt: skip
    call.frames("t0002", SENDER, 90_000, steady(pictures[:990], 0.6, 1 / 33) + steady(pictures[:600], 75.0, 1 / 33),
                base=3, reports=[3 + 2 * n for n in range(14)])  # fmt: skip


CALLS = [mute_and_drift, late_camera_of_two_codecs, republished_and_twice, pictures_outlast_sound]
Made = dict[str, tuple[bytes, FileResult]]


def made(stream: SessionStream, files: MemoryFiles) -> Made:
    return {
        part.plan.name: (bytes(files.files[part.plan.name]), part.result)
        for part in stream.state.parts
        if part.result is not None
    }


def in_one_go(path: Path, intent: Intent) -> Made:
    spool, files = Spool(path), MemoryFiles()
    spool.refresh()
    stream = SessionStream(spool, intent, SessionState("PA_a"), files)
    assert not stream.advance(whole=True)
    return made(stream, files)


@pytest.fixture(scope="module", params=CALLS, ids=lambda call: call.__name__)
def grown(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A whole spool, and how long its call lasted."""
    write: Callable[[Call], None] = request.param
    call = Call(tmp_path_factory.mktemp("whole") / "spool")
    write(call)
    beats(call, 110)
    return call.write(stop=110), 110


def test_frames_that_are_written_at_once_lie_where_they_would_one_by_one(
    grown: tuple[Path, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing is to be decided, the order of frames of different logs does not matter."""
    intent = an_intent(output_types=tuple(OutputType))
    at_once = in_one_go(grown[0], intent)
    monkeypatch.setattr(SessionStream, "_settled", lambda _self, _runs: None)
    assert in_one_go(grown[0], intent) == at_once


def prefixes(source: Path, target: Path, cuts: list[float]) -> Iterator[None]:
    """Let a copy of a spool grow: each file by its share of the frames until a moment."""
    from isotrack_recorder.spool.journal import decode_journal
    from isotrack_recorder.spool.records import MAGIC, decode_records
    from support.spools import MONO_NS

    shutil.rmtree(target, ignore_errors=True)
    for cut in cuts:
        limit = MONO_NS + round(cut * SECOND)
        for path in sorted(source.glob("i*/*")):
            data = path.read_bytes()
            if path.name.endswith(".log"):
                end = len(MAGIC)
                for record, behind in decode_records(data):
                    if record.arrival_ns > limit:
                        break
                    end = behind
                kept = data[:end] if end > len(MAGIC) else b""
            else:
                lines = data.splitlines(keepends=True)
                kept = b"".join(line for line, event in zip(lines, decode_journal(data)) if event["at"] <= limit)
            copy = target / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            if kept:
                copy.write_bytes(kept)
        yield


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    cuts=st.lists(st.floats(0.5, 109), max_size=25),
    killed=st.sets(st.integers(0, 25)),
    groups=st.sampled_from([None, 1, 3]),
)
def test_live_files_are_those_made_afterwards(
    grown: tuple[Path, float],
    tmp_path_factory: pytest.TempPathFactory,
    cuts: list[float],
    killed: set[int],
    groups: int | None,
) -> None:
    """Fed at random moments, in random steps, and by process after process that knows the saved state only."""
    source, end = grown
    target = tmp_path_factory.mktemp("growing") / "spool"
    intent = an_intent(output_types=tuple(OutputType))
    files = MemoryFiles()
    stream: SessionStream | None = None
    saved = b""
    steps = [*sorted(cuts), end]
    for number, _ in enumerate(prefixes(source, target, steps)):
        if stream is None:
            spool = Spool(target)
            spool.refresh()
            stream = SessionStream.restore(spool, intent, saved, files) if saved else SessionStream(
                spool, intent, SessionState("PA_a"), files
            )  # fmt: skip
        spool.refresh()
        if spool.facts.tracks:
            whole = number == len(steps) - 1
            while stream.advance(whole=whole, most_groups=groups):
                pass
        saved = stream.save()
        if number in killed and number < len(steps) - 1:
            stream = None
    assert stream is not None
    assert made(stream, files) == in_one_go(source, intent)


def test_losses_of_a_long_call_are_known_once_and_forgotten(tmp_path: Path) -> None:
    """Of a bad path of a day there are a hundred thousand, which all stayed in memory twice. What they told is told."""
    call = Call(tmp_path / "spool")
    call.person("PA_a", "alice", left=250)
    call.track("t0001", "PA_a", "alice", "microphone", "opus", 0.1)
    lost = [number + more for number in range(2, 11_990, 4) for more in range(1 + number % 3)]
    call.frames("t0001", SENDER, 48_000, tone(opus_packets(1000) * 12, 0.5), lost=lost)
    beats(call, 251)
    source, intent = call.write(stop=251), an_intent(output_types=(OutputType.AUDIO_ONLY,))
    whole = in_one_go(source, intent)
    spool, files = Spool(source), MemoryFiles()
    spool.refresh()
    stream = SessionStream(spool, intent, SessionState("PA_a"), files)
    known = list[int]()
    while stream.advance(whole=True, most_groups=6):
        known += [len(walk.lost) for walk in stream._walks.values()]
        assert spool.facts.tracks["i0001/t0001"].losses == []
        if stream.state.group is not None and stream.state.group % 4 == 0:
            spool.restore_taken(["i0001/t0001"])
            stream = SessionStream.restore(spool, intent, stream.save(), files)
    assert made(stream, files) == whole
    assert [part.sound.packets_lost for part in stream.state.parts if part.sound] == [len(lost)]
    assert known[0] > 2000
    assert known[-1] < 1100


def test_a_process_that_died_between_two_saves_is_made_good(grown: tuple[Path, float], tmp_path: Path) -> None:
    """What was written behind the saved state is written again, the same; what the state calls settled is not touched."""
    source, _ = grown
    intent, files = an_intent(), MemoryFiles()
    spool = Spool(tmp_path / "spool")
    for _ in prefixes(source, spool.path, [62.0]):
        pass
    spool.refresh()
    stream = SessionStream(spool, intent, SessionState("PA_a"), files)
    stream.advance(whole=False, most_groups=4)
    saved = stream.save()
    open_parts = [part.plan.name for part in stream.state.parts if part.result is None]
    settled = {name: bytes(files.files[name][HEAD_BYTES : stream.settled(name)]) for name in open_parts}
    stream.advance(whole=False)
    whole = Spool(source)
    whole.refresh()
    again = SessionStream.restore(whole, intent, saved, files)
    again.advance(whole=True)
    finished = made(again, files)
    assert finished == in_one_go(source, intent)
    for name, body in settled.items():
        assert finished[name][0][HEAD_BYTES : HEAD_BYTES + len(body)] == body


def test_frames_before_the_positions_are_not_needed(tmp_path: Path) -> None:
    """The spool may be given back behind a saved state."""
    call = Call(tmp_path / "spool")
    mute_and_drift(call)
    beats(call, 110)
    source = call.write(stop=110)
    whole = in_one_go(source, an_intent())
    spool, files = Spool(source), MemoryFiles()
    spool.refresh()
    stream = SessionStream(spool, an_intent(), SessionState("PA_a"), files)
    while stream.advance(whole=False, most_groups=1) and not all(at.segment > 1 for at in stream.positions().values()):
        pass
    assert all(position > Position(2) for position in stream.positions().values())
    saved = stream.save()
    for path in source.glob("i0001/*.000001.log"):
        path.unlink()
    fresh = Spool(source)
    fresh.refresh()
    again = SessionStream.restore(fresh, an_intent(), saved, files)
    again.advance(whole=True)
    assert made(again, files) == whole


@pytest.mark.parametrize("until", [50.0, 71.3])
def test_files_follow_the_call(tmp_path: Path, until: float) -> None:
    """What is left to be written at the end is some seconds of media, whatever the length of the call."""
    call = Call(tmp_path / "spool")
    mute_and_drift(call)
    beats(call, 110)
    spool, files = Spool(call.write(until=until)), MemoryFiles()
    spool.refresh()
    stream = SessionStream(spool, an_intent(), SessionState("PA_a"), files)
    stream.advance(whole=False)
    (part,) = stream.state.parts
    assert part.plan.zero_ns + part.mux.end_ns >= spool.facts.last_ns - BEHIND * SECOND


def test_sound_has_no_hole_and_blocks_come_in_order(grown: tuple[Path, float]) -> None:
    """Through losses and mutes, key frames and the borders of steps: silence lies between the pictures of its time."""
    for content, result in in_one_go(grown[0], an_intent()).values():
        newest, sound = 0, 0
        for block in blocks(content, read_file(content)):
            assert block.time_ms >= newest - 40
            newest = max(newest, block.time_ms)
            if result.lanes[block.track - 1].codec == "opus":
                assert -18 <= block.time_ms - sound <= 1, "packets of 20 ms (or less, of silence) adjoin"
                sound = block.time_ms + 20


def test_an_hour_of_mute_is_filled_while_it_lasts(tmp_path: Path) -> None:
    """Sound is never far behind the pictures beside it, and the mute is one gap."""
    call = Call(tmp_path / "spool")
    call.person("PA_a", "alice", left=3700)
    call.track("t0001", "PA_a", "alice", "microphone", "opus", 0.1)
    call.frames("t0001", Sender(), 48_000, tone(opus_packets(200), 0.5) + tone(opus_packets(200), 3650.0))
    call.event("muted", 4.6, track="t0001")
    call.event("unmuted", 3649.9, track="t0001")
    call.track("t0002", "PA_a", "alice", "camera", "vp8", 0.1)
    call.frames("t0002", Sender(), 90_000, steady(video_frames(300) * 13, 0.6, 1.0)[:3690])
    spool = call.write(stop=3701)
    (file,) = finish_local(spool, an_intent(), tmp_path / "out").files
    content = (tmp_path / "out" / file.name).read_bytes()
    newest = {1: 0, 2: 0}
    for block in blocks(content, read_file(content)):
        newest[block.track] = block.time_ms
        assert newest[2] - newest[1] <= 1040
    sound = next(track for track in file.tracks if track.codec == "opus")
    assert sound.frames == 400
    muted = [gap for gap in sound.gaps if gap.reason is GapReason.MUTED]
    assert [gap.duration_ms for gap in muted] == [pytest.approx(3_645_500, abs=50)]


@pytest.mark.parametrize("limit", [60_000, 150_000])
def test_a_file_of_the_greatest_size_goes_on_in_the_next_part(tmp_path: Path, limit: int) -> None:
    call = Call(tmp_path / "spool")
    mute_and_drift(call)
    spool, files = Spool(call.write(stop=110)), MemoryFiles()
    spool.refresh()
    stream = SessionStream(spool, an_intent(), SessionState("PA_a"), files, max_file_bytes=limit)
    stream.advance(whole=True)
    parts = made(stream, files)
    assert len(parts) > 2
    plans = [part.plan for part in stream.state.parts]
    assert [plan.part for plan in plans] == list(range(1, len(plans) + 1))
    assert all(plan.reason == "the part before is full" for plan in plans[1:])
    whole = next(iter(in_one_go(spool.path, an_intent()).values()))[1]
    for kind in range(2):
        assert sum(result.lanes[kind].frames for _, result in parts.values()) == whole.lanes[kind].frames
    for content, _ in parts.values():
        first = {}
        for block in blocks(content, read_file(content)):
            first.setdefault(block.track, block)
        assert first[2].key
        assert len(content) < limit + 200_000


@pytest.mark.parametrize(
    "saved", [b"", b"{}", b"[]", b'{"peer_id": "PA_a", "version": 99}', b'{"peer_id": 7}', b"\xff"]
)
def test_what_is_no_state_is_refused(tmp_path: Path, saved: bytes) -> None:
    with pytest.raises(ParseError):
        SessionStream.restore(Spool(tmp_path), an_intent(), saved, MemoryFiles())


def test_a_state_is_small(grown: tuple[Path, float]) -> None:
    """It is written every half minute."""
    spool, files = Spool(grown[0]), MemoryFiles()
    spool.refresh()
    stream = SessionStream(spool, an_intent(), SessionState("PA_a"), files)
    stream.advance(whole=False)
    assert len(stream.save()) < 120_000
    assert hashlib.sha256(stream.save()).digest() == hashlib.sha256(stream.save()).digest()
