"""The cgroup subtree of a stack: `/isotrack-NAME` in each hierarchy, cgroup v1 and v2 alike.

The kubelet uses its cgroupfs driver on that subtree. The systemd driver would need the host's systemd, which the stack
does not see, and what it made would outlive the stack.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from .process import wait_until

ROOT = Path("/sys/fs/cgroup")


def name(stack: str) -> str:
    """The subtree's path below each hierarchy's root."""
    return f"/isotrack-{stack}"


def hierarchies(root: Path = ROOT) -> list[Path]:
    """Roots of the hierarchies: one for v2; one per controller, named and unified ones included, for v1."""
    if (root / "cgroup.controllers").exists():
        return [root]
    # NB: cpu,cpuacct and friends are symbolic links to one hierarchy on some distributions
    return sorted({entry.resolve() for entry in root.iterdir() if entry.is_dir()})


def make(stack: str, root: Path = ROOT) -> None:
    """Make the subtree, with every controller that the hierarchy has: the kubelet wants to find it."""
    for hierarchy in hierarchies(root):
        if (hierarchy / "cgroup.controllers").exists():
            for controller in (hierarchy / "cgroup.controllers").read_text().split():
                with contextlib.suppress(
                    OSError
                ):  # one that cannot be delegated here; the kubelet names it if it needs it
                    (hierarchy / "cgroup.subtree_control").write_text(f"+{controller}")
        folder = hierarchy / name(stack).lstrip("/")
        folder.mkdir(exist_ok=True)
        # NB: a fresh v1 cpuset is empty, and no process can enter an empty one.
        for setting in ("cpuset.mems", "cpuset.cpus"):
            if (folder / setting).exists() and not (folder / setting).read_text().strip():
                (folder / setting).write_text((hierarchy / setting).read_text())


def remaining(stack: str, root: Path = ROOT) -> list[Path]:
    """Folders of the stack that still exist, deepest first."""
    found: list[Path] = []
    for hierarchy in hierarchies(root):
        for folder, _, _ in os.walk(hierarchy / name(stack).lstrip("/"), topdown=False):
            found.append(Path(folder))
    return found


def remove(stack: str, seconds: float = 30.0) -> list[Path]:
    """Remove the subtree, waiting for killed processes to leave it; returns what could not be removed."""

    def gone() -> bool:
        for folder in remaining(stack):
            try:
                folder.rmdir()
            except OSError:  # EBUSY while a killed process is still being torn down
                continue
        return not remaining(stack)

    wait_until(gone, seconds, interval=0.05)
    return remaining(stack)
