"""Keys that want a reconcile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from isotrack_operator import queue as queue_module
from isotrack_operator.queue import WorkQueue


@asynccontextmanager
async def running(work: Callable[[str], Awaitable[None]], workers: int = 4) -> Any:
    queue: WorkQueue[str] = WorkQueue(work)
    started = asyncio.Event()
    task = asyncio.create_task(queue.run(workers, started))
    await started.wait()
    try:
        yield queue
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_key_that_is_added_while_in_work_is_worked_again_and_never_beside_itself() -> None:
    inside, most, runs = 0, 0, 0
    entered, leave, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work(key: str) -> None:
        nonlocal inside, most, runs
        inside, runs = inside + 1, runs + 1
        most = max(most, inside)
        entered.set()
        await leave.wait()
        inside -= 1
        if runs == 2:
            done.set()

    async with running(work) as queue:
        queue.add("a")
        await entered.wait()
        for _ in range(5):
            queue.add("a")
        leave.set()
        await asyncio.wait_for(done.wait(), 60)
        await asyncio.sleep(0)
    assert (most, runs) == (1, 2)


async def test_other_keys_go_on_beside_a_slow_one() -> None:
    finished = asyncio.Event()

    async def work(key: str) -> None:
        if key == "slow":
            await asyncio.Event().wait()
        finished.set()

    async with running(work, workers=2) as queue:
        queue.add("slow")
        queue.add("quick")
        await asyncio.wait_for(finished.wait(), 60)


async def test_failure_comes_back_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_module, "FIRST_PAUSE", 0.001)
    tries = 0
    done = asyncio.Event()

    async def work(key: str) -> None:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise RuntimeError("not yet")
        done.set()

    async with running(work) as queue:
        queue.add("a")
        await asyncio.wait_for(done.wait(), 60)
    assert tries == 4


async def test_earliest_wish_wins() -> None:
    done = asyncio.Event()

    async def work(key: str) -> None:
        done.set()

    async with running(work) as queue:
        queue.add_after("a", 0.001)
        queue.add_after("a", 1000)
        await asyncio.wait_for(done.wait(), 60)


async def test_run_of_a_key_voids_its_timer() -> None:
    """What it was set for is looked at now; the run sets a new one if it needs one."""
    runs = 0
    done = asyncio.Event()

    async def work(key: str) -> None:
        nonlocal runs
        runs += 1
        done.set()

    async with running(work) as queue:
        queue.add_after("a", 0.02)
        queue.add("a")
        await asyncio.wait_for(done.wait(), 60)
        await asyncio.sleep(0.05)
    assert runs == 1
