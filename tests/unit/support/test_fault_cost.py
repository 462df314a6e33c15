"""What a fault cost is told by pictures that were sent; what a publisher left out is nobody's loss."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from faults.cluster import FILES
from support.fault_cost import Cost, Costs, cost_of, missing
from support.promises import CLUSTER_FAULTS, Promise

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


@pytest.mark.parametrize(
    ("cost", "promise", "said"),
    [
        pytest.param(Cost(0.9, 4.0), Promise(lost=1, gap=5), 0, id="within"),
        pytest.param(Cost(1.1, 4.0), Promise(lost=1, gap=5), 1, id="lost-too-much"),
        pytest.param(Cost(0.9, 5.5), Promise(lost=1, gap=5), 1, id="away-for-too-long"),
        pytest.param(Cost(0.1, 0.1), Promise(lost=0, gap=0), 2, id="may-cost-nothing"),
        pytest.param(Cost(0.0, math.inf), Promise(lost=0, gap=None), 0, id="nobody-was-to-go-on"),
        pytest.param(Cost(0.0, math.inf), Promise(lost=0, gap=5), 1, id="somebody-was"),
    ],
)
def test_a_cost_is_held_to_what_is_promised(cost: Cost, promise: Promise, said: int) -> None:
    assert len(cost.beyond(promise)) == said


def test_what_a_fault_cost_is_told_even_if_it_was_more_than_it_may_be() -> None:
    costs = Costs()
    with pytest.raises(AssertionError, match=r"agent killed: 0\.20 s of captured media lost, 0 may be"):
        costs.judge("agent killed", Cost(0, 0), Cost(0.2, 0))
    assert [(row["fault"], row["lost"], row["gap"]) for row in costs.rows] == [
        ("agent killed", 0, 0),
        ("agent killed", 0.2, 0),
    ]


def test_every_promise_is_held_by_a_test_of_the_campaign() -> None:
    folder = Path(__file__).resolve().parents[2] / "cluster"
    tests = "".join((folder / name).read_text() for name in FILES)
    assert [fault for fault in CLUSTER_FAULTS if f'"{fault}"' not in tests] == []
