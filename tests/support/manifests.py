"""Builders of manifests and their parts: valid defaults, a test names what matters to it."""

from __future__ import annotations

from typing import Any

from isotrack_api.base import Container, MediaKind, OutputType, TrackSource
from isotrack_api.intent import RecordingRef
from isotrack_api.manifest import Manifest, ManifestAttempt, ManifestFile, ManifestTrack, StopReason

UID = "11111111-2222-3333-4444-555555555555"


def a_track(**values: Any) -> ManifestTrack:
    """A minute of somebody's microphone."""
    defaults: dict[str, Any] = {
        "track_id": "TR_1",
        "source": TrackSource.MICROPHONE,
        "kind": MediaKind.AUDIO,
        "codec": "opus",
        "start_ms": 0,
        "end_ms": 60_000,
        "frames": 3000,
        "key_frames": 3000,
        "packets": 3000,
        "packets_lost": 0,
        "packets_recovered": 0,
        "media_bytes": 200_000,
    }
    return ManifestTrack(**{**defaults, **values})


def a_file(**values: Any) -> ManifestFile:
    """A minute of Alice."""
    defaults: dict[str, Any] = {
        "name": "default_alice_PA_1_peer_audio_1.mkv",
        "attempt": 1,
        "layer": "default",
        "output_type": OutputType.AUDIO_VIDEO,
        "container": Container.MKV,
        "user_id": "alice",
        "peer_id": "PA_1",
        "start_offset_ms": 0,
        "duration_ms": 60_000,
        "bytes": 210_000,
        "sha256": "0" * 64,
        "tracks": (a_track(),),
    }
    return ManifestFile(**{**defaults, **values})


def a_manifest(**values: Any) -> Manifest:
    """Attempt 1 of a recording that was stopped after a minute."""
    number = values.pop("n", 1)
    stop = values.get("stop_reason", StopReason.REQUESTED)
    started = "2026-01-01T10:00:00.000Z"
    attempt = ManifestAttempt(n=number, started_at=started, ended_at="2026-01-01T10:01:00.000Z", stop_reason=stop)
    defaults: dict[str, Any] = {
        "generator": "isotrack/test",
        "recording": RecordingRef(namespace="team-a", name="standup", uid=UID),
        "call_id": "standup",
        "started_at": started,
        "duration_ms": 60_000,
        "complete": True,
        "stop_reason": stop,
        "attempts": (attempt,),
    }
    return Manifest(**{**defaults, **values})
