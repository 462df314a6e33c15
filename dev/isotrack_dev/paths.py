"""Where things lie: the checkout, the cache (kept between runs) and the state of stacks (gone with them).

The cache holds what can be made again but takes minutes: binaries, image layers. State holds keys, certificates and
logs of one running stack, readable by its owner only.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
"""Root of the checkout."""


def cache_dir(environment: Mapping[str, str] = os.environ) -> Path:
    """Folder of things worth keeping: `$ISOTRACK_CACHE`, else `isotrack` in the XDG cache folder."""
    if chosen := environment.get("ISOTRACK_CACHE"):
        return Path(chosen).expanduser().resolve()
    base = environment.get("XDG_CACHE_HOME") or Path(environment.get("HOME", "~")).expanduser() / ".cache"
    return Path(base) / "isotrack"


def states_dir(environment: Mapping[str, str] = os.environ) -> Path:
    """Folder that holds one folder per stack: `$ISOTRACK_STATE`, else `isotrack` in the XDG state folder."""
    if chosen := environment.get("ISOTRACK_STATE"):
        return Path(chosen).expanduser().resolve()
    base = environment.get("XDG_STATE_HOME") or Path(environment.get("HOME", "~")).expanduser() / ".local" / "state"
    return Path(base) / "isotrack"


@contextmanager
def exclusive(lock: Path) -> Iterator[None]:
    """Hold `lock` (made when missing) against every other process; waits without a limit."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def write_private(path: Path, text: str) -> Path:
    """Write `text` so that only the owner can ever read it, replacing what was there at once."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as handle:
        handle.write(text)
    fresh.rename(path)
    return path


def file_system(path: Path) -> str:
    """Type of the file system that holds `path`, as the kernel names it."""
    mounts = [line.split(" - ") for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    points = [(Path(left.split()[4]), right.split()[0]) for left, right in mounts]
    return max((one for one in points if path.is_relative_to(one[0])), key=lambda one: len(one[0].parts))[1]


def tail(log: Path, lines: int = 15, limit: int = 4000) -> str:
    """Last lines of a log, at most `limit` characters, for an error's text."""
    try:
        with log.open("rb") as handle:
            handle.seek(0, os.SEEK_END)
            handle.seek(max(0, handle.tell() - 16 * limit))
            text = handle.read().decode(errors="replace")
    except OSError:
        return "(no log)"
    return "\n".join(text.splitlines()[-lines:])[-limit:]
