"""Say what runs in a stack: one command line per server, and which servers each waits for (pure).

    etcd ── kube-apiserver ─┬─ kube-controller-manager
                            ├─ kube-scheduler
    containerd ─────────────┴─ kubelet                       livekit, s3: on their own

Servers listen inside the stack's namespaces, on the node's address or on loopback. Secrets go through files and the
environment, never through arguments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from pathlib import Path

from . import config
from .addresses import API_PORT, ETCD_PEER_PORT, ETCD_PORT, S3_PORT, SERVICES, Addresses

S3_REGION = "us-east-1"


@dataclass(frozen=True, slots=True)
class Component:
    """A server of the stack."""

    name: str
    command: tuple[str, ...]
    needs: tuple[str, ...] = ()
    """Components that must be ready before this one starts."""
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where the files of a stack lie."""

    state: Path

    @property
    def logs(self) -> Path:
        """One log per component."""
        return self.state / "logs"

    @property
    def secrets(self) -> Path:
        """Keys, certificates and kubeconfigs of the components."""
        return self.state / "secrets"

    @property
    def kubeconfig(self) -> Path:
        """For people and tests: cluster-admin."""
        return self.state / "kubeconfig"

    @property
    def environment(self) -> Path:
        """Shell lines: addresses and keys of SFU and object store, and KUBECONFIG."""
        return self.state / "env"

    @property
    def pause_image(self) -> Path:
        """Archive of the image that holds a pod's namespaces."""
        return self.state / "pause.tar"

    @property
    def second(self) -> Layout:
        """Files of a second node, below those of the stack."""
        return Layout(state=self.state / "node2")

    @property
    def record(self) -> Path:
        """What runs: `stack.json`."""
        return self.state / "stack.json"


def second_node(node: str) -> str:
    """Name of the second node of a stack whose first is called `node`."""
    return f"{node}-2"


def components(
    layout: Layout,
    one: Addresses,
    programs: Mapping[str, Path],
    node: str,
    s3: config.S3Folders,
    s3_keys: tuple[str, str],
) -> tuple[Component, ...]:
    """List the servers of a stack, none before those it needs.

    Args:
        layout: Folders; every file named here has been written.
        one: Addresses of the stack's slot.
        programs: Name → path of each program.
        node: Name of the one node.
        s3: Folders of the object store.
        s3_keys: Access key and secret key of the object store's administrator.
    """
    containerd, kubelet = node_components(layout, one.node, programs, node)
    return (
        Component("etcd", (str(programs["etcd"]), *_etcd(layout))),
        containerd,
        Component("livekit", (str(programs["livekit-server"]), "--config", str(layout.secrets / "livekit.yaml"))),
        Component(
            "s3",
            (str(programs["versitygw"]), *config.versitygw(s3, address=str(one.node), port=S3_PORT, region=S3_REGION)),
            environment={"ROOT_ACCESS_KEY": s3_keys[0], "ROOT_SECRET_KEY": s3_keys[1]},
        ),
        Component("kube-apiserver", (str(programs["kube-apiserver"]), *_apiserver(layout, one)), needs=("etcd",)),
        Component(
            "kube-controller-manager",
            (str(programs["kube-controller-manager"]), *_controller_manager(layout)),
            needs=("kube-apiserver",),
        ),
        Component("kube-scheduler", (str(programs["kube-scheduler"]), *_scheduler(layout)), needs=("kube-apiserver",)),
        replace(kubelet, needs=("kube-apiserver", *kubelet.needs)),
    )


def node_components(
    layout: Layout, address: IPv4Address, programs: Mapping[str, Path], node: str
) -> tuple[Component, Component]:
    """The two servers that make a node: containerd and kubelet, in this order."""
    config_file = str(layout.state / "containerd.toml")
    return (
        Component("containerd", (str(programs["containerd"]), "--config", config_file)),
        Component("kubelet", (str(programs["kubelet"]), *_kubelet(layout, address, node)), needs=("containerd",)),
    )


def _flags(values: Mapping[str, object]) -> tuple[str, ...]:
    return tuple(f"--{name}={value}" for name, value in values.items())


def _etcd(layout: Layout) -> tuple[str, ...]:
    return _flags(etcd_flags(layout.state / "etcd", ETCD_PORT, ETCD_PEER_PORT))


def etcd_flags(data: Path, port: int, peer_port: int) -> dict[str, object]:
    """Flags of an etcd of one member, on loopback."""
    client, peer = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer_port}"
    return {
        "data-dir": data,
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"default={peer}",
        "unsafe-no-fsync": "true",  # nothing in these clusters is worth a disk flush
        "log-level": "warn",
    }


def _apiserver(layout: Layout, one: Addresses) -> tuple[str, ...]:
    secrets = layout.secrets
    return _flags(
        {
            "etcd-servers": f"http://127.0.0.1:{ETCD_PORT}",
            # Port 443 on the bridge's addresses: one of them is the Service `default/kubernetes` (see `network`).
            "bind-address": "0.0.0.0",
            "secure-port": API_PORT,
            "advertise-address": one.node,
            "service-cluster-ip-range": SERVICES,
            "tls-cert-file": secrets / "apiserver.crt",
            "tls-private-key-file": secrets / "apiserver.key",
            "client-ca-file": secrets / "ca.crt",
            "kubelet-client-certificate": secrets / "apiserver-kubelet.crt",
            "kubelet-client-key": secrets / "apiserver-kubelet.key",
            "kubelet-preferred-address-types": "InternalIP",
            "authorization-mode": "Node,RBAC",
            "enable-admission-plugins": "NodeRestriction",
            "service-account-issuer": "https://kubernetes.default.svc.cluster.local",
            "service-account-key-file": secrets / "service-accounts.pub",
            "service-account-signing-key-file": secrets / "service-accounts.key",
            "allow-privileged": "true",
            "profiling": "false",
        }
    )


def _controller_manager(layout: Layout) -> tuple[str, ...]:
    secrets = layout.secrets
    own = secrets / "kube-controller-manager.kubeconfig"
    return _flags(
        {
            "kubeconfig": own,
            "authentication-kubeconfig": own,
            "authorization-kubeconfig": own,
            "use-service-account-credentials": "true",  # every controller with its own rights, as on real clusters
            "service-account-private-key-file": secrets / "service-accounts.key",
            "root-ca-file": secrets / "ca.crt",
            "leader-elect": "false",
            "bind-address": "127.0.0.1",
            "kube-api-qps": 200,
            "kube-api-burst": 400,
        }
    )


def _scheduler(layout: Layout) -> tuple[str, ...]:
    own = layout.secrets / "kube-scheduler.kubeconfig"
    return _flags(
        {
            "kubeconfig": own,
            "authentication-kubeconfig": own,
            "authorization-kubeconfig": own,
            "leader-elect": "false",
            "bind-address": "127.0.0.1",
        }
    )


def _kubelet(layout: Layout, address: IPv4Address, node: str) -> tuple[str, ...]:
    return _flags(
        {
            "kubeconfig": layout.secrets / "kubelet.kubeconfig",
            "config": layout.state / "kubelet.yaml",
            # NB: below /var/lib of the namespaces, where every path stays short: socket paths end at 107 characters.
            "root-dir": "/var/lib/kubelet",
            "cert-dir": "/var/lib/kubelet/pki",
            "hostname-override": node,
            "node-ip": address,
        }
    )
