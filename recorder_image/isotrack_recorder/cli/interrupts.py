"""Ctrl-C: once ends the recording in good order, twice ends the process at once.

SIGTERM and SIGHUP (the terminal was closed) count as Ctrl-C; SIGHUP stays ignored where nohup wants it so.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Final, TextIO

from .display import tell

EXIT_INTERRUPTED: Final = 130


class Interrupts:
    """Handlers of one run. `stop` ends the capture; `last_words` is called before the process ends at once."""

    def __init__(self, stop: Callable[[], None], last_words: Callable[[], str], stream: TextIO) -> None:
        self._stop = stop
        self._last_words = last_words
        self._stream = stream
        self._count = 0
        self._finishing = False

    def install(self) -> None:
        """Listen from now on, until the event loop ends."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # A shell without job control has background jobs ignore SIGINT; whoever sends it to one means it
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, self._interrupted)

    def finishing(self) -> None:
        """The capture is over: from now on there is nothing to stop but the making of files."""
        self._finishing = True

    def _interrupted(self) -> None:
        self._count += 1
        if self._count > 1:
            tell(self._stream, f"isotrack: ended at once; {self._last_words()}\n")
            os._exit(EXIT_INTERRUPTED)  # files may be half made in a thread that cannot be stopped otherwise
        if self._finishing:
            tell(self._stream, "isotrack: the files are being made; once more ends at once\n")
        else:
            self._stop()
