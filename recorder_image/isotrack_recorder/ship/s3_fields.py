"""Fields of S3's requests and answers, as the client library names them: bodies, checksums, encryption, what an object is.

Values in, fields out, and the other way; only bodies are read. Which of them a request carries is `s3`'s decision.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import datetime
from typing import Any, Final

from isotrack_api.base import EncryptionMode
from isotrack_api.intent import S3Destination
from isotrack_recorder.checksums import Sums, sums_of
from isotrack_recorder.errors import IsotrackError

from .store import Streamed

_CHUNK: Final = 128 * 1024
"""What the client library reads of a body at a time, too."""


def encryption_fields(destination: S3Destination) -> dict[str, Any]:
    """Headers of every object and upload that is begun."""
    wanted = destination.server_side_encryption
    if wanted is None:
        return {}
    key = {"SSEKMSKeyId": wanted.kms_key_id} if wanted.kms_key_id and wanted.mode is EncryptionMode.KMS else {}
    return {"ServerSideEncryption": wanted.mode.value, **key}


def read_body(answer: Mapping[str, Any], limit: int) -> bytes:
    """At most `limit` bytes of a body.

    Raises:
        ConnectionError: it ended early. The library says so of a body that is read as a whole only.
    """
    with closing(answer["Body"]) as body:  # NB: its own context is the raw stream, whose errors are not botocore's
        data: bytes = body.read(limit)
    if len(data) < min(limit, answer["ContentLength"]):
        raise ConnectionError("a body ended early")
    return data


def etag_of(answer: Mapping[str, Any]) -> str:
    """ETag of an object or part, without quotes; empty where there is none."""
    return str(answer.get("ETag", "")).strip('"')


def version_of(answer: Mapping[str, Any]) -> str:
    """Version of an object; "null" is that of a bucket which keeps none."""
    version = str(answer.get("VersionId") or "")
    return "" if version == "null" else version


def sums_of_body(body: bytes | Streamed, *, crc32: bool, md5: bool) -> Sums:
    """Sums of a body as it is now.

    Raises:
        IsotrackError: it cannot be read. To send it again is no remedy.
    """
    try:
        with opened(body) as data:
            return sums_of(_chunks(data), crc32=crc32, md5=md5)
    except OSError as error:
        raise IsotrackError(f"what is to be sent cannot be read from the disk: {error.strerror or error}") from error


def _chunks(data: Any) -> Iterator[bytes | memoryview]:
    if isinstance(data, bytes):
        view = memoryview(data)
        yield from (view[at : at + _CHUNK] for at in range(0, len(view), _CHUNK))
    else:
        while chunk := data.read(_CHUNK):
            yield chunk


def md5_field(md5: bytes) -> dict[str, Any]:
    """Content-MD5 of a body."""
    return {"ContentMD5": _base64(md5)}


def crc32_field(crc32: int) -> dict[str, Any]:
    """CRC-32 of a body, or of one part in the list of an upload."""
    return {"ChecksumCRC32": _base64(crc32.to_bytes(4, "big"))}


@contextlib.contextmanager
def opened(body: bytes | Streamed) -> Iterator[Any]:
    """What the client library sends."""
    if isinstance(body, Streamed):
        with body.open() as reader:
            yield reader
    else:
        yield body


def size_of(body: bytes | Streamed) -> int:
    """Bytes of a body."""
    return body.size if isinstance(body, Streamed) else len(body)


def unix_seconds(moment: datetime | None) -> float:
    """A moment of a listing; 0 where the storage told none."""
    return moment.timestamp() if moment is not None else 0.0


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
