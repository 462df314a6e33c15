"""Why media is missing."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotrack_api.manifest import GapReason
from isotrack_recorder.finalise.gaps import LOSSES, MAX_GAPS, Cause, GapLog, Missing, explain

S = 1_000_000_000
MUTED, PAUSED, CRASHED = GapReason.MUTED, GapReason.PAUSED, GapReason.CRASHED
SILENT, LOST, AWAY = GapReason.SILENT, GapReason.LOST, GapReason.DISCONNECTED
DAMAGED = GapReason.DAMAGED


@pytest.mark.parametrize(
    ("causes", "expected"),
    [
        pytest.param([], [(10, 20, LOST)], id="no-cause"),
        pytest.param([(0, 30, MUTED)], [(10, 20, MUTED)], id="covered"),
        pytest.param([(10.2, 19.9, MUTED)], [(10, 20, MUTED)], id="edges-belong-to-the-cause"),
        pytest.param([(8, 18.5, CRASHED)], [(10, 20, CRASHED)], id="coming-back-belongs-to-the-crash"),
        pytest.param([(8, 17.5, CRASHED)], [(10, 17.5, CRASHED), (17.5, 20, LOST)], id="but-not-for-ever"),
        pytest.param([(10.9, 20, CRASHED)], [(10, 20, CRASHED)], id="what-it-had-not-written-belongs-to-the-crash"),
        pytest.param([(14, 16, MUTED)], [(10, 14, LOST), (14, 16, MUTED), (16, 20, LOST)], id="in-the-middle"),
        pytest.param([(5, 15, PAUSED), (5, 30, MUTED)], [(10, 15, PAUSED), (15, 20, MUTED)], id="stronger-cause-first"),
        pytest.param([(20, 30, MUTED), (0, 10, MUTED)], [(10, 20, LOST)], id="beside"),
        pytest.param([(18, 30, AWAY)], [(10, 18, LOST), (18, 20, AWAY)], id="lost-before-the-connection-was"),
    ],
)
def test_a_stretch_is_split_by_its_causes(
    causes: list[tuple[float, float, GapReason]], expected: list[tuple[float, float, GapReason]]
) -> None:
    known = [Cause(round(start * S), round(end * S), reason) for start, end, reason in causes]
    found = [(gap.start_ns / S, gap.end_ns / S, gap.reason) for gap in explain(10 * S, 20 * S, known, LOST)]
    assert found == expected


@pytest.mark.parametrize(
    ("causes", "expected"),
    [
        pytest.param([(18, 19, AWAY)], [(10, 18, AWAY), (18, 19, AWAY), (19, 20, AWAY)], id="noticed-late"),
        pytest.param([(5, 14, AWAY)], [(10, 14, AWAY), (14, 20, SILENT)], id="long-after-the-return"),
        pytest.param([(18, 30, AWAY), (0, 18, MUTED)], [(10, 18, MUTED), (18, 20, AWAY)], id="muted-before"),
        pytest.param([(30, 40, AWAY)], [(10, 20, SILENT)], id="beside"),
    ],
)
def test_silence_beside_a_lost_connection_is_part_of_its_loss(
    causes: list[tuple[float, float, GapReason]], expected: list[tuple[float, float, GapReason]]
) -> None:
    """It takes seconds until we notice that nothing comes any more, and some until a key frame has come again."""
    known = [Cause(round(start * S), round(end * S), reason) for start, end, reason in causes]
    found = [(gap.start_ns / S, gap.end_ns / S, gap.reason) for gap in explain(10 * S, 20 * S, known, SILENT)]
    assert found == expected


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50), st.sampled_from([MUTED, PAUSED, CRASHED]))))
def test_every_moment_is_explained_once(causes: list[tuple[int, int, GapReason]]) -> None:
    known = [Cause(start * S, (start + length) * S, reason) for start, length, reason in causes]
    found = list(explain(10 * S, 40 * S, known, LOST))
    assert sum(gap.end_ns - gap.start_ns for gap in found) == 30 * S
    assert all(before.end_ns == after.start_ns for before, after in itertools.pairwise(found))


def test_neighbours_of_one_reason_become_one() -> None:
    log = GapLog()
    for start in range(10):
        log.add(Missing(start * 400_000_000, start * 400_000_000 + 380_000_000, SILENT))
    log.add(Missing(5 * S, 6 * S, LOST))
    assert [(gap.start_ms, gap.duration_ms, gap.reason) for gap in log.rows(0)] == [
        (0, 3980, SILENT),
        (5000, 1000, LOST),
    ]


def test_losses_with_media_between_them_stay_apart() -> None:
    log = GapLog()
    for start_ms in (0, 20, 60, 160):
        log.add(Missing(start_ms * 1_000_000, (start_ms + 20) * 1_000_000 - 1, LOST))
    assert [(gap.start_ms, gap.duration_ms) for gap in log.rows(0)] == [(0, 40), (60, 20), (160, 20)]


@pytest.mark.parametrize("others", [[], [SILENT], [DAMAGED]])
def test_a_list_that_is_too_long_still_tells_how_much_was_lost(others: list[GapReason]) -> None:
    """A day with a lost packet every two seconds, and with something else between them."""
    log = GapLog()
    for n in range(86_400 // 2):
        for place, reason in enumerate([LOST, *others]):
            start = 2 * n * S + place * S
            log.add(Missing(start, start + 20_000_000, reason))
    rows = log.rows(0)
    assert len(rows) <= MAX_GAPS
    lost = (86_400 // 2) * 20 * len({LOST, *others} & LOSSES)
    assert sum(gap.counted_ms for gap in rows if gap.reason in LOSSES) == lost


def test_the_list_stays_bounded() -> None:
    log = GapLog()
    for n in range(3 * MAX_GAPS):
        log.add(Missing(n * S, n * S + 500_000_000, (SILENT, LOST)[n // 2 % 2]))
    rows = log.rows(0)
    assert len(rows) <= MAX_GAPS
    assert rows[0].start_ms == 0
    assert rows[-1].start_ms + rows[-1].duration_ms == (3 * MAX_GAPS - 1) * 1000 + 500
