"""What the benchmark makes of its measurements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.figures import Figure, fixed_cost, table
from bench.load import requests
from isotrack_recorder.rtp.rtcp import build_nacks, build_pli

FIGURE = Figure(
    load="vp8",
    receiver="isotrack",
    participants=1,
    cpu_seconds_per_participant_minute=0.3,
    microseconds_per_packet=20.0,
    core_percent=0.5,
    rss_mb=80,
    packets_per_second=234,
    lost=0,
    recovered=0,
    recorded_percent=100.0,
    stall_ms=0.7,
    stall_cpu_ms=0.5,
    load_latest_ms=5.0,
)


def costs(*pairs: tuple[int, float]) -> list[Figure]:
    """Figures of calls of so many people, which cost so much in all."""
    return [replace(FIGURE, participants=n, cpu_seconds_per_participant_minute=cost / n) for n, cost in pairs]


def test_a_fixed_cost_is_what_a_call_of_nobody_would_cost() -> None:
    fit = fixed_cost(costs((1, 0.3), (2, 0.4), (10, 1.2), (100, 5.0)), "isotrack")
    assert fit == pytest.approx((0.2, 0.1))


def test_one_size_has_no_fixed_cost() -> None:
    assert fixed_cost(costs((1, 0.3)), "isotrack") is None
    assert fixed_cost(costs((1, 0.3), (2, 0.4)), "pion") is None


def test_ratios_are_to_the_same_load_and_size() -> None:
    floor = replace(FIGURE, receiver="floor", cpu_seconds_per_participant_minute=0.1, stall_ms=None)
    pion = replace(FIGURE, receiver="pion", cpu_seconds_per_participant_minute=0.6, stall_ms=None)
    other = replace(pion, load="h264")
    rows = [line.split() for line in table([FIGURE, floor, pion, other]).splitlines()[1:]]
    assert [row[-2:] for row in rows] == [["3.00", "1.00"], ["1.00", "0.33"], ["6.00", "2.00"], ["0", "100.0"]]


@given(st.integers(1, 2**32 - 1), st.lists(st.integers(0, 0xFFFF), min_size=1, max_size=300, unique=True))
def test_the_load_reads_what_is_asked_for(ssrc: int, sequences: Sequence[int]) -> None:
    asked = [found for packet in build_nacks(5, ssrc, sequences) for found in requests(build_pli(5, 9) + packet)]
    assert sorted(set(asked)) == sorted((ssrc, sequence) for sequence in sequences)
