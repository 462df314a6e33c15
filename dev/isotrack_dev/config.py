"""Render the configuration of every server from plain values (pure: equal input gives equal text).

Files are YAML where the server reads YAML, JSON where it reads JSON, TOML for containerd. Where a value looks odd, the
comment says which failure it avoids.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from .addresses import BRIDGE, Addresses
from .pki import Pair

CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
"""Inside the stack's namespaces, where /run is its own."""
S3_HEALTH_PATH = "/-/healthy"
"""No bucket can be called `-`: names have at least three characters."""


def livekit(
    *, addresses: Sequence[str], port: int, udp_port: int, key: str, secret: str, interfaces: Sequence[str] = ("lo",)
) -> str:
    """Configure a single LiveKit server that never asks a public STUN server.

    Args:
        addresses: What signalling listens on. The last one is offered for media.
        port: For signalling and the API.
        udp_port: For media of all participants.
        key: API key.
        secret: Its secret, at least 32 characters or LiveKit warns.
        interfaces: The network interfaces that hold the addresses. Without this filter an advertised address may
            belong to another interface's socket.
    """
    node_ip = addresses[-1]
    return yaml.safe_dump(
        {
            "port": port,
            "bind_addresses": list(addresses),
            "keys": {key: secret},
            "logging": {"level": "info"},
            "rtc": {
                "use_external_ip": False,
                "node_ip": node_ip,
                "enable_loopback_candidate": ipaddress.ip_address(node_ip).is_loopback,
                "interfaces": {"includes": list(interfaces)},
                "ips": {"includes": [f"{node_ip}/32"]},
                "udp_port": udp_port,
                # NB: left out, a TCP fallback listens on every interface of the machine.
                "tcp_port": 0,
                "allow_tcp_fallback": False,
            },
            "room": {"auto_create": True, "empty_timeout": 300, "departure_timeout": 5},
        },
        sort_keys=False,
    )


@dataclass(frozen=True, slots=True)
class S3Folders:
    """Where an S3 server keeps what."""

    objects: Path
    """One folder per bucket."""
    sidecar: Path | None
    """Metadata of objects; None keeps it in extended attributes of the objects."""


def versitygw(folders: S3Folders, *, address: str, port: int, region: str) -> list[str]:
    """Arguments of the S3 server. The keys go through ROOT_ACCESS_KEY and ROOT_SECRET_KEY: arguments are public."""
    backend = ["posix", *(["--sidecar", str(folders.sidecar)] if folders.sidecar else []), str(folders.objects)]
    return ["--port", f"{address}:{port}", "--region", region, "--health", S3_HEALTH_PATH, "--quiet", *backend]


def containerd(
    *, root: Path, cni_bin: Path, cni_conf: Path, sandbox_image: str, snapshotter: str, may_raise_oom: bool
) -> str:
    """Configure containerd (TOML, version 2: read by containerd 1.6 up to 2.x).

    Args:
        root: Folder for images and snapshots.
        cni_bin: Folder of the network plugins.
        cni_conf: Folder with our one network.
        sandbox_image: The pause image, imported beforehand.
        snapshotter: `overlayfs`, or `native` where the state itself lies on an overlay.
        may_raise_oom: Whether we hold CAP_SYS_RESOURCE. Without it runc cannot lower oom_score_adj and no pod starts.
    """
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    return f"""version = 2
root = {quoted(str(root))}
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = "{CONTAINERD_SOCKET}"
[plugins."io.containerd.internal.v1.opt"]
  path = {quoted(str(root / "opt"))}
[{cri}]
  sandbox_image = {quoted(sandbox_image)}
  restrict_oom_score_adj = {str(not may_raise_oom).lower()}
  max_container_log_line_size = 262144
  [{cri}.containerd]
    snapshotter = {quoted(snapshotter)}
    default_runtime_name = "runc"
    [{cri}.containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [{cri}.containerd.runtimes.runc.options]
        SystemdCgroup = false
  [{cri}.cni]
    bin_dir = {quoted(str(cni_bin))}
    conf_dir = {quoted(str(cni_conf))}
"""


def quoted(text: str) -> str:
    """Quote a string for TOML, JSON and YAML alike."""
    return json.dumps(text)


def pod_network(one: Addresses, *, second: bool = False) -> str:
    """The CNI network: a bridge, addresses from the stack's pod subnet, no NAT (CNI specification 0.4.0).

    Args:
        second: Of the second node, whose pods have the first one's bridge as their gateway, too.
    """
    start, end = (one.second_node + 1, one.pods[254]) if second else (one.pods[2], one.second_node - 1)
    addresses = {
        "subnet": str(one.pods),
        "rangeStart": str(start),
        "rangeEnd": str(end),
        "gateway": str(one.node),
    }
    bridge = {
        "type": "bridge",
        "bridge": BRIDGE,
        "isGateway": not second,
        "ipMasq": False,
        "ipam": {"type": "host-local", "ranges": [[addresses]], "routes": [{"dst": "0.0.0.0/0"}]},
    }
    return json.dumps({"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge]}, indent=2)


def kubelet(*, cgroup_root: str, client_ca: Path) -> str:
    """Configure the kubelet (KubeletConfiguration v1beta1).

    Args:
        cgroup_root: Subtree for pods; the stack's own.
        client_ca: CA whose client certificates may use the kubelet's API (`kubectl logs`, `exec`).
    """
    return yaml.safe_dump(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "failCgroupV1": False,
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": cgroup_root,
            "failSwapOn": False,
            "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(client_ca)},
            },
            "authorization": {"mode": "Webhook"},
            # NB: absent means the host's file. Pods of the stack have no DNS, and the host's servers are not reachable.
            "resolvConf": "",
            "volumePluginDir": "/var/lib/kubelet/volume-plugins",
            "makeIPTablesUtilChains": False,
            "serializeImagePulls": False,
            "volumeStatsAggPeriod": "5s",  # a minute otherwise: how late it sees that a volume is over its limit
            # The node shares its disk with everything else on the machine: neither collect images nor evict for that.
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {"memory.available": "64Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        },
        sort_keys=False,
    )


def kubeconfig(*, server: str, ca: str, pair: Pair, name: str) -> str:
    """A kubeconfig that holds its certificates itself.

    Args:
        server: URL of the API server.
        ca: Its CA, PEM.
        pair: Client certificate and key.
        name: Of cluster, user and context.
    """

    def encoded(pem: str) -> str:
        return base64.b64encode(pem.encode()).decode()

    user = {"client-certificate-data": encoded(pair.certificate), "client-key-data": encoded(pair.key)}
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": {"server": server, "certificate-authority-data": encoded(ca)}}],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "current-context": name,
        },
        sort_keys=False,
    )


def environment_file(values: Mapping[str, str]) -> str:
    """Lines `export NAME=value` that a shell can source."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in values.items())
