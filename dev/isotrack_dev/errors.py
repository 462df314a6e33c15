"""Errors of the local stack, by what the reader has to do next.

    DevError                exit 1: something that should work did not; the text names the log to read
    ├─ RequirementError     exit 69: a program, a package or a privilege is missing; the text is the command to run
    ├─ BuildError           exit 70: a pinned tool or an image did not build; the text ends with the compiler's last lines
    ├─ StartError           exit 75: a server did not become ready in time; the text ends with its log's last lines
    └─ UsageError           exit 64: no such stack, an unknown component, a name that cannot be used

Numbers follow sysexits.h, as everywhere in isotrack.
"""

from __future__ import annotations

from typing import ClassVar


class DevError(Exception):
    """Anything that ends a command of the local stack."""

    exit_code: ClassVar[int] = 1


class RequirementError(DevError):
    """This machine lacks something, and the text says how to get it."""

    exit_code = 69


class BuildError(DevError):
    """A build of a pinned tool or of an image failed."""

    exit_code = 70


class StartError(DevError):
    """A server ended or stayed silent during its start."""

    exit_code = 75


class UsageError(DevError):
    """The command cannot mean anything here."""

    exit_code = 64
