"""Kubernetes quantities."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotrack_api.quantity import whole
from isotrack_api.resource import QUANTITY


@pytest.mark.parametrize(
    ("quantity", "value"),
    [
        (0, 0), (12, 12), ("12", 12), ("1k", 1000), ("1Ki", 1024), ("10Gi", 10 * 2**30), ("500M", 500_000_000),
        ("1.5Gi", 3 * 2**29), ("0.1Ki", 102), ("1500m", 1), ("2Pi", 2**51), ("7T", 7 * 10**12),
    ],
)  # fmt: skip
def test_units_are_those_of_kubernetes(quantity: int | str, value: int) -> None:
    assert whole(quantity) == value


@given(st.from_regex(QUANTITY, fullmatch=True))
def test_whatever_our_api_takes_is_a_number(quantity: str) -> None:
    assert whole(quantity) >= 0


@pytest.mark.parametrize("text", ["", "x", "-1", "1e3", "1Kib", "1 Gi", "9" * 40, "1\n"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="quantity"):
        whole(text)
