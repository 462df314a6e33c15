"""The agent's loops end when they are cancelled, whatever happens at that moment."""

from __future__ import annotations

import asyncio

from isotrack_recorder.pod.tasks import set_within


async def test_a_cancellation_together_with_the_event_is_not_swallowed() -> None:
    """A loop that lives on would keep the agent from exiting."""
    event = asyncio.Event()

    async def loop() -> None:
        while True:
            event.clear()
            await set_within(event, 60)

    task = asyncio.create_task(loop())
    await asyncio.sleep(0)
    event.set()
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=60)
    assert done
    assert task.cancelled()
