"""Bodies of requests and of answers on the wire; the S3 server here is a few lines of HTTP.

A body that ends early is no body, whatever the connection says; and what is sent carries the sums that the storage checks.
"""

from __future__ import annotations

import base64
import hashlib
import io
import threading
import zlib
from collections.abc import Iterator
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from isotrack_api.intent import S3Destination
from isotrack_recorder.errors import IsotrackError, StorageRefusedError
from isotrack_recorder.ship.credentials import FileCredentials
from isotrack_recorder.ship.retry import Patience
from isotrack_recorder.ship.s3 import S3Store
from isotrack_recorder.ship.store import Capabilities, Streamed
from support.stores import write_secret

SIZE, EARLY = 200_000, 70_000


class Handler(BaseHTTPRequestHandler):
    """Every second answer is whole; the others end early, with an orderly end of the connection."""

    answers = 0
    refused = 0
    """So many more are not taken."""
    key = "key"
    """Who may ask."""
    received: ClassVar[list[tuple[Message, bytes]]] = []
    """Headers and bodies of what was put."""

    def do_PUT(self) -> None:
        Handler.received.append((self.headers, self.rfile.read(int(self.headers["Content-Length"]))))
        Handler.refused -= 1
        if Handler.refused >= 0:
            self.send_error(503)
            return
        self.send_response(200)
        self.send_header("ETag", '"etag"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        Handler.answers += 1
        self.send_response(200)
        self.send_header("Content-Length", str(SIZE))
        self.end_headers()
        self.wfile.write(bytes(EARLY if Handler.answers % 2 else SIZE))
        self.close_connection = True

    def do_HEAD(self) -> None:
        known = f"Credential={Handler.key}/" in self.headers["Authorization"]
        self.send_response(200 if known else 400)
        self.send_header("Content-Length", str(SIZE if known else 0))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def store(tmp_path: Path) -> Iterator[S3Store]:
    Handler.answers = 0
    Handler.received.clear()
    Handler.refused, Handler.key = 0, "key"
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        secret = write_secret(tmp_path, "key", "secret")
        yield S3Store(S3Destination(bucket="bucket", endpoint=endpoint), FileCredentials(secret), Patience(60))
        server.shutdown()


def test_an_object_that_ends_early_is_read_again(store: S3Store) -> None:
    assert store.get("a", SIZE) == bytes(SIZE)
    assert Handler.answers == 2


def test_a_range_that_ends_early_is_read_again(store: S3Store) -> None:
    assert store.get_range("a", 0, SIZE) == bytes(SIZE)
    assert Handler.answers == 2


def test_a_refusal_without_a_word_has_the_credentials_read_again(store: S3Store, tmp_path: Path) -> None:
    """AWS answers so to a HEAD whose session token has expired, and nothing else may be asked of it by then."""
    assert store.head("a") is not None
    Handler.key = "renewed"
    write_secret(tmp_path, "renewed", "secret")
    assert store.head("a") is not None
    Handler.key = "nobody's"
    with pytest.raises(StorageRefusedError, match="renew keys and sessionToken"):
        store.head("a")


BODY = hashlib.sha256(b"seed").digest() * 10_000
MD5 = base64.b64encode(hashlib.md5(BODY, usedforsecurity=False).digest()).decode()
CRC32 = base64.b64encode(zlib.crc32(BODY).to_bytes(4, "big")).decode()


class Once(io.BytesIO):
    """A reader that knows how often its bytes were read."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        Once.reads += len(data)
        return data


@pytest.mark.parametrize(
    ("found", "md5", "crc32"),
    [
        pytest.param(Capabilities(), MD5, None, id="before-the-probe"),
        pytest.param(Capabilities(checks_md5=True), MD5, None, id="md5-is-checked"),
        pytest.param(Capabilities(checks_crc32=True), None, CRC32, id="crc32-is-checked"),
        pytest.param(Capabilities(checks_sha256=True, checks_md5=True), None, None, id="the-signature-is-checked"),
        pytest.param(Capabilities(checks_sha256=True, retains=True), MD5, None, id="a-bucket-that-locks-wants-one"),
    ],
)
@pytest.mark.parametrize("streamed", [False, True], ids=["bytes", "streamed"])
def test_a_body_carries_the_sum_that_the_storage_checks(
    store: S3Store, found: Capabilities, md5: str | None, crc32: str | None, streamed: bool
) -> None:
    store._capabilities = found
    Once.reads = 0
    body = Streamed(len(BODY), lambda: Once(BODY)) if streamed else BODY
    part = store.upload_part("a", "upload", 2, body)
    store.put("a", body, "text/plain")
    for headers, data in Handler.received:
        assert data == BODY
        assert headers["x-amz-content-sha256"] == hashlib.sha256(BODY).hexdigest()
        assert (headers["Content-MD5"], headers["x-amz-checksum-crc32"]) == (md5, crc32)
    assert (part.size, part.crc32) == (len(BODY), zlib.crc32(BODY))
    assert part.sha256 == hashlib.sha256(BODY).digest()
    assert part.md5 == (base64.b64decode(md5) if md5 else b"")
    if streamed:
        assert Once.reads == 2 * 2 * len(BODY), "once for all sums, once to be sent"


def test_what_is_signed_for_one_body_is_not_for_the_next(store: S3Store) -> None:
    store._capabilities = Capabilities(checks_sha256=True)
    store.put("a", BODY, "text/plain")
    store.put("a", b"other", "text/plain")
    sums = [headers["x-amz-content-sha256"] for headers, _ in Handler.received]
    assert sums == [hashlib.sha256(BODY).hexdigest(), hashlib.sha256(b"other").hexdigest()]


def test_bytes_that_changed_on_the_way_are_sent_again_as_they_are_now(store: S3Store) -> None:
    """Between the walk that takes sums and the one that sends: what was signed would be refused for ever."""
    store._capabilities = Capabilities(checks_sha256=True)
    bodies = [b"summed", b"sent", b"after", b"after"]
    Handler.refused = 1
    part = store.upload_part("a", "upload", 2, Streamed(5, lambda: io.BytesIO(bodies.pop(0))))
    assert part.sha256 == hashlib.sha256(b"after").digest()
    assert Handler.received[-1][1] == b"after"


def test_a_body_that_cannot_be_read_is_not_tried_again(store: S3Store) -> None:
    def gone() -> io.BytesIO:
        raise FileNotFoundError(2, "No such file")

    with pytest.raises(IsotrackError, match="cannot be read from the disk"):
        store.upload_part("a", "upload", 2, Streamed(5, gone))
    assert not Handler.received
