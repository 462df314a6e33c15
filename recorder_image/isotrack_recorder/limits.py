"""Limits of the process."""

from __future__ import annotations

import contextlib
import resource


def allow_many_files() -> None:
    """Raise the soft limit of open files to the hard one: each track being recorded keeps one open, and a usual soft limit
    of 1024 is less than a big call has tracks."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
