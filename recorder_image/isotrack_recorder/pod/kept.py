"""What a recorder keeps in the pod's memory-backed folder, so that its successor after a crash can go on at once.

    token      newest join token: the mounted one is good for minutes only, the server sends newer ones over the wire
    command    newest command of the agent: a restarted recorder must not capture while paused, or whom it may not

Both are replaced atomically and readable by the owner alone. Losing them is survivable (the agent repeats its command, the
mounted token may still be good), so writing never fails loudly.
"""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path
from typing import Final

from isotrack_recorder.control import Command, encode, read_command
from isotrack_recorder.errors import ConfigError, ParseError

log = logging.getLogger(__name__)

MAX_TOKEN_BYTES: Final = 64 * 1024
MAX_COMMAND_BYTES: Final = 1024 * 1024


class KeptTokens:
    """Tokens of the pod: the mounted file first, then whatever the server sent last, over restarts."""

    def __init__(self, mounted: Path, run: Path) -> None:
        self._mounted = mounted
        self._kept = run / "token"

    def current(self) -> str:
        """The newest token.

        Raises:
            ConfigError: There is none.
        """
        for path in (self._kept, self._mounted):
            with contextlib.suppress(OSError, UnicodeDecodeError):
                token = _read(path, MAX_TOKEN_BYTES).decode("ascii").strip()
                if token:
                    return token
        raise ConfigError(f"no join token: {self._mounted} cannot be read")

    def refreshed(self, token: str) -> None:
        """Keep a newer token."""
        if 0 < len(token) <= MAX_TOKEN_BYTES and token.isascii():
            _replace(self._kept, token.encode())


class KeptCommand:
    """The newest command of the agent."""

    def __init__(self, run: Path) -> None:
        self._path = run / "command"

    def read(self) -> Command | None:
        """The command that an earlier process of this pod followed last."""
        with contextlib.suppress(OSError, ParseError):
            return read_command(_read(self._path, MAX_COMMAND_BYTES))
        return None

    def keep(self, command: Command) -> None:
        """Keep what the agent wants now."""
        _replace(self._path, encode(command))


def _read(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        return file.read(limit)


def _replace(path: Path, data: bytes) -> None:
    """Put `data` at `path` in one step, mode 0600."""
    beside = path.with_name(f".{path.name}.new")
    try:
        beside.unlink(missing_ok=True)
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, data)
        finally:
            os.close(fd)
        beside.rename(path)
    except OSError as error:
        log.warning("cannot keep what a restart needs", extra={"fields": {"file": path.name, "why": error.strerror}})
