"""`attempts/recovered.json`: which files were made of checkpoints, and of which checkpoints."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from isotrack_api.base import ApiModel
from isotrack_api.manifest import ManifestFile, StopReason

RunName = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,4}/[0-9a-f]{16}$")]


class Recovered(ApiModel):
    """What `recover` made. Written before `recording.json`, replaced only by one that knows at least as much."""

    version: Literal[1] = 1
    stop_reason: StopReason | None = None
    """Why the recording is over, where its last attempt could not know."""
    message: Annotated[str, Field(max_length=512)] = ""
    checkpoints: dict[RunName, Annotated[int, Field(ge=0, le=99_999_999)]] = Field(
        default_factory=dict, max_length=10_000
    )
    """`<attempt>/<run>` → number of the last checkpoint that was taken into account."""
    untold: dict[RunName, Annotated[int, Field(ge=0, le=99_999_999)]] = Field(default_factory=dict, max_length=10_000)
    """The same of runs of which nothing in the bucket tells what tracks they hold: no further try makes files of them."""
    files: Annotated[tuple[ManifestFile, ...], Field(max_length=100_000)] = ()
    missing: Annotated[str, Field(max_length=256)] = ""
    """Why some files could not be made; empty when all were."""

    @property
    def attempts(self) -> frozenset[int]:
        """Attempts whose checkpoints were taken into account."""
        return frozenset(int(name.partition("/")[0]) for name in self.checkpoints)
