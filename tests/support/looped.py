"""An asyncio server of a test in a thread of its own, for tests that block: `with looped(FaultProxy(…)) as (loop, proxy)`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import TypeVar

T = TypeVar("T")
OPEN_SECONDS = 20


@contextmanager
def looped(server: AbstractAsyncContextManager[T]) -> Iterator[tuple[asyncio.AbstractEventLoop, T]]:
    """Enter it in the thread's loop, leave it there at the end. What it yields is to be touched through the loop only."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="servers", daemon=True)
    thread.start()
    try:
        yielded = asyncio.run_coroutine_threadsafe(_enter(server), loop).result(OPEN_SECONDS)
        try:
            yield loop, yielded
        finally:
            asyncio.run_coroutine_threadsafe(_leave(server), loop).result(OPEN_SECONDS)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(OPEN_SECONDS)
        loop.close()


async def _enter(server: AbstractAsyncContextManager[T]) -> T:
    return await server.__aenter__()


async def _leave(server: AbstractAsyncContextManager[T]) -> None:
    await server.__aexit__(None, None, None)
    left = asyncio.all_tasks() - {asyncio.current_task()}  # of connections that are still open
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
