"""The judge of the operator's trials: a good end passes, and each thing that can be wrong with one is found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from faults.evidence import Kill
from faults.operator_evidence import CHECKS, Aftermath, Expected, judge
from isotrack_operator.builders import names

FAULT = "operator:after:1:api POST jobs"


def a_recording(**status: Any) -> dict[str, Any]:
    good = {
        "phase": "Uploaded",
        "conditions": [
            {"type": "Finished", "status": "True", "reason": "Requested"},
            {"type": "Succeeded", "status": "True", "reason": "Uploaded"},
        ],
        "attempts": [{"n": 1, "result": "Finished"}],
        "transitions": [
            {"seq": 1, "phase": "Invoked", "reason": "WaitingForCall"},
            {"seq": 2, "phase": "Uploaded", "reason": "Uploaded"},
        ],
    }
    return {"metadata": {"name": "standup"}, "status": {**good, **status}}


GOOD = Aftermath(
    expected=Expected(phase="Uploaded", reason="Uploaded", attempts=("Finished",)),
    recording=a_recording(),
    kills=(Kill("operator", 1.0, hit=True),),
    faults={FAULT: 1},
    jobs=(("standup-a1", "1"),),
    pods=(("standup-a1", "2"),),
    outputs={"log": "nothing to hide"},
    secrets={"the token": "canary-4711"},
)


def test_a_good_end_passes() -> None:
    assert judge(GOOD) == ((), ())


@pytest.mark.parametrize(
    ("check", "after"),
    [
        ("it_ended_as_it_should", replace(GOOD, recording=a_recording(phase="Failed"))),
        ("it_ended_as_it_should", replace(GOOD, recording=a_recording(conditions=[]))),
        ("it_ended_as_it_should", replace(GOOD, recording=a_recording(attempts=[{"result": "Lost"}]))),
        ("nothing_was_made_twice", replace(GOOD, jobs=(("standup-a1", "1"), ("standup-a1", "3")))),
        ("nothing_was_made_twice", replace(GOOD, pods=(("standup-a1", "2"), ("standup-a1", "4")))),
        (
            "no_transition_is_missing_or_told_twice",
            replace(
                GOOD, recording=a_recording(transitions=[{"seq": n, "phase": str(n), "reason": ""} for n in (1, 3)])
            ),
        ),
        (
            "no_transition_is_missing_or_told_twice",
            replace(GOOD, recording=a_recording(transitions=[{"seq": n, "phase": "", "reason": ""} for n in (1, 2)])),
        ),
        ("no_transition_is_missing_or_told_twice", replace(GOOD, recording=a_recording(transitions=[]))),
        ("nothing_is_held", replace(GOOD, held=(f"finalizer {names.FINALIZER}",))),
        ("nothing_is_orphaned", replace(GOOD, orphans=("secrets standup-a1-join",))),
        ("no_secret_is_told", replace(GOOD, outputs={"log": "token canary-4711"})),
    ],
)
def test_what_is_wrong_is_found(check: str, after: Aftermath) -> None:
    findings, _ = judge(after)
    assert {text.partition(":")[0] for text in findings} == {check}


def test_every_check_is_shown_to_fail() -> None:
    (marks,) = [mark for mark in test_what_is_wrong_is_found.pytestmark if mark.name == "parametrize"]
    assert {row[0] for row in marks.args[1]} == {check.__name__ for check in CHECKS}


@pytest.mark.parametrize(
    "after",
    [
        replace(GOOD, faults={FAULT: 0}, kills=()),
        replace(GOOD, faults={}),
        replace(GOOD, kills=(Kill("operator", 1.0, hit=False),)),
    ],
    ids=["never passed", "none", "died of something else"],
)
def test_a_death_that_was_not_seen_proves_nothing(after: Aftermath) -> None:
    assert judge(after)[1]
