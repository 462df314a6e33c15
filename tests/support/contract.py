"""What pydantic says to a manifest, in the words of the contract tests: paths like the API server's, and messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from isotrack_api.markers import broken_transitions
from isotrack_api.recording import Recording
from isotrack_api.recording_class import RecordingClass
from isotrack_api.recording_report import RecordingReport
from isotrack_api.resource import KubernetesObject

MODELS: Mapping[str, type[KubernetesObject]] = {
    model.__name__: model for model in (Recording, RecordingClass, RecordingReport)
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """One fault."""

    path: str
    message: str


def refusals(manifest: Mapping[str, Any]) -> tuple[Refusal, ...]:
    """All faults that pydantic finds in a manifest; empty when it accepts it."""
    return _validate(MODELS[manifest["kind"]], manifest)[1]


def change_refusals(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[Refusal, ...]:
    """All faults of a change, transition rules included."""
    before, _ = _validate(MODELS[old["kind"]], old)
    after, faults = _validate(MODELS[new["kind"]], new)
    if before is None or after is None:
        return faults
    return tuple(Refusal("", message) for message in broken_transitions(before, after))


def _validate(model: type[BaseModel], value: Mapping[str, Any]) -> tuple[BaseModel | None, tuple[Refusal, ...]]:
    try:
        return model.model_validate(value), ()
    except ValidationError as error:
        return None, tuple(Refusal(_path(fault["loc"]), fault["msg"]) for fault in error.errors())


def _path(location: tuple[int | str, ...]) -> str:
    """`("spec", "storages", 0, "name")` → `spec.storages.0.name`."""
    return ".".join(str(step) for step in location)
