"""The contract table against pydantic. `tests/cluster/test_api_contract.py` runs the same table against a real API server."""

from __future__ import annotations

import pytest

from support.contract import change_refusals, refusals
from support.contract_cases import CASES, CHANGES, STATUS_CASES, VALID, Case, Change, StatusCase, merged


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_manifest_is_judged_as_the_table_says(case: Case) -> None:
    found = refusals(case.manifest)
    assert (not found) == case.accepted, found
    if not case.accepted:
        assert any(case.field.startswith(fault.path) or fault.path.startswith(case.field) for fault in found), found
        assert any(case.says in fault.message for fault in found), found


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.name)
def test_change_is_judged_as_the_table_says(change: Change) -> None:
    old = VALID[change.kind]
    found = change_refusals(old, merged(old, change.patch))
    assert (not found) == change.accepted, found
    assert change.accepted or any(change.says in fault.message for fault in found), found


@pytest.mark.parametrize("case", STATUS_CASES, ids=lambda case: case.name)
def test_status_is_judged_as_the_table_says(case: StatusCase) -> None:
    found = refusals({**VALID[case.kind], "status": case.status})
    assert (not found) == case.accepted, found
    if not case.accepted:
        assert any(fault.path.startswith(case.field) for fault in found), found


def test_names_of_cases_are_unique() -> None:
    for table in (CASES, CHANGES, STATUS_CASES):
        names = [row.name for row in table]
        assert len(names) == len(set(names))
