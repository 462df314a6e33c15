"""What a batch of datagrams becomes: decrypted RTP in runs, everything else in its place between them."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator

import pytest
from aioice import stun
from pylibsrtp import Policy, Session

from isotrack_recorder.rtp.packet import Buffer, Header, Packet, build_packet, parse_packet
from isotrack_recorder.webrtc.batch import SLOTS, enlarge_receive_buffer
from isotrack_recorder.webrtc.drain import Drain
from support.rtp import sender_report

KEY = os.urandom(44)


def session(ssrc_type: int) -> Session:
    return Session(Policy(key=KEY, ssrc_type=ssrc_type, srtp_profile=Policy.SRTP_PROFILE_AEAD_AES_256_GCM))


class Log:
    """A receiver that notes what it is given, and in which order."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.batches = 0
        self.arrivals: list[int] = []

    def rtp(self, data: Buffer, start: int, end: int, arrival_ns: int) -> None:
        raise AssertionError("a drain hands on batches")

    def batch(
        self,
        data: Buffer,
        starts: Iterable[int],
        ends: Iterable[int],
        arrivals: Iterable[int],
        headers: Iterable[Header],
    ) -> None:
        self.batches += 1
        for start, end, arrival_ns, header in zip(starts, ends, arrivals, headers):
            packet = parse_packet(bytes(data[start:end]))
            assert header[1:4] == (packet.sequence, packet.timestamp, packet.ssrc)
            assert packet.payload == packet.sequence.to_bytes(2, "big") * 20
            self.seen.append(str(packet.sequence))
            self.arrivals.append(arrival_ns)

    def rtcp(self, data: Buffer, arrival_ns: int) -> None:
        self.seen.append("report")
        self.arrivals.append(arrival_ns)

    def refused(self) -> None:
        self.seen.append("refused")

    @property
    def lacks_packets(self) -> bool:
        raise AssertionError("a drain has no time")

    def tick(self, now_ns: int, send: Callable[[bytes], None]) -> int:
        raise AssertionError("a drain has no time")


class Wire:
    """A sender that encrypts, and a Drain at the other end."""

    def __init__(self, receiver: socket.socket, sender: socket.socket) -> None:
        self.log = Log()
        self.sender = sender
        self.drain = Drain(receiver, session(Policy.SSRC_ANY_INBOUND), self.log, self._other)
        self._encrypt = session(Policy.SSRC_ANY_OUTBOUND)

    def _other(self, data: bytes, source: tuple[str, int]) -> None:
        assert source == self.sender.getsockname()
        self.log.seen.append(data.decode())

    def packet(self, sequence: int) -> bytes:
        payload = sequence.to_bytes(2, "big") * 20
        return self._encrypt.protect(build_packet(Packet(96, sequence, sequence * 90, 7, False, {}, payload)))

    def report(self) -> bytes:
        return self._encrypt.protect_rtcp(sender_report(7, 1 << 32, 90))

    def send(self, *datagrams: bytes) -> None:
        for datagram in datagrams:
            self.sender.send(datagram)


@pytest.fixture
def wire() -> Iterator[Wire]:
    receiver, sender = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    receiver.bind(("127.0.0.1", 0))
    sender.connect(receiver.getsockname())
    made = Wire(receiver, sender)
    yield made
    made.drain.close()
    receiver.close()
    sender.close()


def test_order_is_kept_across_kinds(wire: Wire) -> None:
    damaged = bytearray(wire.packet(3))
    damaged[-1] ^= 1
    wire.send(
        wire.packet(1), wire.packet(2), wire.report(), bytes(damaged), wire.packet(4), b"\x16 dtls, long", b"short"
    )
    wire.send(b"\x80", wire.packet(5), wire.packet(6))
    assert wire.drain.read()[0] == 10
    assert wire.log.seen == ["1", "2", "report", "refused", "4", "\x16 dtls, long", "5", "6"]
    assert wire.log.batches == 3
    assert wire.log.arrivals == sorted(wire.log.arrivals)


def test_a_report_that_fails_authentication_is_refused(wire: Wire) -> None:
    report = bytearray(wire.report())
    report[-1] ^= 1
    wire.send(bytes(report), wire.packet(1))
    wire.drain.read()
    assert wire.log.seen == ["refused", "1"]


def test_stun_of_a_stranger_that_cannot_be_read_costs_nothing_behind_it(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reaches the socket could otherwise have each batch end with his datagram, and reading pause behind it."""
    stranger = struct.pack("!HHL12sHHH2x", 0x0001, 8, 0x2112A442, bytes(12), 0x0024, 2, 0)  # PRIORITY of two bytes
    with pytest.raises(struct.error):
        stun.parse_message(stranger)
    monkeypatch.setattr(wire.drain, "_other", lambda data, _: stun.parse_message(data))
    wire.send(wire.packet(1), stranger, wire.packet(2), wire.report())
    assert wire.drain.read()[0] == 4
    assert wire.log.seen == ["1", "refused", "2", "report"]


def test_much_is_read_in_portions_and_counted_as_one(wire: Wire) -> None:
    """Other work of the event loop gets its turn between them; the pause afterwards is for the rate of all."""
    enlarge_receive_buffer(wire.drain._socket, 8 << 20)
    began = time.monotonic_ns()
    wire.send(*(wire.packet(number) for number in range(SLOTS + 3)))
    assert wire.drain.read() == (SLOTS, 0)
    assert len(wire.log.seen) == SLOTS
    read_ns = time.monotonic_ns()
    packets, since_ns = wire.drain.read()
    assert packets == SLOTS + 3
    assert since_ns >= read_ns - began
    assert len(wire.log.seen) == packets
    assert wire.drain.read()[0] == 0
