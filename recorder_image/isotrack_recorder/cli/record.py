"""`isotrack record`: capture a call on this machine, then make its files.

    options ─> output, room and storage can be used? ─> capture until Ctrl-C, a limit or the call's end ─> files ─> summary
                                                        └─ into a bucket: ship meanwhile (`shipper`)

The spool is the truth until the files are made: whatever fails or is interrupted, its folder stays and a line says how to go
on from it. The first Ctrl-C (or SIGTERM) ends the capture in good order, the second ends the process at once.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import sys
import uuid

from isotrack_api.manifest import StopReason
from isotrack_recorder.capture import Capture
from isotrack_recorder.clock import SystemClock
from isotrack_recorder.earlier import Earlier
from isotrack_recorder.errors import OutputError
from isotrack_recorder.limits import allow_many_files
from isotrack_recorder.logs import check_choices, configure_logging
from isotrack_recorder.orders import orders_of
from isotrack_recorder.sources import base
from isotrack_recorder.spool.room import Room, WatchedRoom
from isotrack_recorder.spool.watermarks import segment_bytes
from isotrack_recorder.spool.writer import SpoolWriter

from .display import REFRESHES_PER_SECOND, Display, open_display, tell
from .finish import finish_workspace, how_to_finish, place_of, print_result
from .interrupts import Interrupts
from .options import RecordOptions, read_options
from .shipping import Shipping
from .workspace import Workspace, check_output, state_folder


def run(arguments: argparse.Namespace) -> int:
    """Record. Returns 0 or the exit code of what went wrong after media had been captured.

    Raises:
        IsotrackError: nothing was captured, or the files could not be made.
    """
    options = read_options(arguments, os.environ, uuid.uuid4())
    check_choices(os.environ)
    configure_logging(os.environ, sys.stderr, default_level="error", default_format="text")
    allow_many_files()
    return asyncio.run(_record(options))


async def _record(options: RecordOptions) -> int:
    workspace = await _prepare(options)
    try:
        workspace.spool.mkdir()
        room = Room(workspace.spool, copies=2 if options.output is not None else 1)
        spool = SpoolWriter(workspace.spool, segment_bytes(room.measure().capacity))
    except OSError as error:
        raise OutputError(f"cannot write to {workspace.spool}: {error.strerror}") from error
    display = open_display(sys.stderr, f"recording {options.intent.call_id}")
    changed = asyncio.Event()
    shipping = Shipping(workspace)

    def news() -> None:
        changed.set()
        # NB: no `state()` here: at the join of a large call there are hundreds of changes in one turn of the loop
        if capture.first_packet_at_ms is not None:
            shipping.captured.set()

    capture = Capture(
        orders_of(options.intent),
        spool,
        SystemClock(),
        lambda handler: _open_source(options, handler),
        WatchedRoom(room.measure, spool),
        Earlier(),
        news,
    )

    def last_words() -> str:
        display.close()
        shipping.kill()
        spool.flush()
        return how_to_finish(workspace)

    interrupts = Interrupts(lambda: capture.stop(StopReason.REQUESTED, "interrupted"), last_words, sys.stderr)
    interrupts.install()
    try:
        if options.output is None:
            display.say(f"if this machine is lost: isotrack finalise {place_of(options.intent)}")
            await _capture_and_ship(capture, changed, display, shipping)
        else:
            await _capture(capture, changed, display)
    finally:
        display.close()
    interrupts.finishing()
    if capture.error is not None and capture.first_packet_at_ms is None:
        workspace.remove()
        raise capture.error
    finished = await finish_workspace(workspace, options.intent, sys.stderr)
    print_result(finished, as_json=options.as_json)
    if capture.error is not None:
        tell(sys.stderr, f"isotrack: {capture.error}\n")
        return capture.error.exit_code
    return 0


async def _prepare(options: RecordOptions) -> Workspace:
    """Find out now what would fail later; joining comes after that.

    Raises:
        IsotrackError: says what is wrong. Nothing is left behind.
    """
    from isotrack_recorder.sources.livekit.access import find_room

    intent = options.intent
    if options.output is not None:
        check_output(options.output)
    await find_room(intent.source.url, options.api_key, options.api_secret, intent.call_id)
    workspace = Workspace.create(options.output or state_folder(os.environ), intent)
    if intent.storage is not None:
        from isotrack_recorder.ship.credentials import AmbientCredentials
        from isotrack_recorder.ship.deliver import probe

        try:
            await probe(intent, AmbientCredentials())
        except BaseException:  # an interrupt, too, leaves nothing behind
            workspace.remove()
            raise
    return workspace


async def _capture(capture: Capture, changed: asyncio.Event, display: Display) -> None:
    """Capture until the end; draw meanwhile."""

    async def draw() -> None:
        while True:
            await changed.wait()
            changed.clear()
            display.show(capture.state())
            await asyncio.sleep(1 / REFRESHES_PER_SECOND)

    drawing = asyncio.create_task(draw(), name="display")
    try:
        await capture.run()
    finally:
        drawing.cancel()
        await asyncio.gather(drawing, return_exceptions=True)
    display.show(capture.state())


async def _capture_and_ship(capture: Capture, changed: asyncio.Event, display: Display, shipping: Shipping) -> None:
    """Capture until the end; ship meanwhile."""
    shipped = asyncio.create_task(shipping.run(), name="shipping")
    try:
        await _capture(capture, changed, display)
    finally:
        shipped.cancel()
        await asyncio.gather(shipped, return_exceptions=True)
        await shipping.end()


def _open_source(options: RecordOptions, handler: base.SourceHandler) -> base.Source:
    from isotrack_recorder.sources.livekit.access import MintedTokens
    from isotrack_recorder.sources.livekit.client import LiveKitSettings, LiveKitSource
    from isotrack_recorder.webrtc.session import MediaSession, MediaSettings

    source = options.intent.source
    tokens = MintedTokens(options.api_key, options.api_secret, options.intent.call_id, source.identity)
    settings = LiveKitSettings(url=source.url, first_join_seconds=0, quality=source.quality)
    gc.freeze()  # as in a pod: a collector that walks what is loaded each time would stop the packet loop
    media = MediaSettings(key_frame_interval_seconds=options.intent.key_frame_interval_seconds)
    return LiveKitSource(settings, tokens, handler, SystemClock(), lambda listener: MediaSession(listener, media))
