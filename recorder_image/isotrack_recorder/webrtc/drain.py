"""Read a UDP socket whole batches at a time, decrypt RTP in place, sort the rest (RFC 7983 section 7).

A Drain has its own descriptor of the socket and its own memory (webrtc.batch); both live until `close`. libsrtp is
called through pylibsrtp's binding, without the copies of its public calls: packets are decrypted where the kernel put
them, and the receiver must take what it keeps. Reading never waits.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable, Iterable
from itertools import starmap
from operator import add
from typing import Any, Final, Protocol

from pylibsrtp import Error as SrtpError
from pylibsrtp import Session
from pylibsrtp._binding import ffi, lib

from isotrack_recorder.rtp.packet import WIDE_HEADER, Buffer, Header
from isotrack_recorder.webrtc.batch import SLOT_BYTES, SLOTS, Batch

MIN_RTP_BYTES: Final = 12
_SLOT_HEADER: Final = struct.Struct(f"{WIDE_HEADER.format}{SLOT_BYTES - WIDE_HEADER.size}x")
"""Reads the RTP header of one slot and passes over the rest of it."""
# RFC 7983 section 7: RTP and RTCP begin with 128 to 191; RFC 5761 section 4: RTCP goes on with 192 to 223
_NO_RTP_FIRST: Final = bytes(not 128 <= octet <= 191 for octet in range(256))
_NO_RTP_SECOND: Final = bytes(192 <= octet <= 223 for octet in range(256))


class PacketReceiver(Protocol):
    """Where decrypted packets go: rtp.plane.Plane."""

    def rtp(self, data: Buffer, start: int, end: int, arrival_ns: int) -> None:
        """One RTP packet, `data[start:end]`, of at least 12 bytes. `data` is not kept."""

    def batch(
        self,
        data: Buffer,
        starts: Iterable[int],
        ends: Iterable[int],
        arrivals: Iterable[int],
        headers: Iterable[Header],
    ) -> None:
        """Many of them, with their headers read."""

    def rtcp(self, data: bytes, arrival_ns: int) -> None:
        """One RTCP datagram."""

    def refused(self) -> None:
        """A packet failed authentication."""

    @property
    def lacks_packets(self) -> bool:
        """Packets are missing that may still come: `tick` is to be called again even when nothing comes."""
        ...

    def tick(self, now_ns: int, send: Callable[[bytes], None]) -> int:
        """Time has passed; `send` takes RTCP. Returns how many nanoseconds reading may pause; see rtp.plane.Plane.tick."""
        ...


class Drain:
    """Reads one UDP socket in batches, decrypts RTP in place, sorts the rest (RFC 7983 section 7)."""

    __slots__ = (
        "_base",
        "_batch",
        "_calls",
        "_last_ns",
        "_other",
        "_reading",
        "_receiver",
        "_session",
        "_socket",
        "_unpaused",
        "_view",
    )

    def __init__(
        self,
        sock: Any,
        session: Session,
        receiver: PacketReceiver,
        other: Callable[[bytes, tuple[str, int]], None],
    ) -> None:
        """`session` decrypts; `other` takes what is neither RTP nor RTCP. The socket is duplicated.

        Raises:
            OSError: The system gives no receive timestamps.
        """
        self._socket = socket.socket(fileno=os.dup(sock.fileno()))
        self._socket.setblocking(False)
        try:
            self._batch = Batch(self._socket)
        except OSError:
            self._socket.close()
            raise
        self._receiver = receiver
        self._other = other
        self._session = session
        self._view = memoryview(self._batch.data)
        base = ffi.from_buffer("unsigned char[]", self._batch.data)
        cells = (ffi.cast("int *", address) for address in self._batch.length_addresses)
        self._calls = [(session._srtp[0], base + slot * SLOT_BYTES, cell) for slot, cell in enumerate(cells)]
        """Arguments of libsrtp for each slot."""
        self._base = base  # NB: only the base keeps the memory
        self._last_ns = time.monotonic_ns()
        self._reading = False
        self._unpaused = 0
        """Datagrams since the last read that left nothing."""

    def fileno(self) -> int:
        """Of our own descriptor."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close our descriptor."""
        self._socket.close()

    def read(self) -> tuple[int, int]:
        """Read and hand on what is there, one batch at most.

        Returns:
            Datagrams, and nanoseconds in which they came: since the read before that left nothing. 0 ns = more are waiting; the read
            that takes the last of them counts them all.
        """
        batch = self._batch
        if self._reading:  # a sink asked for it amid a batch, which lies in the memory that a new one would take
            return 0, 0
        self._reading = True
        try:
            count = batch.receive()
            self._unpaused += count
            if count:
                self._sort(count)
        finally:
            self._reading = False
        if count == SLOTS:
            return self._unpaused, 0
        now_ns = time.monotonic_ns()
        since_ns, self._last_ns = now_ns - self._last_ns, now_ns
        total, self._unpaused = self._unpaused, 0
        return total, max(1, since_ns)

    def _sort(self, count: int) -> None:
        """Decrypt and hand on what was received, in its order: RTP in runs, as long as nothing else lies between."""
        begin = 0
        for slot in self._others(count):
            self._decrypt(begin, slot)
            length = self._batch.lengths[slot]
            if length >= MIN_RTP_BYTES:
                self._other_datagram(slot, length)
            begin = slot + 1
        self._decrypt(begin, count)

    def _others(self, count: int) -> list[int]:
        """Slots of what is not RTP; mostly there are none, which costs nothing per packet."""
        batch = self._batch
        stop = count * SLOT_BYTES
        firsts = batch.data[:stop:SLOT_BYTES].translate(_NO_RTP_FIRST)
        seconds = batch.data[1:stop:SLOT_BYTES].translate(_NO_RTP_SECOND)
        if not (1 in firsts or 1 in seconds or min(batch.lengths) < MIN_RTP_BYTES):
            return []
        columns = zip(range(count), firsts, seconds, batch.lengths)
        return [slot for slot, first, second, length in columns if first or second or length < MIN_RTP_BYTES]

    def _decrypt(self, begin: int, end: int) -> None:
        """Decrypt RTP where it lies, in the slots from `begin` to before `end`, and hand it on."""
        # NB: `starmap` calls libsrtp without a step of Python between two packets, with arguments that were made once, and libsrtp
        # writes the new lengths where the kernel wrote the old ones, so that none becomes an object before all are read at once: a
        # quarter of the time of a loop
        failures = list(starmap(lib.srtp_unprotect, self._calls[begin:end]))
        lengths = self._batch.lengths_now(begin, end)
        good = begin
        if any(failures) or min(lengths, default=MIN_RTP_BYTES) < MIN_RTP_BYTES:
            for slot, failure, length in zip(range(begin, end), failures, lengths):
                if failure or length < MIN_RTP_BYTES:
                    self._hand_on(good, lengths[good - begin : slot - begin])
                    self._receiver.refused()
                    good = slot + 1
        self._hand_on(good, lengths[good - begin :])

    def _hand_on(self, slot: int, lengths: list[int]) -> None:
        """Give decrypted packets that begin at `slot` to the receiver."""
        if lengths:
            start, stop = slot * SLOT_BYTES, (slot + len(lengths)) * SLOT_BYTES
            starts = range(start, stop, SLOT_BYTES)
            self._receiver.batch(
                self._batch.data,
                starts,
                map(add, starts, lengths),
                self._batch.arrivals[slot:],
                _SLOT_HEADER.iter_unpack(self._view[start:stop]),
            )

    def _other_datagram(self, slot: int, length: int) -> None:
        batch = self._batch
        start = slot * SLOT_BYTES
        data = batch.data[start : start + length]
        if data[0] & 0xC0 == 0x80:
            self._rtcp(data, batch.arrivals[slot])
        else:
            self._hand_over(data, batch.source(slot))

    def _hand_over(self, data: bytes, source: tuple[str, int]) -> None:
        """Give what is neither RTP nor RTCP to whom it concerns."""
        # NB: anybody may have sent it. aioice reads attributes of STUN before it knows whose they are, and some that lie about their
        # length make it fail (struct.error): that must cost nothing of what others sent, which lies behind in the same batch.
        try:
            self._other(data, source)
        except Exception:  # noqa: BLE001
            self._receiver.refused()

    def _rtcp(self, data: bytes, arrival_ns: int) -> None:
        try:
            plain = self._session.unprotect_rtcp(data)
        except (SrtpError, ValueError):
            self._receiver.refused()
            return
        self._receiver.rtcp(plain, arrival_ns)
