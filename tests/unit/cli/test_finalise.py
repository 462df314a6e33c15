"""`isotrack finalise DIR`: from the folder that a run left behind to its files."""

from __future__ import annotations

import json
import os
from pathlib import Path

from isotrack_api.intent import Intent, OutputLayer
from support.command import isotrack
from support.media import opus_packets, video_frames
from support.spools import Call, Sender, an_intent, steady, tone


def left_behind(parent: Path, intent: Intent) -> Call:
    """The folder of a run that is over: a call to be written into its spool."""
    folder = parent / ".isotrack-01234567"
    folder.mkdir(parents=True)
    (folder / "intent.json").write_text(intent.to_json())
    return Call(folder / "spool")


def several_people(parent: Path) -> Call:
    """All that sets and dictionaries are made of: people, sources, codecs, layers, and what could not be recorded."""
    layers = [
        {"name": "whole", "outputTypes": ["audio_video", "screenshare_audio_video", "audio_only"]},
        {"name": "speech", "outputTypes": ["audio_only"], "container": "webm"},
    ]
    intent = an_intent().model_copy(update={"layers": tuple(map(OutputLayer.model_validate, layers))})
    call = left_behind(parent, intent)
    number = 0
    for who, video in (("alice", "vp8"), ("bob", "h264"), ("carol", "vp9")):
        peer = f"PA_{who}"
        call.person(peer, who, left=5.0)
        for source, codec in (("microphone", "opus"), ("camera", video), ("screenshare_audio", "opus")):
            number += 1
            log = f"t{number:04}"
            call.track(log, peer, who, source, codec, 0.1, ended=4.5)
            sender = Sender(drift_ppm=10 * number)
            if codec == "opus":
                call.frames(log, sender, 48_000, tone(opus_packets(150), 0.5), reports=[1, 3], lost=range(40, 50))
            else:
                frames = steady(video_frames(90, codec), 0.6, 1 / 30)
                call.frames(log, sender, 90_000, frames, reports=[1.1, 3.1], lost=range(20, 25))
                call.event("size", 0.2, track=log, timestamp=0, width=160, height=120, rotation=0)
        for source in ("camera", "screenshare"):
            call.event("unrecorded", 1.0, track_id=f"TR_{who}_{source}", peer_id=peer, user_id=who, source=source,
                       reason="CodecUnsupported", message="video/x")  # fmt: skip
    call.write(stop=6.0)
    return call


def test_the_same_spool_gives_the_same_bytes_in_any_process(tmp_path: Path) -> None:
    """Files and manifest, whatever the seed of Python's hashes and the clock's zone."""
    made = []
    for seed, zone in (("1", "UTC"), ("2", "Asia/Kathmandu")):
        output = tmp_path / seed
        call = several_people(output)
        environment = {**os.environ, "PYTHONHASHSEED": seed, "TZ": zone}
        ended = isotrack("finalise", str(call.spool.parent), environment=environment)
        assert ended.code == 0, ended.stderr
        made.append({path.name: path.read_bytes() for path in output.iterdir()})
    first, second = made
    assert len(json.loads(first["recording.json"])["files"]) == len(first) - 1 == 12
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []
