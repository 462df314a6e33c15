"""Container images: keys, locks for one Python, and archives written by hand."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile

import pytest

from isotrack_dev import deploy, oci
from isotrack_dev.images import KINDS, input_key, lock_for
from isotrack_dev.paths import REPOSITORY

LOCK = """\
av==18.1.0 ; python_full_version < '3.12' \\
    --hash=sha256:aa \\
    --hash=sha256:bb
av==19.0.2 ; python_full_version >= '3.12' \\
    --hash=sha256:cc
# a comment
six==1.17.0 \\
    --hash=sha256:dd
colorama==0.4 ; sys_platform == 'win32' \\
    --hash=sha256:ee
"""


@pytest.mark.parametrize(
    ("python", "av"), [("3.11", "18.1.0 --hash=sha256:aa --hash=sha256:bb"), ("3.13", "19.0.2 --hash=sha256:cc")]
)
def test_lock_keeps_what_holds_for_the_image_whatever_runs_here(python: str, av: str) -> None:
    assert lock_for(LOCK, python) == f"av=={av}\nsix==1.17.0 --hash=sha256:dd\n"


@pytest.mark.parametrize("name", [*KINDS, "build"])
def test_every_locked_line_of_the_project_has_hashes(name: str) -> None:
    lines = lock_for((REPOSITORY / "requirements" / f"{name}.lock").read_text()).splitlines()
    assert lines
    assert all("==" in line and " --hash=sha256:" in line for line in lines)


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)
def test_containerfile_runs_unprivileged_and_demands_hashes(kind: object) -> None:
    text = (REPOSITORY / getattr(kind, "containerfile")).read_text()  # noqa: B009 - parametrised value
    assert "USER 10001:10001" in text
    assert text.count("--require-hashes") == 2
    assert "DONTWRITEBYTECODE" not in text


def test_key_depends_on_names_and_contents_but_not_on_their_order() -> None:
    assert input_key({"a": b"1", "b": b"2"}) == input_key({"b": b"2", "a": b"1"})
    assert len({input_key({"a": b"1", "b": b"2"}), input_key({"a": b"12", "b": b""}), input_key({"ab": b"12"})}) == 3


def read(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {entry.name: file.read() for entry in tar if (file := tar.extractfile(entry))}


def test_archive_is_consistent_down_to_the_program() -> None:
    files = read(oci.archive("localhost/pause:1", {"pause": b"program"}, ["/pause"], machine="x86_64"))
    for path, content in files.items():
        if path.startswith("blobs/"):
            assert path == f"blobs/sha256/{hashlib.sha256(content).hexdigest()}"

    def blob(descriptor: dict[str, str]) -> bytes:
        return files[f"blobs/{descriptor['digest'].replace(':', '/')}"]

    (top,) = json.loads(files["index.json"])["manifests"]
    manifest = json.loads(blob(top))
    config = json.loads(blob(manifest["config"]))
    assert top["annotations"]["io.containerd.image.name"] == "localhost/pause:1"
    assert (config["architecture"], config["config"]["Entrypoint"]) == ("amd64", ["/pause"])
    assert config["rootfs"]["diff_ids"] == [manifest["layers"][0]["digest"]]
    assert read(blob(manifest["layers"][0])) == {"pause": b"program"}


def test_equal_input_gives_an_equal_archive() -> None:
    assert oci.archive("n", {"p": b"x"}, ["/p"]) == oci.archive("n", {"p": b"x"}, ["/p"])


def test_chart_gets_both_images_by_repository_and_tag() -> None:
    assert deploy.values("localhost/isotrack-operator:ab", "host:5000/isotrack-recorder:cd") == {
        "image": {
            "operator": {"repository": "localhost/isotrack-operator", "tag": "ab", "pullPolicy": "IfNotPresent"},
            "recorder": {"repository": "host:5000/isotrack-recorder", "tag": "cd"},
        },
        "sweep": {"watchSeconds": 30},
    }
