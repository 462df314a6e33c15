"""Manifests: one per attempt, and `recording.json` over all of them when the recording is over.

Several attempts may be at work at the same time: the one before drains while the next one records. So `recording.json` is a
pure function of the attempt manifests in the bucket, and whoever writes one of those last makes it true:

    the attempt that ends the recording      put own manifest → list → merge → put recording.json → list again, same?
    an earlier one that comes in late        put own manifest → is there a recording.json? → list → merge → put

Whichever way the two interleave, the later of them sees the other's manifest. At any moment one writer is at it, and equal
inputs give equal bytes: a repetition changes nothing. Files that `recover` made of checkpoints stand in a list of their own
(`attempts/recovered.json`), so that no attempt's manifest ever has two writers that know different things.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pydantic import ValidationError

from isotrack_api.base import ApiModel
from isotrack_api.manifest import Manifest, StopReason
from isotrack_recorder.errors import StorageError
from isotrack_recorder.finalise.manifest import merge_manifests, with_files

from .layout import Layout
from .recovered import Recovered
from .store import Store

log = logging.getLogger(__name__)

MANIFEST_LIMIT: Final = 64 * 1024 * 1024
ROUNDS: Final = 5
NO_ENDS: Final = (StopReason.DRAINED, StopReason.FENCED, StopReason.INTERNAL_ERROR)
"""Ends of an attempt that do not say why the recording is over."""
CONTENT_TYPE: Final = "application/json"


@dataclass(frozen=True, slots=True)
class Committed:
    """A manifest in the bucket."""

    manifest: Manifest
    uri: str
    digest: str
    """`sha256:<hex>` of the object."""


def put_attempt(store: Store, layout: Layout, attempt: int, manifest: Manifest) -> Committed:
    """Write the manifest of one attempt, unless it is there as it is."""
    return _put(store, layout, layout.attempt_manifest(attempt), manifest)


def conclude(store: Store, layout: Layout) -> Committed | None:
    """Write `recording.json` from all attempt manifests; None when there is none."""
    committed: Committed | None = None
    merged_of: set[int] = set()
    for _ in range(ROUNDS):
        keys = attempt_keys(store, layout)
        ended = layout.ended(keys)
        if committed is not None and ended == merged_of:
            return committed
        manifests = attempt_manifests(store, layout, ended)
        if not manifests:
            return None
        merged = _declare_silent(merge_manifests(manifests), layout.begun(keys) - ended)
        merged = _with_recovered(merged, manifests, read_recovered(store, layout) if layout.recovered in keys else None)
        committed, merged_of = _put(store, layout, layout.recording, merged), ended
    return committed


def read_recovered(store: Store, layout: Layout) -> Recovered | None:
    """What was made of checkpoints; None where nothing was, or where it cannot be read."""
    body = store.get(layout.recovered, MANIFEST_LIMIT)
    try:
        return Recovered.from_json(body) if body is not None else None
    except ValidationError:
        log.warning("list of recovered files is not readable")
        return None


def put_recovered(store: Store, layout: Layout, recovered: Recovered) -> None:
    """Write what was made of checkpoints, unless it is there as it is."""
    _put_json(store, layout.recovered, recovered)


def _with_recovered(whole: Manifest, attempts: Iterable[Manifest], recovered: Recovered | None) -> Manifest:
    """Add files that were made of checkpoints; say so where they should have been and were not."""
    done = recovered.attempts if recovered is not None else frozenset()
    left = [row.attempts[-1].n for row in attempts if row.unfinished and row.attempts[-1].n not in done]
    if recovered is not None:
        whole = with_files(whole, recovered.files)
        if recovered.stop_reason is not None and whole.stop_reason in NO_ENDS:
            how = {"stop_reason": recovered.stop_reason, "message": recovered.message or whole.message}
            whole = whole.model_copy(update=how)
    missing = recovered.missing if recovered is not None else ""
    # NB: as long as some cannot be made, nothing counts as made: that is no word of what is there
    if left and not missing:
        missing = f"checkpoints of attempt {', '.join(map(str, left))} are not there: some sessions are missing"
    if not missing:
        return whole
    return whole.model_copy(update={"complete": False, "message": f"{missing}. {whole.message}".strip()[:512]})


def _declare_silent(manifest: Manifest, silent: set[int]) -> Manifest:
    """Attempts that began and left no manifest were lost with their spool, or are still at it: say so."""
    if not silent:
        return manifest
    numbers = ", ".join(map(str, sorted(silent)))
    text = f"attempt {numbers} left no manifest: what it captured and had not shipped is missing. {manifest.message}"
    return manifest.model_copy(update={"complete": False, "message": text.strip()[:512]})


def is_concluded(store: Store, layout: Layout) -> bool:
    """Whether some attempt has written `recording.json`."""
    return store.head(layout.recording) is not None


def attempt_keys(store: Store, layout: Layout) -> list[str]:
    """What lies in the folders of attempts, without the checkpoints: their folders only, for there are thousands in a long call."""
    above = list(store.list_level(layout.attempts))
    return above + [key for folder in above if folder.endswith("/") for key in store.list_level(folder)]


def attempt_manifests(store: Store, layout: Layout, numbers: Iterable[int]) -> list[Manifest]:
    """Read manifests of attempts, in order of their number. What is not readable is left out, and logged."""
    found: list[Manifest] = []
    for number in sorted(numbers):
        body = store.get(layout.attempt_manifest(number), MANIFEST_LIMIT)
        try:
            if body is not None:
                found.append(Manifest.from_json(body))
        except ValidationError:
            log.warning("attempt manifest is not readable", extra={"fields": {"attempt": number}})
    return found


def _put(store: Store, layout: Layout, key: str, manifest: Manifest) -> Committed:
    body = _put_json(store, key, manifest)
    return Committed(manifest, layout.uri(key), f"sha256:{hashlib.sha256(body).hexdigest()}")


def _put_json(store: Store, key: str, value: ApiModel) -> bytes:
    body = value.to_json(indent=2).encode() + b"\n"
    if store.get(key, MANIFEST_LIMIT) != body:
        store.put(key, body, CONTENT_TYPE)
        if store.get(key, MANIFEST_LIMIT) != body:
            raise StorageError(f"{key!r} reads back differently from the bucket")
    return body


def known_epoch(store: Store, layout: Layout) -> int | None:
    """Zero of the call's timeline as earlier attempts set it, Unix milliseconds; None when none left a manifest."""
    found = attempt_manifests(store, layout, layout.ended(attempt_keys(store, layout)))
    return round(datetime.fromisoformat(found[0].started_at).timestamp() * 1000) if found else None
