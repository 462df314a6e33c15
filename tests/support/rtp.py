"""A sender of RTP for tests and benchmarks: ICE, DTLS and SRTP by aiortc, offers and packets of our own making.

It stands where an SFU stands on the wire: it offers send-only m-lines, is the controlling ICE agent, and sends what a
test hands to it, so that loss, reordering, reused m-lines and timestamps can be chosen to the packet. A real SFU is
used wherever its behaviour is the subject.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from aioice import Candidate, Connection
from aiortc import RTCCertificate, RTCDtlsTransport, RTCIceGatherer, RTCIceTransport
from aiortc.rtcdtlstransport import SRTP_PROFILES, RTCDtlsFingerprint, RTCDtlsParameters
from aiortc.rtcicetransport import RTCIceParameters

from isotrack_api.base import MediaKind
from isotrack_recorder.media import CodecInfo
from isotrack_recorder.rtp.packet import Packet, build_packet
from isotrack_recorder.webrtc.sdp import parse_offer

ABS_SEND_TIME = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"
TRANSPORT_CC = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
MID = "urn:ietf:params:rtp-hdrext:sdes:mid"
RID = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"
REPAIRED_RID = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id"
ORIENTATION = "urn:3gpp:video-orientation"

VIDEO_FEEDBACK = ("goog-remb", "transport-cc", "ccm fir", "nack", "nack pli")
AUDIO_FEEDBACK = ("nack",)


@dataclass(frozen=True)
class OfferedCodec:
    """One payload type of an offered m-line."""

    payload_type: int
    name: str
    clock_rate: int = 90_000
    fmtp: str = ""
    feedback: tuple[str, ...] = VIDEO_FEEDBACK
    rtx: int = 0
    """Payload type of its RTX; 0 = none."""


OPUS = OfferedCodec(111, "opus", 48_000, "minptime=10;useinbandfec=1", AUDIO_FEEDBACK)
RED = OfferedCodec(63, "red", 48_000, "111/111", ())
VP8 = OfferedCodec(96, "VP8", rtx=97)
H264 = OfferedCodec(125, "H264", fmtp="level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f", rtx=107)
AV1 = OfferedCodec(45, "AV1", rtx=46)
VP9 = OfferedCodec(98, "VP9", fmtp="profile-id=0", rtx=99)
H265 = OfferedCodec(49, "H265", fmtp="level-id=93;profile-id=1;tier-flag=0;tx-mode=SRST", rtx=50)
PCMU = OfferedCodec(0, "PCMU", 8000, "", AUDIO_FEEDBACK)
PCMA = OfferedCodec(8, "PCMA", 8000, "", AUDIO_FEEDBACK)
G722 = OfferedCodec(9, "G722", 8000, "", AUDIO_FEEDBACK)
UNKNOWN = OfferedCodec(47, "X-FUTURE", rtx=48)
"""A codec that nobody can record."""


@dataclass(frozen=True)
class OfferedTrack:
    """One offered m-line."""

    mid: str
    kind: MediaKind
    track_id: str
    ssrc: int = 0
    """0 = none is announced."""
    rtx_ssrc: int = 0
    codecs: tuple[OfferedCodec, ...] = ()
    direction: str = "sendonly"
    extensions: dict[int, str] = field(default_factory=lambda: {2: ABS_SEND_TIME})

    def lines(self) -> list[str]:
        """SDP of this m-line but for the transport."""
        codecs = self.codecs or ((OPUS,) if self.kind is MediaKind.AUDIO else (VP8,))
        formats = [pt for c in codecs for pt in ((c.payload_type, c.rtx) if c.rtx else (c.payload_type,))]
        lines = [f"m={self.kind.value} 9 UDP/TLS/RTP/SAVPF {' '.join(map(str, formats))}", "c=IN IP4 0.0.0.0"]
        lines += [f"a=mid:{self.mid}", f"a={self.direction}", "a=rtcp-mux", "a=rtcp-rsize"]
        lines += [f"a=extmap:{number} {uri}" for number, uri in self.extensions.items()]
        for codec in codecs:
            channels = "/2" if codec.name in ("opus", "red") else ""
            lines.append(f"a=rtpmap:{codec.payload_type} {codec.name}/{codec.clock_rate}{channels}")
            if codec.fmtp:
                lines.append(f"a=fmtp:{codec.payload_type} {codec.fmtp}")
            lines += [f"a=rtcp-fb:{codec.payload_type} {value}" for value in codec.feedback]
            if codec.rtx:
                lines += [
                    f"a=rtpmap:{codec.rtx} rtx/{codec.clock_rate}",
                    f"a=fmtp:{codec.rtx} apt={codec.payload_type}",
                ]
        if self.direction != "inactive":
            lines.append(f"a=msid:PA_test|{self.track_id} {self.track_id}")
            if self.rtx_ssrc:
                lines.append(f"a=ssrc-group:FID {self.ssrc} {self.rtx_ssrc}")
            lines += [f"a=ssrc:{ssrc} cname:PA_test" for ssrc in (self.ssrc, self.rtx_ssrc) if ssrc]
        return lines


def build_offer(tracks: Sequence[OfferedTrack], transport: Sequence[str], *, data: bool = False) -> str:
    """Write an offer as LiveKit's: BUNDLE, unified plan. `transport` stands under each m-line."""
    mids = [track.mid for track in tracks] + (["data"] if data else [])
    lines = ["v=0", "o=- 4962303333179871722 1 IN IP4 0.0.0.0", "s=-", "t=0 0", "a=group:BUNDLE " + " ".join(mids)]
    for track in tracks:
        lines += track.lines() + list(transport)
    if data:
        lines += ["m=application 9 UDP/DTLS/SCTP webrtc-datachannel", "c=IN IP4 0.0.0.0", "a=mid:data", "a=sendrecv"]
        lines += ["a=sctp-port:5000", "a=max-message-size:65535", *transport]
    return "\r\n".join(lines) + "\r\n"


class _LoopbackConnection(Connection):
    async def gather_candidates(self) -> None:
        if not self._local_candidates_start:
            self._local_candidates_start = True
            self._local_candidates += await self.get_component_candidates(component=1, addresses=["127.0.0.1"])
            self._local_candidates_end = True


class _Dtls(RTCDtlsTransport):
    on_rtcp: Callable[[bytes], None]

    async def _handle_rtcp_data(self, data: bytes) -> None:
        self.on_rtcp(data)


class Sender:
    """The sending end of one connection."""

    def __init__(self, profile: str = "") -> None:
        """`profile` limits SRTP to one of aiortc's profiles, e.g. SRTP_AEAD_AES_128_GCM."""
        self._gatherer: Any = RTCIceGatherer(iceServers=[])
        self._gatherer._connection = _LoopbackConnection(ice_controlling=True)
        self._ice: Any = RTCIceTransport(self._gatherer)
        self._certificate = RTCCertificate.generateCertificate()
        self._dtls: Any = _Dtls(self._ice, [self._certificate])
        self._dtls.on_rtcp = self._take_rtcp
        if profile:
            self._dtls._srtp_profiles = [p for p in SRTP_PROFILES if p.openssl_profile.decode() == profile]
        self.rtcp: asyncio.Queue[bytes] = asyncio.Queue()
        """Compounds from the other side, decrypted."""
        self.on_rtcp: Callable[[bytes], None] | None = None
        """Takes them instead of the queue."""
        self._sock: Any = None
        self._address: Any = None

    def _take_rtcp(self, data: bytes) -> None:
        if self.on_rtcp is not None:
            self.on_rtcp(data)
        else:
            self.rtcp.put_nowait(data)

    async def offer(self, tracks: Sequence[OfferedTrack], *, data: bool = False, candidates: bool = True) -> str:
        """Write an offer; the first call opens the socket."""
        await self._gatherer.gather()
        own = self._gatherer.getLocalParameters()
        prints = [f for f in self._certificate.getFingerprints() if f.algorithm == "sha-256"]
        lines = [f"a=ice-ufrag:{own.usernameFragment}", f"a=ice-pwd:{own.password}", "a=setup:actpass"]
        lines += [f"a=fingerprint:{f.algorithm} {f.value}" for f in prints]
        if candidates:
            lines += [f"a=candidate:{text}" for text in self.candidates()] + ["a=end-of-candidates"]
        return build_offer(tracks, lines, data=data)

    def candidates(self) -> list[str]:
        """Values of a=candidate."""
        return [c.to_sdp() for c in self._gatherer._connection.local_candidates]

    async def accept(self, answer: str) -> None:
        """Take the first answer; returns when ICE and DTLS are up."""
        section = next(s for s in parse_offer(answer).sections if s.port)
        assert section.ice is not None
        for text in section.candidates:
            await self._gatherer._connection.add_remote_candidate(Candidate.from_sdp(text))
        await self._gatherer._connection.add_remote_candidate(None)
        await self._ice.start(RTCIceParameters(usernameFragment=section.ice.ufrag, password=section.ice.password))
        self._dtls._set_role("server" if section.setup == "active" else "client")
        prints = [RTCDtlsFingerprint(algorithm=f.algorithm, value=f.value) for f in section.fingerprints]
        await self._dtls.start(RTCDtlsParameters(fingerprints=prints))
        assert self._dtls.state == "connected", self._dtls.state
        pair = self._gatherer._connection._nominated[1]
        sock = pair.protocol.transport.get_extra_info("socket")
        self._sock, self._address = getattr(sock, "_sock", sock), pair.remote_addr

    @property
    def profile(self) -> str:
        """SRTP profile in use."""
        return str(self._dtls._ssl.get_selected_srtp_profile().decode())

    def send(self, packet: Packet | bytes) -> None:
        """Encrypt and send one RTP packet."""
        data = packet if isinstance(packet, bytes) else build_packet(packet)
        self.send_raw(self._dtls._tx_srtp.protect(data))

    def send_rtcp(self, data: bytes) -> None:
        """Encrypt and send one RTCP compound."""
        self.send_raw(self._dtls._tx_srtp.protect_rtcp(data))

    def send_raw(self, data: bytes) -> None:
        """Send as it is."""
        self._sock.sendto(data, self._address)

    async def close(self) -> None:
        """Say goodbye and close the socket."""
        await self._dtls.stop()
        await self._ice.stop()


def sender_report(ssrc: int, ntp: int, timestamp: int) -> bytes:
    """RTCP SR without report blocks."""
    return struct.pack("!BBHLQLLL", 0x80, 200, 6, ssrc, ntp, timestamp & 0xFFFFFFFF, 0, 0)


def vp8_packets(frame: bytes, *, picture_id: int, size: int = 1100) -> list[bytes]:
    """Payloads of one VP8 frame, as an SFU sends them: 15-bit picture id in each descriptor (RFC 7741 section 4.2)."""
    chunks = [frame[at : at + size] for at in range(0, len(frame), size)]
    return [
        struct.pack("!BBH", 0x90 if index == 0 else 0x80, 0x80, 0x8000 | picture_id & 0x7FFF) + chunk
        for index, chunk in enumerate(chunks)
    ]


def vp8_frame(number: int, *, key: bool, size: int = 600, width: int = 640, height: int = 360) -> bytes:
    """A frame whose header is valid VP8 and whose body tells frames apart; no decoder would take it."""
    head = b"\x10\x00\x00\x9d\x01\x2a" + struct.pack("<HH", width, height) if key else b"\x11\x00\x00"
    body = number.to_bytes(4, "big") * ((size - len(head)) // 4 + 1)
    return (head + body)[:size]


def packetize(
    payloads: Iterable[bytes], *, payload_type: int, sequence: int, timestamp: int, ssrc: int, mark_last: bool = True
) -> list[Packet]:
    """Give payloads of one frame their headers."""
    all_payloads = list(payloads)
    return [
        Packet(
            payload_type,
            (sequence + index) & 0xFFFF,
            timestamp & 0xFFFFFFFF,
            ssrc,
            mark_last and index == len(all_payloads) - 1,
            {},
            payload,
        )
        for index, payload in enumerate(all_payloads)
    ]


@dataclass
class Recorded:
    """A TrackSink that remembers; `changed` is set at each call."""

    codecs: list[CodecInfo] = field(default_factory=list)
    sources: list[tuple[int, int]] = field(default_factory=list)
    frames: list[tuple[int, int, int, bytes]] = field(default_factory=list)
    gaps: list[tuple[int, int, int, int]] = field(default_factory=list)
    sizes: list[tuple[int, int, int, int]] = field(default_factory=list)
    reports: list[tuple[int, int, int]] = field(default_factory=list)
    loudness: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def codec(self, codec: CodecInfo) -> None:
        self.codecs.append(codec)

    def source_changed(self, ssrc: int, timestamp: int) -> None:
        self.sources.append((ssrc, timestamp))

    def frame(self, timestamp: int, arrival_ns: int, flags: int, data: bytes) -> None:
        assert type(data) is bytes
        self.frames.append((timestamp, arrival_ns, flags, data))
        self.changed.set()

    def gap(self, packets: int, after: int, before: int, at_ns: int) -> None:
        self.gaps.append((packets, after, before, at_ns))
        self.changed.set()

    def size(self, timestamp: int, width: int, height: int, rotation: int) -> None:
        self.sizes.append((timestamp, width, height, rotation))

    def levels(self, at_ns: int, packets: int, loudest: int, mean: int, voiced: int) -> None:
        self.loudness.append((at_ns, packets, loudest, mean, voiced))
        self.changed.set()

    def sender_report(self, ntp: int, timestamp: int, arrival_ns: int) -> None:
        self.reports.append((ntp, timestamp, arrival_ns))
        self.changed.set()

    @property
    def data(self) -> list[bytes]:
        """Frames without what surrounds them."""
        return [frame[3] for frame in self.frames]

    async def wait_for(self, condition: Callable[[Recorded], bool], seconds: float = 60) -> None:
        """Until the condition holds, checked whenever something came."""
        async with asyncio.timeout(seconds):
            while not condition(self):
                self.changed.clear()
                await self.changed.wait()


@dataclass
class Listening:
    """A MediaListener that wants what `wants` says and remembers."""

    wants: Callable[[str], bool] = lambda _: True
    sinks: dict[str, Recorded] = field(default_factory=dict)
    opened: list[str] = field(default_factory=list)
    unsupported: list[tuple[str, MediaKind, str]] = field(default_factory=list)

    def open_track(self, track_id: str, kind: MediaKind) -> Recorded | None:
        if not self.wants(track_id):
            return None
        self.opened.append(track_id)
        return self.sinks.setdefault(track_id, Recorded())

    def track_unsupported(self, track_id: str, kind: MediaKind, offered: str) -> None:
        self.unsupported.append((track_id, kind, offered))
