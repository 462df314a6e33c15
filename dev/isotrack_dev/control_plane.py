"""A Kubernetes without nodes, on loopback: etcd, the API server, and the controllers that belong to Jobs and to deletion.

For tests of what writes to an API server: objects are validated, owned, collected and made into pods as on any cluster, but no pod
is ever scheduled. Needs no root. As in `servers`, everything lies below `state`, and after the context manager it is gone.

    etcd ◀── kube-apiserver ◀── kube-controller-manager (Jobs, garbage, namespaces, service accounts)
"""

from __future__ import annotations

import datetime
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

from . import config, pki, tools
from .components import etcd_flags
from .kube import Api
from .kubectl import Kubectl
from .paths import write_private
from .process import spawn
from .servers import answers, free_port, running

ADDRESS = "127.0.0.1"
CONTROLLERS = (
    "job-controller",
    "garbage-collector-controller",
    "namespace-controller",
    "serviceaccount-controller",
    "root-ca-certificate-publisher-controller",
)
NOWHERE = "192.0.2.1"
"""RFC 5737: an address for the Service `kubernetes`, which nobody here uses."""


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """A running one."""

    kubeconfig: Path
    """Of cluster-admin."""
    kubectl: Kubectl
    server: str
    authority: Path
    """Certificate of who signs the API server's, PEM."""


@contextmanager
def control_plane(state: Path, crds: str) -> Iterator[ControlPlane]:
    """Start the three; inside, they answer.

    Args:
        crds: Custom resource definitions, as kubectl takes them. The garbage collector finds kinds that come later after half a minute only.
    Raises:
        StartError: One of them did not come up.
        RequirementError, BuildError: They are not built yet and cannot be.
    """
    programs = tools.ensure(["etcd", "kube-apiserver", "kube-controller-manager", "kubectl"])
    authority = _identities(state)
    with _etcd(programs, state) as etcd_port, _apiserver(programs, state, etcd_port) as port:
        server = f"https://{ADDRESS}:{port}"
        for name, pair in (
            ("admin", authority.client("isotrack-dev", "system:masters")),
            ("controllers", authority.client("system:kube-controller-manager")),
        ):
            text = config.kubeconfig(server=server, ca=authority.certificate, pair=pair, name=name)
            write_private(state / f"{name}.kubeconfig", text)
        kubectl = Kubectl(programs["kubectl"], state / "admin.kubeconfig")
        kubectl("apply", "--server-side", "-f", "-", stdin=crds)
        kubectl("wait", "crd", "--all", "--for=condition=Established")
        with _controllers(programs, state, port):
            yield ControlPlane(state / "admin.kubeconfig", kubectl, server, state / "ca.crt")


def _identities(state: Path) -> pki.Authority:
    authority = pki.Authority(datetime.datetime.now(datetime.UTC))
    accounts = pki.signing_pair()
    names = ("localhost", "kubernetes.default.svc")
    pairs = {
        "apiserver": authority.server("kube-apiserver", [IPv4Address(ADDRESS)], names),
        "admin": authority.client("isotrack-dev", "system:masters"),
    }
    files = {"ca.crt": authority.certificate, "accounts.pub": accounts.certificate, "accounts.key": accounts.key}
    for name, pair in pairs.items():
        files |= {f"{name}.crt": pair.certificate, f"{name}.key": pair.key}
    for name, text in files.items():
        write_private(state / name, text)
    return authority


@contextmanager
def _etcd(programs: Mapping[str, Path], state: Path) -> Iterator[int]:
    log = state / "etcd.log"

    def start() -> tuple[subprocess.Popen[bytes], int]:
        port, peer_port = free_port(ADDRESS), free_port(ADDRESS)
        flags = etcd_flags(state / f"etcd-{port}", port, peer_port)
        return _spawn(programs["etcd"], flags, log), port

    with running("etcd", start, log, lambda port: answers(ADDRESS, port, "/health"), retry=True) as (_, port):
        yield port


@contextmanager
def _apiserver(programs: Mapping[str, Path], state: Path, etcd_port: int) -> Iterator[int]:
    log = state / "kube-apiserver.log"

    def start() -> tuple[subprocess.Popen[bytes], int]:
        port = free_port(ADDRESS)
        flags = {
            "etcd-servers": f"http://{ADDRESS}:{etcd_port}",
            "bind-address": ADDRESS,
            "secure-port": port,
            "advertise-address": NOWHERE,
            "endpoint-reconciler-type": "none",
            "service-cluster-ip-range": "198.51.100.0/24",
            "tls-cert-file": state / "apiserver.crt",
            "tls-private-key-file": state / "apiserver.key",
            "client-ca-file": state / "ca.crt",
            "authorization-mode": "RBAC",
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-key-file": state / "accounts.pub",
            "service-account-signing-key-file": state / "accounts.key",
            "profiling": "false",
        }
        return _spawn(programs["kube-apiserver"], flags, log), port

    with running("kube-apiserver", start, log, lambda port: _api(state, port).ready(), retry=True) as (_, port):
        yield port


@contextmanager
def _controllers(programs: Mapping[str, Path], state: Path, port: int) -> Iterator[None]:
    log, own = state / "kube-controller-manager.log", state / "controllers.kubeconfig"
    flags = {
        "kubeconfig": own,
        "authentication-kubeconfig": own,
        "authorization-kubeconfig": own,
        "controllers": ",".join(CONTROLLERS),
        "use-service-account-credentials": "true",  # every controller with its own rights, as on real clusters
        "service-account-private-key-file": state / "accounts.key",
        "root-ca-file": state / "ca.crt",
        "leader-elect": "false",
        "secure-port": 0,
        "kube-api-qps": 200,
        "kube-api-burst": 400,
    }

    def start() -> tuple[subprocess.Popen[bytes], int]:
        return _spawn(programs["kube-controller-manager"], flags, log), 0

    def ready(_: int) -> bool:  # what it does first of all that it does
        return _api(state, port).exists("/api/v1/namespaces/default/serviceaccounts/default")

    with running("kube-controller-manager", start, log, ready, retry=False):
        yield


def _spawn(program: Path, flags: Mapping[str, object], log: Path) -> subprocess.Popen[bytes]:
    return spawn([program, *(f"--{name}={value}" for name, value in flags.items())], log, die_with_us=True)


def _api(state: Path, port: int) -> Api:
    return Api(IPv4Address(ADDRESS), port, state / "ca.crt", state / "admin.crt", state / "admin.key")
