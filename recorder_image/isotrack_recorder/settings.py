"""Settings of the recorder pod's capture: read once from the environment, then passed down as values."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .control import SOCKET_NAME
from .errors import ConfigError

if TYPE_CHECKING:
    from isotrack_api.intent import Intent


@dataclass(frozen=True, slots=True, kw_only=True)
class PodPaths:
    """Where the containers of a recorder pod meet. Environment prefix: ISOTRACK_."""

    token_file: Path = Path("/etc/isotrack/source/token")
    """Join token of the attempt, mounted from its Secret. ISOTRACK_TOKEN_FILE."""
    spool: Path = Path("/var/lib/isotrack/spool")
    """Spool folder, shared with the agent. ISOTRACK_SPOOL."""
    run: Path = Path("/run/isotrack")
    """Memory-backed folder, shared with the agent: control socket, newest token, newest command. ISOTRACK_RUN."""


MAX_SOCKET_BYTES: Final = 107
"""Of a socket's path: 108 with the NUL at its end (unix(7))."""


def read_paths(environ: Mapping[str, str]) -> PodPaths:
    """Take the defaults, overridden by what the environment names.

    Raises:
        ConfigError: the shared folder's path leaves no room for that of the control socket.
    """
    defaults = PodPaths()
    run = Path(environ.get("ISOTRACK_RUN") or defaults.run)
    size = len(os.fsencode(run / SOCKET_NAME))
    if size > MAX_SOCKET_BYTES:
        raise ConfigError(
            f"ISOTRACK_RUN is too long: the path of the socket in it has {size} bytes, and the system takes {MAX_SOCKET_BYTES}: use a "
            f"folder whose path is {size - MAX_SOCKET_BYTES} bytes shorter"
        )
    return PodPaths(
        token_file=Path(environ.get("ISOTRACK_TOKEN_FILE") or defaults.token_file),
        spool=Path(environ.get("ISOTRACK_SPOOL") or defaults.spool),
        run=run,
    )


def read_intent(environ: Mapping[str, str]) -> Intent:
    """Read what this attempt is to do from ISOTRACK_INTENT (JSON).

    Raises:
        ConfigError: Missing, or not an Intent of a version that we know.
    """
    from isotrack_api.intent import Intent  # a recorder does without: see orders

    text = environ.get("ISOTRACK_INTENT", "")
    if not text:
        raise ConfigError("ISOTRACK_INTENT is not set: it holds the intent of the attempt as JSON")
    try:
        return Intent.from_json(text)
    except ValueError as error:
        first = " ".join(str(error).split())[:300]
        raise ConfigError(f"ISOTRACK_INTENT is not an intent: {first}") from error
