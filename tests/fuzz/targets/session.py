"""Signalling: SDP offers and our answers, LiveKit's protobuf messages, what it says when it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from google.protobuf.message import DecodeError
from livekit.protocol import rtc

from fuzz.harness import Harness, as_text, parts
from isotrack_recorder.errors import CallNotFoundError, ParseError, SourceError, SourceRefusedError
from isotrack_recorder.sources.base import (
    Event,
    ParticipantLeft,
    ParticipantSeen,
    TrackEnded,
    TrackMuted,
    TrackRefused,
    TrackSeen,
)
from isotrack_recorder.sources.livekit.policy import judge_join, read_first_leave, read_leave, read_refusal
from isotrack_recorder.sources.livekit.roster import (
    MAX_NAME,
    MAX_PARTICIPANTS,
    MAX_PEER_ID,
    MAX_TRACK_ID,
    MAX_TRACKS,
    MAX_USER_ID,
    Roster,
    fold,
)
from isotrack_recorder.webrtc.answer import AnswerWriter, LocalTransport, plan_answer
from isotrack_recorder.webrtc.sdp import MAX_CANDIDATES, MAX_SECTIONS, Fingerprint, IceParameters, parse_offer

_SDP_TOKENS = tuple(
    text.encode()
    for text in (
        *("v=0\r\n", "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n", "m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\n"),
        *("m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n", "a=mid:", "a=group:BUNDLE ", "a=rtpmap:", "a=fmtp:"),
        *("a=rtcp-fb:* nack\r\n", "a=extmap:", "a=ssrc:", "a=ssrc-group:FID ", "a=candidate:", "a=ice-ufrag:", "a=ice-pwd:"),
        *("a=fingerprint:sha-256 ", "a=setup:", "a=inactive\r\n", "a=sendonly\r\n", "a=msid:", "apt=", "\r\n", "\n", "\r"),
        *("opus/48000/2", "VP8/90000", "H264/90000", "rtx/90000", "²", "\u2028", "0", "65536", "4294967296"),
    )
)  # fmt: skip
_LOCAL = LocalTransport(
    IceParameters("abcd", "a" * 24), (Fingerprint("sha-256", ":".join(["AB"] * 32)),), "active", ("1 1 udp 1 127.0.0.1 9 typ host",)
)  # fmt: skip


def harnesses() -> Iterator[Harness]:
    """All of this module."""
    yield Harness("sdp", fuzz_sdp, tokens=_SDP_TOKENS, text=True)
    yield Harness("livekit-signalling", fuzz_signalling)
    yield Harness("livekit-refusal", fuzz_refusal, max_bytes=512, text=True)


def fuzz_sdp(data: bytes) -> None:
    """An offer is refused as a whole or answered; the answer reads as SDP, m-line for m-line."""
    text = as_text(data)
    try:
        offer = parse_offer(text)
    except ParseError:
        return
    assert 0 < len(offer.sections) <= MAX_SECTIONS
    assert all(len(section.candidates) <= MAX_CANDIDATES for section in offer.sections)
    plans = plan_answer(offer)
    answer = parse_offer(AnswerWriter(_LOCAL, 1).write(offer, plans))
    assert [section.mid for section in answer.sections] == [section.mid for section in offer.sections]
    assert [section.media for section in answer.sections] == [section.media for section in offer.sections]
    for plan, section in zip(plans, answer.sections, strict=True):
        assert (section.port != 0) == plan.accepted
        assert section.kind is None or not section.sends
        types = [codec.payload_type for codec in section.codecs]
        assert types == [codec.payload_type for codec in plan.codecs]
    assert set(answer.bundle) <= set(offer.bundle)


def fuzz_signalling(data: bytes) -> None:
    """Messages in a row fold into a bounded roster; every text that comes out is bounded."""
    roster = Roster()
    for piece, _ in parts(data):
        try:
            message = rtc.SignalResponse.FromString(piece)
        except DecodeError:
            continue
        roster, events = fold(roster, message)
        for event in events:
            _check_event(event)
        if message.WhichOneof("message") == "leave":
            read_leave(message.leave)
            with suppress(CallNotFoundError, SourceRefusedError):
                read_first_leave(message.leave, joined_before=False)
        if message.WhichOneof("message") == "join":
            judge_join(message.join, "RM_1", {"alice"})
    assert len(roster.peers) <= MAX_PARTICIPANTS
    assert all(len(peer.tracks) <= MAX_TRACKS for peer in roster.peers.values())
    assert len(roster.user_ids) <= len(roster.peers)
    assert roster.own_id not in roster.peers


def _check_event(event: Event) -> None:
    if isinstance(event, ParticipantSeen):
        assert 0 < len(event.peer_id) <= MAX_PEER_ID
        assert 0 < len(event.user_id) <= MAX_USER_ID
        assert len(event.name) <= MAX_NAME
    elif isinstance(event, ParticipantLeft):
        assert len(event.reason) <= 64
    elif isinstance(event, TrackSeen):
        assert 0 < len(event.track_id) <= MAX_TRACK_ID
        assert 0 < len(event.peer_id) <= MAX_PEER_ID
    else:
        assert isinstance(event, TrackEnded | TrackMuted | TrackRefused)
        assert len(event.track_id) <= MAX_TRACK_ID


def fuzz_refusal(data: bytes) -> None:
    """Any answer to a join becomes an error of ours, one line, cut."""
    status = int.from_bytes(data[:2], "big")
    error = read_refusal(status, as_text(data[2:]))
    assert isinstance(error, SourceError)
    assert "\n" not in str(error)
    assert len(str(error)) < 400
