"""Judge a recording by what lies in the bucket (pure).

Each check is a function named as what must hold; it yields a text for every instance in which it does not. All of them run,
whatever the earlier ones find. That each of them can fail is shown by `tests/unit/faults/test_validate.py`.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

from isotrack_api.manifest import Manifest, ManifestFile
from isotrack_recorder.checksums import FileSums
from isotrack_recorder.finalise.gaps import LOSSES
from support.secrecy import told_secrets

from .evidence import Evidence
from .losses import Hole, holes, positions

DECLARED_MS: Final = 100.0
"""How far outside a declared gap a missing payload may lie."""
PLACED_MS: Final = 400.0
"""How far the timeline may be from the clock by which things were sent: everything runs on one machine. Coarse on purpose: that
the timeline is exact is shown elsewhere; here a restart must not have moved it."""
LEAST_SENT: Final = 50
"""A source that sent less was hardly there."""
_KNOWN_KEYS: Final = re.compile(
    r"intent\.json|recording\.json|attempts/recovered\.json|attempts/[1-9][0-9]*/(intent|claim|manifest)\.json"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a fault may cost."""

    lost_seconds: float
    """Captured media."""
    gap_seconds: float
    """Until capture goes on."""
    complete: bool = True
    """What `recording.json` has to say."""
    placed_ms: float = PLACED_MS
    """How far from its place on the timeline anything may lie."""


NOTHING_LOST: Final = Bounds(lost_seconds=0.0, gap_seconds=0.0)


class Finding(NamedTuple):
    """A promise that does not hold."""

    check: str
    text: str


Check = Callable[[Evidence, Bounds], Iterator[str]]


def validate(evidence: Evidence, bounds: Bounds) -> tuple[Finding, ...]:
    """All that is wrong with a recording."""
    return tuple(
        Finding(check.__name__, text)
        for check in CHECKS
        if evidence.manifest is not None or check in WITHOUT_MANIFEST
        for text in check(evidence, bounds)
    )


def invalid(evidence: Evidence) -> tuple[str, ...]:
    """Why a trial proves nothing: neither passed nor failed."""
    found = [
        f"{source.user_id}'s {source.name} sent only {len(published.sent)} payloads"
        for source, published in evidence.published.items()
        if len(published.sent) < LEAST_SENT
    ]
    found += [f"the kill of {kill.victim} hit nothing" for kill in evidence.kills if not kill.hit]
    found += [f"{fault} was not seen to happen" for fault, count in evidence.faults.items() if not count]
    if not evidence.published:
        found.append("nobody was in the call")
    if not evidence.kills and not evidence.faults:
        found.append("nothing was done to the recording")
    return tuple(found)


# ── media ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def recorded_was_published(evidence: Evidence, _: Bounds) -> Iterator[str]:
    """Nothing is in a file that its person did not send."""
    for track in evidence.recorded:
        published = evidence.published.get(track.source)
        unknown = [p.serial for p in track.placed if published is None or p.serial not in published.sent]
        if unknown:
            yield f"{track.file}: serials that nobody sent: {unknown[:10]}"
        if track.strange:
            yield f"{track.file}: {track.strange} payloads of {track.source.name} are neither sent nor declared silence"
        if track.mixed:
            yield f"{track.file}: {track.source.name} has payloads of other sources: {track.mixed[:10]}"


def order_is_kept(evidence: Evidence, _: Bounds) -> Iterator[str]:
    """Within a file, serials and times only grow."""
    for track in evidence.recorded:
        for before, after in pairwise(track.placed):
            if after.serial < before.serial:
                yield f"{track.file}: {track.source.name} {after.serial} follows {before.serial}"
            if after.at_ms < before.at_ms:
                yield f"{track.file}: {track.source.name} goes back from {before.at_ms} to {after.at_ms} ms"


def nothing_is_there_twice(evidence: Evidence, _: Bounds) -> Iterator[str]:
    """A payload is in one file of an attempt once."""
    counts: Counter[tuple[int, object, int]] = Counter()
    for track in evidence.recorded:
        counts.update((track.attempt, track.source, placed.serial) for placed in track.placed)
    twice = [(attempt, source, serial) for (attempt, source, serial), count in counts.items() if count > 1]
    if twice:
        yield f"{len(twice)} payloads are there more than once: {twice[:5]}"


def missing_is_declared(evidence: Evidence, _: Bounds) -> Iterator[str]:
    """Every missing payload lies in a gap that its track declares as a loss; it was sent, so silence is no reason.

    What a lost pod had not copied at the beginning or the end of a recording nobody can know: there `complete: false` says it.
    """
    for hole in holes(evidence):
        if hole.at_an_end and not _manifest(evidence).complete:
            continue
        tracks = [track for track in evidence.recorded if track.source == hole.source]
        gaps = [gap for track in tracks for gap in track.gaps if gap.reason in LOSSES]
        bare = [
            serial
            for serial, at in zip(hole.serials, hole.times_ms, strict=True)
            if not any(gap.start_ms - DECLARED_MS <= at <= gap.start_ms + gap.duration_ms + DECLARED_MS for gap in gaps)
        ]
        if bare:
            yield f"{_name(hole)}: {len(bare)} of {len(hole.serials)} are in no declared gap, from {hole.times_ms[0]:.0f} ms"


def loss_is_within_bounds(evidence: Evidence, bounds: Bounds) -> Iterator[str]:
    """What is missing belongs to something that was done, and is no more than that may cost."""
    for hole in holes(evidence):
        if not hole.kills:
            yield f"{_name(hole)}: {hole.ended - hole.began:.2f} s are missing although nothing was done then"
            continue
        if hole.lost_seconds > bounds.lost_seconds:
            yield f"{_name(hole)}: {hole.lost_seconds:.2f} s of captured media lost, {bounds.lost_seconds:g} may be"
        if hole.gap_seconds > bounds.gap_seconds:
            yield f"{_name(hole)}: {hole.gap_seconds:.2f} s until media came again, {bounds.gap_seconds:g} may be"


def everything_is_in_its_place(evidence: Evidence, bounds: Bounds) -> Iterator[str]:
    """A restart does not move the timeline."""
    limit = bounds.placed_ms
    for source, published in evidence.published.items():
        for serial, at_ms in positions(evidence, source).items():
            if serial in published.sent and abs(at_ms - (published.sent[serial] - evidence.zero) * 1000) > limit:
                expected = (published.sent[serial] - evidence.zero) * 1000
                yield f"{source.user_id}'s {source.name} {serial} is at {at_ms:.0f} ms instead of {expected:.0f}"
                break


# ── the bucket ───────────────────────────────────────────────────────────────────────────────────────────────────────


def there_is_one_recording_json(evidence: Evidence, _: Bounds) -> Iterator[str]:
    """The recording is concluded once, where it belongs, and readable."""
    found = [key for key in evidence.keys if key.rpartition("/")[2] == "recording.json"]
    if found != ["recording.json"]:
        yield f"recording.json: {found}"
    elif evidence.manifest is None:
        yield "recording.json is not readable"


def manifest_says_whether_it_is_complete(evidence: Evidence, bounds: Bounds) -> Iterator[str]:
    manifest = _manifest(evidence)
    if manifest.complete != bounds.complete:
        yield f"recording.json says complete = {manifest.complete}: {manifest.message}"


def attempts_agree_with_it(evidence: Evidence, _: Bounds) -> Iterator[str]:
    """`recording.json` is the sum of the attempts' manifests, and of what was made of checkpoints."""
    whole = {file.name: file for file in _manifest(evidence).files}
    parts = {file.name: file for manifest in evidence.attempts.values() for file in manifest.files}
    parts |= {file.name: file for file in evidence.recovered}
    for name in sorted(whole.keys() | parts.keys()):
        if whole.get(name) != parts.get(name):
            yield f"{name}: recording.json and the attempt's manifest differ"
    listed = [attempt.n for attempt in _manifest(evidence).attempts]
    if sorted(evidence.attempts) != listed:
        yield f"recording.json lists attempts {listed}, manifests are there of {sorted(evidence.attempts)}"


def files_are_there_as_listed(evidence: Evidence, _: Bounds) -> Iterator[str]:
    """Each listed file is in the bucket with its size and digest, and reads as Matroska."""
    for file in _manifest(evidence).files:
        content = evidence.objects.get(file.name)
        if content is None:
            yield f"{file.name} is not in the bucket"
        elif len(content) != file.bytes or not _has_sums(file, content):
            yield f"{file.name} has {len(content)} bytes in the bucket and another digest than listed"
    yield from (f"{name} is no readable file" for name in evidence.unreadable)


def _has_sums(file: ManifestFile, content: bytes) -> bool:
    """Whether each checksum that the manifest states is that of the content."""
    sums = FileSums(file.part_bytes)
    sums.update(content)
    digest = sums.digest()
    return all(
        stated in (None, found)
        for stated, found in (
            (file.sha256, digest.sha256),
            (file.parts_sha256, digest.parts_sha256),
            (file.crc32, f"{digest.crc32:08x}"),
        )
    )


def nothing_is_left_over(evidence: Evidence, _: Bounds) -> Iterator[str]:
    """No unfinished upload, checkpoint, probe or forgotten file."""
    listed = {file.name for file in _manifest(evidence).files}
    for key in evidence.keys:
        if key not in listed and not _KNOWN_KEYS.fullmatch(key):
            yield f"{key} belongs to nothing"
    yield from (f"an upload of {key} was never completed" for key in evidence.uploads)


def last_words_agree(evidence: Evidence, _: Bounds) -> Iterator[str]:
    """What the agent says at its end is what lies in the bucket."""
    manifest, said = _manifest(evidence), evidence.termination
    if said is None:
        return
    body = evidence.objects.get("recording.json", b"")
    expected = {
        "reason": "Uploaded" if manifest.complete else "PartiallyUploaded",
        "stopReason": manifest.stop_reason.value,
        "files": len(manifest.files),
        "bytes": sum(file.bytes for file in manifest.files),
        "lostMs": manifest.lost_ms,
        "manifestDigest": f"sha256:{hashlib.sha256(body).hexdigest()}",
    }
    for key, value in expected.items():
        if said.get(key) != value:
            yield f"the termination message says {key} = {said.get(key)!r}, the bucket {value!r}"


def status_agrees_with_the_bucket(evidence: Evidence, _: Bounds) -> Iterator[str]:
    """What the API server was told last is what lies in the bucket; and no file was announced that is not there."""
    if not evidence.reports:
        return
    manifest, last = _manifest(evidence), evidence.reports[-1]
    if last.get("phase") != "Finished":
        yield f"the last report says phase {last.get('phase')!r}"
    digest = f"sha256:{hashlib.sha256(evidence.objects.get('recording.json', b'')).hexdigest()}"
    if last.get("manifest", {}).get("digest") != digest:
        yield f"the last report names the manifest {last.get('manifest')}, the bucket's is {digest}"
    listed = {(file.name, file.bytes, file.sha256) for file in manifest.files}
    told = {(file["name"], file["bytes"], file.get("sha256")) for file in last.get("files", ())}
    if told != listed:
        yield f"the last report lists {sorted(name for name, *_ in told)}, recording.json {sorted(name for name, *_ in listed)}"
    for report in evidence.reports:
        early = {file["name"] for file in report.get("files", ())} - {file.name for file in manifest.files}
        if early:
            yield f"files were announced that are not there: {sorted(early)}"


def no_secret_is_told(evidence: Evidence, _: Bounds) -> Iterator[str]:
    """No secret is in any log, last word or object; nor anything that looks like a token."""
    yield from told_secrets({**evidence.outputs, **evidence.objects}, evidence.secrets)


CHECKS: Final[tuple[Check, ...]] = (
    there_is_one_recording_json,
    no_secret_is_told,
    manifest_says_whether_it_is_complete,
    attempts_agree_with_it,
    files_are_there_as_listed,
    nothing_is_left_over,
    last_words_agree,
    status_agrees_with_the_bucket,
    recorded_was_published,
    order_is_kept,
    nothing_is_there_twice,
    everything_is_in_its_place,
    missing_is_declared,
    loss_is_within_bounds,
)
WITHOUT_MANIFEST: Final = frozenset((there_is_one_recording_json, no_secret_is_told))
"""The others have nothing to judge by when there is no readable `recording.json`."""


def _manifest(evidence: Evidence) -> Manifest:
    assert evidence.manifest is not None
    return evidence.manifest


def _name(hole: Hole) -> str:
    span = f"{hole.serials[0]}–{hole.serials[-1]}" if len(hole.serials) > 1 else str(hole.serials[0])
    return f"{hole.source.user_id}'s {hole.source.name} {span}"
