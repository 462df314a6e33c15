"""A body that ends early is no body, whatever the connection says; the S3 server here is a few lines of HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from isotrack_api.intent import S3Destination
from isotrack_recorder.ship.credentials import FileCredentials
from isotrack_recorder.ship.retry import Patience
from isotrack_recorder.ship.s3 import S3Store
from support.stores import write_secret

SIZE, EARLY = 200_000, 70_000


class Handler(BaseHTTPRequestHandler):
    """Every second answer is whole; the others end early, with an orderly end of the connection."""

    answers = 0

    def do_GET(self) -> None:
        Handler.answers += 1
        self.send_response(200)
        self.send_header("Content-Length", str(SIZE))
        self.end_headers()
        self.wfile.write(bytes(EARLY if Handler.answers % 2 else SIZE))
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def store(tmp_path: Path) -> Iterator[S3Store]:
    Handler.answers = 0
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
