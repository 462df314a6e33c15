"""The process that ships beside `isotrack record`, on a spool that grows, with a real S3 server."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from isotrack_api.intent import Intent
from isotrack_dev.servers import S3Info
from isotrack_recorder.cli.finish import finish_workspace
from isotrack_recorder.cli.workspace import Workspace
from isotrack_recorder.finalise.local import finish_local
from support.bucket import Bucket
from support.live_spool import LiveSpool, segments
from support.shipping import a_shipping_intent
from support.stores import destination
from support.waiting import until


@dataclass
class Scene:
    """A workspace, its call, and what is in its bucket folder."""

    workspace: Workspace
    intent: Intent
    call: LiveSpool
    bucket: Bucket

    def stored(self, suffix: str) -> list[str]:
        return [key for key in self.bucket.keys(f"shipper/{self.intent.folder}/") if key.endswith(suffix)]

    def media(self) -> dict[str, bytes]:
        return {key.rpartition("/")[2]: self.bucket.read(key) for key in self.stored(".mkv")}

    @contextmanager
    def shipper(self) -> Iterator[subprocess.Popen[bytes]]:
        command = [sys.executable, "-m", "isotrack_recorder.cli.shipper", str(self.workspace.folder)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=self.workspace.held)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


@pytest.fixture
def scene(s3: S3Info, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret_key)
    name = uuid.uuid4().hex
    changes = {"storage": destination(s3, prefix="shipper"), "folder": f"standup-{name[:8]}"}
    intent = a_shipping_intent().model_copy(update=changes)
    workspace = Workspace.create(tmp_path / "state", intent)
    return Scene(workspace, intent, LiveSpool(workspace.spool, segment_bytes=512 * 1024), bucket)


async def test_files_go_out_and_the_spool_is_given_back_while_the_call_runs(scene: Scene, tmp_path: Path) -> None:
    """Killed and begun again in between; the end is the recorder's, and leaves nothing that was for the case of a crash."""
    scene.call.run(60)
    with scene.shipper():
        await asyncio.to_thread(until, lambda: scene.stored(".ckpt"), "a checkpoint")
    with scene.shipper() as process:
        scene.call.run(120)
        oldest = scene.workspace.spool / "i0001" / "t0002.000001.log"
        await asyncio.to_thread(until, lambda: not oldest.exists(), "the spool is given back")
        assert scene.bucket.uploads(f"shipper/{scene.intent.folder}/"), "a file is on its way"
        scene.call.stop()
        process.communicate(b"over\n", timeout=60)
        assert process.returncode == 0
    await finish_workspace(scene.workspace, scene.intent, sys.stderr)
    assert not scene.workspace.folder.exists()
    assert not scene.stored(".ckpt")
    assert not scene.bucket.uploads(f"shipper/{scene.intent.folder}/")
    same = LiveSpool(tmp_path / "same")
    same.run(120)
    same.stop()
    finish_local(tmp_path / "same", scene.intent, tmp_path / "local")
    assert scene.media() == {path.name: path.read_bytes() for path in (tmp_path / "local").glob("*.mkv")}


async def test_what_a_killed_recorder_left_is_copied_before_the_end(scene: Scene) -> None:
    """Its end of the pipe closes without a word."""
    scene.call.run(10)
    with scene.shipper() as process:
        await asyncio.to_thread(until, lambda: scene.stored(".ckpt"), "a checkpoint")
        scene.call.run(14)
        left = {path.relative_to(scene.workspace.spool).as_posix() for path in segments(scene.workspace.spool)}
        size = sum((scene.workspace.spool / name).stat().st_size for name in left)
        process.communicate(timeout=60)
        assert process.returncode == 0
    copied = sum(len(scene.bucket.read(key)) for key in scene.stored(".ckpt"))
    assert copied > size
    scene.call.stop()


async def test_what_a_shipper_tried_the_storage_with_when_it_died_goes_at_the_end(scene: Scene) -> None:
    """There is no checkpoint by which one could tell that it was there."""
    scene.call.run(10)
    scene.call.stop()
    root = f"shipper/{scene.intent.folder}"
    scene.bucket.write(f"{root}/attempts/1/probe-01234567", b"x")
    scene.bucket.begin_upload(f"{root}/attempts/1/probe-01234567")
    await finish_workspace(scene.workspace, scene.intent, sys.stderr)
    assert scene.media()
    assert not [key for key in scene.bucket.keys(f"{root}/") if "/probe-" in key]
    assert not scene.bucket.uploads(f"{root}/")
