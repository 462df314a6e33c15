"""Write everything that the servers of a stack read: certificates, kubeconfigs, configuration, keys.

Called once per `up`, on an empty state folder; each file is readable by its owner only.
"""

from __future__ import annotations

import datetime
import secrets
from collections.abc import Mapping
from pathlib import Path

from . import cgroups, config, oci, pki, requirements
from .addresses import API_PORT, API_SERVICE, BRIDGE, LIVEKIT_PORT, LIVEKIT_UDP_PORT, S3_PORT, Addresses
from .components import S3_REGION, Component, Layout, components, second_node
from .kube import Api
from .paths import file_system, write_private
from .servers import s3_folders

PAUSE_IMAGE = "localhost/isotrack-pause:1"
BUCKET = "recordings"
CAP_SYS_RESOURCE = 24
"""linux/capability.h"""
API_NAMES = (
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
)
"""DNS names of the API server."""


def provision(
    layout: Layout, one: Addresses, programs: Mapping[str, Path], name: str, node: str
) -> tuple[Component, ...]:
    """Write all files of the stack `name` and return its servers."""
    livekit = (f"API{secrets.token_hex(6)}", secrets.token_urlsafe(32))
    s3 = (f"dev{secrets.token_hex(6)}", secrets.token_urlsafe(24))
    _cluster_identities(layout, one, node)
    text = config.livekit(
        addresses=[str(one.node)],
        port=LIVEKIT_PORT,
        udp_port=LIVEKIT_UDP_PORT,
        key=livekit[0],
        secret=livekit[1],
        interfaces=[BRIDGE],
    )
    write_private(layout.secrets / "livekit.yaml", text)
    write_private(layout.environment, config.environment_file(_environment(layout, one, livekit, s3)))
    write_node(layout, one, name)
    pause = oci.archive(PAUSE_IMAGE, {"pause": programs["pause"].read_bytes()}, ["/pause"])
    layout.pause_image.write_bytes(pause)
    return components(layout, one, programs, node, s3_folders(layout.state), s3)


def admin_api(layout: Layout, one: Addresses) -> Api:
    """The stack's API server, seen as cluster-admin."""
    keep = layout.secrets
    return Api(one.node, API_PORT, keep / "ca.crt", keep / "admin.crt", keep / "admin.key")


def _environment(layout: Layout, one: Addresses, livekit: tuple[str, str], s3: tuple[str, str]) -> dict[str, str]:
    return {
        "KUBECONFIG": str(layout.kubeconfig),
        "LIVEKIT_URL": f"ws://{one.node}:{LIVEKIT_PORT}",
        "LIVEKIT_API_KEY": livekit[0],
        "LIVEKIT_API_SECRET": livekit[1],
        "S3_ENDPOINT": f"http://{one.node}:{S3_PORT}",
        "S3_BUCKET": BUCKET,
        "AWS_ACCESS_KEY_ID": s3[0],
        "AWS_SECRET_ACCESS_KEY": s3[1],
        "AWS_REGION": S3_REGION,
    }


def _cluster_identities(layout: Layout, one: Addresses, node: str) -> None:
    ca = pki.Authority(datetime.datetime.now(datetime.UTC))
    service_accounts = pki.signing_pair()
    admin = ca.client("isotrack-dev", "system:masters")
    pairs = {
        "apiserver": ca.server("kube-apiserver", [one.node, API_SERVICE], API_NAMES),
        "apiserver-kubelet": ca.client("kube-apiserver", "system:masters"),
        "admin": admin,
    }
    users = {
        "kube-controller-manager": ca.client("system:kube-controller-manager"),
        "kube-scheduler": ca.client("system:kube-scheduler"),
        "kubelet": ca.client(f"system:node:{node}", "system:nodes"),
    }
    files = {
        "ca.crt": ca.certificate,
        "service-accounts.pub": service_accounts.certificate,
        "service-accounts.key": service_accounts.key,
    }
    for name, pair in pairs.items():
        files |= {f"{name}.crt": pair.certificate, f"{name}.key": pair.key}
    server = f"https://{one.node}:{API_PORT}"
    for name, pair in users.items():
        files[f"{name}.kubeconfig"] = config.kubeconfig(server=server, ca=ca.certificate, pair=pair, name=name)
    for name, text in files.items():
        write_private(layout.secrets / name, text)
    write_private(layout.kubeconfig, config.kubeconfig(server=server, ca=ca.certificate, pair=admin, name=node))
    # Of a second node that may come later (see `second_node`): by then nobody has the CA's key any more.
    pair = ca.client(f"system:node:{second_node(node)}", "system:nodes")
    text = config.kubeconfig(server=server, ca=ca.certificate, pair=pair, name="kubelet")
    write_private(layout.second.secrets / "kubelet.kubeconfig", text)
    write_private(layout.second.secrets / "ca.crt", ca.certificate)


def write_node(layout: Layout, one: Addresses, group: str, *, second: bool = False) -> None:
    """Write what containerd and kubelet of a node read, and make its cgroup subtree, called `group`."""
    state = layout.state
    plugin = requirements.find("cni:bridge")
    assert plugin is not None  # `up` has made sure of the group `cluster`
    text = config.containerd(
        root=state / "containerd",
        cni_bin=plugin.parent,
        cni_conf=state / "cni",
        sandbox_image=PAUSE_IMAGE,
        snapshotter=_snapshotter(state),
        may_raise_oom=_capable(CAP_SYS_RESOURCE),
    )
    write_private(state / "containerd.toml", text)
    write_private(state / "cni" / "10-pods.conflist", config.pod_network(one, second=second))
    text = config.kubelet(cgroup_root=cgroups.name(group), client_ca=layout.secrets / "ca.crt")
    write_private(state / "kubelet.yaml", text)
    cgroups.make(group)


def _capable(number: int) -> bool:
    status = Path("/proc/self/status").read_text()
    effective = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective.split()[1], 16) >> number & 1)


def _snapshotter(state: Path) -> str:
    """Overlays cannot be stacked on an overlay."""
    return "native" if file_system(state) == "overlay" else "overlayfs"
