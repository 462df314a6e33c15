"""`isotrack finalise`: make the files of a run that was cut off, from the folder or the bucket that it left behind."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

from isotrack_api.manifest import Manifest
from isotrack_recorder.errors import ConfigError, OutputError
from isotrack_recorder.logs import check_choices, configure_logging
from isotrack_recorder.ship.address import folder_of

from .display import tell
from .finish import Finished, Progress, finish_workspace, print_result
from .trouble import StorageTrouble
from .workspace import PREFIX, Workspace

if TYPE_CHECKING:
    from isotrack_api.intent import Intent
    from isotrack_recorder.ship.recover import Recovery

PATIENCE_SECONDS: Final = 600.0
"""How long a storage that fails is tried, in a row. A person waits, and can try again."""


def run(arguments: argparse.Namespace) -> int:
    """Make the files. Returns 0.

    Raises:
        IsotrackError: there is no unfinished recording, it is still at work, or the files could not be made (what there is stays).
    """
    check_choices(os.environ)
    configure_logging(os.environ, sys.stderr, default_level="error", default_format="text")
    place = str(arguments.folder)
    if "://" in place:
        finished = asyncio.run(_finish_bucket(place, os.environ, force=arguments.force))
    else:
        finished = _finish_folder(Path(place))
    print_result(finished, as_json=arguments.json)
    return 0


def _finish_folder(folder: Path) -> Finished:
    found = _left_behind(folder.resolve())
    if isinstance(found, Finished):
        return found
    workspace = found
    intent = workspace.read_intent()
    try:
        workspace.lock()
    except OSError as error:
        raise OutputError(f"cannot write to {workspace.folder}: {error.strerror}") from error
    return asyncio.run(finish_workspace(workspace, intent, sys.stderr))


def _left_behind(folder: Path) -> Workspace | Finished:
    """What a person means: what a run left behind, the output folder in which that lies, or a recording of which nothing is left to be made.

    Raises:
        ConfigError: the output folder holds what several runs left behind.
    """
    if (folder / "intent.json").exists():
        return Workspace(folder)
    rests = sorted(path.parent for path in folder.glob(f"{PREFIX}*/intent.json"))
    if len(rests) > 1:
        raise ConfigError(f"several recordings were left behind in {folder}, name one: {', '.join(map(str, rests))}")
    if rests:
        return Workspace(rests[0])
    return _finished(folder) or Workspace(folder)


def _finished(folder: Path) -> Finished | None:
    """The recording that lies in an output folder, or was made of a folder that is gone."""
    uid = folder.name.removeprefix(PREFIX) if folder.name.startswith(PREFIX) else ""
    outputs = [folder.parent, *sorted(folder.parent.glob(f"*-{uid}"))] if uid else [folder]
    for output in outputs:
        try:
            manifest = Manifest.from_json((output / "recording.json").read_bytes())
        except (OSError, ValueError):
            continue
        if manifest.recording.uid.startswith(uid):
            return Finished(manifest, str(output))
    return None


async def _finish_bucket(place: str, environ: Mapping[str, str], *, force: bool) -> Finished:
    from isotrack_recorder.ship.abandoned import open_folder
    from isotrack_recorder.ship.credentials import AmbientCredentials
    from isotrack_recorder.ship.deliver import Watchers
    from isotrack_recorder.ship.lanes import Lanes
    from isotrack_recorder.ship.recover import Recovery
    from isotrack_recorder.ship.retry import Patience
    from isotrack_recorder.ship.s3 import S3Store

    destination, root = folder_of(place, environ)
    patience = Patience(in_a_row=PATIENCE_SECONDS)
    progress = Progress(sys.stderr)
    with closing(Lanes()) as lanes:
        try:
            trouble = StorageTrouble(sys.stderr, f"trying again, for {PATIENCE_SECONDS / 60:.0f} minutes at most")
            store = S3Store(destination, AmbientCredentials(), patience, trouble)
            layout, intent = await lanes.request(open_folder, store, destination, root)
            scratch = Path(tempfile.gettempdir())
            recovery = Recovery(store, lanes, layout, scratch, intent, watchers=Watchers(progress=progress))
            if not force:
                await _check_nobody_is_at_work(recovery, intent, layout.uri(root))
            committed = await recovery.finalise()
        finally:
            progress.close()
            patience.end_within(0)
    if committed is None:
        raise ConfigError(
            f"{layout.uri(root)} holds nothing to make files of: no attempt left a manifest or a checkpoint"
        )
    return Finished(committed.manifest, layout.uri(root))


async def _check_nobody_is_at_work(recovery: Recovery, intent: Intent, place: str) -> None:
    from isotrack_recorder.ship.recover import longest_silence_seconds

    tell(sys.stderr, "isotrack: looking whether this recording still goes on\n")
    assert intent.storage is not None
    silence = longest_silence_seconds(intent.storage.checkpoint_seconds)
    if not await recovery.wait_until_quiet(at_once=True, silence=silence):
        raise ConfigError(
            f"{place} is being recorded to at this moment: stop the recording, or use --force if you know better"
        )
