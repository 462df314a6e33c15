"""How long a failing call is repeated."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotrack_recorder.ship.retry import LONGEST_PAUSE_SECONDS, Patience, full_jitter, pause_bound


@given(st.integers(0, 10_000))
def test_pauses_stay_below_a_bound_that_doubles_up_to_ten_seconds(failures: int) -> None:
    assert 0 <= full_jitter(failures) <= pause_bound(failures) <= LONGEST_PAUSE_SECONDS


@pytest.mark.parametrize(("failures", "seconds"), [(1, 0.5), (2, 1), (3, 2), (5, 8), (6, 10), (1000, 10)])
def test_pause_bound_after_failures(failures: int, seconds: float) -> None:
    assert pause_bound(failures) == seconds


def test_patience_without_an_end_never_runs_out() -> None:
    patience = Patience()
    assert patience.left() == float("inf")
    assert patience.pause(0)


def test_an_end_only_ever_comes_nearer() -> None:
    patience = Patience(10)
    patience.end_within(1000)
    assert patience.left() <= 10


def test_a_pause_is_cut_short_when_the_end_is_moved_into_it() -> None:
    patience, results = Patience(), list[bool]()
    waiting = threading.Thread(target=lambda: results.append(patience.pause(600)))
    began = time.monotonic()
    waiting.start()
    patience.end_within(0.05)
    waiting.join(timeout=60)
    assert results == [False]
    assert time.monotonic() - began < 60
