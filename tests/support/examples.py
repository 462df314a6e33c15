"""The published examples, as documents."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def example_documents() -> Iterator[tuple[str, dict[str, Any]]]:
    """(file name, document) of every Kubernetes object in examples/."""
    for file in sorted(EXAMPLES.glob("*.yaml")):
        for document in yaml.safe_load_all(file.read_text()):
            if document["kind"] != "Kustomization":
                yield file.name, document


def our_examples() -> list[Any]:
    """The documents of our own kinds, with a test id each."""
    return [
        (name, document) for name, document in example_documents() if document["apiVersion"].startswith("isotrack.dev/")
    ]
