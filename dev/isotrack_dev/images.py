"""Build the product's own images from its Containerfiles, with buildah, without a container daemon or registry.

    lock ──(pip download, on the host)── wheels ─┐
    mmdebstrap ── base image ────────────────────┼── buildah ── <cache>/images/<name>-<key>.tar (OCI archive)
    Containerfile, sources ──────────────────────┘

The key covers every input, so an unchanged image is not built again, and a tag always means the same content. Only the download
talks to a package index, with the host's own settings (proxy, mirror, certificates); the build sees a folder of
wheels whose hashes the lock fixes, so nothing of those settings can reach an image. The base is Debian's own Python, made
by mmdebstrap; published images use the Containerfile's default instead.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

from . import requirements
from .errors import BuildError
from .paths import REPOSITORY, cache_dir, exclusive, file_system, tail
from .progress import Progress, Silent
from .requirements import SEARCH_PATH

SUITE, PYTHON = "bookworm", "3.11"
"""Debian release of the base image, and the Python that it has."""
BASE_PACKAGES = ("ca-certificates", "python3", "python3-pip", "python3-venv")
BASE_EXCLUDES = ("/usr/share/man/*", "/usr/share/locale/*", "/usr/share/doc/*")
WHEELS = "/usr/src/wheels"
"""Where the build sees the folder of wheels."""
KEEP = 3
"""Archives of each image that stay in the cache."""
GLIBC = range(17, 37)
"""Minor versions of glibc 2 that wheels may ask for: from manylinux2014 to Debian 12's."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One of our images."""

    name: str
    """`isotrack-NAME` is the image, `requirements/NAME.lock` its dependencies."""
    containerfile: str


KINDS: Mapping[str, Kind] = {
    "recorder": Kind("recorder", "recorder_image/Containerfile"),
    "operator": Kind("operator", "operator/Containerfile"),
}
SOURCES = ("pyproject.toml", "README.md", "LICENSE", ".dockerignore", "requirements/build.lock")
PACKAGES = ("crds/isotrack_api", "operator/isotrack_operator", "recorder_image/isotrack_recorder")


@dataclass(frozen=True, slots=True)
class Image:
    """A built image."""

    name: str
    """With tag, as pods name it."""
    archive: Path
    """OCI archive that `Stack.load_images` takes."""


def ensure(kinds: Sequence[str], progress: Progress | None = None) -> dict[str, Image]:
    """Build what is not built yet and return every image asked for.

    Raises:
        RequirementError: We are not root, or a program is missing.
        BuildError: A step failed; the text ends with its last lines.
    """
    shown = progress or Silent()
    found = {name: _image(KINDS[name]) for name in kinds}
    if all(image.archive.exists() for image in found.values()):
        return found
    requirements.require_root("building an image", ["images"])
    home = _home()
    requirements.ensure(["images"], shown, home / "apt.log")
    with exclusive(home / ".lock"):
        for name, image in found.items():
            if not image.archive.exists():
                _build(KINDS[name], image, shown)
    return found


def ensure_base(progress: Progress | None = None) -> Image:
    """The base image alone: Python and a shell, for tests that need any program in a pod.

    Raises:
        RequirementError, BuildError: As `ensure`.
    """
    shown, image = progress or Silent(), _base_image()
    if not image.archive.exists():
        requirements.require_root("building an image", ["images"])
        requirements.ensure(["images"], shown, _home() / "apt.log")
        with exclusive(_home() / ".lock"):
            _base(shown)
            if not image.archive.exists():
                _push(image)
    return image


def input_key(parts: Mapping[str, bytes]) -> str:
    """Name a result by its inputs (name → content): 12 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, content in sorted(parts.items()):
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:12]


def lock_for(lock: str, python: str = PYTHON) -> str:
    """Keep the lines of a hash-locked requirements file that hold for the image's Python, without their conditions.

    pip judges conditions by the Python that it runs on, and that is the host's.
    """
    kept: list[str] = []
    for block in lock.replace("\\\n", " ").splitlines():
        text, _, hashes = block.partition(" --hash=")
        if not text.strip() or text.lstrip().startswith("#"):
            continue
        requirement = Requirement(text.strip())
        environment = {
            "python_version": python,
            "python_full_version": f"{python}.0",
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
            "sys_platform": "linux",
            "platform_system": "Linux",
            "os_name": "posix",
        }
        if requirement.marker is None or requirement.marker.evaluate(environment):
            requirement.marker = None
            kept.append(f"{requirement} --hash={hashes.strip()}" if hashes else str(requirement))
    return "\n".join(" ".join(line.split()) for line in kept) + "\n"


def _home() -> Path:
    home = cache_dir() / "images"
    home.mkdir(parents=True, exist_ok=True)
    return home


def _image(kind: Kind) -> Image:
    files = [*SOURCES, f"requirements/{kind.name}.lock", kind.containerfile]
    parts = {name: (REPOSITORY / name).read_bytes() for name in files}
    for package in PACKAGES:
        for path in sorted((REPOSITORY / package).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                parts[str(path.relative_to(REPOSITORY))] = path.read_bytes()
    parts["base"] = _base_image().name.encode()
    key = input_key(parts)
    return Image(f"localhost/isotrack-{kind.name}:{key}", _home() / f"{kind.name}-{key}.tar")


def _base_image() -> Image:
    recipe = repr((SUITE, BASE_PACKAGES, BASE_EXCLUDES, platform.machine()))
    key = input_key({"recipe": recipe.encode()})
    return Image(f"localhost/isotrack-base:{key}", _home() / f"base-{key}.tar")


def _build(kind: Kind, image: Image, progress: Progress) -> None:
    _base(progress)
    wheels = _wheels(kind, progress)
    command = [
        "bud",
        "--isolation",
        "chroot",
        "--layers",
        "--pull-never",
        "--file",
        str(REPOSITORY / kind.containerfile),
    ]
    command += ["--build-arg", f"BASE={_base_image().name}"]
    command += [
        "--build-arg",
        f"PIP_FLAGS=--no-index --find-links {WHEELS} --disable-pip-version-check --root-user-action=ignore",
    ]
    command += ["--volume", f"{wheels}:{WHEELS}:ro", "--tag", image.name, str(REPOSITORY)]
    with progress.step(f"building image isotrack-{kind.name}", long=True):
        _buildah(command)
        _push(image)
        _forget(kind, image)


def _push(image: Image) -> None:
    fresh = image.archive.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    # Layers stay uncompressed: the archive is read on this machine only, and packing takes longer than the rest.
    _buildah(["push", "--quiet", "--disable-compression", image.name, f"oci-archive:{fresh}:{image.name}"])
    fresh.rename(image.archive)


def _forget(kind: Kind, newest: Image) -> None:
    """Remove all but the newest archives of an image, and their tags."""
    archives = sorted(_home().glob(f"{kind.name}-*.tar"), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in archives[KEEP:]:
        if old != newest.archive:
            tag = f"localhost/isotrack-{old.stem.replace('-', ':')}"
            _buildah(["rmi", tag], may_fail=True)
            old.unlink()


def _base(progress: Progress) -> None:
    """Make the base image in our storage unless it is there."""
    image = _base_image()
    if _buildah(["inspect", "--type", "image", image.name], may_fail=True):
        return
    tree = _home() / f"{image.archive.stem}.rootfs.tar"
    if not tree.exists():
        excludes = [f"--dpkgopt=path-exclude={pattern}" for pattern in BASE_EXCLUDES]
        fresh = tree.with_suffix(".new.tar")
        command = ["mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", *excludes]
        command += [f"--include={','.join(BASE_PACKAGES)}", SUITE, str(fresh)]
        with progress.step(f"base image: Debian {SUITE} with Python {PYTHON}", long=True):
            _run(command, "mmdebstrap")
        fresh.rename(tree)
    containerfile = _home() / "base.Containerfile"
    containerfile.write_text(f"FROM scratch\nADD {tree.name} /\n")
    with progress.step("base image: import"):
        _buildah(["bud", "--isolation", "chroot", "--file", str(containerfile), "--tag", image.name, str(_home())])


def _wheels(kind: Kind, progress: Progress) -> Path:
    """Download the wheels that the lock names, with the host's pip settings."""
    text = "".join(
        lock_for((REPOSITORY / "requirements" / f"{name}.lock").read_text()) for name in (kind.name, "build")
    )
    unique = "\n".join(dict.fromkeys(text.splitlines())) + "\n"
    folder = cache_dir() / "wheels" / f"{kind.name}-{input_key({'lock': unique.encode(), 'python': PYTHON.encode()})}"
    if folder.exists():
        return folder
    fresh = folder.with_suffix(".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    listing = fresh / "requirements.txt"
    listing.write_text(unique)
    machine = platform.machine()
    tags = [f"manylinux_2_{minor}_{machine}" for minor in reversed(GLIBC)] + [f"manylinux2014_{machine}", "any"]
    command = [str(_pip()), "download", "--quiet", "--require-hashes", "--no-deps", "--only-binary=:all:"]
    command += ["--implementation=cp", f"--python-version={PYTHON}", *(f"--platform={tag}" for tag in tags)]
    with progress.step(f"wheels of isotrack-{kind.name}", long=True):
        _run([*command, "--requirement", str(listing), "--dest", str(fresh)], "pip-download", environment=os.environ)
    fresh.rename(folder)
    return folder


def _pip() -> Path:
    """A pip of our own: virtual environments made by uv have none."""
    pip = cache_dir() / "pip" / "bin" / "pip"
    if not pip.exists():
        _run([sys.executable, "-m", "venv", str(pip.parents[1])], "pip-venv")
    return pip


def _buildah(words: Sequence[str], *, may_fail: bool = False) -> bool:
    """Run buildah on storage of our own, in a mount namespace of its own: what it leaves mounted goes with it."""
    storage = ["--root", str(_home() / "storage"), "--runroot", str(_home() / "run"), "--storage-driver", _driver()]
    command = ["unshare", "--mount", "--propagation", "private", "--", "buildah", *storage, *words]
    return _run(command, "buildah", may_fail=may_fail)


def _driver() -> str:
    """Layers as overlays, or as copies where the cache itself lies on an overlay."""
    return "overlay" if file_system(_home()) != "overlay" else "vfs"


def _run(
    command: Sequence[str], name: str, *, may_fail: bool = False, environment: Mapping[str, str] | None = None
) -> bool:
    log = _home() / "logs" / f"{name}.log"
    log.parent.mkdir(exist_ok=True)
    clean = {"PATH": SEARCH_PATH, "HOME": os.environ.get("HOME", "/root"), "LANG": "C.UTF-8", "TMPDIR": str(_home())}
    with log.open("wb") as output:
        done = subprocess.run(
            command, env=dict(environment or clean), stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    if done.returncode and not may_fail:
        raise BuildError(f"{name} ended with code {done.returncode}. The end of {log}:\n{tail(log, 25)}")
    return done.returncode == 0
