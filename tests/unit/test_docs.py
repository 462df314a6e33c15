"""What the pages tell a reader to write or to type: every link leads somewhere, every manifest is valid, every command is one."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from isotrack_api.conditions import ConditionType
from isotrack_dev.cli import build_parser as dev_parser
from isotrack_recorder.cli.parser import build_parser as isotrack_parser
from support.contract import refusals
from support.examples import example_documents

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "dev" / "README.md"])
BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
COMMENT = re.compile(r"\s+#\s.*$")
SOURCES = ("crds", "operator", "recorder_image", "dev", "tests")


def named(paths: list[Path]) -> list[Any]:
    """Pages as parameters."""
    return [pytest.param(path, id=str(path.relative_to(ROOT))) for path in paths]


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in HEADING.findall(page.read_text()))
    return {heading.strip().replace(" ", "-") for heading in kept}


@pytest.mark.parametrize("page", named(PAGES))
def test_every_link_within_the_repository_leads_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text()):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors(target), link


# -- manifests ---------------------------------------------------------------------------------------------------------


def manifests() -> Iterator[Any]:
    """Every YAML block of the pages."""
    for page in PAGES:
        blocks = [text for language, text in BLOCK.findall(page.read_text()) if language == "yaml"]
        for number, text in enumerate(blocks, 1):
            yield pytest.param(text, id=f"{page.relative_to(ROOT)}-{number}")


def completed(shown: dict[str, Any]) -> dict[str, Any]:
    """A whole object around the excerpt that a page shows."""
    objects = {document["kind"]: document for _, document in example_documents()}
    if "kind" in shown:
        return shown
    if shown.keys() == {"spec"}:
        recording = objects["Recording"]
        return {**recording, "spec": {**recording["spec"], **shown["spec"]}}
    assert shown.keys() in ({"credentials"}, {"s3"}), "say here what this is an excerpt of"
    objects["RecordingClass"]["spec"]["storages"][0]["s3"] |= shown.get("s3", shown)
    return objects["RecordingClass"]


@pytest.mark.parametrize("text", list(manifests()))
def test_every_manifest_of_a_page_is_valid(text: str) -> None:
    assert refusals(completed(yaml.safe_load(text))) == ()


# -- commands ----------------------------------------------------------------------------------------------------------


def commands(*programs: str) -> Iterator[Any]:
    """Command lines of these programs in the pages' blocks, as words."""
    for page in PAGES:
        for language, text in BLOCK.findall(page.read_text()):
            prompts = language == "console"
            for line in text.replace("\\\n", " ").splitlines():
                if prompts and not line.startswith("$ "):
                    continue  # what the command printed
                line = COMMENT.sub("", line.removeprefix("$ ")).removeprefix(".venv/bin/").strip()
                if line.startswith(tuple(f"{program} " for program in programs)):
                    yield pytest.param(line, id=f"{page.relative_to(ROOT)}: {line[:60]}")


def accepted(line: str, parse: Any) -> Any:
    """Parse a command's arguments with the parser of the program itself."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return parse(shlex.split(line.partition(" > ")[0])[1:])
    except SystemExit:
        pytest.fail(f"{line}: {said.getvalue()}")


@pytest.mark.parametrize("line", list(commands("isotrack")))
def test_every_isotrack_command_of_a_page_is_one(line: str) -> None:
    assert accepted(line, isotrack_parser().parse_args).command


@pytest.mark.parametrize("line", list(commands("python -m isotrack_dev")))
def test_every_command_of_the_local_stack_is_one(line: str) -> None:
    assert accepted(line.removeprefix("python -m "), dev_parser().parse_args).run


@pytest.mark.parametrize("line", list(commands("make")))
def test_every_make_target_of_a_page_is_one(line: str) -> None:
    targets = re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    _, target, *rest = shlex.split(line)
    assert target in targets
    assert all(word.startswith("ARGS=") for word in rest)
    if target == "faults" and rest:
        from faults.__main__ import build_parser

        accepted(f"faults {rest[0].removeprefix('ARGS=')}", build_parser().parse_args)


@pytest.mark.parametrize("line", list(commands("kubectl")))
def test_what_kubectl_is_told_exists(line: str) -> None:
    for word in shlex.split(line):
        if word.startswith("examples/"):
            assert (ROOT / word).is_file()
        if word.startswith("--for=condition="):
            assert word.removeprefix("--for=condition=") in tuple(ConditionType)


@pytest.mark.parametrize("line", list(commands("helm")))
def test_every_value_that_helm_is_given_is_one_of_the_chart(line: str) -> None:
    values: Any = yaml.safe_load((ROOT / "charts/isotrack/values.yaml").read_text())
    words = shlex.split(line)
    for option, setting in pairwise(words):
        if option == "--set":
            found = values
            for step in setting.partition("=")[0].split("."):
                name, index, _ = step.partition("[")
                assert name in found, setting
                found = found[name]
                if index:
                    assert isinstance(found, list), setting
                    break


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def source() -> str:
    """All code, the Makefile and the chart."""
    files = [file for folder in SOURCES for file in (ROOT / folder).rglob("*.py") if file != Path(__file__).resolve()]
    files += [ROOT / "Makefile", *(ROOT / "charts").rglob("*.yaml")]
    return "\n".join(file.read_text() for file in files)


@pytest.mark.parametrize(
    "name",
    sorted({name for page in PAGES for name in re.findall(r"\b(?:ISOTRACK|LIVEKIT)_[A-Z0-9_]+\b", page.read_text())}),
)
def test_every_variable_that_a_page_names_is_read(name: str, source: str) -> None:
    assert name in source


@pytest.mark.parametrize(
    "path",
    sorted(
        {
            path
            for page in PAGES
            for path in re.findall(
                r"`((?:tests|dev|docs|charts|crds|examples|operator|recorder_image)/(?:[\w-]+[./]?)+)`",
                page.read_text(),
            )
        }
    ),
)
def test_every_path_that_a_page_names_is_there(path: str) -> None:
    forbidden = path == "operator/__init__.py"  # docs/architecture.md says why
    assert (ROOT / path).exists() != forbidden
