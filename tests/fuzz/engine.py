"""Run one harness on many inputs in this process: limits, findings, and new corpus by line coverage.

Every `TRACE_EVERY`-th input runs under a line tracer; one that reaches a line of ours which none did before joins the
corpus. (Tracing each input would cost most of the speed; a path that matters is tried again soon.) An input that takes
more than its share of CPU time is interrupted and counts as a hang. The input in hand lies in a shared file, so that one
that kills the process can still be named.
"""

from __future__ import annotations

import hashlib
import mmap
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final

from .harness import Harness
from .mutate import Mutator

TRACE_EVERY: Final = 16
HANG_SECONDS: Final = 2.0
"""Of CPU time, for one input: real ones take microseconds, and machines may be busy."""
MEMORY_BYTES: Final = 3 * 1024**3
MAX_FINDINGS: Final = 10
OURS: Final = ("/isotrack_recorder/", "/isotrack_api/", "/isotrack_operator/")


class HangError(BaseException):
    """An input takes too long. No Exception: code that makes the best of any must not swallow it."""


@dataclass(slots=True)
class Finding:
    """One defect; further inputs that end at the same place are not kept."""

    title: str
    data: bytes
    trace: str


@dataclass(slots=True)
class Outcome:
    """What a run came to."""

    inputs: int = 0
    seconds: float = 0.0
    corpus: list[bytes] = field(default_factory=list)
    """New inputs, that reached new lines."""
    findings: dict[str, Finding] = field(default_factory=dict)
    lines: int = 0
    """Lines of ours that were reached."""


def check(harness: Harness, data: bytes) -> Finding | None:
    """Run one input; the defect that it shows, or None."""
    try:
        harness.fuzz(data)
    except (Exception, HangError) as error:  # noqa: BLE001 - whatever a harness lets out is a finding
        return Finding(_title(error), data, traceback.format_exc(limit=-12))
    return None


def _title(error: BaseException) -> str:
    """Kind of error and the innermost place in our code: one defect, one title."""
    place = ""
    for frame in traceback.extract_tb(error.__traceback__):
        if any(part in frame.filename for part in (*OURS, "/fuzz/targets/")):
            place = f"{Path(frame.filename).stem}:{frame.lineno}"
    return f"{type(error).__name__} at {place or 'unknown'}"


def run(
    harness: Harness,
    *,
    inputs: int,
    seconds: float | None,
    seed: int,
    extra: list[bytes],
    slot: Slot | None = None,
    report: Callable[[Outcome], None] = lambda _: None,
) -> Outcome:
    """Run seeds and mutations until `inputs` were tried or the time is over.

    Args:
        extra: Further corpus, of earlier runs.
        slot: Where the input in hand is kept for whoever watches this process.
        report: Called about once a second with the running outcome.
    """
    outcome = Outcome()
    corpus = [data[: harness.max_bytes] for data in harness.seeds() + extra]
    mutator = Mutator(seed, harness.max_bytes, harness.tokens, text=harness.text)
    seen: set[tuple[str, int]] = set()
    queue = list(corpus)
    started = reported = time.monotonic()
    with _watchdog() as watchdog:
        while outcome.inputs < inputs and len(outcome.findings) < MAX_FINDINGS:
            traced = bool(queue) or outcome.inputs % TRACE_EVERY == 0
            data = queue.pop(0) if queue else mutator.make(corpus)
            if slot is not None:
                slot.put(data)
            outcome.inputs += 1
            watchdog.current = outcome.inputs
            found, news = _traced(harness, data, seen) if traced else (check(harness, data), False)
            if found is not None:
                outcome.findings.setdefault(found.title, found)
            elif news and data not in corpus:
                corpus.append(data)
                outcome.corpus.append(data)
            if outcome.inputs % 256 == 0:
                now = time.monotonic()
                if seconds is not None and now - started >= seconds:
                    break
                if now - reported >= 1:
                    reported = now
                    report(outcome)
    outcome.seconds = time.monotonic() - started
    outcome.lines = len(seen)
    return outcome


def _traced(harness: Harness, data: bytes, seen: set[tuple[str, int]]) -> tuple[Finding | None, bool]:
    """Run one input and note which lines of ours it reaches; True where one is new."""
    before = len(seen)
    add = seen.add

    def local(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            add((frame.f_code.co_filename, frame.f_lineno))
        return local

    def entered(frame: FrameType, _: str, __: Any) -> Any:
        name = frame.f_code.co_filename
        return local if any(part in name for part in OURS) else None

    previous = sys.gettrace()
    sys.settrace(entered)
    try:
        found = check(harness, data)
    finally:
        sys.settrace(previous)
    return found, len(seen) > before


class _Watchdog:
    """Notices that one and the same input is still running."""

    def __init__(self) -> None:
        self.current = 0
        self._last = -1

    def tick(self, _: int, __: FrameType | None) -> None:
        if self.current == self._last:
            raise HangError(f"no end after {HANG_SECONDS:.0f} s of CPU time")
        self._last = self.current


@contextmanager
def _watchdog() -> Iterator[_Watchdog]:
    """Ticks in CPU time: an input that sees two of them in a row hangs."""
    watchdog = _Watchdog()
    before = signal.signal(signal.SIGPROF, watchdog.tick)
    signal.setitimer(signal.ITIMER_PROF, HANG_SECONDS, HANG_SECONDS)
    try:
        yield watchdog
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


class Slot:
    """The input in hand, in a file that outlives the process."""

    def __init__(self, path: Path, size: int) -> None:
        with path.open("w+b") as file:
            file.truncate(size + 4)
            self._map = mmap.mmap(file.fileno(), size + 4)

    def put(self, data: bytes) -> None:
        """Keep an input."""
        self._map[: 4 + len(data)] = len(data).to_bytes(4, "big") + data

    @staticmethod
    def read(path: Path) -> bytes:
        """The input that a dead process had in hand."""
        content = path.read_bytes()
        return content[4 : 4 + int.from_bytes(content[:4], "big")]


def limit_memory() -> None:
    """Turn runaway memory into a MemoryError, and so into a finding."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def name_of(data: bytes) -> str:
    """File name of an input."""
    return hashlib.sha256(data).hexdigest()[:16]
