"""The processes of a pod on this machine: which is pid 1 of a container, which does its work."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

from .waiting import until


@dataclass(frozen=True, slots=True)
class PodProcess:
    """A process of a container."""

    pid: int
    inner_pid: int
    """As the container numbers it."""

    def kill(self) -> None:
        """kill -9."""
        os.kill(self.pid, signal.SIGKILL)


def worker(pod_uid: str, command: str) -> PodProcess:
    """The process that does the work of a container, whose arguments begin with this command."""
    return until(lambda: _one(pod_uid, command, first=False), f"{command} of pod {pod_uid} runs")


def first_process(pod_uid: str, command: str) -> PodProcess:
    """Pid 1 of a container: with it, the kernel ends all of it."""
    return until(lambda: _one(pod_uid, command, first=True), f"container {command} of pod {pod_uid} runs")


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
