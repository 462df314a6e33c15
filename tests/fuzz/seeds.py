"""Write the corpus anew: `python -m fuzz.seeds`. Real encoders make the media, our own builders what lies around it.

What the fuzzer found and what was then mended stays beside these files under a name of its own; this program leaves it
alone. Encoded media differs a little from one version of an encoder to the next: look at the difference before you commit.
"""

from __future__ import annotations

import json
import struct
import sys
import zlib
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from livekit.protocol import models, rtc

from isotrack_api.base import TrackSource
from isotrack_recorder.control import Command, Hello, State, TrackState, UnrecordedState, encode
from isotrack_recorder.matroska import ids
from isotrack_recorder.rtp.packet import Packet, build_packet
from isotrack_recorder.rtp.rtcp import ReportBlock, build_receiver_reports
from isotrack_recorder.spool.records import MAGIC, encode_header
from support.manifests import a_file

from .harness import CORPUS, join
from .targets import states

Seeds = Iterator[tuple[str, bytes]]
OFFERS = Path(__file__).parent.parent / "unit" / "webrtc" / "offers"


def main() -> int:
    """Write all seeds."""
    makers = {
        "rtp": rtp, "rtp-extensions": rtp_extensions, "rtcp": rtcp, "plane": plane, "sdp": sdp, "record-log": record_log,
        "livekit-signalling": signalling, "livekit-refusal": refusal, "control": control, "termination": termination,
        "journal": journal, "spool": spool, "checkpoints": checkpoints, "matroska": matroska, "manifest": manifest, "session-state": states.states, "ledger": ledger, "file-names": file_names,
        "codec-opus": opus, "codec-pcmu": pcm, "codec-pcma": pcm, "codec-g722": pcm, "codec-vp8": vp8, "codec-vp9": vp9,
        "codec-h264": h264, "codec-h265": h265, "codec-av1": av1, "h264-sps": h264_sps, "annex-b": annex_b,
        "opus-toc": opus_toc, "private-h264": private_h264, "private-h265": private_h265, "private-vp9": private_vp9,
        "private-av1": private_av1,
    }  # fmt: skip
    for name, maker in makers.items():
        folder = CORPUS / name
        folder.mkdir(parents=True, exist_ok=True)
        for title, data in maker():
            (folder / title).write_bytes(data)
            sys.stdout.write(f"{name}/{title} {len(data)}\n")
    return 0


# -- media -------------------------------------------------------------------------------------------------------------


def encoded(encoder: str, count: int = 3, width: int = 64, height: int = 48) -> list[bytes]:
    """Small pictures; the first one is a key frame."""
    options = {
        "libvpx": {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"},
        "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"},
        "libx264": {"preset": "ultrafast", "tune": "zerolatency", "profile": "baseline"},
        "libx265": {"preset": "ultrafast", "tune": "zerolatency", "x265-params": "log-level=none:info=0"},
        "libsvtav1": {"preset": "12", "svtav1-params": "pred-struct=1:lookahead=0"},
    }
    context: Any = av.CodecContext.create(encoder, "w")
    context.width, context.height, context.pix_fmt = width, height, "yuv420p"
    context.time_base, context.framerate = Fraction(1, 30), Fraction(30)
    context.gop_size = 30
    context.options = options[encoder]
    packets: list[bytes] = []
    for number in range(count):
        picture = np.full((height * 3 // 2, width), 128, np.uint8)
        picture[:height] = (np.arange(width) * 3 + 16 * number) % 256
        frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
        frame.pts, frame.time_base = number, Fraction(1, 30)
        packets += (bytes(packet) for packet in context.encode(frame))
    packets += (bytes(packet) for packet in context.encode(None))
    return packets


def frames(fmtp: str, *pictures: Sequence[bytes]) -> bytes:
    """Input of a depacketizer's harness: format parameters, then the payloads of each picture."""
    pieces, ends = [fmtp.encode()], set()
    for payloads in pictures:
        pieces += payloads
        ends.add(len(pieces) - 1)
    return join(*pieces, marked=frozenset(ends))


def cut(data: bytes, size: int) -> list[bytes]:
    """Pieces of `size` bytes."""
    return [data[at : at + size] for at in range(0, len(data), size)]


def units(annex_b: bytes) -> list[bytes]:
    """NAL units of a stream with start codes of any length."""
    return [unit.rstrip(b"\0") for unit in annex_b.split(b"\0\0\1") if unit.rstrip(b"\0")]


def opus() -> Seeds:
    yield "speech", frames("minptime=10;useinbandfec=1", [b"\x78" + bytes(range(60))], [b"\xf8\xff\xfe"])
    yield "mute-silence", frames("", [b"\xf8\xff\xfe" + bytes(77)])


def opus_toc() -> Seeds:
    yield "code-0", b"\x78abc"
    yield "code-3-six-frames", b"\x7b\x06abc"


def pcm() -> Seeds:
    yield "20-ms", frames("", [bytes(range(160))], [bytes(160)])


def vp8() -> Seeds:
    key, delta, *_ = encoded("libvpx")
    first = [
        b"\x90\x80\x81\x23" + piece if n == 0 else b"\x80\x80\x81\x23" + piece for n, piece in enumerate(cut(key, 400))
    ]
    yield "key-and-delta", frames("", first, [b"\x10" + delta])
    yield "temporal-layers", frames("", [b"\x90\xf0\x81\x23\x07\x45" + delta])
    yield "filler", frames("", [b"\x10\x10\x00\x00\x9d\x01\x2a\x08\x00\x08\x00" + bytes(8)])


def vp9() -> Seeds:
    key, delta, *_ = encoded("libvpx-vp9")
    head = bytes((0x8A, 0x81, 0x23))  # I, B, V; 15-bit picture id
    structure = bytes((0x18, 0, 64, 0, 48, 1, 0x04, 1))  # one layer with its size, a picture group of one
    pieces = cut(key, 300)
    payloads = [head + structure + pieces[0]] + [b"\x80\x81\x23" + piece for piece in pieces[1:]]
    yield "key-and-delta", frames("profile-id=0", payloads, [b"\xcc\x81\x24" + delta])
    yield "two-spatial-layers", frames("", [b"\xac\x81\x23\x00\x01" + key], [b"\xbd\x81\x23\x03\x02\x02" + delta])


def h264() -> Seeds:
    key, delta, *_ = encoded("libx264")
    all_units = units(key)
    sets = [unit for unit in all_units if unit[0] & 31 in (7, 8)]
    picture = next(unit for unit in all_units if unit[0] & 31 == 5)
    stap = b"\x78" + b"".join(len(unit).to_bytes(2, "big") + unit for unit in sets)
    yield "single-units", frames("packetization-mode=0", [*sets, picture], units(delta))
    pieces = cut(picture[1:], 200)
    fragments = [
        bytes((picture[0] & 0xE0 | 28, (number == 0) << 7 | (number == len(pieces) - 1) << 6 | 5)) + piece
        for number, piece in enumerate(pieces)
    ]
    yield "stap-a-and-fu-a", frames("packetization-mode=1", [stap, *fragments], units(delta))
    yield "sets-in-fmtp", frames("sprop-parameter-sets=Z0LAC9oPCR4QAAADABAAAAMDyPFCqg==,aM4PyA==", [picture])


def h264_sps() -> Seeds:
    for profile in ("baseline", "high"):
        context = av.CodecContext.create("libx264", "w")
        context.width, context.height, context.pix_fmt = 64, 48, "yuv420p"
        context.time_base = Fraction(1, 30)
        context.options = {"preset": "medium", "profile": profile, "tune": "zerolatency"}
        picture = av.VideoFrame.from_ndarray(np.full((72, 64), 99, np.uint8), format="yuv420p")
        stream = b"".join(bytes(packet) for packet in (*context.encode(picture), *context.encode(None)))
        yield profile, next(unit for unit in units(stream) if unit[0] & 31 == 7)


def annex_b() -> Seeds:
    yield "key-frame", encoded("libx264")[0]
    yield "h265-key-frame", encoded("libx265")[0][:1200]


def private_h264() -> Seeds:
    yield "key-frame", b"".join(b"\0\0\0\1" + unit for unit in units(encoded("libx264")[0]) if unit[0] & 31 != 6)


def private_h265() -> Seeds:
    yield "key-frame", b"".join(b"\0\0\0\1" + unit for unit in units(encoded("libx265")[0]))


def private_vp9() -> Seeds:
    yield "key-frame", encoded("libvpx-vp9")[0]


def private_av1() -> Seeds:
    yield "key-frame", encoded("libsvtav1")[0]


def h265() -> Seeds:
    key, delta, *_ = encoded("libx265")
    all_units = units(key)
    sets = [unit for unit in all_units if unit[0] >> 1 & 63 in (32, 33, 34)]
    picture = next(unit for unit in all_units if unit[0] >> 1 & 63 in (19, 20, 21))
    aggregate = b"\x60\x01" + b"".join(len(unit).to_bytes(2, "big") + unit for unit in sets)
    kind, pieces = picture[0] >> 1 & 63, cut(picture[2:], 200)
    fragments = [
        bytes((49 << 1, picture[1], (number == 0) << 7 | (number == len(pieces) - 1) << 6 | kind)) + piece
        for number, piece in enumerate(pieces)
    ]
    yield "single-units", frames("", [*sets, picture], [unit for unit in units(delta) if unit[0] >> 1 & 63 < 32])
    yield "aggregated-and-fragmented", frames("", [aggregate, *fragments])


def av1() -> Seeds:
    key, *more = encoded("libsvtav1")
    found = list(_obus(key))
    elements = [bytes((unit[0] & ~2,)) + payload for unit, payload in found if unit[0] >> 3 & 15 != 2]
    body = b"".join(_leb128(len(element)) + element for element in elements)
    yield "key-frame", frames("profile=0", [b"\x08" + body])
    half = len(elements[-1]) // 2
    start = b"".join(_leb128(len(e)) + e for e in elements[:-1])
    yield (
        "fragmented",
        frames("", [b"\x48" + start + _leb128(half) + elements[-1][:half], b"\x90" + elements[-1][half:]]),
    )
    for picture in more[:1]:
        rest = [bytes((unit[0] & ~2,)) + payload for unit, payload in _obus(picture) if unit[0] >> 3 & 15 != 2]
        yield "key-and-delta", frames("", [b"\x08" + body], [b"\x10" + b"".join(rest[:1])])


def _obus(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Header and payload of each OBU of a low-overhead stream (AV1 specification section 5.3)."""
    at = 0
    while at < len(data):
        head = 2 if data[at] & 4 else 1
        size, shift, position = 0, 0, at + head
        while True:
            size |= (data[position] & 0x7F) << shift
            position, shift = position + 1, shift + 7
            if not data[position - 1] & 0x80:
                break
        yield data[at : at + head], data[position : position + size]
        at = position + size


def _leb128(value: int) -> bytes:
    out = bytearray()
    while True:
        out.append(value & 0x7F | (0x80 if value > 0x7F else 0))
        value >>= 7
        if not value:
            return bytes(out)


# -- packets -----------------------------------------------------------------------------------------------------------


def rtp() -> Seeds:
    packet = Packet(111, 4711, 960, 0xCAFE, True, {}, b"\x78payload")
    yield "plain", build_packet(packet)
    yield "padded", build_packet(packet, padding=4)
    yield "one-byte-extensions", build_packet(packet._replace(extensions={1: b"0", 3: b"\x12\x34"}))
    yield "two-byte-extensions", build_packet(packet._replace(extensions={1: b"", 200: bytes(40)}))
    yield "extension-0-with-length", b"\x90\x6f" + build_packet(packet)[2:12] + b"\xbe\xde\x00\x01\x01ab\x00payload"
    yield "contributing-sources", b"\x83" + build_packet(packet)[1:12] + bytes(12) + b"payload"


def rtp_extensions() -> Seeds:
    for title, data in rtp():
        yield title, b"\x05" + data


def rtcp() -> Seeds:
    report = struct.pack("!BBHLQLLL", 0x80, 200, 6, 0xCAFE, 0xE0000000_80000000, 12345, 100, 5000)
    goodbye = struct.pack("!BBHLL", 0x82, 203, 2, 0xCAFE, 0xBEEF)
    description = next(build_receiver_reports(7, [ReportBlock(1, 2, 3, 4, 5, 6, 7)], "cname"))
    yield "sender-report", report
    yield "compound", report + description + goodbye


def _operation(kind: int, wait: int, body: bytes) -> bytes:
    return bytes((wait << 4 | kind,)) + body


def _media(line: int, payload_type: int, step: int, ticks: int, flags: int, payload: bytes, kind: int = 0) -> bytes:
    return _operation(kind, 2, struct.pack("!BBbhB", line, payload_type, step, ticks, flags) + payload)


def plane() -> Seeds:
    key = b"\x90\x80\x81\x23" + encoded("libvpx")[0][:300]
    report = _operation(12, 1, struct.pack("!QLLL", 0xE0000000_80000000, 960, 1, 1))
    sound = [_media(0, 0, 1, 960, 0, b"\x78" + bytes(20)) for _ in range(4)]
    yield "sound-and-reports", join(*sound[:2], report, *sound[2:])
    yield "video", join(_media(1, 0, 1, 3000, 1, key), _media(1, 0, 1, 3000, 1, b"\x90\x80\x81\x24\x11abc"))
    yield (
        "loss-and-repair",
        join(_media(1, 0, 1, 3000, 1, key), _media(1, 0, 2, 3000, 1, key), _media(1, 0, -1, 0, 1, key, kind=9), report),
    )
    yield "found-by-mid", join(_media(2, 0, 1, 3000, 1, key), _media(2, 1, 1, 3000, 1, key))
    yield "rebound", join(*sound[:1], _operation(13, 0, b"\x06"), *sound[1:2], _operation(13, 9, b"\x07"), *sound[2:])
    yield "unwanted", join(*sound[:1], _operation(14, 0, b"\x00"), *sound[1:2], _operation(14, 3, b"\x01"), *sound[2:])
    yield "goodbye", join(*sound, _operation(11, 0, struct.pack("!BBHL", 0x81, 203, 1, 1000)), _operation(15, 5, b""))


# -- signalling --------------------------------------------------------------------------------------------------------


def sdp() -> Seeds:
    for path in sorted(OFFERS.glob("*.sdp")):
        yield path.stem, path.read_bytes()
    yield (
        "smallest",
        (
            b"v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n"
            b"m=audio 9 UDP/TLS/RTP/SAVPF 111 63\r\na=mid:0\r\na=sendonly\r\na=rtpmap:111 opus/48000/2\r\n"
            b"a=fmtp:111 minptime=10\r\na=rtcp-fb:111 nack\r\na=rtpmap:63 red/48000/2\r\na=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid\r\n"
            b"m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\na=mid:1\r\na=rtpmap:96 VP8/90000\r\na=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n"
            b"a=ssrc-group:FID 1 2\r\na=ssrc:1 cname:a\r\na=ssrc:2 cname:a\r\na=msid:s t\r\n"
        ),
    )
    yield (
        "many-codecs",
        (
            b"v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96 98 100 102 45\r\na=mid:v\r\na=rtpmap:96 VP8/90000\r\na=rtpmap:98 VP9/90000\r\n"
            b"a=fmtp:98 profile-id=2\r\na=rtpmap:100 H264/90000\r\na=fmtp:100 packetization-mode=1\r\na=rtpmap:102 H265/90000\r\n"
            b"a=rtpmap:45 AV1/90000\r\na=rtcp-fb:* nack pli\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:d\r\na=sctp-port:5000\r\n"
        ),
    )


def signalling() -> Seeds:
    track = models.TrackInfo(
        sid="TR_a", type=models.TrackType.AUDIO, source=models.TrackSource.MICROPHONE, mime_type="audio/opus"
    )
    alice = models.ParticipantInfo(sid="PA_a", identity="alice", name="Alice", version=1, tracks=[track])
    join_ = rtc.SignalResponse(
        join=rtc.JoinResponse(
            room=models.Room(sid="RM_1", name="standup"),
            participant=models.ParticipantInfo(sid="PA_rec", identity="rec"),
            other_participants=[alice],
        )
    )
    share = models.TrackInfo(
        sid="TR_s", type=models.TrackType.VIDEO, source=models.TrackSource.SCREEN_SHARE, muted=True
    )
    bob = models.ParticipantInfo(sid="PA_b", identity="bob", tracks=[share])
    gone = models.ParticipantInfo(sid="PA_a", identity="alice", version=9, state=models.ParticipantInfo.DISCONNECTED)
    updates = [rtc.SignalResponse(update=rtc.ParticipantUpdate(participants=people)) for people in ([bob], [gone])]
    mute = rtc.SignalResponse(mute=rtc.MuteTrackRequest(sid="TR_a", muted=True))
    leave = rtc.SignalResponse(leave=rtc.LeaveRequest(reason=models.DisconnectReason.ROOM_DELETED))
    refused = rtc.SignalResponse(
        subscription_response=rtc.SubscriptionResponse(
            track_sid="TR_a", err=models.SubscriptionError.SE_CODEC_UNSUPPORTED
        )
    )
    messages = [message.SerializeToString() for message in (join_, *updates, mute, refused, leave)]
    yield "join", join(messages[0])
    yield "whole-call", join(*messages)
    yield "joined-twice", join(messages[0], messages[1], messages[0])


def refusal() -> Seeds:
    yield "token-expired", (401).to_bytes(2, "big") + b"invalid token: validation failed, token is expired (exp)"
    yield "no-room", (404).to_bytes(2, "big") + b"requested room does not exist"


# -- messages ----------------------------------------------------------------------------------------------------------


def control() -> Seeds:
    yield "hello", encode(Hello(role="recorder", incarnation=2))
    yield "command", encode(Command(desired="Stopped", user_ids=("alice", "bob")))
    row = TrackState(
        track="t0001", track_id="TR_a", user_id="alice", peer_id="PA_a", source=TrackSource.CAMERA, codec="vp8"
    )
    yield "state", encode(State(phase="Capturing", participants=2, tracks=(row,), call_sid="RM_1"))
    left_out = UnrecordedState(track_id="TR_x", user_id="bob", source=TrackSource.CAMERA, reason="Encrypted")
    yield "unrecorded", encode(State(phase="Armed", participants=2, unrecorded=(left_out,)))


def termination() -> Seeds:
    words = {"reason": "Requested", "message": "m", "stopReason": "CallEnded", "files": 2, "bytes": 10, "complete": True,
             "endedAt": "2026-01-02T03:04:05Z", "manifestUri": "s3://b/k", "manifestDigest": "sha256:00", "lostMs": 0}  # fmt: skip
    yield "finished", json.dumps(words).encode()
    row = {"userId": "alice", "source": "camera", "reason": "CodecUnsupported"}
    left_out = {"complete": False, "unrecorded": [row], "unrecordedTracks": 1}
    yield "unrecorded", json.dumps({"reason": "PartiallyUploaded", **left_out}).encode()


# -- files -------------------------------------------------------------------------------------------------------------


def record_log() -> Seeds:
    rows = [(960 * number, 20_000_000 * number, 1, b"\xf8\xff\xfe") for number in range(3)]
    yield "three-records", b"".join(encode_header(*row) + row[3] for row in rows)
    yield "three-frames", join(b"one", b"", b"three")


JOURNAL = """\
{"e":"start","at":5000000000000,"version":1,"wall_ns":1760000000000000000,"attempt":1,"recording_uid":"0123"}
{"e":"call","at":5000000000000,"call_id":"c","call_sid":"RM_1"}
{"e":"armed","at":5000000000000}
{"e":"participant","at":5000100000000,"peer_id":"PA_a","user_id":"alice","name":"Alice","recorded":true}
{"e":"track","at":5000100000000,"track":"t0001","track_id":"TR_a","peer_id":"PA_a","user_id":"alice","source":"microphone","kind":"audio"}
{"e":"codec","at":5000100000000,"track":"t0001","codec":"opus","clock_rate":48000,"channels":2,"fmtp":""}
{"e":"ssrc","at":5000110000000,"track":"t0001","ssrc":1,"timestamp":960}
{"e":"track","at":5000100000000,"track":"t0002","track_id":"TR_v","peer_id":"PA_a","user_id":"alice","source":"camera","kind":"video"}
{"e":"codec","at":5000100000000,"track":"t0002","codec":"vp8","clock_rate":90000,"channels":1,"fmtp":""}
{"e":"ssrc","at":5000110000000,"track":"t0002","ssrc":2,"timestamp":0}
{"e":"size","at":5000110000000,"track":"t0002","timestamp":0,"width":64,"height":48,"rotation":90}
{"e":"report","at":5000200000000,"track":"t0001","ntp":17117000000000000000,"timestamp":4800}
{"e":"gap","at":5000300000000,"track":"t0001","packets":2,"after":960,"before":3840}
{"e":"muted","at":5000400000000,"track":"t0001"}
{"e":"paused","at":5000500000000}
{"e":"resumed","at":5000600000000}
{"e":"unrecorded","at":5000600000000,"track_id":"TR_x","peer_id":"PA_a","user_id":"alice","source":"camera","reason":"CodecUnsupported","message":"m"}
{"e":"counters","at":5000700000000,"track":"t0001","packets":3,"lost":2,"frames":3}
{"e":"participant_left","at":5000900000000,"peer_id":"PA_a","reason":"left"}
{"e":"stop","at":5001000000000,"reason":"Requested","message":""}"""


def journal() -> Seeds:
    yield "whole-call", JOURNAL.encode()
    lines = (f'{line[:-1]},"crc":"{zlib.crc32(line[:-1].encode()):08x}"}}\n' for line in JOURNAL.splitlines()[:6])
    yield "with-checksums", "".join(lines).encode()


def spool() -> Seeds:
    sound = [struct.pack("!BiI", 0x11, 960 * n, 1760 + 320 * n) + b"\xf8\xff\xfe" for n in range(1, 6)]
    key, *deltas = encoded("libvpx", 4, 32, 16)
    pictures = [struct.pack("!BiI", 0x52, 0, 1760) + key]
    pictures += [struct.pack("!BiI", 0x02, 3000 * n, 1760 + 528 * n) + data for n, data in enumerate(deltas, 1)]
    yield "sound", join(JOURNAL.encode(), *sound)
    yield "sound-and-pictures", join(JOURNAL.encode(), *sound, *pictures)
    cut_off = "\n".join(JOURNAL.splitlines()[:11])
    mixed = JOURNAL.replace('"vp8"', '"pcmu"')
    yield "sound-codec-of-a-camera", join(mixed.encode(), *sound, *pictures)
    yield "cut-off", join(cut_off.encode(), *sound[:2], *pictures[:2])
    h264_journal = JOURNAL.replace('"vp8"', '"h264"')
    h264_key, h264_delta, *_ = encoded("libx264")
    h264_frames = [struct.pack("!BiI", 0x52, 0, 1760) + h264_key, struct.pack("!BiI", 2, 3000, 2288) + h264_delta]
    yield "h264", join(h264_journal.encode(), *h264_frames)


def ledger() -> Seeds:
    upload = {"upload": {"name": "a.mkv", "id": "upload-1"}}
    row = {"name": "a.mkv", "number": 2, "etag": "e", "size": 5000, "md5": "00" * 16, "crc32": 77, "sha256": "11" * 32}
    file = {"file": json.loads(a_file(name="a.mkv").to_json())}
    facts = [json.dumps(fact) for fact in (upload, {"part": row}, {"part": row | {"number": 3}}, file)]
    yield "upload", "\n".join(facts[:3]).encode()
    yield "file", "\n".join(facts).encode()
    yield "given-up", "\n".join([*facts[:2], json.dumps({"upload": {"name": "a.mkv", "id": ""}}), facts[2]]).encode()


def checkpoints() -> Seeds:
    lines = [f'{line[:-1]},"crc":"{zlib.crc32(line[:-1].encode()):08x}"}}\n'.encode() for line in JOURNAL.splitlines()]
    journal, log = "i0001/journal.ndjson", "i0001/t0001.000001.log"
    facts, more = b"".join(lines[:7]), b"".join(lines[7:])
    record = MAGIC + encode_header(960, 5_000_110_000_000, 1, b"\xf8\xff\xfe") + b"\xf8\xff\xfe"

    def one(*slices: tuple[str, int, bytes]) -> bytes:
        rows = [[path, offset, len(data), 0] for path, offset, data in slices]
        return json.dumps({"atMs": 1, "slices": rows}).encode() + b"\n" + b"".join(data for _, _, data in slices)

    first, second = (
        one((journal, 0, facts), (log, 0, record[:20])),
        one((journal, len(facts), more), (log, 20, record[20:])),
    )
    yield "two", join(first, second)
    yield "sign-of-life", join(first, one(), second)
    yield "skips", join(first, one((log, 4096, b"x")), second)
    yield "escapes", join(one(("../../etc/passwd", 0, b"x")), one(("i0001/../../x", 0, b"x")))
    yield "cut", join(first, second[:-30], marked=frozenset({1}))


def matroska() -> Seeds:
    from isotrack_recorder.matroska import ebml

    head = ebml.master(ids.EBML, [ebml.text(ids.DOC_TYPE, "matroska")])
    video = ebml.master(ids.VIDEO, [ebml.uint(ids.PIXEL_WIDTH, 64), ebml.uint(ids.PIXEL_HEIGHT, 48)])
    entry = ebml.master(ids.TRACK_ENTRY, [ebml.uint(ids.TRACK_NUMBER, 1), ebml.uint(ids.TRACK_UID, 7), video])
    info = ebml.master(ids.INFO, [ebml.real(ids.DURATION, 20.0), ebml.text(ids.MUXING_APP, "isotrack")])
    cluster = ebml.master(
        ids.CLUSTER, [ebml.uint(ids.TIMESTAMP, 0), ebml.element(ids.SIMPLE_BLOCK, b"\x81\0\0\x80frame")]
    )
    place = ebml.master(ids.CUE_TRACK_POSITIONS, [ebml.uint(ids.CUE_TRACK, 1), ebml.uint(ids.CUE_CLUSTER_POSITION, 9)])
    cues = ebml.master(ids.CUES, [ebml.master(ids.CUE_POINT, [ebml.uint(ids.CUE_TIME, 0), place])])
    name = ebml.master(ids.SIMPLE_TAG, [ebml.text(ids.TAG_NAME, "USER_ID"), ebml.text(ids.TAG_STRING, "alice")])
    target = ebml.master(ids.TARGETS, [ebml.uint(ids.TAG_TRACK_UID, 7)])
    tags = ebml.master(ids.TAGS, [ebml.master(ids.TAG, [target, name])])
    seek = ebml.master(
        ids.SEEK, [ebml.element(ids.SEEK_ID, ids.INFO.to_bytes(4, "big")), ebml.uint(ids.SEEK_POSITION, 40)]
    )
    body = [
        ebml.master(ids.SEEK_HEAD, [seek]),
        info,
        ebml.master(ids.TRACKS, [entry]),
        tags,
        ebml.void(12),
        cluster,
        cues,
    ]
    yield "whole", head + ebml.master(ids.SEGMENT, body)
    yield "live", head + bytes.fromhex("1853806701ffffffffffffff") + b"".join(body[1:3]) + cluster


def manifest() -> Seeds:
    gap = {"startMs": 100, "durationMs": 20, "reason": "Lost"}
    size = {"atMs": 0, "width": 64, "height": 48}
    track = {"trackId": "TR_a", "source": "camera", "kind": "video", "codec": "vp8", "startMs": 0, "endMs": 1000, "frames": 30,
             "keyFrames": 1, "packets": 40, "packetsLost": 1, "packetsRecovered": 0, "mediaBytes": 1000, "sizes": [size],
             "gaps": [gap], "driftPpm": 1.5}  # fmt: skip
    file = {"name": "a.mkv", "attempt": 1, "layer": "default", "outputType": "audio_video", "container": "mkv", "userId": "alice",
            "peerId": "PA_a", "startOffsetMs": 0, "durationMs": 1000, "bytes": 2000, "sha256": "0" * 64, "tracks": [track]}  # fmt: skip
    attempt = {
        "n": 1,
        "startedAt": "2026-01-02T03:04:05Z",
        "endedAt": "2026-01-02T03:05:05Z",
        "stopReason": "Requested",
    }
    yield "one-file", json.dumps(
        {"version": 1, "generator": "isotrack/0", "recording": {"namespace": "n", "name": "r", "uid": "0123456789"},
         "callId": "c", "startedAt": "2026-01-02T03:04:05.678Z", "durationMs": 60000, "complete": True, "stopReason": "Requested",
         "attempts": [attempt], "files": [file],
         "participants": [{"userId": "alice", "name": "Alice", "peers": [{"peerId": "PA_a", "joinedMs": 5}]}]}
    ).encode()  # fmt: skip


def file_names() -> Seeds:
    yield (
        "default",
        join(b"{prefix}_{user_id}_{peer_id}_{stream_kind}_{media_kind}_{started_ms}", b"default", b"alice", b"PA_a"),
    )
    yield (
        "hostile",
        join(
            b"{user_id}_{peer_id}_{stream_kind}{media_kind}", b"../../etc/passwd", "é\u0301\u202e".encode(), b"." * 300
        ),
    )
    yield "lone-surrogate", join(b"{user_id}", b"\xed\xa0\x80", b"?", marked=frozenset({1}))


if __name__ == "__main__":
    raise SystemExit(main())
