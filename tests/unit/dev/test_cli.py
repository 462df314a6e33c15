"""Command line: results on stdout, errors on stderr, codes that scripts can read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from isotrack_dev import errors
from isotrack_dev.cli import build_parser, main
from isotrack_dev.process import Process
from isotrack_dev.record import Record


@pytest.fixture(autouse=True)
def states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ISOTRACK_STATE", str(tmp_path))
    return tmp_path


def test_status_of_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status"]) == 0
    assert capsys.readouterr().out.startswith("no stack in ")


def test_status_of_an_absent_stack_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--name", "x"]) == 1
    assert capsys.readouterr().out == "x: absent\n"


def test_status_tells_scripts_what_died(states: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dead = Process(2**22 + 1, 1)  # above the largest pid
    Record("x", 0, dead, dead, 0.0, {"etcd": dead}).write(states / "x" / "stack.json")
    assert main(["status", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert (found["name"], found["state"], found["components"]) == ("x", "dead", {"etcd": "ended"})


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["kubeconfig"], 64),
        (["env", "--name", "x"], 64),
        (["logs", "etcd"], 64),
        (["up", "--name", "../x"], 64),
        (["build", "no-such-program"], 64),
        (["images", "no-such-image"], 64),
    ],
)
def test_commands_that_cannot_mean_anything(words: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")


def test_help_names_every_exit_code_of_the_error_tree() -> None:
    text = build_parser().format_help()
    tree = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, errors.DevError)]
    assert len(tree) == 5
    assert all(f"{one.exit_code} " in text for one in tree)
