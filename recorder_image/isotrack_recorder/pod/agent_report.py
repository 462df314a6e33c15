"""What the agent tells: its RecordingReport while it runs, its termination message at the end. Pure.

Both show facts that were true before they were written. The termination message is what the operator gets from the kubelet
even when the API server was away: at most 4096 bytes, so it holds sums and where the manifest lies, no lists.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from isotrack_api.conditions import Reason
from isotrack_api.manifest import Manifest, ManifestFile, StopReason
from isotrack_api.recording import ManifestRef, RecordingTotals
from isotrack_api.recording_report import (
    MAX_REPORT_FILES,
    MAX_REPORT_TRACKS,
    MAX_REPORT_UNRECORDED,
    FileReport,
    ReportPhase,
    ReportStatus,
    SpoolReport,
    StorageReport,
    TrackReport,
    UnrecordedReport,
)
from isotrack_recorder.control import State, TrackState
from isotrack_recorder.finalise.manifest import lost_ms
from isotrack_recorder.ship.commit import Committed
from isotrack_recorder.ship.deliver import Delivered

TERMINATION_BYTES: Final = 4096
"""Kubernetes cuts longer messages, which would leave half a JSON object."""
CRASHING_RESTARTS: Final = 3
"""From so many restarts of the recorder on it is no accident any more."""
MAX_NAMED: Final = 5
MAX_NAME: Final = 40
"""Tracks that could not be recorded in a termination message, and characters of a person's name there."""
_STARTED_PHASES: Final = {
    "Joining": ReportPhase.JOINING,
    "Armed": ReportPhase.ARMED,
    "Capturing": ReportPhase.CAPTURING,
    "Paused": ReportPhase.PAUSED,
    "Reconnecting": ReportPhase.RECONNECTING,
    "Stopped": ReportPhase.UPLOADING,
    "Failed": ReportPhase.UPLOADING,
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What a report is made of."""

    state: State | None
    """Of the recorder, as it said last."""
    restarts: int = 0
    """Of the recorder."""
    capture_over: bool = False
    storage: StorageReport | None = None
    files: tuple[ManifestFile, ...] = ()
    """Delivered."""
    checkpoint_age_seconds: float | None = None
    """Since the moment up to which everything is in the bucket; None without checkpoints."""
    stop_reason: StopReason | None = None
    epoch_ms: int | None = None
    participants_seen: int = 0
    """Most people that were in the call at once, so far."""
    ending: ReportPhase | None = None
    """Finished, Drained or Failed, once it is."""
    reason: str = ""
    message: str = ""
    manifest: Committed | None = None


def report_of(facts: Facts, now_ms: int) -> ReportStatus:
    """Build the report's status."""
    state = facts.state
    return ReportStatus(
        phase=_phase(facts),
        call_sid=(state.call_sid[:128] or None) if state else None,
        armed_at_ms=state.armed_at_ms if state else None,
        first_packet_at_ms=state.first_packet_at_ms if state else None,
        epoch_ms=facts.epoch_ms,
        stop_reason=facts.stop_reason or (state.stop_reason if state else None),
        reason=_reason(facts)[:63] or None,
        message=_message(facts)[:1024] or None,
        participants=state.participants if state else 0,
        totals=RecordingTotals(
            participants=max(facts.participants_seen, len({file.user_id for file in facts.files})),
            files=len(facts.files),
            bytes=sum(file.bytes for file in facts.files),
            lost_seconds=-(-lost_ms(facts.files) // 1000),
        ),
        tracks=_tracks(state),
        unrecorded=_unrecorded(state),
        files=tuple(_file(file) for file in newest(facts.files)),
        storage=facts.storage,
        spool=_spool(facts),
        manifest=ManifestRef(uri=facts.manifest.uri, digest=facts.manifest.digest) if facts.manifest else None,
        last_update=timestamp(now_ms),
    )


def transition_of(status: ReportStatus) -> object:
    """What of a report is worth writing at once; the rest is progress."""
    storage = (status.storage.ready, status.storage.reason) if status.storage else None
    files, manifest = len(status.files), status.manifest
    level = status.spool.level if status.spool else None
    # NB: bounded, as the list is. Else who publishes such tracks again and again would make a write each time.
    left_out = len(status.unrecorded)
    how_far = (status.phase, status.stop_reason, status.reason, status.armed_at_ms)
    return (how_far, storage, level, files, manifest, left_out)


def newest(files: Sequence[ManifestFile]) -> list[ManifestFile]:
    """The files that ended last, at most as many as a report holds."""
    ordered = sorted(files, key=lambda file: (file.start_offset_ms + file.duration_ms, file.name))
    return ordered[-MAX_REPORT_FILES:]


def timestamp(unix_ms: int) -> str:
    """RFC 3339, UTC, milliseconds."""
    moment = datetime.fromtimestamp(unix_ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _phase(facts: Facts) -> ReportPhase:
    if facts.ending is not None:
        return facts.ending
    if facts.capture_over:
        return ReportPhase.UPLOADING
    return _STARTED_PHASES[facts.state.phase] if facts.state else ReportPhase.STARTING


def _reason(facts: Facts) -> str:
    if facts.reason:
        return facts.reason
    # NB: told here, too. Where the pod is gone before the operator saw its last words, nothing else says it.
    if facts.ending is ReportPhase.FINISHED and facts.manifest is not None and not facts.manifest.manifest.complete:
        return Reason.PARTIALLY_UPLOADED
    return Reason.RECORDER_CRASHING if facts.restarts >= CRASHING_RESTARTS else ""


def _message(facts: Facts) -> str:
    if facts.message:
        return facts.message
    if facts.restarts:
        times = "once" if facts.restarts == 1 else f"{facts.restarts} times"
        return f"the recorder began again {times}: its container's previous log tells why"
    return facts.state.message if facts.state else ""


def _spool(facts: Facts) -> SpoolReport | None:
    spool = facts.state.spool if facts.state else None
    if spool is None or facts.capture_over or facts.ending is not None:
        return None  # nothing is shed any more
    return SpoolReport(level=spool.level, used_bytes=spool.used, capacity_bytes=spool.capacity)


def _tracks(state: State | None) -> tuple[TrackReport, ...]:
    if state is None:
        return ()
    running_first = sorted(state.tracks, key=lambda track: track.ended)[:MAX_REPORT_TRACKS]
    return tuple({track.track: _track(track, state.incarnation) for track in running_first}.values())


def _track(track: TrackState, incarnation: int) -> TrackReport:
    return TrackReport(
        id=f"i{incarnation}-{track.track}"[:128],
        track_id=track.track_id[:128],
        user_id=track.user_id,
        peer_id=track.peer_id,
        source=track.source,
        codec=track.codec[:32],
        muted=track.muted,
        ended=track.ended,
        shed=track.shed and not track.ended,
        packets=track.packets,
        packets_lost=track.lost,
        packets_recovered=track.recovered,
        packets_late=track.late,
        frames=track.frames,
        media_bytes=track.media_bytes,
        key_frame_requests=track.plis,
        size_changes=track.size_changes,
        last_packet_age_seconds=None if track.last_packet_age_ms is None else track.last_packet_age_ms // 1000,
        width=min(max(track.width, 0), 65536),
        height=min(max(track.height, 0), 65536),
    )


def _unrecorded(state: State | None) -> tuple[UnrecordedReport, ...]:
    rows = [
        UnrecordedReport(
            id=row.track_id[:128] or "-",
            user_id=row.user_id,
            source=row.source,
            reason=row.reason[:63],
            message=_cut(row.message, 256),
        )
        for row in (state.unrecorded if state else ())
    ]
    return tuple({row.id: row for row in rows}.values())[:MAX_REPORT_UNRECORDED]


def _file(file: ManifestFile) -> FileReport:
    return FileReport(
        name=file.name,
        output_type=file.output_type,
        user_id=file.user_id,
        peer_id=file.peer_id,
        duration_ms=file.duration_ms,
        bytes=file.bytes,
        start_offset_ms=file.start_offset_ms,
        layer=file.layer,
        part=file.part,
        sha256=file.sha256,
    )


@dataclass(frozen=True, slots=True)
class Ending:
    """How the attempt ended, for the termination message."""

    reason: str
    message: str
    stop_reason: StopReason | None
    delivered: Delivered | None
    files: tuple[ManifestFile, ...]
    epoch_ms: int | None
    call_sid: str
    participants: int


def termination_message(ending: Ending) -> str:
    """The termination message, JSON of at most 4096 bytes."""
    delivered = ending.delivered
    newest_manifest = (delivered.recording or delivered.attempt) if delivered else None
    own = delivered.attempt.manifest if delivered and delivered.attempt else None
    whole = newest_manifest.manifest if newest_manifest else None
    partial = ending.reason == Reason.UPLOADED and whole is not None and not whole.complete
    values: dict[str, object] = {
        "reason": (Reason.PARTIALLY_UPLOADED if partial else ending.reason)[:63],
        "message": _cut(ending.message, 1024),
        "stopReason": ending.stop_reason.value if ending.stop_reason else None,
        "manifestUri": newest_manifest.uri if newest_manifest and len(newest_manifest.uri) <= 2048 else None,
        "manifestDigest": newest_manifest.digest if newest_manifest else None,
        "files": len(whole.files) if whole else len(ending.files),
        "bytes": sum(file.bytes for file in (whole.files if whole else ending.files)),
        "participants": len(whole.participants) if whole else ending.participants,
        "lostMs": whole.lost_ms if whole else lost_ms(ending.files),
        "complete": whole.complete if whole else None,
        "startedAt": own.attempts[-1].started_at if own else None,
        "endedAt": own.attempts[-1].ended_at if own else None,
        "epochMs": ending.epoch_ms,
        "callSid": ending.call_sid[:128] or None,
        **_left_out(whole),
    }
    said = {key: value for key, value in values.items() if value is not None}
    for key in ("", "unrecorded", "message", "callSid", "manifestUri"):
        said.pop(key, None)
        text = json.dumps(said, separators=(",", ":"))
        if len(text) <= TERMINATION_BYTES:  # NB: characters beyond ASCII are six bytes each
            break
    return text


def _left_out(manifest: Manifest | None) -> dict[str, object]:
    """How many tracks are in no file, and the first of them."""
    rows = manifest.unrecorded if manifest else ()
    if not rows:
        return {}
    named = [
        {"userId": _cut(row.user_id, MAX_NAME), "source": row.source.value, "reason": row.reason}
        for row in rows[:MAX_NAMED]
    ]
    return {"unrecorded": named, "unrecordedTracks": len(rows)}


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
