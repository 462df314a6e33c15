"""What the environment says of the log, and what becomes of what it may not say."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from isotrack_recorder.errors import ConfigError
from isotrack_recorder.logs import check_choices, configure_logging


@pytest.fixture(autouse=True)
def root() -> Iterator[None]:
    """The root logger is the process's: leave it as it was."""
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    yield
    logger.handlers[:] = handlers
    logger.setLevel(level)


def lines(environ: dict[str, str], **defaults: str) -> list[str]:
    stream = io.StringIO()
    configure_logging(environ, stream, **defaults)
    logging.getLogger("x").info("went on", extra={"fields": {"name": "a\nb" + "c" * 600}})
    logging.getLogger("x").error("stopped")
    return stream.getvalue().splitlines()


@pytest.mark.parametrize("environ", [{}, {"ISOTRACK_LOG_LEVEL": "loud", "ISOTRACK_LOG_FORMAT": "xml"}])
def test_a_pod_logs_json_from_info_on_whatever_it_is_told(environ: dict[str, str]) -> None:
    first, second = map(json.loads, lines(environ))
    assert (first["event"], first["level"], second["event"]) == ("went on", "info", "stopped")
    assert first["name"].startswith("a bccc")
    assert len(first["name"]) == 501


def test_a_field_does_not_pass_itself_off_as_the_level() -> None:
    """A spool that fills up was logged with the level CameraShed."""
    stream = io.StringIO()
    configure_logging({}, stream)
    logging.getLogger("x").warning("full", extra={"fields": {"level": "CameraShed", "used": 1}})
    line = json.loads(stream.getvalue())
    assert (line["level"], line["used"], list(line)[:2]) == ("warning", 1, ["at", "level"])


def test_the_command_line_shows_errors_as_text() -> None:
    (line,) = lines({}, default_level="error", default_format="text")
    assert line.endswith("error   stopped")


def test_level_and_format_may_be_chosen() -> None:
    assert len(lines({"ISOTRACK_LOG_LEVEL": "ERROR", "ISOTRACK_LOG_FORMAT": "text"})) == 1


def test_a_person_is_told_of_a_value_that_means_nothing() -> None:
    check_choices({"ISOTRACK_LOG_LEVEL": "Warning", "ISOTRACK_LOG_FORMAT": ""})
    with pytest.raises(ConfigError, match="ISOTRACK_LOG_FORMAT 'xml' is unknown: use json, text"):
        check_choices({"ISOTRACK_LOG_FORMAT": "xml"})
