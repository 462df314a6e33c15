"""A whole cluster with an SFU and an object store, in namespaces of its own: up, down, and what is known of it.

`Stack` stands for a name and a state folder, running or not; everything else is read from `stack.json` there, so a stack
started by one command is the same stack for the next. `up` makes the namespaces and the link, certificates and
configuration, then starts all servers. `down` kills the namespaces' holder (see `namespaces`), removes link, cgroups
and state, and checks that nothing is left. A failed `up` takes down what it started and leaves the state folder, for its logs;
the next `up` begins by removing it.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from . import cgroups, network, requirements, tools
from .addresses import Addresses, check_name
from .components import Layout, components
from .errors import DevError, StartError, UsageError
from .kube import Api
from .kubectl import Kubectl
from .launch import Launcher, load_image
from .namespaces import create, find
from .paths import exclusive, states_dir, tail
from .process import Process, wait_until
from .progress import Progress, Silent
from .provision import admin_api, provision
from .record import NO_SLOT, Record, StackInfo, read_environment
from .second_node import READY_SECONDS, SecondNode
from .servers import s3_folders

PROGRAMS = (
    *("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kubectl"),
    *("livekit-server", "versitygw", "pause"),
)


class Stack:
    """The stack called `name`. Cheap to make; touches nothing until a method is called."""

    def __init__(self, name: str = "dev", state: Path | None = None, progress: Progress | None = None) -> None:
        self.name = check_name(name)
        self.layout = Layout(state=(state or states_dir() / name).absolute())
        self.progress = progress or Silent()
        self.node = f"isotrack-{name}"
        self.second = SecondNode(name, self.layout)

    # -- what is known

    @property
    def record(self) -> Record | None:
        """What `up` wrote; the stack may have died since."""
        return Record.read(self.layout.record)

    @property
    def running(self) -> bool:
        """Whether the stack's namespaces are there."""
        record = self.record
        return record is not None and record.namespaces.alive

    def info(self) -> StackInfo:
        """Addresses, keys and paths.

        Raises:
            UsageError: The stack is not running.
        """
        one = Addresses(self._running_record().slot)
        return StackInfo(
            name=self.name,
            state=self.layout.state,
            kubeconfig=self.layout.kubeconfig,
            kubectl=tools.ensure(["kubectl"], self.progress)["kubectl"],
            node=self.node,
            address=str(one.node),
            host_address=str(one.host),
            environment=read_environment(self.layout.environment),
        )

    def components(self) -> dict[str, Process]:
        """Every server with its process, living or not.

        Raises:
            UsageError: The stack is not running.
        """
        return dict(self._running_record().servers)

    def log(self, component: str) -> Path:
        """Path of a component's log.

        Raises:
            UsageError: There is no such log.
        """
        known = {path.stem: path for path in sorted(self.layout.logs.glob("*.log"))}
        if component not in known:
            raise UsageError(
                f"stack {self.name} has no log of {component[:40]!r}; it has: {', '.join(known) or 'none'}"
            )
        return known[component]

    @property
    def pod_logs(self) -> tuple[Path, ...]:
        """/var/log/pods of each node, as seen from outside; the second one is there while that node runs."""
        return tuple(layout.state / "var-log" / "pods" for layout in (self.layout, self.layout.second))

    @property
    def kubectl(self) -> Kubectl:
        """Call it to run kubectl as cluster-admin: `stack.kubectl("get", "pods")`.

        Raises:
            UsageError: The stack is not running.
        """
        info = self.info()
        return Kubectl(info.kubectl, info.kubeconfig)

    # -- up

    def up(self, images: Sequence[Path] = ()) -> StackInfo:
        """Start everything and wait until the node is ready; a running stack only gets the images.

        Args:
            images: OCI archives to load.
        Raises:
            RequirementError: We are not root, or a program is missing.
            StartError: A server did not come up; what was started is gone again.
        """
        requirements.require_root("a cluster of our own", ["cluster"])
        with self._lock():
            if self.running:
                self.load_images(images)
                return self.info()
            self._destroy()
            self.layout.state.mkdir(mode=0o700)
            self.layout.logs.mkdir()
            requirements.ensure(["cluster"], self.progress, self.layout.logs / "apt.log")
            try:
                self._start(self._programs(), images)
            except BaseException:
                self._kill()
                raise
            return self.info()

    def _start(self, programs: Mapping[str, Path], images: Sequence[Path]) -> None:
        with self.progress.step("namespaces and network"):
            namespaces = create(self.layout.state, self.node)
            record = Record(self.name, NO_SLOT, namespaces.holder, namespaces.parent, time.time(), {})
            record.write(self.layout.record)  # NB: before anything else, so that `down` finds what a crash left
            one = network.claim(namespaces, self.name)
            record = replace(record, slot=one.slot)
            record.write(self.layout.record)
            network.connect(namespaces, one)
        with self.progress.step("certificates and configuration"):
            servers = provision(self.layout, one, programs, self.name, self.node)
        api = admin_api(self.layout, one)
        launcher = Launcher(self.layout, namespaces, one, api, self.progress)
        started = launcher.launch(servers, [self.layout.pause_image, *images])
        replace(record, servers=started).write(self.layout.record)
        with self.progress.step("node ready"):
            self._await_node(api, started)

    def _await_node(self, api: Api, servers: Mapping[str, Process]) -> None:
        def usable() -> bool:
            dead = [name for name, server in servers.items() if not server.alive]
            if dead:
                raise StartError(f"{dead[0]} ended during the start:\n{tail(self.log(dead[0]))}")
            return api.node_ready(self.node) and api.exists("/api/v1/namespaces/default/serviceaccounts/default")

        if not wait_until(usable, READY_SECONDS, interval=0.1):
            raise StartError(
                f"node {self.node} is not ready after {READY_SECONDS:g} s. The kubelet's log:\n{tail(self.log('kubelet'))}"
            )

    def load_images(self, archives: Sequence[Path]) -> None:
        """Load OCI archives into the node's image store.

        Raises:
            UsageError: The stack is not running.
            StartError: An archive cannot be read.
        """
        namespaces = self._running_record().namespaces
        for path in archives:
            with self.progress.step(f"image {path.name}"):
                load_image(namespaces, path)

    # -- faults

    def add_node(self, images: Sequence[Path] = ()) -> str:
        """Start a second node, unless it runs; returns its name.

        Raises:
            UsageError: The stack is not running.
            StartError: It did not come up.
        """
        record = self._running_record()
        with self._lock():
            if not self.second.running:
                self.second.destroy()
                one = Addresses(record.slot)
                api = admin_api(self.layout, one)
                self.second.start(record.namespaces, one, self._programs(), api, images, self.progress)
        return self.second.name

    def lose_node(self) -> None:
        """The second node loses its power: kubelet and all containers are gone at once, and nobody is told."""
        self.second.destroy()

    def kill(self, component: str) -> None:
        """Kill a server (SIGKILL); `again` brings it back.

        Raises:
            UsageError: The stack is not running.
        """
        process = self.components()[component]
        process.signal(signal.SIGKILL)
        wait_until(lambda: not process.alive, 30)

    def again(self, component: str) -> None:
        """Start a server that was killed, with all that it had on its disk; returns once it is ready.

        Raises:
            UsageError: The stack is not running.
            StartError: It did not start.
        """
        record = self._running_record()
        one, values = Addresses(record.slot), read_environment(self.layout.environment)
        keys = values["AWS_ACCESS_KEY_ID"], values["AWS_SECRET_ACCESS_KEY"]
        folders = s3_folders(self.layout.state)
        servers = components(self.layout, one, self._programs(), self.node, folders, keys)
        server = next(server for server in servers if server.name == component)
        launcher = Launcher(self.layout, record.namespaces, one, admin_api(self.layout, one), self.progress)
        process = launcher.again(server)
        replace(record, servers={**record.servers, component: process}).write(self.layout.record)

    # -- down

    def down(self) -> None:
        """End everything and remove every trace; fine when there is nothing to end.

        Raises:
            DevError: Something could not be removed; the text says what.
        """
        requirements.require_root("taking a cluster down")
        with self._lock(), self.progress.step(f"stack {self.name} down"):
            self._destroy()

    def remains(self) -> list[str]:
        """What of this stack exists on the machine apart from its state folder, in words; empty after `down`."""
        record, found = self.record, []
        if record is not None:
            processes = {"holder": record.holder, "unshare": record.parent, **record.servers}
            found += [f"process {one.pid} ({name})" for name, one in processes.items() if one.alive]
            if record.slot != NO_SLOT and network.connected(Addresses(record.slot), self.name):
                found.append(f"interface {Addresses(record.slot).interface}")
        points = [Path(line.split()[4]) for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        found += [f"mount {point}" for point in points if point.is_relative_to(self.layout.state)]
        return found + [f"cgroup {path}" for path in cgroups.remaining(self.name)] + self.second.remains()

    def _kill(self) -> None:
        self.second.destroy()
        record = self.record
        if record is None:
            if unrecorded := find(self.layout.state):
                unrecorded.destroy()
        else:
            record.namespaces.destroy()
            if record.slot != NO_SLOT:
                network.disconnect(Addresses(record.slot), self.name)
        cgroups.remove(self.name)

    def _destroy(self) -> None:
        self._kill()
        if left := self.remains():
            raise DevError(f"stack {self.name} is down, but this is left: {', '.join(left)[:1000]}")
        if self.layout.state.exists():
            shutil.rmtree(self.layout.state)

    # -- help for both

    def _programs(self) -> dict[str, Path]:
        containerd = requirements.find("containerd")
        assert containerd is not None  # `up` has made sure of it
        return {**tools.ensure(PROGRAMS, self.progress), "containerd": containerd}

    def _running_record(self) -> Record:
        record = self.record
        if record is None or not record.namespaces.alive:
            raise UsageError(f"stack {self.name} is not running: python -m isotrack_dev up --name {self.name}")
        return record

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        # NB: beside the state folder, not in it: `down` removes the folder while it holds the lock.
        state = self.layout.state
        state.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with exclusive(state.parent / f".{state.name}.lock"):
            yield
