"""What a fault cost is told by pictures that were sent; what a publisher left out is nobody's loss."""

from __future__ import annotations

import pytest

from support.fault_cost import Cost, cost_of, missing

SENT = [serial for serial in range(100) if serial not in (48, 49, 51, 52, 70)]


@pytest.mark.parametrize(
    ("lost", "cost"),
    [
        pytest.param(set(), Cost(0.0, 0.0), id="nothing"),
        pytest.param({50}, Cost(0.1, 0.0), id="captured-before"),
        pytest.param({46, 47, 50}, Cost(0.3, 0.0), id="across-what-was-left-out"),
        pytest.param(set(range(53, 73)) - {70}, Cost(0.0, 1.9), id="gap"),
    ],
)
def test_cost_counts_sent_pictures(lost: set[int], cost: Cost) -> None:
    held = [serial for serial in SENT if serial not in lost]
    assert cost_of(held, 50, 10, SENT) == cost
    assert missing(held, SENT) == sorted(lost)
