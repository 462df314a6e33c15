"""`isotrack-recorder capture`: the sidecar that joins the call and fills the spool.

    start ─> control socket ─> join, capture ─> stop, call over, failure ─> idle (final State on the socket) ─> SIGTERM ─> 0

It restarts in place: after kill -9 the kubelet starts it again, the next incarnation folder is made, and the newest token
and command that were kept in memory take it back into the same call; if the capture had ended in good order it only idles.
As a native sidecar it gets SIGTERM after the agent ended, so SIGTERM means: flush, leave the call, exit. Its only secret is
the join token. A capture that failed is told on the socket and does not end the process: the agent needs the spool, and
decides the attempt's fate.

First words matter, and loading libraries is most of what a join takes. So nothing is loaded here that a join does without
(`tests/unit/capture/test_start.py` has the list), and a thread loads what it needs while this one reads the spool, connects and waits
for the SFU's answer. Python runs one of the two at a time, but reading the system's certificates, which aiohttp does twice,
and the network need neither.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import Mapping
from threading import Thread

from isotrack_api.words import StopReason
from isotrack_recorder.capture import Capture
from isotrack_recorder.clock import SystemClock
from isotrack_recorder.control import Command, State
from isotrack_recorder.earlier import Earlier, read_earlier
from isotrack_recorder.errors import IsotrackError, OutputError
from isotrack_recorder.limits import allow_many_files
from isotrack_recorder.logs import configure_logging
from isotrack_recorder.media import MediaListener
from isotrack_recorder.orders import Orders, read_orders
from isotrack_recorder.settings import PodPaths, read_paths
from isotrack_recorder.sources import base
from isotrack_recorder.spool.room import Room, WatchedRoom
from isotrack_recorder.spool.watermarks import segment_bytes
from isotrack_recorder.spool.writer import SpoolWriter

from .control_server import ControlServer
from .kept import KeptCommand, KeptTokens

log = logging.getLogger(__name__)


def main(environ: Mapping[str, str]) -> int:
    """Entry point. Exit code 0 after SIGTERM, else one of `errors`."""
    configure_logging(environ, sys.stderr)
    allow_many_files()
    try:
        return asyncio.run(run(read_orders(environ), read_paths(environ)))
    except IsotrackError as error:
        log.error("cannot start", extra={"fields": {"reason": error.reason, "detail": str(error)}})
        return error.exit_code


async def run(orders: Orders, paths: PodPaths) -> int:
    """Capture, then wait for SIGTERM.

    Raises:
        IsotrackError: The spool or the shared folder cannot be written.
    """
    terminated = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, terminated.set)
    try:
        earlier = read_earlier(paths.spool)
        if earlier.stop_reason:
            collect_garbage()
            await _idle(paths, earlier, terminated)
        else:
            await _capture(orders, paths, earlier, terminated)
    except OSError as error:
        raise OutputError(f"cannot write {error.filename or paths.spool}: {error.strerror or error}") from error
    return 0


async def _capture(orders: Orders, paths: PodPaths, earlier: Earlier, terminated: asyncio.Event) -> None:
    # NB: no daemon. One that is ended amid an import may take the process down.
    Thread(target=_load, name="load").start()
    paths.spool.mkdir(parents=True, exist_ok=True)
    room = Room(paths.spool, orders.spool_bytes)
    spool = SpoolWriter(paths.spool, segment_bytes(room.measure().capacity))
    kept = KeptCommand(paths.run)
    tokens = KeptTokens(paths.token_file, paths.run)
    capture = Capture(
        orders,
        spool,
        SystemClock(),
        lambda handler: _open_source(orders, earlier, tokens, handler),
        WatchedRoom(room.measure, spool),
        earlier,
        changed=lambda: server.changed(),
    )

    def follow(command: Command) -> None:
        kept.keep(command)
        capture.apply(command)

    server = ControlServer(paths.run, spool.incarnation, capture.state, follow)
    before = kept.read()
    if before is not None:
        capture.apply(before)
    await server.start()
    capturing = asyncio.create_task(capture.run(), name="capture")
    stopping = asyncio.create_task(terminated.wait(), name="terminated")
    try:
        await asyncio.wait((capturing, stopping), return_when=asyncio.FIRST_COMPLETED)
        collect_garbage()  # also where the call was never joined
        capture.stop(StopReason.DRAINED, "the recorder was terminated")  # NB: no effect on a capture that is over
        await capturing
        if capture.error is not None:
            fields = {"reason": capture.error.reason, "detail": str(capture.error)}
            log.error("capture failed", extra={"fields": fields})
        await stopping
    finally:
        stopping.cancel()
        await server.close()


async def _idle(paths: PodPaths, earlier: Earlier, terminated: asyncio.Event) -> None:
    """The capture was over before this process began: only tell so."""
    failed = bool(earlier.error_reason)
    state = State(
        phase="Failed" if failed else "Stopped",
        stop_reason=StopReason(earlier.stop_reason),
        error_reason=earlier.error_reason,
        error_exit_code=_exit_code(earlier.error_reason),
        message=earlier.stop_message,
        call_sid=earlier.call_sid,
        armed_at_ms=earlier.armed_at_ms,
        unrecorded=earlier.unrecorded,
    )
    server = ControlServer(paths.run, 0, lambda: state, lambda _command: None)
    await server.start()
    try:
        await terminated.wait()
    finally:
        await server.close()


def _open_source(orders: Orders, earlier: Earlier, tokens: KeptTokens, handler: base.SourceHandler) -> base.Source:
    """Make the source that the orders name. Imported here: a recorder loads one source only."""
    from isotrack_recorder.sources.livekit.client import LiveKitSettings, LiveKitSource

    settings = LiveKitSettings(
        url=orders.url,
        call_sid=earlier.call_sid or orders.call_sid,
        quality=orders.quality,
    )
    return LiveKitSource(
        settings,
        tokens,
        handler,
        SystemClock(),
        lambda listener: _open_media(listener, orders.key_frame_interval_seconds),
    )


def _open_media(listener: MediaListener, key_frame_interval_seconds: float) -> base.MediaConnection:
    from isotrack_recorder.webrtc.session import MediaSession, MediaSettings  # waits until it is loaded

    collect_garbage()
    return MediaSession(listener, MediaSettings(key_frame_interval_seconds=key_frame_interval_seconds))


def _load() -> None:
    """Load what a join needs, in the order in which it does."""
    import aiohttp  # noqa: F401

    import isotrack_recorder.webrtc.session  # noqa: F401


def collect_garbage() -> None:
    """Have the collector work, which was off while libraries were loaded: it walked ever more of them, and never found anything.

    What is loaded by now stays: a collector that walks it each time would stop the packet loop for 10 to 30 ms.
    """
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def _exit_code(reason: str) -> int:
    """Exit code of the error with this reason; 0 where there is none."""
    classes = [IsotrackError]
    for known in classes:  # grows while we walk the tree
        classes += known.__subclasses__()
    return next((known.exit_code for known in classes if known.reason == reason), 1 if reason else 0)
