"""The cast of a synthetic call: who comes with what, what they do when, and the process that plays them.

`support.publish` is that process (libwebrtc lives in it alone: its threads and its memory stay out of the test run).
`People` starts it, hands it actions as JSON lines on stdin and reads what happened as JSON lines from stdout, so a test
waits for "bob is muted" and never for a number of seconds. The ledger file holds every frame that was sent.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from .signs import MAX_PEOPLE

Source = Literal["camera", "microphone", "screenshare", "screenshare_audio"]
Deed = Literal["join", "leave", "publish", "unpublish", "mute", "unmute", "hush", "speak", "share", "unshare"]
SOURCES: tuple[Source, ...] = ("camera", "microphone", "screenshare", "screenshare_audio")


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Picture(_Model):
    """A camera or a shared screen."""

    codec: Literal["vp8", "vp9", "av1", "h264", "h265"] = "vp8"
    """H265 only pre-encoded: libwebrtc has no encoder of it."""
    width: Annotated[int, Field(ge=64, le=1920, multiple_of=4)] = 320
    height: Annotated[int, Field(ge=64, le=1080, multiple_of=4)] = 240
    fps: Annotated[int, Field(ge=1, le=60)] = 15
    simulcast: bool = False
    scalability: Literal["", "L1T1", "L1T3", "L2T1", "L3T3", "L3T3_KEY"] = ""
    """Layers of vp9 and av1 (W3C WebRTC SVC); empty = what libwebrtc chooses."""
    pre_encoded: bool = False
    """Encode here and hand the access units over; the ledger then holds a digest of each, so a test can tell bit for
    bit whether a recording holds what was sent."""
    bitrate: Annotated[int, Field(ge=50_000, le=8_000_000)] = 300_000
    """Bits per second."""


class Person(_Model):
    """One person. The number that pictures and tones carry is the place in the cast."""

    identity: str
    name: str = ""
    camera: Picture | None = Picture()
    microphone: bool = True
    screen: Picture = Picture(width=480, height=268, fps=5)
    screen_audio: bool = True
    dtx: bool = False
    encrypted: bool = False
    """End to end, with a key that nobody else has."""
    token: str = ""
    """To join with; empty = one is made, by the clock of the publishing process."""


class Action(_Model):
    """One thing that a person does."""

    who: str
    do: Deed
    what: Source | None = None
    """For publish, unpublish, mute, unmute; and for hush and speak, which play digital silence and end it."""
    at: Annotated[float, Field(ge=0)] | None = None
    """Seconds since the clock's zero; absent = at once."""


class Cast(_Model):
    """What the publishing process is told."""

    people: Annotated[tuple[Person, ...], Field(min_length=1, max_length=MAX_PEOPLE)]
    script: tuple[Action, ...] = ()

    def number(self, identity: str) -> int:
        """Number of a person in pictures and tones."""
        return next(number for number, person in enumerate(self.people) if person.identity == identity)

    def sources(self, identity: str) -> tuple[Source, ...]:
        """What a person publishes on joining."""
        person = self.people[self.number(identity)]
        return (*(("microphone",) if person.microphone else ()), *(("camera",) if person.camera else ()))


class PeopleError(AssertionError):
    """The publishing process did not do what the test relies on."""


class People:
    """A running publishing process. One reader thread; events are kept, so waiting never misses one."""

    def __init__(self, process: subprocess.Popen[str], cast: Cast, ledger: Path, log: Path) -> None:
        self.cast, self.ledger = cast, ledger
        self._process, self._log = process, log
        self._queue: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._seen: list[dict[str, Any]] = []
        threading.Thread(target=self._read, name="people-events", daemon=True).start()

    def do(self, *actions: Action) -> None:
        """Have people act now, in this order."""
        assert self._process.stdin is not None
        for action in actions:
            self._process.stdin.write(action.model_dump_json() + "\n")
        self._process.stdin.flush()

    def wait(
        self, event: str, who: str | None = None, what: str | None = None, *, nth: int = 1, seconds: float = 60
    ) -> dict[str, Any]:
        """Return the nth event of this kind (joined, left, published, unpublished, muted, unmuted, hushed, spoken, done).

        Raises:
            PeopleError: Not within `seconds`, or the process ended, or a person's action failed.
        """
        deadline = time.monotonic() + seconds
        start = 0
        while True:
            for seen in self._seen[start:]:
                if seen["event"] == "failed":
                    raise PeopleError(f"{seen}")
                if seen["event"] == event and who in (None, seen.get("who")) and what in (None, seen.get("what")):
                    nth -= 1
                    if not nth:
                        return seen
            start = len(self._seen)
            try:
                fresh = self._queue.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise PeopleError(
                    f"no event {event} of {who} {what} within {seconds} s; seen: {self._seen[-10:]}"
                ) from None
            if fresh is None:
                raise PeopleError(f"the publishing process ended: {self._log.read_text(errors='replace')[-2000:]}")
            self._seen.append(fresh)

    def join(self, *who: str) -> None:
        """Let people join with their camera and microphone, and wait until all of it is published."""
        self.do(*(Action(who=identity, do="join") for identity in who))
        for identity in who:
            self.wait("ready", identity)

    def leave(self, *who: str) -> None:
        """Let people leave, and wait until they have."""
        self.do(*(Action(who=identity, do="leave") for identity in who))
        for identity in who:
            self.wait("left", identity)

    def play(self, seconds: int) -> None:
        """Return after so many more full seconds of media were played."""
        played = sum(seen["event"] == "second" for seen in self._drain())
        for extra in range(1, seconds + 1):
            self.wait("second", nth=played + extra)

    def close(self) -> None:
        """Everybody leaves; the process ends and the ledger is complete."""
        if self._process.stdin and not self._process.stdin.closed:
            self._process.stdin.close()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _drain(self) -> list[dict[str, Any]]:
        while not self._queue.empty():
            fresh = self._queue.get()
            if fresh is None:
                self._queue.put(None)  # the end stays for `wait` to find
                break
            self._seen.append(fresh)
        return self._seen

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):  # libwebrtc's encoders print to stdout, too
                self._queue.put(json.loads(line))
        self._queue.put(None)


def environment_of_publishers(url: str, key: str, secret: str) -> dict[str, str]:
    """Environment of a publishing process: ours, with the SFU's address and keys."""
    paths = [str(Path(__file__).resolve().parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **os.environ,
        "LIVEKIT_URL": url,
        "LIVEKIT_API_KEY": key,
        "LIVEKIT_API_SECRET": secret,
        "PYTHONPATH": os.pathsep.join(paths),
    }


@contextmanager
def people(
    room: str,
    cast: Sequence[Person] | Cast,
    folder: Path,
    environment: Mapping[str, str],
    *,
    zero: float | None = None,
) -> Iterator[People]:
    """Run a cast in a room; inside, the process takes actions; afterwards it is gone.

    Args:
        room: Name of the room; the SFU makes it when the first one joins.
        cast: Who takes part.
        folder: For the ledger and the process' log; made when missing.
        environment: See `environment_of_publishers`.
        zero: Of its clock, on the machine's monotonic one (which is the same for all processes, whatever their wall clocks
            say); absent = its start.
    """
    cast = cast if isinstance(cast, Cast) else Cast(people=tuple(cast))
    folder.mkdir(parents=True, exist_ok=True)
    ledger, log, script = folder / "ledger.jsonl", folder / "people.log", folder / "cast.json"
    script.write_text(cast.model_dump_json())
    command = [sys.executable, "-m", "support.publish", "--room", room, "--cast", str(script), "--ledger", str(ledger)]
    command += [] if zero is None else ["--zero", repr(zero)]
    with log.open("w") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=dict(environment),
            start_new_session=True,
        )
        _give_precedence(process.pid)
        call = People(process, cast, ledger, log)
        try:
            yield call
        finally:
            call.close()


def _give_precedence(pid: int) -> None:
    """Run its session (its own) before others where we may: a publisher that stalls sends what no check can expect.

    From here and at once, because threads inherit it. Not in real time: encoders whose threads wait for one another by
    spinning would then take all processors. With autogroups (sched(7)) a nice value counts only within a session, and the
    session's own decides.
    """
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, -19)
        Path(f"/proc/{pid}/autogroup").write_text("-19")
