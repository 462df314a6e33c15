"""What a person asked `isotrack record` for: options and environment turned into an Intent. Pure but for the random id."""

from __future__ import annotations

import argparse
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from isotrack_api.base import DEFAULT_FILE_NAME_TEMPLATE, DEFAULT_OUTPUT_TYPES, Container, OutputType
from isotrack_api.intent import Intent, IntentLimits, LiveKitSource, OutputLayer, RecordingRef, S3Destination
from isotrack_api.templates import template_error
from isotrack_recorder.errors import ConfigError
from isotrack_recorder.ship.address import bucket_of

_DURATION: Final = re.compile(r"(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s?)?")
_OPTION_OF_FIELD: Final = {
    "call_id": "--call",
    "empty_timeout_seconds": "--empty-timeout",
    "max_duration_seconds": "--max-duration",
    "url": "--url",
    "user_ids": "--user-ids",
}
MAX_TEXT: Final = 100
"""Characters of a value that an error quotes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordOptions:
    """A checked request."""

    intent: Intent
    output: Path | None
    """Local folder; None when the files go to object storage (`intent.storage`)."""
    api_key: str
    api_secret: str = field(repr=False)
    as_json: bool


def read_options(arguments: argparse.Namespace, environ: Mapping[str, str], uid: uuid.UUID) -> RecordOptions:
    """Check everything that can be checked without looking outside.

    Raises:
        ConfigError: names the option, the value at fault and what is allowed.
    """

    def text(option: str, variable: str) -> str:
        given = getattr(arguments, option)
        return (given if given is not None else environ.get(variable, "")).strip()

    def needed(option: str, variable: str) -> str:
        value = text(option, variable)
        if not value:
            raise ConfigError(f"--{option} is missing: give it or set {variable}")
        return value

    if (source := text("source", "ISOTRACK_SOURCE")) not in ("", "livekit"):
        raise ConfigError(f"--source {source[:MAX_TEXT]!r} is unknown: use livekit")
    url, call = _url(needed("url", "LIVEKIT_URL")), needed("call", "ISOTRACK_CALL")
    key, secret = environ.get("LIVEKIT_API_KEY", ""), environ.get("LIVEKIT_API_SECRET", "")
    if not key or not secret:
        raise ConfigError("LIVEKIT_API_KEY and LIVEKIT_API_SECRET are not set: they let the recorder into the call")
    output = needed("output", "ISOTRACK_OUTPUT")
    output_types = _names("output-types", arguments.output_types, environ.get("ISOTRACK_OUTPUT_TYPES"))
    user_ids = _names("user-ids", arguments.user_ids, environ.get("ISOTRACK_USER_IDS"))
    limits = {
        "max_duration_seconds": _seconds("max-duration", text("max_duration", "ISOTRACK_MAX_DURATION")),
        "empty_timeout_seconds": _seconds("empty-timeout", text("empty_timeout", "ISOTRACK_EMPTY_TIMEOUT")),
    }
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", call).strip("-")[:40] or "call"
    try:
        intent = Intent(
            recording=RecordingRef(namespace="local", name=name, uid=str(uid)),
            call_id=call,
            source=LiveKitSource(url=url, identity=f"isotrack-{uid.hex[:16]}"),
            layers=(
                OutputLayer(
                    output_types=_output_types(output_types),
                    container=_container(text("container", "ISOTRACK_CONTAINER")),
                    file_name_template=_template(text("file_name_template", "ISOTRACK_FILE_NAME_TEMPLATE")),
                ),
            ),
            user_ids=user_ids,
            limits=IntentLimits(**{key: value for key, value in limits.items() if value is not None}),
            storage=_storage(output, environ),
            folder=f"{name}-{uid.hex[:8]}",
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field_name = str(first["loc"][-1] if first["loc"] else "")
        raise ConfigError(f"{_OPTION_OF_FIELD.get(field_name, field_name)}: {first['msg'].lower()}") from None
    folder = None if intent.storage is not None else Path(output).expanduser()
    return RecordOptions(intent=intent, output=folder, api_key=key, api_secret=secret, as_json=arguments.json)


def _url(url: str) -> str:
    if not re.match(r"(?:ws|wss|http|https)://[^/\s]", url):
        raise ConfigError(
            f"--url {url[:MAX_TEXT]!r} is no address of an SFU: it begins with ws://, wss://, http:// or https://"
        )
    return url


def _seconds(option: str, text: str) -> int | None:
    """Read 90, 90s, 45m, 1h30m; None where nothing was given."""
    if not text:
        return None
    match = _DURATION.fullmatch(text)
    if match is None or not any(match.groups()):
        raise ConfigError(f"--{option} {text[:MAX_TEXT]!r} is no time: use 90, 90s, 45m or 1h30m")
    hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + seconds


def _names(option: str, given: str | None, variable: str | None) -> tuple[str, ...] | None:
    """The names of a list; None where it was not given, as with a variable that is set to nothing.

    NB: a list that names nothing is refused: `--user-ids "$PEOPLE"`, with PEOPLE empty, is no wish to record everybody.
    """
    text = given if given is not None else variable or None
    if text is None:
        return None
    names = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if not names:
        raise ConfigError(f"--{option} {text[:MAX_TEXT]!r} names nothing: leave it out for the default")
    return names


def _output_types(names: tuple[str, ...] | None) -> tuple[OutputType, ...]:
    if names is None:
        return DEFAULT_OUTPUT_TYPES
    for name in names:
        if name not in tuple(OutputType):
            raise ConfigError(f"--output-types {name[:MAX_TEXT]!r} is unknown: use {', '.join(OutputType)}")
    return tuple(OutputType(name) for name in names)


def _container(text: str) -> Container:
    if text and text not in tuple(Container):
        raise ConfigError(f"--container {text[:MAX_TEXT]!r} is unknown: use {' or '.join(Container)}")
    return Container(text) if text else Container.MKV


def _template(text: str) -> str:
    template = text or DEFAULT_FILE_NAME_TEMPLATE
    if (problem := template_error(template)) is not None:
        raise ConfigError(problem.replace("fileNameTemplate", "--file-name-template", 1))
    return template


def _storage(output: str, environ: Mapping[str, str]) -> S3Destination | None:
    """Where an s3:// output lies; None for a local folder."""
    if "://" not in output:
        return None
    match = re.fullmatch(r"s3://([^/\s]+)(?:/(.*))?", output)
    if match is None:
        raise ConfigError(f"--output {output[:MAX_TEXT]!r} is neither a folder nor s3://BUCKET/PREFIX")
    return bucket_of(match[1], (match[2] or "").strip("/"), environ, option=f"--output {output[:MAX_TEXT]!r}")
