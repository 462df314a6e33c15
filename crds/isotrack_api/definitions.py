"""The CustomResourceDefinitions: what surrounds the schemas of the three kinds, and what `kubectl get` shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from .base import ApiModel
from .recording import Recording
from .recording_class import RecordingClass
from .recording_report import RecordingReport
from .resource import GROUP, VERSION, KubernetesObject
from .schema import Schema, SchemaError, structural_schema


@dataclass(frozen=True, slots=True)
class Column:
    """One column of `kubectl get`."""

    name: str
    path: str
    type: Literal["string", "integer", "date"] = "string"
    wide: bool = False
    """Only with -o wide."""
    description: str = ""

    def to_object(self) -> dict[str, Any]:
        """As the CRD has it."""
        out: dict[str, Any] = {"name": self.name, "type": self.type, "jsonPath": self.path}
        if self.description:
            out["description"] = self.description
        if self.wide:
            out["priority"] = 1
        return out


@dataclass(frozen=True, slots=True)
class Definition:
    """One kind."""

    model: type[KubernetesObject]
    plural: str
    scope: Literal["Namespaced", "Cluster"]
    columns: tuple[Column, ...]
    selectable: tuple[str, ...] = ()
    """Paths for `kubectl get --field-selector`."""

    @property
    def kind(self) -> str:
        """Name of the kind."""
        return self.model.__name__

    @property
    def name(self) -> str:
        """Name of the CustomResourceDefinition."""
        return f"{self.plural}.{GROUP}"

    def schema(self) -> Schema:
        """Schema of the whole object; the API server supplies that of metadata."""
        return {
            "description": " ".join((self.model.__doc__ or "").split()),
            "type": "object",
            "required": ["spec"],
            "properties": {
                "apiVersion": {"type": "string"},
                "kind": {"type": "string"},
                "metadata": {"type": "object"},
                "spec": self._part("spec"),
                "status": self._part("status"),
            },
        }

    def _part(self, field: str) -> Schema:
        annotation = self.model.model_fields[field].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, ApiModel)):
            raise SchemaError(f"{self.kind}.{field}", "spec and status are models")
        return structural_schema(annotation)

    def to_object(self) -> dict[str, Any]:
        """The CustomResourceDefinition."""
        version: dict[str, Any] = {
            "name": VERSION,
            "served": True,
            "storage": True,
            "schema": {"openAPIV3Schema": self.schema()},
            "subresources": {"status": {}},
            "additionalPrinterColumns": [column.to_object() for column in self.columns],
        }
        if self.selectable:
            version["selectableFields"] = [{"jsonPath": path} for path in self.selectable]
        return {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": self.name},
            "spec": {
                "group": GROUP,
                "names": {
                    "kind": self.kind,
                    "listKind": f"{self.kind}List",
                    "plural": self.plural,
                    "singular": self.kind.lower(),
                    "categories": ["isotrack"],
                },
                "scope": self.scope,
                "versions": [version],
            },
        }


_AGE = Column("Age", ".metadata.creationTimestamp", "date")
_READY = '.status.conditions[?(@.type=="Ready")]'
_STORAGE_READY = '.status.conditions[?(@.type=="StorageReady")]'

DEFINITIONS = (
    Definition(
        Recording,
        "recordings",
        "Namespaced",
        (
            Column("Class", ".spec.className"),
            Column("Call", ".spec.call.id"),
            Column("Phase", ".status.phase"),
            Column("Files", ".status.totals.files", "integer"),
            Column("Duration", ".status.durationSeconds", "integer", description="Seconds of capture"),
            Column("Reason", f"{_READY}.reason", wide=True, description="Reason of the condition Ready"),
            _AGE,
        ),
        (".spec.call.id", ".spec.className", ".status.phase"),
    ),
    Definition(
        RecordingClass,
        "recordingclasses",
        "Cluster",
        (
            Column("Mode", ".spec.mode"),
            Column("Source", ".spec.source.livekit.url"),
            Column("Ready", f"{_READY}.status"),
            Column("Storage", f"{_STORAGE_READY}.status", description="Whether the operator can use the storages"),
            Column("Reason", f"{_READY}.reason", wide=True, description="Reason of the condition Ready"),
            _AGE,
        ),
    ),
    Definition(
        RecordingReport,
        "recordingreports",
        "Namespaced",
        (
            Column("Attempt", ".spec.attempt", "integer"),
            Column("Phase", ".status.phase"),
            Column("Participants", ".status.participants", "integer"),
            Column("Files", ".status.totals.files", "integer"),
            Column("Updated", ".status.lastUpdate", "date"),
            _AGE,
        ),
    ),
)
