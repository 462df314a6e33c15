"""Which addresses are offered."""

from __future__ import annotations

import pytest

from isotrack_recorder.webrtc.addresses import MAX_ADDRESSES, HostAddress, choose_addresses, host_addresses

LO = HostAddress("lo", "127.0.0.1")
LO6 = HostAddress("lo", "::1")
ETH = HostAddress("eth0", "10.0.0.7")
ETH6 = HostAddress("eth0", "fd00::7")
LINK_LOCAL = HostAddress("eth0", "169.254.3.4")
DOCKER = HostAddress("docker0", "172.17.0.1")
STACK = HostAddress("isotrack0", "10.213.128.1")


@pytest.mark.parametrize(
    ("own", "remote", "chosen"),
    [
        pytest.param([LO, ETH], [], ("10.0.0.7",), id="pod"),
        pytest.param([LO, LO6, ETH, ETH6], ["192.0.2.1"], ("10.0.0.7", "fd00::7"), id="both families"),
        pytest.param([LO, LO6], ["192.0.2.1"], ("127.0.0.1", "::1"), id="loopback is all there is"),
        pytest.param([LO, ETH], ["127.0.0.1"], ("127.0.0.1", "10.0.0.7"), id="SFU on loopback"),
        pytest.param([LO, ETH, DOCKER], [], ("10.0.0.7",), id="bridges of containers"),
        pytest.param([LO, ETH, STACK], [], ("10.0.0.7",), id="a stack of ours, which may go at any time"),
        pytest.param([LO, DOCKER], [], ("172.17.0.1",), id="a bridge is all there is"),
        pytest.param([LO, ETH, LINK_LOCAL], [], ("10.0.0.7",), id="link-local"),
        pytest.param([LO, ETH], ["sfu.example.org", "x.local"], ("10.0.0.7",), id="host names"),
    ],
)
def test_choice(own: list[HostAddress], remote: list[str], chosen: tuple[str, ...]) -> None:
    assert choose_addresses(own, remote) == chosen


def test_the_choice_is_bounded() -> None:
    own = [HostAddress("eth0", f"10.0.0.{n}") for n in range(1, 100)]
    assert len(choose_addresses(own, [])) == MAX_ADDRESSES


def test_this_machine_has_a_loopback_address() -> None:
    assert "127.0.0.1" in [found.address for found in host_addresses()]
