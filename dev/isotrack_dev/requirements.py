"""Say which programs of the machine a task needs, find them, and install what is missing where that is ours to do.

As root on Debian or Ubuntu the packages are installed; everywhere else the answer is a list and the command to run. A
program counts, not its package: any distribution will do.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import RequirementError
from .paths import cache_dir, exclusive, tail
from .progress import Progress

SEARCH_PATH = os.pathsep.join(
    dict.fromkeys(
        [*os.environ.get("PATH", "").split(os.pathsep), "/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"]
    )
)
"""Users often lack the sbin folders on their PATH."""
CNI_FOLDERS = ("/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni")
"""Where distributions put the network plugins."""
LIBRARY_FOLDERS = tuple(
    f"{base}/{folder}" for folder in ("faketime", "vlc/plugins/demux") for base in ("lib/*", "lib64", "lib")
)
"""Where they put libraries that are preloaded, and plugins, below /usr."""


@dataclass(frozen=True, slots=True)
class Need:
    """A program and the Debian package that has it."""

    program: str
    package: str


GROUPS: dict[str, tuple[Need, ...]] = {
    "integration": (Need("ffmpeg", "ffmpeg"), Need("ffprobe", "ffmpeg"), Need("mkvmerge", "mkvtoolnix")),
    "players": (Need("mpv", "mpv"), Need("vlc", "vlc-bin"), Need("lib:libmkv_plugin.so", "vlc-plugin-base")),
    "bench": (Need("cc", "build-essential"), Need("header:srtp2/srtp.h", "libsrtp2-dev")),
    "browser": (Need("chromium", "chromium"),),
    "cluster": (
        Need("containerd", "containerd"),
        Need("ctr", "containerd"),
        Need("runc", "runc"),
        Need("cni:bridge", "containernetworking-plugins"),
        Need("cni:host-local", "containernetworking-plugins"),
        Need("ip", "iproute2"),
        Need("mount", "mount"),
        Need("unshare", "util-linux"),
        Need("nsenter", "util-linux"),
    ),
    "ceph": (
        Need("ceph-mon", "ceph-mon"),
        Need("ceph-osd", "ceph-osd"),
        Need("radosgw", "radosgw"),
        Need("radosgw-admin", "radosgw"),
        Need("ceph", "ceph-common"),
        Need("ceph-authtool", "ceph-common"),
        Need("monmaptool", "ceph-base"),
    ),
    "clock": (Need("lib:libfaketime.so.1", "libfaketime"),),
    "images": (Need("buildah", "buildah"), Need("mmdebstrap", "mmdebstrap")),
}
"""What each kind of task needs. `integration`: tests with real servers; `players`: what others say of our files; `bench`: a floor in C; `ceph`: S3 as Ceph speaks it; `cluster`: a stack;
`clock`: a wall clock of one's own; `images`: building ours."""


def find(program: str) -> Path | None:
    """Locate a program; `cni:NAME` is a network plugin, `header:PATH` what a C compiler includes, `lib:NAME` a library."""
    if program.startswith("cni:"):
        paths = (Path(folder) / program.removeprefix("cni:") for folder in CNI_FOLDERS)
        return next((path for path in paths if path.exists()), None)
    if program.startswith("header:"):
        path = Path("/usr/include", program.removeprefix("header:"))
        return path if path.exists() else None
    if program.startswith("lib:"):
        folders = (folder for pattern in LIBRARY_FOLDERS for folder in Path("/usr").glob(pattern))
        paths = (folder / program.removeprefix("lib:") for folder in folders)
        return next((path for path in paths if path.exists()), None)
    found = shutil.which(program, path=SEARCH_PATH)
    return Path(found) if found else None


def missing(groups: Iterable[str], look: Callable[[str], Path | None] = find) -> list[Need]:
    """The needs of `groups` that `look` does not find, in order."""
    needs = dict.fromkeys(need for group in groups for need in GROUPS[group])
    return [need for need in needs if look(need.program) is None]


def advice(needs: Sequence[Need]) -> str:
    """Tell a person what is missing and the command that brings it."""
    packages = " ".join(dict.fromkeys(need.package for need in needs))
    programs = ", ".join(need.program for need in needs)
    return (
        f"missing programs: {programs}. On Debian or Ubuntu: sudo apt-get update && sudo apt-get install -y {packages} "
        "(elsewhere: the packages that have these programs)"
    )


def ensure(groups: Sequence[str], progress: Progress, log: Path) -> None:
    """Make sure of everything in `groups`; apt's output goes to `log`.

    Raises:
        RequirementError: Something is missing and cannot be installed from here.
    """
    needs = missing(groups)
    if not needs:
        return
    apt = find("apt-get")
    if os.geteuid() != 0 or apt is None:
        raise RequirementError(advice(needs))
    with exclusive(cache_dir() / ".apt.lock"):  # apt's own lock does not cover its package lists
        if needs := missing(groups):
            _install(apt, needs, progress, log)
    if still := missing(groups):
        raise RequirementError(advice(still))


def _install(apt: Path, needs: Sequence[Need], progress: Progress, log: Path) -> None:
    packages = list(dict.fromkeys(need.package for need in needs))
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    log.parent.mkdir(parents=True, exist_ok=True)
    install = [str(apt), "install", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=120", *packages]
    with progress.step(f"installing {' '.join(packages)}", long=True), log.open("wb") as output:
        # a failed update is no reason to stop: the lists that are there may do
        for command in ([str(apt), "update"], install):
            done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    if done.returncode:
        raise RequirementError(f"{advice(needs)}\napt-get said:\n{tail(log)}")


def require_root(what: str, groups: Sequence[str] = ()) -> None:
    """Namespaces, mounts and cgroups are root's.

    Raises:
        RequirementError: We are not root. The text begins with `what`, and also tells what is missing of `groups`.
    """
    if os.geteuid() == 0:
        return
    needs = missing(groups)
    raise RequirementError(
        f"{what} needs root (namespaces, mounts, cgroups): run it with sudo" + (f"; {advice(needs)}" if needs else "")
    )
