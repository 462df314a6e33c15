"""Entry points of pods: `isotrack-recorder capture` (sidecar) and `agent` (main container) of a recorder pod, `finalise` and `sweep` of
the Jobs that finish what such pods left behind, `check` of the Jobs that try a storage.

Each is imported only when it is asked for: the recorder must be in the call within a second, and what the agent needs
(object storage) takes longer than that to load. As pid 1 of its container either runs under `supervise`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from .supervise import supervise

USAGE = """usage: isotrack-recorder {capture|agent|finalise|sweep|check}

capture, agent   the two containers of a recorder pod; both read ISOTRACK_INTENT
finalise         finish the recording of ISOTRACK_INTENT from what its pods left in the bucket
sweep            finish all abandoned recordings of the storage in ISOTRACK_SWEEP
check            try the storage in ISOTRACK_CHECK

`isotrack` is the command for people.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the entry point that `argv` names; returns an exit code of `errors`."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments == ["capture"]:
        return _run(_capture)
    if arguments and arguments[0] == "agent":
        return _run(lambda: _agent(arguments[1:]))
    if arguments in (["finalise"], ["sweep"]):
        from . import finaliser

        return finaliser.main(arguments[0], os.environ)
    if arguments == ["check"]:
        from . import storage_check

        return storage_check.main(os.environ)
    wants_help = arguments in (["--help"], ["-h"])
    (sys.stdout if wants_help else sys.stderr).write(USAGE)
    return 0 if wants_help else 64


def _capture() -> int:
    import gc

    gc.disable()  # until `capture.collect_garbage`
    from . import capture

    return capture.main(os.environ)


def _agent(arguments: Sequence[str]) -> int:
    from . import agent

    return agent.main(arguments)


def _run(work: Callable[[], int]) -> int:
    # Elsewhere than in a container somebody else watches over the process, and means this one by its pid.
    return supervise(work) if os.getpid() == 1 else work()
