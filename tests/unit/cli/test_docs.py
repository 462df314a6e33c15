"""docs/cli.md tells what the command does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from isotrack_recorder.cli.parser import build_parser
from isotrack_recorder.errors import IsotrackError

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "cli.md").read_text()


def errors(kind: type[IsotrackError] = IsotrackError) -> Iterator[type[IsotrackError]]:
    """The whole tree."""
    yield kind
    for below in kind.__subclasses__():
        yield from errors(below)


def test_every_command_and_option_is_documented() -> None:
    [commands] = [action.choices for action in build_parser()._actions if action.dest == "command"]
    assert isinstance(commands, dict)
    for name, parser in commands.items():
        assert f"## isotrack {name}" in PAGE
        for action in parser._actions:
            for option in action.option_strings:
                assert option in ("-h", "--help") or f"`{option}`" in PAGE or f"[{option}]" in PAGE, (name, option)


def test_every_exit_code_is_documented_with_its_reason() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and line[2].isdigit()]
    documented = {(int(row.split("|")[1]), reason.strip()) for row in rows for reason in row.split("|")[2].split(",")}
    for error in errors():
        assert (error.exit_code, error.reason) in documented
