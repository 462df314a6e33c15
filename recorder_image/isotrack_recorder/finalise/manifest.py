"""From facts and files to the manifest, of one attempt and of the whole recording (pure)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from isotrack_api.base import MediaKind
from isotrack_api.intent import Intent
from isotrack_api.manifest import (
    Gap,
    GapReason,
    Manifest,
    ManifestAttempt,
    ManifestFile,
    ManifestParticipant,
    ManifestPeer,
    ManifestTrack,
    StopReason,
    UnrecordedTrack,
)
from isotrack_recorder.checksums import FileDigest
from isotrack_recorder.spool.facts import PeerFacts, SpoolFacts, TrackFacts
from isotrack_recorder.spool.reader import Spool

from .codecs import can_be_written
from .gaps import LOSSES, causes_of, only
from .model import FilePlan, FileResult, LaneResult
from .parts import APP, call_zero_ns
from .summary import summarise

_MAX_FILES: Final = 100_000
_MAX_ROWS: Final = 10_000
_MAX_PEERS: Final = 1000
_MS: Final = 1_000_000


def manifest_file(plan: FilePlan, result: FileResult, digest: FileDigest) -> ManifestFile:
    """Entry of one file that is stored where it belongs."""
    file = ManifestFile(
        name=plan.name,
        attempt=plan.attempt,
        layer=plan.layer,
        output_type=plan.output_type,
        reason=plan.reason,
        part=plan.part,
        container=plan.container,
        user_id=plan.user_id,
        peer_id=plan.peer_id,
        participant_name=plan.participant_name,
        start_offset_ms=plan.start_offset_ms,
        duration_ms=result.duration_ms,
        bytes=result.bytes,
        crc32=f"{digest.crc32:08x}",
        sha256=digest.sha256,
        parts_sha256=digest.parts_sha256,
        part_bytes=digest.part_bytes,
        av_offset_ms=result.av_offset_ms,
        tracks=tuple(_track(lane) for lane in result.lanes),
    )
    return file.model_copy(update={"summary": summarise(file)})


def build_manifest(spool: Spool, intent: Intent, files: Iterable[ManifestFile]) -> Manifest:
    """What one attempt made, as its spool knows it."""
    facts = spool.facts
    zero = call_zero_ns(facts, intent)
    entries = sorted(files, key=lambda file: (file.start_offset_ms, file.name))[:_MAX_FILES]
    unrecorded = _unrecorded(facts)
    end = facts.stop.at_ns if facts.stop is not None else facts.last_ns
    reason = facts.stop.reason if facts.stop is not None else StopReason.INTERNAL_ERROR
    message = facts.stop.message if facts.stop is not None else "capture ended without a word; files end where it did"
    damage = spool.damage()
    message = "; ".join(filter(None, (message, damage)))[:512]
    last_ms = max((file.start_offset_ms + file.duration_ms for file in entries), default=0)
    started = facts.started_ns if facts.armed_ns is None else facts.armed_ns
    return Manifest(
        generator=APP,
        recording=intent.recording,
        call_id=intent.call_id,
        call_sid=facts.call_sid,
        started_at=_timestamp(zero + facts.wall_offset_ns),
        duration_ms=max(_ms(end - zero), last_ms),  # a journal that is torn ends before its frames do
        complete=facts.stop is not None and not unrecorded and not damage,
        stop_reason=reason,
        message=message,
        lost_ms=lost_ms(entries),
        attempts=(
            ManifestAttempt(
                n=intent.attempt,
                started_at=_timestamp(started + facts.wall_offset_ns),
                ended_at=_timestamp(end + facts.wall_offset_ns),
                stop_reason=reason,
                message=message,
            ),
        ),
        participants=_participants(facts, zero),
        files=tuple(entries),
        unrecorded=unrecorded,
    )


def merge_manifests(manifests: Sequence[Manifest]) -> Manifest:
    """Make the recording's manifest of its attempts' manifests.

    The last attempt says how the recording ended; all attempts share the timeline of the first.

    Raises:
        ValueError: No manifest was given.
    """
    if not manifests:
        raise ValueError("no attempt left a manifest")
    ordered = sorted(manifests, key=lambda manifest: max(attempt.n for attempt in manifest.attempts))
    first, last = ordered[0], ordered[-1]
    attempts = {attempt.n: attempt for manifest in ordered for attempt in manifest.attempts}
    files = {(file.attempt, file.name): file for manifest in ordered for file in manifest.files}
    unrecorded = dict.fromkeys(track for manifest in ordered for track in manifest.unrecorded)
    entries = sorted(files.values(), key=lambda file: (file.start_offset_ms, file.name))[:_MAX_FILES]
    return first.model_copy(
        update={
            "generator": last.generator,
            "call_sid": first.call_sid or last.call_sid,
            "duration_ms": max(manifest.duration_ms for manifest in ordered),
            "complete": all(manifest.complete for manifest in ordered),
            "stop_reason": last.stop_reason,
            "message": last.message,
            "lost_ms": lost_ms(entries),
            "attempts": tuple(attempts[n] for n in sorted(attempts)),
            "participants": _merge_participants(ordered),
            "unfinished": None,
            "files": tuple(entries),
            "unrecorded": tuple(unrecorded)[:_MAX_ROWS],
        }
    )


def with_files(manifest: Manifest, files: Iterable[ManifestFile]) -> Manifest:
    """Add files; one that is there already stays as it is: it was delivered by who captured it, and may be more than was made of a part."""
    every = {(file.attempt, file.name): file for file in (*files, *manifest.files)}
    entries = sorted(every.values(), key=lambda file: (file.start_offset_ms, file.name))[:_MAX_FILES]
    last = max((file.start_offset_ms + file.duration_ms for file in entries), default=0)
    changes = {
        "files": tuple(entries),
        "lost_ms": lost_ms(entries),
        "duration_ms": max(manifest.duration_ms, last),
    }
    return manifest.model_copy(update=changes)


def lost_ms(files: Iterable[ManifestFile]) -> int:
    """Sum of what was lost over all tracks, each moment of a track once however many files hold it."""
    gaps: dict[tuple[str, str, str], list[Gap]] = {}
    for file in files:
        for track in file.tracks:
            rows = gaps.setdefault((file.peer_id, track.source, track.track_id), [])
            rows += (gap for gap in track.gaps if gap.reason in LOSSES and gap.duration_ms)
    return sum(_missing_ms(rows) for rows in gaps.values())


def _missing_ms(gaps: list[Gap]) -> int:
    """How much is missing in gaps that may overlap; of one that overlaps what came before, its share."""
    total, reached = 0, 0
    for gap in sorted(gaps, key=lambda gap: (gap.start_ms, gap.duration_ms)):
        end = gap.start_ms + gap.duration_ms
        further = max(0, end - max(gap.start_ms, reached))
        total += further * gap.counted_ms // gap.duration_ms
        reached = max(reached, end)
    return total


def _track(lane: LaneResult) -> ManifestTrack:
    return ManifestTrack(
        track_id=lane.track_id,
        source=lane.source,
        kind=lane.kind,
        codec=lane.codec,
        start_ms=lane.start_ms,
        end_ms=lane.end_ms,
        frames=lane.frames,
        key_frames=lane.key_frames,
        packets=lane.packets,
        packets_lost=lane.packets_lost,
        packets_recovered=lane.packets_recovered,
        media_bytes=lane.media_bytes,
        silence_ms=lane.silence_ms,
        overlap_ms=lane.overlap_ms,
        drift_ppm=lane.drift_ppm,
        clock=lane.clock,
        sizes=lane.sizes,
        gaps=lane.gaps,
    )


def _participants(facts: SpoolFacts, zero: int) -> tuple[ManifestParticipant, ...]:
    by_user: dict[str, list[PeerFacts]] = {}
    for peer in facts.peers.values():
        by_user.setdefault(peer.user_id, []).append(peer)
    return tuple(
        ManifestParticipant(
            user_id=user_id,
            name=next((peer.name for peer in reversed(peers) if peer.name), ""),
            recorded=any(peer.recorded for peer in peers),
            peers=tuple(
                ManifestPeer(
                    peer_id=peer.peer_id,
                    joined_ms=_ms(peer.joined_ns - zero),
                    left_ms=None if peer.left_ns is None else _ms(peer.left_ns - zero),
                )
                for peer in peers[:_MAX_PEERS]
            ),
        )
        for user_id, peers in list(by_user.items())[:_MAX_ROWS]
    )


def _merge_participants(manifests: Sequence[Manifest]) -> tuple[ManifestParticipant, ...]:
    """One row per person; a session that several attempts saw joined when the first saw it, left when the last did.

    One that the next attempt did not find in the call left between the two, at the latest as that one was in it.
    """
    rows: dict[str, ManifestParticipant] = {}
    for manifest in manifests:
        present = {peer.peer_id for row in manifest.participants for peer in row.peers}
        if present:  # NB: an attempt that never was in the call knows of nobody
            since_ms = _since_ms(manifests[0].started_at, manifest.attempts[0].started_at)
            rows = {user_id: _without_absent(row, present, since_ms) for user_id, row in rows.items()}
        for row in manifest.participants:
            known = rows.get(row.user_id)
            if known is None:
                rows[row.user_id] = row
                continue
            peers = {peer.peer_id: peer for peer in known.peers}
            for peer in row.peers:
                earlier = peers.get(peer.peer_id)
                joined = peer.joined_ms if earlier is None else min(peer.joined_ms, earlier.joined_ms)
                peers[peer.peer_id] = peer.model_copy(update={"joined_ms": joined})
            rows[row.user_id] = row.model_copy(
                update={
                    "name": row.name or known.name,
                    "recorded": row.recorded or known.recorded,
                    "peers": tuple(peers.values())[:_MAX_PEERS],
                }
            )
    return tuple(rows.values())[:_MAX_ROWS]


def _without_absent(row: ManifestParticipant, present: Collection[str], since_ms: int) -> ManifestParticipant:
    """A row whose sessions ended if they are not in the call any more."""
    peers = tuple(
        peer.model_copy(update={"left_ms": max(peer.joined_ms, since_ms)})
        if peer.left_ms is None and peer.peer_id not in present
        else peer
        for peer in row.peers
    )
    return row.model_copy(update={"peers": peers})


def _since_ms(zero: str, moment: str) -> int:
    since = datetime.fromisoformat(moment) - datetime.fromisoformat(zero)
    return max(0, since // timedelta(milliseconds=1))


def _unrecorded(facts: SpoolFacts) -> tuple[UnrecordedTrack, ...]:
    """What the journal says could not be recorded, and tracks that sent packets without one usable frame."""
    rows = [
        UnrecordedTrack(
            user_id=row.user_id,
            peer_id=row.peer_id,
            track_id=row.track_id,
            source=row.source,
            reason=row.reason,
            message=row.message,
        )
        for row in facts.unrecorded
    ]
    for track in facts.tracks.values():
        found = _why_empty(facts, track)
        if found is not None:
            reason, message = found
            rows.append(
                UnrecordedTrack(
                    user_id=track.user_id,
                    peer_id=track.peer_id,
                    track_id=track.track_id,
                    source=track.source,
                    reason=reason,
                    message=message,
                )
            )
    return tuple(dict.fromkeys(rows))[:_MAX_ROWS]


def _why_empty(facts: SpoolFacts, track: TrackFacts) -> tuple[str, str] | None:
    if track.codecs and not any(can_be_written(span.codec, track.kind) for span in track.codecs):
        return "CodecUnsupported", f"{track.codecs[0].codec.name[:32]} cannot be written to a file"
    end_ns = facts.session_end_ns(track.peer_id) if track.ended_ns is None else track.ended_ns
    if not track.codecs and any(only((GapReason.SHED,), track.opened_ns, end_ns, causes_of(facts, (track,)))):
        return "Shed", "the recorder's disk was nearly full for as long as the track lasted"
    counted = track.counters
    # Sound may be all silence that the SFU made up while the track was muted: nothing is missing then.
    received = counted.get("packets", 0) - counted.get("filler", 0)
    if counted.get("frames", 1) == 0 and received > 0 and not (track.kind is MediaKind.AUDIO and track.mutes):
        return "NoMedia", f"{received} packets arrived, but no frame that a decoder could begin with"
    return None


def _timestamp(unix_ns: int) -> str:
    """RFC 3339 in UTC with milliseconds."""
    ms = unix_ns // _MS
    return f"{datetime.fromtimestamp(ms // 1000, UTC):%Y-%m-%dT%H:%M:%S}.{ms % 1000:03}Z"


def _ms(ns: int) -> int:
    return max(0, (ns + _MS // 2) // _MS)
