"""Build the pinned Go programs once and find them again.

`dev/tools/<module>/` holds a go.mod and a go.sum per tool: they fix the version and the hash of every dependency (`pause` and `pion` are
a page or two of Go of our own). A
build goes to `<cache>/bin/<module>-<key>/`, where the key covers these files, the flags and the Go version: a changed pin
builds anew, an unchanged one never does. Callers that arrive during a build wait for it at a file lock; a program
appears under its name by a rename, so nobody ever runs half of one.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .errors import BuildError, RequirementError
from .paths import REPOSITORY, cache_dir, exclusive
from .progress import Progress, Silent

KUBERNETES_VERSION = "v1.35.4"
"""Also the version stamped into the binaries: without it they call themselves v0.0.0 and charts refuse them."""


@dataclass(frozen=True, slots=True)
class Module:
    """One folder of `dev/tools` and the programs that are built from it."""

    name: str
    programs: Mapping[str, str]
    """Name of the program → its Go package."""
    stamps: tuple[str, ...] = ()
    """Linker settings `package.variable=value`."""


def _kubernetes() -> Module:
    _, major, minor = re.split(r"[v.]", KUBERNETES_VERSION)[:3]
    stamps = [
        f"{package}.{variable}"
        for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
        for variable in (
            f"gitVersion={KUBERNETES_VERSION}",
            f"gitMajor={major}",
            f"gitMinor={minor}",
            "gitTreeState=clean",
        )
    ]
    names = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kubectl")
    return Module("kubernetes", {name: f"k8s.io/kubernetes/cmd/{name}" for name in names}, tuple(stamps))


MODULES: tuple[Module, ...] = (
    Module("livekit", {"livekit-server": "github.com/livekit/livekit-server/cmd/server"}),
    Module("versitygw", {"versitygw": "github.com/versity/versitygw/cmd/versitygw"}),
    Module("etcd", {"etcd": "go.etcd.io/etcd/server/v3"}),
    Module("pause", {"pause": "devtools/pause"}),
    Module("pion", {"pion-recorder": "devtools/pion"}),
    _kubernetes(),
)
PROGRAMS: Mapping[str, Module] = {program: module for module in MODULES for program in module.programs}


@dataclass(frozen=True, slots=True)
class Go:
    """The Go toolchain that builds."""

    path: str
    version: str
    """As in `go1.26.8`."""
    toolchain: str
    """Value for GOTOOLCHAIN: `auto` lets an older Go fetch the version that a go.mod asks for."""


def go_version(text: str) -> tuple[int, int, int]:
    """Parse `go1.26.8`, `1.26` or `go version go1.26.8 linux/amd64`; a release candidate counts as its release.

    Raises:
        ValueError: There is no version in `text`.
    """
    found = re.search(r"(?:go)?(\d+)\.(\d+)(?:\.(\d+))?", text)
    if not found:
        raise ValueError(f"not a Go version: {text[:80]!r}")
    return int(found[1]), int(found[2]), int(found[3] or 0)


def needed_go(go_mod: str) -> tuple[int, int, int]:
    """Read the version that a go.mod asks for."""
    line = next(line for line in go_mod.splitlines() if line.startswith("go "))
    return go_version(line)


def choose_toolchain(installed: tuple[int, int, int] | None, needed: tuple[int, int, int]) -> str:
    """Decide on GOTOOLCHAIN: `local` when the installed Go will do, `auto` when it can fetch a newer one itself.

    Raises:
        RequirementError: There is no Go, or one from before 1.21, which cannot fetch toolchains.
    Source: go.dev/doc/toolchain.
    """
    wanted = ".".join(map(str, needed))
    if installed is None:
        raise RequirementError(
            f"Go is missing: the local stack builds its servers from pinned Go modules. Install Go {wanted} or newer "
            "(https://go.dev/doc/install); any Go from 1.21 on will do, it fetches the right toolchain by itself. "
            "On Debian 13: apt-get install golang-go"
        )
    if installed >= needed:
        return "local"
    if installed < (1, 21, 0):
        raise RequirementError(
            f"Go {'.'.join(map(str, installed))} is too old: install Go {wanted} or newer (https://go.dev/doc/install)"
        )
    return "auto"


def find_go(needed: tuple[int, int, int]) -> Go:
    """Look for `go` on PATH and in its usual place.

    Raises:
        RequirementError: See `choose_toolchain`.
    """
    path = shutil.which("go") or shutil.which("/usr/local/go/bin/go")
    if path is None:
        choose_toolchain(None, needed)
        raise AssertionError  # choose_toolchain has raised
    # NB: GOTOOLCHAIN=local, or `go version` may answer for, and fetch, the toolchain of some go.work around us.
    local = {**os.environ, "GOTOOLCHAIN": "local"}
    text = subprocess.run([path, "env", "GOVERSION"], env=local, cwd="/", capture_output=True, text=True).stdout.strip()
    return Go(path, text, choose_toolchain(go_version(text), needed))


def build_key(module: Module, sources: Mapping[str, bytes], go: str) -> str:
    """Name the result by everything that shapes it; 16 hexadecimal digits.

    Args:
        module: What is built, and its stamps.
        sources: Files of its folder: go.mod and go.sum, and whatever is ours there.
        go: Version of Go.
    """
    digest = hashlib.sha256()
    for part in (go, " ".join(_flags(module)), repr(sorted(module.programs.items()))):
        digest.update(part.encode() + b"\0")
    for name, content in sorted(sources.items()):
        digest.update(f"{name} {len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]


def _flags(module: Module) -> list[str]:
    linker = " ".join(["-s", "-w", *(f"-X {stamp}" for stamp in module.stamps)])
    return ["-trimpath", "-mod=readonly", "-buildvcs=false", f"-ldflags={linker}"]


def ensure(programs: Iterable[str], progress: Progress | None = None) -> dict[str, Path]:
    """Build what is missing of `programs` and return where each one is.

    Raises:
        RequirementError: No fitting Go toolchain, and something has to be built.
        BuildError: A build failed; its last lines are in the text.
    """
    wanted = list(dict.fromkeys(programs))
    modules = [module for module in MODULES if any(name in module.programs for name in wanted)]
    found: dict[str, Path] = {}
    for module in modules:
        found.update(_ensure_module(module, [name for name in wanted if name in module.programs], progress or Silent()))
    return found


def _ensure_module(module: Module, programs: list[str], progress: Progress) -> dict[str, Path]:
    source = REPOSITORY / "dev" / "tools" / module.name
    sources = {path.name: path.read_bytes() for path in sorted(source.iterdir()) if path.is_file()}
    go = find_go(needed_go(sources["go.mod"].decode()))
    folder = cache_dir() / "bin" / f"{module.name}-{build_key(module, sources, go.version)}"
    paths = {name: folder / name for name in programs}
    if all(path.exists() for path in paths.values()):
        return paths
    with exclusive(folder.parent / f".{folder.name}.lock"):
        missing = [name for name in programs if not paths[name].exists()]
        for number, name in enumerate(missing, 1):
            count = f" ({number}/{len(missing)})" if len(missing) > 1 else ""
            with progress.step(f"building {name}{count}", long=True):
                _build(go, source, module, name, paths[name])
    return paths


def _build(go: Go, source: Path, module: Module, program: str, result: Path) -> None:
    result.parent.mkdir(parents=True, exist_ok=True)
    fresh = result.with_name(f".{program}.new")  # one writer: the module's lock is held
    command = [go.path, "build", *_flags(module), "-o", str(fresh), module.programs[program]]
    environment = {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": go.toolchain, "GOWORK": "off"}
    done = subprocess.run(
        command, cwd=source, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        raise BuildError(f"{program} did not build (in dev/tools/{module.name}):\n{done.stderr.strip()[-3000:]}")
    fresh.rename(result)
