"""File name templates: which are legal. The same rules run here, in the CRD (CEL twins) and in the command line.

A template is literal text and placeholders; the writer of files appends `_p<n>` to further parts, `_a<n>` to files of later
attempts, and the extension. Two files of one call must not share a name by construction, so a template holds

- `{media_kind}` and `{stream_kind}`, which tell apart the output types of one participant session, and
- `{peer_id}`, or `{user_id}` with `{started_ms}`, which tell apart sessions: a person may come back or use two devices.

Literal text is ASCII without separators, spaces or shell and URL characters; it starts with a letter, a digit or `_`.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import Field

from .markers import Cel

PLACEHOLDERS = (
    "prefix",
    "user_id",
    "peer_id",
    "stream_kind",
    "media_kind",
    "started_ms",
    "layer",
    "part",
    "call_id",
    "track_id",
    "codec",
)
"""What `{…}` may name."""

_PLACEHOLDER = r"\{(?:" + "|".join(PLACEHOLDERS) + r")\}"
TEMPLATE_PATTERN = rf"^(?:{_PLACEHOLDER}|[A-Za-z0-9_])(?:{_PLACEHOLDER}|[A-Za-z0-9._~=+@,()-])*$"
"""Syntax of a template, in the dialect common to RE2 and Python."""
MAX_TEMPLATE_LENGTH = 512


def _has_legal_syntax(template: str) -> bool:
    return re.fullmatch(TEMPLATE_PATTERN, template) is not None


def _tells_outputs_apart(template: str) -> bool:
    return "{media_kind}" in template and "{stream_kind}" in template


def _tells_sessions_apart(template: str) -> bool:
    return "{peer_id}" in template or ("{user_id}" in template and "{started_ms}" in template)


TEMPLATE_RULES = (
    Cel(
        f"self.matches(r'{TEMPLATE_PATTERN}')",
        "fileNameTemplate may hold letters, digits, . _ ~ = + @ , ( ) - and the placeholders "
        + " ".join(f"{{{name}}}" for name in PLACEHOLDERS)
        + "; it starts with a letter, a digit, _ or a placeholder",
        _has_legal_syntax,
    ),
    Cel(
        "self.contains('{media_kind}') && self.contains('{stream_kind}')",
        "fileNameTemplate must contain {media_kind} and {stream_kind}, or files of one participant would share a name",
        _tells_outputs_apart,
    ),
    Cel(
        "self.contains('{peer_id}') || (self.contains('{user_id}') && self.contains('{started_ms}'))",
        "fileNameTemplate must contain {peer_id}, or {user_id} and {started_ms}, or two sessions of one person would share a name",
        _tells_sessions_apart,
    ),
)

FileNameTemplate = Annotated[str, Field(min_length=1, max_length=MAX_TEMPLATE_LENGTH), *TEMPLATE_RULES]
"""A template that passes all rules."""


FileNamePrefix = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9_][A-Za-z0-9._~-]*$")]
"""`{prefix}` of a template: characters that a file name keeps as they are (RFC 3986 section 2.3)."""


def template_error(template: str) -> str | None:
    """Say what is wrong with a template, in one line; None when it is legal."""
    if not 1 <= len(template) <= MAX_TEMPLATE_LENGTH:
        return f"fileNameTemplate must have 1 to {MAX_TEMPLATE_LENGTH} characters"
    return next((rule.message for rule in TEMPLATE_RULES if not rule.holds(template)), None)
