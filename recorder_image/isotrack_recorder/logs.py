"""Logging of all entry points: a constant phrase plus fields, one line each, on stderr.

ISOTRACK_LOG_FORMAT is `json` (default in pods) or `text` (default of the command line), ISOTRACK_LOG_LEVEL one of debug, info, warning, error.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, TextIO

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
            head = {"at": at, "level": record.levelname.lower(), "logger": record.name, "event": record.getMessage()}
            return json.dumps({**head, **fields, **trace}, ensure_ascii=False, default=str)
        tail = "".join(f" {key}={value}" for key, value in fields.items())
        trace_text = f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""
        return f"{at} {record.levelname.lower():7} {record.getMessage()}{tail}{trace_text}"


def configure_logging(
    environ: Mapping[str, str], stream: TextIO, *, default_level: str = "info", default_format: str = "json"
) -> None:
    """Send everything to `stream`. Unknown values of the environment fall back to the defaults."""
    level = environ.get("ISOTRACK_LOG_LEVEL", default_level).upper()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(_Formatter(as_json=environ.get("ISOTRACK_LOG_FORMAT", default_format) == "json"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level if level in ("DEBUG", "INFO", "WARNING", "ERROR") else default_level.upper())
    for noisy in ("aioice", "aiortc", "botocore", "urllib3", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _cut(value: object) -> object:
    """Numbers and flags as they are, everything else as text without line breaks."""
    if value is None or isinstance(value, bool | int | float):
        return value
    text = " ".join(str(value).split())
    return text if len(text) <= MAX_VALUE else text[:MAX_VALUE] + "…"
