"""Files open, seek and play to their end in Chromium."""

from __future__ import annotations

from pathlib import Path

import pytest

from isotrack_api.base import Container
from isotrack_recorder.finalise.local import finish_local
from support import spools
from support.browser import play
from support.media import opus_packets, video_frames


@pytest.mark.parametrize(("picture", "container"), [("vp8", "webm"), ("vp9", "webm"), ("av1", "webm"), ("h264", "mkv")])
def test_chromium_plays_every_picture_to_the_end(chromium: str, tmp_path: Path, picture: str, container: str) -> None:
    """From the spool on: sound with a loss and a mute in it, pictures that begin later and end earlier than it."""
    call = spools.Call(tmp_path / "spool")
    call.person("PA_a", "alice", left=15)
    call.track("t0001", "PA_a", "alice", "microphone", "opus", 0.1, ended=14)
    call.track("t0002", "PA_a", "alice", "camera", picture, 0.1, ended=14)
    call.event("size", 0.2, track="t0002", timestamp=0, width=160, height=120, rotation=0)
    packets = opus_packets(300)
    heard = spools.tone(packets, 0.5) + spools.tone(packets, 8.0)
    call.event("muted", 6.5, track="t0001")
    call.event("unmuted", 8.0, track="t0001")
    call.frames("t0001", spools.Sender(), 48_000, heard, reports=(1, 6, 11), lost=range(100, 160))
    frames = [
        (data.removeprefix(b"\x12\0") if picture == "av1" else data, key)
        for data, key in video_frames(360, picture, key_every=90)
    ]
    call.frames("t0002", spools.Sender(), 90_000, spools.steady(frames, 0.9, 1 / 30), reports=(1, 6))
    call.write(stop=15.0)
    (file,) = finish_local(call.spool, spools.an_intent(container=Container.WEBM), tmp_path / "out").files
    assert file.name.endswith(container)
    played = play(chromium, tmp_path / "out" / file.name, tmp_path / "profile")
    length = file.duration_ms / 1000
    assert (played.width, played.height) == (160, 120)
    assert played.duration == pytest.approx(length, abs=0.002)
    assert played.middle == pytest.approx(length / 2, abs=0.1)
    assert played.end == pytest.approx(length, abs=0.1)
    assert played.corrupted == 0
    assert played.frames >= 100
    assert played.sound > 0
