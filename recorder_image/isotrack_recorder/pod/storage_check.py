"""`isotrack-recorder check`: does a storage take what recordings will bring? Asked before there is one.

    ISOTRACK_CHECK        the storage, an S3Destination as JSON
    ISOTRACK_CHECK_NAME   whose check this is: no two that run at once have the same

It runs as a Job with the operator's credentials for the storage mounted, tries on keys below `<prefix>/isotrack-check/` all that an agent
would, leaves nothing behind, and tells what it found by exit code and termination message.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from isotrack_api.conditions import Reason
from isotrack_recorder.errors import ConfigError, IsotrackError
from isotrack_recorder.logs import configure_logging
from isotrack_recorder.ship.credentials import pod_credentials
from isotrack_recorder.ship.preflight import try_keys
from isotrack_recorder.ship.retry import Patience
from isotrack_recorder.ship.s3 import S3Store

from .agent_report import Ending
from .agent_settings import TERMINATION_LOG, read_destination, read_seconds
from .termination import write_termination

log = logging.getLogger(__name__)

PATIENCE_SECONDS: Final = 30.0
"""How long a storage that does not answer is tried. ISOTRACK_CHECK_SECONDS."""
FOLDER: Final = "isotrack-check"
_NAME: Final = re.compile(r"[a-z0-9-]{1,63}")


def main(environ: Mapping[str, str]) -> int:
    """Entry point. Exit code of `errors`."""
    configure_logging(environ, sys.stderr)
    termination_log = Path(environ.get("ISOTRACK_TERMINATION_LOG") or TERMINATION_LOG)
    try:
        warning = check(environ)
    except IsotrackError as error:
        log.error("storage is not usable", extra={"fields": {"reason": error.reason, "detail": str(error)}})
        write_termination(termination_log, _ending(error.reason, str(error)))
        return error.exit_code
    log.info("storage is usable", extra={"fields": {"warning": warning}})
    write_termination(
        termination_log, _ending(Reason.STORAGE_LIMITED if warning else Reason.STORAGE_AVAILABLE, warning)
    )
    return 0


def check(environ: Mapping[str, str]) -> str:
    """Try the storage that the environment names. Returns a warning, or nothing.

    Raises:
        ConfigError: the environment is not as it should be.
        StorageError: the storage is not usable; the text says what to do.
    """
    destination = read_destination(environ, "ISOTRACK_CHECK")
    name = environ.get("ISOTRACK_CHECK_NAME", "")
    if not _NAME.fullmatch(name):
        raise ConfigError("ISOTRACK_CHECK_NAME must be up to 63 of a-z, 0-9 and -: the check's objects are called so")
    credentials = pod_credentials(Path(environ.get("ISOTRACK_STORAGE_CREDENTIALS") or "/etc/isotrack/storage"))
    patience = Patience(read_seconds(environ, "ISOTRACK_CHECK_SECONDS", PATIENCE_SECONDS))
    folder = "/".join(part for part in (destination.prefix.strip("/"), FOLDER, name) if part)
    return try_keys(S3Store(destination, credentials, patience), f"{folder}/probe-")


def _ending(reason: str, message: str) -> Ending:
    return Ending(reason, message, None, None, (), None, "", 0)
