"""How tasks of a pod's processes wait, go on after a bug, and end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Coroutine
from typing import Any, Final

log = logging.getLogger(__name__)

BEGIN_AGAIN_SECONDS: Final = 15.0


async def set_within(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, but not for ever.

    NB: not asyncio.wait_for, which before Python 3.12 swallows a cancellation that comes together with the event: the
    task would live on and the agent never exit.
    """
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


async def unessential(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run something whose failure must not cost a recording: a bug in it is logged, and it begins again."""
    while True:
        try:
            await work()
        except Exception:
            log.exception("task failed")
        await asyncio.sleep(BEGIN_AGAIN_SECONDS)


async def deaf_at_the_end(work: Coroutine[Any, Any, int]) -> int:
    """Do the work of a process; behind its end SIGTERM and SIGINT change nothing.

    asyncio takes its handlers back as it closes, and the interpreter is at work for a while after that: a signal that comes so late
    would replace the exit code, and with it the truth about the attempt.
    """
    try:
        return await work
    finally:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)
