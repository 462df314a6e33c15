"""What an attempt found out of the first one's clock outlives its agent, and is data that is checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from isotrack_recorder.clocks import Bounds, CallClock
from isotrack_recorder.pod.kept_clock import load_call_clock, save_call_clock


def test_a_clock_is_read_back(tmp_path: Path) -> None:
    kept = CallClock("b1", Bounds(-5, 1 << 60))
    save_call_clock(tmp_path / "ship" / "clock.json", kept)
    assert load_call_clock(tmp_path / "ship" / "clock.json") == kept


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '["b1", 1]',
        '["b1", 2, 1]',
        '["b1", 0, 1e300]',
        f'["b1", 0, {1 << 63}]',
        f'["{"b" * 65}", 0, 1]',
        "[1, 0, 1]",
        "[" * 5000,
    ],
)
def test_anything_else_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "clock.json").write_text(text)
    assert load_call_clock(tmp_path / "clock.json") is None


def test_a_disk_that_takes_no_note_costs_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "ship").write_text("a file, where a folder is to be")
    save_call_clock(tmp_path / "ship" / "clock.json", CallClock("", Bounds(0, 1)))
    assert load_call_clock(tmp_path / "missing.json") is None
