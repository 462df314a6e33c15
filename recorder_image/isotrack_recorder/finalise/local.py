"""Finish a recording into a local folder.

Files are written under hidden names (`.….part`) and renamed when they are whole; `recording.json` comes last and at once.
Whoever finds it finds everything that it lists. Finishing twice gives the same files again. A session that cannot be made does not cost
the others: they are made, the manifest says what is missing, and the failure is told when all is done.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from io import FileIO
from pathlib import Path
from typing import Final, Self

from isotrack_api.intent import Intent
from isotrack_api.manifest import Manifest, ManifestFile
from isotrack_recorder.checksums import FileDigest, FileSums
from isotrack_recorder.errors import IsotrackError, OutputError
from isotrack_recorder.spool.reader import Spool

from .manifest import build_manifest, manifest_file
from .model import Progress
from .saved import SessionState
from .session import SessionStream

log = logging.getLogger(__name__)

MANIFEST_NAME: Final = "recording.json"
_READ_BYTES: Final = 1024 * 1024
_GROUPS_AT_ONCE: Final = 12


def finish_local(spool: Path, intent: Intent, output: Path, progress: Progress | None = None) -> Manifest:
    """Make all files of a spool, and their manifest, in `output` (made where it is missing).

    Raises:
        OutputError: `output` cannot be written, or the spool not be read.
        IsotrackError: A session could not be made. Those of the others, and a manifest that says so, are in `output`.
    """
    entries: list[ManifestFile] = []
    failures: list[tuple[str, Exception]] = []
    try:
        source = Spool(spool)
        source.over = True
        source.refresh()
        output.mkdir(parents=True, exist_ok=True)
        for peer_id in list(source.facts.peers):
            try:
                _write_session(source, intent, peer_id, output, progress, entries)
            except OSError as error:
                failures.append((peer_id, error))
            except Exception as error:  # one session that cannot be made must not cost the others
                log.exception("session could not be made", extra={"fields": {"peer_id": peer_id}})
                failures.append((peer_id, error))
        manifest = build_manifest(source, intent, entries)
        if failures:
            manifest = manifest.model_copy(update={"complete": False, "message": _said_of(failures)[:512]})
        _write_atomically(output / MANIFEST_NAME, manifest.to_json(indent=2).encode() + b"\n")
    except OSError as error:
        raise OutputError(f"cannot finish the files in {output}: {_cause(error)}") from error
    if failures:
        text = f"cannot finish all files in {output}: {_said_of(failures)}"
        # A bug of ours decides what is said: a disk that fails can be seen, and may pass
        fault = next((error for _, error in failures if not isinstance(error, OSError)), None)
        if fault is None:
            raise OutputError(text) from failures[0][1]
        raise IsotrackError(text) from fault
    return manifest


def _said_of(failures: Sequence[tuple[str, Exception]]) -> str:
    """Which sessions could not be made, and why the first one."""
    peer_id, error = failures[0]
    more = f", nor {len(failures) - 1} more" if len(failures) > 1 else ""
    return f"session {peer_id!r} could not be made: {_cause(error)}{more}"


def _cause(error: Exception) -> str:
    if not isinstance(error, OSError):
        return type(error).__name__
    return f"{error.strerror}" + (f" ({error.filename})" if error.filename else "")


def _write_session(
    spool: Spool, intent: Intent, peer_id: str, output: Path, progress: Progress | None, entries: list[ManifestFile]
) -> None:
    """Make the files of one session; each that is whole is added to `entries`."""
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
                return
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
