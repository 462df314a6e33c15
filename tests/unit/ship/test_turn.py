"""A turn over sessions: who is muxed while others are sent, and what a failure costs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import pytest

from isotrack_recorder.errors import IsotrackError, StorageError
from isotrack_recorder.finalise.parts import PartState
from isotrack_recorder.ship.session import Errand, Session
from isotrack_recorder.ship.turn import NO_ROOM, Muxed, Turn

PART = cast("PartState", None)
MOST = 100


@dataclass
class Person:
    """As much of a Session as a turn looks at: `steps` times it is muxed, with something to send each time."""

    peer_id: str
    steps: int
    bytes: int = 40
    more: bool = True


@dataclass
class Lanes:
    """Both lanes, and what went on in them; sending takes until it is let go."""

    log: list[str] = field(default_factory=list)
    sending: set[str] = field(default_factory=set)
    unsent: list[int] = field(default_factory=list)
    fails: Callable[[str], BaseException | None] = lambda _peer_id: None
    spoils: Callable[[str], Exception | None] = lambda _peer_id: None
    given_up: set[str] = field(default_factory=set)
    sent: Callable[[str], bool] = lambda _peer_id: True
    """Whether a session is sent now."""
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def turn(self, people: Sequence[Person]) -> Turn:
        return Turn(cast("Sequence[Session]", people), self.mux, self.save, self.send, self.given_up)

    async def mux(self, sessions: Sequence[Session], sending: Mapping[str, int]) -> Muxed:
        person, unsent = cast("Person", sessions[0]), sum(sending.values())
        if unsent and unsent + person.bytes > MOST:
            return NO_ROOM
        assert person.peer_id not in self.sending
        await asyncio.sleep(0)
        self.unsent.append(unsent + person.bytes)
        self.log.append(f"mux {person.peer_id}")
        person.steps -= 1
        person.more = person.steps > 0
        self.news.set()
        return Muxed(cast("Session", person), person.bytes)

    async def save(self, session: Session) -> Sequence[Errand]:
        self.log.append(f"save {session.peer_id}")
        if error := self.spoils(session.peer_id):
            raise error
        return [Errand(session, PART, ())]

    async def send(self, errand: Errand) -> int:
        peer_id = errand.session.peer_id
        self.sending.add(peer_id)
        while not self.sent(peer_id):
            self.news.clear()
            await self.news.wait()
        await asyncio.sleep(0)
        self.sending.discard(peer_id)
        self.log.append(f"sent {peer_id}")
        if error := self.fails(peer_id):
            raise error
        return int(not errand.session.more)


async def test_the_next_session_is_muxed_while_the_first_is_sent() -> None:
    lanes = Lanes()
    lanes.sent = lambda peer_id: peer_id != "a" or "mux b" in lanes.log
    turn = lanes.turn([Person("a", 1), Person("b", 1)])
    await turn.run()
    assert lanes.log.index("save a") < lanes.log.index("mux b") < lanes.log.index("sent a") < lanes.log.index("sent b")
    assert (turn.finished, turn.failures) == (2, [])


async def test_a_session_that_is_sent_is_not_muxed_and_comes_first_afterwards() -> None:
    lanes = Lanes()
    turn = lanes.turn([Person("a", 3), Person("b", 3), Person("c", 1)])
    await turn.run()
    order = [line.removeprefix("mux ") for line in lanes.log if line.startswith("mux")]
    assert sorted(order) == ["a", "a", "a", "b", "b", "b", "c"]
    assert order.index("c") > max(at for at, name in enumerate(order) if name == "a"), "few are open at a time"
    assert turn.finished == 3


async def test_no_more_is_muxed_than_there_is_room_for_until_something_was_sent() -> None:
    lanes = Lanes()
    lanes.sent = lambda _peer_id: len(lanes.sending) == 2 or len(lanes.log) > 2
    await lanes.turn([Person(name, 1) for name in "abcdef"]).run()
    assert max(lanes.unsent) == 80
    assert set(lanes.log[:4]) == {"mux a", "mux b", "save a", "save b"}


async def test_what_is_larger_than_the_room_is_muxed_alone() -> None:
    lanes = Lanes()
    await lanes.turn([Person("a", 2, bytes=500), Person("b", 1, bytes=500)]).run()
    assert lanes.unsent == [500, 500, 500]


async def test_a_session_that_cannot_be_sent_is_not_muxed_again_and_costs_no_other_one() -> None:
    lanes = Lanes()
    error = StorageError("refused")
    lanes.fails = lambda peer_id: error if peer_id == "a" else None
    turn = lanes.turn([Person("a", 5), Person("b", 2)])
    await turn.run()
    assert lanes.log.count("mux a") == 1
    assert lanes.log.count("sent b") == 2
    assert turn.failures == [error]
    assert turn.finished == 1


async def test_a_bug_in_a_lane_is_told_as_it_is() -> None:
    lanes = Lanes()
    lanes.fails = lambda _peer_id: KeyError("bug")
    turn = lanes.turn([Person("a", 1)])
    await turn.run()
    assert [type(error) for error in turn.failures] == [KeyError]


async def test_a_session_that_is_given_up_meanwhile_is_not_muxed_again() -> None:
    lanes = Lanes()
    lanes.fails = lambda peer_id: lanes.given_up.add(peer_id)
    await lanes.turn([Person("a", 5)]).run()
    assert lanes.log == ["mux a", "save a", "sent a"]


async def test_what_cannot_be_saved_is_not_sent() -> None:
    lanes = Lanes()
    error = IsotrackError("the disk is full")
    lanes.spoils = lambda peer_id: error if peer_id == "a" else None
    turn = lanes.turn([Person("a", 2), Person("b", 1)])
    await turn.run()
    assert [line for line in lanes.log if line.endswith("a")] == ["mux a", "save a"]
    assert "sent b" in lanes.log
    assert turn.failures == [error]


async def test_where_muxing_breaks_what_is_on_its_way_is_still_sent() -> None:
    lanes = Lanes()
    error = IsotrackError("the spool cannot be measured")
    mux = lanes.mux

    async def broken(sessions: Sequence[Session], sending: Mapping[str, int]) -> Muxed:
        if lanes.log:
            raise error
        return await mux(sessions, sending)

    turn = Turn(cast("Sequence[Session]", [Person("a", 2), Person("b", 2)]), broken, lanes.save, lanes.send, ())
    await turn.run()
    assert lanes.log == ["mux a", "save a", "sent a"]
    assert turn.failures == [error]


async def test_a_turn_that_is_cancelled_leaves_no_task_behind() -> None:
    lanes = Lanes()
    both = asyncio.Event()

    def sent(_peer_id: str) -> bool:
        if len(lanes.sending) == 2:
            both.set()
        return False

    lanes.sent = sent
    running = asyncio.create_task(lanes.turn([Person("a", 1), Person("b", 1)]).run())
    await both.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert asyncio.all_tasks() == {asyncio.current_task()}
