"""Errors of the recorder, by consequence.

    IsotrackError                    exit 1
    ├─ ConfigError                   exit 64: retrying changes nothing; reason InvalidConfiguration
    ├─ SourceError                   exit 69: the SFU cannot be reached; another attempt may succeed; SourceUnavailable
    │  ├─ SourceRefusedError         exit 77: wrong credentials, no permission; SourceRefused
    │  └─ CallNotFoundError          exit 66: the call does not exist (now); CallNotFound
    ├─ StorageError                  exit 74: files could not be written or uploaded; StorageUnavailable
    │  └─ StorageRefusedError        exit 73: no such bucket, access denied; StorageRefused
    ├─ OutputError                   exit 73: the local output folder cannot be written; OutputUnwritable
    └─ DrainedError                  exit 75: this attempt is over, the recording is not (eviction, fenced); Drained

ParseError stands apart: it never leaves the packet loop or the reader that met it (one packet or one line is dropped and
counted). Numbers follow sysexits.h; `docs/cli.md` lists them for users.
"""

from __future__ import annotations

from typing import ClassVar


class ParseError(ValueError):
    """Bytes from outside are not what their format says. Handled where they are read."""


class IsotrackError(Exception):
    """Anything that ends a command. The text is one line and says what to do."""

    exit_code: ClassVar[int] = 1
    reason: ClassVar[str] = "InternalError"


class ConfigError(IsotrackError):
    """Options, environment or Intent are wrong."""

    exit_code = 64
    reason = "InvalidConfiguration"


class SourceError(IsotrackError):
    """The SFU cannot be reached or gave up on us."""

    exit_code = 69
    reason = "SourceUnavailable"


class SourceRefusedError(SourceError):
    """The SFU does not let us in."""

    exit_code = 77
    reason = "SourceRefused"


class CallNotFoundError(SourceError):
    """There is no such call."""

    exit_code = 66
    reason = "CallNotFound"


class StorageError(IsotrackError):
    """Object storage fails in a way that may pass."""

    exit_code = 74
    reason = "StorageUnavailable"


class StorageRefusedError(StorageError):
    """Object storage will not take our files: no such bucket, access denied."""

    exit_code = 73
    reason = "StorageRefused"


class OutputError(IsotrackError):
    """The local output folder cannot be written."""

    exit_code = 73
    reason = "OutputUnwritable"


class DrainedError(IsotrackError):
    """This attempt ended in good order while the recording goes on elsewhere."""

    exit_code = 75
    reason = "Drained"
