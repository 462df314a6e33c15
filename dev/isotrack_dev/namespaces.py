"""Give a stack namespaces of its own, so that ending it leaves nothing behind.

One holder process is pid 1 of a fresh pid namespace, with its own network, mount, IPC and host name. Every server of the
stack, every container included, runs below it. When the holder is killed the kernel kills all of them; with the last one go
the mounts, interfaces, bridges, addresses and packet filter rules. Only cgroups outlive processes, see `cgroups`.

Inside, /run is empty, /var/lib and /var/log are folders of the stack's state, and the kernel settings that a kubelet likes to
write are plain files: nothing that a stack does is seen outside. The processes enter with nsenter(1), one parent per server, which
stays outside and waits.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import StartError, UsageError
from .paths import tail
from .process import Process, spawn, wait_until
from .requirements import SEARCH_PATH

ENVIRONMENT = {"PATH": SEARCH_PATH, "HOME": "/root", "LANG": "C.UTF-8"}
"""For everything inside. Not ours: a proxy variable would send cluster traffic to the proxy."""

HIDDEN = (Path("/run"), Path("/var/lib"), Path("/var/log"))
"""Folders of the host that are replaced inside; state cannot lie in them."""

SETUP = """
set -eu
state=$1
trap '' CHLD   # inherited by the holder: the kernel then reaps every orphan of the pid namespace
mount --make-rshared /   # kubelet volumes have to reach containers, as on any node
mount -t tmpfs -o mode=755,size=256m tmpfs /run
mkdir -p /run/netns /run/lock
mount --bind "$state/var-lib" /var/lib
mount --bind "$state/var-log" /var/log
for setting in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops \
               kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
  if [ -e "/proc/sys/$setting" ]; then
    copy="$state/sysctl/$(echo "$setting" | tr / .)"
    cat "/proc/sys/$setting" > "$copy"
    mount --bind "$copy" "/proc/sys/$setting"
  fi
done
echo 1 > /proc/sys/net/ipv4/ip_forward
ip link set lo up
touch "$state/namespaces.ready"
exec sleep infinity
"""


@dataclass(frozen=True, slots=True)
class Namespaces:
    """The namespaces of one stack, known by their holder."""

    holder: Process
    """Pid 1 inside, as the host numbers it."""
    parent: Process
    """unshare(1), which waits for the holder on the host."""

    @property
    def alive(self) -> bool:
        """Whether the stack has namespaces at all."""
        return self.holder.alive

    def enter(self, command: Sequence[str | Path]) -> list[str]:
        """The command line that runs `command` inside."""
        return [
            "nsenter",
            "--target",
            str(self.holder.pid),
            "--mount",
            "--net",
            "--pid",
            "--ipc",
            "--uts",
            "--",
            *map(str, command),
        ]

    def run(self, command: Sequence[str | Path], seconds: float = 60) -> str:
        """Run a command inside to its end and return its output.

        Raises:
            StartError: It failed or took too long; the text has its last words.
        """
        return run(self.enter(command), seconds)

    def destroy(self) -> None:
        """Kill everything inside; returns once the kernel has no process of it left."""
        self.holder.stop(grace_seconds=0)  # the kernel lets pid 1 end only after all others
        self.parent.stop(grace_seconds=1)


def run(command: Sequence[str | Path], seconds: float = 60) -> str:
    """Run a command to its end, with a plain environment, and return its output.

    Raises:
        StartError: It failed or took longer than `seconds`.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words, env=ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds
        )
    except subprocess.TimeoutExpired as error:
        raise StartError(f"{' '.join(words)[:200]} took longer than {seconds:g} s") from error
    if done.returncode:
        raise StartError(f"{' '.join(words)[:200]} ended with code {done.returncode}: {done.stderr.strip()[-1000:]}")
    return done.stdout


def create(state: Path, hostname: str) -> Namespaces:
    """Make the namespaces of a stack whose files lie in `state`.

    Raises:
        UsageError: `state` lies where the stack could not see it.
        StartError: The kernel refused, for instance for want of privileges.
    """
    if any(state.is_relative_to(folder) for folder in HIDDEN):
        raise UsageError(f"state cannot lie in {state}: a stack has its own {', '.join(map(str, HIDDEN))}")
    for folder in ("var-lib", "var-log", "sysctl"):
        (state / folder).mkdir(parents=True, exist_ok=True)
    log = state / "logs" / "namespaces.log"
    flags = [
        "--mount",
        "--net",
        "--pid",
        "--ipc",
        "--uts",
        "--propagation",
        "private",
        "--mount-proc",
        "--kill-child=SIGKILL",
    ]
    child = spawn(["unshare", *flags, "--", "sh", "-c", SETUP, "holder", state], log, ENVIRONMENT, cwd=Path("/"))
    parent = Process.of(child.pid)
    ready = state / "namespaces.ready"
    if not wait_until(lambda: ready.exists() or child.poll() is not None, 10) or child.poll() is not None:
        parent.stop(grace_seconds=0)
        raise StartError(f"no namespaces for the stack (is this machine a container without privileges?):\n{tail(log)}")
    holder = Process.of(only_child(child.pid))
    made = Namespaces(holder, parent)
    made.run(["hostname", hostname])
    return made


def find(state: Path) -> Namespaces | None:
    """Look for the namespaces of a stack whose start was killed before it could write down what it had made."""
    for listing in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = listing.read_bytes().split(b"\0")
            if words[0] == b"unshare" and words[-3:] == [b"holder", bytes(state), b""]:
                parent = Process.of(int(listing.parent.name))
                return Namespaces(Process.of(only_child(parent.pid)), parent)
        except (OSError, StartError):  # it ended while we looked
            continue
    return None


def only_child(pid: int) -> int:
    """The pid of the one child of a process of ours that forks once (unshare, nsenter).

    Raises:
        StartError: It has none (any more).
    """
    listing = Path(f"/proc/{pid}/task/{pid}/children")

    def children() -> list[str]:
        try:
            return listing.read_text().split()
        except FileNotFoundError:
            return []

    wait_until(lambda: bool(children()), 2)  # it may not have forked yet
    if not (found := children()):
        raise StartError(f"process {pid} has no child")
    return int(found[0])
