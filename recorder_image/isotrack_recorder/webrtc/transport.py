"""ICE, DTLS and SRTP of one connection; the only module that imports aiortc and aioice.

aiortc provides the handshakes. Packets take one of two ways to the plane:

    drained   Once a pair of plain UDP addresses is nominated and DTLS is up, the socket is taken from asyncio: a
              timer reads whole batches (webrtc.drain), decrypts them in place and hands RTP and RTCP on; STUN and DTLS
              datagrams go back to aioice. Between batches the process sleeps (webrtc.pump).
    handed    Everything else (TURN, other systems, an asyncio loop without the private hook, a pair that is
              nominated later): aiortc's own receive task calls `_handle_rtp_data` and `_handle_rtcp_data`.

Both may be in use at once. A Transport is started once and closed once; an ICE restart needs a new one. Names of
aiortc, aioice and pylibsrtp that are not public are listed in PRIVATE_NAMES, which a test holds against the pinned
versions.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from aioice import Candidate, Connection
from aioice.ice import CandidatePair, StunProtocol
from aioice.stun import Message
from aiortc import RTCCertificate, RTCDtlsTransport, RTCIceGatherer, RTCIceTransport
from aiortc.rtcdtlstransport import RTCDtlsFingerprint, RTCDtlsParameters
from aiortc.rtcicetransport import RTCIceParameters
from pylibsrtp import Error as SrtpError

from isotrack_recorder.errors import ParseError
from isotrack_recorder.webrtc.answer import LocalTransport
from isotrack_recorder.webrtc.batch import enlarge_receive_buffer, supported
from isotrack_recorder.webrtc.drain import MIN_RTP_BYTES, Drain, PacketReceiver
from isotrack_recorder.webrtc.pump import PausePolicy
from isotrack_recorder.webrtc.sdp import MAX_CANDIDATES, Fingerprint, IceParameters

log = logging.getLogger(__name__)
logging.getLogger("aioice").setLevel(logging.WARNING)  # it tells each check, with addresses, at INFO

PRIVATE_NAMES: Final = {
    "aiortc.RTCIceGatherer": ("_connection", "_remote_candidates_end"),
    "aiortc.RTCDtlsTransport": ("_handle_rtp_data", "_handle_rtcp_data", "_rx_srtp", "_tx_srtp", "_set_role"),
    "aioice.Connection": (
        "_check_list",
        "_local_candidates",
        "_local_candidates_start",
        "_local_candidates_end",
        "_nominated",
        "_protocols",
    ),
    "pylibsrtp.Session": ("_srtp",),
}
"""Class → attributes that we use although they are not public."""

FIRST_READ_SECONDS: Final = 0.005
QUIET_READS: Final = 3
"""Empty reads in a row after which we wait for the socket instead of the timer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportSettings:
    """How packets are received."""

    addresses: tuple[str, ...]
    """Local addresses on which candidates are gathered."""
    receive_buffer_bytes: int
    max_pause_ns: int
    calm_pause_ns: int
    idle_tick_ns: int


class _Connection(Connection):
    """aioice's agent on chosen addresses; aioice itself takes all interfaces and never loopback."""

    def __init__(self, addresses: Sequence[str]) -> None:
        super().__init__(ice_controlling=False)
        self._addresses = list(addresses)

    async def gather_candidates(self) -> None:
        """Gather host candidates."""
        if not self._local_candidates_start:
            self._local_candidates_start = True
            self._local_candidates += await self.get_component_candidates(component=1, addresses=self._addresses)
            self._local_candidates_end = True

    def data_received(self, data: bytes, component: int) -> None:
        """Take a datagram that is no STUN. Anybody may send empty ones: aiortc reads their first byte, and fails."""
        if data:
            super().data_received(data, component)

    def check_incoming(self, message: Message, addr: tuple[str, int], protocol: StunProtocol) -> None:
        """Take a check of the peer; while nothing is nominated, one of ours goes right behind the answer.

        aioice has one check per pair, and as we answer the offer it is on its way before the peer has begun. LiveKit (pion) nominates a
        pair when a check of ours finds its own answered; without one it looks again after 200 ms only.
        """
        pair = next((p for p in self._check_list if p.protocol is protocol and p.remote_addr == addr), None)
        begun = pair is not None and pair.state in (CandidatePair.State.IN_PROGRESS, CandidatePair.State.SUCCEEDED)
        super().check_incoming(message, addr, protocol)
        if pair is None or not begun or self.ice_controlling or self._nominated or pair.remote_nominated:
            return
        assert self.remote_password is not None
        again = self.build_request(pair, nominate=False)
        again.add_message_integrity(self.remote_password.encode())
        protocol.send_stun(again, addr)  # what is answered to it tells nothing new


class _Gatherer(RTCIceGatherer):
    def __init__(self, addresses: Sequence[str]) -> None:
        super().__init__(iceServers=[])
        self._connection = _Connection(addresses)


class _Dtls(RTCDtlsTransport):
    """Hands decrypted packets on instead of parsing them into objects."""

    def __init__(self, ice: RTCIceTransport, certificate: RTCCertificate, receiver: PacketReceiver) -> None:
        super().__init__(ice, [certificate])
        self._receiver = receiver
        self.packets = 0
        """RTP that came this way."""

    async def _handle_rtp_data(self, data: bytes, arrival_time_ms: int) -> None:  # noqa: ARG002 - ours is exact
        if len(data) >= MIN_RTP_BYTES:
            self.packets += 1
            self._receiver.rtp(data, 0, len(data), time.monotonic_ns())

    async def _handle_rtcp_data(self, data: bytes) -> None:
        self._receiver.rtcp(data, time.monotonic_ns())


class Transport:
    """See module."""

    def __init__(self, receiver: PacketReceiver, settings: TransportSettings, on_closed: Callable[[str], None]) -> None:
        """`on_closed` is called once, with the reason, when the connection is lost or closed by the other side."""
        self._receiver = receiver
        self._settings = settings
        self._on_closed = on_closed
        self._certificate = RTCCertificate.generateCertificate()
        self._gatherer = _Gatherer(settings.addresses)
        self._ice = RTCIceTransport(self._gatherer)
        self._dtls = _Dtls(self._ice, self._certificate, receiver)
        self._drain: Drain | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closing = False
        self._buffer_bytes = 0
        self._policy = PausePolicy(settings.max_pause_ns, settings.calm_pause_ns, 0)
        self._watching = False
        self._quiet_reads = 0
        self._handed = 0
        self._ticking = False
        self.reads = False
        """The first read was, or is."""
        self._failed = False
        self._remote_candidates = 0
        self._ice.on("statechange", self._state_changed)
        self._dtls.on("statechange", self._state_changed)

    @property
    def drained(self) -> bool:
        """Whether packets are read in batches."""
        return self._drain is not None

    async def gather(self, setup: str) -> LocalTransport:
        """Open sockets; returns what the answer says of us. `setup` is our DTLS role, active or passive."""
        await self._gatherer.gather()
        for protocol in self._gatherer._connection._protocols:
            sock = protocol.transport.get_extra_info("socket")
            if sock is not None:
                self._buffer_bytes = enlarge_receive_buffer(sock, self._settings.receive_buffer_bytes)
        own = self._gatherer.getLocalParameters()
        assert own.usernameFragment is not None
        assert own.password is not None
        return LocalTransport(
            ice=IceParameters(own.usernameFragment, own.password),
            fingerprints=tuple(
                Fingerprint(f.algorithm, f.value)
                for f in self._certificate.getFingerprints()
                if f.algorithm == "sha-256"
            ),
            setup=setup,
            candidates=tuple(candidate.to_sdp() for candidate in self._gatherer._connection.local_candidates),
        )

    async def add_candidate(self, candidate: str) -> None:
        """Take a candidate of the SFU; empty = there are no more. Those that we cannot use are passed over.

        Raises:
            ParseError: Not an RFC 8839 candidate.
        """
        connection = self._gatherer._connection
        if not candidate:
            if not self._gatherer._remote_candidates_end:
                self._gatherer._remote_candidates_end = True
                await connection.add_remote_candidate(None)
            return
        try:
            parsed = Candidate.from_sdp(candidate)
        except ValueError as error:
            raise ParseError(f"candidate cannot be read: {candidate[:100]!r}") from error
        if not _usable(parsed) or self._gatherer._remote_candidates_end or self._remote_candidates >= MAX_CANDIDATES:
            return
        self._remote_candidates += 1
        await connection.add_remote_candidate(parsed)

    async def connect(self, ice: IceParameters, fingerprints: Sequence[Fingerprint], *, lite: bool, setup: str) -> bool:
        """Run ICE and DTLS; False where one of them fails. Afterwards packets flow until `close`."""
        # A full agent that answers is controlled, unless the other side is lite (RFC 8445 section 6.1.1)
        self._gatherer._connection.ice_controlling = lite
        await self._ice.start(RTCIceParameters(usernameFragment=ice.ufrag, password=ice.password, iceLite=lite))
        if self._ice.state != "completed":
            return False
        self._dtls._set_role("client" if setup == "active" else "server")
        prints = [RTCDtlsFingerprint(algorithm=f.algorithm, value=f.value) for f in fingerprints]
        await self._dtls.start(RTCDtlsParameters(fingerprints=prints))
        if self._dtls.state != "connected" or self._closing:
            return False
        self._take_socket()
        # NB: not at once. What asyncio read before is still in aiortc's queue and must come first, or a stream would
        # begin behind its own first packets.
        self._timer = asyncio.get_running_loop().call_later(FIRST_READ_SECONDS, self._tick)
        return True

    def send(self, data: bytes) -> None:
        """Encrypt and send RTCP; lost without a word when the socket is full or the connection gone."""
        pair = self._gatherer._connection._nominated.get(1)
        if pair is None or self._dtls.state != "connected":
            return
        try:
            pair.protocol.transport.sendto(self._dtls._tx_srtp.protect_rtcp(data), pair.remote_addr)
        except (OSError, SrtpError, ValueError):
            return

    def touch(self) -> None:
        """Read what is there and send what is due, now instead of after the pause."""
        if self._timer is not None and not self._closing and not self._ticking:
            self._timer.cancel()
            self._tick()

    async def close(self) -> None:
        """Say goodbye and release everything. May be called more than once."""
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._release_drain()
        await self._dtls.stop()
        await self._ice.stop()

    def _state_changed(self) -> None:
        if self._closing:
            return
        reason = None
        if self._ice.state in ("failed", "closed"):
            reason = f"ice {self._ice.state}"
        elif self._dtls.state in ("failed", "closed"):
            reason = f"dtls {self._dtls.state}"
        if reason is not None:
            self._on_closed(reason)

    def _take_socket(self) -> None:
        """Read batches where the pair and the system allow it."""
        pair = self._gatherer._connection._nominated.get(1)
        if pair is None or pair.local_candidate.type == "relay" or not supported():
            return
        sock = pair.protocol.transport.get_extra_info("socket")
        loop = asyncio.get_running_loop()
        if sock is None or not hasattr(loop, "_remove_reader"):
            return
        try:
            self._drain = Drain(sock, self._dtls._rx_srtp, self._receiver, pair.protocol.datagram_received)
        except OSError:  # a sandbox without receive timestamps
            return
        self._policy = PausePolicy(self._settings.max_pause_ns, self._settings.calm_pause_ns, self._buffer_bytes)
        # NB: after the Drain has its own descriptor of the socket; asyncio refuses public calls on a transport's own
        loop._remove_reader(sock.fileno())

    def _tick(self) -> None:
        """One timer drives reading while packets flow, and feedback always."""
        loop = asyncio.get_running_loop()
        pause_ns = 0
        self.reads = True
        self._ticking = True  # a sink may ask for a read amid one: there must be one timer, not two
        try:
            if self._drain is not None:
                pause_ns = self._read(self._drain, loop)
            handed, self._handed = self._dtls.packets - self._handed, self._dtls.packets
            allowed_ns = self._receiver.tick(time.monotonic_ns(), self.send)
            if handed and not pause_ns:
                pause_ns = self._settings.max_pause_ns
            if pause_ns or self._receiver.lacks_packets:
                pause_ns = min(pause_ns or allowed_ns, allowed_ns)
        except OSError as error:
            self._on_closed(f"socket failed: {os.strerror(error.errno or 0)}")
            return
        except Exception:
            # NB: the timer must live: without it nothing is read any more. One defect is told once, not at each tick
            if not self._failed:
                log.exception("media timer failed")
            self._failed = True
        finally:
            self._ticking = False
        self._timer = loop.call_later((pause_ns or self._settings.idle_tick_ns) / 1e9, self._tick)

    def _read(self, drain: Drain, loop: asyncio.AbstractEventLoop) -> int:
        """Read what is there; returns the pause, or 0 after asking to be woken by the next packet."""
        packets, since_ns = drain.read()
        pause_ns = self._policy.pause_ns(packets, since_ns)
        if pause_ns:
            self._quiet_reads = 0
        else:
            self._quiet_reads += 1
            if self._quiet_reads < QUIET_READS:
                pause_ns = self._settings.max_pause_ns
        watch = not pause_ns
        if watch and not self._watching:
            loop.add_reader(drain.fileno(), self.touch)
        elif self._watching and not watch:
            loop.remove_reader(drain.fileno())
        self._watching = watch
        return pause_ns

    def _release_drain(self) -> None:
        drain, self._drain = self._drain, None
        if drain is not None:
            if self._watching:
                asyncio.get_running_loop().remove_reader(drain.fileno())
                self._watching = False
            drain.close()


def _usable(candidate: Candidate) -> bool:
    """UDP to an address: there is no TCP here, and names (mDNS) would be looked up by multicast."""
    try:
        ipaddress.ip_address(candidate.host)
    except ValueError:
        return False
    return candidate.transport.lower() == "udp" and candidate.component == 1 and 0 < candidate.port < 65536
