"""A second node of a stack: containerd and kubelet in namespaces of their own, on the stack's own pod network.

    first namespaces                              second namespaces
    bridge pods0, 10.213.N.1 ── node2 ═══ up0 ── bridge pods0, 10.213.N.128
    pods .2 to .127                               pods .129 to .254

One link layer carries both, so pods of either node reach each other, the servers and the host by the addresses that they have anyway. Its
namespaces are the machine: killing their holder is a power failure, of which nobody is told.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import cgroups
from .addresses import BRIDGE, Addresses
from .components import Layout, node_components, second_node
from .errors import StartError
from .kube import Api
from .launch import Launcher
from .namespaces import Namespaces, create, find, run
from .paths import tail
from .process import Process, wait_until
from .progress import Progress
from .provision import write_node
from .record import NO_SLOT, Record

READY_SECONDS = 150.0
UPLINK = "up0"
DOWNLINK = "node2"
"""The first node's end of the link; a name of at most 15 characters."""


@dataclass(frozen=True, slots=True)
class SecondNode:
    """The second node of the stack `stack`. Cheap to make; touches nothing until a method is called."""

    stack: str
    first: Layout

    @property
    def name(self) -> str:
        """As Kubernetes calls it."""
        return second_node(f"isotrack-{self.stack}")

    @property
    def layout(self) -> Layout:
        """Its files."""
        return self.first.second

    @property
    def group(self) -> str:
        """Name of its cgroup subtree."""
        return f"{self.stack}.2"

    @property
    def record(self) -> Record | None:
        """What `start` wrote."""
        return Record.read(self.layout.record)

    @property
    def running(self) -> bool:
        """Whether its namespaces are there."""
        record = self.record
        return record is not None and record.namespaces.alive

    def start(
        self,
        first: Namespaces,
        one: Addresses,
        programs: Mapping[str, Path],
        api: Api,
        images: Sequence[Path],
        progress: Progress,
    ) -> None:
        """Start it and wait until pods may run on it.

        Args:
            first: The stack's own namespaces.
            images: OCI archives to load; the pause image is loaded anyway.
        Raises:
            StartError: It did not come up; what was started is gone again.
        """
        self._forget()
        self.layout.logs.mkdir()
        with progress.step(f"node {self.name}"):
            own = create(self.layout.state, self.name)
            record = Record(self.group, NO_SLOT, own.holder, own.parent, time.time(), {})
            record.write(self.layout.record)  # NB: before anything else, so that `destroy` finds what a crash left
            try:
                _connect(first, own, one)
                write_node(self.layout, one, self.group, second=True)
                servers = node_components(self.layout, one.second_node, programs, self.name)
                launcher = Launcher(self.layout, own, one, api, progress)
                started = launcher.launch(servers, [self.first.pause_image, *images])
                Record(self.group, NO_SLOT, own.holder, own.parent, record.started, started).write(self.layout.record)
                self._await(api, started)
            except BaseException:
                self.destroy()
                raise

    def _await(self, api: Api, servers: Mapping[str, Process]) -> None:
        def usable() -> bool:
            return api.node_ready(self.name) or not all(server.alive for server in servers.values())

        if not wait_until(usable, READY_SECONDS, interval=0.1) or not api.node_ready(self.name):
            log = tail(self.layout.logs / "kubelet.log")
            raise StartError(f"node {self.name} is not ready. The kubelet's log:\n{log}")

    def destroy(self) -> None:
        """End it at once, as a power failure does; fine when there is nothing to end."""
        record = self.record
        found = record.namespaces if record else find(self.layout.state)
        if found:
            found.destroy()
        cgroups.remove(self.group)

    def _forget(self) -> None:
        """Remove what an earlier life left: a new machine has an empty disk. Its identity was made with the stack's and stays."""
        for path in self.layout.state.iterdir():
            if path == self.layout.secrets:
                continue
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def remains(self) -> list[str]:
        """What of it exists apart from its files, in words."""
        record = self.record
        processes = {"holder": record.holder, "unshare": record.parent, **record.servers} if record else {}
        found = [f"process {one.pid} ({name} of {self.name})" for name, one in processes.items() if one.alive]
        return found + [f"cgroup {path}" for path in cgroups.remaining(self.group)]


def _connect(first: Namespaces, second: Namespaces, one: Addresses) -> None:
    """Join both pod bridges. The link goes with either side's namespaces."""
    ends = ["netns", str(first.holder.pid), "type", "veth", "peer", "name", UPLINK, "netns", str(second.holder.pid)]
    run(["ip", "link", "add", DOWNLINK, *ends])
    first.run(["ip", "link", "set", DOWNLINK, "master", BRIDGE, "up"])
    for words in (
        ["link", "add", BRIDGE, "type", "bridge"],
        ["link", "set", UPLINK, "master", BRIDGE, "up"],
        ["addr", "add", f"{one.second_node}/{one.pods.prefixlen}", "dev", BRIDGE],
        ["link", "set", BRIDGE, "up"],
        ["route", "add", "default", "via", str(one.node)],
    ):
        second.run(["ip", *words])
