"""Connect a stack to the host: one veth pair whose host end claims the slot, the pod bridge, and the routes.

There is no NAT, no packet filter and no kube-proxy. The address of the Service `default/kubernetes` is simply one more address of
the bridge, where the API server listens; pods have the bridge as their gateway and find it there. The host routes to the pod
subnet through the link, so kubectl, S3 clients and WebRTC publishers on the host use the same addresses as pods do.
"""

from __future__ import annotations

import json
from ipaddress import IPv4Network

from .addresses import API_SERVICE, BRIDGE, Addresses, free_slots
from .errors import StartError
from .namespaces import Namespaces, run
from .process import wait_until


def interfaces() -> list[str]:
    """Names of the host's network interfaces."""
    return [link["ifname"] for link in json.loads(run(["ip", "-j", "link", "show"]))]


def routes() -> list[IPv4Network]:
    """Destinations of the host's IPv4 routes, default routes left out."""
    found = json.loads(run(["ip", "-j", "-4", "route", "show", "table", "all"]) or "[]")
    destinations = (route.get("dst", "default") for route in found if route.get("type") != "broadcast")
    return [IPv4Network(destination, strict=False) for destination in destinations if destination != "default"]


def claim(namespaces: Namespaces, stack: str) -> Addresses:
    """Take a free slot by making its link; the loser of a race tries the next one.

    Raises:
        StartError: No slot is free, or interfaces cannot be made.
    """
    refusal = "every slot is taken or its subnet is in use on this machine"
    for slot in free_slots(interfaces(), routes()):
        one = Addresses(slot)
        peer = ["peer", "name", "host0", "netns", str(namespaces.holder.pid)]
        try:
            run(["ip", "link", "add", one.interface, "type", "veth", *peer])
        except StartError as error:
            if one.interface not in interfaces():
                raise
            refusal = str(error)
            continue
        run(["ip", "link", "set", one.interface, "alias", _alias(stack)])
        return one
    raise StartError(f"no network for the stack: {refusal}")


def connect(namespaces: Namespaces, one: Addresses) -> None:
    """Give both ends their addresses and make the pod bridge."""
    inside: list[list[str]] = [
        ["addr", "add", f"{one.inner}/{one.link.prefixlen}", "dev", "host0"],
        ["link", "set", "host0", "up"],
        ["link", "add", BRIDGE, "type", "bridge"],
        ["addr", "add", f"{one.node}/{one.pods.prefixlen}", "dev", BRIDGE],
        ["addr", "add", f"{API_SERVICE}/32", "dev", BRIDGE],
        ["link", "set", BRIDGE, "up"],
    ]
    outside: list[list[str]] = [
        ["addr", "add", f"{one.host}/{one.link.prefixlen}", "dev", one.interface],
        ["link", "set", one.interface, "up"],
        ["route", "add", str(one.pods), "via", str(one.inner), "dev", one.interface],
    ]
    for words in inside:
        namespaces.run(["ip", *words])
    for words in outside:
        run(["ip", *words])


def connected(one: Addresses, stack: str) -> bool:
    """Whether the slot's interface exists and is this stack's: after an unclean end another stack may have the slot."""
    links = json.loads(run(["ip", "-j", "link", "show"]))
    return any(link["ifname"] == one.interface and link.get("ifalias") == _alias(stack) for link in links)


def disconnect(one: Addresses, stack: str) -> None:
    """Remove the stack's link at once; the kernel would do it too, some time after the last process."""
    if connected(one, stack):
        try:
            run(["ip", "link", "del", one.interface])
        except StartError:  # the kernel was faster
            if not wait_until(lambda: not connected(one, stack), 30):
                raise


def _alias(stack: str) -> str:
    return f"isotrack stack {stack}"
