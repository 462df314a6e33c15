"""Logging of all entry points: a constant phrase plus fields, one line each, on stderr.

ISOTRACK_LOG_FORMAT is `json` (default in pods) or `text` (default of the command line), ISOTRACK_LOG_LEVEL one of debug, info, warning, error.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, TextIO

from .errors import ConfigError

CHOICES: Final = {
    "ISOTRACK_LOG_LEVEL": ("debug", "info", "warning", "error"),
    "ISOTRACK_LOG_FORMAT": ("json", "text"),
}
"""The variables, and what each may say."""
MAX_VALUE: Final = 500
"""Characters of one field: foreign text is cut."""


class _Formatter(logging.Formatter):
    """Renders the phrase and its fields; values are cut."""

    def __init__(self, *, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        """One line (and a traceback where the record carries one)."""
        fields = {key: _cut(value) for key, value in getattr(record, "fields", {}).items()}
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        if self._as_json:
            trace = {"trace": self.formatException(record.exc_info)} if record.exc_info else {}
            # NB: twice, to stand first and to hold against a field of the same name
            head = {"at": at, "level": record.levelname.lower(), "logger": record.name, "event": record.getMessage()}
            return json.dumps({**head, **fields, **head, **trace}, ensure_ascii=False, default=str)
        tail = "".join(f" {key}={value}" for key, value in fields.items())
        trace_text = f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""
        return f"{at} {record.levelname.lower():7} {record.getMessage()}{tail}{trace_text}"


def configure_logging(
    environ: Mapping[str, str], stream: TextIO, *, default_level: str = "info", default_format: str = "json"
) -> None:
    """Send everything to `stream`. Unknown values fall back to the defaults: no pod fails for want of a log's level."""

    def chosen(variable: str, default: str) -> str:
        value = environ.get(variable, default).lower()
        return value if value in CHOICES[variable] else default

    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Formatter(as_json=chosen("ISOTRACK_LOG_FORMAT", default_format) == "json"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(chosen("ISOTRACK_LOG_LEVEL", default_level).upper())
    for noisy in ("aioice", "aiortc", "botocore", "urllib3", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def check_choices(environ: Mapping[str, str]) -> None:
    """Tell a person of a value that would fall back to the default.

    Raises:
        ConfigError: It names the variable, the value and what is allowed.
    """
    for variable, known in CHOICES.items():
        value = environ.get(variable, "")
        if value and value.lower() not in known:
            raise ConfigError(f"{variable} {value[:100]!r} is unknown: use {', '.join(known)}")


def _cut(value: object) -> object:
    """Numbers and flags as they are, everything else as text without line breaks."""
    if value is None or isinstance(value, bool | int | float):
        return value
    text = " ".join(str(value).split())
    return text if len(text) <= MAX_VALUE else text[:MAX_VALUE] + "…"
