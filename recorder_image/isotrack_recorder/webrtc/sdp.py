"""Read a session description into what answering and routing need.

Pure: text in, frozen values out. The text comes from an SFU and is treated as hostile: its size, the number of its
m-lines and of the attributes kept per m-line are bounded, control characters are refused (parts are echoed in the
answer), and an attribute that does not have the expected form is skipped, so that one vendor extension does not cost
the call. What cannot be answered at all (no m-line, an m-line without mid) is a ParseError.

Sources: RFC 8866 (SDP), RFC 8843 (BUNDLE), RFC 8839 (ICE), RFC 5576 (SSRC attributes), RFC 8830 (msid).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from isotrack_api.words import MediaKind
from isotrack_recorder.errors import ParseError

MAX_SDP_CHARACTERS: Final = 4 * 1024 * 1024
"""MAX_SECTIONS of LiveKit's, half of them pictures with 2,970 characters, half sound with 780: it describes all of a call in each offer."""
MAX_SECTIONS: Final = 2000
MAX_LINES_PER_SECTION: Final = 1000
MAX_SSRCS_PER_SECTION: Final = 32
MAX_CANDIDATES: Final = 64

_DISCARD: Final = 9

_UNSAFE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_LINE_END = re.compile(r"\r?\n")
_MEDIA = re.compile(r"(audio|video|application|text|message|image) (\d{1,5})(?:/\d{1,5})? (\S{1,64}) +(\S.{0,4095})")
_TOKEN = re.compile(r"[\w!#$%&'*+.^`{|}~-]{1,64}", re.ASCII)
_RTPMAP = re.compile(r"(\d{1,3}) ([\w!#$%&'*+.^`{|}~-]{1,64})/(\d{1,7})(?:/(\d{1,2}))?", re.ASCII)
_BY_PAYLOAD_TYPE = re.compile(r"(\d{1,3}) (\S.{0,2047})")
_EXTENSION = re.compile(r"(\d{1,3})(?:/(\w{1,16}))? (\S{1,255})(?: .*)?")
_SSRC = re.compile(r"(\d{1,10})(?: .*)?")
_APT = re.compile(r"(?:^|[; ])apt=(\d{1,3})(?:$|[; ])")
_RCVR_RTT = re.compile(r"(?:^| )rcvr-rtt=(all|sender)(?:$|[ :])")
_DIRECTIONS: Final = frozenset({"sendrecv", "sendonly", "recvonly", "inactive"})


@dataclass(frozen=True, slots=True)
class Codec:
    """One payload type of an m-line."""

    payload_type: int
    name: str
    """RTP encoding name in lower case: opus, vp8, rtx."""
    clock_rate: int
    channels: int
    fmtp: str
    feedback: tuple[str, ...]
    """Values of a=rtcp-fb: "nack", "nack pli", "goog-remb"."""

    @property
    def apt(self) -> int | None:
        """Payload type that an RTX codec repairs (RFC 4588 section 8.6)."""
        found = _APT.search(self.fmtp)
        return int(found[1]) if found else None


@dataclass(frozen=True, slots=True)
class IceParameters:
    """Credentials of an ICE agent (RFC 8839 section 5.4)."""

    ufrag: str
    password: str


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Digest of a DTLS certificate (RFC 8122 section 5)."""

    algorithm: str
    value: str


@dataclass(frozen=True, slots=True)
class Section:
    """One m-line with what stands under it; session-level values are filled in."""

    index: int
    media: str
    """audio, video, application, …"""
    port: int
    """0 = rejected, or over. An m-line that is offered within the bundle only (RFC 8843 section 6) has that number, too: it counts as 9."""
    protocol: str
    formats: tuple[str, ...]
    mid: str
    direction: str
    stream_id: str
    """First word of a=msid; empty where there is none."""
    track_id: str
    """Second word of a=msid; empty where there is none."""
    codecs: tuple[Codec, ...]
    extensions: Mapping[int, str]
    """Header extension id → URI."""
    ssrcs: tuple[int, ...]
    repairs: Mapping[int, int]
    """RTX SSRC → SSRC that it repairs (a=ssrc-group:FID)."""
    rtcp_rsize: bool
    rcvr_rtt: str
    """Whose round trips extended reports are to measure (RFC 3611 section 5.1): all, sender; empty = nobody's."""
    ice: IceParameters | None
    fingerprints: tuple[Fingerprint, ...]
    setup: str
    candidates: tuple[str, ...]
    """Values of a=candidate, without "candidate:"."""
    sctp_port: int | None

    @property
    def kind(self) -> MediaKind | None:
        """Kind of media; None for everything that is not carried in RTP as audio or video."""
        return MediaKind(self.media) if self.media in ("audio", "video") else None

    @property
    def sends(self) -> bool:
        """Whether the SFU says that it sends media on this m-line now."""
        return self.port != 0 and self.direction in ("sendrecv", "sendonly")


@dataclass(frozen=True, slots=True)
class Offer:
    """A parsed session description."""

    sections: tuple[Section, ...]
    bundle: frozenset[str]
    """Mids of the first BUNDLE group."""
    ice_lite: bool
    end_of_candidates: bool


def parse_offer(text: str) -> Offer:
    """Read an offer.

    Raises:
        ParseError: Too large, not SDP, an m-line that cannot be read, a missing or repeated mid.
    """
    return OfferReader().read(text)


class OfferReader:
    """Reads the offers of one connection, as `parse_offer` does.

    An SFU describes the whole call in each, and one person who comes or goes makes one: in a call of two hundred reading it all takes
    the event loop a good part of a second. So m-lines that stand there as they did in the offer before are not read again.
    """

    __slots__ = ("_sections", "_session")

    def __init__(self) -> None:
        self._session: list[str] = []
        """Attributes that hold for all m-lines, as the offer before had them."""
        self._sections: dict[str, Section] = {}
        """By their text; of that offer alone."""

    def read(self, text: str) -> Offer:
        """Read the next offer.

        Raises:
            ParseError: See `parse_offer`.
        """
        if len(text) > MAX_SDP_CHARACTERS:
            raise ParseError(f"session description of {len(text)} characters, at most {MAX_SDP_CHARACTERS} are read")
        if _UNSAFE.search(text):
            raise ParseError("session description holds control characters")
        head, *blocks = text.split("\nm=")
        lines = [line for line in _LINE_END.split(head.removesuffix("\r")) if line]
        if lines[:1] != ["v=0"]:
            raise ParseError("session description does not begin with v=0")
        if not blocks:
            raise ParseError("session description has no m-line")
        if len(blocks) > MAX_SECTIONS:
            raise ParseError(f"session description has more than {MAX_SECTIONS} m-lines")
        sections = self._read_sections(blocks, lines)
        mids = [section.mid for section in sections]
        if len(set(mids)) != len(mids):
            raise ParseError("session description uses a mid twice")
        self._sections = dict(zip(blocks, sections))
        session = _Attributes(lines)
        groups = [value.split()[1:] for value in session.values("group") if value.startswith("BUNDLE ")]
        return Offer(
            sections=sections,
            bundle=frozenset(groups[0] if groups else ()),
            ice_lite=session.has("ice-lite"),
            end_of_candidates="a=end-of-candidates" in text,
        )

    def _read_sections(self, blocks: list[str], head: list[str]) -> tuple[Section, ...]:
        inherited = [line for line in head if line.startswith("a=") and not line.startswith("a=group:")]
        known, self._sections = self._sections, {}
        if inherited != self._session:
            known, self._session = {}, inherited
        session = _Attributes(inherited)
        sections = []
        for index, block in enumerate(blocks):
            section = known.get(block)
            if section is None or section.index != index:
                section = _section(index, block, session)
            sections.append(section)
        return tuple(sections)


class _Attributes:
    """The a= lines of one block, in order."""

    __slots__ = ("_values",)

    def __init__(self, lines: list[str]) -> None:
        self._values: dict[str, list[str]] = {}
        for line in lines:
            if line.startswith("a="):
                name, _, value = line[2:].partition(":")
                self._values.setdefault(name, []).append(value)

    def has(self, name: str) -> bool:
        return name in self._values

    def direction(self) -> str:
        return next((name for name in self._values if name in _DIRECTIONS), "")

    def values(self, name: str) -> list[str]:
        return self._values.get(name, [])

    def first(self, name: str) -> str:
        return self._values.get(name, [""])[0]


def _section(index: int, block: str, session: _Attributes) -> Section:
    """Read what stands behind "m=", up to the next one."""
    first, *lines = _LINE_END.split(block.removesuffix("\r"))
    if len(lines) >= MAX_LINES_PER_SECTION:
        raise ParseError(f"m-line with more than {MAX_LINES_PER_SECTION} lines")
    media = _MEDIA.fullmatch(first)
    if media is None or int(media[2]) > 65535:
        raise ParseError(f"m-line {index} cannot be read")
    own = _Attributes(lines)
    mid = own.first("mid")
    if not _TOKEN.fullmatch(mid):
        raise ParseError(f"m-line {index} has no mid")
    formats = tuple(media[4].split())
    msid = own.first("msid").split()
    return Section(
        index=index,
        media=media[1],
        port=_DISCARD if own.has("bundle-only") else int(media[2]),
        protocol=media[3],
        formats=formats,
        mid=mid,
        direction=own.direction() or session.direction() or "sendrecv",
        stream_id=msid[0][:256] if msid else "",
        track_id=msid[1][:256] if len(msid) > 1 else "",
        codecs=tuple(_codecs(formats, own)),
        extensions=_extensions(own, session),
        ssrcs=_ssrcs(own),
        repairs=_repairs(own),
        rtcp_rsize=own.has("rtcp-rsize"),
        rcvr_rtt=_rcvr_rtt(own.values("rtcp-xr") or session.values("rtcp-xr")),
        ice=_ice(own) or _ice(session),
        fingerprints=_fingerprints(own) or _fingerprints(session),
        setup=own.first("setup") or session.first("setup") or "actpass",
        candidates=tuple((own.values("candidate") or session.values("candidate"))[:MAX_CANDIDATES]),
        sctp_port=_port(own.first("sctp-port")),
    )


def _codecs(formats: tuple[str, ...], attributes: _Attributes) -> Iterator[Codec]:
    fmtp = _by_payload_type(attributes.values("fmtp"))
    feedback = _by_payload_type(attributes.values("rtcp-fb"))
    maps = {int(m[1]): m for m in map(_RTPMAP.fullmatch, attributes.values("rtpmap")) if m}
    everywhere = [value[2:] for value in attributes.values("rtcp-fb") if value.startswith("* ")]
    numbers = [int(text) for text in formats if text.isascii() and text.isdigit() and len(text) <= 3]
    for payload_type in dict.fromkeys(numbers):  # "036" is 36, too
        found = maps.get(payload_type)
        if found is None or payload_type > 127:
            continue
        yield Codec(
            payload_type=payload_type,
            name=found[2].lower(),
            clock_rate=int(found[3]),
            channels=int(found[4] or 1),
            fmtp=fmtp.get(payload_type, [""])[0],
            feedback=tuple(feedback.get(payload_type, []) + everywhere),
        )


def _by_payload_type(values: list[str]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for match in map(_BY_PAYLOAD_TYPE.fullmatch, values):
        if match:
            found.setdefault(int(match[1]), []).append(match[2].strip())
    return found


def _extensions(own: _Attributes, session: _Attributes) -> dict[int, str]:
    # RFC 8285 section 5: 1–14 fit one-byte headers, up to 255 two-byte ones; 15 is reserved
    found = map(_EXTENSION.fullmatch, own.values("extmap") or session.values("extmap"))
    return {int(m[1]): m[3] for m in found if m and 0 < int(m[1]) < 256 and int(m[1]) != 15}


def _ssrcs(attributes: _Attributes) -> tuple[int, ...]:
    found = [int(m[1]) for m in map(_SSRC.fullmatch, attributes.values("ssrc")) if m]
    return tuple(dict.fromkeys(ssrc for ssrc in found if 0 < ssrc < 2**32))[:MAX_SSRCS_PER_SECTION]


def _repairs(attributes: _Attributes) -> dict[int, int]:
    found: dict[int, int] = {}
    for words in (value.split() for value in attributes.values("ssrc-group")[:MAX_SSRCS_PER_SECTION]):
        if len(words) == 3 and words[0] == "FID" and all(w.isascii() and w.isdigit() for w in words[1:]):
            primary, repair = (int(word[:11]) for word in words[1:])
            if 0 < primary < 2**32 and 0 < repair < 2**32 and primary != repair:
                found[repair] = primary
    return found


def _rcvr_rtt(values: list[str]) -> str:
    found = _RCVR_RTT.search(" ".join(values)[:1024])
    return found[1] if found else ""


def _ice(attributes: _Attributes) -> IceParameters | None:
    ufrag, password = attributes.first("ice-ufrag"), attributes.first("ice-pwd")
    # RFC 8839 section 5.4: 4 to 256 and 22 to 256 ice-char
    if re.fullmatch(r"[A-Za-z0-9+/]{4,256}", ufrag) and re.fullmatch(r"[A-Za-z0-9+/]{22,256}", password):
        return IceParameters(ufrag, password)
    return None


def _fingerprints(attributes: _Attributes) -> tuple[Fingerprint, ...]:
    found = []
    for value in attributes.values("fingerprint")[:8]:
        algorithm, _, digest = value.partition(" ")
        if re.fullmatch(r"(?:[0-9A-Fa-f]{2}:){15,127}[0-9A-Fa-f]{2}", digest) and _TOKEN.fullmatch(algorithm):
            found.append(Fingerprint(algorithm.lower(), digest.upper()))
    return tuple(found)


def _port(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 5 and int(text) < 65536 else None
