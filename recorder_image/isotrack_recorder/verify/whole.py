"""What of a file as a whole, of what lies beside it, or of the manifest by itself, contradicts the manifest. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from isotrack_api.base import MediaKind
from isotrack_api.manifest import Manifest, ManifestFile
from isotrack_recorder.checksums import FileDigest
from isotrack_recorder.errors import ParseError
from isotrack_recorder.finalise.manifest import lost_ms
from isotrack_recorder.finalise.summary import contradictions
from isotrack_recorder.matroska.muxer import tag_value
from isotrack_recorder.matroska.reader import read_file

from .seen import Seen

START_MS: Final = 0.5
DURATION_MS: Final = 1.5
"""Container and manifest: both are whole milliseconds."""


def judge_manifest(manifest: Manifest) -> tuple[str, ...]:
    """What the manifest contradicts itself in."""
    lost = lost_ms(manifest.files)
    problems = []
    if lost != manifest.lost_ms:
        problems.append(f"the manifest says {manifest.lost_ms} ms lost, its gaps come to {lost} ms")
    if len({file.name for file in manifest.files}) != len(manifest.files):
        problems.append("two files of the manifest share a name")
    last_ms = max((file.start_offset_ms + file.duration_ms for file in manifest.files), default=0)
    if manifest.duration_ms < last_ms:
        problems.append(f"the manifest says that the recording lasts {manifest.duration_ms} ms, its files {last_ms} ms")
    if manifest.complete and manifest.unrecorded:
        problems.append("the manifest says that nothing is missing, and names tracks that could not be recorded")
    return tuple(problems)


def judge_others(others: Iterable[tuple[str, bytes]]) -> Iterator[str]:
    """What lies beside the files of a manifest.

    Args:
        others: Names of further files, and how each begins. What is none of ours is nobody's business.
    """
    for name, head in others:
        try:
            is_ours = read_file(head).app.startswith("isotrack/")
        except ParseError:
            continue
        if is_ours:
            yield f"{name[:200]!r} lies in the recording's folder and is not in the manifest"


def _wrong_sums(file: ManifestFile, found: FileDigest) -> list[str]:
    """Names of the checksums that the manifest states and the bytes do not have."""
    stated = (
        ("sha256", file.sha256, found.sha256),
        ("partsSha256", file.parts_sha256, found.parts_sha256),
        ("crc32", file.crc32, f"{found.crc32:08x}"),
    )
    return [name for name, wanted, is_ in stated if wanted is not None and wanted != is_]


def file_problems(file: ManifestFile, size: int, digest: FileDigest, seen: Seen) -> Iterator[str]:
    """What concerns the file and no track."""
    for said, true in contradictions(file.summary, file):
        yield f"the summary in the manifest says {said}, its tracks say {true or 'nothing of it'}"
    if size != file.bytes:
        yield f"the file has {size} bytes, the manifest says {file.bytes}"
    elif wrong := _wrong_sums(file, digest):
        yield f"{' and '.join(wrong)} {'differs' if len(wrong) == 1 else 'differ'} from the manifest: the file was changed"
    if seen.problem:
        yield seen.problem
        return
    if abs(seen.start_ms) > START_MS:
        yield f"the file starts at {seen.start_ms:.1f} ms instead of 0"
    if abs(seen.duration_ms - file.duration_ms) > DURATION_MS:
        yield f"the file's duration is {seen.duration_ms:.0f} ms, the manifest says {file.duration_ms} ms"
    yield from _wrong_tags(file, seen)
    wanted, found = ([(t.kind, t.codec) for t in file.tracks], [(s.kind, s.codec) for s in seen.streams])
    if wanted != found:
        yield f"the file holds {_kinds(found)}, the manifest says {_kinds(wanted)}"


def _wrong_tags(file: ManifestFile, seen: Seen) -> Iterator[str]:
    """What the file says of itself otherwise than the manifest. A tag that had no room says nothing."""
    of_file = {
        "USER_ID": file.user_id,
        "PEER_ID": file.peer_id,
        "PARTICIPANT": file.participant_name,
        "START_OFFSET_MS": str(file.start_offset_ms),
    }
    of_tracks = (
        ({"SOURCE": str(row.source), "TRACK_ID": row.track_id}, one.tags) for row, one in zip(file.tracks, seen.streams)
    )
    for said, tags in ((of_file, seen.tags), *of_tracks):
        for name, value in said.items():
            found = tags.get(name)
            if found is not None and not _is_same(found, tag_value(value)):
                yield f"the file's tag {name} is {found[:100]!r}, the manifest says {value[:100]!r}"


def _is_same(found: str, said: str) -> bool:
    """Whether a tag says so: earlier versions replaced more characters than this one does."""
    return len(found) == len(said) and all(a in (b, "\N{REPLACEMENT CHARACTER}") for a, b in zip(found, said))


def _kinds(tracks: Sequence[tuple[MediaKind, str]]) -> str:
    return " + ".join(codec for _, codec in tracks) or "nothing"
