"""Whole recordings in buckets that keep what is overwritten and deleted: two pods, of which the first one dies behind its checkpoints."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from isotrack_dev.object_stores import ceph_server
from isotrack_dev.servers import S3Info
from support.bucket import Bucket
from support.recorder_end import RecorderEnd
from support.scene import Scene, a_scene, killed
from support.shipping import two_people
from support.stores import owner_of


@pytest.fixture(scope="module")
def ceph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Info]:
    """Keeps versions and locks objects as AWS does."""
    with ceph_server(tmp_path_factory.mktemp("ceph")) as server:
        yield server


def a_bucket(ceph: S3Info, name: str, *, locked: bool) -> Bucket:
    owner = owner_of(ceph)
    owner.create_bucket(Bucket=name, ObjectLockEnabledForBucket=locked)
    if locked:
        rule = {"DefaultRetention": {"Mode": "COMPLIANCE", "Days": 1}}
        owner.put_object_lock_configuration(
            Bucket=name,
            ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule},  # type: ignore[typeddict-item]
        )
    else:
        owner.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    return Bucket(ceph.endpoint, ceph.access_key, ceph.secret_key, name, ceph.region)


async def record(scene: Scene) -> None:
    """The first pod is killed once everything is in checkpoints; the second one ends the recording."""
    await killed(scene, two_people(scene.spool("pod"), alice_leaves=None))
    call = two_people(scene.spool("second"), attempt=2, started=10, alice_leaves=None, padding=200_000)
    call.write(stop=20, reason="CallEnded")
    async with RecorderEnd(scene.path / "second" / "run") as recorder:
        recorder.say("Stopped", stop_reason="CallEnded")
        assert await scene.run("agent", "second", 2) == 0, scene.log("second")


def kept(scene: Scene) -> tuple[Counter[str], Counter[str]]:
    """What the bucket has of each key, hidden or not: versions, and delete markers."""
    pages = owner_of(scene.s3).get_paginator("list_object_versions")
    found: tuple[Counter[str], Counter[str]] = Counter(), Counter()
    for page in pages.paginate(Bucket=scene.bucket.name, Prefix=f"{scene.root}/"):
        for counts, rows in zip(found, (page.get("Versions", []), page.get("DeleteMarkers", [])), strict=True):
            counts.update(row["Key"].removeprefix(f"{scene.root}/") for row in rows)
    return found


def assert_it_is_whole(scene: Scene) -> None:
    """Over both pods, each file as the manifest says, and written once."""
    manifest = scene.recording()
    assert [attempt.n for attempt in manifest.attempts] == [1, 2]
    assert {file.user_id for file in manifest.files} == {"alice", "bob"}
    media = scene.media()
    assert media.keys() == {file.name for file in manifest.files}
    for file in manifest.files:
        assert len(media[file.name]) == file.bytes
        assert file.sha256 in (None, hashlib.sha256(media[file.name]).hexdigest())
    versions, _ = kept(scene)
    assert {versions[name] for name in ("recording.json", *media)} == {1}
    assert scene.bucket.uploads(f"{scene.root}/") == []


async def assert_a_repetition_changes_nothing(scene: Scene) -> None:
    before = kept(scene)
    again = await asyncio.to_thread(scene.by_hand, "--json")
    assert again.returncode == 0, again.stderr
    sweep = {"ISOTRACK_SWEEP": scene.storage.to_json(), "ISOTRACK_SWEEP_SECONDS": "0"}
    assert await scene.run("sweep", "sweeper", **sweep) == 0, scene.log("sweeper")
    assert scene.termination("sweeper")["message"].startswith("0 abandoned recordings finished, 0 not")
    assert kept(scene) == before


async def test_no_version_of_a_checkpoint_stays_behind_a_recording(ceph: S3Info, tmp_path: Path) -> None:
    scene = a_scene(tmp_path, ceph, a_bucket(ceph, "versioned", locked=False), "calls")
    await record(scene)
    assert_it_is_whole(scene)
    versions, markers = kept(scene)
    assert [key for key in (*versions, *markers) if key.endswith(".ckpt")] == []
    assert [key for key in (*versions, *markers) if "/probe-" in key] == []
    assert "keeps checkpoints" not in scene.log("second")
    await assert_a_repetition_changes_nothing(scene)


async def test_locked_checkpoints_are_hidden_and_the_agent_says_that_they_stay(ceph: S3Info, tmp_path: Path) -> None:
    scene = a_scene(tmp_path, ceph, a_bucket(ceph, "locked", locked=True), "calls")
    await record(scene)
    assert_it_is_whole(scene)
    versions, markers = kept(scene)
    checkpoints = [key for key in versions if key.endswith(".ckpt")]
    assert checkpoints, "nobody can delete them"
    assert all(markers[key] for key in checkpoints)
    assert scene.stored(".ckpt") == []
    (said,) = [line for line in logged(scene) if line["event"] == "storage keeps checkpoints"]
    assert said["objects"] == sum(versions[key] for key in checkpoints)
    await assert_a_repetition_changes_nothing(scene)


def logged(scene: Scene) -> list[dict[str, Any]]:
    return [json.loads(line) for line in scene.log("second").splitlines() if line.startswith("{")]
