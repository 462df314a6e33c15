"""Calls that Recordings wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from isotrack_operator.calls import Calls
from isotrack_operator.errors import SourceError, SourceRefusedError
from isotrack_operator.source import Access
from isotrack_operator.store import Place

ACCESS = Access(url="ws://x", key="k", secret="s")


class Sfu:
    """An SFU with rooms; remembers what it was asked."""

    def __init__(self) -> None:
        self.rooms: set[str] = set()
        self.asked: list[tuple[str, ...]] = []
        self.error: SourceError | None = None

    async def __call__(self, access: Access, rooms: Sequence[str]) -> set[str]:
        self.asked.append(tuple(rooms))
        if self.error:
            raise self.error
        return self.rooms & set(rooms)


async def poll_once(calls: Calls) -> None:
    task = asyncio.create_task(calls.run(0.001))
    await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_one_request_per_class_asks_for_all_that_wait() -> None:
    sfu, woken = Sfu(), list[Place]()
    calls = Calls(woken.append, sfu)
    for number in range(50):
        calls.wait(("team-a", f"r{number}"), "default", f"room-{number % 5}", ACCESS)
    sfu.rooms = {"room-3"}
    await poll_once(calls)
    assert all(asked == ("room-0", "room-1", "room-2", "room-3", "room-4") for asked in sfu.asked)
    assert set(woken) == {("team-a", f"r{number}") for number in range(50) if number % 5 == 3}


async def test_answer_of_a_round_spares_the_reconcile_its_own_question() -> None:
    sfu = Sfu()
    calls = Calls(lambda _: None, sfu)
    calls.wait(("team-a", "r"), "default", "room", ACCESS)
    sfu.rooms = {"room"}
    await poll_once(calls)
    asked = len(sfu.asked)
    assert (await calls.look("default", "room", ACCESS)).exists
    assert len(sfu.asked) == asked


async def test_who_waits_no_longer_is_not_asked_for() -> None:
    sfu = Sfu()
    calls = Calls(lambda _: None, sfu)
    calls.wait(("team-a", "r"), "default", "room", ACCESS)
    calls.forget(("team-a", "r"))
    await poll_once(calls)
    assert sfu.asked == []


async def test_refusal_becomes_a_fact_with_its_reason() -> None:
    sfu = Sfu()
    sfu.error = SourceRefusedError("wrong key")
    found = await Calls(lambda _: None, sfu).look("default", "room", ACCESS)
    assert (found.problem_reason, found.problem) == ("SourceRefused", "wrong key")


async def test_class_whose_server_fails_wakes_its_waiters_and_polling_goes_on() -> None:
    sfu, woken = Sfu(), list[Place]()
    calls = Calls(woken.append, sfu)
    calls.wait(("team-a", "r"), "default", "room", ACCESS)
    sfu.error = SourceError("down")
    await poll_once(calls)
    assert set(woken) == {("team-a", "r")}
    sfu.error, sfu.rooms = None, {"room"}
    await poll_once(calls)
    assert (await calls.look("default", "room", ACCESS)).exists
