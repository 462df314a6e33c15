"""Decide what we receive of an offer, and write the answer. Pure: offer and local transport in, text out.

Each m-line is decided alone: codecs that cannot be recorded are left out, an m-line without any is rejected, and the
call goes on. RED and FEC are declined, so that the SFU sends the plain stream. A data m-line is accepted because SFUs
insist on it; nothing runs on it.

Sources: RFC 9429 section 5.3 (answers), RFC 8843 section 7.3 (BUNDLE answers), RFC 4588, RFC 4585, RFC 8285.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from isotrack_api.words import MediaKind
from isotrack_recorder.codecs.registry import find_codec
from isotrack_recorder.webrtc.sdp import Codec, Fingerprint, IceParameters, Offer, Section

# Header extensions that are read (rtp.packet) or that the SFU's own bandwidth estimation wants to send
EXT_MID: Final = "urn:ietf:params:rtp-hdrext:sdes:mid"
EXT_TRANSPORT_CC: Final = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"
EXT_ABS_SEND_TIME: Final = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time"
EXT_VIDEO_ORIENTATION: Final = "urn:3gpp:video-orientation"
EXT_AUDIO_LEVEL: Final = "urn:ietf:params:rtp-hdrext:ssrc-audio-level"
# RFC 8852: which encoding of its m-line a stream carries, or repairs
EXT_RID: Final = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"
EXT_REPAIRED_RID: Final = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id"
EXTENSIONS: Final = frozenset(
    {EXT_MID, EXT_RID, EXT_REPAIRED_RID, EXT_TRANSPORT_CC, EXT_ABS_SEND_TIME, EXT_VIDEO_ORIENTATION, EXT_AUDIO_LEVEL}
)

FEEDBACK: Final = frozenset({"nack", "nack pli", "ccm fir", "goog-remb", "transport-cc", "rrtr"})
"""`rrtr` is how libwebrtc asks for what RFC 3611 calls rcvr-rtt."""

_DATA_PROTOCOLS: Final = frozenset({"UDP/DTLS/SCTP", "DTLS/SCTP", "TCP/DTLS/SCTP"})
_MEDIA_PROTOCOLS: Final = frozenset({"UDP/TLS/RTP/SAVPF", "RTP/SAVPF", "UDP/TLS/RTP/SAVP"})


@dataclass(frozen=True, slots=True)
class LocalTransport:
    """Our end of the connection, as the answer states it."""

    ice: IceParameters
    fingerprints: tuple[Fingerprint, ...]
    setup: str
    """active or passive (RFC 8842 section 5.3)."""
    candidates: tuple[str, ...]
    """Values of a=candidate, without "candidate:"."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is accepted of one m-line."""

    section: Section
    codecs: tuple[Codec, ...]
    """Accepted payload types, RTX included; empty for data and for rejected m-lines."""
    extensions: Mapping[int, str]
    accepted: bool

    @property
    def receives(self) -> bool:
        """Whether media flows on this m-line."""
        return self.accepted and self.section.kind is not None and self.section.sends

    @property
    def unsupported(self) -> bool:
        """Whether the SFU sends something that we cannot record."""
        return not self.accepted and self.section.kind is not None and self.section.sends


def plan_answer(offer: Offer, before: Sequence[Plan] = ()) -> tuple[Plan, ...]:
    """Decide on every m-line of the offer, in order. What was decided `before` of the same Section is decided still."""
    return tuple(
        before[index] if index < len(before) and before[index].section is section else _plan(section)
        for index, section in enumerate(offer.sections)
    )


def _plan(section: Section) -> Plan:
    kind = section.kind
    if kind is None:
        data = section.media == "application" and section.protocol in _DATA_PROTOCOLS and section.port != 0
        return Plan(section, (), {}, accepted=data)
    if section.port == 0 or section.protocol not in _MEDIA_PROTOCOLS:
        return Plan(section, (), {}, accepted=False)
    codecs = _accepted_codecs(section, kind)
    extensions = {number: uri for number, uri in section.extensions.items() if uri in EXTENSIONS}
    return Plan(section, codecs, extensions, accepted=bool(codecs))


def _accepted_codecs(section: Section, kind: MediaKind) -> tuple[Codec, ...]:
    media = {
        codec.payload_type
        for codec in section.codecs
        if find_codec(codec.name, kind, codec.clock_rate, codec.fmtp) is not None
    }
    return tuple(
        codec for codec in section.codecs if codec.payload_type in media or (codec.name == "rtx" and codec.apt in media)
    )


class AnswerWriter:
    """Writes the answers of one connection, each to the offer that came last. M-lines that are decided as before are not written again."""

    __slots__ = ("_local", "_session_id", "_texts", "_version")

    def __init__(self, local: LocalTransport, session_id: int) -> None:
        """`session_id` is below 2**63."""
        self._local = local
        self._session_id = session_id
        self._version = 0
        """Counts up with each answer (RFC 8866 section 5.2)."""
        self._texts: dict[tuple[str, bool], tuple[Plan, str]] = {}
        """By mid, and whether candidates are in it; of the answer before."""

    def write(self, offer: Offer, plans: Sequence[Plan]) -> str:
        """Write the answer to `offer`."""
        self._version += 1
        bundled = [plan.section.mid for plan in plans if plan.accepted and plan.section.mid in offer.bundle]
        head = ["v=0", f"o=- {self._session_id} {self._version} IN IP4 127.0.0.1", "s=-", "t=0 0"]
        if bundled:
            head.append("a=group:BUNDLE " + " ".join(bundled))
        head.append("a=msid-semantic: WMS *")
        with_candidates = next((plan for plan in plans if plan.accepted), None)
        before, self._texts = self._texts, {}
        for plan in plans:
            key = plan.section.mid, plan is with_candidates
            known = before.get(key)
            if known is None or known[0] is not plan:
                known = plan, "\r\n".join(_section_lines(plan, self._local, candidates=key[1]))
            self._texts[key] = known
        return "\r\n".join((*head, *(text for _, text in self._texts.values()))) + "\r\n"


def _section_lines(plan: Plan, local: LocalTransport, *, candidates: bool) -> list[str]:
    section = plan.section
    if not plan.accepted:
        formats = " ".join(section.formats[:1])
        return [
            f"m={section.media} 0 {section.protocol} {formats}",
            "c=IN IP4 0.0.0.0",
            f"a=mid:{section.mid}",
            "a=inactive",
        ]
    formats = " ".join(str(codec.payload_type) for codec in plan.codecs) or " ".join(section.formats)
    lines = [
        f"m={section.media} 9 {section.protocol} {formats}",
        "c=IN IP4 0.0.0.0",
        f"a=mid:{section.mid}",
        f"a=ice-ufrag:{local.ice.ufrag}",
        f"a=ice-pwd:{local.ice.password}",
        *(f"a=fingerprint:{fingerprint.algorithm} {fingerprint.value}" for fingerprint in local.fingerprints),
        f"a=setup:{local.setup}",
    ]
    if section.kind is None:
        lines += [f"a=sctp-port:{section.sctp_port or 5000}", "a=max-message-size:65536"]
    else:
        lines += _media_lines(plan)
    if candidates:
        lines += [f"a=candidate:{candidate}" for candidate in local.candidates] + ["a=end-of-candidates"]
    return lines


def _media_lines(plan: Plan) -> list[str]:
    section = plan.section
    lines = ["a=recvonly" if section.sends else "a=inactive", "a=rtcp:9 IN IP4 0.0.0.0", "a=rtcp-mux"]
    if section.rtcp_rsize:
        lines.append("a=rtcp-rsize")
    if section.rcvr_rtt:
        lines.append(f"a=rtcp-xr:rcvr-rtt={section.rcvr_rtt}")
    lines += [f"a=extmap:{number} {uri}" for number, uri in plan.extensions.items()]
    for codec in plan.codecs:
        channels = f"/{codec.channels}" if codec.channels > 1 else ""
        lines.append(f"a=rtpmap:{codec.payload_type} {_offered_name(codec)}/{codec.clock_rate}{channels}")
        if codec.fmtp:
            lines.append(f"a=fmtp:{codec.payload_type} {codec.fmtp}")
        lines += [f"a=rtcp-fb:{codec.payload_type} {kind}" for kind in codec.feedback if kind in FEEDBACK]
    return lines


def _offered_name(codec: Codec) -> str:
    # encoding names are case-insensitive (RFC 4855 section 3), yet peers print and compare them in these forms
    return codec.name if codec.name in ("opus", "rtx") else codec.name.upper()
