"""What is accepted of an offer, and how the answer is written."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from aiortc.sdp import SessionDescription
from hypothesis import given
from hypothesis import strategies as st

from isotrack_api.base import MediaKind
from isotrack_recorder.codecs.registry import CODECS
from isotrack_recorder.webrtc.answer import AnswerWriter, LocalTransport, Plan, plan_answer
from isotrack_recorder.webrtc.sdp import Fingerprint, IceParameters, OfferReader, parse_offer
from support.rtp import (
    AV1,
    G722,
    H264,
    H265,
    MID,
    OPUS,
    PCMA,
    PCMU,
    RED,
    REPAIRED_RID,
    RID,
    UNKNOWN,
    VP8,
    VP9,
    OfferedCodec,
    OfferedTrack,
    build_offer,
)

OFFERS = Path(__file__).parent / "offers"
LOCAL = LocalTransport(
    IceParameters("ufra", "p" * 22),
    (Fingerprint("sha-256", ":".join(["AB"] * 32)),),
    "active",
    ("1 1 udp 2130706431 192.0.2.7 4000 typ host",),
)
TRANSPORT = ["a=ice-ufrag:abcd", "a=ice-pwd:" + "q" * 22, "a=setup:actpass"]
AUDIO = OfferedTrack("0", MediaKind.AUDIO, "TR_mic", ssrc=1001)
VIDEO = OfferedTrack("1", MediaKind.VIDEO, "TR_cam", ssrc=2001, rtx_ssrc=2002)


def answer(text: str) -> str:
    offer = parse_offer(text)
    return AnswerWriter(LOCAL, 7).write(offer, plan_answer(offer))


def test_answers_of_a_connection_are_written_like_the_only_one() -> None:
    """What is decided as before is not decided, or written, again; candidates move to the first m-line that is accepted."""
    reader, writer = OfferReader(), AnswerWriter(LOCAL, 7)
    plans: tuple[Plan, ...] = ()
    refused = replace(AUDIO, codecs=(UNKNOWN,))
    for tracks in ([AUDIO, VIDEO], [AUDIO, VIDEO], [refused, VIDEO], [AUDIO], [AUDIO, replace(VIDEO, ssrc=5)]):
        offer = reader.read(build_offer(tracks, TRANSPORT))
        before, plans = plans, plan_answer(offer, plans)
        if before and before[0].section is offer.sections[0]:
            assert plans[0] is before[0]
        assert plans == plan_answer(offer)
        written = writer.write(offer, plans)
        assert re.sub(r"(o=- 7) \d+", r"\1 1", written) == AnswerWriter(LOCAL, 7).write(offer, plan_answer(offer))


def test_names_of_encodings_are_agreed_to_and_simulcast_is_not() -> None:
    """We want one encoding at a time. Both names are read: RTX is found by the second (RFC 8852)."""
    simulcast = ["a=rid:q send", "a=rid:f send", "a=simulcast:send q;f"]
    names = {4: MID, 10: RID, 11: REPAIRED_RID}
    text = answer(build_offer([replace(VIDEO, ssrc=0, rtx_ssrc=0, extensions=names)], [*TRANSPORT, *simulcast]))
    lines = text.splitlines()
    assert [line for line in lines if line.startswith("a=extmap:")] == [
        f"a=extmap:{n} {uri}" for n, uri in names.items()
    ]
    assert not [line for line in lines if line.startswith(("a=rid:", "a=simulcast:"))]
    assert {"a=rtpmap:97 rtx/90000", "a=fmtp:97 apt=96"} <= set(lines)


@pytest.mark.parametrize(
    ("lines", "answered"),
    [
        pytest.param(["a=rtcp-xr:rcvr-rtt=all:10 stat-summary=loss"], ["a=rtcp-xr:rcvr-rtt=all"], id="all"),
        pytest.param(["a=rtcp-xr:rcvr-rtt=sender"], ["a=rtcp-xr:rcvr-rtt=sender"], id="sender"),
        pytest.param(["a=rtcp-xr:voip-metrics"], [], id="something-else"),
        pytest.param(["a=rtcp-xr:xrcvr-rtt=all"], [], id="unknown"),
        pytest.param(["a=rtcp-fb:96 rrtr"], ["a=rtcp-fb:96 rrtr"], id="as-libwebrtc-says-it"),
        pytest.param([], [], id="nothing"),
    ],
)
def test_extended_reports_are_agreed_to_where_they_were_offered(lines: list[str], answered: list[str]) -> None:
    """RFC 3611 section 5.2: rcvr-rtt holds where both say it."""
    text = answer(build_offer([VIDEO], [*TRANSPORT, *lines]))
    assert [line for line in text.splitlines() if "rtcp-xr" in line or "rrtr" in line] == answered


def accepted(*codecs: OfferedCodec, kind: MediaKind = MediaKind.VIDEO) -> list[int]:
    track = replace(VIDEO if kind is MediaKind.VIDEO else AUDIO, codecs=codecs)
    (plan,) = plan_answer(parse_offer(build_offer([track], TRANSPORT)))
    return [codec.payload_type for codec in plan.codecs]


@pytest.mark.parametrize(
    ("kind", "codecs", "payload_types"),
    [
        pytest.param("audio", [OPUS], [111], id="opus"),
        pytest.param("audio", [RED, OPUS], [111], id="RED is declined"),
        pytest.param("audio", [replace(OPUS, clock_rate=16_000)], [], id="opus at a clock that does not exist"),
        pytest.param("video", [VP8, H264], [96, 97, 125, 107], id="with their RTX"),
        pytest.param("video", [UNKNOWN, VP8], [96, 97], id="an unknown codec beside a known one"),
        pytest.param("video", [UNKNOWN], [], id="unknown codecs alone"),
        pytest.param("video", [AV1, VP9, H265], [45, 46, 98, 99, 49, 50], id="all with their RTX"),
        pytest.param("video", [replace(VP9, fmtp="profile-id=2")], [98, 99], id="VP9 with 10 bits"),
        pytest.param("video", [replace(H265, fmtp="tx-mode=MRST")], [], id="H265 over several streams"),
        pytest.param("audio", [PCMU, PCMA, G722], [0, 8, 9], id="static payload types"),
        pytest.param("audio", [replace(G722, clock_rate=16_000)], [], id="G722 at a clock that does not exist"),
        pytest.param("video", [replace(VP8, payload_type=35, rtx=36)], [35, 36], id="payload types below 96"),
        pytest.param("video", [replace(H264, fmtp="packetization-mode=0")], [125, 107], id="single NAL unit mode"),
        pytest.param("video", [replace(H264, fmtp="packetization-mode=2")], [], id="interleaved mode"),
        pytest.param("video", [replace(H264, fmtp="profile-level-id=640028")], [125, 107], id="high profile"),
        pytest.param("video", [OPUS], [], id="an audio codec on a video m-line"),
        pytest.param(
            "video", [OfferedCodec(49, "ulpfec"), OfferedCodec(50, "red"), VP8], [96, 97], id="FEC is declined"
        ),
    ],
)
def test_codecs_that_can_be_recorded_are_accepted(
    kind: str, codecs: list[OfferedCodec], payload_types: list[int]
) -> None:
    assert accepted(*codecs, kind=MediaKind(kind)) == payload_types


def test_an_m_line_that_cannot_be_recorded_is_rejected_alone() -> None:
    text = answer(
        build_offer([AUDIO, replace(VIDEO, codecs=(UNKNOWN,)), replace(VIDEO, mid="2")], TRANSPORT, data=True)
    )
    sections = parse_offer(text).sections
    assert [section.port for section in sections] == [9, 0, 9, 9]
    assert "a=group:BUNDLE 0 2 data\r\n" in text


def test_the_answer_says_what_we_take_and_nothing_else() -> None:
    extensions = {1: "urn:ietf:params:rtp-hdrext:encrypt", 4: MID}
    section = parse_offer(answer(build_offer([replace(VIDEO, extensions=extensions)], TRANSPORT))).sections[0]
    assert section.direction == "recvonly"
    assert section.extensions == {4: MID}
    assert section.ice == LOCAL.ice
    assert section.fingerprints == LOCAL.fingerprints
    assert (section.setup, section.candidates) == ("active", LOCAL.candidates)
    vp8, rtx = section.codecs
    assert vp8.feedback == ("goog-remb", "transport-cc", "ccm fir", "nack", "nack pli")
    assert (rtx.name, rtx.apt) == ("rtx", 96)
    assert not section.ssrcs


def test_levels_of_sound_are_taken_where_they_are_offered() -> None:
    extensions = {1: "urn:ietf:params:rtp-hdrext:ssrc-audio-level", 4: MID}
    section = parse_offer(answer(build_offer([replace(AUDIO, extensions=extensions)], TRANSPORT))).sections[0]
    assert section.extensions == extensions


def test_formats_of_the_offer_are_echoed() -> None:
    section = parse_offer(answer(build_offer([replace(VIDEO, codecs=(H264,))], TRANSPORT))).sections[0]
    assert section.codecs[0].fmtp == H264.fmtp


def test_a_silent_m_line_is_answered_silent() -> None:
    text = answer(build_offer([replace(VIDEO, direction="inactive")], TRANSPORT))
    assert parse_offer(text).sections[0].direction == "inactive"


@pytest.mark.parametrize("path", sorted(OFFERS.glob("*.sdp")), ids=lambda path: path.stem)
def test_recorded_offers_get_answers_that_another_implementation_reads(path: Path) -> None:
    offer = parse_offer(path.read_text())
    text = answer(path.read_text())
    read = SessionDescription.parse(text)
    assert len(read.media) == len(offer.sections)
    for ours, theirs, section in zip(parse_offer(text).sections, read.media, offer.sections):
        assert ours.mid == section.mid == theirs.rtp.muxId
        assert theirs.port == 9
        assert {codec.name for codec in ours.codecs} <= {*CODECS, "rtx"}
        assert {codec.name for codec in section.codecs} - {codec.name for codec in ours.codecs} <= {"red"}


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["audio", "video"]), st.lists(st.sampled_from([OPUS, RED, VP8, H264, UNKNOWN]), max_size=4)
        ),
        min_size=1,
        max_size=8,
    )
)
def test_each_answer_mirrors_the_m_lines_of_its_offer(lines: list[tuple[str, list[OfferedCodec]]]) -> None:
    """RFC 9429 section 5.3.1: as many m-lines, in the same order, formats a subset."""
    tracks = [
        OfferedTrack(str(n), MediaKind(kind), f"TR_{n}", ssrc=n + 1, codecs=tuple(dict.fromkeys(codecs)))
        for n, (kind, codecs) in enumerate(lines)
    ]
    offer = parse_offer(build_offer(tracks, TRANSPORT))
    answered = parse_offer(AnswerWriter(LOCAL, 7).write(offer, plan_answer(offer)))
    for theirs, ours in zip(offer.sections, answered.sections, strict=True):
        assert (ours.media, ours.mid, ours.protocol) == (theirs.media, theirs.mid, theirs.protocol)
        assert set(ours.formats) <= set(theirs.formats)
        assert ours.direction in ("recvonly", "inactive")
