"""One store on four S3 servers: AWS-like (versitygw, moto), Ceph, and one that ignores what it does not know (rclone).

What differs between them is a capability that the probe finds; everything else holds on each.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import pytest

from isotrack_api.base import EncryptionMode
from isotrack_dev.object_stores import KMS_KEY, CephInfo, ceph_server, moto_server, rclone_server
from isotrack_dev.servers import S3Info, s3_server
from isotrack_recorder.errors import StorageRefusedError
from isotrack_recorder.ship import s3 as s3_module
from isotrack_recorder.ship.checkpoint import Slice
from isotrack_recorder.ship.credentials import FileCredentials
from isotrack_recorder.ship.deliver import NOBODY
from isotrack_recorder.ship.layout import layout_of
from isotrack_recorder.ship.preflight import check_storage
from isotrack_recorder.ship.s3 import S3Store
from isotrack_recorder.ship.slices import streamed
from isotrack_recorder.ship.standalone import finish_recording
from isotrack_recorder.ship.store import PART_BYTES, Capabilities, Streamed, UploadLostError, clear_abandoned
from isotrack_recorder.ship.upload import Uploaded, verify
from support.shipping import ROOT, a_shipping_intent, two_people
from support.stores import a_store, destination, owner_of, write_secret

VERSITYGW, MOTO, CEPH, RCLONE = "versitygw", "moto", "ceph", "rclone"
ALL = [VERSITYGW, MOTO, CEPH, RCLONE]
STARTED: dict[str, Callable[[Path], AbstractContextManager[S3Info]]] = {
    VERSITYGW: s3_server,
    MOTO: moto_server,
    CEPH: ceph_server,
    RCLONE: rclone_server,
}

HONEST = Capabilities(
    create_once=True, checks_sha256=True, checks_md5=True, etag_is_md5=True, lists_uploads=True, deletes=True
)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], S3Info]]:
    """Starts a server at its first use; all of them end with this module."""
    running: dict[str, S3Info] = {}
    with ExitStack() as stack:

        def start(kind: str) -> S3Info:
            if kind not in running:
                running[kind] = stack.enter_context(STARTED[kind](tmp_path_factory.mktemp(kind)))
            return running[kind]

        yield start


@pytest.fixture(params=ALL)
def server(request: pytest.FixtureRequest, started: Callable[[str], S3Info]) -> S3Info:
    """Each server in turn."""
    return started(request.param)


@pytest.fixture
def kind(request: pytest.FixtureRequest) -> str:
    """Which server it is."""
    return str(request.node.callspec.params["server"])


@pytest.fixture
def secret(server: S3Info, tmp_path: Path) -> Path:
    return write_secret(tmp_path / "storage", server.access_key, server.secret_key)


@pytest.fixture
def store(server: S3Info, secret: Path) -> S3Store:
    return a_store(server, secret)


@pytest.fixture
def folder(request: pytest.FixtureRequest) -> str:
    """Key prefix of this test: the bucket is shared."""
    return f"servers/{request.node.originalname}"


def only(*kinds: str) -> pytest.MarkDecorator:
    """Of servers that have the property in question."""
    return pytest.mark.parametrize("server", kinds, indirect=True)


CHARACTERS = {
    VERSITYGW: HONEST,
    # accepts a body that contradicts its Content-MD5 or CRC-32; its ETag tells what arrived
    MOTO: Capabilities(create_once=True, etag_is_md5=True, lists_uploads=True, deletes=True),
    CEPH: HONEST,
    RCLONE: Capabilities(checks_md5=True, etag_is_md5=True, lists_uploads=True, deletes=True),
}


def test_the_probe_finds_each_servers_character(store: S3Store, server: S3Info, kind: str, folder: str) -> None:
    assert store.capabilities == Capabilities(), "without a probe nothing is taken for granted"
    assert store.probe(f"{folder}/probe") == CHARACTERS[kind]
    assert store.capabilities == CHARACTERS[kind]
    assert list(store.list(f"{folder}/")) == []
    assert list(store.unfinished(f"{folder}/")) == []


def test_what_exists_is_not_created_again(store: S3Store, folder: str) -> None:
    """Before the probe and after it, and where the server ignores the condition."""
    assert store.put_once(f"{folder}/a", b"first", "text/plain") is True
    assert store.put_once(f"{folder}/a", b"second", "text/plain") is False
    store.probe(f"{folder}/probe")
    assert store.put_once(f"{folder}/a", b"third", "text/plain") is False
    assert store.put_once(f"{folder}/b", b"fourth", "text/plain") is True
    assert store.get(f"{folder}/a", 10) == b"first"


def test_a_file_whose_first_part_comes_last_verifies(store: S3Store, kind: str, folder: str) -> None:
    store.probe(f"{folder}/probe")
    key = f"{folder}/a"
    upload = store.create_upload(key, "video/matroska")
    rest = [store.upload_part(key, upload, number, os.urandom(PART_BYTES)) for number in (2, 3)]
    tail = store.upload_part(key, upload, 4, b"tail")
    head = store.upload_part(key, upload, 1, os.urandom(PART_BYTES))
    assert store.complete_upload(key, upload, [*rest, tail, head]) is not None
    sent = Uploaded(key, 3 * PART_BYTES + 4, (head, *rest, tail), multipart=True)
    assert verify(store, sent) == ("read" if kind == RCLONE else "etag")
    whole = store.get(key, 4 * PART_BYTES)
    assert whole is not None
    assert [zlib.crc32(whole[n * PART_BYTES :][:PART_BYTES]) for n in range(4)] == [part.crc32 for part in sent.parts]
    assert store.list_uploads(key) == ()


def test_a_part_is_replaced_or_the_upload_begun_again(store: S3Store, kind: str, folder: str) -> None:
    key = f"{folder}/a"
    upload = store.create_upload(key, "video/matroska")
    store.upload_part(key, upload, 1, b"first")
    if kind == RCLONE:
        with pytest.raises(UploadLostError, match="cannot be replaced"):
            store.upload_part(key, upload, 1, b"other")
        store.abort_upload(key, upload)
        return
    part = store.upload_part(key, upload, 1, b"other")
    store.complete_upload(key, upload, [part])
    assert store.get(key, 10) == b"other"


def test_abandoned_uploads_of_a_folder_are_aborted(
    store: S3Store, kind: str, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_module, "PAGE", 3)
    mine = {store.create_upload(f"{folder}/rec-1/{n // 2}", "video/matroska") for n in range(8)}
    others = store.create_upload(f"{folder}/rec-10/a", "video/matroska")
    listed = {upload.upload_id for upload in store.unfinished(f"{folder}/rec-1/")}
    assert listed
    assert listed <= mine
    assert listed == mine or kind == VERSITYGW, (
        "which refuses its own marker, so that a key's further uploads are skipped"
    )
    assert clear_abandoned(store, f"{folder}/rec-1/") == len(mine)
    assert clear_abandoned(store, f"{folder}/rec-1/") == 0
    assert store.list_uploads(f"{folder}/rec-10/a") == (others,)
    store.abort_upload(f"{folder}/rec-10/a", others)


@pytest.mark.parametrize("kind", [VERSITYGW, MOTO, RCLONE])
def test_a_server_that_never_had_an_upload_lists_none(kind: str, tmp_path: Path) -> None:
    with STARTED[kind](tmp_path / "fresh") as fresh:
        secret = write_secret(tmp_path / "storage", fresh.access_key, fresh.secret_key)
        assert list(a_store(fresh, secret, seconds=5).unfinished("calls/")) == []


def test_keys_are_listed_page_by_page(store: S3Store, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_module, "PAGE", 2)
    keys = [f"{folder}/{name}" for name in ("a", "b", "c d", "é", "z+z")]
    for key in keys:
        store.put(key, b"", "text/plain")
    assert sorted(store.list(f"{folder}/")) == sorted(keys)


async def test_a_recording_is_delivered_and_a_repetition_changes_nothing(
    server: S3Info, secret: Path, tmp_path: Path
) -> None:
    """Files of several parts and small ones, verified, on every server."""
    intent = a_shipping_intent(storage=destination(server, prefix="calls/"))
    two_people(tmp_path / "spool", padding=200_000).write(stop=5)
    store = a_store(server, secret)
    check_storage(store, layout_of(intent), intent)
    async with asyncio.timeout(120):
        first = await finish_recording(tmp_path / "spool", intent, FileCredentials(secret), NOBODY)
    etags = {key: store.head(key) for key in store.list(f"{ROOT}/")}
    async with asyncio.timeout(120):
        again = await finish_recording(tmp_path / "spool", intent, FileCredentials(secret), NOBODY)
    assert first.recording is not None
    assert again.recording == first.recording
    assert {key: store.head(key) for key in store.list(f"{ROOT}/")} == etags
    assert max(file.bytes for file in first.files) > PART_BYTES
    assert list(store.unfinished(f"{ROOT}/")) == []


def test_a_second_attempt_leaves_the_first_ones_intent(server: S3Info, secret: Path, folder: str) -> None:
    """Where the server ignores the condition, too."""
    storage = destination(server, prefix=folder)
    for attempt in (1, 2):
        intent = a_shipping_intent(attempt=attempt, storage=storage)
        assert check_storage(a_store(server, secret), layout_of(intent), intent).created is (attempt == 1)
    body = a_store(server, secret).get(layout_of(intent).intent, 10**6)
    assert body is not None
    assert json.loads(body)["attempt"] == 1


@only(RCLONE)
def test_a_storage_that_ignores_conditions_is_used_with_a_warning(server: S3Info, secret: Path, folder: str) -> None:
    intent = a_shipping_intent(storage=destination(server, prefix=folder))
    warning = check_storage(a_store(server, secret), layout_of(intent), intent).warning
    assert "ignores If-None-Match" in warning


@only(VERSITYGW, MOTO, CEPH)
def test_a_good_storage_is_used_without_a_warning(server: S3Info, secret: Path, folder: str) -> None:
    intent = a_shipping_intent(storage=destination(server, prefix=folder))
    assert check_storage(a_store(server, secret), layout_of(intent), intent).warning == ""


# ── rights, versions, locks ──────────────────────────────────────────────────────────────────────────────────────────


@only(CEPH)
def test_a_right_to_delete_that_is_missing_is_found(server: S3Info, secret: Path, folder: str) -> None:
    """As its administrators recommend, the recorder's credentials may write and not delete."""
    owner = owner_of(server)
    owner.create_bucket(Bucket="write-only")
    statement = {
        "Effect": "Deny",
        "Principal": {"AWS": ["*"]},
        "Action": ["s3:DeleteObject"],
        "Resource": ["arn:aws:s3:::write-only/*"],
    }
    owner.put_bucket_policy(Bucket="write-only", Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    intent = a_shipping_intent(storage=destination(server, bucket="write-only", prefix=folder))
    store = a_store(server, secret, bucket="write-only")
    assert "may not delete" in check_storage(store, layout_of(intent), intent).warning
    assert not store.capabilities.deletes


@only(CEPH)
def test_a_bucket_that_locks_objects_is_found(server: S3Info, secret: Path, folder: str) -> None:
    owner = owner_of(server)
    owner.create_bucket(Bucket="locked", ObjectLockEnabledForBucket=True)
    rule = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 1}}
    owner.put_object_lock_configuration(
        Bucket="locked",
        ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule},  # type: ignore[typeddict-item]
    )
    intent = a_shipping_intent(storage=destination(server, bucket="locked", prefix=folder))
    store = a_store(server, secret, bucket="locked")
    assert "locks new objects" in check_storage(store, layout_of(intent), intent).warning
    assert store.capabilities.retains
    assert store.capabilities.keeps_versions


@only(MOTO, CEPH)
def test_a_bucket_that_keeps_versions_is_found(server: S3Info, secret: Path, folder: str) -> None:
    owner = owner_of(server)
    owner.create_bucket(Bucket="versioned")
    owner.put_bucket_versioning(Bucket="versioned", VersioningConfiguration={"Status": "Enabled"})
    store = a_store(server, secret, bucket="versioned")
    found = store.probe(f"{folder}/probe")
    assert (found.keeps_versions, found.retains, found.deletes) == (True, False, True)


# ── checkpoints ──────────────────────────────────────────────────────────────────────────────────────────────────────


def a_checkpoint(path: Path) -> Streamed:
    """A body of three files that is read from the disk while it is sent."""
    names = [f"i0001/t000{number}.000001.log" for number in (1, 2, 3)]
    (path / "i0001").mkdir(exist_ok=True)
    for number, name in enumerate(names):
        (path / name).write_bytes(bytes([65 + number]) * 700_000)
    return streamed(path, b"head", [Slice(name, 100_000, 600_000) for name in names])


def test_a_body_from_the_disk_arrives_whole(store: S3Store, folder: str, tmp_path: Path) -> None:
    store.probe(f"{folder}/probe")
    body, key = a_checkpoint(tmp_path), f"{folder}/1.ckpt"
    assert store.put_once(key, body, "application/octet-stream")
    assert store.get(key, 1 << 24) == b"head" + b"A" * 600_000 + b"B" * 600_000 + b"C" * 600_000
    assert not store.put_once(key, body, "application/octet-stream")
    assert store.get_range(key, 600_000, 8) == b"AAAABBBB"
    assert store.get_range(key, 5_000_000, 8) == store.get_range(f"{folder}/2.ckpt", 0, 8) == b""
    [listed] = [found for found in store.list_objects(f"{folder}/") if found.key == key]
    assert listed.size == body.size
    assert abs(listed.modified - time.time()) < 60


def test_a_level_shows_its_objects_and_its_folders(
    store: S3Store, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a folder with thousands of objects in it one line; pages end anywhere."""
    monkeypatch.setattr(s3_module, "PAGE", 2)
    for name in ("a", "b/1", "b/2", "b/3", "b/deep/1", "c", "d/1", "e"):
        store.put(f"{folder}/{name}", b"x", "text/plain")
    store.put(f"{folder}-neighbour", b"x", "text/plain")
    assert sorted(store.list_level(f"{folder}/")) == [f"{folder}/{name}" for name in ("a", "b/", "c", "d/", "e")]


def test_what_is_temporary_goes_and_the_rest_stays(
    store: S3Store, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_module, "PAGE", 4)
    for number in range(10):
        store.put(f"{folder}/{number}", b"x", "text/plain")
    store.put(f"{folder}-neighbour", b"x", "text/plain")
    assert store.remove([one for one in store.versions(f"{folder}/") if not one.key.endswith("7")]) == 0
    assert list(store.list(folder)) == [f"{folder}-neighbour", f"{folder}/7"]


@only(MOTO, CEPH)
def test_no_version_of_a_checkpoint_stays(server: S3Info, secret: Path, folder: str) -> None:
    owner = owner_of(server)
    owner.create_bucket(Bucket="versioned-2")
    owner.put_bucket_versioning(Bucket="versioned-2", VersioningConfiguration={"Status": "Enabled"})
    store = a_store(server, secret, bucket="versioned-2")
    for number in range(6):
        store.put(f"{folder}/{number % 3}", bytes([number]), "text/plain")
    store.delete(f"{folder}/1")
    assert store.remove([*store.versions(f"{folder}/")]) == 0
    left = owner.list_object_versions(Bucket="versioned-2", Prefix=folder)
    assert not left.get("Versions")
    assert not left.get("DeleteMarkers")


@only(CEPH)
def test_a_checkpoint_that_is_locked_is_hidden_and_counted(server: S3Info, secret: Path, folder: str) -> None:
    owner = owner_of(server)
    owner.create_bucket(Bucket="locked-2", ObjectLockEnabledForBucket=True)
    rule = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}}
    owner.put_object_lock_configuration(
        Bucket="locked-2",
        ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule},  # type: ignore[typeddict-item]
    )
    store = a_store(server, secret, bucket="locked-2")
    for number in range(3):
        store.put(f"{folder}/{number}", b"x", "text/plain")
    assert store.remove([*store.versions(f"{folder}/")]) == 3
    assert not list(store.list(f"{folder}/"))


@only(CEPH)
def test_without_the_right_to_delete_checkpoints_stay_and_are_counted(
    server: S3Info, secret: Path, folder: str
) -> None:
    owner = owner_of(server)
    owner.create_bucket(Bucket="write-only-2")
    statement = {
        "Effect": "Deny",
        "Principal": {"AWS": ["*"]},
        "Action": ["s3:DeleteObject", "s3:DeleteObjectVersion", "s3:ListBucketVersions"],
        "Resource": ["arn:aws:s3:::write-only-2", "arn:aws:s3:::write-only-2/*"],
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    owner.put_bucket_policy(Bucket="write-only-2", Policy=policy)
    store = a_store(server, secret, bucket="write-only-2")
    for number in range(3):
        store.put(f"{folder}/{number}", b"x", "text/plain")
    assert store.remove([*store.versions(f"{folder}/")]) == 3
    assert len(list(store.list(f"{folder}/"))) == 3


@only(CEPH)
def test_a_full_bucket_is_refused_with_advice(server: CephInfo, secret: Path, folder: str) -> None:
    owner_of(server).create_bucket(Bucket="full")
    store = a_store(server, secret, bucket="full")
    store.put(f"{folder}/a", b"x", "text/plain")
    bucket_quota = ["--quota-scope=bucket", f"--uid={server.user}"]
    for words in (["set", "--max-objects=1"], ["enable"]):
        subprocess.run([*server.admin, "quota", *words, *bucket_quota], check=True, capture_output=True)
    keys = iter(range(20))
    try:
        # the gateway looks up sizes of buckets now and then, so that some more get in
        with pytest.raises(StorageRefusedError, match="is full: raise its quota"):
            all(store.put(f"{folder}/{key}", b"x", "text/plain") for key in keys)
    finally:
        subprocess.run([*server.admin, "quota", "disable", *bucket_quota], check=True, capture_output=True)


# ── encryption ───────────────────────────────────────────────────────────────────────────────────────────────────────


def encrypted(server: S3Info, mode: EncryptionMode, key: str | None = None, **values: str) -> dict[str, Any]:
    return {"server_side_encryption": {"mode": mode, "kmsKeyId": key}, **values}


@pytest.mark.parametrize(
    ("server", "mode", "key"),
    [
        pytest.param(MOTO, EncryptionMode.S3, None, id="moto-sse-s3"),
        pytest.param(MOTO, EncryptionMode.KMS, "alias/recordings", id="moto-sse-kms"),
        pytest.param(CEPH, EncryptionMode.KMS, KMS_KEY, id="ceph-sse-kms"),
    ],
    indirect=["server"],
)
def test_objects_of_one_part_and_of_many_are_encrypted_as_asked(
    server: S3Info, secret: Path, folder: str, mode: EncryptionMode, key: str | None
) -> None:
    intent = a_shipping_intent(
        storage=destination(server, prefix=f"{folder}/{mode.name}", **encrypted(server, mode, key))
    )
    store = a_store(server, secret, **encrypted(server, mode, key))
    check_storage(store, layout_of(intent), intent)
    small, large = f"{folder}/{mode.name}/small", f"{folder}/{mode.name}/large"
    store.put(small, b"hello", "text/plain")
    upload = store.create_upload(large, "video/matroska")
    parts = [store.upload_part(large, upload, number, bytes([number]) * PART_BYTES) for number in (2, 1)]
    store.complete_upload(large, upload, parts)
    parts.sort(key=lambda part: part.number)
    assert verify(store, Uploaded(large, 2 * PART_BYTES, tuple(parts), multipart=True)) in ("etag", "read")
    for name in (small, large):
        seen = owner_of(server).head_object(Bucket=server.bucket, Key=name)
        assert seen.get("ServerSideEncryption") == mode.value
        assert seen.get("SSEKMSKeyId") == key


@pytest.mark.parametrize(
    ("server", "words"),
    [
        pytest.param(RCLONE, "does not encrypt as asked", id="rclone-ignores-it"),
        pytest.param(VERSITYGW, "does not encrypt as asked", id="versitygw-ignores-it"),
        pytest.param(CEPH, "does not encrypt as asked", id="ceph-ignores-it"),
    ],
    indirect=["server"],
)
def test_a_storage_that_cannot_encrypt_as_asked_is_refused(
    server: S3Info, secret: Path, folder: str, words: str
) -> None:
    wish = encrypted(server, EncryptionMode.S3)
    intent = a_shipping_intent(storage=destination(server, prefix=folder, **wish))
    with pytest.raises(StorageRefusedError, match=words):
        check_storage(a_store(server, secret, **wish), layout_of(intent), intent)


@only(CEPH)
def test_a_kms_key_that_does_not_exist_is_refused(server: S3Info, secret: Path, folder: str) -> None:
    with pytest.raises(StorageRefusedError):
        a_store(server, secret, **encrypted(server, EncryptionMode.KMS, "nobody")).put(f"{folder}/a", b"", "text/plain")
