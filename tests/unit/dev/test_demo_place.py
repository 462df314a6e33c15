"""A cluster that was given to the demo: what it needs to be told, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from isotrack_dev import demo_place
from isotrack_dev.demo import admin_objects
from isotrack_dev.demo_place import GIVEN, Place, given_cluster
from isotrack_dev.deploy import image_values
from isotrack_dev.errors import DevError, UsageError
from isotrack_dev.progress import Silent

TOLD: Mapping[str, str] = {name: f"the-{name}" for name in GIVEN}

KUBECTL = """#!/bin/sh
case "$*" in
  *" get WHAT "*) printf '%s' 'FOUND' ;;
  *recordingclass*) echo "error: the server doesn't have a resource type \\"recordingclass\\"" >&2; exit 1 ;;
esac
"""


@pytest.fixture
def deployed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What would have been installed."""
    images: list[str] = []
    monkeypatch.setattr(demo_place, "deploy_operator", lambda _kubectl, *names: images.extend(names[:2]))
    return images


def a_kubectl(folder: Path, monkeypatch: pytest.MonkeyPatch, what: str = "nothing", found: str = "") -> None:
    """Put a kubectl on the path, of a cluster without our kinds, that knows one object."""
    program = folder / "kubectl"
    program.write_text(KUBECTL.replace("WHAT", what).replace("FOUND", found))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def open_place(folder: Path, environment: Mapping[str, str]) -> Place:
    with given_cluster(folder / "kubeconfig", environment, Silent()) as place:
        return place


@pytest.mark.parametrize("name", GIVEN)
def test_what_is_missing_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=name):
        open_place(tmp_path, {**TOLD, name: ""})


def test_a_cluster_that_never_saw_isotrack_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deployed: list[str]
) -> None:
    a_kubectl(tmp_path, monkeypatch)
    place = open_place(tmp_path, TOLD)
    assert deployed == [TOLD["ISOTRACK_OPERATOR_IMAGE"], TOLD["ISOTRACK_RECORDER_IMAGE"]]
    assert place.stack is None


@pytest.mark.parametrize(("given", "region"), [({}, "us-east-1"), ({"AWS_REGION": "eu-central-1"}, "eu-central-1")])
def test_the_bucket_lies_in_the_region_that_is_given(
    given: Mapping[str, str], region: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deployed: list[str]
) -> None:
    a_kubectl(tmp_path, monkeypatch)
    made = admin_objects(open_place(tmp_path, {**TOLD, **given}))
    (recording_class,) = [one for one in made if one["kind"] == "RecordingClass"]
    assert recording_class["spec"]["storages"][0]["s3"]["region"] == region


@pytest.mark.parametrize(
    ("what", "found", "said"),
    [
        pytest.param("deployment/isotrack-operator", "isotrack", "is a Helm release", id="helm"),
        pytest.param("namespace/team-a", "team-a/", "namespace team-a exists", id="namespace"),
        pytest.param("secret/livekit", "livekit/", "secret livekit exists", id="secret"),
    ],
)
def test_what_is_somebody_elses_stops_it_before_anything_is_changed(
    what: str, found: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deployed: list[str]
) -> None:
    a_kubectl(tmp_path, monkeypatch, what, found)
    with pytest.raises(UsageError, match=said):
        open_place(tmp_path, TOLD)
    assert deployed == []


def test_what_an_earlier_demo_left_is_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deployed: list[str]
) -> None:
    a_kubectl(tmp_path, monkeypatch, "namespace/team-a", "team-a/true")
    open_place(tmp_path, TOLD)
    assert deployed


def test_a_cluster_that_does_not_answer_is_no_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_kubectl(tmp_path, monkeypatch)
    (tmp_path / "kubectl").write_text("#!/bin/sh\necho 'connection refused' >&2\nexit 1\n")
    with pytest.raises(DevError, match="connection refused"):
        open_place(tmp_path, TOLD)


@pytest.mark.parametrize(
    ("reference", "repository", "tag", "digest"),
    [
        ("localhost/isotrack-recorder:12ab", "localhost/isotrack-recorder", "12ab", ""),
        ("images.example.com:5000/team/recorder:0.1.0", "images.example.com:5000/team/recorder", "0.1.0", ""),
        ("recorder:1@sha256:" + "0" * 64, "recorder", "1", "sha256:" + "0" * 64),
        ("images.example.com:5000/recorder@sha256:" + "0" * 64, "images.example.com:5000/recorder", "", "sha256:" + "0" * 64),
    ],
)  # fmt: skip
def test_images_are_put_into_the_charts_words(reference: str, repository: str, tag: str, digest: str) -> None:
    found = image_values(reference)
    assert (found["repository"], found["tag"], found.get("digest", "")) == (repository, tag, digest)


@pytest.mark.parametrize("reference", ["images.example.com:5000/team/recorder", "recorder", "team/", ""])
def test_an_image_without_a_tag_is_refused(reference: str) -> None:
    with pytest.raises(UsageError, match="has no tag"):
        image_values(reference)
