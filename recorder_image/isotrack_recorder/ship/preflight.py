"""Will the storage take our files? Asked in the first second, not after ninety minutes.

The check does what shipping will do, in the recording's own folder: puts `intent.json` (create-once), reads it back, lists,
probes what the storage keeps of S3's promises (`s3_probe`), and compares clocks. What stays behind belongs there: the
recording's intent is all that somebody needs who has to finish an abandoned recording, the attempt's own says that it began.

A storage that keeps less is used all the same where recordings are right without: the store goes by what it found, and the
warning says what remains to be done by whoever owns the bucket.
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError

from isotrack_api.intent import Intent
from isotrack_recorder.errors import ConfigError, StorageRefusedError
from isotrack_recorder.finalise.names import MAX_NAME_BYTES

from .intents import INTENT_LIMIT, intent_of_an_attempt
from .layout import Layout
from .store import Capabilities, Store

log = logging.getLogger(__name__)

MAX_KEY_BYTES: Final = 1024
"""Of S3."""
SKEW_WARNING_SECONDS: Final = 60.0
"""S3 refuses requests beyond 15 minutes; a clock that is off by one is on its way there and makes start times lie."""


@dataclass(frozen=True, slots=True)
class Preflight:
    """What the check found."""

    created: bool
    """This attempt wrote `intent.json`; False when an earlier one (or an earlier process of this one) had."""
    warning: str = ""
    """One line, for people."""


def check_storage(store: Store, layout: Layout, intent: Intent) -> Preflight:
    """Try the storage. Blocks as long as the store's patience lasts.

    Raises:
        ConfigError: files would have keys that are too long.
        StorageRefusedError: a right is missing, there is no bucket, it does not encrypt as asked, or the folder belongs to
            another recording.
        StorageError: the storage cannot be reached within the store's patience.
    """
    longest = len(layout.file("").encode()) + MAX_NAME_BYTES
    if longest > MAX_KEY_BYTES:
        raise ConfigError(
            f"keys of files may come to {longest} bytes and S3 takes {MAX_KEY_BYTES}: shorten the storage's prefix, or the name of "
            "the Recording"
        )
    body = intent.to_json(indent=2).encode() + b"\n"
    created = store.put_once(layout.intent, body, "application/json")
    found = store.get(layout.intent, INTENT_LIMIT)
    if found is None:
        raise StorageRefusedError(
            f"bucket {store.bucket!r} took {layout.intent!r} but does not give it back: it is no usable S3 storage"
        )
    if found != body and not _is_readable(found, store, layout, intent.recording.uid):
        log.warning("intent was damaged and is written anew", extra={"fields": {"key": layout.intent}})
        store.put(layout.intent, body, "application/json")
    store.put(layout.attempt_intent(intent.attempt), body, "application/json")
    return Preflight(created, try_keys(store, layout.probe(intent.attempt)))


def try_keys(store: Store, stem: str) -> str:
    """Try what shipping does on keys that begin with `stem` (nobody else's), and remove it again. Returns a warning, or nothing.

    Raises:
        StorageRefusedError: a right is missing, there is no bucket, or it does not encrypt as asked.
        StorageError: the storage cannot be reached within the store's patience.
    """
    for left_behind in store.list(stem):  # by a process that was killed at this very point
        store.delete(left_behind)
    for upload in list(store.unfinished(stem)):
        store.abort_upload(upload.key, upload.upload_id)
    capabilities = store.probe(f"{stem}{secrets.token_hex(4)}")
    if capabilities.keeps_versions and not capabilities.retains:
        store.remove([*store.versions(stem)])  # what was deleted is only hidden there
    return "; ".join([*weaknesses(capabilities), *_skew_warning(store.clock_skew_seconds)])


def weaknesses(found: Capabilities) -> list[str]:
    """What of S3's promises the storage does not keep, and what that means; nothing about what we make up for."""
    texts = [
        (
            found.create_once,
            "the storage ignores If-None-Match: what is to be written once is looked for first, which two pods at the same "
            "instant would not notice",
        ),
        (
            found.checks_arrival or found.etag_is_md5,
            "the storage checks no checksum: every file is read back after its upload",
        ),
        (
            found.lists_uploads,
            "the storage does not list unfinished uploads: let the bucket's lifecycle abort them "
            "(AbortIncompleteMultipartUpload)",
        ),
        (
            found.deletes,
            "the credentials may not delete: what is temporary stays until s3:DeleteObject is granted or the bucket's "
            "lifecycle removes it",
        ),
        (
            not found.retains,
            "the bucket locks new objects: what is temporary stays until the retention ends and the bucket's lifecycle removes it",
        ),
    ]
    return [text for kept, text in texts if not kept]


def _is_readable(found: bytes, store: Store, layout: Layout, uid: str) -> bool:
    """Whether the folder's intent is this recording's, as an earlier attempt wrote it; False for one that is damaged.

    NB: what is damaged must not end a recording in mid-call; then an attempt's own intent tells whose folder it is.

    Raises:
        StorageRefusedError: it is that of another recording.
    """
    try:
        intent: Intent | None = Intent.from_json(found)
        readable = True
    except ValidationError:
        intent, readable = intent_of_an_attempt(store, layout), False
    if intent is None or intent.recording.uid != uid:
        raise StorageRefusedError(
            f"{layout.uri(layout.root)} belongs to another recording: empty it, or use another prefix"
        )
    return readable


def _skew_warning(skew: float | None) -> list[str]:
    if skew is None or abs(skew) < SKEW_WARNING_SECONDS:
        return []
    relation = "behind" if skew > 0 else "ahead of"
    return [f"this machine's clock is {abs(skew):.0f} s {relation} the storage's: set the clock"]
