"""Which of this machine's addresses are offered to an SFU. Pure but for `host_addresses`, which asks the system.

In a pod that is its one address. On a workstation bridges of containers and virtual machines are left out (an SFU
would try them for nothing), loopback joins when it is all there is or when the SFU itself names a loopback address.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Final, NamedTuple

MAX_ADDRESSES: Final = 8

_BRIDGES = re.compile(
    r"(docker|br-|veth|virbr|cni|flannel|cali|lxc|podman|kube-|nodelocaldns|isotrack\d)"
)  # the last: `dev up`


class HostAddress(NamedTuple):
    """One address of one network interface."""

    interface: str
    address: str


def host_addresses() -> list[HostAddress]:
    """All addresses of this machine, loopback included."""
    import ifaddr  # comes with aioice; not needed before the first offer

    found = []
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            if isinstance(ip.ip, str):
                found.append(HostAddress(str(adapter.name), ip.ip))
            elif ip.ip[2] == 0:  # others are link-local and need a scope
                found.append(HostAddress(str(adapter.name), ip.ip[0]))
    return found


def choose_addresses(own: Iterable[HostAddress], remote: Iterable[str]) -> tuple[str, ...]:
    """Pick what to gather candidates on.

    Args:
        own: From `host_addresses`.
        remote: Addresses of the SFU that are already known; host names among them are passed over.
    """
    usable = [found for found in own if not _unusable(found.address)]
    loopback = [found.address for found in usable if ipaddress.ip_address(found.address).is_loopback]
    real = [found for found in usable if found.address not in loopback]
    plain = [found.address for found in real if not _BRIDGES.match(found.interface)]
    chosen = plain or [found.address for found in real]
    if not chosen or any(_is_loopback(address) for address in remote):
        chosen = loopback + chosen
    return tuple(dict.fromkeys(chosen))[:MAX_ADDRESSES]


def _unusable(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    return parsed.is_link_local or parsed.is_multicast or parsed.is_unspecified


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
