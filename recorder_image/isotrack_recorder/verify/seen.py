"""What was found in a file: written by the decoding process, read by its parent, which trusts it no more than the file.

Times are milliseconds from the file's zero.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from isotrack_api.base import ApiModel, Count, MediaKind

MAX_HOLES = 10_000
MAX_ERRORS = 100
Time = Annotated[float, Field(ge=-1e12, le=1e12, allow_inf_nan=False)]

MAX_TAG = 2048
Tags = Annotated[dict[str, Annotated[str, Field(max_length=MAX_TAG)]], Field(max_length=16)]


class SeenError(ApiModel):
    """A packet that a decoder complained about."""

    at_ms: Time
    text: Annotated[str, Field(max_length=200)]


class Hole(ApiModel):
    """Pictures: a stretch of two seconds and more without one. Sound: a place that no packet covers."""

    start_ms: Time
    end_ms: Time


class SeenStream(ApiModel):
    """One track of a file."""

    kind: MediaKind
    codec: Annotated[str, Field(max_length=32)]
    """By our names: opus, vp8, h265."""
    packets: Count = 0
    bytes: Count = 0
    first_ms: Time = 0.0
    last_ms: Time = 0.0
    first_key: bool = False
    decoded: Count = 0
    """Pictures, or blocks of sound."""
    decoded_ms: Time = 0.0
    """Length of the decoded sound."""
    silence_ms: Time = 0.0
    """Sound: packets that look like those that fill gaps."""
    silences: Count = 0
    """Stretches of at least 100 ms of them."""
    first_sound_ms: Time | None = None
    """First packet that does not."""
    holes: Annotated[tuple[Hole, ...], Field(max_length=MAX_HOLES)] = ()
    silent: Annotated[tuple[Hole, ...], Field(max_length=MAX_HOLES)] = ()
    """Sound: the first stretches of such packets."""
    error_count: Count = 0
    errors: Annotated[tuple[SeenError, ...], Field(max_length=MAX_ERRORS)] = ()
    """The first ones."""
    tags: Tags = Field(default_factory=dict)
    """What the file says of the track, by name."""


class Seen(ApiModel):
    """One file."""

    problem: Annotated[str, Field(max_length=300)] = ""
    """Why it could not be read to its end; empty where it could."""
    start_ms: Time = 0.0
    duration_ms: Time = 0.0
    """As the container says."""
    tags: Tags = Field(default_factory=dict)
    """What the file says of itself, by name."""
    streams: Annotated[tuple[SeenStream, ...], Field(max_length=16)] = ()
