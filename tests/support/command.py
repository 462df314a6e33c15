"""Run `isotrack record` as a person would: a process, its exit code, what it prints, and Ctrl-C.

What it is doing is read from the journal of its spool, which is flushed at least twice a second, so a test goes on when
"bob's microphone is being recorded" is a fact.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isotrack_recorder.spool.journal import decode_journal

from .waiting import until

ISOTRACK = Path(sys.executable).with_name("isotrack")


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str


def isotrack(*arguments: str, environment: Mapping[str, str], seconds: float = 120) -> Ended:
    """Run a command to its end."""
    command = [str(ISOTRACK), *arguments]
    done = subprocess.run(
        command, env=dict(environment), capture_output=True, text=True, timeout=seconds, stdin=subprocess.DEVNULL
    )
    return Ended(done.returncode, done.stdout, done.stderr)


class RecordCommand:
    """A running `isotrack record`."""

    def __init__(self, process: subprocess.Popen[bytes], roots: Sequence[Path], folder: Path) -> None:
        self._process, self._roots, self._folder = process, roots, folder

    @property
    def stderr(self) -> str:
        """What it has written for people so far."""
        return (self._folder / "stderr").read_text(errors="replace")

    def journal(self) -> list[dict[str, Any]]:
        """All facts that it has noted so far."""
        files = [path for root in self._roots for path in root.glob("**/i[0-9]*/journal.ndjson")]
        return [event for path in sorted(files) for event in decode_journal(path.read_bytes())]

    def wait(self, event: str, *, nth: int = 1, seconds: float = 60, **fields: object) -> dict[str, Any]:
        """Return the nth fact of this kind whose fields are as given.

        Raises:
            AssertionError: Not in time, or the command ended first; with what it said.
        """

        def look() -> dict[str, Any] | None:
            found = [e for e in self.journal() if e["e"] == event and fields.items() <= e.items()]
            if len(found) < nth and self._process.poll() is not None:
                raise AssertionError(f"isotrack record ended with {self._process.returncode}: {self.stderr[-2000:]}")
            return found[nth - 1] if len(found) >= nth else None

        try:
            return until(look, f"{event} {fields} in the journal", seconds=seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\njournal: {self.journal()[-10:]}\nstderr: {self.stderr[-2000:]}") from None

    def recording(self, who: str, *sources: str, nth: int = 1) -> None:
        """Wait until frames of these sources of a person arrive, for the nth track of each."""
        for source in sources:
            track = self.wait("track", user_id=who, source=source, nth=nth)["track"]
            self.wait("codec", track=track)

    def interrupt(self) -> None:
        """Press Ctrl-C."""
        self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """End it without a warning (SIGKILL)."""
        self._process.kill()

    def shipper(self) -> int:
        """Process id of what ships beside it, once it runs."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        return int(until(lambda: children.read_text().split(), "a process that ships")[0])

    def kill_all(self) -> None:
        """The machine is gone: both processes end at the same moment."""
        shipper = self.shipper()
        self._process.kill()
        os.kill(shipper, signal.SIGKILL)

    def ended(self, seconds: float = 60) -> Ended:
        """Wait for its end."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"isotrack record runs on after {seconds} s: {self.stderr[-2000:]}") from None
        return Ended(code, (self._folder / "stdout").read_text(), self.stderr)


@contextmanager
def record_command(
    *options: str, environment: Mapping[str, str], folder: Path, output: Path | None = None
) -> Iterator[RecordCommand]:
    """Start `isotrack record`; it is gone afterwards, however the block ends.

    Args:
        options: After `record`.
        environment: Complete.
        folder: For what it prints, and for its spool when the files go to a bucket.
        output: Local output folder, where its spool lies; None when it writes to a bucket.
    """
    temporary = folder / "state"
    temporary.mkdir(parents=True, exist_ok=True)
    with (folder / "stdout").open("wb") as out, (folder / "stderr").open("wb") as err:
        process = subprocess.Popen(
            [str(ISOTRACK), "record", *options],
            env={**environment, "XDG_STATE_HOME": str(temporary)},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd=os.fspath(folder),
        )
        try:
            yield RecordCommand(process, [temporary, *([output] if output else [])], folder)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
