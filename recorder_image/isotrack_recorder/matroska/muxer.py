"""Make one Matroska or WebM file as a stream whose head is known last.

    offset 0         HEAD_BYTES      …                           end
    | head           | cluster | cluster | … | cluster           | tail: Cues |

`add` takes frames; `take` hands out what is to be written: the next bytes, and the size of a cluster that was begun in bytes
handed out before. A cluster ends at a video key frame, at 5 s or 4 MiB; behind `settled` the open one begins, before it no
byte changes any more. `finish` makes the Cues and the head: EBML header, Segment with its size, SeekHead, Info with Duration,
Tracks, Tags, and Void up to HEAD_BYTES. So a file can be uploaded while it grows, with its first part last. Clusters have known
sizes; timestamps are whole milliseconds (the only scale that WebM allows). The Cues name a cluster and a track only where a decoder
can begin with what the track has there: players believe them.

All that a file in the making needs to go on is a MuxState: plain data, a few bytes per cluster.
"""

from __future__ import annotations

import hashlib
import struct
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from isotrack_api.base import Container, MediaKind

from . import ids
from .codec_private import OPUS_RATE
from .ebml import element, encode_size, master, real, sint, text, uint, void

HEAD_BYTES: Final = 16 * 1024
_MAX_CLUSTER_MS: Final = 5000
_MAX_CLUSTER_BYTES: Final = 4 * 1024 * 1024
_MAX_TAG_BYTES: Final = 8 * 1024
_MAX_TAG_VALUE_BYTES: Final = 1024
_TAGS_OVERHEAD_BYTES: Final = 12
"""ID and size of Tags, or of one Tag."""
_SEEK_HEAD_BYTES: Final = 128
"""Room for the SeekHead, whose positions depend on what follows it."""
_SEEK_PRE_ROLL_NS: Final = 80_000_000
"""RFC 7845 section 4.6: an Opus decoder needs 80 ms to converge after a seek."""
_LEAST_VOID_BYTES: Final = 16
_DATE_EPOCH_S: Final = 978_307_200
"""2001-01-01T00:00:00Z, where DateUTC counts from."""
_TURNS_TEXT: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Embeddings, overrides and isolates (UAX #9): with them a name could be made to look like another one."""
_MS: Final = 1_000_000
_HALF_MS: Final = _MS // 2
_CLUSTER_HEADER_BYTES: Final = 8
_HEAD: Final = struct.Struct("!BhB").pack
_HEAD_1: Final = struct.Struct("!BBBhB").pack
"""With an element's ID and a size of one byte before it."""
_HEAD_2: Final = struct.Struct("!BHBhB").pack
CODEC_IDS: Final[Mapping[str, str]] = {
    "opus": "A_OPUS",
    "pcmu": "A_MS/ACM",
    "pcma": "A_MS/ACM",
    "g722": "A_MS/ACM",
    "vp8": "V_VP8",
    "vp9": "V_VP9",
    "av1": "V_AV1",
    "h264": "V_MPEG4/ISO/AVC",
    "h265": "V_MPEGH/ISO/HEVC",
}
WEBM_CODECS: Final = frozenset(("opus", "vp8", "vp9", "av1"))


@dataclass(frozen=True, slots=True)
class TrackHeader:
    """What the head says of one track. Read when the file is finished."""

    kind: MediaKind
    codec: str
    """Key of CODEC_IDS."""
    name: str
    private: bytes = b""
    channels: int = 1
    sample_rate: int = OPUS_RATE
    """Of the decoded sound, Hz."""
    width: int = 1
    height: int = 1
    rotation: int = 0
    """Degrees clockwise by which pictures are to be turned for display."""
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FileHeader:
    """What the head says of the file."""

    app: str
    title: str
    date_unix_ns: int
    """Wall clock at the file's zero."""
    seed: str
    """Track UIDs derive from it: equal files get equal ones, different files different ones."""
    tags: Mapping[str, str]


Block = tuple[int, int, int, bytes, bool, bool]
"""One frame, a plain tuple because there is one for every frame: time (ns from the file's zero; one before the track's last is lifted
to it), track number from 1, duration (ns), bytes, whether a decoder can start here, whether a cluster begins here that the Cues
point to (video key frames)."""


class Write(NamedTuple):
    """Bytes for a place in the file."""

    offset: int
    data: bytes


@dataclass(slots=True)
class MuxState:
    """One file in the making, apart from what `Muxer.take` has not handed out."""

    container: Container
    offset: int = HEAD_BYTES
    """End of the file so far, head included."""
    cluster: int | None = None
    """Where the open cluster begins."""
    start_ms: int = 0
    size: int = 0
    """Bytes of the open cluster's content."""
    tracks: int = 0
    """Bit per track that has a frame in the open cluster with which a decoder can begin. One of pictures is the cluster's first."""
    cues: list[tuple[int, int, int]] = field(default_factory=list)
    """Time, offset and tracks (as bits) of each cluster that has any."""
    end_ns: int = 0
    last_ms: dict[int, int] = field(default_factory=dict)
    """Time of the newest frame by track."""


class Muxer:
    """Goes on with a file. Tracks are numbered from 1 in the order of the headers given to `finish`."""

    __slots__ = ("_at", "_header", "_patches", "_pending", "state")

    def __init__(self, state: MuxState) -> None:
        self.state = state
        self._at = state.offset
        self._pending: list[bytes] = []
        self._header: int | None = None
        """Where in `_pending` the open cluster's header lies."""
        self._patches: list[Write] = []

    @property
    def offset(self) -> int:
        """Bytes of the file so far, head included."""
        return self.state.offset

    @property
    def pending(self) -> int:
        """Bytes that `take` would hand out."""
        return self.state.offset - self._at

    @property
    def settled(self) -> int:
        """No byte before it changes any more, but those of the head."""
        return self.state.offset if self.state.cluster is None else self.state.cluster

    @property
    def duration_ms(self) -> int:
        """End of the last frame, in milliseconds."""
        return -(-self.state.end_ns // _MS)

    def add(self, blocks: Iterable[Block]) -> None:
        """Take frames, in the order of their times (of all tracks together)."""
        # One loop over plain numbers, for this is done with every frame: those of the open cluster are put back where it ends.
        state, pending, last = self.state, self._pending.append, self.state.last_ms
        cluster, start_ms, end_ns = state.cluster, state.start_ms, state.end_ns
        before = grown = state.size
        tracks = state.tracks
        for time_ns, track, duration_ns, data, key, cue in blocks:
            time_ms = (time_ns + _HALF_MS) // _MS
            if time_ms < (last_ms := last.get(track, 0)):
                time_ms = last_ms
            size = len(data)
            if cluster is not None:
                if time_ms < start_ms:
                    time_ms = start_ms
                if cue or time_ms - start_ms >= _MAX_CLUSTER_MS or grown + size > _MAX_CLUSTER_BYTES:
                    state.size, state.tracks, state.offset = grown, tracks, state.offset + grown - before
                    self._close_cluster()
                    cluster = None
            if cluster is None:
                self._open_cluster(time_ms)
                cluster, start_ms, tracks = state.cluster, time_ms, 0
                before = grown = state.size
            last[track] = time_ms
            if time_ns + duration_ns > end_ns:
                end_ns = time_ns + duration_ns
            flags = 0
            if key:
                flags = 0x80
                tracks |= 1 << track
            # RFC 9559 section 5.1.3.5.1: size, track number, relative timestamp, flags (0x80 = key frame)
            if size < 0x7F - 4:
                pending(_HEAD_1(0xA3, 0x84 + size, 0x80 | track, time_ms - start_ms, flags))
                grown += size + 6
            elif size < 0x3FFF - 4:
                pending(_HEAD_2(0xA3, 0x4004 + size, 0x80 | track, time_ms - start_ms, flags))
                grown += size + 7
            else:
                head = b"\xa3" + encode_size(size + 4) + _HEAD(0x80 | track, time_ms - start_ms, flags)
                pending(head)
                grown += size + len(head)
            pending(data)
        state.size, state.tracks, state.offset, state.end_ns = grown, tracks, state.offset + grown - before, end_ns

    def take(self) -> list[Write]:
        """Hand out what is to be written now."""
        writes = self._patches
        if self._pending:
            writes.insert(0, Write(self._at, b"".join(self._pending)))
        self._pending, self._patches, self._header, self._at = [], [], None, self.state.offset
        return writes

    def finish(self, header: FileHeader, tracks: Sequence[TrackHeader]) -> bytes:
        """Finish the file: `take` once more, then write the head of HEAD_BYTES, which is returned, at offset 0."""
        self._close_cluster()
        cues_offset = self.state.offset if self.state.cues else None
        if cues_offset is not None:
            cues = self._cue_index()
            self._pending.append(cues)
            self.state.offset += len(cues)
        return self._head(header, tracks, cues_offset)

    def _open_cluster(self, start_ms: int) -> None:
        state = self.state
        state.cluster, state.start_ms, state.tracks = state.offset, start_ms, 0
        timestamp = uint(ids.TIMESTAMP, start_ms)
        state.size = len(timestamp)
        self._header = len(self._pending)
        self._pending += (_cluster_header(0), timestamp)
        state.offset += _CLUSTER_HEADER_BYTES + len(timestamp)

    def _close_cluster(self) -> None:
        state = self.state
        if state.cluster is None:
            return
        header = _cluster_header(state.size)
        if self._header is None:
            self._patches.append(Write(state.cluster, header))
        else:
            self._pending[self._header] = header
        if state.tracks:
            state.cues.append((state.start_ms, state.cluster, state.tracks))
        state.cluster = self._header = None

    def _cue_index(self) -> bytes:
        """One point per cluster, with all tracks that can be begun there."""
        points = []
        segment = _segment(self.state.container)
        for time_ms, offset, tracks in self.state.cues:
            position = uint(ids.CUE_CLUSTER_POSITION, offset - segment)
            places = (
                master(ids.CUE_TRACK_POSITIONS, (uint(ids.CUE_TRACK, track), position))
                for track in range(1, tracks.bit_length())
                if tracks >> track & 1
            )
            points.append(master(ids.CUE_POINT, (uint(ids.CUE_TIME, time_ms), *places)))
        return master(ids.CUES, points)

    def _head(self, header: FileHeader, tracks: Sequence[TrackHeader], cues_offset: int | None) -> bytes:
        segment = _segment(self.state.container)
        start = _start(self.state.container) + encode_size(self.state.offset - segment, 8)
        uids = [_uid(header.seed, number) for number in range(1, len(tracks) + 1)]
        parts = {
            ids.INFO: _info(header, self.duration_ms),
            ids.TRACKS: master(
                ids.TRACKS, [_track(n, uid, track) for n, (uid, track) in enumerate(zip(uids, tracks), 1)]
            ),
        }
        # NB: what a decoder needs goes before what only tells: parameter sets of a hostile sender take most of the head.
        room = HEAD_BYTES - len(start) - _SEEK_HEAD_BYTES - sum(map(len, parts.values())) - _LEAST_VOID_BYTES
        parts[ids.TAGS] = _tags(header, uids, tracks, min(room, _MAX_TAG_BYTES))
        positions: dict[int, int] = {}
        at = len(start) + _SEEK_HEAD_BYTES
        for part_id, data in parts.items():
            positions[part_id] = at - segment
            at += len(data)
        if cues_offset is not None:
            positions[ids.CUES] = cues_offset - segment
        head = start + _seek_head(positions) + b"".join(parts.values())
        return head + void(HEAD_BYTES - len(head))


def _cluster_header(size: int) -> bytes:
    """ID and size, always equally long."""
    return ids.CLUSTER.to_bytes(4, "big") + encode_size(size, 4)


def _start(container: Container) -> bytes:
    """What a file begins with, up to the Segment's size."""
    return ebml_header(container) + ids.SEGMENT.to_bytes(4, "big")


def _segment(container: Container) -> int:
    """Where the Segment's content begins: positions count from here."""
    return len(_start(container)) + 8


def ebml_header(container: Container) -> bytes:
    """The EBML header of either document type."""
    return master(
        ids.EBML,
        (
            uint(ids.EBML_VERSION, 1),
            uint(ids.EBML_READ_VERSION, 1),
            uint(ids.EBML_MAX_ID_LENGTH, 4),
            uint(ids.EBML_MAX_SIZE_LENGTH, 8),
            text(ids.DOC_TYPE, "webm" if container is Container.WEBM else "matroska"),
            uint(ids.DOC_TYPE_VERSION, 4),
            uint(ids.DOC_TYPE_READ_VERSION, 2),
        ),
    )


def _seek_head(positions: Mapping[int, int]) -> bytes:
    """SeekHead, padded to _SEEK_HEAD_BYTES."""
    entries = master(
        ids.SEEK_HEAD,
        (
            master(ids.SEEK, (element(ids.SEEK_ID, part_id.to_bytes(4, "big")), uint(ids.SEEK_POSITION, position)))
            for part_id, position in positions.items()
        ),
    )
    return entries + void(_SEEK_HEAD_BYTES - len(entries))


def _info(header: FileHeader, duration_ms: int) -> bytes:
    return master(
        ids.INFO,
        (
            uint(ids.TIMESTAMP_SCALE, _MS),
            real(ids.DURATION, float(duration_ms)),
            sint(ids.DATE_UTC, header.date_unix_ns - _DATE_EPOCH_S * 1_000_000_000),
            text(ids.TITLE, _cut(header.title, 256)),
            text(ids.MUXING_APP, header.app),
            text(ids.WRITING_APP, header.app),
        ),
    )


def _track(number: int, uid: int, track: TrackHeader) -> bytes:
    audio = track.kind is MediaKind.AUDIO
    parts = [
        uint(ids.TRACK_NUMBER, number),
        uint(ids.TRACK_UID, uid),
        uint(ids.TRACK_TYPE, 2 if audio else 1),
        uint(ids.FLAG_LACING, 0),
        text(ids.LANGUAGE, "und"),
        text(ids.NAME, _cut(track.name, 256)),
        text(ids.CODEC_ID, CODEC_IDS[track.codec]),
    ]
    if track.private:
        parts.append(element(ids.CODEC_PRIVATE, track.private))
    if track.codec == "opus":
        parts += (uint(ids.CODEC_DELAY, 0), uint(ids.SEEK_PRE_ROLL, _SEEK_PRE_ROLL_NS))
    if audio:
        parts.append(
            master(
                ids.AUDIO, (real(ids.SAMPLING_FREQUENCY, float(track.sample_rate)), uint(ids.CHANNELS, track.channels))
            )
        )
    else:
        video = [uint(ids.PIXEL_WIDTH, track.width), uint(ids.PIXEL_HEIGHT, track.height)]
        if track.rotation:
            # Pose roll turns counter-clockwise (RFC 9559 section 5.1.4.1.28.46), the picture is to be turned clockwise.
            roll = float(-track.rotation if track.rotation <= 180 else 360 - track.rotation)
            video.append(master(ids.PROJECTION, (uint(ids.PROJECTION_TYPE, 0), real(ids.PROJECTION_POSE_ROLL, roll))))
        parts.append(master(ids.VIDEO, video))
    return master(ids.TRACK_ENTRY, parts)


def _tags(header: FileHeader, uids: Sequence[int], tracks: Sequence[TrackHeader], room: int) -> bytes:
    """Tags of the file, then of each track, as many as fit into so many bytes."""
    data = b""
    room -= _TAGS_OVERHEAD_BYTES
    for uid, tags in ((0, header.tags), *((uid, track.tags) for uid, track in zip(uids, tracks))):
        targets = master(ids.TARGETS, (uint(ids.TAG_TRACK_UID, uid),) if uid else ())
        simple = b""
        for name, value in tags.items():
            value = tag_value(value)
            one = master(ids.SIMPLE_TAG, (text(ids.TAG_NAME, name), text(ids.TAG_STRING, value)))
            if len(data) + _TAGS_OVERHEAD_BYTES + len(targets) + len(simple) + len(one) <= room:
                simple += one
        if simple:
            data += element(ids.TAG, targets + simple)
    return element(ids.TAGS, data) if data else b""


def tag_value(value: str) -> str:
    """A tag's value as a file holds it."""
    return _cut(value, _MAX_TAG_VALUE_BYTES)


def _is_text(char: str) -> bool:
    """Whether a character may stand in a name. Joiners belong to Persian, to Indic scripts and to emoji; what turns the text around it does not."""
    return char.isprintable() or (unicodedata.category(char) in ("Cf", "Zs") and char not in _TURNS_TEXT)


def _uid(seed: str, number: int) -> int:
    """A track UID: 56 bits (more confuses some players), never 0."""
    digest = hashlib.sha256(f"{seed}/{number}".encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:7], "big") | 1


def _cut(value: str, limit: int) -> str:
    """At most `limit` bytes of UTF-8, control characters replaced."""
    clean = "".join(char if _is_text(char) else "\N{REPLACEMENT CHARACTER}" for char in value)
    return clean.encode("utf-8", "replace")[:limit].decode("utf-8", "ignore")
