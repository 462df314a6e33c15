"""What does this S3 server keep of S3's promises? Asked with a dozen small requests on one object.

Servers answer 200 to headers that they ignore, so each promise is tried with a request that breaks it and must be refused:

    put A · put B if absent          taken → conditions are ignored
    put B with the MD5 of A          taken → bodies are not checked against Content-MD5
    put B with the CRC-32 of A       the same, asked only where MD5 is ignored
    upload: part 2, part 1, complete refused otherwise than for its size → large files cannot be sent while the call runs
    list uploads · delete · describe what is not seen, or still there, cannot be cleaned up

Nothing here can be a stopgap for atomicity: a server may honour a condition and still let two writers win who come at the same
instant. So nothing in `ship` is right only because of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final, Protocol

from isotrack_recorder.errors import StorageRefusedError

from .s3_errors import Consequence
from .store import Capabilities, ObjectInfo, Part, UploadLostError

CONTENT_TYPE: Final = "application/octet-stream"
FIRST: Final = b"isotrack probes this storage"
SECOND: Final = b"isotrack probes it once more"
REFUSED: Final = {Consequence.DAMAGED, Consequence.FAILED}
_NO_PARTS: Final = "bucket {!r} does not put an upload together whose first part comes last: it is no usable S3 storage"


class Probed(Protocol):
    """What the probe needs of a store."""

    @property
    def bucket(self) -> str: ...
    def put(self, key: str, body: bytes, content_type: str) -> ObjectInfo: ...
    def try_put(
        self,
        key: str,
        body: bytes,
        content_type: str,
        *,
        if_absent: bool = False,
        sha256_of: bytes | None = None,
        md5_of: bytes | None = None,
        crc32_of: bytes | None = None,
    ) -> Consequence | None: ...
    def head(self, key: str) -> ObjectInfo | None: ...
    def get(self, key: str, limit: int) -> bytes | None: ...
    def delete(self, key: str) -> None: ...
    def create_upload(self, key: str, content_type: str) -> str: ...
    def upload_part(self, key: str, upload_id: str, number: int, body: bytes) -> Part: ...
    def try_complete(self, key: str, upload_id: str, parts: Sequence[Part]) -> Consequence | None: ...
    def abort_upload(self, key: str, upload_id: str) -> None: ...
    def list_uploads(self, key: str) -> tuple[str, ...]: ...


def probe(store: Probed, key: str) -> Capabilities:
    """Try everything on `key`, which belongs to nobody else, and remove it again.

    Raises:
        StorageRefusedError: parts are not taken in the order in which a running call sends them, or a right is missing.
        StorageError: the storage does not answer within its patience.
    """
    stored = store.put(key, FIRST, CONTENT_TYPE)
    create_once = store.try_put(key, SECOND, CONTENT_TYPE, if_absent=True) is Consequence.EXISTS
    checks_sha256 = store.try_put(key, SECOND, CONTENT_TYPE, sha256_of=FIRST) in {*REFUSED, Consequence.CREDENTIALS}
    checks_md5 = store.try_put(key, SECOND, CONTENT_TYPE, md5_of=FIRST) in REFUSED
    checks_crc32 = False
    if not checks_md5:
        checks_crc32 = store.try_put(key, SECOND, CONTENT_TYPE, crc32_of=FIRST) in REFUSED
        # a server that does not know the header at all refuses the right one, too
        checks_crc32 = checks_crc32 and store.try_put(key, SECOND, CONTENT_TYPE, crc32_of=SECOND) is None
    seen = store.head(key)
    body = store.get(key, len(FIRST) + len(SECOND))
    lists_uploads = _try_upload(store, key)
    store.delete(key)
    return Capabilities(
        create_once=create_once,
        checks_sha256=checks_sha256,
        checks_md5=checks_md5,
        checks_crc32=checks_crc32,
        etag_is_md5=bool(seen and body and seen.etag == hashlib.md5(body, usedforsecurity=False).hexdigest()),
        lists_uploads=lists_uploads,
        deletes=store.head(key) is None,
        keeps_versions=bool(stored.version),
        retains=bool(seen and seen.retained),
    )


def _try_upload(store: Probed, key: str) -> bool:
    """Send parts as a running call does, part 1 last. Whether the upload was listed meanwhile.

    The parts are small: most servers then refuse to complete, for their size, which shows as well that they took them.
    """
    upload = store.create_upload(key, CONTENT_TYPE)
    try:
        parts = [store.upload_part(key, upload, number, body) for number, body in ((2, SECOND), (1, FIRST))]
    except UploadLostError as error:
        raise StorageRefusedError(_NO_PARTS.format(store.bucket)) from error
    listed = upload in store.list_uploads(key)
    found = store.try_complete(key, upload, parts)
    if found is not None:
        store.abort_upload(key, upload)
    elif store.get(key, len(FIRST) + len(SECOND)) == FIRST + SECOND:
        return listed
    if found is not Consequence.TOO_SMALL:
        raise StorageRefusedError(_NO_PARTS.format(store.bucket))
    return listed
