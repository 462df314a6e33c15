"""What the demo draws from a manifest."""

from __future__ import annotations

from typing import Any

import pytest

from isotrack_api.manifest import Manifest
from isotrack_dev.demo_view import file_facts, missing, ruler, timeline


def a_file(user: str, start_ms: int, duration_ms: int, **track: Any) -> dict[str, Any]:
    """One audio_video file with a microphone in it."""
    microphone = {
        "trackId": "TR_1",
        "source": "microphone",
        "kind": "audio",
        "codec": "opus",
        "startMs": start_ms,
        "endMs": start_ms + duration_ms,
        **dict.fromkeys(("frames", "keyFrames", "packets", "packetsLost", "packetsRecovered", "mediaBytes"), 1),
    }
    return {
        "name": f"{user}.mkv",
        "attempt": 1,
        "layer": "default",
        "outputType": "audio_video",
        "container": "mkv",
        "userId": user,
        "peerId": f"PA_{user}",
        "startOffsetMs": start_ms,
        "durationMs": duration_ms,
        "bytes": 12_345,
        "sha256": "0" * 64,
        "tracks": [microphone | track],
    }


def a_manifest(*files: dict[str, Any], duration_ms: int = 20_000, lost_ms: int = 0) -> Manifest:
    """A finished recording."""
    attempt = {
        "n": 1,
        "startedAt": "2026-01-01T00:00:00Z",
        "endedAt": "2026-01-01T00:01:00Z",
        "stopReason": "Requested",
    }
    return Manifest.model_validate(
        {
            "generator": "isotrack/test",
            "recording": {"namespace": "n", "name": "r", "uid": "00000000-0000"},
            "callId": "c",
            "startedAt": "2026-01-01T00:00:00Z",
            "durationMs": duration_ms,
            "lostMs": lost_ms,
            "complete": True,
            "stopReason": "Requested",
            "attempts": [attempt],
            "files": list(files),
        }
    )


def test_bars_lie_where_the_media_does() -> None:
    manifest = a_manifest(a_file("bob", 10_000, 10_000), a_file("alice", 0, 20_000))
    alice, bob, _ = timeline(manifest, width=20)
    assert alice == f"alice: microphone + camera ▕{'━' * 20}▏ 0.0 to 20.0 s"
    assert bob == f"bob: microphone + camera   ▕{' ' * 10}{'━' * 10}▏ 10.0 to 20.0 s"


def test_declared_silence_is_drawn_as_such() -> None:
    gaps = [{"startMs": 5000, "durationMs": 5000, "reason": "Muted"}]
    manifest = a_manifest(a_file("alice", 0, 20_000, gaps=gaps))
    bar = next(iter(timeline(manifest, width=20)))
    assert f"▕{'━' * 5}{'┄' * 5}{'━' * 10}▏" in bar
    assert missing(manifest) == "nothing lost, 5.0 s of declared silence"


def test_a_short_file_still_shows() -> None:
    bar = next(iter(timeline(a_manifest(a_file("alice", 19_999, 1)), width=20)))
    assert bar.count("━") == 1


def test_an_empty_recording_draws_a_ruler_only() -> None:
    assert list(timeline(a_manifest(duration_ms=0))) == [f"  {ruler(0.001)}"]


@pytest.mark.parametrize("seconds", [0.001, 1, 17.2, 59, 61, 3600, 86_400])
def test_the_ruler_fits_below_the_bars(seconds: float) -> None:
    line = ruler(seconds, 60)
    assert line.startswith("0 s")
    assert len(line) <= 68


def test_facts_of_a_file_are_those_of_ffprobe() -> None:
    probed = {
        "streams": [{"codec_name": "opus"}, {"codec_name": "vp8", "width": 640, "height": 360}],
        "format": {"duration": "17.2"},
    }
    (file,) = a_manifest(a_file("alice", 0, 17_200)).files
    assert file_facts(file, probed) == "opus + vp8 640x360, 17.2 s, 12 kB"
