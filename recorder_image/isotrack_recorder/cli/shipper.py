"""The process beside `isotrack record` that ships while the call runs: checkpoints and whole parts, as the agent of a pod does.

    record ─ spool ─▶ shipper ─▶ bucket          record ─ stdin: "over" ─▶ shipper ends; record finishes from where it was

It is a process of its own so that making files never keeps the recorder from its sockets. It ends with the recorder: when that was
killed (its end of the pipe closes without a word), what lies on the disk is copied first. Signals of the terminal are the recorder's
to understand. It may be killed at any moment; the next one, or the recorder, goes on from the spool.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from isotrack_api.intent import Intent
from isotrack_recorder.errors import IsotrackError
from isotrack_recorder.logs import configure_logging
from isotrack_recorder.ship.checkpoints import Checkpoints
from isotrack_recorder.ship.credentials import AmbientCredentials
from isotrack_recorder.ship.deliver import Delivery
from isotrack_recorder.ship.lanes import Lanes
from isotrack_recorder.ship.layout import layout_of
from isotrack_recorder.ship.live import keep_delivering
from isotrack_recorder.ship.preflight import check_storage
from isotrack_recorder.ship.retry import REFUSED_PAUSE_SECONDS, Patience
from isotrack_recorder.ship.s3 import S3Store

from .display import tell
from .finish import how_to_finish
from .shipping import OVER
from .trouble import StorageTrouble
from .workspace import Workspace

log = logging.getLogger(__name__)

NICE: Final = 5
"""Files can wait, sockets cannot."""
ROUND_SECONDS: Final = 2.0
LAST_COPY_SECONDS: Final = 10.0
"""For what a killed recorder left. Longer keeps its folder locked for whoever wants to finish it."""


def main(arguments: Sequence[str]) -> int:
    """Entry point: `shipper WORKSPACE`. Exit code of `errors`."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.nice(NICE)
    configure_logging(os.environ, sys.stderr, default_level="error", default_format="text")
    try:
        asyncio.run(ship(Workspace(Path(arguments[0]))))
    except IsotrackError as error:
        log.error("nothing is shipped while this lasts; the recording goes on", extra={"fields": {"why": str(error)}})
        return error.exit_code
    return 0


async def ship(workspace: Workspace) -> None:
    """Ship until stdin says that capture is over, or closes.

    Raises:
        IsotrackError: the storage does not take us.
    """
    over = asyncio.create_task(last_word(), name="stdin")
    intent = workspace.read_intent()
    assert intent.storage is not None
    patience = Patience(refused_pause_seconds=REFUSED_PAUSE_SECONDS)
    with closing(Lanes()) as lanes:
        trouble = StorageTrouble(sys.stderr, "the recording goes on, and the disk keeps what is not uploaded")
        heard = lambda answer: None if over.done() else trouble(answer)  # noqa: E731 - the recorder tells what comes then
        store = S3Store(intent.storage, AmbientCredentials(), patience, heard)
        working = asyncio.create_task(_work(workspace, intent, store, lanes, over), name="ship")
        try:
            await asyncio.wait((over, working), return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
            died = over.result() != OVER
            patience.end_within(LAST_COPY_SECONDS if died else 0)
            if died:
                tell(sys.stderr, f"isotrack: the recorder died; {how_to_finish(workspace)}\n")
            with contextlib.suppress(IsotrackError):  # what is left then is for whoever makes the files
                checkpoints = await working
                if died:
                    await checkpoints.flush(lanes)
                await lanes.request(checkpoints.close)
        finally:
            patience.end_within(0)
            working.cancel()
            over.cancel()
            await asyncio.gather(working, over, return_exceptions=True)


async def last_word() -> bytes:
    """What stdin says; nothing when it closes without a word."""
    # NB: no thread. One that waits in a read cannot be ended, and the process would wait for it.
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
    with closing(transport):
        return await reader.readline()


async def _work(
    workspace: Workspace, intent: Intent, store: S3Store, lanes: Lanes, over: asyncio.Future[bytes]
) -> Checkpoints:
    """Ship until `over`; what is left then is for whoever comes next."""
    await lanes.request(check_storage, store, layout_of(intent), intent)
    checkpoints = await lanes.request(Checkpoints, workspace.spool, intent, store)
    delivery = Delivery(workspace.spool, intent, store, lanes)
    delivery.copied = lambda: checkpoints.sent
    copying = asyncio.create_task(checkpoints.keep(lanes), name="checkpoints")
    try:
        await keep_delivering(
            delivery, lambda: checkpoints.sent, over, round_seconds=ROUND_SECONDS, delivered=lambda: None
        )
    finally:
        copying.cancel()
        await asyncio.gather(copying, return_exceptions=True)
    return checkpoints


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
