"""What gives way when a spool fills up."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotrack_api.base import SpoolLevel, TrackSource
from isotrack_recorder.spool.watermarks import Usage, is_shed, level_of, segment_bytes

CLEAR, FILLING, CAMERA, SCREEN, FULL = SpoolLevel
LEVELS = list(SpoolLevel)
ratios = st.floats(0, 1.5)


@pytest.mark.parametrize(
    ("before", "ratio", "after"),
    [
        pytest.param(CLEAR, 0.59, CLEAR, id="room"),
        pytest.param(CLEAR, 0.60, FILLING, id="warn"),
        pytest.param(FILLING, 0.55, FILLING, id="warned-until-half"),
        pytest.param(FILLING, 0.49, CLEAR, id="clear-again"),
        pytest.param(FILLING, 0.80, CAMERA, id="cameras-go"),
        pytest.param(CAMERA, 0.70, CAMERA, id="cameras-stay-away"),
        pytest.param(CAMERA, 0.69, FILLING, id="cameras-return"),
        pytest.param(CAMERA, 0.90, SCREEN, id="screens-go"),
        pytest.param(SCREEN, 0.80, SCREEN, id="screens-stay-away"),
        pytest.param(SCREEN, 0.79, CAMERA, id="screens-return-before-cameras"),
        pytest.param(SCREEN, 0.97, FULL, id="sound-goes"),
        pytest.param(FULL, 0.90, FULL, id="sound-stays-away"),
        pytest.param(FULL, 0.89, SCREEN, id="sound-returns-first"),
        pytest.param(CLEAR, 1.2, FULL, id="up-at-once"),
        pytest.param(FULL, 0.1, CLEAR, id="down-at-once-when-all-was-shipped"),
    ],
)
def test_levels_rise_at_a_mark_and_fall_below_a_lower_one(before: SpoolLevel, ratio: float, after: SpoolLevel) -> None:
    assert level_of(ratio, before) is after


@given(st.lists(ratios, max_size=20), ratios)
def test_a_disk_that_does_not_change_does_not_change_the_level(history: list[float], ratio: float) -> None:
    level = CLEAR
    for step in history:
        level = level_of(step, level)
    settled = level_of(ratio, level)
    assert level_of(ratio, settled) is settled


@given(ratios, ratios, st.sampled_from(LEVELS))
def test_a_fuller_disk_never_means_that_more_is_kept(one: float, other: float, before: SpoolLevel) -> None:
    low, high = sorted((one, other))
    assert LEVELS.index(level_of(low, before)) <= LEVELS.index(level_of(high, before))


@given(st.floats(0.3, 0.96), st.sampled_from(LEVELS))
def test_jitter_of_five_percent_changes_a_level_once_at_most(middle: float, before: SpoolLevel) -> None:
    level, changes = before, -1  # finding the right level for a sudden ratio is no flicker
    for ratio in (middle, *itertools.islice(itertools.cycle((middle - 0.025, middle + 0.025)), 10)):
        found = level_of(ratio, level)
        changes += found is not level
        level = found
    assert changes <= 1


def test_sound_is_given_up_last_and_pictures_of_people_first() -> None:
    shed = {level: {source for source in TrackSource if is_shed(source, level)} for level in SpoolLevel}
    assert shed == {
        CLEAR: set(),
        FILLING: set(),
        CAMERA: {TrackSource.CAMERA},
        SCREEN: {TrackSource.CAMERA, TrackSource.SCREENSHARE},
        FULL: set(TrackSource),
    }


def test_sound_outlasts_pictures_by_hours_when_the_storage_stays_away() -> None:
    """Ten people on the default volume: bytes per second as docs/recording.md counts them."""
    rates = {TrackSource.CAMERA: 10 * 1_500_000 // 8, TrackSource.MICROPHONE: 10 * 32_000 // 8}
    used, seconds, level = 0, 0, CLEAR
    ended = dict.fromkeys(rates, 0)
    while level is not FULL:
        for source, rate in rates.items():
            if not is_shed(source, level):
                used, ended[source] = used + 60 * rate, seconds
        seconds += 60
        level = level_of(used / (10 * 2**30), level)
    assert ended[TrackSource.CAMERA] == pytest.approx(1.25 * 3600, rel=0.05)
    assert ended[TrackSource.MICROPHONE] == pytest.approx(13.9 * 3600, rel=0.05)


@pytest.mark.parametrize(("usage", "ratio"), [(Usage(1, 4), 0.25), (Usage(0, 0), 1.0), (Usage(5, 0), 1.0)])
def test_a_spool_without_capacity_is_full(usage: Usage, ratio: float) -> None:
    assert usage.ratio == ratio


@pytest.mark.parametrize(
    ("capacity", "size"),
    [(0, 2**18), (64 * 2**20, 2**18), (10 * 2**30, 10 * 2**20), (2**50, 32 * 2**20)],
)
def test_small_spools_have_small_segments(capacity: int, size: int) -> None:
    assert segment_bytes(capacity) == size
