"""Behaviour of the models beyond accept and reject: reading, grants, storages, transitions."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from isotrack_api.recording import Recording
from isotrack_api.recording_class import CallGrant, RecordingClass, RecordingClassSpec, glob_matches
from support.contract_cases import CASES, CLASS, RECORDING, STATUS_CASES, VALID, altered


def test_object_of_a_newer_version_can_be_read() -> None:
    """An operator that is older than the CRD goes on with what it knows."""
    newer = altered(altered(RECORDING, "spec.chapters", []), "spec.call.shard", 3)
    assert Recording.from_object(newer).spec.call.id == "team-a_standup"
    with pytest.raises(ValidationError):
        Recording.model_validate(newer)


def test_object_survives_the_round_trip() -> None:
    for case in CASES:
        if case.accepted and case.manifest["kind"] == "Recording":
            once = Recording.model_validate(case.manifest)
            assert Recording.model_validate(once.to_object()) == once
            assert set(once.to_object()["spec"]) <= set(case.manifest["spec"])
    for row in STATUS_CASES:
        if row.accepted and row.kind == "Recording":
            once = Recording.model_validate({**VALID[row.kind], "status": row.status})
            assert once.to_object()["status"].items() >= row.status.items()


@pytest.mark.parametrize(
    ("pattern", "call", "expected"),
    [
        ("*", "", True),
        ("standup", "standup", True),
        ("standup", "Standup", False),
        ("{namespace}_*", "team-a_standup", True),
        ("{namespace}_*", "team-a-b_standup", False),
        ("{namespace}_*", "team-a_", True),
        ("a?c", "abc", True),
        ("a?c", "ac", False),
        ("a.c", "abc", False),
        ("[ab]", "a", False),
        ("*a*b*", "xxaxxbxx", True),
        ("*a*b*", "xxbxxaxx", False),
        ("**", "x", True),
        ("🎉?", "🎉🎉", True),
    ],
)
def test_call_pattern_covers(pattern: str, call: str, expected: bool) -> None:
    assert glob_matches(pattern, "team-a", call) is expected


@given(st.text("ab*?", max_size=8), st.text("ab", max_size=8))
def test_call_pattern_means_what_the_regular_expression_means(pattern: str, call: str) -> None:
    expression = "".join({"*": ".*", "?": "."}.get(char, re.escape(char)) for char in pattern)
    assert glob_matches(pattern, "n", call) is (re.fullmatch(expression, call) is not None)


def test_hostile_call_pattern_costs_little() -> None:
    """A backtracking matcher needs longer than the age of the universe for this one."""
    assert glob_matches("*a" * 127 + "b", "n", "a" * 256) is False


@pytest.mark.parametrize(
    ("namespaces", "namespace", "labels", "expected"),
    [
        pytest.param({"names": ["a"]}, "a", {}, True, id="named"),
        pytest.param({"names": ["a"]}, "b", {}, False, id="another name"),
        pytest.param({"selector": {}}, "b", {}, True, id="empty selector is everybody"),
        pytest.param({"selector": {"matchLabels": {"t": "1"}}}, "b", {"t": "1", "u": "2"}, True, id="selected"),
        pytest.param({"selector": {"matchLabels": {"t": "1", "u": "2"}}}, "b", {"t": "1"}, False, id="one label is missing"),
        pytest.param({"names": ["a"], "selector": {"matchLabels": {"t": "1"}}}, "b", {"t": "1"}, True, id="named or selected"),
    ],
)  # fmt: skip
def test_grant_reaches(namespaces: object, namespace: str, labels: dict[str, str], expected: bool) -> None:
    grant = CallGrant.model_validate({"namespaces": namespaces, "ids": ["*"]})
    assert grant.allows(namespace, labels, "call") is expected


def test_class_without_grants_allows_nobody() -> None:
    assert not RecordingClass.model_validate(CLASS).spec.allows("kube-system", {}, "any")


def test_storage_is_chosen_by_name_then_default_then_place() -> None:
    first = CLASS["spec"]["storages"][0]
    two = altered(CLASS, "spec.storages", [first, {**first, "name": "other"}])["spec"]
    spec = RecordingClassSpec.model_validate(two)
    preferred = RecordingClassSpec.model_validate({**two, "defaults": {"storage": "other"}})

    def name(spec: RecordingClassSpec, wanted: str | None) -> str | None:
        found = spec.storage_named(wanted)
        return found.name if found else None

    assert name(spec, None) == "archive"
    assert name(preferred, None) == "other"
    assert name(preferred, "archive") == "archive"
    assert name(preferred, "nowhere") is None
