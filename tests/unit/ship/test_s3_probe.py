"""What the probe makes of servers that break one promise each; real servers: tests/integration/test_s3_servers.py."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from isotrack_recorder.errors import StorageRefusedError
from isotrack_recorder.ship.s3_errors import Consequence
from isotrack_recorder.ship.s3_probe import probe
from isotrack_recorder.ship.store import ObjectInfo, Part, Streamed, UploadLostError
from support.memory_store import MemoryStore

ALL = frozenset(
    {"create_once", "checks_sha256", "checks_md5", "checks_crc32", "etag_is_md5", "lists_uploads", "deletes"}
)


class Server(MemoryStore):
    """Keeps the promises in `kept`."""

    def __init__(self, kept: frozenset[str] = ALL, *, completion: Consequence | None = Consequence.TOO_SMALL) -> None:
        super().__init__()
        self.kept = kept
        self.completion = completion
        self.in_order = True
        self.mismatch = Consequence.DAMAGED
        """What it says of a body that was signed with another SHA-256."""

    def try_put(
        self,
        key: str,
        body: bytes,
        content_type: str,
        *,
        if_absent: bool = False,
        sha256_of: bytes | None = None,
        md5_of: bytes | None = None,
        crc32_of: bytes | None = None,
    ) -> Consequence | None:
        if if_absent and "create_once" in self.kept and key in self.objects:
            return Consequence.EXISTS
        if sha256_of not in (None, body) and "checks_sha256" in self.kept:
            return self.mismatch
        if md5_of not in (None, body) and "checks_md5" in self.kept:
            return Consequence.DAMAGED
        if crc32_of is not None and "refuses_crc32" in self.kept:
            return Consequence.FAILED
        if crc32_of not in (None, body) and "checks_crc32" in self.kept:
            return Consequence.FAILED
        self.put(key, body, content_type)
        return None

    def head(self, key: str) -> ObjectInfo | None:
        found = super().head(key)
        return found if found is None or "etag_is_md5" in self.kept else ObjectInfo(found.size, "opaque")

    def delete(self, key: str) -> None:
        if "deletes" in self.kept:
            super().delete(key)

    def list_uploads(self, key: str) -> tuple[str, ...]:
        return super().list_uploads(key) if "lists_uploads" in self.kept else ()

    def upload_part(self, key: str, upload_id: str, number: int, body: bytes | Streamed) -> Part:
        if not self.in_order and number == 1:
            raise UploadLostError("part 1 after part 2")
        return super().upload_part(key, upload_id, number, body)

    def try_complete(self, key: str, upload_id: str, parts: Sequence[Part]) -> Consequence | None:
        if self.completion is None:
            self.complete_upload(key, upload_id, parts)
        return self.completion


@pytest.mark.parametrize("broken", sorted(ALL - {"checks_crc32"}))
def test_each_broken_promise_is_found(broken: str) -> None:
    found = probe(Server(ALL - {broken}), "probe")
    kept = {name for name in ALL if getattr(found, name)}
    assert kept == ALL - {broken, *(() if broken == "checks_md5" else ("checks_crc32",))}


@pytest.mark.parametrize(
    ("kept", "found"),
    [
        pytest.param({"checks_crc32"}, True, id="checked"),
        pytest.param(set(), False, id="ignored"),
        pytest.param({"refuses_crc32"}, False, id="header-unknown"),
    ],
)
def test_crc32_is_used_where_md5_is_ignored(kept: set[str], found: bool) -> None:
    assert probe(Server(ALL - {"checks_md5", "checks_crc32"} | kept), "probe").checks_crc32 is found


@pytest.mark.parametrize("answer", [Consequence.DAMAGED, Consequence.FAILED, Consequence.CREDENTIALS])
def test_a_body_that_contradicts_its_signature_may_be_refused_in_any_words(answer: Consequence) -> None:
    """Servers that take the sum themselves say that the signature does not match."""
    server = Server()
    server.mismatch = answer
    assert probe(server, "probe").checks_sha256


@pytest.mark.parametrize("completion", [None, Consequence.TOO_SMALL])
def test_nothing_stays_behind(completion: Consequence | None) -> None:
    server = Server(completion=completion)
    probe(server, "probe")
    assert not server.objects
    assert not server.uploads


@pytest.mark.parametrize("completion", [Consequence.FAILED, Consequence.UNSUPPORTED])
def test_a_storage_that_refuses_such_an_upload_is_refused(completion: Consequence) -> None:
    server = Server(completion=completion)
    with pytest.raises(StorageRefusedError, match="first part comes last"):
        probe(server, "probe")
    assert not server.uploads


def test_a_storage_that_takes_parts_in_order_only_is_refused() -> None:
    server = Server()
    server.in_order = False
    with pytest.raises(StorageRefusedError, match="first part comes last"):
        probe(server, "probe")


def test_a_storage_that_mixes_up_parts_is_refused() -> None:
    class Mixed(Server):
        def get(self, key: str, limit: int) -> bytes | None:
            found = super().get(key, limit)
            return found and found[::-1]

    with pytest.raises(StorageRefusedError, match="first part comes last"):
        probe(Mixed(completion=None), "probe")
