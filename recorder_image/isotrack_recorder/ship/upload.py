"""One file into the bucket: parts as they become ready, verified object out.

    part 2, 3, … go out while the file grows; each is noted in the ledger, then its bytes on the disk go away
    finished: the parts that are left ─▶ head into part 1, part 1 ─▶ complete ─▶ verify ─▶ the file's checksums

A file that fits into one part is put in one request. Parts are read from the disk while they are sent. A process that was killed is followed
by one that goes on with the same upload: whatever the storage acknowledged and the ledger holds is not sent again.

SHA-256 cannot be had out of order, nor be continued by another process. So the sum of a file of several parts is made of the sums
of its parts; CRC-32 is combined, and is that of the whole file.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import random
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from isotrack_recorder.checksums import FileDigest, crc32_combine, sums_of
from isotrack_recorder.errors import StorageError

from .bodies import Bodies, part_sizes
from .ledger import Ledger
from .store import MAX_PARTS, PART_BYTES, Capabilities, ObjectInfo, Part, Store, Streamed

READ_BACK_PARTS: Final = 3
_CHUNK: Final = 128 * 1024
_MD5: Final = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Uploaded:
    """A stored object as we know it from sending it."""

    key: str
    size: int
    parts: tuple[Part, ...]
    """In order; one for an object that was put in one request."""
    multipart: bool


@dataclass(frozen=True, slots=True)
class Target:
    """Where a file goes."""

    name: str
    key: str
    content_type: str


class Sender:
    """Sends files. Thread-safe, but for one and the same file."""

    def __init__(self, store: Store, ledger: Ledger, bodies: Bodies) -> None:
        self._store = store
        self._ledger = ledger
        self._bodies = bodies

    def send_parts(self, target: Target, numbers: Sequence[int]) -> None:
        """Send whole parts (from 2 on) of a file that still grows.

        Raises:
            UploadLostError: the storage forgot the upload; what it had acknowledged is lost with it.
            StorageError: it did not take them.
            OSError: the parts cannot be read.
        """
        for number in numbers:
            self._send_part(target, number, PART_BYTES)
            self._bodies.drop(target.name, number)

    def finish(self, target: Target, size: int) -> FileDigest:
        """Send what is left of a finished file and make sure that the bucket holds it. Its bytes on the disk stay.

        Raises:
            As `send_parts`; StorageError also when the bucket holds something else afterwards.
        """
        if size <= PART_BYTES:
            return self._put(target, size)
        for number, part_size in part_sizes(size):
            if number > 1:
                self._send_part(target, number, part_size)
        # NB: part 1 last: it holds the head, which tells where everything else lies.
        self._send_part(target, 1, PART_BYTES)
        upload = self._ledger.upload(target.name)
        assert upload is not None
        sent = [upload.parts[number] for number, _ in part_sizes(size)]
        parts = tuple(sent)
        self._store.complete_upload(target.key, upload.upload_id, parts)
        verify(self._store, Uploaded(target.key, size, parts, multipart=True))
        return digest_of(sent)

    def give_up(self, target: Target) -> None:
        """Take back what was sent of a file that will not be finished this way."""
        upload = self._ledger.upload(target.name)
        if upload is not None:
            with contextlib.suppress(StorageError):  # `clear_unfinished` finds it before the next try
                self._store.abort_upload(target.key, upload.upload_id)
            self._ledger.forget_upload(target.name)

    def _send_part(self, target: Target, number: int, size: int) -> None:
        if self._ledger.has_part(target.name, number):
            return
        if number > MAX_PARTS:
            raise StorageError(f"{target.key!r} is larger than {MAX_PARTS} parts of {PART_BYTES} bytes")
        if not self._store.patience.left():
            raise StorageError(f"time is over, {target.key!r} is not complete")
        body = self._bodies.part(target.name, number, size)
        upload = self._ledger.upload(target.name)
        if upload is None:
            clear_unfinished(self._store, target.key)
            upload_id = self._store.create_upload(target.key, target.content_type)
            self._ledger.add_upload(target.name, upload_id)
        else:
            upload_id = upload.upload_id
        self._ledger.add_part(target.name, self._store.upload_part(target.key, upload_id, number, body))

    def _put(self, target: Target, size: int) -> FileDigest:
        body = self._bodies.part(target.name, 1, size)
        sums = sums_of(_chunks(body))
        # what we sent, to be compared with what the storage says it has
        part = Part(1, "", size, sums.md5, sums.crc32, sums.sha256)
        self._store.put(target.key, replace(body, sums=sums), target.content_type)
        verify(self._store, Uploaded(target.key, size, (part,), multipart=False))
        return FileDigest(sums.crc32, sums.sha256.hex())


def _chunks(body: Streamed) -> Iterator[bytes]:
    with body.open() as reader:
        while chunk := reader.read(_CHUNK):
            yield chunk


def digest_of(parts: Sequence[Part]) -> FileDigest:
    """Checksums of a file of several parts, given in order."""
    crc32 = 0
    for part in parts:
        crc32 = crc32_combine(crc32, part.crc32, part.size)
    joined = hashlib.sha256(b"".join(part.sha256 for part in parts)).hexdigest()
    return FileDigest(crc32, None, joined, PART_BYTES)


class _Reads(Protocol):
    @property
    def capabilities(self) -> Capabilities: ...
    def head(self, key: str) -> ObjectInfo | None: ...
    def get_range(self, key: str, start: int, size: int) -> bytes: ...


def expected_etag(parts: Sequence[Part], multipart: bool) -> str:
    """ETag of servers that use MD5: of the body, or of the parts' MD5s followed by their number; "" where no MD5 is known.

    Of a part for which the storage checked another sum, its acknowledgement stands for the MD5 that we did not take.
    """
    if not multipart:
        return parts[0].md5.hex()
    sums = [part.md5 or (bytes.fromhex(part.etag) if _MD5.fullmatch(part.etag) else b"") for part in parts]
    if not all(sums):
        return ""
    return f"{hashlib.md5(b''.join(sums), usedforsecurity=False).hexdigest()}-{len(parts)}"


def expected_crc32(parts: Sequence[Part], multipart: bool) -> str:
    """`ChecksumCRC32` of S3: of the body, or (type COMPOSITE) of the parts' CRCs followed by their number."""
    sums = [part.crc32.to_bytes(4, "big") for part in parts]
    if not multipart:
        return base64.b64encode(sums[0]).decode()
    return f"{base64.b64encode(zlib.crc32(b''.join(sums)).to_bytes(4, 'big')).decode()}-{len(parts)}"


def verify(store: _Reads, sent: Uploaded) -> str:
    """Make sure that the bucket holds what we sent. Returns what proved it: `checksum`, `etag` or `read`.

    Size must agree; then the strongest of: the storage's checksum, an ETag that is the MD5 (it is not under KMS and on some
    servers, so a different one proves nothing), else parts read back: first, last and a random one where the storage checks what
    arrives, all of them where it does not.

    Raises:
        StorageError: the object is missing or other than what we sent. Sending it again is the remedy.
    """
    info = store.head(sent.key)
    if info is None:
        raise StorageError(f"{sent.key!r} is not in the bucket after its upload")
    if info.size != sent.size:
        raise StorageError(f"{sent.key!r} has {info.size} bytes in the bucket instead of {sent.size}")
    if info.crc32 and info.crc32 == expected_crc32(sent.parts, sent.multipart):
        return "checksum"
    if info.etag and info.etag == expected_etag(sent.parts, sent.multipart):
        return "etag"
    for part in _parts_to_read(sent.parts) if store.capabilities.checks_arrival else sent.parts:
        data = store.get_range(sent.key, (part.number - 1) * PART_BYTES, part.size)
        if hashlib.sha256(data).digest() != part.sha256:
            raise StorageError(f"{sent.key!r} reads back differently from the bucket in part {part.number}")
    return "read"


def _parts_to_read(parts: Sequence[Part]) -> list[Part]:
    inner = parts[1:-1]
    chosen = {parts[0].number: parts[0], parts[-1].number: parts[-1]}
    for part in random.sample(inner, min(len(inner), READ_BACK_PARTS - len(chosen))):
        chosen[part.number] = part
    return list(chosen.values())


def clear_unfinished(store: Store, key: str) -> int:
    """Abort uploads of `key` that an earlier process left behind; how many there were."""
    found = store.list_uploads(key)
    for upload_id in found:
        store.abort_upload(key, upload_id)
    return len(found)
