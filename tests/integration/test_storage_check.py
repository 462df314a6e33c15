"""`isotrack-recorder check` as a Job runs it: what it says of real servers, and what it leaves there."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from isotrack_api.intent import S3Destination
from isotrack_dev.object_stores import rclone_server
from isotrack_dev.servers import S3Info
from support.bucket import Bucket
from support.stores import destination, write_secret

RECORDER = Path(sys.executable).with_name("isotrack-recorder")
PLACE = "calls/isotrack-check/0123456789abcdef"


@dataclass
class Check:
    """The environment of a check's container."""

    folder: Path
    server: S3Info
    variables: dict[str, str] = field(default_factory=dict)

    def run(self, keys: tuple[str, str] | None = None, **values: Any) -> tuple[int, dict[str, Any]]:
        """Exit code and termination message."""
        storage: S3Destination = destination(self.server, **{"prefix": "calls", **values})
        secret = write_secret(self.folder / "storage", *(keys or (self.server.access_key, self.server.secret_key)))
        environment = {
            "PATH": "/usr/bin:/bin",
            "ISOTRACK_CHECK": storage.to_json(),
            "ISOTRACK_CHECK_NAME": "0123456789abcdef",
            "ISOTRACK_CHECK_SECONDS": "2",
            "ISOTRACK_STORAGE_CREDENTIALS": str(secret),
            "ISOTRACK_TERMINATION_LOG": str(self.folder / "termination"),
            **self.variables,
        }
        done = subprocess.run([RECORDER, "check"], env=environment, capture_output=True, text=True, timeout=120)
        assert self.server.secret_key not in done.stdout + done.stderr
        return done.returncode, json.loads((self.folder / "termination").read_text())


@pytest.fixture
def check(s3: S3Info, tmp_path: Path) -> Check:
    return Check(tmp_path, s3)


def test_a_storage_that_works_is_left_as_it_was(check: Check, bucket: Bucket) -> None:
    code, said = check.run()
    assert (code, said["reason"], said["message"]) == (0, "StorageAvailable", "")
    assert bucket.keys(PLACE) == []
    assert bucket.uploads(PLACE) == []


def test_what_a_killed_check_left_is_removed_by_the_next(check: Check, bucket: Bucket) -> None:
    key = f"{PLACE}/probe-00000000"
    bucket._client.put_object(Bucket=bucket.name, Key=key, Body=b"x")
    bucket._client.create_multipart_upload(Bucket=bucket.name, Key=key)
    assert check.run()[0] == 0
    assert bucket.keys(PLACE) == []
    assert bucket.uploads(PLACE) == []


@pytest.mark.parametrize(
    ("keys", "values", "code", "reason", "words"),
    [
        pytest.param(
            None, {"bucket": "no-such-bucket"}, 73, "StorageRefused", "does not exist: create it", id="no-bucket"
        ),
        pytest.param(
            ("nobody", "x" * 20),
            {},
            73,
            "StorageRefused",
            "does not know the access key: correct accessKeyId",
            id="key",
        ),
        pytest.param(
            None, {"endpoint": "http://127.0.0.1:9"}, 74, "StorageUnavailable", "cannot be reached", id="away"
        ),
    ],
)
def test_what_is_wrong_is_said_with_what_to_do(
    check: Check, keys: tuple[str, str] | None, values: dict[str, Any], code: int, reason: str, words: str
) -> None:
    found, said = check.run(keys, **values)
    assert (found, said["reason"]) == (code, reason)
    assert words in said["message"]


def test_a_storage_that_keeps_less_is_usable_with_a_warning(tmp_path: Path) -> None:
    (tmp_path / "rclone").mkdir()
    with rclone_server(tmp_path / "rclone") as server:
        code, said = Check(tmp_path, server).run()
    assert (code, said["reason"]) == (0, "StorageLimited"), said
    assert "ignores If-None-Match" in said["message"]


@pytest.mark.parametrize(
    ("name", "text"),
    [("ISOTRACK_CHECK", ""), ("ISOTRACK_CHECK", '{"bucket":1}'), ("ISOTRACK_CHECK_NAME", "../x"), ("ISOTRACK_CHECK_NAME", "")],
)  # fmt: skip
def test_an_environment_that_makes_no_sense_is_named(check: Check, name: str, text: str) -> None:
    check.variables[name] = text
    code, said = check.run()
    assert (code, said["reason"]) == (64, "InvalidConfiguration")
    assert name in said["message"]
