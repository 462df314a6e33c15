"""Reading spools that grow, are torn, or are hostile."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isotrack_api.base import MediaKind, TrackSource
from isotrack_api.manifest import StopReason
from isotrack_recorder.spool.facts import Folder, Span
from isotrack_recorder.spool.journal import encode_line
from isotrack_recorder.spool.reader import BEGINNING, Spool
from isotrack_recorder.spool.records import MAGIC, encode_header
from support.spools import MONO_NS, SECOND, Call, Sender, tone


def ns(at: float) -> int:
    return MONO_NS + round(at * SECOND)


def a_call(path: Path) -> Call:
    call = Call(path)
    call.person("PA_a", "alice", at=1.0, left=9.0, name="Alice")
    call.track("t0001", "PA_a", "alice", "microphone", "opus", 1.0, ended=8.5)
    call.frames("t0001", Sender(), 48_000, tone([b"\x08abc"] * 100, 1.0), reports=[2.0], lost=[10])
    return call


def read(path: Path) -> Spool:
    spool = Spool(path)
    spool.refresh()
    return spool


def test_facts_of_an_orderly_spool(tmp_path: Path) -> None:
    call = a_call(tmp_path)
    call.event("muted", 3.0, track="t0001")
    call.event("unmuted", 4.0, track="t0001")
    call.event("paused", 5.0)
    call.event("resumed", 6.0)
    call.event("counters", 7.0, track="t0001", packets=99, lost=1)
    call.event("unrecorded", 7.0, track_id="TR_x", peer_id="PA_b", user_id="bob", source="camera",
               reason="CodecUnsupported", message="video/AV1")  # fmt: skip
    facts = read(call.write(stop=10.0, reason="CallEnded")).facts
    track = facts.tracks["i0001/t0001"]
    assert (track.source, track.kind, track.ended_ns) == (TrackSource.MICROPHONE, MediaKind.AUDIO, ns(8.5))
    assert track.mutes == [Span(ns(3.0), ns(4.0))]
    assert (len(track.reports), len(track.losses), track.counters["packets"]) == (1, 1, 99)
    assert (facts.peers["PA_a"].name, facts.peers["PA_a"].left_ns) == ("Alice", ns(9.0))
    assert facts.pauses == [Span(ns(5.0), ns(6.0))]
    assert [row.reason for row in facts.unrecorded] == ["CodecUnsupported"]
    assert facts.stop is not None
    assert facts.stop.reason is StopReason.CALL_ENDED


def test_frames_run_on_over_segments(tmp_path: Path) -> None:
    spool = read(a_call(tmp_path).write())
    frames = [record for record, _ in spool.frames("i0001/t0001")]
    assert len(frames) == 99
    assert [frame.timestamp for frame in frames] == sorted(frame.timestamp for frame in frames)


def test_reading_goes_on_from_any_position(tmp_path: Path) -> None:
    spool = read(a_call(tmp_path).write())
    walk = list(spool.frames("i0001/t0001"))
    for number in (0, 48, 49, 98):
        assert list(spool.frames("i0001/t0001", walk[number][1])) == walk[number + 1 :]
    assert list(spool.frames("i0001/t0001", BEGINNING)) == walk


def test_a_growing_spool_tells_only_news(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    assert not spool.refresh()
    assert a_call(tmp_path).write(until=2.0)
    assert spool.refresh()
    assert not spool.refresh()
    assert spool.facts.peers["PA_a"].left_ns is None
    a_call(tmp_path).write(stop=10.0)
    assert spool.refresh()
    assert spool.facts.peers["PA_a"].left_ns == ns(9.0)
    assert len(spool.facts.tracks) == 1


def test_a_torn_last_line_is_read_when_it_is_whole(tmp_path: Path) -> None:
    a_call(tmp_path).write(stop=10.0)
    journal = tmp_path / "i0001" / "journal.ndjson"
    whole = journal.read_bytes()
    spool = Spool(tmp_path)
    for cut in range(0, len(whole), 7):
        journal.write_bytes(whole[:cut])
        spool.refresh()
    journal.write_bytes(whole)
    spool.refresh()
    assert spool.facts.stop is not None
    assert len(spool.facts.tracks["i0001/t0001"].reports) == 1


def test_behind_a_damaged_line_nothing_is_believed(tmp_path: Path) -> None:
    a_call(tmp_path).write(stop=10.0)
    journal = tmp_path / "i0001" / "journal.ndjson"
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[4] = lines[4].replace(b"t0001", b"t0002")
    journal.write_bytes(b"".join(lines))
    spool = read(tmp_path)
    assert (spool.facts.stop, spool.refresh()) == (None, False)


@given(st.integers(0, 3000))
def test_a_log_cut_anywhere_reads_up_to_its_last_whole_record(cut: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "i0001"
        path.mkdir()
        frames = [bytes([n]) * (n * 3) for n in range(40)]
        content = MAGIC + b"".join(encode_header(n, n, 1, frame) + frame for n, frame in enumerate(frames))
        (path / "t0001.000001.log").write_bytes(content[:cut])
        got = [record.frame for record, _ in Spool(Path(folder)).frames("i0001/t0001")]
        assert got == frames[: len(got)]
        ends = [len(MAGIC) + sum(28 + len(frame) for frame in frames[: n + 1]) for n in range(40)]
        assert len(got) == sum(end <= cut for end in ends)


def test_frames_larger_than_a_chunk_are_read_whole(tmp_path: Path) -> None:
    (tmp_path / "i0001").mkdir()
    frames = [bytes(300_000), b"x" * 5_000_000, b"", b"tail"]
    records = b"".join(encode_header(n, n, 1, frame) + frame for n, frame in enumerate(frames))
    (tmp_path / "i0001" / "t0001.000001.log").write_bytes(MAGIC + records)
    assert [record.frame for record, _ in Spool(tmp_path).frames("i0001/t0001")] == frames


@pytest.mark.parametrize("key", ["i0001/../../etc", "../i0001/t0001", "i0001/t*", "", "i0001"])
def test_no_key_leads_out_of_the_spool(tmp_path: Path, key: str) -> None:
    a_call(tmp_path).write()
    assert list(read(tmp_path).frames(key)) == []


def test_a_restarted_recorder_continues_the_axis(tmp_path: Path) -> None:
    a_call(tmp_path).write()
    again = Call(tmp_path, incarnation=2, started=12.0)
    again.event("armed", 12.5)
    again.write(stop=20.0)
    facts = read(tmp_path).facts
    assert facts.incarnations == 2
    assert facts.crashes == [Span(ns(9.0), ns(12.0))]
    assert facts.armed_ns == ns(0.0)
    assert facts.stop is not None


def test_another_boot_is_put_on_the_axis_by_its_wall_clock() -> None:
    folder = Folder()
    folder.add(1, {"e": "start", "at": 1000 * SECOND, "wall_ns": 5000 * SECOND})
    folder.add(1, {"e": "armed", "at": 1001 * SECOND})
    folder.add(2, {"e": "start", "at": 7 * SECOND, "wall_ns": 5030 * SECOND})
    folder.add(2, {"e": "armed", "at": 8 * SECOND})
    assert folder.facts.last_ns == 1031 * SECOND


@pytest.mark.parametrize("jump", [3600, -3600, 0])
def test_a_restart_of_the_same_boot_continues_the_axis_wherever_the_wall_clock_was_set(jump: int) -> None:
    folder = Folder()
    folder.add(1, {"e": "start", "at": 1000 * SECOND, "wall_ns": 5000 * SECOND, "boot": "b1"})
    folder.add(1, {"e": "armed", "at": 1001 * SECOND})
    folder.add(2, {"e": "start", "at": 1007 * SECOND, "wall_ns": (5007 + jump) * SECOND, "boot": "b1"})
    folder.add(2, {"e": "armed", "at": 1008 * SECOND})
    assert folder.facts.last_ns == 1008 * SECOND
    assert folder.facts.crashes == [Span(1001 * SECOND, 1008 * SECOND)]


def test_another_boot_is_placed_by_its_wall_clock_even_if_the_clocks_happen_to_agree() -> None:
    folder = Folder()
    folder.add(1, {"e": "start", "at": 1000 * SECOND, "wall_ns": 5000 * SECOND, "boot": "b1"})
    folder.add(2, {"e": "start", "at": 1010 * SECOND, "wall_ns": 5011 * SECOND, "boot": "b2"})
    folder.add(2, {"e": "armed", "at": 1012 * SECOND})
    assert folder.facts.last_ns == 1013 * SECOND


def test_a_restart_after_the_stop_does_not_take_it_back(tmp_path: Path) -> None:
    """The recorder idles after a stop; killed there, it starts again and finds nothing to do."""
    a_call(tmp_path).write(stop=10.0)
    (tmp_path / "i0002").mkdir()
    line = encode_line("start", ns(12.0), {"version": 1, "wall_ns": 0, "attempt": 1})
    (tmp_path / "i0002" / "journal.ndjson").write_bytes(line)
    assert read(tmp_path).facts.stop is not None


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
EVENTS = ("start", "call", "armed", "participant", "participant_left", "track", "codec", "ssrc", "report", "gap", "size",
          "muted", "unmuted", "track_ended", "unrecorded", "paused", "resumed", "disconnected", "reconnected",
          "counters", "stop", "_begin", "what", 7)  # fmt: skip
FIELDS = ("track", "track_id", "peer_id", "user_id", "name", "recorded", "source", "kind", "codec", "clock_rate",
          "channels", "fmtp", "ssrc", "timestamp", "ntp", "packets", "after", "before", "width", "height", "rotation",
          "reason", "message", "wall_ns", "attempt", "call_id")  # fmt: skip


@settings(max_examples=300)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(EVENTS),
            st.integers(1, 3),
            st.dictionaries(st.sampled_from(FIELDS), ANYTHING | st.sampled_from(["t0001", "PA_a", "audio", "opus"])),
            st.integers(-5, 2**63) | ANYTHING,
        ),
        max_size=12,
    )
)
def test_no_event_upsets_the_facts(events: list[tuple[object, int, dict[str, object], object]]) -> None:
    """The journal is written by the process that parses hostile bytes."""
    folder = Folder()
    folder.add(1, {"e": "track", "at": 1, "track": "t0001", "peer_id": "PA_a", "user_id": "a", "kind": "audio"})
    for event, incarnation, fields, at in sorted(events, key=lambda row: row[1]):
        folder.add(incarnation, {"e": event, "at": at, **fields})
    for track in folder.facts.tracks.values():
        assert track.key.startswith("i000")
        assert len(track.user_id) <= 256
