"""How much may be muxed before it is sent, by how full the disk is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotrack_recorder.ship.budget import MOST_BYTES, Budget, budget_of
from isotrack_recorder.ship.store import PART_BYTES
from isotrack_recorder.spool.watermarks import Usage

MIB = 1024 * 1024
GIB = 1024 * MIB


@pytest.mark.parametrize(
    ("usage", "budget"),
    [
        pytest.param(Usage(0, 10 * GIB), Budget(MOST_BYTES, tight=False), id="much-room"),
        pytest.param(Usage(600 * MIB, 1000 * MIB), Budget(50 * MIB, tight=True), id="half-of-what-is-left"),
        pytest.param(Usage(599 * MIB, 1000 * MIB), Budget(50 * MIB + MIB // 2, tight=False), id="just-not-tight"),
        pytest.param(Usage(699 * MIB, 1000 * MIB), Budget(1000 * MIB // 128, tight=True), id="the-least"),
        pytest.param(Usage(799 * MIB, 1000 * MIB), Budget(1000 * MIB // 128, tight=True), id="just-not-scarce"),
        pytest.param(
            Usage(97 * GIB, 100 * GIB), Budget(PART_BYTES, tight=True, scarce=True), id="a-part-on-a-large-disk"
        ),
        pytest.param(Usage(20 * MIB, 16 * MIB), Budget(256 * 1024, tight=True, scarce=True), id="more-than-full"),
        pytest.param(Usage(0, 0), Budget(256 * 1024, tight=True, scarce=True), id="nothing-known"),
    ],
)
def test_budgets(usage: Usage, budget: Budget) -> None:
    assert budget_of(usage) == budget


@given(used=st.integers(0, 1 << 45), capacity=st.integers(64 * MIB, 1 << 45))
def test_files_alone_never_come_to_the_mark_at_which_pictures_are_given_up(used: int, capacity: int) -> None:
    budget = budget_of(Usage(used, capacity))
    assert 0 < budget.bytes <= MOST_BYTES
    assert budget.bytes <= capacity // 64 or used + budget.bytes <= 0.7 * capacity
