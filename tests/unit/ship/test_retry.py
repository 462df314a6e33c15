"""How long a failing call is repeated."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotrack_recorder.ship import retry
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


def test_work_may_take_longer_than_the_storage_may_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Finishing a day of people is hours of work; a storage that is away for ten minutes in the midst of it ends it."""
    now = 1000.0
    monkeypatch.setattr(retry.time, "monotonic", lambda: now)
    patience = Patience(in_a_row=600)
    now += 7200
    assert patience.left() == float("inf")
    patience.failed()
    now += 500
    patience.failed()
    assert patience.left() == 100
    patience.answered()
    assert patience.left() == float("inf")
    patience.failed()
    now += 600
    assert not patience.left()
    assert not patience.pause(1)


def test_a_storage_that_was_away_in_the_call_has_its_time_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(retry.time, "monotonic", lambda: now)
    patience = Patience()
    patience.failed()
    now += 7200
    patience.end_failing_for(3600)
    assert patience.left() == 3600
    patience.end_within(10)
    assert patience.left() == 10


def test_a_pause_is_cut_short_when_the_end_is_moved_into_it() -> None:
    patience, results = Patience(), list[bool]()
    waiting = threading.Thread(target=lambda: results.append(patience.pause(600)))
    began = time.monotonic()
    waiting.start()
    patience.end_within(0.05)
    waiting.join(timeout=60)
    assert results == [False]
    assert time.monotonic() - began < 60
