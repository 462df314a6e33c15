"""Checkpoints and a storage that is slow, or was away: one on its way, what gathers goes together, bounded and streamed."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import threading
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from isotrack_api.intent import S3Destination
from isotrack_recorder.ship import checkpoints
from isotrack_recorder.ship.checkpoint import PREAMBLE_BYTES, Head, decode_head, head_bytes
from isotrack_recorder.ship.checkpoints import Checkpoints, _measure, measure
from isotrack_recorder.ship.lanes import REQUESTS_AT_ONCE, Lanes
from isotrack_recorder.ship.store import Streamed
from isotrack_recorder.spool.journal import encode_line
from support.memory_store import MemoryStore
from support.shipping import a_shipping_intent, two_people

PATIENCE = 10.0
MIB = 1024 * 1024


class Time:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class SlowStore(MemoryStore):
    """Each put waits until the test lets it go on."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived = threading.Semaphore(0)
        self.answers = threading.Semaphore(0)
        self.most = 0
        """Puts that were on their way at the same time."""
        self._inside = 0
        self._lock = threading.Lock()

    def put_once(self, key: str, body: bytes | Streamed, content_type: str) -> bool:
        with self._lock:
            self._inside += 1
            self.most = max(self.most, self._inside)
        self.arrived.release()
        assert self.answers.acquire(timeout=PATIENCE)
        with self._lock:
            self._inside -= 1
        return super().put_once(key, body, content_type)

    async def put_arrives(self) -> None:
        """Wait for the next one."""
        assert await asyncio.to_thread(self.arrived.acquire, timeout=PATIENCE)


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def lanes() -> Iterator[Lanes]:
    with closing(Lanes()) as lanes:
        yield lanes


def heads(store: MemoryStore) -> list[Head]:
    return [decode_head(body) for key, body in sorted(store.objects.items()) if key.endswith(".ckpt")]


def test_one_checkpoint_is_on_its_way_however_many_ask(spool: Path) -> None:
    """The loop, the end of a session and the end of the call may all want one at once."""
    call, store = two_people(spool), SlowStore()
    copy = Checkpoints(spool, a_shipping_intent(), store)
    call.write(until=0.5)
    ready = threading.Barrier(REQUESTS_AT_ONCE)

    def ask() -> int:
        ready.wait(PATIENCE)
        return copy.ship()

    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as threads:
        asked = [threads.submit(ask) for _ in range(REQUESTS_AT_ONCE - 1)]
        ready.wait(PATIENCE)
        assert store.arrived.acquire(timeout=PATIENCE)
        call.write(until=3.0)
        for _ in asked:
            store.answers.release()
        assert [one.result(PATIENCE) for one in asked] == [0] * len(asked)
    assert store.most == 1
    assert [head.seq for head in heads(store)] == [1, 2]
    assert copy.sent == measure(spool)


async def test_what_gathers_while_the_storage_is_slow_goes_in_one(spool: Path, lanes: Lanes) -> None:
    """Six intervals pass while the first is on its way: one follows at once, and holds what came in all of them."""
    call, store, time = two_people(spool), SlowStore(), Time()
    storage = S3Destination(bucket="memory", prefix="calls/", checkpoint_seconds=30)
    copy = Checkpoints(spool, a_shipping_intent(storage=storage), store, time)
    call.write(until=0.5)
    keeping = asyncio.create_task(copy.keep(lanes))
    await store.put_arrives()
    for number in range(6):
        time.now += 30
        call.write(until=1.0 + number * 0.4)
    store.answers.release()
    await store.put_arrives()
    keeping.cancel()
    store.answers.release()
    with contextlib.suppress(asyncio.CancelledError):
        await keeping
    await lanes.request(copy.close)  # returns when none is on its way
    first, second = heads(store)
    assert store.most == 1
    assert all(part.offset == ends(first).get(part.path, 0) for part in second.slices)
    assert {**ends(first), **ends(second)} == measure(spool)


@pytest.mark.parametrize("how", ["a bug", "the disk"])
async def test_checkpoints_go_on_behind_whatever_one_fails_at(
    spool: Path, lanes: Lanes, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Nobody waits for who writes them: it ended without a word, and a lost node would have cost all the rest."""
    storage = S3Destination(bucket="memory", prefix="calls/", checkpoint_seconds=1)
    call, store, failed = two_people(spool), SlowStore(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def fail(*_: object) -> dict[str, int]:
        monkeypatch.setattr(checkpoints, "_measure", _measure)
        loop.call_soon_threadsafe(failed.set)
        raise OSError(errno.EIO, "Input/output error") if how == "the disk" else RuntimeError("a bug")

    monkeypatch.setattr(checkpoints, "_measure", fail)
    copy = Checkpoints(spool, a_shipping_intent(storage=storage), store)
    call.write(until=0.5)
    keeping = asyncio.create_task(copy.keep(lanes))
    await failed.wait()
    await store.put_arrives()
    store.answers.release()
    keeping.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await keeping
    await lanes.request(copy.close)
    assert [head.seq for head in heads(store)] == [1]


def ends(head: Head) -> dict[str, int]:
    return {part.path: part.end for part in head.slices}


@dataclass
class Drain(MemoryStore):
    """Reads bodies as a client does, a chunk at a time, and keeps their heads."""

    sizes: list[int] = field(default_factory=list)
    found: list[Head] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def put_once(self, key: str, body: bytes | Streamed, content_type: str) -> bool:
        assert isinstance(body, Streamed), "a body of many MiB was made in memory"
        with body.open() as reader:
            start = reader.read(PREAMBLE_BYTES)
            head = start + reader.read(head_bytes(start) - PREAMBLE_BYTES)
            size = len(head)
            while data := reader.read(64 * 1024):
                size += len(data)
        assert size == body.size
        self.sizes.append(size)
        self.found.append(decode_head(head))
        return True


async def test_a_backlog_goes_in_bundles_of_a_bounded_size_that_are_streamed(spool: Path, lanes: Lanes) -> None:
    """200 MiB gathered in an outage: sound, of which there is little, is whole in the first one."""
    folder = spool / "i0001"
    folder.mkdir(parents=True)
    (folder / "journal.ndjson").write_bytes(encode_line("muted", 1, {"track": "t0001"}))
    for number, size in ((1, 3 * MIB), (2, 99 * MIB), (3, 98 * MIB)):
        with (folder / f"t{number:04}.000001.log").open("wb") as log:
            log.truncate(size)  # holes: nothing of it lies on the disk
    store = Drain()
    copy = Checkpoints(spool, a_shipping_intent(), store)
    tracemalloc.start()
    try:
        await copy.flush(lanes)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert copy.sent == measure(spool)
    assert sum(head.body_bytes for head in store.found) == sum(measure(spool).values())
    assert [head.seq for head in store.found] == [1, 2, 3, 4]
    assert all(head.body_bytes <= 64 * MIB for head in store.found)
    assert all(size - head.body_bytes < 4096 for size, head in zip(store.sizes, store.found))
    assert ends(store.found[0])["i0001/t0001.000001.log"] == 3 * MIB
    assert peak < 8 * MIB, f"{peak / MIB:.0f} MiB were held at once"
