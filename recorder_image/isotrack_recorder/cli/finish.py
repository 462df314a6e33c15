"""From a run's spool to its files, in a folder or in object storage, and what is said about them at the end."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from isotrack_api.intent import Intent
from isotrack_api.manifest import Manifest
from isotrack_recorder.errors import ConfigError, IsotrackError, OutputError

from .changes import plain
from .display import tell
from .trouble import StorageTrouble
from .workspace import Workspace


def how_to_finish(workspace: Workspace) -> str:
    """What to do with a workspace whose files are not made."""
    return f"what was recorded is safe, make the files with: isotrack finalise {workspace.folder}"


@dataclass(frozen=True, slots=True)
class Finished:
    """Files that are made."""

    manifest: Manifest
    place: str
    """Where they lie: a folder or an s3:// address."""


async def finish_workspace(workspace: Workspace, intent: Intent, stream: TextIO) -> Finished:
    """Make the files where `intent` wants them, telling progress on `stream`; then the workspace goes away.

    Raises:
        IsotrackError: they could not be made, or not all of them. The workspace stays.
    """
    progress = Progress(stream)
    try:
        if intent.storage is None:
            finished = await _finish_local(workspace, intent, progress)
        else:
            finished = await _ship(workspace, intent, progress, stream)
        await asyncio.to_thread(_check_that_all_was_read, workspace, finished.place)
    except ConfigError:  # somebody else made them, and says what to do here
        raise
    except Exception:  # whatever it is, a person must know that nothing is lost
        progress.close()
        tell(stream, f"isotrack: {how_to_finish(workspace)}\n")
        raise
    finally:
        progress.close()
    workspace.remove()
    return finished


def _check_that_all_was_read(workspace: Workspace, place: str) -> None:
    """Where a journal does not tell what frames are, no file has them: they must not go away with the workspace.

    Raises:
        IsotrackError: there are such.
    """
    from isotrack_recorder.spool.reader import Spool

    spool = Spool(workspace.spool)
    spool.over = True
    try:
        spool.refresh()
        unread = spool.unknown_logs()
    except OSError as error:
        raise OutputError(f"cannot read {workspace.spool}: {error.strerror}") from error
    if unread:
        raise IsotrackError(f"not all of it could be made into files: {spool.damage()}. Everything else is in {place}")


async def _finish_local(workspace: Workspace, intent: Intent, progress: Progress) -> Finished:
    from isotrack_recorder.finalise.local import MANIFEST_NAME, finish_local

    output = workspace.folder.parent
    if (output / MANIFEST_NAME).exists() and not _is_of(output / MANIFEST_NAME, intent):
        # Two recordings ran into one folder. Neither manifest may replace the other.
        output = output / intent.folder
    manifest = await asyncio.to_thread(finish_local, workspace.spool, intent, output, progress)
    return Finished(manifest, str(output))


def _is_of(manifest: Path, intent: Intent) -> bool:
    """Whether it is this recording's own: of an earlier try, in which not all files could be made."""
    try:
        return Manifest.from_json(manifest.read_bytes()).recording.uid == intent.recording.uid
    except (OSError, ValueError):
        return False


async def _ship(workspace: Workspace, intent: Intent, progress: Progress, stream: TextIO) -> Finished:
    from isotrack_recorder.ship.credentials import AmbientCredentials
    from isotrack_recorder.ship.deliver import Watchers
    from isotrack_recorder.ship.standalone import finish_recording

    watchers = Watchers(progress=progress, storage=StorageTrouble(stream, "trying again, for an hour at most"))
    delivered = await finish_recording(workspace.spool, intent, AmbientCredentials(), watchers)
    committed = delivered.recording or delivered.attempt
    if committed is None:
        raise IsotrackError("the spool holds no recording")
    return Finished(committed.manifest, place_of(intent))


def place_of(intent: Intent) -> str:
    """The `s3://` address of a recording that goes to object storage."""
    assert intent.storage is not None
    return "/".join(filter(None, (f"s3://{intent.storage.bucket}", intent.storage.prefix, intent.folder)))


def print_result(finished: Finished, *, as_json: bool) -> None:
    """Print the manifest or a table of its files on stdout."""
    manifest = finished.manifest
    if as_json:
        sys.stdout.write(manifest.to_json(indent=2) + "\n")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else 200)
    if not manifest.files:
        console.print(Text(f"nobody sent media that was wanted: no files ({manifest.stop_reason})"))
        return
    seconds = manifest.duration_ms / 1000
    table = Table(
        title=Text(f"{len(manifest.files)} files in {finished.place}, {seconds:.1f} s, {manifest.stop_reason}"),
        title_justify="left",
    )
    for name in ("file", "who", "holds"):
        table.add_column(name, overflow="fold")
    for name in ("from", "length", "MB", "lost packets"):
        table.add_column(name, justify="right")
    for file in manifest.files:
        holds = " + ".join(f"{track.source} {track.codec}" for track in file.tracks)
        lost = sum(track.packets_lost for track in file.tracks)
        times = (f"{file.start_offset_ms / 1000:.2f} s", f"{file.duration_ms / 1000:.2f} s")
        cells = (file.name, plain(file.user_id), holds, *times, f"{file.bytes / 1e6:.2f}", str(lost))
        table.add_row(*map(Text, cells))
    console.print(table)


class Progress:
    """Tells how far the files are. Called from worker threads with a file's name and the bytes written so far."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._live = stream.isatty()
        self._current = ""
        self._shown = 0

    def __call__(self, name: str, written: int) -> None:
        """Say which file is being written; on a terminal also how far."""
        if self._live and (name != self._current or written - self._shown > 4_000_000):
            tell(self._stream, f"\r\x1b[Kwriting {plain(name, 100)} {written / 1e6:.1f} MB")
            self._shown = written
        elif not self._live and name != self._current:
            tell(self._stream, f"writing {plain(name, 200)}\n")
        self._current = name

    def close(self) -> None:
        """Leave the line."""
        if self._live and self._current:
            tell(self._stream, "\r\x1b[K")
