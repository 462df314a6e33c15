"""Reading offers: what LiveKit sends, what is odd, what is hostile."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isotrack_api.base import MediaKind
from isotrack_recorder.errors import ParseError
from isotrack_recorder.webrtc.sdp import MAX_SDP_CHARACTERS, MAX_SECTIONS, OfferReader, parse_offer
from support.rtp import OfferedTrack, build_offer

OFFERS = Path(__file__).parent / "offers"
AUDIO = OfferedTrack("0", MediaKind.AUDIO, "TR_mic", ssrc=1001)


def offer(*extra: str) -> str:
    return build_offer([AUDIO], ["a=ice-ufrag:abcd", "a=ice-pwd:" + "p" * 22, *extra])


def test_a_recorded_offer_is_read() -> None:
    data, audio_1, video_1, audio_2, video_2 = parse_offer((OFFERS / "livekit-two-people.sdp").read_text()).sections
    assert (data.media, data.kind, data.sctp_port) == ("application", None, 5000)
    assert [s.kind for s in (audio_1, video_1, audio_2, video_2)] == ["audio", "video", "audio", "video"]
    assert [s.sends for s in (audio_1, video_1, audio_2, video_2)] == [True] * 4
    assert video_2.mid == "4"
    assert video_2.track_id == "TR_VCxtgX7ooiPZR4"
    assert video_2.stream_id.endswith("|TR_VCxtgX7ooiPZR4")
    media, repair = video_2.ssrcs
    assert video_2.repairs == {repair: media}
    assert {codec.name for codec in video_2.codecs} >= {"vp8", "h264", "rtx"}
    rtx = next(codec for codec in video_2.codecs if codec.name == "rtx")
    assert rtx.apt == 96
    assert data.ice == video_2.ice is not None
    assert video_2.fingerprints[0].algorithm == "sha-256"


def test_an_unpublished_track_leaves_its_m_line_silent() -> None:
    silent = parse_offer((OFFERS / "livekit-unpublished.sdp").read_text()).sections[4]
    assert not silent.sends
    assert silent.ssrcs == ()


def test_a_payload_type_that_is_written_in_two_ways_is_one_codec() -> None:
    text = build_offer(
        [OfferedTrack("0", MediaKind.VIDEO, "TR_cam", ssrc=1002)], ["a=ice-ufrag:abcd", "a=ice-pwd:" + "p" * 22]
    )
    codecs = parse_offer(text).sections[0].codecs
    assert parse_offer(text.replace(" 96 ", " 96 96 096 ", 1)).sections[0].codecs == codecs


def test_session_level_values_hold_for_all_m_lines() -> None:
    fingerprint = "a=fingerprint:SHA-256 " + ":".join(["ab"] * 32)
    text = offer().replace("t=0 0", f"t=0 0\r\n{fingerprint}\r\na=setup:passive\r\na=ice-lite")
    parsed = parse_offer(text)
    assert parsed.ice_lite
    assert parsed.sections[0].setup == "passive"
    assert parsed.sections[0].fingerprints[0].value == ":".join(["AB"] * 32)


@pytest.mark.parametrize(
    ("of_session", "of_line", "sends"),
    [("inactive", "", False), ("inactive", "a=sendonly\r\n", True), ("sendonly", "", True), ("", "", True)],
)
def test_a_direction_holds_for_m_lines_that_have_none(of_session: str, of_line: str, sends: bool) -> None:
    """RFC 8866 section 6.7: sendrecv where nothing says so."""
    head = f"t=0 0\r\na={of_session}" if of_session else "t=0 0"
    text = offer().replace("t=0 0", head).replace("a=sendonly\r\n", of_line)
    assert parse_offer(text).sections[0].sends is sends


def test_an_m_line_that_is_offered_within_the_bundle_only_is_not_rejected() -> None:
    assert parse_offer(offer("a=bundle-only").replace("m=audio 9", "m=audio 0")).sections[0].sends
    assert not parse_offer(offer().replace("m=audio 9", "m=audio 0")).sections[0].sends


@pytest.mark.parametrize(
    "line",
    [
        "a=ssrc:none",
        "a=ssrc:99999999999 cname:x",
        "a=ssrc-group:FID 1",
        "a=ssrc-group:FID 1 99999999999999999999999999",
        "a=ssrc-group:FID ١ ٢",
        "a=extmap:15 urn:x",
        "a=extmap:3/recvonly urn:x attributes follow",
        "a=extmap:x",
        "a=rtpmap:111",
        "a=rtpmap:999 opus/48000",
        "a=fmtp:111",
        "a=rtcp-fb:* nack",
        "a=fingerprint:sha-256 zz",
        "a=sctp-port:70000",
        "a=candidate:",
        "a=",
        "a=:",
        "b=AS:1000000",
        "x=unknown",
        "no equals sign",
    ],
)
def test_an_odd_attribute_does_not_cost_the_call(line: str) -> None:
    section = parse_offer(offer(line)).sections[0]
    assert section.ssrcs == (1001,)
    assert [codec.name for codec in section.codecs] == ["opus"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("", "v=0", id="empty"),
        pytest.param("hello", "v=0", id="not SDP"),
        pytest.param("v=0\r\ns=-\r\n", "no m-line", id="no m-line"),
        pytest.param(offer() + "m=video\r\n", "cannot be read", id="cut m-line"),
        pytest.param(offer() + "m=video 70000 RTP/SAVPF 96\r\n", "cannot be read", id="port"),
        pytest.param(offer() + "m=video 9 RTP/SAVPF  \r\na=mid:v\r\n", "cannot be read", id="formats of blanks"),
        pytest.param(offer().replace("a=mid:0", "a=mid:"), "has no mid", id="empty mid"),
        pytest.param(offer().replace("a=mid:0", "a=mid:a b"), "has no mid", id="mid that is no token"),
        pytest.param(offer() + "m=video 9 RTP/SAVPF 96\r\na=mid:0\r\n", "twice", id="repeated mid"),
        pytest.param(offer("a=x:\x00"), "control", id="NUL"),
        pytest.param(offer() + "a=x\r\n" * 1000, "more than 1000 lines", id="long m-line"),
        pytest.param("v=0\r\n" + "m=audio 9 RTP/SAVPF 0\r\n" * (MAX_SECTIONS + 1), "more than 2000", id="m-lines"),
        pytest.param("v" * (MAX_SDP_CHARACTERS + 1), "at most", id="size"),
    ],
)
def test_what_cannot_be_answered_is_refused(text: str, message: str) -> None:
    with pytest.raises(ParseError, match=message):
        parse_offer(text)


RECORDED = (OFFERS / "livekit-two-people.sdp").read_text()


def test_a_call_of_a_thousand_people_with_cameras_is_read() -> None:
    """LiveKit describes the whole call in each offer: one that is refused costs all of them, again and again."""
    head, _, audio, video, *_ = re.split(r"(?m)^(?=m=)", RECORDED)
    sections = (re.sub(r"a=mid:\S+", f"a=mid:{n}", (audio, video)[n % 2]) for n in range(MAX_SECTIONS))
    assert len(parse_offer(head + "".join(sections)).sections) == MAX_SECTIONS


def test_m_lines_that_stand_as_before_are_not_read_again() -> None:
    reader = OfferReader()
    first, again = reader.read(RECORDED), reader.read(RECORDED.replace("s=-", "s=again"))
    assert again == first
    assert all(new is old for new, old in zip(again.sections, first.sections, strict=True))
    changed = reader.read(RECORDED.replace("a=mid:3", "a=mid:3\r\na=inactive", 1))
    assert [new is old for new, old in zip(changed.sections, first.sections, strict=True)] == [
        True,
        True,
        True,
        False,
        True,
    ]


def test_what_holds_for_all_m_lines_is_read_again_where_it_changes() -> None:
    reader = OfferReader()
    assert reader.read(offer()).sections[0].setup == "actpass"
    assert reader.read(offer().replace("t=0 0", "t=0 0\r\na=setup:passive")).sections[0].setup == "passive"


@settings(max_examples=100)
@given(
    st.lists(
        st.tuples(st.integers(0, 4), st.integers(0, 3), st.sampled_from(["", "\n", "\r\n", "m=", "a=mid:0"])),
        max_size=12,
    )
)
def test_offers_of_a_connection_are_read_like_the_only_one(changes: list[tuple[int, int, str]]) -> None:
    """M-lines come, go, change places, and some offers are refused."""
    head, *blocks = re.split(r"(?m)^(?=m=)", RECORDED)
    reader = OfferReader()
    for leaves_out, moves, junk in changes:
        kept = blocks[:leaves_out] + blocks[leaves_out + 1 :]
        text = head + "".join(kept[moves:] + kept[:moves]) + junk
        try:
            expected = parse_offer(text)
        except ParseError as error:
            with pytest.raises(ParseError, match=re.escape(str(error))):
                reader.read(text)
        else:
            assert reader.read(text) == expected


@settings(max_examples=300)
@given(data=st.data())
def test_mutated_offers_raise_parse_error_only(data: st.DataObject) -> None:
    text = RECORDED
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text)))
        drop = data.draw(st.integers(0, 40))
        text = text[:at] + data.draw(st.text(max_size=12)) + text[at + drop :]
    try:
        parse_offer(text)
    except ParseError:
        return


@given(st.text(max_size=300))
def test_junk_raises_parse_error_only(text: str) -> None:
    for candidate in (text, "v=0\r\n" + text, "v=0\r\nm=audio 9 RTP/SAVPF 0\r\na=mid:0\r\n" + text):
        try:
            parse_offer(candidate)
        except ParseError:
            continue
