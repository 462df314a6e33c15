"""What all models share: camelCase on the wire, frozen, closed, descriptions from attribute docstrings."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from .words import (
    DEFAULT_CHECKPOINT_SECONDS,
    DEFAULT_FILE_NAME_PREFIX,
    DEFAULT_FILE_NAME_TEMPLATE,
    DEFAULT_KEY_FRAME_INTERVAL_SECONDS,
    DEFAULT_OUTPUT_TYPES,
    Container,
    EncryptionMode,
    MediaKind,
    OutputType,
    Quality,
    SpoolLevel,
    StreamKind,
    TrackSource,
)

__all__ = [  # the words are passed on
    "DEFAULT_CHECKPOINT_SECONDS",
    "DEFAULT_FILE_NAME_PREFIX",
    "DEFAULT_FILE_NAME_TEMPLATE",
    "DEFAULT_KEY_FRAME_INTERVAL_SECONDS",
    "DEFAULT_OUTPUT_TYPES",
    "ApiModel",
    "Container",
    "Count",
    "EncryptionMode",
    "MediaKind",
    "Milliseconds",
    "OutputType",
    "PeerId",
    "Quality",
    "SpoolLevel",
    "StreamKind",
    "Timestamp",
    "TrackSource",
    "UserId",
]


class ApiModel(BaseModel):
    """Base of every model: unknown fields are errors, instances are values."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )

    @classmethod
    def from_json(cls, data: str | bytes) -> Self:
        """Read what another version may have written: fields that this one does not know are skipped. What this one could not make sense
        of without them has another `version`.

        Raises:
            pydantic.ValidationError: it is none.
        """
        return cls.model_validate_json(data, extra="ignore")

    def to_json(self, *, indent: int | None = None) -> str:
        """Serialise for the wire: camelCase, absent fields left out, equal input gives equal text."""
        return self.model_dump_json(by_alias=True, exclude_none=True, indent=indent)


UserId = Annotated[str, Field(min_length=1, max_length=256)]
"""Identity of a person at the SFU. The same person may come several times: see PeerId."""
PeerId = Annotated[str, Field(min_length=1, max_length=128)]
"""One participant session at the SFU; a reconnect of the person gets a new one."""
Count = Annotated[int, Field(ge=0, le=2**53)]
Milliseconds = Annotated[int, Field(ge=0, le=2**53)]
Timestamp = Annotated[
    str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?Z$", max_length=40)
]
"""RFC 3339, always UTC with Z."""
