"""Walk a Matroska file that anybody may have made: headers, blocks, cues. For inspection and tests.

Nothing is trusted: sizes are checked against what is there, masters against their parents, and a level holds a bounded
number of elements. A file cut anywhere reads up to the cut.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from isotrack_recorder.errors import ParseError

from . import ids
from .ebml import UNKNOWN_SIZE, Header, read_header, read_real, read_uint

_MAX_ELEMENTS: Final = 10_000_000
_MAX_TRACKS: Final = 128


class Block(NamedTuple):
    """One frame of a SimpleBlock without lacing."""

    track: int
    time_ms: int
    key: bool
    data: bytes
    offset: int
    """Of its cluster in the file."""


class CuePoint(NamedTuple):
    """A place to seek to."""

    time_ms: int
    track: int
    offset: int
    """Of the cluster in the file."""


@dataclass(slots=True)
class TrackInfo:
    """One TrackEntry."""

    number: int = 0
    uid: int = 0
    type: int = 0
    codec_id: str = ""
    private: bytes = b""
    name: str = ""
    channels: int = 1
    width: int = 0
    height: int = 0


@dataclass(slots=True)
class MatroskaFile:
    """What a file's head says, and where its elements lie."""

    doc_type: str = ""
    segment_start: int = 0
    segment_size: int = UNKNOWN_SIZE
    duration_ms: float = 0.0
    date_unix_ns: int | None = None
    app: str = ""
    tracks: list[TrackInfo] = field(default_factory=list)
    tags: dict[int, dict[str, str]] = field(default_factory=dict)
    """Per track UID; 0 = the file."""
    cues: list[CuePoint] = field(default_factory=list)
    seek: dict[int, int] = field(default_factory=dict)
    """Element ID to offset in the file."""
    clusters: list[Header] = field(default_factory=list)


def children(data: memoryview, start: int, end: int) -> Iterator[Header]:
    """Walk the elements between two offsets; ends quietly where one is cut off or does not fit its parent."""
    at = start
    for _ in range(_MAX_ELEMENTS):
        if at >= end:
            return
        try:
            header = read_header(data[:end], at)
        except ParseError:
            return
        if header.size == UNKNOWN_SIZE:
            header = header._replace(size=end - header.start)
        if header.start + header.size > end:
            return
        yield header
        at = header.start + header.size


def read_file(content: bytes | memoryview) -> MatroskaFile:
    """Read everything but the blocks.

    Raises:
        ParseError: This is no Matroska file.
    """
    data = memoryview(content)
    head = read_header(data, 0)
    if head.id != ids.EBML or head.size == UNKNOWN_SIZE or head.start + head.size > len(data):
        raise ParseError("no EBML header")
    found = MatroskaFile()
    for child in children(data, head.start, head.start + head.size):
        if child.id == ids.DOC_TYPE:
            found.doc_type = _string(data, child)
    segment = read_header(data, head.start + head.size)
    if segment.id != ids.SEGMENT:
        raise ParseError("no Segment behind the EBML header")
    found.segment_start, found.segment_size = segment.start, segment.size
    end = len(data) if segment.size == UNKNOWN_SIZE else min(len(data), segment.start + segment.size)
    for child in children(data, segment.start, end):
        _read_top(found, data, child)
    return found


def blocks(content: bytes | memoryview, file: MatroskaFile) -> Iterator[Block]:
    """Walk all SimpleBlocks in file order.

    Raises:
        ParseError: A block is shorter than its header, or laced.
    """
    data = memoryview(content)
    for cluster in file.clusters:
        base = 0
        for child in children(data, cluster.start, cluster.start + cluster.size):
            body = data[child.start : child.start + child.size]
            if child.id == ids.TIMESTAMP:
                base = read_uint(body)
            elif child.id == ids.SIMPLE_BLOCK:
                if len(body) < 4 or not body[0] & 0x80 or body[3] & 0x06:
                    raise ParseError(f"SimpleBlock of {len(body)} bytes at {child.start} is not plain")
                relative = int.from_bytes(body[1:3], "big", signed=True)
                yield Block(body[0] & 0x7F, base + relative, bool(body[3] & 0x80), bytes(body[4:]), cluster.begin)


def _read_top(found: MatroskaFile, data: memoryview, header: Header) -> None:
    end = header.start + header.size
    if header.id == ids.CLUSTER:
        found.clusters.append(header)
    elif header.id == ids.INFO:
        for child in children(data, header.start, end):
            if child.id == ids.DURATION:
                found.duration_ms = read_real(_body(data, child))
            elif child.id == ids.DATE_UTC and child.size == 8:
                since = int.from_bytes(_body(data, child), "big", signed=True)
                found.date_unix_ns = since + 978_307_200_000_000_000
            elif child.id == ids.MUXING_APP:
                found.app = _string(data, child)
    elif header.id == ids.TRACKS:
        entries = (child for child in children(data, header.start, end) if child.id == ids.TRACK_ENTRY)
        found.tracks = [_track(data, entry) for entry, _ in zip(entries, range(_MAX_TRACKS))]
    elif header.id == ids.TAGS:
        _read_tags(found, data, header)
    elif header.id == ids.CUES:
        _read_cues(found, data, header)
    elif header.id == ids.SEEK_HEAD:
        for seek in children(data, header.start, end):
            values = {child.id: _body(data, child) for child in children(data, seek.start, seek.start + seek.size)}
            if ids.SEEK_ID in values and ids.SEEK_POSITION in values and len(values[ids.SEEK_ID]) <= 4:
                position = read_uint(values[ids.SEEK_POSITION])
                found.seek[int.from_bytes(values[ids.SEEK_ID], "big")] = found.segment_start + position


def _track(data: memoryview, entry: Header) -> TrackInfo:
    track = TrackInfo()
    for child in children(data, entry.start, entry.start + entry.size):
        body = _body(data, child)
        if child.id == ids.TRACK_NUMBER:
            track.number = read_uint(body)
        elif child.id == ids.TRACK_UID:
            track.uid = read_uint(body)
        elif child.id == ids.TRACK_TYPE:
            track.type = read_uint(body)
        elif child.id == ids.CODEC_ID:
            track.codec_id = _string(data, child)
        elif child.id == ids.CODEC_PRIVATE:
            track.private = bytes(body)
        elif child.id == ids.NAME:
            track.name = _string(data, child)
        elif child.id in (ids.VIDEO, ids.AUDIO):
            for value in children(data, child.start, child.start + child.size):
                if value.id == ids.PIXEL_WIDTH:
                    track.width = read_uint(_body(data, value))
                elif value.id == ids.PIXEL_HEIGHT:
                    track.height = read_uint(_body(data, value))
                elif value.id == ids.CHANNELS:
                    track.channels = read_uint(_body(data, value))
    return track


def _read_tags(found: MatroskaFile, data: memoryview, header: Header) -> None:
    for tag in children(data, header.start, header.start + header.size):
        uid, values = 0, {}
        for child in children(data, tag.start, tag.start + tag.size):
            parts = {part.id: part for part in children(data, child.start, child.start + child.size)}
            if child.id == ids.TARGETS and ids.TAG_TRACK_UID in parts:
                uid = read_uint(_body(data, parts[ids.TAG_TRACK_UID]))
            elif child.id == ids.SIMPLE_TAG and ids.TAG_NAME in parts and ids.TAG_STRING in parts:
                values[_string(data, parts[ids.TAG_NAME])] = _string(data, parts[ids.TAG_STRING])
        found.tags.setdefault(uid, {}).update(values)


def _read_cues(found: MatroskaFile, data: memoryview, header: Header) -> None:
    for point in children(data, header.start, header.start + header.size):
        time_ms = 0
        for child in children(data, point.start, point.start + point.size):
            if child.id == ids.CUE_TIME:
                time_ms = read_uint(_body(data, child))
            elif child.id == ids.CUE_TRACK_POSITIONS:
                parts = {part.id: part for part in children(data, child.start, child.start + child.size)}
                if ids.CUE_TRACK in parts and ids.CUE_CLUSTER_POSITION in parts:
                    offset = found.segment_start + read_uint(_body(data, parts[ids.CUE_CLUSTER_POSITION]))
                    found.cues.append(CuePoint(time_ms, read_uint(_body(data, parts[ids.CUE_TRACK])), offset))


def _body(data: memoryview, header: Header) -> memoryview:
    return data[header.start : header.start + header.size]


def _string(data: memoryview, header: Header) -> str:
    return bytes(_body(data, header)).rstrip(b"\0").decode("utf-8", "replace")
