"""Run the `shipper` beside a recording, and have it gone before the files are finished."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from typing import Final

from isotrack_recorder.ship.retry import REFUSED_PAUSE_SECONDS

from .workspace import Workspace

log = logging.getLogger(__name__)

BEGIN_AGAIN_SECONDS: Final = 5.0
END_SECONDS: Final = 5.0
"""For the request that is on its way; then it is killed, which costs nothing."""
OVER: Final = b"over\n"
"""What the shipper hears when capture is over; the pipe that closes without it says that the recorder died."""


class Shipping:
    """One recording's shipper. While it is away the spool keeps everything."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._process: Process | None = None
        self.captured = asyncio.Event()
        """Something was captured."""

    async def run(self) -> None:
        """Begin with the first media (without any, nothing is left in the bucket) and again whenever it died, until cancelled."""
        await self.captured.wait()
        while True:
            try:
                process = await self._begin()
            except OSError as error:  # no memory, or too many processes: the recording does not depend on it
                log.warning("shipping cannot begin", extra={"fields": {"why": error.strerror}})
                await asyncio.sleep(BEGIN_AGAIN_SECONDS)
                continue
            await asyncio.sleep(pause_after(await process.wait()))

    async def end(self) -> None:
        """Return when it is gone."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        assert process.stdin is not None
        with contextlib.suppress(OSError):
            process.stdin.write(OVER)
            await process.stdin.drain()
        try:
            async with asyncio.timeout(END_SECONDS):
                await process.wait()
        except TimeoutError:
            self.kill()
            await process.wait()

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    async def _begin(self) -> Process:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LIVEKIT_")}
        command = (sys.executable, "-m", f"{__package__}.shipper", str(self._workspace.folder))
        # NB: it holds the folder's lock, too: nobody else may work on it before both are gone.
        self._process = await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=DEVNULL, env=environment, pass_fds=self._workspace.held
        )
        return self._process


def pause_after(code: int) -> float:
    """Seconds until one that ended with this code, or by a signal (below 0), is followed by the next.

    What waiting does not help against ends it by itself: somebody has to mend that first, and each begin costs half a second of CPU.
    """
    return BEGIN_AGAIN_SECONDS if code < 0 else REFUSED_PAUSE_SECONDS
