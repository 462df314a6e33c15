"""What is read from disks and buckets: record logs, journals, whole spools, checkpoints, Matroska, manifests; and the names of files."""

from __future__ import annotations

import json
import shutil
import struct
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

from fuzz.harness import Harness, parts
from isotrack_api.intent import Intent, LiveKitSource, OutputLayer, RecordingRef
from isotrack_api.manifest import Manifest
from isotrack_api.templates import PLACEHOLDERS, template_error
from isotrack_recorder.errors import ConfigError, ParseError
from isotrack_recorder.finalise.local import finish_local
from isotrack_recorder.finalise.names import MAX_NAME_BYTES, MAX_VALUE_BYTES, encode_value, file_name
from isotrack_recorder.matroska.reader import blocks, read_file
from isotrack_recorder.ship.checkpoint import FIRST, decode_head, digest, encode_head, is_copied
from isotrack_recorder.ship.checkpoint import MAGIC as CHECKPOINT_MAGIC
from isotrack_recorder.ship.layout import Layout
from isotrack_recorder.ship.rebuild import MAX_HOLE_BYTES, fetch, find_runs, follow
from isotrack_recorder.spool import facts
from isotrack_recorder.spool.facts import Folder, SpoolFacts
from isotrack_recorder.spool.journal import decode_journal, decode_line, encode_line
from isotrack_recorder.spool.reader import Spool
from isotrack_recorder.spool.records import HEADER, MAGIC, decode_records, encode_header
from isotrack_recorder.verify.place import parse_manifest
from support.memory_store import MemoryStore

_EVENTS = (
    *("start", "call", "armed", "participant", "participant_left", "track", "codec", "ssrc", "report", "gap", "size"),
    *("muted", "unmuted", "track_ended", "unrecorded", "paused", "resumed", "disconnected", "reconnected", "stop"),
)
_FIELDS = (
    *('"at":', '"wall_ns":', '"peer_id":"PA_a"', '"user_id":"', '"track":"t0001"', '"clock_rate":', '"timestamp":'),
    *('"codec":"h264"', '"codec":"opus"', '"codec":"vp8"', '"kind":"audio"', '"kind":"video"', "9223372036854775807"),
    *("[" * 1500, "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"), "true", "null", "1e400", "-1"),
)
_JOURNAL_TOKENS = tuple(t.encode() for t in (*(f'{{"e":"{name}","at":1' for name in _EVENTS), *_FIELDS))
_CHECKPOINT_TOKENS = tuple(
    token.encode()
    for token in ('"slices":[["', '"i0001/journal.ndjson",0,', '"i0001/t0001.000001.log",', "../", "\n", "null",
                  "1e400", "true", "-1", "9223372036854775807", '"previous":"', '"run":"', '"seq":', '"attempt":', "[" * 1500)
)  # fmt: skip
_EBML_TOKENS = tuple(
    bytes.fromhex(text)
    for text in ("1a45dfa3", "18538067", "1f43b675", "1654ae6b", "ae", "1549a966", "1c53bb6b", "1254c367", "a3", "e7",
                 "01ffffffffffffff", "0100000000000000", "ff", "114d9b74", "4dbb", "7373", "63c0", "67c8")
)  # fmt: skip


def harnesses() -> Iterator[Harness]:
    """All of this module."""
    yield Harness("record-log", fuzz_records)
    yield Harness("journal", fuzz_journal, tokens=_JOURNAL_TOKENS, text=True)
    yield Harness("spool", fuzz_spool, max_bytes=8192, share=0.02, tokens=_JOURNAL_TOKENS)
    yield Harness("checkpoints", fuzz_checkpoints, max_bytes=8192, share=0.05, tokens=_CHECKPOINT_TOKENS)
    yield Harness("matroska", fuzz_matroska, tokens=_EBML_TOKENS)
    yield Harness("manifest", fuzz_manifest, max_bytes=8192, text=True, tokens=(b"[" * 1500, b"null", b"1e400", b"-1"))
    yield Harness("file-names", fuzz_names, max_bytes=1024)


def fuzz_records(data: bytes) -> None:
    """Any bytes behind the magic; and records made of any bytes, cut anywhere, read up to the cut."""
    whole = MAGIC + data
    reached = len(MAGIC)
    for record, end in decode_records(whole):
        assert end == reached + HEADER.size + len(record.frame)
        reached = end
        assert encode_header(*record) == whole[end - len(record.frame) - HEADER.size : end - len(record.frame)]
    assert reached <= len(whole)
    written = b""
    frames = []
    for number, (piece, _) in enumerate(parts(data)):
        frames.append(piece)
        written += encode_header(number * 960 - 1, number, number & 7, piece) + piece
    assert [record.frame for record, _ in decode_records(MAGIC + written)] == frames
    cut = MAGIC + written[: len(written) * (len(data) % 7) // 7]
    assert [record.frame for record, _ in decode_records(cut)] == frames[: sum(1 for _ in decode_records(cut))]


def fuzz_journal(data: bytes) -> None:
    """Lines as they are, and each line with a checksum that fits: facts are folded, whatever an event holds."""
    folder = Folder()
    for event in decode_journal(data):
        folder.add(1, event)
    folder = Folder()
    for number, line in enumerate(data.split(b"\n")):
        fields = decode_line(_with_crc(line))
        if fields is not None:
            folder.add(1 + number // 8, fields)
            _check_round_trip(fields)
    _check_facts(folder.facts)


def _with_crc(line: bytes) -> bytes:
    text = line.rstrip(b"}\r")
    return b'%s,"crc":"%08x"}' % (text, zlib.crc32(text))


def _check_round_trip(event: Mapping[str, Any]) -> None:
    fields = {key: value for key, value in event.items() if key not in ("e", "at", "crc")}
    try:
        line = encode_line(event["e"], event["at"], fields)
    except UnicodeEncodeError:  # lone surrogates: our writer's texts come from decoders, which make none
        return
    again = decode_line(line[:-1])
    assert again is not None or len(line) > 65536
    if again is not None:
        kept = {"e": event["e"], "at": event["at"], **{k: v for k, v in fields.items() if v is not None}}
        assert json.dumps(again, sort_keys=True) == json.dumps(kept, sort_keys=True)


def _check_facts(found: SpoolFacts) -> None:
    assert isinstance(found.zero_ns, int)
    assert len(found.call_id) <= 256
    for track in found.tracks.values():
        assert len(track.reports.arrivals) == len(track.reports.ntps) == len(track.reports.ticks)
        assert all(span.end_ns is None or span.end_ns >= span.start_ns for span in track.mutes)
        assert all(span.codec.clock_rate >= 1000 for span in track.codecs)
        assert all(size.rotation in range(360) for size in track.sizes)
    for peer in found.peers.values():
        assert 0 < len(peer.peer_id) <= 128
        assert 0 < len(peer.user_id) <= 256


# -- whole spools ------------------------------------------------------------------------------------------------------

_RECORD = struct.Struct("!BiI")
"""What a frame of the input begins with: log and flags, ticks, arrival in 1/16 ms."""
_INTENT = Intent(
    recording=RecordingRef(namespace="n", name="r", uid="0123456789abcdef"),
    call_id="c",
    source=LiveKitSource(url="ws://127.0.0.1:7880", identity="rec"),
    layers=(OutputLayer(),),
    folder="n/r",
)
_LONGEST_NS = 600 * 1_000_000_000
_MEMORY = Path("/dev/shm") if Path("/dev/shm").is_dir() else None


def fuzz_spool(data: bytes) -> None:
    """From a spool to files: the first part is the journal, the others are frames. Files and manifest always come out."""
    pieces = parts(data)
    journal, _ = next(pieces, (b"", False))
    place = Path(tempfile.mkdtemp(prefix="fuzz-spool-", dir=_MEMORY))
    try:
        folder = place / "spool" / "i0001"
        folder.mkdir(parents=True)
        lines = [_with_crc(line) + b"\n" for line in journal.split(b"\n") if line]
        (folder / "journal.ndjson").write_bytes(b"".join(lines))
        logs: dict[int, bytes] = {}
        for piece, _ in pieces:
            if len(piece) >= _RECORD.size:
                flags, ticks, arrival = _RECORD.unpack_from(piece)
                frame = piece[_RECORD.size :]
                record = encode_header(ticks, 5_000_000_000_000 + arrival * 62_500, flags >> 4 & 15, frame) + frame
                logs[flags & 3] = logs.get(flags & 3, MAGIC) + record
        for number, content in logs.items():
            (folder / f"t{number:04}.000001.log").write_bytes(content)
        _finish(place)
    finally:
        shutil.rmtree(place)


def _finish(place: Path) -> None:
    with patch.object(facts, "MAX_CALL_NS", _LONGEST_NS):  # silence of days would be correct, and take minutes
        manifest = finish_local(place / "spool", _INTENT, place / "out")
    assert Manifest.model_validate_json((place / "out" / "recording.json").read_bytes()) == manifest
    names = [file.name for file in manifest.files]
    assert len(set(names)) == len(names)
    for file in manifest.files:
        content = (place / "out" / file.name).read_bytes()
        assert len(content) == file.bytes
        found = read_file(content)
        assert len(found.tracks) == len(file.tracks)
        assert abs(found.duration_ms - file.duration_ms) < 1
        count = sum(1 for _ in blocks(content, found))
        assert count >= sum(track.frames for track in file.tracks)
    spool = Spool(place / "spool")
    spool.refresh()
    for key in spool.facts.tracks:
        for _ in spool.frames(key):
            pass


# -- checkpoints -------------------------------------------------------------------------------------------------------

_RUN = "0123456789abcdef"
PAGE_BYTES = 4096
_LAYOUT = Layout("memory", "n/r")


def fuzz_checkpoints(data: bytes) -> None:
    """A head that anybody wrote, with a checksum that fits; and a chain of them: what is rebuilt is no more than what was sent.

    A part of the input is one checkpoint: JSON of the head, a line end, the body. Marked parts are stored as they are.
    """
    for encoded in (data, _sealed(data)):
        try:
            head = decode_head(encoded)
        except ParseError:
            continue
        assert decode_head(encode_head(head)) == head
    store = MemoryStore()
    previous = FIRST
    for seq, (piece, raw) in enumerate(parts(data), 1):
        text, _, body = piece.partition(b"\n")
        encoded = piece if raw else _sealed(_chained(text, body, seq, previous))
        store.objects[_LAYOUT.checkpoint(1, _RUN, seq)] = encoded if raw else encoded + body
        previous = digest(encoded)
    place = Path(tempfile.mkdtemp(prefix="fuzz-checkpoints-", dir=_MEMORY))
    try:
        _rebuild(store, place)
    finally:
        shutil.rmtree(place)


def _rebuild(store: MemoryStore, place: Path) -> None:
    folder = place / "outer" / "spool"
    folder.mkdir(parents=True)
    slices = 0
    for run in find_runs(store.list_objects(_LAYOUT.attempts), _LAYOUT):
        chain = follow(store, _LAYOUT, run, place)
        fetch(store, _LAYOUT, chain, lambda path: folder / path)
        assert chain.length <= len(store.objects)
        slices += sum(len(head.slices) for head, _ in chain.heads())
    made = [path for path in (place / "outer").rglob("*") if path.is_file()]
    assert all(is_copied(path.relative_to(folder).as_posix()) for path in made)
    sent, sizes = sum(map(len, store.objects.values())), [path.stat() for path in made]
    # What is missing leaves holes, which take no room; each slice may begin and end amid a page.
    assert sum(size.st_size for size in sizes) <= sent + slices * MAX_HOLE_BYTES
    assert sum(size.st_blocks * 512 for size in sizes) <= sent + slices * 2 * PAGE_BYTES
    spool = Spool(folder)
    spool.refresh()
    _check_facts(spool.facts)


def _sealed(text: bytes) -> bytes:
    """A head around any text."""
    return CHECKPOINT_MAGIC + len(text).to_bytes(4, "little") + zlib.crc32(text).to_bytes(4, "little") + text


def _chained(text: bytes, body: bytes, seq: int, previous: str) -> bytes:
    """A head that is believed, where that takes only what an attacker can compute."""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if not isinstance(fields, dict):
        return text
    fields |= {"attempt": 1, "run": _RUN, "seq": seq, "previous": previous}
    at = 0
    for row in fields["slices"] if isinstance(fields.get("slices"), list) else []:
        if isinstance(row, list) and len(row) == 4 and isinstance(row[2], int) and 0 < row[2] <= len(body):
            row[3] = zlib.crc32(body[at : at + row[2]])
            at += row[2]
    return json.dumps(fields).encode()


# -- deliverables ------------------------------------------------------------------------------------------------------


def fuzz_matroska(data: bytes) -> None:
    """A file that anybody made: ParseError, or tables that are no larger than it."""
    try:
        found = read_file(data)
        held = sum(len(block.data) for block in blocks(data, found))
    except ParseError:
        return
    assert held <= len(data)
    assert len(found.tracks) <= 128
    assert len(found.clusters) + len(found.cues) <= len(data)


def fuzz_manifest(data: bytes) -> None:
    """A manifest or a ConfigError of one line; what is read reads the same when it is written again."""
    refusal = ""
    try:
        manifest = parse_manifest(data, "place")
        assert parse_manifest(manifest.to_json().encode(), "place") == manifest
    except ConfigError as error:
        refusal = str(error)
    assert len(refusal) < 700
    assert refusal.isprintable(), "names of unknown members come from the file"


def fuzz_names(data: bytes) -> None:
    """A name is one component of a path, ASCII, 255 bytes at most; different values stay different."""
    texts = [piece.decode("utf-8", "surrogatepass" if mark else "replace") for piece, mark in _decodable(data)]
    encoded = {text: encode_value(text) for text in texts}
    assert len(set(encoded.values())) == len(encoded), "two values became one"
    for value in encoded.values():
        assert len(value) <= MAX_VALUE_BYTES
        assert value.isascii()
        assert not set(value) & set('/\\ \x00\n\r:*?"<>|')
    template, *values = texts or [""]
    if template_error(template) is not None:
        template = "{prefix}_{user_id}_{peer_id}_{stream_kind}_{media_kind}"
    name = file_name(template, dict(zip(PLACEHOLDERS, values)), "_p2", "mkv")
    assert name.isascii()
    assert len(name) <= MAX_NAME_BYTES
    assert "/" not in name
    assert not name.startswith(".")
    assert name.endswith("_p2.mkv")


def _decodable(data: bytes) -> Iterator[tuple[bytes, bool]]:
    for piece, mark in parts(data):
        try:
            piece.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            yield piece, False
        else:
            yield piece, mark
