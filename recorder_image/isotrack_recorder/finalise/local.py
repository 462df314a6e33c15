"""Finish a recording into a local folder.

Files are written under hidden names (`.….part`) and renamed when they are whole; `recording.json` comes last and at once.
Whoever finds it finds everything that it lists. Finishing twice gives the same files again.
"""

from __future__ import annotations

import hashlib
import os
from io import FileIO
from pathlib import Path
from typing import Final, Self

from isotrack_api.intent import Intent
from isotrack_api.manifest import Manifest, ManifestFile
from isotrack_recorder.checksums import FileDigest, FileSums
from isotrack_recorder.errors import OutputError
from isotrack_recorder.spool.reader import Spool

from .manifest import build_manifest, manifest_file
from .model import Progress
from .session import SessionState, SessionStream

MANIFEST_NAME: Final = "recording.json"
_READ_BYTES: Final = 1024 * 1024
_GROUPS_AT_ONCE: Final = 12


def finish_local(spool: Path, intent: Intent, output: Path, progress: Progress | None = None) -> Manifest:
    """Make all files of a spool, and their manifest, in `output` (made where it is missing).

    Raises:
        OutputError: `output` cannot be written, or the spool not be read.
    """
    try:
        source = Spool(spool)
        source.refresh()
        output.mkdir(parents=True, exist_ok=True)
        entries = [
            entry
            for peer_id in list(source.facts.peers)
            for entry in _write_session(source, intent, peer_id, output, progress)
        ]
        manifest = build_manifest(source, intent, entries)
        _write_atomically(output / MANIFEST_NAME, manifest.to_json(indent=2).encode() + b"\n")
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        raise OutputError(f"cannot finish the files in {output}: {error.strerror}{place}") from error
    return manifest


def _write_session(
    spool: Spool, intent: Intent, peer_id: str, output: Path, progress: Progress | None
) -> list[ManifestFile]:
    entries: list[ManifestFile] = []
    with LocalFiles(output, progress) as files:
        stream = SessionStream(spool, intent, SessionState(peer_id), files)
        while True:
            more = stream.advance(whole=True, most_groups=_GROUPS_AT_ONCE)
            for part in [part for part in stream.state.parts if part.result is not None]:
                assert part.result is not None
                entries.append(manifest_file(part.plan, part.result, files.keep(part.plan.name)))
                stream.forget(part.plan.name)
            if more:
                continue
            if not stream.goes_on():
                return entries
            stream.come_back()


class LocalFiles:
    """A FileSink whose files lie in a folder, under hidden names until they are kept. What is not kept goes away at the end."""

    def __init__(self, folder: Path, progress: Progress | None = None) -> None:
        self._folder = folder
        self._progress = progress
        self._open: dict[str, tuple[Path, FileIO]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for path, file in self._open.values():
            file.close()
            path.unlink(missing_ok=True)

    def write(self, name: str, offset: int, data: bytes) -> None:
        """See FileSink."""
        opened = self._open.get(name)
        if opened is None:
            path = self._folder / f".{hashlib.sha256(name.encode()).hexdigest()[:16]}.part"
            opened = self._open[name] = (path, FileIO(path, "w+"))
        _, file = opened
        file.seek(offset)
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]
        if self._progress is not None and offset:
            self._progress(name, offset + len(data))

    def keep(self, name: str) -> FileDigest:
        """Give a finished file its name."""
        path, file = self._open.pop(name)
        try:
            with file:
                file.seek(0)
                sums = FileSums()
                while data := file.read(_READ_BYTES):
                    sums.update(data)
            path.rename(self._folder / name)
        finally:
            path.unlink(missing_ok=True)
        return sums.digest()


def _write_atomically(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
