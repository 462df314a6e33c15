"""Every published example is valid, and together they fit each other."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from isotrack_api.recording import Recording, RecordingSpec
from isotrack_api.recording_class import RecordingClass
from support.contract import refusals
from support.examples import EXAMPLES, example_documents, our_examples

TEAM = "team-a"


@pytest.mark.parametrize(
    ("name", "document"), our_examples(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_example_is_valid(name: str, document: dict[str, Any]) -> None:
    assert refusals(document) == ()


def test_class_lets_the_example_team_record_the_example_calls() -> None:
    documents = [document for _, document in our_examples()]
    spec = next(RecordingClass.model_validate(item).spec for item in documents if item["kind"] == "RecordingClass")
    for item in documents:
        if item["kind"] == "Recording":
            recording = Recording.model_validate(item)
            assert spec.allows(TEAM, {"isotrack.dev/may-record": "true"}, recording.spec.call.id)
            assert not spec.allows("team", {"isotrack.dev/may-record": "true"}, recording.spec.call.id)
            assert not spec.allows(TEAM, {}, recording.spec.call.id)
            assert spec.storage_named(recording.spec.storage) is not None


def test_secrets_have_the_names_and_keys_that_the_class_asks_for() -> None:
    secrets = {item["metadata"]["name"]: item for _, item in example_documents() if item["kind"] == "Secret"}
    spec = next(
        RecordingClass.model_validate(item).spec for _, item in our_examples() if item["kind"] == "RecordingClass"
    )
    assert secrets[spec.source.livekit.credentials_secret_name]["stringData"].keys() == {"apiKey", "apiSecret"}
    for storage in spec.storages:
        assert secrets[storage.s3.credentials.secret_name]["stringData"].keys() == {"accessKeyId", "secretAccessKey"}
    assert all(value == "REPLACE-ME" for item in secrets.values() for value in item["stringData"].values())


def test_full_example_shows_every_field_but_the_one_that_git_should_not_hold() -> None:
    shown = yaml.safe_load((EXAMPLES / "recording-full.yaml").read_text())["spec"]
    assert RecordingSpec.model_validate(shown).model_fields_set == set(RecordingSpec.model_fields) - {"desired_state"}


def test_kustomization_names_files_that_exist() -> None:
    resources = yaml.safe_load((EXAMPLES / "kustomization.yaml").read_text())["resources"]
    assert all((EXAMPLES / name).is_file() for name in resources)
