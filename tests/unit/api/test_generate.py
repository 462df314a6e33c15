"""Generated files follow the models, and drift is found in both directions."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

from isotrack_api.generate import differences, main, render, write
from isotrack_api.manifest import Manifest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A checkout with fresh generated files."""
    (tmp_path / "crds/isotrack_api").mkdir(parents=True)
    write(tmp_path, render())
    return tmp_path


def test_checkout_holds_what_the_models_say() -> None:
    assert list(differences(ROOT, render())) == []


def test_writing_twice_changes_nothing(tree: Path) -> None:
    assert write(tree, render()) == []


def test_edit_by_hand_is_drift(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    crd = tree / "crds/recordings.isotrack.dev.yaml"
    crd.write_text(crd.read_text().replace("maxItems: 100", "maxItems: 1000"))
    assert main(["--check", "--root", str(tree)]) == 1
    assert "-                    maxItems: 1000" in capsys.readouterr().out
    assert main(["--root", str(tree)]) == 0
    assert main(["--check", "--root", str(tree)]) == 0


@pytest.mark.parametrize("path", ["crds/old.yaml", "charts/isotrack/templates/crds/old.yaml", "docs/reference/old.md"])
def test_leftover_is_drift(tree: Path, path: str) -> None:
    (tree / path).write_text("")
    assert main(["--check", "--root", str(tree)]) == 1
    assert write(tree, render()) == [path]
    assert not (tree / path).exists()


def test_missing_file_is_drift(tree: Path) -> None:
    (tree / "docs/reference/conditions.md").unlink()
    assert main(["--check", "--root", str(tree)]) == 1


def test_other_folder_is_refused(tmp_path: Path) -> None:
    assert main(["--root", str(tmp_path)]) == 2


def test_yaml_means_the_same_to_every_reader() -> None:
    """Kubernetes' YAML reader takes a bare `n` for false; an attempt's number is called that."""
    text = render()["crds/recordings.isotrack.dev.yaml"]
    assert "'n':" in text
    assert "\n                    n:" not in text
    assert yaml.safe_load(text)["kind"] == "CustomResourceDefinition"


def test_every_reason_is_explained() -> None:
    rows = [line for line in render()["docs/reference/conditions.md"].splitlines() if line.startswith("| `")]
    assert len(rows) > 40
    assert all(len(row.split("|")[2].strip()) > 10 for row in rows), rows


def test_schema_of_the_manifest_takes_what_the_model_writes() -> None:
    manifest = Manifest.model_validate(
        {
            "generator": "isotrack/0.1.0",
            "recording": {"namespace": "team-a", "name": "standup", "uid": "0f1e2d3c"},
            "callId": "standup",
            "startedAt": "2026-11-21T06:30:00Z",
            "durationMs": 10,
            "complete": True,
            "stopReason": "CallEnded",
            "attempts": [
                {
                    "n": 1,
                    "startedAt": "2026-11-21T06:30:00Z",
                    "endedAt": "2026-11-21T06:31:00Z",
                    "stopReason": "CallEnded",
                }
            ],
        }
    )
    schema = json.loads(render()["docs/reference/recording.schema.json"])
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads(manifest.to_json()), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**json.loads(manifest.to_json()), "durationMs": -1}, schema)


def test_every_member_of_the_published_manifest_says_what_it_means() -> None:
    schema = json.loads(render()["docs/reference/recording.schema.json"])
    for name, part in {"recording.json": schema, **schema["$defs"]}.items():
        assert part["description"], name
        for member, rule in part.get("properties", {}).items():
            assert rule.get("description"), f"{name}: {member}"


def test_models_import_without_the_generator() -> None:
    """Operator and recorder start without YAML and without the walker."""
    code = (
        "import sys, isotrack_api.recording, isotrack_api.recording_class, isotrack_api.recording_report, isotrack_api.manifest\n"
        "print([name for name in ('yaml', 'isotrack_api.schema', 'isotrack_api.generate') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.strip() == "[]"
