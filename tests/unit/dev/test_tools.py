"""Pinned builds: when a program is built anew, and with which Go."""

from __future__ import annotations

from pathlib import Path

import pytest

from isotrack_dev import tools
from isotrack_dev.errors import BuildError, RequirementError
from isotrack_dev.paths import REPOSITORY
from isotrack_dev.tools import KUBERNETES_VERSION, MODULES, Module, build_key, choose_toolchain, go_version, needed_go

ONE = Module("one", {"prog": "example.org/prog"})
SOURCES = {"go.mod": b"module one\n\ngo 1.21\n", "go.sum": b""}


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("go1.26.8", (1, 26, 8)),
        ("go version go1.21.0 linux/amd64", (1, 21, 0)),
        ("go 1.26", (1, 26, 0)),
        ("go1.27rc1", (1, 27, 0)),
    ],
)
def test_go_versions_are_read(text: str, version: tuple[int, int, int]) -> None:
    assert go_version(text) == version


def test_text_without_a_version_is_refused() -> None:
    with pytest.raises(ValueError, match="not a Go version"):
        go_version("devel")


@pytest.mark.parametrize(
    ("installed", "toolchain"),
    [
        pytest.param((1, 26, 0), "local", id="just-right"),
        pytest.param((1, 30, 1), "local", id="newer"),
        pytest.param((1, 25, 9), "auto", id="older-fetches-the-right-one"),
        pytest.param((1, 21, 0), "auto", id="oldest-that-can-fetch"),
    ],
)
def test_toolchain_is_fetched_only_when_needed(installed: tuple[int, int, int], toolchain: str) -> None:
    assert choose_toolchain(installed, (1, 26, 0)) == toolchain


@pytest.mark.parametrize("installed", [None, (1, 20, 14), (1, 19, 8)])
def test_missing_or_ancient_go_says_what_to_install(installed: tuple[int, int, int] | None) -> None:
    with pytest.raises(RequirementError, match=r"1\.26\.0 or newer"):
        choose_toolchain(installed, (1, 26, 0))


def test_key_is_stable() -> None:
    assert build_key(ONE, SOURCES, "go1.26.8") == build_key(ONE, dict(reversed(SOURCES.items())), "go1.26.8")


@pytest.mark.parametrize(
    ("module", "sources", "go"),
    [
        pytest.param(ONE, {**SOURCES, "go.sum": b"x"}, "go1.26.8", id="dependency"),
        pytest.param(ONE, {**SOURCES, "main.go": b"x"}, "go1.26.8", id="own-source"),
        pytest.param(ONE, SOURCES, "go1.26.9", id="go-version"),
        pytest.param(Module("one", ONE.programs, ("main.version=2",)), SOURCES, "go1.26.8", id="stamp"),
        pytest.param(Module("one", {"prog": "example.org/other"}), SOURCES, "go1.26.8", id="package"),
    ],
)
def test_every_input_changes_the_key(module: Module, sources: dict[str, bytes], go: str) -> None:
    assert build_key(module, sources, go) != build_key(ONE, SOURCES, "go1.26.8")


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)
def test_every_module_is_pinned(module: Module) -> None:
    folder = REPOSITORY / "dev" / "tools" / module.name
    text = (folder / "go.mod").read_text()
    assert needed_go(text) <= (1, 26, 0)
    assert f"module devtools/{module.name}" in text
    assert ("require" not in text) or (folder / "go.sum").stat().st_size > 0


def test_stamped_version_is_the_pinned_one() -> None:
    text = (REPOSITORY / "dev" / "tools" / "kubernetes" / "go.mod").read_text()
    assert f"k8s.io/kubernetes {KUBERNETES_VERSION} " in text


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with one tiny module, and an empty cache."""
    folder = tmp_path / "repo" / "dev" / "tools" / "hello"
    folder.mkdir(parents=True)
    (folder / "go.mod").write_text("module devtools/hello\n\ngo 1.21\n")
    (folder / "main.go").write_text('package main\n\nfunc main() { println("hello") }\n')
    monkeypatch.setattr(tools, "REPOSITORY", tmp_path / "repo")
    monkeypatch.setattr(tools, "MODULES", (Module("hello", {"hello": "devtools/hello"}),))
    monkeypatch.setenv("ISOTRACK_CACHE", str(tmp_path / "cache"))
    return folder


def test_program_is_built_once(scratch: Path) -> None:
    first = tools.ensure(["hello"])["hello"]
    made = first.stat().st_mtime_ns
    assert tools.ensure(["hello"]) == {"hello": first}
    assert first.stat().st_mtime_ns == made
    assert [path.name for path in first.parent.iterdir()] == ["hello"]


def test_failed_build_shows_the_compiler_and_leaves_no_program(scratch: Path) -> None:
    (scratch / "main.go").write_text("package main\n\nfunc main() { nonsense() }\n")
    with pytest.raises(BuildError, match="undefined: nonsense"):
        tools.ensure(["hello"])
    assert not [path for path in (scratch.parents[3] / "cache").rglob("hello") if path.is_file()]
