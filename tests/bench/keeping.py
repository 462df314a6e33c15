"""What a receiver of ours does with media: a spool, as in a capture, without a call around it."""

from __future__ import annotations

from isotrack_api.base import MediaKind, TrackSource
from isotrack_recorder.clock import SystemClock
from isotrack_recorder.spool.writer import SpoolWriter
from isotrack_recorder.track_capture import TrackCapture


class Keeps:
    """A MediaListener that keeps everything in a spool."""

    def __init__(self, spool: SpoolWriter) -> None:
        self._spool = spool
        self._clock = SystemClock()

    def open_track(self, track_id: str, kind: MediaKind) -> TrackCapture:
        """See MediaListener."""
        return TrackCapture(
            self._spool,
            self._clock,
            track_id=track_id,
            peer_id=track_id,
            user_id=track_id,
            source=TrackSource.CAMERA if kind is MediaKind.VIDEO else TrackSource.MICROPHONE,
            kind=kind,
            name="",
            on_codec=lambda: None,
        )

    def track_unsupported(self, track_id: str, kind: MediaKind, offered: str) -> None:
        """See MediaListener."""
        raise AssertionError(track_id)
