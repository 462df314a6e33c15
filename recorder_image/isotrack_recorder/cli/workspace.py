"""The folder in which a run of `isotrack record` keeps what it needs until its files are made.

    <parent>/.isotrack-<id>/intent.json      what was to be recorded
    <parent>/.isotrack-<id>/spool/           what was captured
    <parent>/.isotrack-<id>/lock             locked (flock) by whoever works on it: record (and its shipper) or finalise

`parent` is the output folder, or for object storage `$XDG_STATE_HOME/isotrack` (else `~/.local/state/isotrack`). It goes away when all files are made; after
a crash `isotrack finalise` makes them from it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from isotrack_api.intent import Intent
from isotrack_recorder.errors import ConfigError, OutputError

MAX_INTENT_BYTES = 256 * 1024
PREFIX: Final = ".isotrack-"


@dataclass(frozen=True, slots=True)
class Workspace:
    """One run's folder."""

    folder: Path
    held: tuple[int, ...] = ()
    """Descriptors that lock it, as long as any process has one open."""

    @property
    def spool(self) -> Path:
        """Where capture writes."""
        return self.folder / "spool"

    @classmethod
    def create(cls, parent: Path, intent: Intent) -> Workspace:
        """Make the folder, and with it prove that `parent` can be written.

        Raises:
            OutputError: it cannot.
        """
        workspace = cls(parent / f"{PREFIX}{intent.recording.uid[:8]}")
        try:
            parent.mkdir(parents=True, exist_ok=True)
            workspace.folder.mkdir(mode=0o700)
            (workspace.folder / "intent.json").write_text(intent.to_json(indent=2) + "\n")
            return replace(workspace, held=(workspace.lock(),))
        except OSError as error:
            raise OutputError(f"cannot write to {parent}: {error.strerror}") from error

    def lock(self) -> int:
        """Keep others from working on this folder until the process ends, and who inherits the descriptor.

        Raises:
            ConfigError: somebody else does at this moment.
            OSError: the folder cannot be written.
        """
        fd = os.open(self.folder / "lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)  # NB: open until we exit
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise ConfigError(f"{self.folder} is being recorded to (or finalised) at this moment") from None
        return fd

    def read_intent(self) -> Intent:
        """Read what a run that was cut off was to do.

        Raises:
            ConfigError: this is no such folder.
        """
        path = self.folder / "intent.json"
        try:
            with path.open("rb") as file:
                return Intent.from_json(file.read(MAX_INTENT_BYTES))
        except OSError as error:
            raise ConfigError(
                f"{self.folder} was not left behind by a recording: {path.name}: {error.strerror}"
            ) from error
        except ValueError as error:
            raise ConfigError(f"{path} is not an intent") from error

    def remove(self) -> None:
        """Throw everything away: the files exist."""
        shutil.rmtree(self.folder, ignore_errors=True)


def check_output(output: Path) -> None:
    """Refuse a folder that cannot take a recording.

    Raises:
        OutputError: it holds one already, or is no folder.
    """
    if output.exists() and not output.is_dir():
        raise OutputError(f"{output} is not a folder")
    if (output / "recording.json").exists():
        raise OutputError(f"{output} holds a recording already: choose another --output")


def state_folder(environ: Mapping[str, str]) -> Path:
    """Where runs whose files go to object storage keep their workspace."""
    home = environ.get("HOME")
    base = environ.get("XDG_STATE_HOME") or (f"{home}/.local/state" if home else ".")
    return Path(base).resolve() / "isotrack"
