"""What a person calls a bucket, `s3://BUCKET/…`, as the place that requests go to. Pure.

Endpoint and region come from the variables of the AWS tools; keys do not pass through here (see `credentials`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from pydantic import ValidationError

from isotrack_api.intent import S3Destination
from isotrack_recorder.errors import ConfigError

_FILE: Final = r"(?:recording|intent)\.json"
"""Naming one of these in a recording's folder names the folder."""
_FOLDER: Final = re.compile(rf"s3://([^/\s]+)/(?!{_FILE}$)(.+?)(?:/{_FILE}|/)?")
MAX_TEXT: Final = 200
"""Characters of a place that an error quotes."""


def bucket_of(name: str, prefix: str, environ: Mapping[str, str], *, option: str) -> S3Destination:
    """A bucket, reached with the settings that the AWS tools use.

    Raises:
        ConfigError: name or prefix are not legal; the text begins with `option`.
    """
    endpoint = environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL") or None
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    try:
        return S3Destination(
            bucket=name, prefix=prefix, region=region, endpoint=endpoint, force_path_style=endpoint is not None
        )
    except ValidationError:
        raise ConfigError(f"{option} names no legal bucket and prefix") from None


def folder_of(place: str, environ: Mapping[str, str]) -> tuple[S3Destination, str]:
    """Bucket and key prefix, without a slash at its end, of a recording's folder or of a file that lies in it.

    Raises:
        ConfigError: `place` is no such address.
    """
    match = _FOLDER.fullmatch(place)
    if match is None:
        raise ConfigError(f"{place[:MAX_TEXT]!r} is not s3://BUCKET/FOLDER")
    return bucket_of(match[1], "", environ, option=f"{place[:MAX_TEXT]!r}"), match[2]
