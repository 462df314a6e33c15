"""S3: the Store that ships everything.

One S3Store serves one bucket and is shared by all worker threads. Here is what is asked for and what the answers are to the rest
of `ship`; each call repeats itself within the store's Patience, which is the business of `s3_requests`. Uploads carry sums
that the server checks on arrival: the SHA-256 that they are signed with; where the probe found it to be ignored, Content-MD5, and
where that is ignored, too, CRC-32, which AWS always gets; both as plain headers (`s3_fields`). Each byte is summed once: a
SHA-256 that the manifest wants is also what the request is signed with. What a server keeps of S3's promises is asked once
(`probe`) and gone by from then on.

The client library is behind `s3_client`, what its answers mean in `s3_errors`.
"""

from __future__ import annotations

import hashlib
import logging
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from isotrack_api.intent import S3Destination
from isotrack_recorder.checksums import Sums
from isotrack_recorder.clocks import Bounds
from isotrack_recorder.errors import StorageError, StorageRefusedError

from .credentials import CredentialSource
from .retry import Patience
from .s3_errors import Consequence
from .s3_fields import (
    crc32_field,
    encryption_fields,
    etag_of,
    md5_field,
    opened,
    read_body,
    size_of,
    sums_of_body,
    unix_seconds,
    version_of,
)
from .s3_probe import probe
from .s3_requests import Requests
from .store import (
    Capabilities,
    Heard,
    Listed,
    ObjectInfo,
    Part,
    Streamed,
    Traffic,
    Trouble,
    Unfinished,
    UploadLostError,
    Version,
    nobody_hears,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ListObjectsV2OutputTypeDef

log = logging.getLogger(__name__)
R = TypeVar("R")

PAGE: Final = 1000
"""Entries per listing; S3 gives no more."""
_NOT_KNOWN: Final = (Consequence.UNSUPPORTED, Consequence.CREDENTIALS, Consequence.MISSING, Consequence.FAILED)
"""Answers after which there is another way: not all servers list versions or delete many at once, not all rights are given."""


class S3Store:
    """One bucket behind the S3 API. Thread-safe. Implements `store.Store`."""

    def __init__(
        self, destination: S3Destination, credentials: CredentialSource, patience: Patience, heard: Heard = nobody_hears
    ) -> None:
        self._bucket = destination.bucket
        self._encryption = encryption_fields(destination)
        self._requests = Requests(destination, credentials, patience, heard)
        self._capabilities = Capabilities()

    @property
    def bucket(self) -> str:
        """Name of the bucket."""
        return self._bucket

    @property
    def patience(self) -> Patience:
        """How long failing calls are repeated."""
        return self._requests.patience

    @property
    def trouble(self) -> Trouble | None:
        """What the newest call failed with; None when it succeeded."""
        return self._requests.trouble

    @property
    def traffic(self) -> Traffic:
        """What was sent and what failed so far."""
        return self._requests.traffic

    @property
    def clock_skew_seconds(self) -> float | None:
        """The storage's clock minus ours."""
        return self._requests.clock_skew_seconds

    @property
    def clock(self) -> Bounds | None:
        """Between which values the storage's clock minus our CLOCK_MONOTONIC lies, by all answers so far."""
        return self._requests.clock

    @property
    def capabilities(self) -> Capabilities:
        """What `probe` found; before it nothing is taken for granted."""
        return self._capabilities

    def probe(self, key: str) -> Capabilities:
        """Try, on an object at `key` that it removes again, what the storage keeps of S3's promises; go by it from now on.

        Raises:
            StorageRefusedError: it lacks what nothing can be recorded without.
        """
        self._capabilities = probe(self, key)
        log.info("storage probed", extra={"fields": {"found": str(self._capabilities)}})
        return self._capabilities

    # ── objects ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def put(self, key: str, body: bytes | Streamed, content_type: str) -> ObjectInfo:
        """Store an object, replacing what is there."""
        known = body.sums if isinstance(body, Streamed) else None

        def send(client: S3Client) -> ObjectInfo:
            nonlocal known
            # NB: anew after a failure: bytes that are not what they were would be refused for ever.
            sums, known = known or self._sums(body), None
            with opened(body) as data, self._requests.signed_by(sums.sha256):
                answer = client.put_object(
                    Bucket=self.bucket,
                    Key=key,
                    Body=data,
                    ContentType=content_type,
                    **self._checksum(sums),
                    **self._encryption,
                )
            self._check_encrypted(answer)
            return ObjectInfo(size_of(body), etag_of(answer), self._crc_of(answer), version_of(answer))

        return self._sent(self._requests.call("PutObject", send), size_of(body))

    def put_once(self, key: str, body: bytes | Streamed, content_type: str) -> bool:
        """Store an object unless there is one; False when there was (perhaps our own, after a lost answer)."""
        if not self._capabilities.create_once and self.head(key) is not None:
            return False
        found = self.try_put(key, body, content_type, if_absent=True)
        if found is Consequence.UNSUPPORTED:
            self.put(key, body, content_type)
        elif found is None:
            self._sent(None, size_of(body))
        return found is not Consequence.EXISTS

    def try_put(
        self,
        key: str,
        body: bytes | Streamed,
        content_type: str,
        *,
        if_absent: bool = False,
        sha256_of: bytes | None = None,
        md5_of: bytes | None = None,
        crc32_of: bytes | None = None,
    ) -> Consequence | None:
        """One put whose refusal is an answer; None when it was taken.

        Args:
            if_absent: Only if there is no object.
            sha256_of: Sign with the SHA-256 of these bytes instead of the body's, and send no checksum.
            md5_of: Send the MD5 of these bytes instead of the body's own checksum.
            crc32_of: Send the CRC-32 of these bytes instead.
        """
        more: dict[str, Any] = {"IfNoneMatch": "*"} if if_absent else {}

        def send(client: S3Client) -> Consequence | None:
            sums = self._sums(body)
            checksum, sha256 = self._checksum(sums), sums.sha256
            if sha256_of is not None:
                checksum, sha256 = {}, hashlib.sha256(sha256_of).digest()
            if md5_of is not None:
                checksum = md5_field(hashlib.md5(md5_of, usedforsecurity=False).digest())
            if crc32_of is not None:
                checksum = crc32_field(zlib.crc32(crc32_of))
            with opened(body) as data, self._requests.signed_by(sha256):
                answer = client.put_object(
                    Bucket=self.bucket,
                    Key=key,
                    Body=data,
                    ContentType=content_type,
                    **checksum,
                    **more,
                    **self._encryption,
                )
            self._check_encrypted(answer)
            return None

        told = {Consequence.EXISTS, Consequence.UNSUPPORTED}
        if sha256_of is not None or md5_of is not None or crc32_of is not None:
            told |= {Consequence.DAMAGED, Consequence.FAILED}
        if sha256_of is not None:
            # "The signature does not match": its own sum of the body was signed otherwise
            told.add(Consequence.CREDENTIALS)
        expected: dict[Consequence, Consequence | None] = {consequence: consequence for consequence in told}
        return self._requests.call("PutObject", send, expected)

    def head(self, key: str) -> ObjectInfo | None:
        """Describe an object; None when there is none."""

        def send(client: S3Client) -> ObjectInfo | None:
            more: dict[str, Any] = {"ChecksumMode": "ENABLED"} if self._uses_crc32 else {}
            answer = client.head_object(Bucket=self.bucket, Key=key, **more)
            retained = bool(answer.get("ObjectLockMode") or answer.get("ObjectLockLegalHoldStatus") == "ON")
            return ObjectInfo(
                answer["ContentLength"], etag_of(answer), self._crc_of(answer), version_of(answer), retained=retained
            )

        return self._requests.call("HeadObject", send, {Consequence.MISSING: None})

    def get(self, key: str, limit: int) -> bytes | None:
        """Read a whole object of at most `limit` bytes; None when there is none."""

        def send(client: S3Client) -> bytes | None:
            data = read_body(client.get_object(Bucket=self.bucket, Key=key), limit + 1)
            if len(data) > limit:
                raise StorageError(f"object {key!r} is longer than the {limit} bytes that it may have")
            return data

        return self._requests.call("GetObject", send, {Consequence.MISSING: None})

    def get_range(self, key: str, start: int, size: int) -> bytes:
        """Read `size` bytes from `start`; fewer at the object's end, none when there is no object."""

        def send(client: S3Client) -> bytes:
            return read_body(
                client.get_object(Bucket=self.bucket, Key=key, Range=f"bytes={start}-{start + size - 1}"), size
            )

        return self._requests.call("GetObject", send, {Consequence.MISSING: b""})

    def list(self, prefix: str) -> Iterator[str]:
        """Keys that begin with `prefix`."""
        return (found.key for found in self.list_objects(prefix))

    def list_objects(self, prefix: str) -> Iterator[Listed]:
        """Objects whose keys begin with `prefix`."""
        for page in self._pages(prefix):
            for row in page.get("Contents", ()):
                yield Listed(row["Key"], row.get("Size", 0), unix_seconds(row.get("LastModified")))

    def list_level(self, prefix: str) -> Iterator[str]:
        """Keys of what lies in the folder `prefix`, and its folders, with a slash at their end."""
        for page in self._pages(prefix, Delimiter="/"):
            yield from (row["Key"] for row in page.get("Contents", ()))
            yield from (row["Prefix"] for row in page.get("CommonPrefixes", ()))

    def _pages(self, prefix: str, **how: str) -> Iterator[ListObjectsV2OutputTypeDef]:
        token: str | None = None
        while True:
            more: dict[str, Any] = {"ContinuationToken": token, **how} if token else {**how}

            def send(client: S3Client, more: dict[str, Any] = more) -> ListObjectsV2OutputTypeDef:
                return client.list_objects_v2(Bucket=self.bucket, Prefix=prefix, MaxKeys=PAGE, **more)

            page = self._requests.call("ListObjectsV2", send)
            yield page
            following = page.get("NextContinuationToken")
            if not following or following == token:  # a server that repeats its marker would keep us for ever
                return
            token = following

    def delete(self, key: str) -> None:
        """Remove an object; no error when there is none. Where we may not delete, it stays: nothing depends on it."""

        def send(client: S3Client) -> None:
            client.delete_object(Bucket=self.bucket, Key=key)

        self._requests.call("DeleteObject", send, {Consequence.MISSING: None, Consequence.CREDENTIALS: None})

    def versions(self, prefix: str) -> Iterator[Version]:
        """What lies below `prefix`, with its old versions, and what marks deleted ones."""
        markers: dict[str, Any] = {}
        while True:

            def send(
                client: S3Client, markers: dict[str, Any] = markers
            ) -> tuple[list[Version], dict[str, Any]] | None:
                answer = client.list_object_versions(Bucket=self.bucket, Prefix=prefix, **markers)
                rows = [*answer.get("Versions", ()), *answer.get("DeleteMarkers", ())]
                following = {
                    "KeyMarker": answer.get("NextKeyMarker"),
                    "VersionIdMarker": answer.get("NextVersionIdMarker"),
                }
                more = {name: value for name, value in following.items() if value} if answer.get("IsTruncated") else {}
                # The version "null" is the only one of a bucket that keeps none: to name it would take a right more.
                return [Version(row["Key"], version_of(row)) for row in rows], more

            found = self._requests.call("ListObjectVersions", send, dict.fromkeys(_NOT_KNOWN))
            if found is None:
                yield from (Version(key) for key in self.list(prefix))
                return
            page, following = found
            yield from page
            if not following or following == markers:  # a server that repeats its marker would keep us for ever
                return
            markers = following

    def remove(self, chosen: Sequence[Version]) -> int:
        """Remove up to a thousand versions in one request; how many the storage would not let go."""
        rows: list[Any] = [{"Key": key} | ({"VersionId": version} if version else {}) for key, version in chosen]

        def send(client: S3Client) -> list[Version]:
            answer = client.delete_objects(Bucket=self.bucket, Delete={"Objects": rows, "Quiet": True})
            return [Version(row.get("Key", ""), row.get("VersionId") or "") for row in answer.get("Errors", ())]

        everything = [*chosen]
        left = self._requests.call("DeleteObjects", send, dict.fromkeys(_NOT_KNOWN, everything))
        # Without a version: where versions are kept the key is hidden, and a lifecycle rule may remove the rest.
        for number, key in enumerate(dict.fromkeys(key for key, _ in left)):
            self.delete(key)
            if number == 0 and self.head(key) is not None:
                return len(left)  # we may not delete: asking for each of thousands changes nothing
        return sum(1 for _, version in left if version)

    # ── multipart ────────────────────────────────────────────────────────────────────────────────────────────────────

    def create_upload(self, key: str, content_type: str) -> str:
        """Begin a multipart upload; its id."""
        tries = 0

        def send(client: S3Client) -> str:
            nonlocal tries
            tries += 1
            more: dict[str, Any] = {"ChecksumAlgorithm": "CRC32"} if self._uses_crc32 else {}
            answer = client.create_multipart_upload(
                Bucket=self.bucket, Key=key, ContentType=content_type, **more, **self._encryption
            )
            self._check_encrypted(answer)
            return answer["UploadId"]

        begun = self._requests.call("CreateMultipartUpload", send)
        if (
            tries > 1
        ):  # NB: one whose answer was lost is there, too. Keys have one writer, so the others are its orphans.
            for orphan in set(self.list_uploads(key)) - {begun}:
                self.abort_upload(key, orphan)
        return begun

    def upload_part(self, key: str, upload_id: str, number: int, body: bytes | Streamed) -> Part:
        """Send one part; sending a number again replaces it.

        Raises:
            UploadLostError: the upload is unknown, or the storage does not let this part be replaced: begin again.
        """

        def send(client: S3Client) -> Part | None:
            sums = self._sums(body, crc32=True)
            with opened(body) as data, self._requests.signed_by(sums.sha256):
                answer = client.upload_part(
                    Bucket=self.bucket,
                    Key=key,
                    UploadId=upload_id,
                    PartNumber=number,
                    Body=data,
                    **self._checksum(sums),
                )
            return Part(number, etag_of(answer), size_of(body), sums.md5, sums.crc32, sums.sha256)

        sent = self._requests.call("UploadPart", send, {Consequence.UNSUPPORTED: None})
        if sent is None:  # rclone says so of a part that it has passed on already
            raise UploadLostError(f"part {number} of {key!r} cannot be replaced at {self._requests.place}")
        return self._sent(sent, sent.size)

    def complete_upload(self, key: str, upload_id: str, parts: Sequence[Part]) -> ObjectInfo | None:
        """Make the object of its parts; None when the upload is gone: the object tells whether it was made."""
        gone: dict[Consequence, ObjectInfo | None] = {Consequence.UPLOAD_LOST: None, Consequence.MISSING: None}
        return self._complete(key, upload_id, parts, gone)

    def try_complete(self, key: str, upload_id: str, parts: Sequence[Part]) -> Consequence | None:
        """Completion whose refusal is an answer; None when the object was made, perhaps before an answer that was lost."""
        told = {Consequence.TOO_SMALL, Consequence.FAILED, Consequence.UNSUPPORTED}
        gone = {Consequence.UPLOAD_LOST: None, Consequence.MISSING: None}
        expected: dict[Consequence, ObjectInfo | Consequence | None] = {**{each: each for each in told}, **gone}
        found = self._complete(key, upload_id, parts, expected)
        return found if isinstance(found, Consequence) else None

    def _complete(
        self, key: str, upload_id: str, parts: Sequence[Part], expected: Mapping[Consequence, ObjectInfo | R]
    ) -> ObjectInfo | R:
        listed: list[Any] = [
            {"PartNumber": part.number, "ETag": f'"{part.etag}"'}
            | (crc32_field(part.crc32) if self._uses_crc32 else {})
            for part in sorted(parts, key=lambda part: part.number)
        ]

        def send(client: S3Client) -> ObjectInfo | R:
            answer = client.complete_multipart_upload(
                Bucket=self.bucket, Key=key, UploadId=upload_id, MultipartUpload={"Parts": listed}
            )
            return ObjectInfo(
                sum(part.size for part in parts), etag_of(answer), self._crc_of(answer), version_of(answer)
            )

        return self._requests.call("CompleteMultipartUpload", send, expected, patient=True)

    def abort_upload(self, key: str, upload_id: str) -> None:
        """Drop an upload and its parts; no error when it is unknown."""

        def send(client: S3Client) -> None:
            client.abort_multipart_upload(Bucket=self.bucket, Key=key, UploadId=upload_id)

        self._requests.call("AbortMultipartUpload", send, {Consequence.UPLOAD_LOST: None, Consequence.MISSING: None})

    def list_uploads(self, key: str) -> tuple[str, ...]:
        """Ids of unfinished uploads of exactly this key."""
        return tuple(upload.upload_id for upload in self.unfinished(key) if upload.key == key)

    def unfinished(self, prefix: str) -> Iterator[Unfinished]:
        """Unfinished uploads of all keys that begin with `prefix`; none where the storage cannot list them.

        A key with several of them may come with some only: see `clear_abandoned`.
        """
        marks: dict[str, str] = {}
        while True:
            found, following = self._uploads_behind(prefix, marks)
            if found is None:  # NB: versitygw 1.7 refuses the upload id that it gave itself as marker
                found, following = self._uploads_behind(prefix, {"KeyMarker": marks["KeyMarker"]})
            yield from (upload for upload in found or () if upload.key.startswith(prefix))
            if not following or following == marks:  # a server that repeats its marker would keep us for ever
                return
            marks = following

    def _uploads_behind(self, prefix: str, marks: dict[str, str]) -> tuple[Sequence[Unfinished] | None, dict[str, str]]:
        """One page and the markers of the next; None when the storage does not take these."""

        def send(client: S3Client) -> tuple[Sequence[Unfinished] | None, dict[str, str]]:
            markers = cast("Any", marks)
            answer = client.list_multipart_uploads(Bucket=self.bucket, Prefix=prefix, MaxUploads=PAGE, **markers)
            found = [Unfinished(entry["Key"], entry["UploadId"]) for entry in answer.get("Uploads", ())]
            following = {"KeyMarker": answer.get("NextKeyMarker"), "UploadIdMarker": answer.get("NextUploadIdMarker")}
            return found, {name: value for name, value in following.items() if value} if answer.get(
                "IsTruncated"
            ) else {}

        expected: dict[Consequence, tuple[Sequence[Unfinished] | None, dict[str, str]]] = {
            Consequence.UNSUPPORTED: ([], {}),
            Consequence.UPLOAD_LOST: ([], {}),  # rclone says NoSuchUpload of a bucket that never had one
        }
        if "UploadIdMarker" in marks:
            expected[Consequence.FAILED] = (None, {})
        return self._requests.call("ListMultipartUploads", send, expected)

    # ── what requests carry ──────────────────────────────────────────────────────────────────────────────────────────

    @property
    def _uses_crc32(self) -> bool:
        return self._requests.is_aws or (self._capabilities.checks_crc32 and not self._capabilities.checks_md5)

    @property
    def _uses_md5(self) -> bool:
        """Buckets that lock new objects want one of the two: a SHA-256 that is signed does not count there."""
        found = self._capabilities
        return not self._uses_crc32 and (found.retains or not found.checks_sha256)

    def _sums(self, body: bytes | Streamed, *, crc32: bool = False) -> Sums:
        """Those that a request with this body carries, of its bytes as they are now."""
        return sums_of_body(body, crc32=crc32 or self._uses_crc32, md5=self._uses_md5)

    def _checksum(self, sums: Sums) -> dict[str, Any]:
        if self._uses_crc32:
            return crc32_field(sums.crc32)
        return md5_field(sums.md5) if self._uses_md5 else {}

    def _crc_of(self, answer: Mapping[str, Any]) -> str:
        """The checksum that the storage took itself. One that does not check them repeats what it was told."""
        return str(answer.get("ChecksumCRC32", "")) if self._uses_crc32 else ""

    def _check_encrypted(self, answer: Mapping[str, Any]) -> None:
        """A storage that ignores the wish answers without a word about it.

        Raises:
            StorageRefusedError: the object lies there unencrypted, or under another key management.
        """
        wanted = self._encryption.get("ServerSideEncryption")
        if wanted is not None and answer.get("ServerSideEncryption") != wanted:
            raise StorageRefusedError(
                f"bucket {self.bucket!r} at {self._requests.place} does not encrypt as asked ({wanted}): "
                "take serverSideEncryption from the storage, or use one that knows it"
            )

    def _sent(self, answer: R, size: int) -> R:
        self._requests.count_sent(size)
        return answer
