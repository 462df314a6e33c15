"""What the checker of recordings allows to publishers who had no processor in time."""

from __future__ import annotations

import pytest

from support.ledger import Ledger, SentFrame
from support.people import Cast, Person, Picture
from support.recording_check import ONE_CALL, allowance

CAST = Cast(people=(Person(identity="alice", camera=Picture(fps=10)),))


def sent_late_by(*seconds: float) -> Ledger:
    """Pictures and beeps of Alice, each so late."""
    ledger = Ledger()
    for number, late in enumerate(seconds):
        ledger.sent("alice", "camera").frames[number] = SentFrame(number, number / 10 + late, None)
        ledger.sent("alice", "microphone").beeps[number] = number + late
    return ledger


@pytest.mark.parametrize(
    ("late", "allowed"),
    [
        pytest.param([], 0.0, id="nothing-sent"),
        pytest.param([0.002] * 50, 0.0, id="in-time"),
        pytest.param([0.002] * 99 + [0.2], 0.0, id="once-late"),
        pytest.param([0.045] * 50, 0.030, id="late"),
        pytest.param([0.240] * 50, 0.100, id="very-late"),
    ],
)
def test_limits_are_wider_by_what_publishers_were_late(late: list[float], allowed: float) -> None:
    found = allowance(CAST, sent_late_by(*late))
    assert found == pytest.approx(allowed)
    wider = ONE_CALL.wider_by(found)
    assert wider.sound_late == pytest.approx((-0.010 - allowed, 0.050 + allowed))
    assert wider.scatter == pytest.approx(0.035 + allowed)
