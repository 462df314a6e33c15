"""MediaSession against a sender on loopback: real ICE, DTLS and SRTP."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from isotrack_api.base import MediaKind
from isotrack_recorder.errors import ParseError
from isotrack_recorder.rtp.packet import Packet
from isotrack_recorder.spool.records import Flag
from isotrack_recorder.webrtc import transport
from isotrack_recorder.webrtc.sdp import parse_offer
from isotrack_recorder.webrtc.session import MediaSession, MediaSettings
from support.rtp import (
    MID,
    OPUS,
    REPAIRED_RID,
    RID,
    UNKNOWN,
    Listening,
    OfferedTrack,
    Sender,
    packetize,
    sender_report,
    vp8_frame,
    vp8_packets,
)

AUDIO = OfferedTrack("0", MediaKind.AUDIO, "TR_mic", ssrc=1001)
VIDEO = OfferedTrack("1", MediaKind.VIDEO, "TR_cam", ssrc=2001, rtx_ssrc=2002)
SETTINGS = MediaSettings(addresses=("127.0.0.1",))


class Call:
    """A sender and a session."""

    def __init__(self, settings: MediaSettings = SETTINGS, profile: str = "") -> None:
        self.listener = Listening()
        self.sender = Sender(profile)
        self.session = MediaSession(self.listener, settings)

    async def offer(self, *tracks: OfferedTrack) -> str:
        return await self.session.handle_offer(await self.sender.offer(tracks, data=True), {})

    async def connect(self, *tracks: OfferedTrack) -> None:
        await self.sender.accept(await self.offer(*tracks))
        async with asyncio.timeout(60):
            await self.session.connected.wait()

    def send_video(self, frame: bytes, *, sequence: int, timestamp: int, ssrc: int = 2001) -> list[Packet]:
        payloads = vp8_packets(frame, picture_id=sequence)
        packets = packetize(payloads, payload_type=96, sequence=sequence, timestamp=timestamp, ssrc=ssrc)
        for packet in packets:
            self.sender.send(packet)
        return packets

    @property
    def drained(self) -> bool:
        assert self.session._transport is not None
        return self.session._transport.drained

    async def close(self) -> None:
        await self.session.close()
        await self.sender.close()


@pytest.fixture
async def call() -> AsyncIterator[Call]:
    made = Call()
    yield made
    await made.close()


async def test_levels_of_sound_reach_the_sink_where_they_are_offered(call: Call) -> None:
    offered = replace(AUDIO, extensions={9: "urn:ietf:params:rtp-hdrext:ssrc-audio-level"})
    await call.connect(offered)
    for number in range(5):
        call.sender.send(Packet(111, number, number * 960, 1001, False, {9: bytes([0x80 | 30])}, b"\xf8\xff\xfe"))
    sink = call.listener.sinks["TR_mic"]
    await sink.wait_for(lambda sink: len(sink.frames) == 5)
    call.session.flush()
    assert [row[1:] for row in sink.loudness] == [(5, 30, 30, 5)]


async def test_empty_datagrams_of_a_stranger_do_not_disturb_the_handshake(call: Call) -> None:
    answer = await call.offer(AUDIO)
    address, port = next(s for s in parse_offer(answer).sections if s.port).candidates[0].split()[4:6]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for _ in range(3):
            stranger.sendto(b"", (address, int(port)))
        await call.sender.accept(answer)
        async with asyncio.timeout(60):
            await call.session.connected.wait()
    call.sender.send(Packet(111, 0, 0, 1001, False, {}, b"\xf8\xff\xfe"))
    await call.listener.sinks["TR_mic"].wait_for(lambda sink: len(sink.frames) == 1)


async def test_a_handshake_that_fails_unforeseen_is_a_lost_connection_and_nobody_else_s_error(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> bool:
        raise IndexError("index out of range")

    monkeypatch.setattr(transport.Transport, "connect", fail)
    await call.offer(AUDIO)
    async with asyncio.timeout(60):
        assert await asyncio.shield(call.session.closed) == "ICE or DTLS failed"
    await call.session.close()


async def test_frames_of_audio_and_video_reach_their_sinks(call: Call) -> None:
    await call.connect(AUDIO, VIDEO)
    frames = [vp8_frame(n, key=n == 0, size=3000) for n in range(10)]
    sequence = 65530
    for number, frame in enumerate(frames):
        packets = packetize(
            vp8_packets(frame, picture_id=number),
            payload_type=96,
            sequence=sequence,
            timestamp=number * 3000,
            ssrc=2001,
        )
        sequence += len(packets)
        for packet in packets:
            call.sender.send(packet)
        for packet in packetize(
            [bytes([0xF8, number])], payload_type=111, sequence=number, timestamp=number * 960, ssrc=1001
        ):
            call.sender.send(packet)
    call.sender.send_rtcp(sender_report(2001, 0xE0000000_80000000, 9 * 3000))
    camera, microphone = call.listener.sinks["TR_cam"], call.listener.sinks["TR_mic"]
    await camera.wait_for(lambda sink: len(sink.frames) == 10 and bool(sink.reports))
    await microphone.wait_for(lambda sink: len(sink.frames) == 10)
    assert camera.data == frames
    assert [frame[0] for frame in camera.frames] == [n * 3000 for n in range(10)]
    assert camera.frames[0][2] == Flag.KEY | Flag.DISCONTINUITY
    assert {frame[2] for frame in camera.frames[1:]} == {0}
    assert camera.sizes == [(0, 640, 360, 0)]
    assert camera.reports[0][:2] == (0xE0000000_80000000, 27000)
    assert camera.codecs[0].name == "vp8"
    assert microphone.data == [bytes([0xF8, n]) for n in range(10)]
    assert not camera.gaps
    assert not microphone.gaps
    assert call.drained


async def test_rtx_of_simulcast_finds_its_encoding_by_what_it_names(call: Call) -> None:
    """No SSRC is announced: streams are told apart by MID and RtpStreamId, RTX by RepairedRtpStreamId (RFC 8852)."""
    await call.connect(replace(VIDEO, ssrc=0, rtx_ssrc=0, extensions={4: MID, 10: RID, 11: REPAIRED_RID}))
    frame = vp8_frame(0, key=True, size=4000)
    packets = packetize(vp8_packets(frame, picture_id=0), payload_type=96, sequence=100, timestamp=0, ssrc=7001)
    first, lost, *rest = (packet._replace(extensions={4: b"1", 10: b"f"}) for packet in packets)
    for packet in (first, *rest):
        call.sender.send(packet)
    for rid, ssrc, payload in (("q", 9001, b"\x10 of another encoding"), ("f", 9002, lost.payload)):
        original = struct.pack("!H", lost.sequence) + payload
        named = {4: b"1", 11: rid.encode()}
        call.sender.send(Packet(97, 1, 0, ssrc, lost.marker, named, original))
    sink = call.listener.sinks["TR_cam"]
    await sink.wait_for(lambda sink: bool(sink.frames))
    assert sink.data == [frame]


async def test_two_hundred_people_each_reach_their_own_sink(call: Call) -> None:
    """Four hundred m-lines in one offer and in the next one, which half of them leave."""

    def person(n: int) -> list[OfferedTrack]:
        sound = OfferedTrack(f"a{n}", MediaKind.AUDIO, f"TR_a{n}", ssrc=10_000 + n)
        return [sound, OfferedTrack(f"v{n}", MediaKind.VIDEO, f"TR_v{n}", ssrc=20_000 + n, rtx_ssrc=30_000 + n)]

    def speak(n: int, number: int) -> None:
        call.sender.send(Packet(111, number, number * 960, 10_000 + n, False, {}, b"%d of a%d" % (number, n)))
        call.send_video(vp8_frame(n, key=True), sequence=number, timestamp=number * 3000, ssrc=20_000 + n)

    everybody = [person(n) for n in range(200)]
    await call.connect(*(track for tracks in everybody for track in tracks))
    sinks = call.listener.sinks
    for n in range(200):
        speak(n, 0)
        await asyncio.sleep(0)
    for n in range(200):
        for name in (f"TR_a{n}", f"TR_v{n}"):
            await sinks[name].wait_for(lambda sink: len(sink.frames) == 1)
        assert sinks[f"TR_a{n}"].data == [b"0 of a%d" % n]
        assert sinks[f"TR_v{n}"].data == [vp8_frame(n, key=True)]
    await call.offer(
        *(replace(track, direction="inactive") if n % 2 else track for n in range(200) for track in everybody[n])
    )
    for n in range(200):
        speak(n, 1)
        await asyncio.sleep(0)
    for n in range(0, 200, 2):
        await sinks[f"TR_v{n}"].wait_for(lambda sink: len(sink.frames) == 2)
    assert {len(sinks[f"TR_v{n}"].frames) for n in range(1, 200, 2)} == {1}


async def test_packets_that_aiortc_hands_over_take_the_same_way(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "supported", lambda: False)
    await call.connect(AUDIO, VIDEO)
    assert not call.drained
    call.send_video(vp8_frame(0, key=True, size=5000), sequence=0, timestamp=0)
    call.sender.send_rtcp(sender_report(2001, 1 << 32, 0))
    await call.listener.sinks["TR_cam"].wait_for(lambda sink: bool(sink.frames and sink.reports))
    assert call.listener.sinks["TR_cam"].data == [vp8_frame(0, key=True, size=5000)]


@pytest.mark.parametrize("profile", ["SRTP_AEAD_AES_256_GCM", "SRTP_AEAD_AES_128_GCM", "SRTP_AES128_CM_SHA1_80"])
async def test_each_srtp_profile_is_read(profile: str) -> None:
    call = Call(profile=profile)
    try:
        await call.connect(VIDEO)
        assert call.sender.profile == profile
        call.send_video(vp8_frame(0, key=True, size=5000), sequence=0, timestamp=0)
        await call.listener.sinks["TR_cam"].wait_for(lambda sink: bool(sink.frames))
        assert call.listener.sinks["TR_cam"].data == [vp8_frame(0, key=True, size=5000)]
    finally:
        await call.close()


async def test_nothing_is_read_ahead_of_what_asyncio_has_read(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ticker's wish to read may come right after the connection; a stream would begin behind its own first packets."""
    reads: list[float] = []
    monkeypatch.setattr(transport, "FIRST_READ_SECONDS", 60.0)
    monkeypatch.setattr(transport.Drain, "read", lambda _: reads.append(0) or (0, 0))
    await call.connect(AUDIO)
    call.session.receive()
    assert reads == []


async def test_losses_are_repaired_over_the_wire(call: Call) -> None:
    """Every tenth packet is lost, the sender answers requests by RTX: nothing is missing in the end."""
    await call.connect(VIDEO)
    rng = random.Random(3)
    history: dict[int, Packet] = {}
    rtx_sequence = 0

    def answer(data: bytes) -> None:
        nonlocal rtx_sequence
        if data[:2] != b"\x81\xcd":
            return
        for offset in range(12, len(data), 4):
            first, more = struct.unpack_from("!HH", data, offset)
            for sequence in [first] + [(first + 1 + bit) & 0xFFFF for bit in range(16) if more >> bit & 1]:
                lost = history[sequence]
                body = struct.pack("!H", sequence) + lost.payload
                call.sender.send(
                    lost._replace(payload_type=97, ssrc=2002, sequence=rtx_sequence & 0xFFFF, payload=body)
                )
                rtx_sequence += 1

    call.sender.on_rtcp = answer
    frames = [vp8_frame(n, key=n == 0, size=5000) for n in range(60)]
    sequence = 65_500
    for number, frame in enumerate(frames):
        payloads = vp8_packets(frame, picture_id=number)
        for packet in packetize(payloads, payload_type=96, sequence=sequence, timestamp=number * 3000, ssrc=2001):
            history[packet.sequence] = packet
            if number in (0, 59) or rng.random() > 0.1:
                call.sender.send(packet)
        sequence += len(payloads)
        await asyncio.sleep(0)
    camera = call.listener.sinks["TR_cam"]
    await camera.wait_for(lambda sink: len(sink.frames) == 60)
    assert camera.data == frames
    assert not camera.gaps
    assert call.session.counters()["TR_cam"].recovered > 10


async def test_missing_sound_is_asked_for_although_no_repair_was_offered(call: Call) -> None:
    """LiveKit offers NACK for sound only where there is no RED, and answers requests all the same."""
    await call.connect(replace(AUDIO, codecs=(replace(OPUS, feedback=()),)))
    for sequence in (0, 2):
        call.sender.send(Packet(111, sequence, sequence * 960, 1001, False, {}, b"\xf8\xff\xfe"))
    async with asyncio.timeout(60):
        while (told := await call.sender.rtcp.get())[:2] != b"\x81\xcd":
            pass
    assert struct.unpack("!LHH", told[8:16]) == (1001, 1, 0)


async def test_a_key_frame_is_asked_for_once_connected(call: Call) -> None:
    await call.connect(VIDEO)
    async with asyncio.timeout(60):
        while (await call.sender.rtcp.get())[:2] != b"\x81\xce":
            pass


async def test_a_later_offer_reuses_an_m_line_for_another_track(call: Call) -> None:
    await call.connect(AUDIO, VIDEO)
    call.send_video(vp8_frame(0, key=True), sequence=0, timestamp=0)
    await call.listener.sinks["TR_cam"].wait_for(lambda sink: bool(sink.frames))
    await call.offer(AUDIO, replace(VIDEO, direction="inactive"))
    await call.offer(AUDIO, replace(VIDEO, track_id="TR_new", ssrc=3001, rtx_ssrc=3002))
    call.send_video(vp8_frame(1, key=True), sequence=500, timestamp=9, ssrc=3001)
    await call.listener.sinks["TR_new"].wait_for(lambda sink: bool(sink.frames))
    assert call.listener.sinks["TR_cam"].data == [vp8_frame(0, key=True)]
    assert call.listener.sinks["TR_new"].sources == [(3001, 9)]


async def test_the_mapping_of_the_sfu_goes_before_msid(call: Call) -> None:
    text = await call.sender.offer([AUDIO, VIDEO])
    await call.session.handle_offer(text, {"1": "TR_mapped"})
    assert call.listener.opened == ["TR_mic", "TR_mapped"]


async def test_a_track_that_cannot_be_recorded_is_told_once_and_the_rest_goes_on(call: Call) -> None:
    await call.connect(AUDIO, replace(VIDEO, codecs=(UNKNOWN,)))
    await call.offer(AUDIO, replace(VIDEO, codecs=(UNKNOWN,)))
    assert call.listener.unsupported == [("TR_cam", MediaKind.VIDEO, "x-future,rtx")]
    assert call.listener.opened == ["TR_mic"]


async def test_candidates_may_come_before_and_after_the_offer(call: Call) -> None:
    text = await call.sender.offer([VIDEO], candidates=False)
    first = call.sender.candidates()[0]
    await call.session.add_candidate("candidate:7 1 tcp 1 127.0.0.1 9 typ host tcptype active")
    await call.session.add_candidate("candidate:8 1 udp 1 someone.local 9 typ host")
    await call.session.add_candidate("candidate:9 1 udp 1 127.0.0.1 70000 typ host")
    await call.session.add_candidate("candidate:10 1 udp x 127.0.0.1 1 typ host")
    answer = await call.session.handle_offer(text + "a=candidate:11 x\r\n", {})
    await call.session.add_candidate("candidate:" + first + " ufrag abcd")
    await call.session.add_candidate("")
    await call.sender.accept(answer)
    async with asyncio.timeout(60):
        await call.session.connected.wait()


async def test_the_end_of_the_other_side_is_noticed(call: Call) -> None:
    await call.connect(VIDEO)
    await call.sender.close()
    async with asyncio.timeout(60):
        assert "dtls closed" in await call.session.closed


async def test_an_ice_restart_ends_the_connection(call: Call) -> None:
    await call.connect(VIDEO)
    other = Sender()
    await call.session.handle_offer(await other.offer([VIDEO]), {})
    assert "ICE restart" in call.session.closed.result()
    await other.close()


async def test_a_silent_sfu_ends_the_attempt() -> None:
    call = Call(replace(SETTINGS, connect_timeout_seconds=0.2))
    await call.offer(VIDEO)
    async with asyncio.timeout(60):
        assert "time limit" in await call.session.closed
    await call.close()


@pytest.mark.parametrize("text", ["", "v=0", "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n"])
async def test_offers_that_cannot_be_answered_are_refused(call: Call, text: str) -> None:
    with pytest.raises(ParseError):
        await call.session.handle_offer(text, {})


@pytest.mark.parametrize("text", ["x", "1 1 udp x 127.0.0.1 1 typ host", "1 x udp 1 127.0.0.1 1 typ host"])
async def test_a_candidate_that_cannot_be_read_is_refused(call: Call, text: str) -> None:
    await call.offer(VIDEO)
    with pytest.raises(ParseError):
        await call.session.add_candidate(text)


async def test_closing_gives_what_is_held_and_can_be_repeated(call: Call) -> None:
    """Also what the kernel holds at that moment, unread."""
    await call.connect(AUDIO)
    for number in (0, 2):
        for packet in packetize([b"\xf8"], payload_type=111, sequence=number, timestamp=number * 960, ssrc=1001):
            call.sender.send(packet)
    await call.session.close()
    await call.session.close()
    assert len(call.listener.sinks["TR_mic"].frames) == 2
    assert call.session.closed.result() == "closed"


@pytest.mark.parametrize("turns", [1, 2])
async def test_who_closes_while_it_connects_can_be_cancelled_and_all_is_closed(call: Call, turns: int) -> None:
    """Whoever took that for the end of the handshake would go on with a call that is over."""
    await call.offer(VIDEO)
    closing = asyncio.create_task(call.session.close())
    for _ in range(turns):
        await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert call.session.closed.result() == "closed"


async def test_closing_does_not_wait_for_a_handshake_that_misses_its_cancellation(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`asyncio.wait_for` of Python 3.11, in which DTLS waits, forgets one that comes along with a datagram."""
    begun = asyncio.Event()

    async def misses(*_: object, **__: object) -> bool:
        begun.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.Event().wait()
        return False

    monkeypatch.setattr(transport.Transport, "connect", misses)
    await call.offer(AUDIO)
    await begun.wait()
    async with asyncio.timeout(SETTINGS.connect_timeout_seconds / 2):
        await call.session.close()


async def test_what_is_missing_may_still_come_before_the_end(call: Call) -> None:
    await call.connect(AUDIO)
    packets = [Packet(111, number, number * 960, 1001, False, {}, b"\xf8\xff\xfe") for number in range(3)]

    def answer(data: bytes) -> None:
        if data[:2] == b"\x81\xcd":
            call.sender.send(packets[1])

    call.sender.on_rtcp = answer
    call.sender.send(packets[0])
    call.sender.send(packets[2])
    await call.session.settle(20)
    await call.session.close()
    assert len(call.listener.sinks["TR_mic"].frames) == 3


async def test_the_end_does_not_wait_for_what_never_comes(call: Call) -> None:
    await call.connect(AUDIO)
    for number in (0, 2):
        call.sender.send(Packet(111, number, number * 960, 1001, False, {}, b"\xf8\xff\xfe"))
    await call.session.settle(0.05)
    await call.session.close()
    assert len(call.listener.sinks["TR_mic"].frames) == 2


async def test_a_sink_may_forget_its_track_amid_a_batch(call: Call) -> None:
    """The rest of the batch is dropped, and reading goes on at its pace."""
    await call.connect(AUDIO, VIDEO)
    microphone, camera = call.listener.sinks["TR_mic"], call.listener.sinks["TR_cam"]
    camera.codec = lambda _: call.session.forget_track("TR_cam")  # type: ignore[method-assign, assignment]
    for number in range(5):
        call.send_video(vp8_frame(number, key=True), sequence=number, timestamp=number * 3000)
        for packet in packetize([b"\xf8"], payload_type=111, sequence=number, timestamp=number * 960, ssrc=1001):
            call.sender.send(packet)
    await microphone.wait_for(lambda sink: len(sink.frames) == 5)
    assert len(camera.frames) <= 1
    assert not call.session.closed.done()


async def test_junk_on_the_socket_is_counted_and_harmless(call: Call) -> None:
    await call.connect(VIDEO)
    rng = random.Random(1)
    for first in (*range(0, 256, 5), 128, 129, 144):
        call.sender.send_raw(bytes([first]) + rng.randbytes(rng.randrange(1, 1400)))
    call.send_video(vp8_frame(0, key=True), sequence=0, timestamp=0)
    await call.listener.sinks["TR_cam"].wait_for(lambda sink: bool(sink.frames))
    assert call.session._plane.counters.refused > 10
    assert not call.session.closed.done()
