"""What happened between two States, in words: the lines that `isotrack record` prints where there is no terminal. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from isotrack_api.base import SpoolLevel
from isotrack_recorder.control import State, TrackState, UnrecordedState

_PHASES = {
    "Joining": "joining",
    "Armed": "joined; waiting for media",
    "Capturing": "recording",
    "Paused": "paused",
    "Reconnecting": "connection to the SFU lost, joining again",
    "Stopped": "stopped",
    "Failed": "failed",
}

_LEVELS = {
    SpoolLevel.CLEAR: "the disk has room again",
    SpoolLevel.FILLING: "the disk fills up: cameras will be left out, then screens, sound last",
    SpoolLevel.CAMERA_SHED: "the disk is nearly full: cameras are left out",
    SpoolLevel.SCREENSHARE_SHED: "the disk is nearly full: only sound is recorded",
    SpoolLevel.FULL: "the disk is full: nothing is recorded until there is room",
}


_WHY = {
    "Encrypted": "end-to-end encrypted",
    "CodecUnsupported": "codec not supported",
    "SubscriptionRefused": "the SFU does not send it",
}


def describe(before: State | None, after: State) -> Iterator[str]:
    """Yield one line per change. Foreign names are printed without control characters and cut."""
    known = {track.track: track for track in before.tracks} if before else {}
    if (line := _describe_spool(before, after)) is not None:
        yield line
    told = {row.track_id for row in before.unrecorded} if before else set()
    for row in after.unrecorded:
        if row.track_id not in told:
            detail = f": {plain(row.message, 80)}" if row.message and row.reason != "Encrypted" else ""
            yield f"{plain(row.user_id)} {row.source}: {why(row)}{detail}"
    for track in after.tracks:
        yield from _describe_track(known.get(track.track), track)
    if before is None or before.phase != after.phase:
        yield f"{_PHASES[after.phase]}{f': {plain(after.message)}' if after.message else ''}"


def _describe_spool(before: State | None, after: State) -> str | None:
    level = after.spool.level if after.spool else SpoolLevel.CLEAR
    was = before.spool.level if before and before.spool else SpoolLevel.CLEAR
    return _LEVELS[level] if level is not was else None


def _describe_track(before: TrackState | None, after: TrackState) -> Iterator[str]:
    label = f"{plain(after.user_id)} {after.source}"
    if after.codec and (before is None or before.codec != after.codec):
        yield f"{label}: {plain(after.codec)}"
    if after.width and (before is None or (before.width, before.height) != (after.width, after.height)):
        yield f"{label}: {after.width}x{after.height}"
    if after.muted != (before.muted if before else False):
        yield f"{label}: {'muted' if after.muted else 'unmuted'}"
    if after.shed != (before.shed if before else False) and not after.ended:
        yield f"{label}: {'not received, the disk is nearly full' if after.shed else 'received again'}"
    if after.ended and not (before and before.ended):
        yield f"{label}: ended after {after.frames} frames, {after.lost} packets lost"


def why(row: UnrecordedState) -> str:
    """What a track is that cannot be recorded."""
    return f"not recorded, {_WHY.get(row.reason) or plain(row.reason)}"


def plain(text: str, limit: int = 40) -> str:
    """Make foreign text fit to print: printable characters only, cut to `limit`."""
    printable = "".join(character if character.isprintable() else "�" for character in text)
    return printable if len(printable) <= limit else printable[: limit - 1] + "…"
