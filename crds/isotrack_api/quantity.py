"""Kubernetes quantities as numbers (pure)."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

from .resource import QUANTITY

_FACTORS: Final = {
    "m": Decimal("0.001"),
    **{unit: Decimal(1000) ** power for power, unit in enumerate(("", "k", "M", "G", "T", "P"))},
    **{unit: Decimal(1024) ** power for power, unit in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi"), 1)},
}
_NUMBER: Final = re.compile(r"[0-9.]+")


def whole(quantity: int | str) -> int:
    """What a quantity amounts to: `1536Mi` is 1610612736. Fractions are dropped: a limit is never taken for more than it is.

    Raises:
        ValueError: it is no quantity as our API takes them (`resource.Quantity`).
    Source: Kubernetes, apimachinery/pkg/api/resource.
    """
    text = str(quantity)
    if not re.fullmatch(QUANTITY, text):
        raise ValueError(f"{text[:40]!r} is no quantity: 10Gi, 500M or a number of bytes is one")
    number = _NUMBER.match(text)
    assert number is not None, "QUANTITY begins with a digit"
    return int(Decimal(number[0]) * _FACTORS[text[number.end() :]])
