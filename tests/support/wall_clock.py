"""Give a process a wall clock that is wrong, by libfaketime. Its monotonic clock stays the machine's own (libfaketime(1))."""

from __future__ import annotations

from isotrack_dev import requirements


def preloaded() -> dict[str, str]:
    """Environment of a process that sees another wall clock; by how much is for the caller to add.

    `requirements.ensure(["clock"], ...)` must have been asked for.
    """
    library = requirements.find("lib:libfaketime.so.1")
    assert library is not None, "`ensure` makes sure of it"
    return {"LD_PRELOAD": str(library), "FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1"}


def wrong_by(seconds: int) -> dict[str, str]:
    """Environment of a process whose wall clock is so much ahead of the right time, from its start to its end."""
    # NB: what it else does about a fault of old C libraries ends every timed wait of libwebrtc at once: its threads take all processors
    return {**preloaded(), "FAKETIME": f"{seconds:+d}", "FAKETIME_FORCE_MONOTONIC_FIX": "0"}
