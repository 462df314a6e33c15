"""What a machine lacks, and what the reader is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from isotrack_dev import requirements
from isotrack_dev.demo_place import own_stack
from isotrack_dev.errors import RequirementError
from isotrack_dev.progress import Silent
from isotrack_dev.requirements import GROUPS, Need, advice, missing


def present(*names: str) -> dict[str, Path]:
    return {name: Path("/bin") / name for name in names}


def test_nothing_is_missing_where_everything_is_found() -> None:
    assert missing(GROUPS, look=lambda program: Path("/bin") / program) == []


def test_groups_ask_for_their_own_programs_only() -> None:
    assert missing(["integration"], look=present("ffmpeg", "mkvmerge").get) == [Need("ffprobe", "ffmpeg")]


def test_a_program_that_two_groups_need_is_named_once() -> None:
    assert len(missing(["cluster", "cluster"], look=present().get)) == len(GROUPS["cluster"])


def test_advice_names_programs_and_the_command_with_each_package_once() -> None:
    text = advice([Need("ffmpeg", "ffmpeg"), Need("ffprobe", "ffmpeg"), Need("runc", "runc")])
    assert "ffmpeg, ffprobe, runc" in text
    assert "apt-get install -y ffmpeg runc (" in text


def test_without_root_nothing_is_installed_and_the_list_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setitem(GROUPS, "integration", (Need("no-such-program", "no-such-package"),))
    with pytest.raises(RequirementError, match="sudo apt-get update && sudo apt-get install -y no-such-package"):
        requirements.ensure(["integration"], Silent(), tmp_path / "apt.log")
    assert not (tmp_path / "apt.log").exists()


def test_who_is_not_root_learns_what_needs_it_and_what_else_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setitem(GROUPS, "cluster", (Need("no-such-program", "no-such-package"),))
    with pytest.raises(RequirementError, match=r"^a cluster needs root .* sudo; .* apt-get install -y no-such-package"):
        requirements.require_root("a cluster", ["cluster"])
    with pytest.raises(RequirementError, match=r"run it with sudo$"):
        requirements.require_root("a cluster")


def test_the_demo_tells_who_is_not_root_of_the_way_without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And not that something could not be taken down."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("ISOTRACK_STATE", str(tmp_path))
    with pytest.raises(RequirementError, match="KUBECONFIG"), own_stack("x", Silent(), keep=False):
        pytest.fail("it began")
    assert list(tmp_path.iterdir()) == []


def test_network_plugins_are_looked_for_in_the_folders_of_distributions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bridge").touch()
    monkeypatch.setattr(requirements, "CNI_FOLDERS", ("/nowhere", str(tmp_path)))
    assert requirements.find("cni:bridge") == tmp_path / "bridge"
    assert requirements.find("cni:other") is None
