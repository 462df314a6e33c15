"""The agent's HTTP port: /metrics for Prometheus, /healthz to see that the agent lives.

It has no say in the recording: a port that is taken is logged and done without, a scrape that fails is that scrape's matter.
Requests are answered one at a time, whatever their number; what they read of the spool is file sizes, in a worker thread.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from isotrack_recorder.spool.room import folder_bytes

from .metrics import CONTENT_TYPE

log = logging.getLogger(__name__)


async def serve_metrics(port: int, spool: Path, text: Callable[[int], str]) -> None:
    """Answer on all addresses of the pod, for ever.

    Args:
        text: The metrics, given the bytes in the spool.
    """
    turn = asyncio.Lock()

    async def metrics(_: web.Request) -> web.Response:
        async with turn:
            size = await asyncio.to_thread(folder_bytes, spool)
            return web.Response(body=text(size).encode(), headers={"Content-Type": CONTENT_TYPE})

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    application = web.Application()
    application.add_routes([web.get("/metrics", metrics), web.get("/healthz", healthz)])
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, port=port).start()
    except OSError as error:
        await runner.cleanup()
        log.warning("no metrics: cannot listen", extra={"fields": {"port": port, "why": error.strerror}})
        await asyncio.Event().wait()
    try:
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
