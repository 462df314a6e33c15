"""Options of `isotrack`. Each help text names the environment variable that stands in for the option."""

from __future__ import annotations

import argparse
import sys
from typing import Any, Final, NoReturn

from isotrack_api.base import DEFAULT_FILE_NAME_TEMPLATE, Container, OutputType
from isotrack_recorder import __version__

EXIT_USAGE: Final = 64

RECORD_EXAMPLES: Final = """\
examples:
  export LIVEKIT_URL=wss://sfu.example.com LIVEKIT_API_KEY=… LIVEKIT_API_SECRET=…
  isotrack record --call standup --output ./standup
  isotrack record --call standup --output ./voices --output-types audio_only --user-ids alice,bob
  isotrack record --call standup --output s3://recordings/2026 --max-duration 1h30m --json > recording.json

Ctrl-C once ends the recording and finishes the files; twice ends at once (`isotrack finalise` makes the files later).
API key and secret come from LIVEKIT_API_KEY and LIVEKIT_API_SECRET only: options are visible to everybody on the machine.
For s3:// outputs the usual variables apply: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION,
AWS_ENDPOINT_URL_S3.

exit codes: 0 done, 64 wrong option or setting, 66 no such call, 69 SFU cannot be reached, 73 output cannot be written,
74 storage failed, 77 SFU refuses us, 130 interrupted twice, 1 anything else"""

INSPECT_EXAMPLES: Final = """\
examples:
  isotrack inspect ./standup
  isotrack inspect s3://recordings/2026/standup-1a2b3c4d --json

exit codes: 0 done, 64 no recording there, 73 it cannot be read, 74 storage failed"""

VERIFY_EXAMPLES: Final = """\
examples:
  isotrack verify ./standup
  isotrack verify s3://recordings/2026/standup-1a2b3c4d --json

exit codes: 0 every file is what recording.json says, 1 something is not, 64 no recording there, 73 it cannot be read,
74 storage failed"""

FINALISE_EXAMPLES: Final = """\
examples:
  isotrack finalise ./standup
  isotrack finalise ./standup/.isotrack-1a2b3c4d
  isotrack finalise s3://recordings/calls/team-a/standup-1a2b3c4d
  isotrack finalise s3://recordings/calls/team-a/standup-1a2b3c4d --json > recording.json

In a bucket everything is made of the checkpoints that the recording's pods left there; all it takes are the bucket's credentials.
Run it as often as you like: what is finished stays as it is. The variables are those of `isotrack record --output s3://…`.
TMPDIR names the folder for temporary files. Long sessions are made piece by piece where there is little room.

exit codes: 0 recording.json is there and verified, 64 no recording there, or it still goes on, 73 it cannot be read or written,
74 storage failed, 1 a file could not be made"""


class _Parser(argparse.ArgumentParser):
    """argparse with our exit code and one line per mistake."""

    def error(self, message: str) -> NoReturn:
        """Report wrong usage."""
        sys.stderr.write(f"isotrack: {message} (see {self.prog} --help)\n")
        raise SystemExit(EXIT_USAGE)


def build_parser() -> argparse.ArgumentParser:
    """The parser of all subcommands. `command` of its result is None where none was given."""
    parser = _Parser(
        prog="isotrack", description="Record every participant of a WebRTC call as separate, untouched tracks."
    )
    parser.add_argument("--version", action="version", version=f"isotrack {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    _add_record(commands)
    _add_inspect(commands)
    _add_verify(commands)
    _add_finalise(commands)
    return parser


def _add_record(commands: Any) -> None:
    record = commands.add_parser(
        "record",
        help="join a call and record everybody in it",
        description="Join a call as a hidden participant and write what each person sends into files of their own.",
        epilog=RECORD_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = record.add_argument
    add("--source", choices=("livekit",), help="kind of SFU (default: livekit) [ISOTRACK_SOURCE]")
    add("--url", help="address of the SFU: ws://, wss://, http:// or https:// [LIVEKIT_URL]")
    add("--call", metavar="ID", help="the call: LiveKit room name [ISOTRACK_CALL]")
    add("--output", metavar="DIR|s3://BUCKET/PREFIX", help="where the files go [ISOTRACK_OUTPUT]")
    types = ", ".join(OutputType)
    add(
        "--output-types",
        metavar="TYPE,…",
        help=f"files per person: {types} (default: audio_video,screenshare_audio_video) [ISOTRACK_OUTPUT_TYPES]",
    )
    add("--user-ids", metavar="ID,…", help="record these people only, now or later in the call [ISOTRACK_USER_IDS]")
    add(
        "--container",
        choices=tuple(map(str, Container)),  # Python 3.11 would list members, not their names
        help="mkv (default) or webm [ISOTRACK_CONTAINER]",
    )
    template = DEFAULT_FILE_NAME_TEMPLATE.replace("%", "%%")
    add("--file-name-template", metavar="TEMPLATE", help=f"default: {template} [ISOTRACK_FILE_NAME_TEMPLATE]")
    add(
        "--max-duration",
        metavar="TIME",
        help="stop after this long: 90, 90s, 45m, 1h30m (default: 24h) [ISOTRACK_MAX_DURATION]",
    )
    add(
        "--empty-timeout",
        metavar="TIME",
        help="stop when nobody was there for this long; 0 waits for the SFU to end the call (default: 60s) [ISOTRACK_EMPTY_TIMEOUT]",
    )
    add("--json", action="store_true", help="print recording.json on stdout instead of a table")


def _add_inspect(commands: Any) -> None:
    inspect = commands.add_parser(
        "inspect",
        help="show a finished recording: participants, files, lengths, offsets, gaps, losses",
        epilog=INSPECT_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    inspect.add_argument("recording", metavar="DIR|s3://…|recording.json", help="where the recording lies")
    inspect.add_argument("--json", action="store_true", help="print recording.json on stdout instead of tables")


def _add_verify(commands: Any) -> None:
    verify = commands.add_parser(
        "verify",
        help="decode a finished recording and prove it against its manifest",
        description="Decode every file of a recording and prove it against recording.json: sizes, digests, frames, gaps, times.",
        epilog=VERIFY_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verify.add_argument("recording", metavar="DIR|s3://…|recording.json", help="where the recording lies")
    verify.add_argument("--json", action="store_true", help="print the findings as JSON instead of lines")


def _add_finalise(commands: Any) -> None:
    finalise = commands.add_parser(
        "finalise",
        help="make the files of a recording that was cut off",
        description="Make the files of a recording that was cut off, from what it left behind: a folder .isotrack-…, or its folder in a bucket.",
        epilog=FINALISE_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    finalise.add_argument(
        "folder",
        metavar="DIR[/.isotrack-ID]|s3://BUCKET/FOLDER",
        help="what `isotrack record` left behind, the output folder that it lies in, or a recording's folder in a bucket (with intent.json)",
    )
    finalise.add_argument(
        "--force", action="store_true", help="do not look first whether a bucket's recording still goes on"
    )
    finalise.add_argument("--json", action="store_true", help="print recording.json on stdout instead of a table")
