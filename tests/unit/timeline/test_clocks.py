"""Clocks of several pods, by what a storage tells each of them."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotrack_recorder.clocks import AGREES_NS, Bounds, CallClock, answered, wall_offset

SECOND = 1_000_000_000
HOUR = 3600 * SECOND
BOOT = "b1"


def told(storage_minus_ours: int, chance: random.Random, answers: int, trip_ns: int) -> Bounds:
    """What some answers tell of a storage's clock."""
    bounds: Bounds | None = None
    now = 50 * SECOND
    for _ in range(answers):
        now += chance.randrange(7 * SECOND)
        there = chance.randrange(trip_ns + 1)
        date = (now + there + storage_minus_ours) // SECOND
        fresh = answered(date, now, now + trip_ns)
        bounds = fresh if bounds is None else bounds.narrowed(fresh)
    assert bounds is not None
    return bounds


@pytest.mark.parametrize(
    ("journalled", "bounds", "offset"),
    [
        pytest.param(100, Bounds(0, SECOND), 100, id="within"),
        pytest.param(-AGREES_NS, Bounds(0, SECOND), -AGREES_NS, id="as-near-as-can-be-seen"),
        pytest.param(-AGREES_NS - 1, Bounds(0, SECOND), SECOND // 2, id="just-wrong"),
        pytest.param(3 * HOUR, Bounds(0, 2 * SECOND), SECOND, id="hours-ahead"),
        pytest.param(-3 * HOUR, Bounds(10, 12), 11, id="hours-behind"),
    ],
)
def test_a_clock_that_agrees_is_taken_at_its_word(journalled: int, bounds: Bounds, offset: int) -> None:
    assert wall_offset(journalled, BOOT, CallClock(BOOT, bounds)) == offset
    assert wall_offset(journalled, "", CallClock(BOOT, bounds)) == offset
    assert wall_offset(journalled, BOOT, None) == journalled
    assert wall_offset(journalled, "b2", CallClock(BOOT, bounds)) == journalled, "of another boot nothing is known"


@given(
    wrong=st.integers(-12 * HOUR, 12 * HOUR),
    storage_wrong=st.integers(-HOUR, HOUR),
    answers=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    trip_ns=st.integers(1_000_000, SECOND // 4),
    seed=st.integers(0, 1000),
)
def test_a_successor_is_placed_within_seconds_however_wrong_its_clock(
    wrong: int, storage_wrong: int, answers: tuple[int, int], trip_ns: int, seed: int
) -> None:
    """Two and a half after one answer each; whatever the storage's own clock says. With right clocks nothing is moved."""
    chance = random.Random(seed)
    truth_first, truth_own = 1_760_000_000 * SECOND, 1_759_990_000 * SECOND
    first = told(truth_first + storage_wrong, chance, answers[0], trip_ns).shifted(-truth_first)
    own = told(truth_own + storage_wrong, chance, answers[1], trip_ns)
    call = CallClock(BOOT, own.minus(first))
    assert call.offset.low <= truth_own <= call.offset.high
    assert abs(wall_offset(truth_own + wrong, BOOT, call) - truth_own) <= 2.5 * SECOND + 2 * trip_ns
    assert wall_offset(truth_own, BOOT, call) == truth_own


def test_many_answers_tell_more_than_a_second() -> None:
    chance, trip = random.Random(1), 20_000_000
    bounds = told(1_760_000_000 * SECOND, chance, 60, trip)
    assert bounds.high - bounds.low < 0.15 * SECOND


def test_a_storage_whose_clock_was_set_is_believed_again() -> None:
    assert Bounds(0, SECOND).narrowed(Bounds(HOUR, HOUR + SECOND)) == Bounds(HOUR, HOUR + SECOND)
