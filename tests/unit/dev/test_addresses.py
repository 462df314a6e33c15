"""Slots and names: what two stacks on one machine must not share."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotrack_dev.addresses import NETWORK, SERVICES, SLOTS, Addresses, check_name, free_slots
from isotrack_dev.errors import UsageError


def test_every_slot_has_subnets_of_its_own() -> None:
    subnets = [subnet for slot in range(SLOTS) for subnet in (Addresses(slot).pods, Addresses(slot).link)]
    assert len(set(subnets)) == 2 * SLOTS
    assert not any(one.overlaps(other) for index, one in enumerate(subnets) for other in subnets[:index])
    assert all(subnet.subnet_of(NETWORK) and not subnet.overlaps(SERVICES) for subnet in subnets)


def test_addresses_of_the_first_slot() -> None:
    one = Addresses(0)
    assert (str(one.node), str(one.host), str(one.inner)) == ("10.213.0.1", "10.213.128.1", "10.213.128.2")


@given(slot=st.integers(0, SLOTS - 1))
def test_interface_name_fits_the_kernel(slot: int) -> None:
    assert len(Addresses(slot).interface) <= 15  # IFNAMSIZ - 1


@pytest.mark.parametrize(
    ("interfaces", "routes", "first"),
    [
        pytest.param([], [], 0, id="nothing-there"),
        pytest.param(["lo", "isotrack0", "isotrack1"], [], 2, id="claimed-slots"),
        pytest.param(["isotrack1"], [], 0, id="a-gap-is-used"),
        pytest.param([], ["10.213.0.0/24"], 1, id="pod-subnet-routed-elsewhere"),
        pytest.param([], ["10.213.128.0/30"], 1, id="link-routed-elsewhere"),
        pytest.param([], ["10.213.0.0/23"], 2, id="wider-route"),
        pytest.param([], ["192.168.0.0/16"], 0, id="unrelated-route"),
    ],
)
def test_lowest_usable_slot_comes_first(interfaces: list[str], routes: list[str], first: int) -> None:
    assert free_slots(interfaces, [IPv4Network(route) for route in routes])[0] == first


def test_no_slot_where_the_whole_network_is_taken() -> None:
    assert free_slots([], [IPv4Network("10.0.0.0/8")]) == []


@pytest.mark.parametrize("name", ["dev", "a", "test-1", "x" * 24])
def test_good_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "1a", "-a", "a-", "A", "a_b", "a/b", "..", "x" * 25, "a\n", "é"])
def test_names_that_could_leave_their_folder_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match="cannot name a stack"):
        check_name(name)
