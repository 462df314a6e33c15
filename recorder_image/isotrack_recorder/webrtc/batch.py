"""Receive many datagrams with one system call: Linux recvmmsg(2) into memory that is allocated once.

    arena     [ slot 0, 2048 bytes | slot 1 | … ]        datagrams, decrypted in place
    control   [ 32 bytes | … ]                           SO_TIMESTAMPNS: when the kernel received each
    names     [ 28 bytes | … ]                           source addresses, read for non-media datagrams only
    headers   [ struct mmsghdr, 64 bytes | … ]           points into the three above; restored before each call. Its last
                                                         field is the datagram's length: who decrypts writes the new one there

A Batch owns its memory and belongs to one socket; what it received is valid until the next `receive`. Kernel
timestamps let the reader wake up seldom without arrival times losing their exactness. Layouts are those of 64-bit
Linux (glibc and musl alike); elsewhere `supported()` is false and the transport reads datagrams one by one.
"""

from __future__ import annotations

import ctypes
import errno
import ipaddress
import mmap
import socket
import struct
import sys
import time
from itertools import repeat
from operator import add
from typing import Any, Final

SLOTS: Final = 512
"""So many are read before other work of the event loop gets its turn: it stands still while it takes them, some 5 ms. Packets of a picture
come within some 20 ms, between those of others; a batch of fewer would cut most pictures of a large call into pieces."""
SLOT_BYTES: Final = 2048
"""Above any path's MTU; a longer datagram is cut by the kernel and fails authentication."""

MAX_AGE_NS: Final = 1_000_000_000
"""A datagram does not wait longer in the socket while the process lives."""
_SLACK_NS: Final = 1_000_000
"""What reading two clocks one after the other may put between them."""

_HEADER_BYTES: Final = 64
_LENGTH_OFFSET: Final = 56
_CONTROL_BYTES: Final = 32
_NAME_BYTES: Final = 28
# asm-generic/socket.h: the form with 64-bit seconds on 64-bit machines
_SO_TIMESTAMPNS: Final = 35
_SO_RCVBUFFORCE: Final = 33
_MSG_HEADER: Final = struct.Struct("@PIxxxxPPPPixxxxIxxxx")
_IOVEC: Final = struct.Struct("@PP")


def supported() -> bool:
    """Whether this system has what a Batch relies on."""
    return (
        sys.platform == "linux"
        and struct.calcsize("P") == 8
        and _MSG_HEADER.size == _HEADER_BYTES
        and hasattr(ctypes.CDLL(None), "recvmmsg")
    )


def enlarge_receive_buffer(sock: socket.socket, size: int) -> int:
    """Ask for a receive buffer of `size` bytes; returns what the kernel gives (it counts its own overhead twice).

    Beyond net.core.rmem_max only CAP_NET_ADMIN gets it; without it the limit of the node is what there is.
    """
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size)
    except OSError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


class Batch:
    """See module."""

    __slots__ = (
        "_call",
        "_control",
        "_empty_ns",
        "_fd",
        "_headers",
        "_headers_at",
        "_keep",
        "_lengths",
        "_names",
        "_offset_ns",
        "_template",
        "_used",
        "arrivals",
        "data",
        "length_addresses",
        "lengths",
    )

    def __init__(self, sock: socket.socket) -> None:
        """`sock` must be non-blocking and stay open as long as this is used."""
        self._fd = sock.fileno()
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        self.data = mmap.mmap(-1, SLOTS * SLOT_BYTES)
        """Datagram i begins at i * SLOT_BYTES. A mapping, because its slices are bytes: those of a bytearray cost twice as much
        to make and to join."""
        self.lengths: list[int] = []
        """As received."""
        self.arrivals: list[int] = []
        """CLOCK_MONOTONIC in nanoseconds."""
        control = bytearray(SLOTS * _CONTROL_BYTES)
        self._names = bytearray(SLOTS * _NAME_BYTES)
        headers = bytearray(SLOTS * _HEADER_BYTES)
        vectors = bytearray(SLOTS * _IOVEC.size)
        data_at, control_at, names_at, headers_at, vectors_at = (
            ctypes.addressof((ctypes.c_char * len(memory)).from_buffer(memory))
            for memory in (self.data, control, self._names, headers, vectors)
        )
        for slot in range(SLOTS):
            _IOVEC.pack_into(vectors, slot * _IOVEC.size, data_at + slot * SLOT_BYTES, SLOT_BYTES)
            _MSG_HEADER.pack_into(
                headers,
                slot * _HEADER_BYTES,
                names_at + slot * _NAME_BYTES,
                _NAME_BYTES,
                vectors_at + slot * _IOVEC.size,
                1,
                control_at + slot * _CONTROL_BYTES,
                _CONTROL_BYTES,
                0,
                0,
            )
        self._template = bytes(headers)
        self._headers = headers
        self._headers_at = headers_at
        self._keep = vectors
        self._lengths = memoryview(headers).cast("I")[_LENGTH_OFFSET // 4 :: _HEADER_BYTES // 4]
        self.length_addresses = range(headers_at + _LENGTH_OFFSET, headers_at + SLOTS * _HEADER_BYTES, _HEADER_BYTES)
        """Where in memory the length of each datagram stands: an unsigned int that may be written to (`lengths_now`)."""
        self._used = 0
        self._empty_ns = 0
        """When the socket was last seen empty: what is read next came later."""
        self._offset_ns = 0
        """CLOCK_MONOTONIC minus the wall clock, at the read before."""
        self._control = memoryview(control).cast("q")
        self._call: Any = ctypes.CDLL(None, use_errno=True).recvmmsg
        self._call.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p)

    def receive(self) -> int:
        """Read what is there, SLOTS datagrams at most; 0 = nothing.

        Raises:
            OSError: The socket failed; not for what ICMP reported of earlier sends.
        """
        # The kernel has written the lengths of names and controls over ours, and whoever decrypted those of the datagrams
        self._headers[: self._used] = self._template[: self._used]
        self._used = 0
        began = time.monotonic_ns()
        count: int = self._call(self._fd, self._headers_at, SLOTS, socket.MSG_DONTWAIT, None)
        if count < 0:
            number = ctypes.get_errno()
            if number == errno.EAGAIN:
                self._empty_ns = began
            if number in (errno.EAGAIN, errno.EINTR, errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH):
                return 0
            raise OSError(number, "recvmmsg failed")
        now = time.monotonic_ns()
        offset = now - time.time_ns()
        self.lengths = self._lengths[:count].tolist()
        seconds = self._control[2 : 4 * count : 4].tolist()
        nanoseconds = self._control[3 : 4 * count : 4].tolist()
        if seconds.count(seconds[0]) == count:  # nearly always
            arrivals = list(map(add, repeat(seconds[0] * 1_000_000_000 + offset), nanoseconds))
        else:
            arrivals = [s * 1_000_000_000 + n + offset for s, n in zip(seconds, nanoseconds)]
        # The kernel stamps wall-clock time; a step of that clock between stamp and reading must not reach arrivals
        earliest = max(self._empty_ns - _SLACK_NS, now - MAX_AGE_NS)
        if min(arrivals) < earliest or max(arrivals) > now:
            arrivals = self._mended(arrivals, earliest, now, self._offset_ns - offset)
        self._offset_ns = offset
        if count < SLOTS:
            self._empty_ns = began
        self.arrivals = arrivals
        self._used = count * _HEADER_BYTES
        return count

    @staticmethod
    def _mended(arrivals: list[int], earliest: int, now: int, step: int) -> list[int]:
        """Arrivals up to now. What lies before `earliest` or behind now was stamped before the wall clock was set, by `step`.

        NB: without such a step an early one is true. Stamps are put on before a packet waits for a busy processor to bring it to the socket.
        """
        mended = []
        for at in arrivals:
            if not earliest <= at <= now:
                if abs(step) > _SLACK_NS and earliest <= at + step <= now:
                    at += step
                elif not now - MAX_AGE_NS <= at <= now:
                    at = now
            mended.append(at)
        return mended

    def lengths_now(self, begin: int, end: int) -> list[int]:
        """Lengths of the datagrams in slots from `begin` to before `end`, as they stand in memory."""
        lengths: list[int] = self._lengths[begin:end].tolist()
        return lengths

    def source(self, slot: int) -> tuple[str, int]:
        """Address and port that datagram `slot` came from."""
        offset = slot * _NAME_BYTES
        family = int.from_bytes(self._names[offset : offset + 2], sys.byteorder)
        port = int.from_bytes(self._names[offset + 2 : offset + 4], "big")
        if family == socket.AF_INET6:
            return str(ipaddress.IPv6Address(bytes(self._names[offset + 8 : offset + 24]))), port
        return socket.inet_ntoa(bytes(self._names[offset + 4 : offset + 8])), port
