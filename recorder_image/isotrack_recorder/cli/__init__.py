"""The command `isotrack`: record a call without Kubernetes, look at a finished recording.

A thin shell: parse, run, turn an error of ours into one line on stderr and an exit code. Results go to stdout, everything
else to stderr. Commands are imported only when they run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from isotrack_recorder.errors import IsotrackError


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `isotrack`. Returns an exit code from the tree in `errors`; 130 after an interrupt."""
    from .parser import build_parser

    parser = build_parser()
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.print_help(sys.stderr)
        return 64
    try:
        return _run(arguments.command, arguments)
    except IsotrackError as error:
        sys.stderr.write(f"isotrack: {' '.join(str(error).split())}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("isotrack: interrupted\n")
        return 130
    except BrokenPipeError:
        return 0  # the reader of our output has seen enough


def _run(command: str, arguments: argparse.Namespace) -> int:
    if command == "record":
        from . import record

        return record.run(arguments)
    if command == "finalise":
        from . import finalise

        return finalise.run(arguments)
    if command == "verify":
        from . import verify

        return verify.run(arguments)
    from . import inspect

    return inspect.run(arguments)
