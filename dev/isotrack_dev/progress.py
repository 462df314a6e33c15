"""Show what goes on, and how long each step took, on stderr.

On a terminal running steps are a live list; elsewhere (CI, pipes) each step is one line when it starts, if it is a long
one, and one when it ends. Steps may run in several threads. Results never go here: stdout is for them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import Progress as Live
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn


class Progress(Protocol):
    """Somewhere to report steps to."""

    def step(self, label: str, *, long: bool = False) -> AbstractContextManager[None]:
        """Report one step from entry to exit; `long` announces it at once even where lines are all we have."""
        ...

    def note(self, text: str) -> None:
        """Report one line without a duration."""
        ...


class Silent:
    """Report nothing: for tests and for scripts that read our results."""

    @contextmanager
    def step(self, label: str, *, long: bool = False) -> Iterator[None]:  # noqa: ARG002 - the protocol's names
        """Do nothing around the step."""
        yield

    def note(self, text: str) -> None:
        """Do nothing."""


class Lines:
    """One line per event."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)

    @contextmanager
    def step(self, label: str, *, long: bool = False) -> Iterator[None]:
        """Write `label` with its seconds once the step has ended well; errors are the caller's to report."""
        started = time.monotonic()
        if long:
            self._console.print(f"{label} …")
        yield
        self._console.print(f"{label}: {time.monotonic() - started:.1f} s")

    def note(self, text: str) -> None:
        """Write `text`."""
        self._console.print(text)


class Spinners(Lines):
    """A live list of running steps over a growing list of finished ones."""

    def __init__(self) -> None:
        super().__init__()
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        self._live = Live(*columns, console=self._console, transient=True)
        self._running = 0

    @contextmanager
    def step(self, label: str, *, long: bool = False) -> Iterator[None]:  # noqa: ARG002 - every step shows at once here
        """Show the step while it runs, then write its line."""
        started = time.monotonic()
        self._live.start()  # idempotent; stopped with the last running step, so that prompts and results stay whole
        task = self._live.add_task(label)
        self._running += 1
        try:
            yield
            self._console.print(f"[green]✓[/] {label}: {time.monotonic() - started:.1f} s")
        finally:
            self._live.remove_task(task)
            self._running -= 1
            if self._running == 0:
                self._live.stop()


def for_terminal(quiet: bool = False) -> Progress:
    """Choose by what stderr is."""
    if quiet:
        return Silent()
    return Spinners() if sys.stderr.isatty() else Lines()
