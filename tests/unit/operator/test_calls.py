"""Calls that Recordings wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

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
        self.answered = asyncio.Event()
        self.error: SourceError | None = None

    async def __call__(self, access: Access, rooms: Sequence[str]) -> set[str]:
        self.asked.append(tuple(rooms))
        self.answered.set()  # NB: who waits for it runs only after the answer was taken, which needs no turn of the loop
        if self.error:
            raise self.error
        return self.rooms & set(rooms)


async def poll_once(calls: Calls, sfu: Sfu) -> None:
    sfu.answered.clear()
    task = asyncio.create_task(calls.run(0.001))
    await asyncio.wait_for(sfu.answered.wait(), 60)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_one_request_per_class_asks_for_all_that_wait() -> None:
    sfu, woken = Sfu(), list[Place]()
    calls = Calls(woken.append, sfu)
    for number in range(50):
        calls.wait(("team-a", f"r{number}"), "default", f"room-{number % 5}", ACCESS)
    sfu.rooms = {"room-3"}
    await poll_once(calls, sfu)
    assert all(asked == ("room-0", "room-1", "room-2", "room-3", "room-4") for asked in sfu.asked)
    assert set(woken) == {("team-a", f"r{number}") for number in range(50) if number % 5 == 3}


async def test_answer_of_a_round_spares_the_reconcile_its_own_question(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("isotrack_operator.calls.ANSWER_VALID", 60.0)
    sfu = Sfu()
    calls = Calls(lambda _: None, sfu)
    calls.wait(("team-a", "r"), "default", "room", ACCESS)
    sfu.rooms = {"room"}
    await poll_once(calls, sfu)
    asked = len(sfu.asked)
    assert (await calls.look("default", "room", ACCESS)).exists
    assert len(sfu.asked) == asked


async def test_who_waits_no_longer_is_not_asked_for() -> None:
    sfu = Sfu()
    calls = Calls(lambda _: None, sfu)
    calls.wait(("team-a", "r"), "default", "room", ACCESS)
    calls.forget(("team-a", "r"))
    calls.wait(("team-a", "another"), "default", "another-room", ACCESS)
    await poll_once(calls, sfu)
    assert set(sfu.asked) == {("another-room",)}


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
    await poll_once(calls, sfu)
    assert set(woken) == {("team-a", "r")}
    sfu.error, sfu.rooms = None, {"room"}
    await poll_once(calls, sfu)
    assert (await calls.look("default", "room", ACCESS)).exists
