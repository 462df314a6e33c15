"""File name templates: legal ones give distinct, harmless names."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotrack_api.base import DEFAULT_FILE_NAME_TEMPLATE
from isotrack_api.templates import PLACEHOLDERS, TEMPLATE_RULES, template_error

pieces = st.one_of(
    st.sampled_from([f"{{{name}}}" for name in PLACEHOLDERS]),
    st.sampled_from(["{", "}", "/", "\\", "..", " ", "\n", "\x00", "{x}", "🎉", "٣", "-", "_", "a", "."]),
)


def test_default_template_is_legal() -> None:
    assert template_error(DEFAULT_FILE_NAME_TEMPLATE) is None


@pytest.mark.parametrize(
    ("template", "start"),
    [
        ("", "fileNameTemplate must have 1 to 512 characters"),
        ("x" * 513, "fileNameTemplate must have 1 to 512 characters"),
        ("{media_kind}", "fileNameTemplate must contain {media_kind} and {stream_kind}"),
        ("{media_kind}{stream_kind}", "fileNameTemplate must contain {peer_id}"),
        ("{peer_id}{media_kind}{stream_kind}\n", "fileNameTemplate may hold"),
    ],
)
def test_illegal_template_gets_one_line(template: str, start: str) -> None:
    error = template_error(template)
    assert error is not None
    assert error.startswith(start)
    assert "\n" not in error


@given(st.lists(pieces, min_size=1, max_size=12).map("".join))
def test_legal_templates_are_harmless_and_tell_sessions_apart(template: str) -> None:
    if template_error(template) is not None:
        return
    literal = template
    for name in PLACEHOLDERS:
        literal = literal.replace(f"{{{name}}}", "")
    assert re.fullmatch(r"[A-Za-z0-9._~=+@,()-]*", literal)
    assert template[0] not in ".-"
    values = {name: f"<{name}>" for name in PLACEHOLDERS}
    names = {
        template.format_map(values | changed)
        for changed in (
            {"media_kind": "audio", "peer_id": "1", "started_ms": "1", "stream_kind": "peer"},
            {"media_kind": "video", "peer_id": "1", "started_ms": "1", "stream_kind": "peer"},
            {"media_kind": "video", "peer_id": "1", "started_ms": "1", "stream_kind": "screenshare"},
            {"media_kind": "video", "peer_id": "2", "started_ms": "2", "stream_kind": "screenshare"},
        )
    }
    assert len(names) == 4


@given(st.text(max_size=600))
def test_any_text_gets_an_answer(template: str) -> None:
    error = template_error(template)
    assert error is None or any(error == rule.message for rule in TEMPLATE_RULES) or "512" in error
