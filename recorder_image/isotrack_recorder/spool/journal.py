"""Journal: what a recorder learned about the call, one JSON object per line, each with its CRC.

A line is `{"e":<event>,"at":<ns>,…,"crc":"<8 hex digits>"}`; the CRC-32 covers the bytes before `,"crc"`. `at` is
CLOCK_MONOTONIC in nanoseconds, as are all `…_ns` fields but `wall_ns` (Unix time). Fields are snake_case and flat.

| event | fields | meaning |
|---|---|---|
| start | version, wall_ns, boot, attempt, recording_uid, tells_written | first line of every journal; pairs wall clock and monotonic clock, and says which boot the latter counts from, and that `written` lines come |
| call | call_id, call_sid | joined; the session of the call is known |
| armed | as start | able to capture (joined, subscribed where anybody is there); after the death of a process, whom this one has not told of by then has left. What start said stands here again, should that line be damaged |
| participant | peer_id, user_id, name, recorded | a session of a person was seen (`recorded`: allowlist); again when `recorded` changes |
| participant_left | peer_id, reason | that session is over: its files can be made, once a later line says that its frames are written |
| written | | after somebody left, or a process died: all frames that were captured before `at` lie in their logs by now |
| track | track, track_id, peer_id, user_id, source, kind | a wanted track got its log `<track>.*.log` |
| codec | track, codec, clock_rate, channels, fmtp | before the first frame, and again when the sender changes codec |
| ssrc | track, ssrc, timestamp | frames from this extended timestamp on come from a new SSRC / timestamp base |
| report | track, ntp, timestamp | RTCP sender report: 64-bit NTP and extended RTP timestamp of one instant; `at` = arrival |
| gap | track, packets, after, before | `packets` were abandoned between the frames with these timestamps |
| size | track, timestamp, width, height, rotation | picture size (pixels, as coded) and rotation (degrees clockwise) from here on |
| level | track, packets, loudest, mean, voiced | loudness of about a second of sound, as its sender states it (-dBov); only where the SFU passes it on |
| muted / unmuted | track | as the SFU announced it |
| shed / unshed | track | not received because the spool is nearly full; frames flow again |
| track_ended | track, reason | unpublished, left, excluded (allowlist: if admitted again, the track gets another log), codec changed (of sound: the track goes on in another log) |
| level | track, packets, loudest, mean, voiced | what packets of sound say of their loudness (RFC 6464), about once a second, where the SFU passes it on |
| unrecorded | track_id, peer_id, user_id, source, reason, message | wanted, but cannot be recorded |
| paused / resumed | | recording paused by its desired state |
| disconnected / reconnected | reason | connection to the SFU lost / whole again |
| counters | track, packets, lost, recovered, late, duplicates, frames, bytes, plis, nacks, key_frames, filler, damaged, size_changes, last_packet_age_ms | running totals, every 5 s and at the end |
| abridged | track | only in a journal's past: reports of this log were left out, for its frames are placed |
| unread | since_ns | never written while recording: behind the line of `since_ns`, some that could not be read; in a journal's past, and made by its reader |
| stop | reason, message, error | capture is over (`StopReason`; `error`: reason of the error tree, where it failed); last line of an orderly journal |
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

VERSION: Final = 1
MAX_LINE_BYTES: Final = 64 * 1024
UNREAD_EVENT: Final = "unread"
_CRC_MEMBER: Final = b',"crc":"'


def encode_line(event: str, at_ns: int, fields: Mapping[str, object]) -> bytes:
    """Build one line, newline included. `fields` must be JSON values; None is left out."""
    body: dict[str, object] = {"e": event, "at": at_ns}
    body.update((key, value) for key, value in fields.items() if value is not None)
    text = json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()[:-1]
    return b'%s,"crc":"%08x"}\n' % (text, zlib.crc32(text))


def decode_line(line: bytes) -> dict[str, Any] | None:
    """Read one line without its newline; None where it is torn, damaged or over long."""
    text, member, crc = line.rpartition(_CRC_MEMBER)
    if not member or len(line) > MAX_LINE_BYTES or crc != b'%08x"}' % zlib.crc32(text):
        return None
    try:
        fields = json.loads(text + b"}")
    except (ValueError, RecursionError):  # not JSON, or nested a thousand deep
        return None
    return fields if isinstance(fields, dict) and "e" in fields and "at" in fields else None


def behind_hole(line: bytes) -> bytes:
    """What of a line lies behind zeros: where a piece of a copy is missing they are in its place, and no line has any."""
    return line.rpartition(b"\0")[2]


def decode_journal(data: bytes) -> Iterator[dict[str, Any]]:
    """Yield the events of a journal up to its first torn or damaged line."""
    for line in data.splitlines(keepends=True):
        event = decode_line(line[:-1]) if line.endswith(b"\n") else None
        if event is None:
            return
        yield event
