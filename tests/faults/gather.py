"""Fetch what a trial left in the bucket."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from isotrack_api.manifest import Manifest, ManifestFile
from isotrack_recorder.errors import ParseError
from support.bucket import Bucket

from .evidence import Evidence, Kill, Recorded, tracks_of
from .people import Ledger
from .pods import Recorder

_ATTEMPT: Final = re.compile(r"attempts/([1-9][0-9]*)/manifest\.json")


@dataclass(frozen=True, slots=True)
class Done:
    """What the trial did, beside what the bucket says."""

    pods: Sequence[Recorder]
    """In order of their attempts; the last one ended the recording."""
    ledger: Ledger
    obliged: tuple[float, float]
    kills: Sequence[Kill] = ()
    faults: Mapping[str, int] | None = None
    reports: Sequence[Mapping[str, Any]] = ()
    """What the API server was told, in order."""


def gather(
    bucket: Bucket, done: Done, more_outputs: Mapping[str, bytes] | None = None, *, last_words: bool = True
) -> Evidence:
    """Everything as plain values. The ledger must be complete.

    Args:
        more_outputs: Of others than the pods' processes.
        last_words: Whether the last pod ended the recording; else its last words say nothing about it.
    """
    prefix = done.pods[0].prefix
    keys = tuple(key.removeprefix(prefix) for key in bucket.keys(prefix))
    objects = {key: bucket.read(prefix + key) for key in keys}
    manifest = _manifest(objects.get("recording.json", b""))
    recorded, unreadable = _recorded(manifest, objects, done.ledger)
    outputs = {name: content for pod in done.pods for name, content in pod.outputs().items()}
    outputs |= {f"report {number}": json.dumps(report).encode() for number, report in enumerate(done.reports)}
    return Evidence(
        published=done.ledger.published,
        obliged=done.obliged,
        kills=tuple(done.kills),
        faults=done.faults or {},
        keys=keys,
        objects=objects,
        uploads=tuple(key.removeprefix(prefix) for key in bucket.uploads(prefix)),
        outputs={**outputs, **(more_outputs or {})},
        termination=done.pods[-1].termination if last_words else None,
        reports=tuple(done.reports),
        secrets={what: secret for pod in done.pods for what, secret in pod.secrets().items()},
        manifest=manifest,
        attempts={
            int(match[1]): attempt
            for key in keys
            if (match := _ATTEMPT.fullmatch(key)) and (attempt := _manifest(objects[key])) is not None
        },
        recovered=_files_of(objects.get("attempts/recovered.json", b"{}")),
        recorded=tuple(recorded),
        unreadable=tuple(unreadable),
    )


def _recorded(
    manifest: Manifest | None, objects: Mapping[str, bytes], ledger: Ledger
) -> tuple[list[Recorded], list[str]]:
    recorded: list[Recorded] = []
    unreadable: list[str] = []
    for file in manifest.files if manifest else ():
        try:
            recorded += tracks_of(file, objects.get(file.name, b""), ledger.stamps)
        except (ParseError, ValueError):
            unreadable.append(file.name)
    return recorded, unreadable


def _manifest(body: bytes) -> Manifest | None:
    try:
        return Manifest.model_validate_json(body)
    except ValidationError:
        return None


def _files_of(body: bytes) -> tuple[ManifestFile, ...]:
    try:
        return tuple(ManifestFile.model_validate(file) for file in json.loads(body).get("files", ()))
    except ValueError:
        return ()
