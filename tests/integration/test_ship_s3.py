"""The S3 store on a real S3 server, straight and through a proxy that breaks connections."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from botocore import auth

from isotrack_api.intent import S3Destination
from isotrack_dev.servers import S3Info
from isotrack_recorder.checksums import Sums
from isotrack_recorder.errors import ConfigError, IsotrackError, StorageError, StorageRefusedError
from isotrack_recorder.ship import s3_client
from isotrack_recorder.ship.credentials import AmbientCredentials, FileCredentials
from isotrack_recorder.ship.retry import Patience
from isotrack_recorder.ship.s3 import S3Store
from isotrack_recorder.ship.store import PART_BYTES, UploadLostError
from isotrack_recorder.ship.upload import Uploaded, verify
from support.fault_proxy import ANSWER_LOST, DENIED, LATENCY, NOT_S3, RESET, UNAVAILABLE, FaultProxy
from support.waiting import until


@pytest.fixture
def secret(s3: S3Info, tmp_path: Path) -> Path:
    """A mounted Secret with the server's keys."""
    folder = tmp_path / "storage"
    folder.mkdir()
    (folder / "accessKeyId").write_text(s3.access_key + "\n")
    (folder / "secretAccessKey").write_text(s3.secret_key)
    return folder


@pytest.fixture
def folder(request: pytest.FixtureRequest) -> str:
    """Key prefix of this test: the bucket is shared."""
    return f"store/{request.node.name}"


def a_store(s3: S3Info, secret: Path, *, seconds: float = 60, **values: str) -> S3Store:
    """A store on the server, or on what `values` make of the destination."""
    destination = {"bucket": s3.bucket, "endpoint": s3.endpoint, "region": s3.region, **values}
    return S3Store(S3Destination.model_validate(destination), FileCredentials(secret), Patience(seconds))


@pytest.fixture
def store(s3: S3Info, secret: Path) -> S3Store:
    return a_store(s3, secret)


@pytest.fixture
def aws_like(s3: S3Info, secret: Path, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    """A store that uses CRC-32 as it would at AWS."""
    store = a_store(s3, secret)
    store.head("made the client")
    monkeypatch.setattr(store._requests, "_is_aws", True)
    return store


def test_objects_are_stored_described_read_listed_and_deleted(store: S3Store, folder: str) -> None:
    key = f"{folder}/a"
    assert store.head(key) is None
    assert store.get(key, 10) is None
    stored = store.put(key, b"hello", "text/plain")
    assert store.head(key) == stored
    assert store.get(key, 5) == b"hello"
    assert store.get_range(key, 1, 3) == b"ell"
    assert list(store.list(f"{folder}/")) == [key]
    store.delete(key)
    store.delete(key)
    assert list(store.list(f"{folder}/")) == []


def test_an_object_is_created_once(store: S3Store, folder: str) -> None:
    assert store.put_once(f"{folder}/a", b"first", "text/plain") is True
    assert store.put_once(f"{folder}/a", b"second", "text/plain") is False
    assert store.get(f"{folder}/a", 10) == b"first"


def test_reading_is_bounded(store: S3Store, folder: str) -> None:
    store.put(f"{folder}/a", b"123456", "text/plain")
    with pytest.raises(StorageError, match="longer than"):
        store.get(f"{folder}/a", 5)


def test_the_clocks_are_compared(store: S3Store) -> None:
    store.head("nothing")
    assert store.clock_skew_seconds is not None
    assert abs(store.clock_skew_seconds) < 30


def test_a_wall_clock_that_is_set_keeps_nothing_from_the_storage(
    store: S3Store, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests hold the time at which they were signed, and a server takes none that is more than 15 minutes off."""
    wall, now = time.time, auth.get_current_datetime
    store.put(f"{folder}/0", b"before", "text/plain")
    for number, jump in enumerate((3600, -3600, 0), 1):
        monkeypatch.setattr(time, "time", lambda jump=jump: wall() + jump)
        monkeypatch.setattr(auth, "get_current_datetime", lambda jump=jump: now() + timedelta(seconds=jump))
        store.put(f"{folder}/{number}", b"after", "text/plain") if number % 2 else store.head(f"{folder}/0")
        assert store.trouble is None
        assert store.clock_skew_seconds is not None
        assert abs(store.clock_skew_seconds + jump) < 30
    assert store.traffic.failures >= 2, "the server did not mind: this shows nothing"
    assert store.get(f"{folder}/3", 10) == b"after"


@pytest.mark.parametrize("checksums", ["md5", "sha256", "crc32"])
def test_parts_become_an_object_that_verifies(store: S3Store, aws_like: S3Store, folder: str, checksums: str) -> None:
    chosen, key = (aws_like if checksums == "crc32" else store), f"{folder}/{checksums}"
    if checksums == "sha256":
        assert chosen.probe(f"{folder}/probe").checks_sha256
    upload = chosen.create_upload(key, "video/matroska")
    assert chosen.list_uploads(key) == (upload,)
    last = chosen.upload_part(key, upload, 2, b"tail")
    chosen.upload_part(key, upload, 1, b"\0" * PART_BYTES)
    first = chosen.upload_part(key, upload, 1, b"a" * PART_BYTES)
    assert bool(first.md5) is (checksums == "md5")
    assert chosen.complete_upload(key, upload, [first, last]) is not None
    sent = Uploaded(key, PART_BYTES + 4, (first, last), multipart=True)
    assert verify(chosen, sent) == ("checksum" if checksums == "crc32" else "etag")
    assert chosen.list_uploads(key) == ()


def test_what_arrives_otherwise_than_it_was_signed_is_refused(
    s3: S3Info, secret: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With nothing but the signature to tell: small or large, as a whole or as a part."""
    store = a_store(s3, secret, seconds=1)
    assert store.probe(f"{folder}/probe").checks_sha256
    upload = store.create_upload(f"{folder}/a", "video/matroska")
    monkeypatch.setattr("isotrack_recorder.ship.s3.sums_of_body", lambda *_, **__: Sums(hashlib.sha256(b"x").digest()))
    for body in (b"y", b"y" * PART_BYTES):
        with pytest.raises(StorageError):
            store.upload_part(f"{folder}/a", upload, 1, body)
        with pytest.raises(StorageError):
            store.put(f"{folder}/b", body, "text/plain")
    monkeypatch.undo()
    assert store.head(f"{folder}/b") is None


def test_an_aborted_upload_is_unknown(store: S3Store, folder: str) -> None:
    key = f"{folder}/a"
    upload = store.create_upload(key, "video/matroska")
    store.abort_upload(key, upload)
    store.abort_upload(key, upload)
    with pytest.raises(UploadLostError):
        store.upload_part(key, upload, 1, b"late")


def test_a_missing_bucket_is_refused_with_advice(s3: S3Info, secret: Path) -> None:
    with pytest.raises(StorageRefusedError, match=r"'no-such-bucket' at .* does not exist: create it"):
        a_store(s3, secret, bucket="no-such-bucket").put("a", b"", "text/plain")


@pytest.mark.parametrize(("file", "words"), [("secretAccessKey", "secretAccessKey"), ("accessKeyId", "accessKeyId")])
def test_wrong_keys_are_refused_without_showing_them(
    s3: S3Info, secret: Path, caplog: pytest.LogCaptureFixture, file: str, words: str
) -> None:
    (secret / file).write_text("CANARY0123456789")
    with caplog.at_level(logging.DEBUG, "isotrack_recorder"), pytest.raises(StorageRefusedError, match=words) as caught:
        a_store(s3, secret).put("a", b"", "text/plain")
    assert "CANARY" not in f"{caught.value!r} {[vars(record) for record in caplog.records]}"


@pytest.mark.parametrize("file", ["secretAccessKey", "accessKeyId"])
def test_a_secret_without_a_key_is_refused(s3: S3Info, secret: Path, file: str) -> None:
    (secret / file).unlink()
    with pytest.raises(StorageRefusedError, match=f"no value for '{file}'"):
        a_store(s3, secret).put("a", b"", "text/plain")


def test_rotated_keys_are_read_again(s3: S3Info, secret: Path, folder: str) -> None:
    (secret / "secretAccessKey").write_text("of yesterday")
    store = a_store(s3, secret)
    with pytest.raises(StorageRefusedError):
        store.put(f"{folder}/a", b"", "text/plain")
    (secret / "secretAccessKey").write_text(s3.secret_key)
    store.put(f"{folder}/a", b"", "text/plain")
    assert store.trouble is None


def test_a_refusal_in_the_middle_is_waited_out(s3: S3Info, secret: Path, folder: str) -> None:
    store = a_store(s3, secret, seconds=60)
    store.put(f"{folder}/a", b"", "text/plain")
    (secret / "secretAccessKey").write_text("wrong")
    store._requests._connection = None
    store.patience.refused_pause_seconds = 0.2
    with ThreadPoolExecutor(1) as pool:
        putting = pool.submit(store.put, f"{folder}/b", b"there", "text/plain")
        trouble = until(lambda: store.trouble, "the storage refuses us")
        (secret / "secretAccessKey").write_text(s3.secret_key)
        putting.result(timeout=60)
    assert trouble.reason == "StorageRefused"
    assert store.get(f"{folder}/b", 10) == b"there"


def test_an_unreachable_endpoint_is_tried_until_patience_ends(s3: S3Info, secret: Path) -> None:
    began = time.monotonic()
    with pytest.raises(StorageError, match="cannot be reached"):
        a_store(s3, secret, seconds=1.5, endpoint="http://127.0.0.1:9").head("a")
    assert 1 < time.monotonic() - began < 30


@pytest.mark.parametrize("endpoint", ["ftp://x", "http://", "https://user:pass@host", "http://host?query=1"])
def test_an_endpoint_that_is_none_is_a_configuration_error(s3: S3Info, secret: Path, endpoint: str) -> None:
    with pytest.raises(ConfigError, match="endpoint must be"):
        a_store(s3, secret, endpoint=endpoint)


def test_the_environment_may_name_keys_and_endpoint(s3: S3Info, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    port = urlsplit(s3.endpoint).port
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://localhost:{port}")  # a name: buckets must not become part of it
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret_key)
    store = S3Store(S3Destination(bucket=s3.bucket, region=s3.region), AmbientCredentials(), Patience(60))
    store.put(f"{folder}/a", b"hello", "text/plain")
    assert store.get(f"{folder}/a", 10) == b"hello"


def test_no_keys_anywhere_is_refused_with_advice(s3: S3Info, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    store = S3Store(S3Destination(bucket=s3.bucket, endpoint=s3.endpoint), AmbientCredentials(), Patience(60))
    with pytest.raises(StorageRefusedError, match="no credentials"):
        store.head("a")


@pytest.mark.parametrize("fault", [RESET, UNAVAILABLE, ANSWER_LOST, NOT_S3])
async def test_a_failing_connection_is_tried_again(s3: S3Info, secret: Path, folder: str, fault: str) -> None:
    async with _proxy(s3) as proxy:
        store = a_store(s3, secret, seconds=60, endpoint=proxy.url)
        proxy.faults.extend([fault, fault])
        await asyncio.to_thread(store.put, f"{folder}/a", b"hello", "text/plain")
        assert await asyncio.to_thread(store.get, f"{folder}/a", 10) == b"hello"
        assert proxy.connections >= 3, "the faults did not fire"
        assert store.trouble is None


async def test_where_we_may_not_delete_an_object_stays(s3: S3Info, secret: Path, folder: str) -> None:
    key = f"{folder}/a"
    async with _proxy(s3) as proxy:
        store = a_store(s3, secret, endpoint=proxy.url)
        proxy.faults.append(DENIED)
        await asyncio.to_thread(store.delete, key)
        assert proxy.connections == 1, "the fault did not fire"
        assert store.trouble is None


async def test_a_right_that_is_missing_is_named(s3: S3Info, secret: Path, folder: str) -> None:
    async with _proxy(s3) as proxy:
        proxy.faults.append(DENIED)
        with pytest.raises(StorageRefusedError, match="denies GetObject: give the credentials that right"):
            await asyncio.to_thread(a_store(s3, secret, endpoint=proxy.url).get, f"{folder}/a", 10)


async def test_a_completion_whose_answer_is_lost_is_found_out(s3: S3Info, secret: Path, folder: str) -> None:
    key = f"{folder}/a"
    async with _proxy(s3) as proxy:
        straight, store = a_store(s3, secret), a_store(s3, secret, seconds=60, endpoint=proxy.url)
        upload = straight.create_upload(key, "video/matroska")
        part = straight.upload_part(key, upload, 1, b"all")
        proxy.faults.append(ANSWER_LOST)
        await asyncio.to_thread(store.complete_upload, key, upload, [part])
        assert proxy.connections >= 2, "the fault did not fire"
    assert verify(straight, Uploaded(key, 3, (part,), multipart=True)) == "etag"


async def test_a_storage_may_take_long_to_complete_an_upload(
    s3: S3Info, secret: Path, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that copies the parts into one file is as long silent; asking again would have it copied twice at a time."""
    monkeypatch.setattr(s3_client, "READ_SECONDS", 1)
    key = f"{folder}/a"
    async with _proxy(s3) as proxy:
        proxy.latency_seconds = 2.5
        straight, store = a_store(s3, secret), a_store(s3, secret, seconds=60, endpoint=proxy.url)
        upload = straight.create_upload(key, "video/matroska")
        part = straight.upload_part(key, upload, 1, b"all")
        proxy.faults.append(LATENCY)
        await asyncio.to_thread(store.complete_upload, key, upload, [part])
        assert proxy.fired[LATENCY] == proxy.connections == 1
        assert store.traffic.failures == 0


def _proxy(s3: S3Info) -> FaultProxy:
    url = urlsplit(s3.endpoint)
    assert url.hostname
    assert url.port
    return FaultProxy(url.hostname, url.port)


def test_errors_are_all_of_our_tree(s3: S3Info, secret: Path) -> None:
    """Whatever botocore raises is translated."""
    broken = [
        a_store(s3, secret, bucket="Not..legal"),
        a_store(s3, secret, seconds=0.2, endpoint=s3.endpoint.replace("http:", "https:")),
        a_store(s3, secret, region="no region"),
    ]
    for store in broken:
        with pytest.raises(IsotrackError):
            store.put("a", b"", "text/plain")
