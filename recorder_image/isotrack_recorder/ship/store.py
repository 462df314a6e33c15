"""The port to object storage: eight verbs and multipart, as `s3` implements them and the rest of `ship` uses them.

All calls block; they run in `lanes`. Every one of them repeats itself on failures that may pass, within the store's Patience,
and raises StorageError or StorageRefusedError afterwards. Bodies are bytes of at most one part, or a Streamed
of up to 68 MiB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final, NamedTuple, Protocol

from isotrack_recorder.checksums import Sums
from isotrack_recorder.clocks import Bounds
from isotrack_recorder.errors import StorageError

from .retry import Patience

PART_BYTES: Final = 8 * 1024 * 1024
"""All parts but the last have this size: some servers insist on equal ones."""
MAX_PARTS: Final = 10_000


class UploadLostError(StorageError):
    """The storage no longer knows a multipart upload: begin it again."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a storage keeps of that which S3 promises, as `probe` found. Without a probe nothing is taken for granted."""

    create_once: bool = False
    """`If-None-Match: *` is honoured. Else `put_once` looks before it puts: two writers at the same instant both win, so
    what is written once must be the same from either, or its key unique to its writer."""
    checks_sha256: bool = False
    """A body that does not match the SHA-256 it is signed with is refused: then no other sum is needed on the way."""
    checks_md5: bool = False
    """A body that does not match its Content-MD5 is refused."""
    checks_crc32: bool = False
    """A body that does not match its x-amz-checksum-crc32 is refused. Asked only where MD5 does not do."""
    etag_is_md5: bool = False
    """The ETag is the MD5 of what arrived (not under KMS, and not on every server)."""
    lists_uploads: bool = False
    """Unfinished multipart uploads can be listed. Else those of a dead process stay until the bucket's lifecycle ends them."""
    deletes: bool = False
    """We may delete. Else what is temporary stays until the bucket's lifecycle removes it."""
    keeps_versions: bool = False
    """What is overwritten or deleted stays as an older version."""
    retains: bool = False
    """New objects are locked for a time: nobody can delete them before."""

    @property
    def checks_arrival(self) -> bool:
        """Damage on the way is noticed by the storage. Else only by reading back."""
        return self.checks_sha256 or self.checks_md5 or self.checks_crc32


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A multipart upload that was neither completed nor aborted."""

    key: str
    upload_id: str


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What the storage says about one object."""

    size: int
    etag: str
    """Without quotes. Often, not always, an MD5."""
    crc32: str = ""
    """Base64, `<crc>-<parts>` for a multipart upload; empty where the storage keeps none, or does not check it."""
    version: str = ""
    """Where the bucket keeps versions."""
    retained: bool = False
    """The storage will not let it be deleted for a time."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One object of a listing."""

    key: str
    size: int
    modified: float
    """Unix seconds, by the storage's clock."""


class Version(NamedTuple):
    """One object, or one version of it."""

    key: str
    version: str = ""
    """Empty where the bucket keeps none, or does not tell."""


@dataclass(frozen=True, slots=True)
class Streamed:
    """A body that is read while it is sent, from the start at each try."""

    size: int
    open: Callable[[], BinaryIO]
    """A reader of exactly `size` bytes that can seek; closed by whoever opens it."""
    sums: Sums | None = None
    """All of them, where they are known already."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part that the storage acknowledged."""

    number: int
    etag: str
    size: int
    md5: bytes
    """Empty where the storage checked another sum when it arrived."""
    crc32: int
    sha256: bytes


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why calls fail at this moment."""

    reason: str
    message: str


Heard = Callable[[Trouble | None], None]
"""Is told of each answer: what was wrong with it, or None. Called in worker threads."""


def nobody_hears(_trouble: Trouble | None) -> None:
    """Nobody wants to know."""


@dataclass(slots=True)
class Traffic:
    """What was sent so far."""

    bytes_sent: int = 0
    """Of objects and parts that the storage acknowledged."""
    failures: int = 0
    """Requests that failed, whether they were repeated or given up."""


class Store(Protocol):
    """One bucket."""

    @property
    def bucket(self) -> str:
        """Name of the bucket."""
        ...

    @property
    def patience(self) -> Patience:
        """How long failing calls are repeated; shared by all of them."""
        ...

    @property
    def trouble(self) -> Trouble | None:
        """What the newest call failed with; None when it succeeded."""
        ...

    @property
    def clock_skew_seconds(self) -> float | None:
        """The storage's clock minus ours, from the newest answer."""
        ...

    @property
    def clock(self) -> Bounds | None:
        """Between which values the storage's clock minus our CLOCK_MONOTONIC lies; None before the first answer."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What `probe` found; before it nothing is taken for granted."""
        ...

    def probe(self, key: str) -> Capabilities:
        """Try, on an object at `key` that it removes again, what the storage keeps of S3's promises; go by it from now on.

        Raises:
            StorageRefusedError: it lacks what nothing can be recorded without.
        """
        ...

    def put(self, key: str, body: bytes | Streamed, content_type: str) -> ObjectInfo:
        """Store an object, replacing what is there."""
        ...

    def put_once(self, key: str, body: bytes | Streamed, content_type: str) -> bool:
        """Store an object unless there is one; False when there was. See `Capabilities.create_once`."""
        ...

    def head(self, key: str) -> ObjectInfo | None:
        """Describe an object; None when there is none."""
        ...

    def get(self, key: str, limit: int) -> bytes | None:
        """Read a whole object of at most `limit` bytes; None when there is none."""
        ...

    def get_range(self, key: str, start: int, size: int) -> bytes:
        """Read `size` bytes from `start`; fewer at the object's end, none when there is no object."""
        ...

    def list(self, prefix: str) -> Iterator[str]:
        """Keys that begin with `prefix`, in the storage's order."""
        ...

    def list_level(self, prefix: str) -> Iterator[str]:
        """Keys of what lies in the folder `prefix` (with a slash at its end), and its folders, with a slash at their end."""
        ...

    def list_objects(self, prefix: str) -> Iterator[Listed]:
        """Objects whose keys begin with `prefix`, with sizes and times."""
        ...

    def versions(self, prefix: str) -> Iterator[Version]:
        """Everything whose key begins with `prefix`, all versions of it where the storage keeps versions and shows them.

        NB: take all of them before the first is removed, which shifts what servers page through.
        """
        ...

    def remove(self, chosen: Sequence[Version]) -> int:
        """Remove up to a thousand of them in one request; how many the storage would not let go."""
        ...

    def delete(self, key: str) -> None:
        """Remove an object; no error when there is none. Where we may not delete, it stays."""
        ...

    def create_upload(self, key: str, content_type: str) -> str:
        """Begin a multipart upload; its id."""
        ...

    def upload_part(self, key: str, upload_id: str, number: int, body: bytes | Streamed) -> Part:
        """Send one part; all sums of it are taken on the way. UploadLostError when the upload is unknown."""
        ...

    def complete_upload(self, key: str, upload_id: str, parts: Sequence[Part]) -> ObjectInfo | None:
        """Make the object of its parts; None when the answer was lost and the upload is gone: look at the object."""
        ...

    def abort_upload(self, key: str, upload_id: str) -> None:
        """Drop an upload and its parts; no error when it is unknown."""
        ...

    def list_uploads(self, key: str) -> tuple[str, ...]:
        """Ids of unfinished uploads of exactly this key."""
        ...

    def unfinished(self, prefix: str) -> Iterator[Unfinished]:
        """Unfinished uploads of all keys that begin with `prefix`. Of a key with several perhaps only some."""
        ...


def clear_abandoned(store: Store, prefix: str) -> int:
    """Abort every unfinished upload below `prefix`; how many there were.

    NB: `prefix` must end with a slash, or it also takes in the uploads of a neighbour whose name begins the same way.

    Raises:
        StorageError: not all could be aborted within the store's patience.
    """
    if not prefix.endswith("/"):
        raise ValueError(f"{prefix!r} is no folder")
    aborted: set[Unfinished] = set()
    # NB: a whole listing first, because aborting meanwhile shifts what servers page through; and again until nothing new is
    # found, because several list only some of a key's uploads where a page ends.
    while found := set(store.unfinished(prefix)) - aborted:
        for upload in found:
            store.abort_upload(upload.key, upload.upload_id)
        aborted |= found
    return len(aborted)
