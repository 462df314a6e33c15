"""One file into the bucket, whatever its size and whatever the storage does."""

from __future__ import annotations

import hashlib
import io
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from isotrack_recorder.checksums import FileDigest, sums_of
from isotrack_recorder.errors import StorageError
from isotrack_recorder.finalise.model import HEAD_BYTES
from isotrack_recorder.ship.bodies import Bodies
from isotrack_recorder.ship.ledger import Ledger
from isotrack_recorder.ship.store import PART_BYTES, Part, Streamed, UploadLostError
from isotrack_recorder.ship.upload import Sender, Target, Uploaded, verify
from support.memory_store import MemoryStore

TARGET = Target("a.mkv", "key", "video/matroska")
PARTS = 3 * PART_BYTES + 5


def content(size: int) -> bytes:
    """Bytes that differ from place to place."""
    block = hashlib.sha256(str(size).encode()).digest() * 4096
    return (block * (size // len(block) + 1))[:size]


class Agent:
    """One process: what it keeps on the disk is there for the next one."""

    def __init__(self, folder: Path, store: MemoryStore) -> None:
        self.bodies = Bodies(folder / "parts")
        self.ledger = Ledger(folder)
        self.sender = Sender(store, self.ledger, self.bodies)

    def write(self, data: bytes, chunk: int = 3_000_001, target: Target = TARGET) -> None:
        """The body first, its head last."""
        for start in range(HEAD_BYTES, len(data), chunk):
            self.bodies.write(target.name, start, data[start : start + chunk])
        self.bodies.write(target.name, 0, data[:HEAD_BYTES])


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def agent(tmp_path: Path, store: MemoryStore) -> Agent:
    return Agent(tmp_path, store)


@pytest.mark.parametrize(
    ("size", "parts"),
    [
        pytest.param(HEAD_BYTES, 0, id="head-only"),
        pytest.param(HEAD_BYTES + 10, 0, id="small"),
        pytest.param(PART_BYTES, 0, id="exactly-one-part"),
        pytest.param(PART_BYTES + 1, 2, id="one-byte-more"),
        pytest.param(2 * PART_BYTES, 2, id="two-full-parts"),
        pytest.param(PARTS, 4, id="four-parts"),
    ],
)
def test_object_is_what_was_written(agent: Agent, store: MemoryStore, size: int, parts: int) -> None:
    whole = content(size)
    agent.write(whole)
    digest = agent.sender.finish(TARGET, size)
    assert store.objects["key"] == whole
    assert store.content_types["key"] == "video/matroska"
    assert not store.uploads
    assert digest.crc32 == zlib.crc32(whole)
    sums = [hashlib.sha256(whole[at : at + PART_BYTES]).digest() for at in range(0, size, PART_BYTES)]
    if parts:
        assert digest == FileDigest(zlib.crc32(whole), None, hashlib.sha256(b"".join(sums)).hexdigest(), PART_BYTES)
        assert len(sums) == parts
    else:
        assert digest == FileDigest(zlib.crc32(whole), hashlib.sha256(whole).hexdigest())


def test_parts_go_out_while_the_file_grows_and_part_1_last(agent: Agent, store: MemoryStore) -> None:
    sent = numbers_sent(store)
    whole = content(PARTS)
    agent.write(whole)
    agent.sender.send_parts(TARGET, [2, 3])
    assert sent == [(2, PART_BYTES), (3, PART_BYTES)]
    assert [agent.bodies.size("a.mkv", number) for number in (1, 2, 3, 4)] == [PART_BYTES, 0, 0, 5]
    agent.sender.finish(TARGET, PARTS)
    assert sent[2:] == [(4, 5), (1, PART_BYTES)]
    assert store.objects["key"] == whole


@pytest.mark.parametrize("killed_at", ["create_upload", "upload_part", "complete_upload", "head"])
def test_the_next_process_goes_on_with_the_same_upload(tmp_path: Path, store: MemoryStore, killed_at: str) -> None:
    """What was acknowledged is not sent again."""
    whole = content(PARTS)
    first = Agent(tmp_path, store)
    first.write(whole)
    if killed_at != "create_upload":
        first.sender.send_parts(TARGET, [2])
    store.before = fail_at(killed_at, KeyboardInterrupt())  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        first.sender.finish(TARGET, PARTS)
    store.before = lambda _operation, _key: None
    sent = numbers_sent(store)
    second = Agent(tmp_path, store)
    digest = second.sender.finish(TARGET, PARTS)
    assert store.objects["key"] == whole
    assert digest.crc32 == zlib.crc32(whole)
    assert not store.uploads
    assert (2, PART_BYTES) not in sent or killed_at == "create_upload"
    assert not (sent and killed_at in ("complete_upload", "head"))


def test_uploads_of_an_unknown_process_are_aborted_first(agent: Agent, store: MemoryStore) -> None:
    orphan, other = store.create_upload("key", "x"), store.create_upload("another key", "x")
    agent.write(content(PARTS))
    agent.sender.finish(TARGET, PARTS)
    assert orphan not in store.uploads
    assert other in store.uploads


def test_an_upload_that_is_given_up_leaves_nothing_behind(agent: Agent, store: MemoryStore) -> None:
    agent.write(content(PARTS))
    agent.sender.send_parts(TARGET, [2])
    agent.sender.give_up(TARGET)
    assert not store.uploads
    assert agent.ledger.upload("a.mkv") is None


def test_no_further_part_is_sent_when_time_is_over(agent: Agent, store: MemoryStore) -> None:
    agent.write(content(PARTS))
    store.patience.end_within(0)
    with pytest.raises(StorageError, match="time is over"):
        agent.sender.send_parts(TARGET, [2])


def test_an_upload_that_the_storage_forgot_is_told_apart(agent: Agent, store: MemoryStore) -> None:
    agent.write(content(PARTS))
    agent.sender.send_parts(TARGET, [2])
    store.uploads.clear()
    with pytest.raises(UploadLostError):
        agent.sender.send_parts(TARGET, [3])


def test_bytes_may_be_written_again_and_across_parts(tmp_path: Path) -> None:
    bodies = Bodies(tmp_path)
    whole = content(2 * PART_BYTES + 100)
    bodies.write("x", 0, whole)
    bodies.write("x", PART_BYTES - 2, b"1234")
    bodies.sync("x")
    assert read(bodies, 1, PART_BYTES)[-2:] + read(bodies, 2, 3) == b"1234" + whole[PART_BYTES + 2 : PART_BYTES + 3]
    with pytest.raises(OSError, match="ends before"):
        bodies.part("x", 3, 101)
    bodies.drop_all("x")
    assert not list(tmp_path.iterdir())


def read(bodies: Bodies, part: int, size: int) -> bytes:
    """A part as it is sent: by pieces, again from its start, and never more of it than was said."""
    with bodies.part("x", part, size).open() as reader:
        assert reader.seek(0, io.SEEK_END) == size
        reader.seek(0)
        first = reader.read(size // 2)
        data = first + reader.read()
        assert reader.read(1) == b""
    return data


def numbers_sent(store: MemoryStore) -> list[tuple[int, int]]:
    """Numbers and sizes of parts, as they come."""
    sent = list[tuple[int, int]]()
    keep = store.upload_part

    def note(key: str, upload_id: str, number: int, body: bytes | Streamed) -> Part:
        part = keep(key, upload_id, number, body)
        sent.append((number, part.size))
        return part

    store.upload_part = note  # type: ignore[method-assign]
    return sent


def fail_at(operation: str, error: Exception) -> Callable[[str, str], None]:
    def before(name: str, _key: str) -> None:
        if name == operation:
            raise error

    return before


class TestVerify:
    """The bucket must hold what was sent, whatever the storage calls an ETag."""

    @pytest.fixture
    def sent(self, agent: Agent, store: MemoryStore) -> Uploaded:
        agent.write(content(PART_BYTES + 4))
        agent.sender.finish(TARGET, PART_BYTES + 4)
        whole = store.objects["key"]
        parts = tuple(
            Part(n, "", len(body), sums.md5, sums.crc32, sums.sha256)
            for n, body in enumerate((whole[:PART_BYTES], whole[PART_BYTES:]), 1)
            for sums in (sums_of([body]),)
        )
        return Uploaded("key", len(whole), parts, multipart=True)

    def test_an_etag_that_is_the_md5_proves_it(self, store: MemoryStore, sent: Uploaded) -> None:
        assert verify(store, sent) == "etag"

    def test_acknowledgements_stand_for_an_md5_that_nobody_took(self, store: MemoryStore, sent: Uploaded) -> None:
        """Of parts whose SHA-256 the storage checked: the object must be made of them, in their order."""
        parts = tuple(replace(part, etag=part.md5.hex(), md5=b"") for part in sent.parts)
        assert verify(store, replace(sent, parts=parts)) == "etag"
        swapped = (replace(parts[0], etag=parts[1].etag), replace(parts[1], etag=parts[0].etag))
        assert verify(store, replace(sent, parts=swapped)) == "read"
        opaque = tuple(replace(part, etag="opaque") for part in parts)
        store.etags["key"] = ""
        assert verify(store, replace(sent, parts=opaque)) == "read"

    def test_a_missing_object_is_noticed(self, store: MemoryStore, sent: Uploaded) -> None:
        store.delete("key")
        with pytest.raises(StorageError, match="not in the bucket"):
            verify(store, sent)

    def test_framing_stored_inside_the_object_is_noticed(self, store: MemoryStore, sent: Uploaded) -> None:
        store.objects["key"] += b"\r\n0;chunk-signature="
        with pytest.raises(StorageError, match="bytes in the bucket instead of"):
            verify(store, sent)

    def test_an_etag_of_another_kind_makes_it_read_back(self, store: MemoryStore, sent: Uploaded) -> None:
        store.etags["key"] = "not-an-md5"
        assert verify(store, sent) == "read"

    def test_a_changed_byte_is_noticed_when_read_back(self, store: MemoryStore, sent: Uploaded) -> None:
        store.etags["key"] = "not-an-md5"
        store.objects["key"] = b"\xff" + store.objects["key"][1:]
        with pytest.raises(StorageError, match="reads back differently"):
            verify(store, sent)
