"""Names and addresses of a stack, derived from its name and slot (pure).

Everything of a stack lives in network, mount and process namespaces of its own, so ports never clash. What the host has to
tell apart is small: one network interface and two subnets per stack, numbered by a *slot*. The interface is also the
claim on the slot: making it either succeeds or fails, and it disappears with the stack.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from .errors import UsageError

SLOTS = 64
"""How many stacks can run on one machine."""
NETWORK = IPv4Network("10.213.0.0/16")
"""Pods of slot n use 10.213.n.0/24, the link to the host 10.213.(128+n).0/30."""
SERVICES = IPv4Network("10.96.0.0/16")
"""Service addresses. They exist inside the namespaces only, so every stack has the same."""
API_SERVICE = SERVICES[1]
"""Address of the Service `default/kubernetes`: Kubernetes gives it the first one of the range."""
BRIDGE = "pods0"
"""The pod bridge, inside the namespaces."""
API_PORT, LIVEKIT_PORT, LIVEKIT_UDP_PORT, S3_PORT, ETCD_PORT, ETCD_PEER_PORT = 443, 7880, 7882, 7070, 2379, 2380


@dataclass(frozen=True, slots=True)
class Addresses:
    """What belongs to one slot."""

    slot: int

    @property
    def interface(self) -> str:
        """The host's end of the link; its existence claims the slot."""
        return f"isotrack{self.slot}"

    @property
    def pods(self) -> IPv4Network:
        """Subnet of the pod bridge."""
        return IPv4Network((int(NETWORK.network_address) + (self.slot << 8), 24))

    @property
    def node(self) -> IPv4Address:
        """Address of the node and of every server of the stack; pods and the host both reach it."""
        return self.pods[1]

    @property
    def second_node(self) -> IPv4Address:
        """Address of a second node; its pods have those behind it, pods of the first those before it."""
        return self.pods[128]

    @property
    def link(self) -> IPv4Network:
        """Subnet between host and stack."""
        return IPv4Network((int(NETWORK.network_address) + ((128 + self.slot) << 8), 30))

    @property
    def host(self) -> IPv4Address:
        """Where pods reach a program that runs on the host (a webhook receiver of a test, say)."""
        return self.link[1]

    @property
    def inner(self) -> IPv4Address:
        """The stack's end of the link."""
        return self.link[2]


def check_name(name: str) -> str:
    """Return `name` if it can name a stack: it goes into paths, a node name, cgroups and a host name.

    Raises:
        UsageError: It cannot.
    """
    if not re.fullmatch(r"[a-z]([a-z0-9-]{0,22}[a-z0-9])?", name):
        raise UsageError(f"{name[:80]!r} cannot name a stack: use up to 24 of a-z, 0-9 and -, a letter first")
    return name


def free_slots(interfaces: Collection[str], routes: Collection[IPv4Network]) -> list[int]:
    """Slots that nobody has claimed and whose subnets no route of the host overlaps, lowest first.

    Args:
        interfaces: Names of the host's network interfaces.
        routes: Destinations of its IPv4 routes, the default route left out.
    """

    def usable(slot: int) -> bool:
        one = Addresses(slot)
        if one.interface in interfaces:
            return False
        return not any(route.overlaps(one.pods) or route.overlaps(one.link) for route in routes)

    return [slot for slot in range(SLOTS) if usable(slot)]
