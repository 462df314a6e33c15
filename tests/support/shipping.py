"""What tests of shipping start from: a call of two people in a spool, and an intent that names a storage."""

from __future__ import annotations

from pathlib import Path

from isotrack_api.intent import Intent, S3Destination

from .media import opus_packets, video_frames
from .spools import Call, Sender, an_intent, steady, tone

ROOT = "calls/team-a/standup-01234567"


def a_shipping_intent(*, attempt: int = 1, epoch_ms: int | None = None, storage: S3Destination | None = None) -> Intent:
    """An Intent whose files go to `storage`, below the prefix `calls`."""
    chosen = storage or S3Destination(bucket="memory", prefix="calls/")
    return an_intent(attempt=attempt, epoch_ms=epoch_ms).model_copy(update={"storage": chosen})


def two_people(
    spool: Path,
    *,
    attempt: int = 1,
    started: float = 0.0,
    alice_leaves: float | None = 3.0,
    padding: int = 0,
    pictures: int = 60,
) -> Call:
    """Alice speaks for two seconds, Bob shows himself for two; nothing is written yet.

    Args:
        padding: Bytes added to each picture, to make files of many parts.
        pictures: How many Bob sends, 30 a second.
    """
    call = Call(spool, attempt=attempt, started=started)
    call.person("PA_a", "alice", started, alice_leaves and started + alice_leaves)
    call.track("t0001", "PA_a", "alice", "microphone", "opus", started)
    call.frames("t0001", Sender(), 48000, tone(opus_packets(100), started))
    call.person("PA_b", "bob", started + 0.5)
    call.track("t0002", "PA_b", "bob", "camera", "vp8", started + 0.5)
    encoded = video_frames(60)
    shown = ((data + bytes(padding), key) for data, key in (encoded[number % 60] for number in range(pictures)))
    call.frames("t0002", Sender(), 90000, steady(shown, started + 0.5, 1 / 30))
    call.event("size", started + 0.5, track="t0002", timestamp=0, width=160, height=120, rotation=0)
    return call
