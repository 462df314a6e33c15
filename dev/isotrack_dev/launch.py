"""Start the servers of a stack side by side, each once those it needs are ready, and load images meanwhile.

One worker thread per server for the length of the start, none afterwards. The first failure ends the namespaces, so that
every other worker returns at once, and is the one that is reported.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from . import config
from .addresses import ETCD_PORT, LIVEKIT_PORT, S3_PORT, Addresses
from .components import S3_REGION, Component, Layout
from .kube import Api
from .namespaces import ENVIRONMENT, Namespaces, only_child
from .process import Process, await_ready, spawn
from .progress import Progress
from .provision import BUCKET
from .record import read_environment
from .requirements import find
from .servers import answers, make_bucket

READY_SECONDS = 120.0
TCP_LISTEN = "0A"
"""linux/tcp_states.h, as /proc/net/tcp writes it."""


@dataclass(frozen=True, slots=True)
class Launcher:
    """Starts servers inside one stack."""

    layout: Layout
    namespaces: Namespaces
    one: Addresses
    api: Api
    progress: Progress

    def launch(self, servers: Sequence[Component], images: Sequence[Path]) -> dict[str, Process]:
        """Start `servers` (in an order where none stands before those it needs) and load `images`.

        Raises:
            StartError: One did not start; the namespaces are gone.
        """
        with ThreadPoolExecutor(max_workers=len(servers) + len(images), thread_name_prefix="launch") as pool:
            ready: dict[str, Future[Process]] = {}
            for server in servers:
                ready[server.name] = pool.submit(self._start, server, [ready[name] for name in server.needs])
            loads = [pool.submit(self._load, path, ready["containerd"]) for path in images]
            every: list[Future[Any]] = [*ready.values(), *loads]
            done, _ = wait(every, return_when=FIRST_EXCEPTION)
            failure = next((error for future in done if (error := future.exception())), None)
            if failure is not None:
                self.namespaces.destroy()
                raise failure
            return {name: future.result() for name, future in ready.items()}

    def again(self, server: Component) -> Process:
        """Start one server alone, whose needs are there; returns once it is ready.

        Raises:
            StartError: It did not start.
        """
        return self._start(server, [])

    def _start(self, server: Component, needed: Sequence[Future[Process]]) -> Process:
        for other in needed:
            other.result()
        with self.progress.step(server.name):
            return start(self.layout, self.namespaces, server, partial(self._ready, server.name))

    def _load(self, archive: Path, containerd: Future[Process]) -> None:
        containerd.result()
        with self.progress.step(f"image {archive.name}"):
            load_image(self.namespaces, archive)

    def _ready(self, name: str) -> bool:
        node = str(self.one.node)
        match name:
            case "etcd":
                return listens(self.namespaces, ETCD_PORT)
            case "containerd":
                return accepts(self.namespaces, config.CONTAINERD_SOCKET)
            case "livekit":
                return answers(node, LIVEKIT_PORT)
            case "s3":
                return answers(node, S3_PORT, config.S3_HEALTH_PATH) and self._bucket()
            case "kube-apiserver":
                return self.api.ready()
            case _:
                return True  # nobody waits for these three one by one: `Stack` asks for the node at the end

    def _bucket(self) -> bool:
        values = read_environment(self.layout.environment)
        keys = values["AWS_ACCESS_KEY_ID"], values["AWS_SECRET_ACCESS_KEY"]
        make_bucket(values["S3_ENDPOINT"], *keys, S3_REGION, BUCKET)
        return True


def start(layout: Layout, namespaces: Namespaces, server: Component, ready: partial[bool]) -> Process:
    """Start one server inside and return its process once it is ready."""
    log = layout.logs / f"{server.name}.log"
    child = spawn(namespaces.enter(server.command), log, {**ENVIRONMENT, **server.environment}, cwd=Path("/"))
    await_ready(server.name, child, log, ready, READY_SECONDS)
    return Process.of(only_child(child.pid))


def load_image(namespaces: Namespaces, archive: Path) -> None:
    """Load an OCI archive into the node's image store.

    Raises:
        StartError: It cannot be read.
    """
    ctr = find("ctr") or "ctr"
    address = ["--address", config.CONTAINERD_SOCKET, "--namespace", "k8s.io"]
    namespaces.run([ctr, *address, "images", "import", archive], seconds=300)


def listens(namespaces: Namespaces, port: int) -> bool:
    """Whether something inside listens on a TCP port, over IPv4."""
    lines = Path(f"/proc/{namespaces.holder.pid}/net/tcp").read_text().splitlines()[1:]
    fields = (line.split() for line in lines)
    return any(words[3] == TCP_LISTEN and int(words[1].rpartition(":")[2], 16) == port for words in fields)


def accepts(namespaces: Namespaces, path: str) -> bool:
    """Whether something inside accepts connections at a unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(f"/proc/{namespaces.holder.pid}/root{path}")
        except OSError:
            return False
        return True
