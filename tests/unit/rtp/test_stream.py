"""Order and repair of one SSRC, from every wrap-around start, under loss, reordering and repeats."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotrack_api.base import MediaKind
from isotrack_recorder.codecs.base import Octets
from isotrack_recorder.rtp.assembler import Assembler
from isotrack_recorder.rtp.lines import MediaLine
from isotrack_recorder.rtp.stream import (
    BEFORE_FIRST,
    MAX_HELD,
    MAX_JUMP,
    MAX_MISSING,
    MAX_PATIENCE_NS,
    MAX_TRIES,
    REORDER_NS,
    Repair,
    Stream,
)
from isotrack_recorder.rtp.track import Track
from support.rtp import VP8

MS = 1_000_000
HOLD = 200 * MS


class Ordered(Assembler):
    """Notes what comes in order: step numbers, and ("lost", n)."""

    __slots__ = ("seen", "starts")

    def __init__(self, *, rtx: bool) -> None:
        repairs = {VP8.rtx: VP8.payload_type} if rtx else {}
        line = MediaLine("0", "TR", MediaKind.VIDEO, {}, repairs_of=repairs)
        super().__init__(Track(line, None, set()), 42)
        self.seen: list[int | tuple[str, int]] = []
        self.starts: int | None = None
        """The only step that a film can begin with; None = any."""

    def begins_film(self, payload_type: int, payload: Octets) -> bool:
        return self.starts is None or payload == b"%d" % self.starts

    def take(self, payload_type: int, timestamp: int, marker: int, payload: Octets, arrival_ns: int) -> None:
        self.seen.append(timestamp)

    def lost(self, packets: int, at_ns: int) -> None:
        super().lost(packets, at_ns)
        self.seen.append(("lost", packets))

    @property
    def steps(self) -> list[int]:
        return [item for item in self.seen if isinstance(item, int)]

    @property
    def losses(self) -> list[int]:
        return [item[1] for item in self.seen if not isinstance(item, int)]


class Bench:
    """A stream whose packets are numbered by steps from a start."""

    def __init__(self, start: int = 0, *, rtx: bool = True) -> None:
        self.start = start
        self.order = Ordered(rtx=rtx)
        self.gappy: set[Stream] = set()
        self.stream = Stream(self.order, HOLD, self.gappy)

    def push(self, *steps: int, at: int = 0) -> None:
        for step in steps:
            self.stream.push(96, (self.start + step) & 0xFFFF, step, 0, b"%d" % step, at)


starts = st.integers(0, 0xFFFF)


@given(start=starts, count=st.integers(1, 400))
def test_packets_in_order_pass_through(start: int, count: int) -> None:
    bench = Bench(start)
    bench.push(*range(count))
    assert bench.order.seen == list(range(count))
    assert not bench.gappy


@given(start=starts, lost=st.sets(st.integers(1, 400)))
def test_each_gap_counts_once_from_any_start(start: int, lost: set[int]) -> None:
    bench = Bench(start)
    sent = [step for step in range(402) if step not in lost]  # the first and the last packet always arrive
    bench.push(*sent)
    bench.stream.expire(HOLD)
    assert bench.order.steps == sent
    assert sum(bench.order.losses) == len(lost)
    assert bench.order.track.counters.lost == len(lost)
    assert not bench.gappy
    runs = sum(1 for step in lost if step - 1 not in lost)
    assert len(bench.order.losses) == runs


@given(start=starts, order=st.permutations(range(12)), lost=st.sets(st.integers(1, 11), max_size=4))
def test_a_film_begins_with_its_first_packet_whichever_comes_first(
    start: int, order: list[int], lost: set[int]
) -> None:
    bench = Bench(start)
    bench.order.starts = 0
    arrivals = [step for step in order if step not in lost]
    for number, step in enumerate(arrivals):
        bench.push(step, at=10 * number * MS)
        bench.stream.expire(10 * number * MS)
    report = bench.stream.report_block(0)
    assert report.lost == max(arrivals) + 1 - len(arrivals)
    bench.stream.expire(REORDER_NS)
    bench.stream.expire(200 * MS + HOLD)
    assert bench.order.steps == sorted(arrivals)
    assert sum(bench.order.losses) == len([step for step in lost if step < max(arrivals)])
    assert not bench.gappy


def test_a_film_may_begin_before_a_packet_numbered_0() -> None:
    """Which no number that is due tells from one in order."""
    bench = Bench(0xFFFE)
    bench.order.starts = 0
    bench.push(2, 0, 1)
    bench.stream.expire(REORDER_NS)
    assert bench.order.seen == [0, 1, 2]


def test_a_film_that_begins_anew_begins_with_its_first_packet_too() -> None:
    bench = Bench()
    bench.order.starts = 0
    bench.push(0, 1)
    bench.order.starts = 30_000
    bench.push(30_001, 30_002, 30_003, 30_000)
    bench.stream.expire(REORDER_NS)
    assert bench.order.seen == [0, 1, ("lost", 1), 30_000]
    bench.stream.expire(HOLD)
    assert bench.order.seen[4:] == [("lost", 1), 30_002, 30_003], "the first one was a stray, as far as anybody knew"


def test_what_a_film_may_have_begun_with_is_waited_for_for_a_while_and_never_asked_for() -> None:
    bench = Bench(100)
    bench.order.starts = 0
    bench.push(3)
    bench.push(1, at=60 * MS)
    assert bench.stream.asks(70 * MS) == [102], "between two that came"
    bench.push(2, at=80 * MS)
    bench.stream.expire(REORDER_NS - MS)
    assert bench.order.seen == []
    bench.stream.expire(REORDER_NS)
    assert bench.order.seen == [1, 2, 3]
    assert not bench.gappy
    bench.push(4, 5, at=REORDER_NS)
    assert bench.order.seen == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("first", [BEFORE_FIRST - 1, BEFORE_FIRST, BEFORE_FIRST + 1])
def test_how_many_packets_are_waited_for_before_the_first_one_is_bounded(first: int) -> None:
    bench = Bench()
    bench.order.starts = 0
    bench.push(first)
    bench.push(*range(first))
    bench.stream.expire(REORDER_NS)
    assert bench.order.seen == list(range(max(0, first - BEFORE_FIRST), first + 1))
    assert not bench.gappy


@given(start=starts, data=st.data())
def test_any_schedule_keeps_order_and_invents_nothing(start: int, data: st.DataObject) -> None:
    """Loss, reordering and repeats at once: what comes out is a sorted subset of what went in, each once."""
    bench = Bench(start)
    sent = list(range(200))
    lost = data.draw(st.sets(st.integers(1, 199), max_size=60))
    rng = random.Random(data.draw(st.integers(0, 2**32)))
    arrivals = [step for step in sent if step not in lost]
    arrivals += rng.choices(arrivals, k=20)
    arrivals = [0, *(step for _, step in sorted((step + rng.uniform(0, 12), step) for step in arrivals if step))]
    now = 0
    for step in arrivals:
        now += 3 * MS
        bench.push(step, at=now)
        bench.stream.expire(now)
    bench.stream.flush(now)
    steps = bench.order.steps
    assert steps == sorted(set(steps))
    assert set(steps) <= set(arrivals)
    assert len(steps) + sum(bench.order.losses) == max(steps) + 1
    assert not bench.gappy


@given(start=starts, lost=st.sets(st.integers(1, 100), min_size=1))
def test_retransmissions_fill_every_hole(start: int, lost: set[int]) -> None:
    bench = Bench(start)
    bench.push(*(step for step in range(102) if step not in lost), at=0)
    asked = bench.stream.asks(10 * MS)
    assert [(sequence - start) & 0xFFFF for sequence in asked] == sorted(lost)
    repair = Repair(bench.stream)
    for step in sorted(lost, reverse=True):
        original = ((start + step) & 0xFFFF).to_bytes(2, "big")
        repair.push(VP8.rtx, 7, step, 0, original + b"x", 50 * MS)
    assert bench.order.steps == list(range(102))
    assert not bench.order.losses
    assert bench.order.track.counters.recovered == len(lost)
    assert bench.stream.rtt_ns == 40 * MS
    assert bench.stream.asks(500 * MS) == []


def test_requests_are_repeated_within_a_round_trip_and_end() -> None:
    bench = Bench()
    bench.push(0, 2)
    asked_at = [at for at in range(1000) if bench.stream.asks(at * MS)]
    assert asked_at[0] == 5, "a packet may be overtaken by 5 ms"
    assert [b - a for a, b in pairwise(asked_at)] == [20, 30, 45, 68], (
        "ever later while nothing comes, and 200 ms at most"
    )
    bench.stream.rtt_ns = 70 * MS
    bench.push(4, at=1000 * MS)
    asked_at = [at for at in range(1000, 2000) if bench.stream.asks(at * MS)]
    assert asked_at == [1005, 1047, 1094, 1145, 1201, 1263, 1331, 1406], (
        "held for seven round trips: a ninth answer would come too late"
    )
    bench.stream.rtt_ns = 2 * MS
    bench.push(6, at=3000 * MS)
    asked_at = [at for at in range(3000, 4000) if bench.stream.asks(at * MS)]
    assert asked_at[-1] < 3200
    bench.stream.hold_ns = 500 * MS
    bench.push(8, at=5000 * MS)
    assert len([at for at in range(5000, 6000) if bench.stream.asks(at * MS)]) == 10 == MAX_TRIES


def gone(bench: Bench, *steps: int) -> list[tuple[int, int]]:
    """Lose a packet before each of these steps, a second apart: how often it was asked for, and ms until it was given up."""
    found = []
    for step in steps:
        bench.push(*([0] if not bench.order.seen else []), step, at=step * 1000 * MS)
        asked = 0
        for ms in range(1000):
            now = (step * 1000 + ms) * MS
            bench.stream.expire(now)
            if not bench.gappy:
                found.append((asked, ms))
                break
            asked += len(bench.stream.asks(now))
    return found


def test_where_nobody_repeats_anything_holes_are_soon_given_up_and_hardly_asked_for() -> None:
    bench = Bench()
    assert gone(bench, 2, 4, 6, 8) == [(5, 205)] * 4
    assert gone(bench, 10, 12) == [(4, 150)] * 2


def test_an_answer_or_a_late_packet_makes_the_hold_long_again() -> None:
    bench = Bench()
    gone(bench, 2, 4, 6, 8)
    bench.push(10, at=10_000 * MS)
    assert bench.stream.asks(10_010 * MS) == [9]
    Repair(bench.stream).push(VP8.rtx, 7, 9, 0, b"\0\x09x", 10_030 * MS)
    assert bench.order.track.counters.recovered == 1
    assert [ms for _, ms in gone(bench, *range(12, 46, 2))] == [205] * 16 + [150]
    bench.push(43, at=44_180 * MS)  # 180 ms behind what showed that it was missing
    assert bench.order.track.counters.late == 1
    assert [ms for _, ms in gone(bench, *range(46, 78, 2))] == [205] * 16
    assert [ms for _, ms in gone(bench, 78)] == [200], "a quarter more than that, and never more than the hold time"


def test_a_repeat_under_the_number_itself_is_recovered_too() -> None:
    """Sound has no RTX: what was asked for comes in the stream itself, and tells the round trip as well."""
    bench = Bench(rtx=False)
    bench.push(0, 1, 2, 4, 6, at=10 * MS)
    assert len(bench.stream.asks(20 * MS)) == 2
    bench.push(5, at=70 * MS)  # behind another hole
    bench.push(3, at=70 * MS)
    assert bench.order.steps == list(range(7))
    assert bench.order.track.counters.recovered == 2
    assert bench.stream.rtt_ns == 50 * MS


def test_packets_that_were_only_overtaken_are_no_sign_that_somebody_repeats_them() -> None:
    """Sound, or pictures without RTX, on a path of jitter: some come before we ask, others behind it, lost ones never."""
    bench = Bench(rtx=False)
    given_up = []
    for step in range(0, 100, 10):
        now = step * 1000 * MS
        bench.push(step, step + 2, at=now)
        bench.push(step + 1, at=now + 4 * MS)
        bench.push(step + 4, at=now + 10 * MS)
        assert len(bench.stream.asks(now + 20 * MS)) == 1
        bench.push(step + 3, at=now + 60 * MS)
        given_up += [ms for _, ms in gone(bench, step + 6)]
        bench.push(*range(step + 7, step + 10), at=now + 9000 * MS)
    assert bench.order.track.counters.recovered == 10
    assert bench.stream.rtt_ns == 0
    assert given_up[:4] == [205] * 4
    assert given_up[4:] == [150] * 6


def test_on_a_path_of_jitter_a_packet_that_comes_twice_tells_that_somebody_repeats() -> None:
    bench = Bench(rtx=False)
    bench.push(0, 2, at=0)
    bench.push(1, at=4 * MS)
    assert [ms for _, ms in gone(bench, 4, 6, 8, 10, 12)] == [205, 205, 205, 205, 150]
    bench.push(10, at=13_000 * MS)
    bench.push(12, at=13_000 * MS)
    assert [ms for _, ms in gone(bench, 14)] == [208], "and that the first request may wait a little longer"


def test_where_packets_overtake_each_other_we_ask_later() -> None:
    """A packet that comes besides its repeat was asked for too soon: each such request costs the path a packet."""
    bench = Bench()
    repair = Repair(bench.stream)

    def asked_after(step: int, *, spurious: bool) -> int:
        now = step * 1000 * MS
        bench.push(step, step + 2, at=now)
        waited = next(ms for ms in range(1000) if bench.stream.asks(now + ms * MS))
        if spurious:
            bench.push(step + 1, at=now + (waited + 1) * MS)
        original = (step + 1).to_bytes(2, "big")
        repair.push(VP8.rtx, 7, step + 1, 0, original + b"x", now + (waited + 30) * MS)
        return waited

    patience = [asked_after(step, spurious=True) for step in range(0, 120, 3)]
    assert patience[0] == 5
    assert patience == sorted(patience)
    assert patience[-1] == MAX_PATIENCE_NS // MS
    patience = [asked_after(step, spurious=False) for step in range(120, 900, 3)]
    assert patience == sorted(patience, reverse=True)
    assert patience[-1] < 10, "and forget it when they do not any more"


def test_holding_ends_by_time_not_by_count() -> None:
    bench = Bench()
    bench.push(0)
    bench.push(*range(2, 2500), at=1)
    bench.stream.expire(HOLD - MS)
    assert bench.order.steps == [0]
    bench.stream.expire(HOLD + 1)
    assert bench.order.steps == [0, *range(2, 2500)]


def test_the_wait_for_a_packet_begins_with_the_first_request() -> None:
    """What shows a loss may have lain in the socket; the answer needs its time all the same."""
    bench = Bench()
    bench.push(0, 2)
    assert bench.stream.asks(100 * MS) == [1]
    assert bench.stream.asks(150 * MS) == [1]
    bench.stream.expire(100 * MS + HOLD - 1)
    assert bench.order.losses == []
    bench.stream.expire(100 * MS + HOLD)
    assert bench.order.losses == [1]


def test_a_long_path_holds_seven_round_trips_but_never_more_than_a_second() -> None:
    bench = Bench()
    bench.push(0, 2)
    bench.stream.rtt_ns = 100 * MS
    bench.stream.expire(699 * MS)
    assert bench.order.losses == []
    bench.stream.expire(700 * MS)
    assert bench.order.losses == [1]
    bench.stream.rtt_ns = 10_000 * MS
    bench.push(4, at=1000 * MS)
    bench.stream.expire(2000 * MS)
    assert bench.order.losses == [1, 1]


def test_what_is_held_is_bounded() -> None:
    bench = Bench()
    bench.push(0)
    for step in range(2, 2 * (MAX_HELD + 10), 2):
        if step - bench.stream.next + 0x10000 < MAX_JUMP:
            bench.push(step)
    assert bench.stream._holding <= MAX_HELD


def test_a_great_loss_is_skipped_at_once() -> None:
    """A stalled process comes back to a socket that overflowed: asking for thousands would make it worse."""
    bench = Bench()
    bench.push(0, MAX_MISSING + 1)
    assert len(bench.stream.asks(10 * MS)) == MAX_MISSING
    bench = Bench()
    bench.push(0, MAX_MISSING + 2)
    assert bench.order.seen == [0, ("lost", MAX_MISSING + 1), MAX_MISSING + 2]
    assert bench.stream.asks(10 * MS) == []


def test_late_packets_and_repeats_are_told_apart() -> None:
    bench = Bench()
    bench.push(0, 2, 2, 0)
    bench.stream.expire(HOLD)
    bench.push(1, 1, 2)
    counters = bench.order.track.counters
    assert (counters.late, counters.duplicates) == (1, 4)
    assert bench.order.seen == [0, ("lost", 1), 2]


@pytest.mark.parametrize("jump", [MAX_JUMP + 3, 20_000, -MAX_JUMP, -20_000])
def test_a_stray_packet_is_ignored_and_two_in_a_row_restart(jump: int) -> None:
    bench = Bench(30_000)
    bench.push(0, 1, jump, 2)
    assert bench.order.seen == [0, 1, 2]
    bench.push(jump, jump + 1, jump + 2)
    assert bench.order.seen == [0, 1, 2, ("lost", 1), jump + 1, jump + 2]
    assert bench.order.track.counters.packets + bench.stream.received == 5, "totals never go back"


def test_report_block_counts_as_rfc_3550_does() -> None:
    bench = Bench(65_534)
    bench.push(0, 1, 2, 5, at=MS)  # 3 and 4 are missing
    bench.stream.sender_report(0x0123_4567_89AB_CDEF, 0, 1000 * MS)
    block = bench.stream.report_block(2000 * MS)
    assert block.highest == 65_534 + 5
    assert (block.lost, block.fraction_lost) == (2, 2 * 256 // 6)
    assert (block.last_report, block.delay) == (0x4567_89AB, 65536)
    bench.push(6, 7)
    block = bench.stream.report_block(3000 * MS)
    assert (block.lost, block.fraction_lost) == (2, 0)


def test_padding_in_rtx_and_unknown_payload_types_are_passed_over() -> None:
    bench = Bench()
    bench.push(0)
    repair = Repair(bench.stream)
    repair.push(VP8.rtx, 0, 0, 0, b"", 0)
    repair.push(VP8.rtx, 1, 0, 0, b"\x00", 0)
    repair.push(50, 2, 0, 0, b"\x00\x01xx", 0)
    assert bench.order.seen == [0]
    repair.push(VP8.rtx, 3, 1, 0, b"\x00\x01", 0)
    assert bench.order.seen == [0, 1], "the repeat of a padding packet fills its number"
