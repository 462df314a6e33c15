"""`isotrack verify` on what a real call left in a real bucket: proven as it is, refuted when one byte differs."""

from __future__ import annotations

import json
from typing import Any

import boto3
import pytest

from isotrack_recorder.cli import main
from support.bucket import Bucket
from support.call import Call
from support.people import Action, Person, Picture


@pytest.fixture
def client(bucket: Bucket) -> Any:
    """Writes into the bucket behind the recorder's back."""
    return boto3.client(
        "s3", endpoint_url=bucket.endpoint, aws_access_key_id=bucket.access_key, aws_secret_access_key=bucket.secret_key,
        region_name=bucket.region,
    )  # fmt: skip


def test_a_call_in_a_bucket_is_proven_until_somebody_changes_it(call: Call, bucket: Bucket, client: Any) -> None:
    cast = [
        Person(identity="alice", camera=Picture(pre_encoded=True)),
        Person(identity="bob", camera=Picture(codec="h264")),
    ]
    with call.people(cast) as people:
        people.join("alice", "bob")
        with call.record(output=f"s3://{bucket.name}/verified") as recorder:
            recorder.recording("alice", "microphone", "camera")
            recorder.recording("bob", "microphone", "camera")
            people.do(Action(who="bob", do="mute", what="microphone"))
            recorder.wait("muted")
            people.play(2)
            people.do(Action(who="bob", do="unmute", what="microphone"))
            recorder.wait("unmuted")
            people.play(2)
            recorder.interrupt()
            ended = recorder.ended(seconds=60)
        assert ended.code == 0, ended.stderr
    folder = bucket.folder_of(call.room[:40])
    place = f"s3://{bucket.name}/{folder}"
    proven = call.isotrack("verify", place)
    assert proven.code == 0, proven.stdout + proven.stderr
    assert proven.stdout.count("ok    ") == 2
    assert "2 of 2 files are what the manifest says" in proven.stdout

    manifest = bucket.manifest(folder)
    key = folder + manifest.files[0].name
    content = bytearray(bucket.read(key))
    content[len(content) // 2] ^= 1
    client.put_object(Bucket=bucket.name, Key=key, Body=bytes(content))
    client.delete_object(Bucket=bucket.name, Key=folder + manifest.files[1].name)
    refuted = call.isotrack("verify", "--json", place)
    assert refuted.code == 1
    first, second = json.loads(refuted.stdout)["files"]
    assert any("sha256 and crc32 differ" in problem for problem in first["problems"])
    assert second["problems"] == ["is not in the bucket"]


def test_a_bucket_without_the_recording_is_named(bucket: Bucket, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    for name, value in {
        "AWS_ACCESS_KEY_ID": bucket.access_key,
        "AWS_SECRET_ACCESS_KEY": bucket.secret_key,
        "AWS_ENDPOINT_URL_S3": bucket.endpoint,
        "AWS_REGION": bucket.region,
    }.items():
        monkeypatch.setenv(name, value)
    assert main(["verify", f"s3://{bucket.name}/nobody"]) == 64
    assert "is not there" in capsys.readouterr().err
