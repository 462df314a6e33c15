"""The harness' side of `publisher`: one process that plays all calls of a campaign, and says when each is playing and over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from isotrack_dev.servers import LiveKitInfo
from support.people import environment_of_publishers

from .people import EVERYBODY, Ledger, Somebody, write_people

START_SECONDS: Final = 60.0


class Studio:
    """Used from many threads, each with rooms of its own. Use `studio` to get one."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process, self._folder = process, folder
        self._news = threading.Condition()
        self._events: dict[tuple[str, str], str] = {}
        """(event, room) → error, empty = none."""
        self._ended = False
        threading.Thread(target=self._listen, name="studio", daemon=True).start()

    @contextmanager
    def publishing(self, room: str, people: Sequence[Somebody] = EVERYBODY) -> Iterator[Ledger]:
        """Play people in a room; inside, media of all of them flows. The ledger is complete afterwards.

        Raises:
            AssertionError: It does not within a minute, or somebody failed meanwhile.
        """
        ledger, path = Ledger.of(people), self._folder / f"{room}.ledger.json"
        self._command(do="play", room=room, people=write_people(people), ledger=str(path))
        try:
            self._wait("playing", room)
            yield ledger
        finally:
            self._command(do="stop", room=room)
        self._wait("over", room)
        ledger.load(path.read_text())
        path.unlink()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _command(self, **fields: Any) -> None:
        assert self._process.stdin is not None
        with self._news:  # also keeps lines of several threads apart
            self._process.stdin.write(json.dumps(fields) + "\n")
            self._process.stdin.flush()

    def _wait(self, event: str, room: str) -> None:
        def seen() -> bool:
            return self._ended or (event, room) in self._events or ("over", room) in self._events

        with self._news:
            assert self._news.wait_for(seen, START_SECONDS), f"people of {room} are not {event} in time"
            assert not self._ended, f"the publishing process ended with {self._process.poll()}"
            error = self._events.get(("over", room), "")
            assert (event, room) in self._events, f"people of {room} failed: {error}"
            assert not error, f"people of {room} failed: {error}"

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            event = json.loads(line)
            with self._news:
                self._events[event["event"], event["room"]] = event.get("error", "")
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()


@contextmanager
def studio(server: LiveKitInfo, folder: Path) -> Iterator[Studio]:
    """Start the publishing process; it is gone afterwards. Its log lies in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    environment = environment_of_publishers(server.url, server.api_key, server.api_secret)
    with (folder / "publisher.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", "-m", "faults.publisher"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
            start_new_session=True,
        )
    _give_precedence(process.pid)
    playing = Studio(process, folder)
    try:
        yield playing
    finally:
        playing.close()


def _give_precedence(pid: int) -> None:
    """A publisher that gets no processor sends in bursts that no SFU passes on in order; with autogroups, its session counts."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, -19)
        Path(f"/proc/{pid}/autogroup").write_text("-19")
