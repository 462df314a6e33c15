"""Threads for calls that block: the only executors of the shipping side.

Three lanes, all bounded. `files` makes files (muxing, reading the spool); `disk` waits until they are safe on the disk; `requests`
sends them, and mostly waits for the network. No job submits another one, so the lanes cannot wait for each other in a circle. A
request that reads thousands of objects reads `ahead`, in threads that live as long as that takes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, ParamSpec, TypeVar

FILES_AT_ONCE: Final = 1
"""Muxing is Python's own work: a second thread would only take turns with the first."""
SAVES_AT_ONCE: Final = 2
REQUESTS_AT_ONCE: Final = 4

READS_AT_ONCE: Final = 16
"""Of one `ahead`. Small reads cost the way there and back; more at once only wait for our own processor."""
READ_BYTES_AT_ONCE: Final = 32 * 1024 * 1024

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


def ahead(read: Callable[[T], R], wanted: Iterable[T], size: Callable[[T], int]) -> Generator[R, None, None]:
    """What `read` gives for each of `wanted`, in that order, the next ones being read meanwhile.

    No more than READS_AT_ONCE are on their way or waiting to be taken, nor (but for a single one) more than READ_BYTES_AT_ONCE.
    Raises what `read` raises, when it is that one's turn.

    Args:
        wanted: Is asked for the next one only when there is room for it.
        size: Bytes that one of them may become.
    """
    with ThreadPoolExecutor(READS_AT_ONCE, thread_name_prefix="ship-ahead") as threads:
        pending: deque[tuple[Future[R], int]] = deque()
        held = 0
        try:
            for one in wanted:
                most = size(one)
                while pending and (len(pending) >= READS_AT_ONCE or held + most > READ_BYTES_AT_ONCE):
                    future, bytes_ = pending.popleft()
                    yield future.result()
                    held -= bytes_
                pending.append((threads.submit(read, one), most))
                held += most
            while pending:
                yield pending.popleft()[0].result()
        finally:
            threads.shutdown(wait=False, cancel_futures=True)


class Lanes:
    """Owns the worker threads. Close it when nothing is running in it any more."""

    def __init__(self) -> None:
        self._files = ThreadPoolExecutor(FILES_AT_ONCE, thread_name_prefix="ship-file")
        self._disk = ThreadPoolExecutor(SAVES_AT_ONCE, thread_name_prefix="ship-disk")
        self._requests = ThreadPoolExecutor(REQUESTS_AT_ONCE, thread_name_prefix="ship-request")

    async def file_job(self, job: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `job` in the lane for whole files."""
        return await asyncio.wrap_future(self._files.submit(job, *args, **kwargs))

    async def disk_job(self, job: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `job`, which waits for the disk, beside what makes files."""
        return await asyncio.wrap_future(self._disk.submit(job, *args, **kwargs))

    async def request(self, job: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `job`, one or a few requests, in the lane for requests."""
        return await asyncio.wrap_future(self.submit(job, *args, **kwargs))

    def submit(self, job: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """The same from a worker thread of the file lane."""
        return self._requests.submit(job, *args, **kwargs)

    def close(self) -> None:
        """Drop what has not begun and let running requests end by themselves (they are bounded by their time-outs)."""
        self._files.shutdown(wait=False, cancel_futures=True)
        self._disk.shutdown(wait=False, cancel_futures=True)
        self._requests.shutdown(wait=False, cancel_futures=True)
