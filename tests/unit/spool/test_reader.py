"""Reading spools that grow, are torn, or are hostile."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isotrack_api.base import MediaKind, TrackSource
from isotrack_api.manifest import StopReason
from isotrack_recorder.earlier import read_earlier
from isotrack_recorder.spool.facts import Folder, Span
from isotrack_recorder.spool.journal import encode_line
from isotrack_recorder.spool.reader import BEGINNING, Spool
from isotrack_recorder.spool.records import MAGIC, Flag, encode_header
from support.spools import MONO_NS, SECOND, WALL_NS, Call, Sender, tone


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


def test_a_damaged_line_costs_itself_alone_and_is_told(tmp_path: Path) -> None:
    """A flipped bit in a report must not cost all people who came after it."""
    a_call(tmp_path).write(stop=10.0)
    journal = tmp_path / "i0001" / "journal.ndjson"
    lines = journal.read_bytes().splitlines(keepends=True)
    number = next(n for n, line in enumerate(lines) if b'"report"' in line)
    lines[number] = lines[number].replace(b"t0001", b"t0002")
    journal.write_bytes(b"".join(lines))
    spool = read(tmp_path)
    assert len(spool.facts.tracks["i0001/t0001"].reports) == 0
    assert spool.facts.peers["PA_a"].left_ns == ns(9.0)
    assert (spool.facts.stop is not None, spool.refresh()) == (True, False)
    assert spool.damage() == "the spool is damaged, these cannot be read: 1 lines of its journal"


FRAMES = [bytes([n]) * (n * 40 + 1) for n in range(40)]
WHOLE = [encode_header(n, n + 1, int(Flag.KEY), frame) + frame for n, frame in enumerate(FRAMES)]


def lay(spool: Path, first: bytes, second: bytes | None = None) -> Spool:
    """A log of one or two segments; two journals, so that the first one's process is gone."""
    for number in (1, 2):
        (spool / f"i000{number}").mkdir()
        (spool / f"i000{number}" / "journal.ndjson").write_bytes(encode_line("start", 0, {"wall_ns": 0}))
    (spool / "i0001" / "t0001.000001.log").write_bytes(first)
    if second is not None:
        (spool / "i0001" / "t0001.000002.log").write_bytes(second)
    return read(spool)


@pytest.mark.parametrize(
    ("at", "value"),
    [
        pytest.param(60, 0xEE, id="a byte of the frame"),
        pytest.param(5, 0xEE, id="its sum"),
        pytest.param(0, 0xEE, id="its length: a little more"),
        pytest.param(2, 0x0F, id="its length: more than the segment has"),
        pytest.param(3, 0xEE, id="its length: more than any frame has"),
        pytest.param(26, 0x01, id="what is always zero"),
    ],
)
def test_a_damaged_frame_costs_itself_alone(tmp_path: Path, at: int, value: int) -> None:
    """The next frame is marked, as one behind packets that never came; both walks over a log see the same."""
    damaged = bytearray(WHOLE[7])
    damaged[at] = value
    spool = lay(tmp_path, MAGIC + b"".join([*WHOLE[:7], bytes(damaged), *WHOLE[8:]]))
    walk = list(spool.frames("i0001/t0001"))
    assert [record.frame for record, _ in walk] == FRAMES[:7] + FRAMES[8:]
    assert [record.timestamp for record, _ in walk if record.flags & Flag.AFTER_GAP] == [8]
    assert "i0001/t0001" in spool.damage()
    for begin in (BEGINNING, walk[3][1], walk[6][1], walk[7][1]):
        again = [
            (time, flags)
            for batch, _ in spool.batches("i0001/t0001", begin, checked=False)
            for time, flags in zip(batch.timestamps, batch.flags)
        ]
        assert again == [(record.timestamp, record.flags) for record, behind in walk if behind > begin]


@pytest.mark.parametrize(
    ("first", "missing"),
    [
        pytest.param(b"", 20, id="empty"),
        pytest.param((MAGIC + b"".join(WHOLE[:20]))[:-3], 1, id="cut"),
        pytest.param(MAGIC + b"".join(WHOLE[:10]) + bytes(5000), 10, id="zeros"),
        pytest.param(b"isoTrk\0\1" + b"".join(WHOLE[:20]), 0, id="its head"),
    ],
)
def test_a_damaged_segment_does_not_cost_the_next(tmp_path: Path, first: bytes, missing: int) -> None:
    spool = lay(tmp_path, first, MAGIC + b"".join(WHOLE[20:]))
    found = [record for record, _ in spool.frames("i0001/t0001")]
    assert [record.frame for record in found] == FRAMES[: 20 - missing] + FRAMES[20:]
    marked = [record.timestamp for record in found if record.flags & Flag.AFTER_GAP]
    assert marked == ([20] if missing else [0])


def test_a_segment_that_is_gone_does_not_cost_those_behind(tmp_path: Path) -> None:
    spool = lay(tmp_path, MAGIC + b"".join(WHOLE[:10]))
    (tmp_path / "i0001" / "t0001.000004.log").write_bytes(MAGIC + b"".join(WHOLE[30:]))
    found = [record for record, _ in spool.frames("i0001/t0001")]
    assert [record.frame for record in found] == FRAMES[:10] + FRAMES[30:]
    assert [record.timestamp for record in found if record.flags & Flag.AFTER_GAP] == [30]


def test_pictures_behind_a_damaged_one_do_not_decode_until_the_next_key_frame(tmp_path: Path) -> None:
    rows = [
        encode_header(n, n + 1, int(Flag.KEY) if n % 10 == 0 else 0, frame) + frame for n, frame in enumerate(FRAMES)
    ]
    rows[13] = rows[13][:-1] + b"\xee"
    spool = lay(tmp_path, MAGIC + b"".join(rows))
    walk = list(spool.frames("i0001/t0001"))
    assert [record.timestamp for record, _ in walk if record.flags & Flag.UNDECODABLE] == [14, 15, 16, 17, 18, 19]
    resumed = [record for record, _ in spool.frames("i0001/t0001", walk[14][1])]
    assert [record.timestamp for record in resumed if record.flags & Flag.UNDECODABLE] == [16, 17, 18, 19]


def test_a_frame_that_is_being_written_is_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "i0001"
    path.mkdir()
    spool = Spool(tmp_path)
    content = MAGIC + b"".join(WHOLE[:12])
    for cut in range(0, len(content), 11):
        (path / "t0001.000001.log").write_bytes(content[:cut])
        assert not [record for record, _ in spool.frames("i0001/t0001") if record.flags & Flag.AFTER_GAP]
    assert spool.damage() == ""


def test_logs_of_which_no_journal_tells_are_found(tmp_path: Path) -> None:
    spool = lay(tmp_path, MAGIC + b"".join(WHOLE))
    assert spool.unknown_logs() == ["i0001/t0001"]
    assert not spool.damage(), "its line may be on the way"
    spool.over = True
    assert "all of i0001/t0001" in spool.damage()


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


def test_who_is_gone_when_a_killed_recorder_is_back_has_left() -> None:
    """Nobody saw when: at the latest as that one could capture. Whoever it found in the call has not."""
    folder = Folder()
    for at, event, fields in (
        (0, "start", {"wall_ns": 0}),
        (1, "armed", {}),
        *((2, "participant", {"peer_id": peer, "user_id": peer}) for peer in ("PA_a", "PA_b", "PA_c")),
        (3, "participant_left", {"peer_id": "PA_c"}),
    ):
        folder.add(1, {"e": event, "at": at * SECOND, **fields})
    for at, event, fields in (
        (7, "start", {"wall_ns": 7 * SECOND}),
        (8, "participant", {"peer_id": "PA_a", "user_id": "PA_a"}),
        (9, "armed", {}),
        (20, "armed", {}),
    ):
        folder.add(2, {"e": event, "at": at * SECOND, **fields})
    left = {peer_id: peer.left_ns for peer_id, peer in folder.facts.peers.items()}
    assert left == {"PA_a": None, "PA_b": 9 * SECOND, "PA_c": 3 * SECOND}


def test_who_came_while_two_recorders_were_there_is_not_gone() -> None:
    """A pod that hands over tells of it; the newer one, whose journal comes behind, was in the call before."""
    folder = Folder()
    folder.add(1, {"e": "start", "at": 0, "wall_ns": 0, "attempt": 1})
    folder.add(1, {"e": "participant", "at": 9 * SECOND, "peer_id": "PA_a", "user_id": "PA_a"})
    folder.add(2, {"e": "start", "at": 5 * SECOND, "wall_ns": 5 * SECOND, "attempt": 2})
    folder.add(2, {"e": "armed", "at": 6 * SECOND})
    assert folder.facts.peers["PA_a"].left_ns is None


def test_another_boot_is_put_on_the_axis_by_its_wall_clock() -> None:
    folder = Folder()
    folder.add(1, {"e": "start", "at": 1000 * SECOND, "wall_ns": 5000 * SECOND})
    folder.add(1, {"e": "armed", "at": 1001 * SECOND})
    folder.add(2, {"e": "start", "at": 7 * SECOND, "wall_ns": 5030 * SECOND})
    folder.add(2, {"e": "armed", "at": 8 * SECOND})
    assert folder.facts.last_ns == 1031 * SECOND


def test_a_damaged_first_line_costs_nothing_that_stands_in_the_journal_once_more(tmp_path: Path) -> None:
    """Files had names and dates of 1970, and what later processes captured came eight days after the call and was left out."""
    a_call(tmp_path).write()
    again = Call(tmp_path, incarnation=2, started=12.0)
    again.person("PA_b", "bob", at=13.0)
    again.write(stop=20.0)
    whole = read(tmp_path).facts
    for name in ("i0001", "i0002"):
        journal = tmp_path / name / "journal.ndjson"
        journal.write_bytes(b"x" + journal.read_bytes()[1:])
    spool = read(tmp_path)
    assert spool.facts == whole
    assert "2 lines of its journal" in spool.damage()
    assert read_earlier(tmp_path).armed_at_ms == WALL_NS // 1_000_000
    reports = [*whole.tracks["i0001/t0001"].reports]
    del spool.facts.tracks["i0001/t0001"].reports.arrivals[:]
    spool.restore_taken(["i0001/t0001"])
    assert [*spool.facts.tracks["i0001/t0001"].reports] == reports


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
