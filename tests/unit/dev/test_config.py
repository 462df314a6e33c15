"""Configuration files: what each server needs to read in them."""

from __future__ import annotations

import json
import stat
import tomllib
from ipaddress import IPv4Address
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from isotrack_dev import config
from isotrack_dev.addresses import API_PORT, Addresses
from isotrack_dev.components import Layout, components
from isotrack_dev.paths import tail, write_private
from isotrack_dev.pki import Pair
from isotrack_dev.record import read_environment


def livekit(addresses: list[str]) -> dict[str, object]:
    text = config.livekit(addresses=addresses, port=7880, udp_port=7882, key="k", secret="s" * 32, interfaces=["lo"])
    loaded: dict[str, object] = yaml.safe_load(text)
    return loaded


def test_livekit_listens_on_no_other_address() -> None:
    """A TCP fallback would listen everywhere, and a missing node_ip would ask a public STUN server."""
    loaded = livekit(["127.0.0.1"])
    rtc = loaded["rtc"]
    assert isinstance(rtc, dict)
    assert loaded["bind_addresses"] == ["127.0.0.1"]
    assert (rtc["tcp_port"], rtc["allow_tcp_fallback"], rtc["use_external_ip"]) == (0, False, False)
    assert (rtc["node_ip"], rtc["ips"]) == ("127.0.0.1", {"includes": ["127.0.0.1/32"]})


@pytest.mark.parametrize(("address", "enabled"), [("127.0.0.1", True), ("10.213.0.1", False)])
def test_loopback_candidates_only_on_loopback(address: str, enabled: bool) -> None:
    rtc = livekit([address])["rtc"]
    assert isinstance(rtc, dict)
    assert rtc["enable_loopback_candidate"] is enabled


@pytest.mark.parametrize("may_raise", [True, False])
def test_containerd_configuration_is_toml(may_raise: bool) -> None:
    text = config.containerd(
        root=Path('/state "odd"/containerd'),
        cni_bin=Path("/usr/lib/cni"),
        cni_conf=Path("/state/cni"),
        sandbox_image="localhost/pause:1",
        snapshotter="overlayfs",
        may_raise_oom=may_raise,
    )
    loaded = tomllib.loads(text)
    cri = loaded["plugins"]["io.containerd.grpc.v1.cri"]
    assert loaded["root"] == '/state "odd"/containerd'
    assert cri["restrict_oom_score_adj"] is not may_raise
    assert cri["containerd"]["snapshotter"] == "overlayfs"
    assert cri["containerd"]["runtimes"]["runc"]["options"] == {"SystemdCgroup": False}


def test_pods_get_addresses_of_their_slot_and_no_nat() -> None:
    (bridge,) = json.loads(config.pod_network(Addresses(3)))["plugins"]
    ((own,),) = bridge["ipam"]["ranges"]
    assert own["subnet"] == "10.213.3.0/24"
    assert (bridge["ipMasq"], bridge["isGateway"]) == (False, True)


def test_pods_of_both_nodes_share_a_subnet_and_its_gateway_and_no_address() -> None:
    one = Addresses(3)
    ranges = []
    for second in (False, True):
        (bridge,) = json.loads(config.pod_network(one, second=second))["plugins"]
        ((own,),) = bridge["ipam"]["ranges"]
        assert own["gateway"] == str(one.node)
        ranges.append((IPv4Address(own["rangeStart"]), IPv4Address(own["rangeEnd"])))
    assert one.node < ranges[0][0] < ranges[0][1] < one.second_node < ranges[1][0] < ranges[1][1] < one.pods[255]


def test_kubelet_takes_both_cgroup_versions_and_asks_who_calls() -> None:
    loaded = yaml.safe_load(config.kubelet(cgroup_root="/isotrack-x", client_ca=Path("/ca")))
    assert (loaded["failCgroupV1"], loaded["cgroupDriver"], loaded["cgroupRoot"]) == (False, "cgroupfs", "/isotrack-x")
    assert loaded["authentication"]["anonymous"] == {"enabled": False}
    assert loaded["authorization"] == {"mode": "Webhook"}


def test_kubeconfig_needs_no_other_file() -> None:
    loaded = yaml.safe_load(config.kubeconfig(server="https://10.213.0.1:443", ca="CA", pair=Pair("C", "K"), name="n"))
    assert loaded["clusters"][0]["cluster"] == {
        "server": "https://10.213.0.1:443",
        "certificate-authority-data": "Q0E=",
    }
    assert loaded["users"][0]["user"] == {"client-certificate-data": "Qw==", "client-key-data": "Sw=="}


@given(value=st.text(st.characters(exclude_categories=["Cs", "Cc"])))
def test_environment_file_reads_back(tmp_path_factory: pytest.TempPathFactory, value: str) -> None:
    path = tmp_path_factory.mktemp("env") / "env"
    path.write_text(config.environment_file({"A": value, "B": "x"}))
    assert read_environment(path) == {"A": value, "B": "x"}


def some_components() -> dict[str, tuple[str, ...]]:
    names = ("etcd", "containerd", "livekit-server", "versitygw", "kube-apiserver", "kube-scheduler", "kubelet")
    programs = {name: Path("/bin") / name for name in (*names, "kube-controller-manager")}
    folders = config.S3Folders(Path("/s/s3"), None)
    listed = components(
        Layout(state=Path("/s")), Addresses(0), programs, "isotrack-x", folders, ("access", "very secret")
    )
    known: set[str] = set()
    for one in listed:
        assert set(one.needs) <= known  # so that starting in order cannot wait for something that is not there
        known.add(one.name)
    return {one.name: one.command for one in listed}


def test_components_stand_in_an_order_that_can_start_and_tell_no_secret() -> None:
    assert not any("very secret" in word for command in some_components().values() for word in command)


def test_api_server_listens_where_the_service_address_leads() -> None:
    """Without kube-proxy the Service's port must be the server's own."""
    command = some_components()["kube-apiserver"]
    assert API_PORT == 443
    assert "--secure-port=443" in command
    assert "--authorization-mode=Node,RBAC" in command


def test_s3_metadata_goes_beside_objects_where_attributes_do_not_work() -> None:
    plain = config.versitygw(config.S3Folders(Path("/o"), None), address="127.0.0.1", port=1, region="r")
    beside = config.versitygw(config.S3Folders(Path("/o"), Path("/m")), address="127.0.0.1", port=1, region="r")
    assert plain[-2:] == ["posix", "/o"]
    assert beside[-4:] == ["posix", "--sidecar", "/m", "/o"]


def test_private_files_are_private_even_when_they_replace_a_public_one(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "key"
    path.parent.mkdir()
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, "new")
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in path.parent.iterdir()] == ["key"]


def test_tail_is_bounded(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("x" * 100_000 + "\n" + "\n".join(map(str, range(100))) + "\n")
    assert tail(log, lines=3) == "97\n98\n99"
    log.write_text("y" * 100_000)
    assert len(tail(log)) == 4000
    assert tail(tmp_path / "none") == "(no log)"
