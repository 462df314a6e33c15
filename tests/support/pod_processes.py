"""The processes of a pod on this machine: which is pid 1 of a container, which does its work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .waiting import until

HOG: Final = """
import os, pathlib, sys
group, victim = map(pathlib.Path, sys.argv[1:])
(victim / "oom_score_adj").write_text("1000")
group.write_text(str(os.getpid()))
held = []
while victim.exists():
    held.append(b"1" * (1 << 20))
"""
"""Takes memory in the cgroup of another process until that one is gone, whom the kernel ends first."""


@dataclass(frozen=True, slots=True)
class PodProcess:
    """A process of a container."""

    pid: int
    inner_pid: int
    """As the container numbers it."""

    def kill(self) -> None:
        """kill -9."""
        os.kill(self.pid, signal.SIGKILL)

    def run_out_of_memory(self) -> None:
        """Fill its container to the memory limit; returns when the kernel has ended it."""
        victim = Path(f"/proc/{self.pid}")
        hog = subprocess.run([sys.executable, "-c", HOG, str(memory_group(self.pid)), str(victim)], timeout=60)
        # In cgroup v2 the kernel ends all of a container, and with it who is in there
        assert hog.returncode in (0, -signal.SIGKILL)
        until(lambda: not victim.exists(), "the kernel has ended it")


def worker(pod_uid: str, command: str) -> PodProcess:
    """The process that does the work of a container, whose arguments begin with this command."""
    return until(lambda: _one(pod_uid, command, first=False), f"{command} of pod {pod_uid} runs")


def first_process(pod_uid: str, command: str) -> PodProcess:
    """Pid 1 of a container: with it, the kernel ends all of it."""
    return until(lambda: _one(pod_uid, command, first=True), f"container {command} of pod {pod_uid} runs")


def memory_group(pid: int) -> Path:
    """Who writes a number here lets that process share the memory limit of this one, in cgroup v1 and v2 alike."""
    rows = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    root = Path("/sys/fs/cgroup")
    for _, controllers, path in rows:
        if "memory" in controllers.split(","):
            return root / "memory" / path.lstrip("/") / "cgroup.procs"
    path = next(path for _, controllers, path in rows if not controllers)
    return root / path.lstrip("/") / "cgroup.procs"


def _one(pod_uid: str, command: str, *, first: bool) -> PodProcess | None:
    found = [one for one in _processes(pod_uid, command) if (one.inner_pid == 1) is first]
    assert len(found) <= 1, f"processes {command} of pod {pod_uid}: {found}"
    return found[0] if found else None


def _processes(pod_uid: str, command: str) -> list[PodProcess]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            groups = (folder / "cgroup").read_text()
            status = (folder / "status").read_text()
        except OSError:
            continue  # it has ended meanwhile
        if command.encode() in words and (pod_uid in groups or pod_uid.replace("-", "_") in groups):
            inner = next(line.split()[-1] for line in status.splitlines() if line.startswith("NSpid:"))
            found.append(PodProcess(int(folder.name), int(inner)))
    return found
