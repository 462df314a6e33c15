"""What Kubernetes objects of this group share: envelope, metadata, references, field types.

Ints and bools are strict here, because the API server does not take "5" for 5 either.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field

from .markers import NO_NULLS, WHOLE, IntOrString, ObjectModel, RuledModel, size_rule

GROUP = "isotrack.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

MAX_INTEGER = 2**53
DNS_LABEL = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
DNS_SUBDOMAIN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
QUANTITY = r"^[0-9]{1,18}(\.[0-9]{1,9})?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"

DnsLabel = Annotated[str, Field(min_length=1, max_length=63, pattern=DNS_LABEL)]
ObjectName = Annotated[str, Field(min_length=1, max_length=253, pattern=DNS_SUBDOMAIN)]
"""RFC 1123 subdomain, as Kubernetes names objects."""
SecretName = ObjectName
Integer = Annotated[int, Field(strict=True, ge=0, le=MAX_INTEGER), WHOLE]
"""Whole number that JSON carries exactly."""
Boolean = Annotated[bool, Field(strict=True)]
Quantity = Annotated[
    Annotated[int, Field(strict=True, ge=0, le=MAX_INTEGER), WHOLE]
    | Annotated[str, Field(max_length=32, pattern=QUANTITY)],
    IntOrString(MAX_INTEGER, QUANTITY, 32),
]
"""Kubernetes quantity: 500m, 2Gi, 1."""
CallId = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$")]
"""Id of a call, as the SFU knows it. Any character but control characters."""

LabelValues = Annotated[
    dict[str, Annotated[str, Field(max_length=63)]],
    Field(max_length=32),
    size_rule(317, "keys of labels have at most 317 characters (253 for the prefix, 63 for the name)"),
    NO_NULLS,
]
Annotations = Annotated[
    dict[str, Annotated[str, Field(max_length=4096)]],
    Field(max_length=32),
    size_rule(317, "keys of annotations have at most 317 characters (253 for the prefix, 63 for the name)"),
    NO_NULLS,
]


class OwnerReference(ObjectModel):
    """Which object this one belongs to."""

    model_config = ConfigDict(extra="ignore")

    api_version: Annotated[str, Field(max_length=317)]
    kind: Annotated[str, Field(max_length=63)]
    name: ObjectName
    uid: Annotated[str, Field(max_length=64)]
    controller: bool | None = None
    block_owner_deletion: bool | None = None


class ObjectMeta(ObjectModel):
    """The part of an object's metadata that we read or write. The API server owns its schema, so the rest is skipped."""

    model_config = ConfigDict(extra="ignore")

    name: ObjectName
    namespace: DnsLabel | None = None
    uid: Annotated[str, Field(max_length=64)] | None = None
    generation: int | None = None
    resource_version: Annotated[str, Field(max_length=64)] | None = None
    creation_timestamp: Annotated[str, Field(max_length=40)] | None = None
    deletion_timestamp: Annotated[str, Field(max_length=40)] | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    finalizers: tuple[str, ...] | None = None
    owner_references: tuple[OwnerReference, ...] | None = None


class KubernetesObject(RuledModel):
    """Base of our kinds."""

    api_version: Literal["isotrack.dev/v1alpha1"] = "isotrack.dev/v1alpha1"
    kind: str
    metadata: ObjectMeta

    @classmethod
    def from_object(cls, value: Mapping[str, Any]) -> Self:
        """Read an object as the API server returned it: fields of a newer version of the contract are skipped.

        Raises:
            pydantic.ValidationError: a known field has a value that this version does not know.
        """
        return cls.model_validate(value, extra="ignore")

    def to_object(self) -> dict[str, Any]:
        """The object as plain JSON values, absent fields left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)
