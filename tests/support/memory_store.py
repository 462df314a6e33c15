"""A Store in memory, for tests of what is built on the port; real servers are used wherever the wire matters.

It behaves like S3: parts may be replaced until the upload is completed, ETags are MD5 sums, an unknown upload is an
UploadLostError. `before` is called ahead of each operation with its name and key, and may raise or change things: that is how
a test makes the storage fail at an exact moment.
"""

from __future__ import annotations

import hashlib
import itertools
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from isotrack_recorder.checksums import sums_of
from isotrack_recorder.clocks import Bounds
from isotrack_recorder.ship.retry import Patience
from isotrack_recorder.ship.store import (
    Capabilities,
    Listed,
    ObjectInfo,
    Part,
    Streamed,
    Trouble,
    Unfinished,
    UploadLostError,
    Version,
)
from isotrack_recorder.ship.upload import expected_etag


@dataclass
class _Upload:
    key: str
    parts: dict[int, bytes] = field(default_factory=dict)


class MemoryStore:
    """One bucket in memory."""

    bucket = "memory"
    trouble: Trouble | None = None
    clock_skew_seconds: float | None = 0.0
    clock: Bounds | None = None

    capabilities = Capabilities()

    def __init__(self, before: Callable[[str, str], None] = lambda _operation, _key: None) -> None:
        self.before = before
        self.objects: dict[str, bytes] = {}
        self.etags: dict[str, str] = {}
        self.content_types: dict[str, str] = {}
        self.uploads: dict[str, _Upload] = {}
        self.modified: dict[str, float] = {}
        self.now: Callable[[], float] = time.time
        """The storage's clock."""
        self.puts: list[str] = []
        """Keys that were written, in order."""
        self.patience = Patience()
        self._ids = (f"upload-{number}" for number in itertools.count(1))

    def probe(self, key: str) -> Capabilities:
        self.before("probe", key)
        self.capabilities = Capabilities(
            create_once=True, checks_sha256=True, checks_md5=True, etag_is_md5=True, lists_uploads=True, deletes=True
        )
        return self.capabilities

    def put(self, key: str, body: bytes | Streamed, content_type: str) -> ObjectInfo:
        self.before("put", key)
        data = _read(body)
        self._keep(key, data, content_type, hashlib.md5(data, usedforsecurity=False).hexdigest())
        return ObjectInfo(len(data), self.etags[key])

    def put_once(self, key: str, body: bytes | Streamed, content_type: str) -> bool:
        self.before("put_once", key)
        if key in self.objects:
            return False
        data = _read(body)
        self._keep(key, data, content_type, hashlib.md5(data, usedforsecurity=False).hexdigest())
        return True

    def head(self, key: str) -> ObjectInfo | None:
        self.before("head", key)
        return ObjectInfo(len(self.objects[key]), self.etags[key]) if key in self.objects else None

    def get(self, key: str, limit: int) -> bytes | None:
        self.before("get", key)
        return self.objects.get(key)

    def get_range(self, key: str, start: int, size: int) -> bytes:
        self.before("get_range", key)
        return self.objects.get(key, b"")[start : start + size]

    def list(self, prefix: str) -> Iterator[str]:
        self.before("list", prefix)
        return (found.key for found in self.list_objects(prefix))

    def list_level(self, prefix: str) -> Iterator[str]:
        self.before("list_level", prefix)
        below = (key.removeprefix(prefix).partition("/") for key in sorted(self.objects) if key.startswith(prefix))
        return iter(dict.fromkeys(f"{prefix}{name}{slash}" for name, slash, _ in below))

    def list_objects(self, prefix: str) -> Iterator[Listed]:
        self.before("list", prefix)
        keys = sorted(key for key in self.objects if key.startswith(prefix))
        return iter([Listed(key, len(self.objects[key]), self.modified.get(key, 0.0)) for key in keys])

    def versions(self, prefix: str) -> Iterator[Version]:
        return (Version(key) for key in self.list(prefix))

    def remove(self, chosen: Sequence[Version]) -> int:
        for key, _ in chosen:
            self.before("purge", key)
            self.delete(key)
        return 0

    def delete(self, key: str) -> None:
        self.before("delete", key)
        self.objects.pop(key, None)

    def create_upload(self, key: str, content_type: str) -> str:
        self.before("create_upload", key)
        upload_id = next(self._ids)
        self.uploads[upload_id] = _Upload(key)
        self.content_types[key] = content_type
        return upload_id

    def upload_part(self, key: str, upload_id: str, number: int, body: bytes | Streamed) -> Part:
        self.before("upload_part", key)
        if upload_id not in self.uploads:
            raise UploadLostError(f"no upload {upload_id}")
        data = self.uploads[upload_id].parts[number] = _read(body)
        md5 = hashlib.md5(data, usedforsecurity=False).digest()
        taken = b"" if self.capabilities.checks_sha256 else md5
        return Part(number, md5.hex(), len(data), taken, zlib.crc32(data), hashlib.sha256(data).digest())

    def complete_upload(self, key: str, upload_id: str, parts: Sequence[Part]) -> ObjectInfo | None:
        self.before("complete_upload", key)
        upload = self.uploads.pop(upload_id, None)
        if upload is None:
            return None
        ordered = sorted(parts, key=lambda part: part.number)
        body = b"".join(upload.parts[part.number] for part in ordered)
        self._keep(key, body, self.content_types[key], expected_etag(ordered, multipart=True))
        return ObjectInfo(len(body), self.etags[key])

    def abort_upload(self, key: str, upload_id: str) -> None:
        self.before("abort_upload", key)
        self.uploads.pop(upload_id, None)

    def list_uploads(self, key: str) -> tuple[str, ...]:
        self.before("list_uploads", key)
        return tuple(upload_id for upload_id, upload in self.uploads.items() if upload.key == key)

    def unfinished(self, prefix: str) -> Iterator[Unfinished]:
        self.before("unfinished", prefix)
        return (
            Unfinished(upload.key, upload_id)
            for upload_id, upload in list(self.uploads.items())
            if upload.key.startswith(prefix)
        )

    def _keep(self, key: str, body: bytes, content_type: str, etag: str) -> None:
        self.modified[key] = self.now()
        self.objects[key], self.etags[key], self.content_types[key] = body, etag, content_type
        self.puts.append(key)


def _read(body: bytes | Streamed) -> bytes:
    """What arrives, checked against what is known of it."""
    if not isinstance(body, Streamed):
        return bytes(body)
    with body.open() as reader:
        data = reader.read()
    assert len(data) == body.size
    assert body.sums is None or body.sums == sums_of([data])
    return data
