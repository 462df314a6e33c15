"""Reading batches of datagrams from a real socket."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest

from isotrack_recorder.webrtc.batch import SLOT_BYTES, SLOTS, Batch, enlarge_receive_buffer, supported

pytestmark = pytest.mark.skipif(not supported(), reason="needs 64-bit Linux; elsewhere datagrams are read one by one")


@pytest.fixture(params=[socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, socket.socket]]:
    loopback = "127.0.0.1" if request.param == socket.AF_INET else "::1"
    with contextlib.ExitStack() as stack:
        receiver, sender = (stack.enter_context(socket.socket(request.param, socket.SOCK_DGRAM)) for _ in range(2))
        enlarge_receive_buffer(receiver, 8 << 20)
        for end in (receiver, sender):
            end.bind((loopback, 0))
        sender.connect(receiver.getsockname())
        receiver.setblocking(False)
        yield receiver, sender


def _await_stamps(batch: Batch, sender: socket.socket) -> None:
    """Wait until the kernel stamps datagrams as they come.

    The first socket of a machine that wants stamps switches them on for all, a little later (net_enable_timestamp defers
    it to a worker); until then a datagram's time is that of its reading.
    """
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        sender.send(b"?")
        sent = time.monotonic_ns()
        time.sleep(0.01)
        assert batch.receive() == 1
        if batch.arrivals[0] - sent < 5_000_000:
            return
    pytest.fail("the kernel does not stamp datagrams")


def test_datagrams_come_with_length_time_and_source(pair: tuple[socket.socket, socket.socket]) -> None:
    receiver, sender = pair
    batch = Batch(receiver)
    _await_stamps(batch, sender)
    before = time.monotonic_ns()
    for number in range(5):
        sender.send(bytes([number]) * (number + 1))
    after = time.monotonic_ns()
    time.sleep(0.02)  # arrival is when the kernel received it, not when we read it
    assert batch.receive() == 5
    assert batch.lengths == [1, 2, 3, 4, 5]
    for slot, arrival in enumerate(batch.arrivals):
        start = slot * SLOT_BYTES
        assert batch.data[start : start + slot + 1] == bytes([slot]) * (slot + 1)
        assert before - 1_000_000 <= arrival <= after + 1_000_000
        assert batch.source(slot) == sender.getsockname()[:2]
    assert batch.receive() == 0


@pytest.mark.parametrize("step", [-86_400, -3600, -1, 1, 3600])
def test_a_wall_clock_that_is_set_while_datagrams_wait_moves_none_of_them(
    pair: tuple[socket.socket, socket.socket], step: int
) -> None:
    """The kernel stamped the first ones by the clock of before. One that seemed to come in an hour would end its track until then."""
    receiver, sender = pair
    batch = Batch(receiver)
    _await_stamps(batch, sender)
    sent = []
    for _ in range(4):
        time.sleep(0.01)
        sender.send(b"?")
        sent.append(time.monotonic_ns())
    receive = batch._call

    def stamped_before(*arguments: object) -> int:
        count: int = receive(*arguments)
        for slot in (0, 1):  # seconds of the kernel's stamp: as far from the new clock as the old one was
            batch._control[2 + 4 * slot] -= step
        return count

    batch._call = stamped_before
    batch._offset_ns += step * 1_000_000_000
    assert batch.receive() == 4
    assert batch.arrivals == sorted(batch.arrivals)
    assert all(abs(arrival - at) < 5_000_000 for arrival, at in zip(batch.arrivals, sent))


def test_a_datagram_that_came_late_to_the_socket_keeps_its_stamp(pair: tuple[socket.socket, socket.socket]) -> None:
    """The kernel stamps it where it comes in; a busy processor may take it to the socket much later, when that was seen empty meanwhile."""
    receiver, sender = pair
    batch = Batch(receiver)
    _await_stamps(batch, sender)
    sender.send(b"?")
    came = time.monotonic_ns()
    time.sleep(0.05)
    batch._empty_ns = time.monotonic_ns()
    assert batch.receive() == 1
    assert abs(batch.arrivals[0] - came) < 5_000_000


def test_more_than_a_batch_takes_several_reads(pair: tuple[socket.socket, socket.socket]) -> None:
    receiver, sender = pair
    batch = Batch(receiver)
    enlarge_receive_buffer(receiver, 8 << 20)
    for number in range(SLOTS + 3):
        sender.send(number.to_bytes(2, "big"))
    assert batch.receive() == SLOTS
    assert batch.source(SLOTS - 1) == sender.getsockname()[:2]
    assert batch.receive() == 3
    assert batch.data[:2] == SLOTS.to_bytes(2, "big")
    assert batch.source(0) == sender.getsockname()[:2]


def test_a_datagram_longer_than_a_slot_is_cut(pair: tuple[socket.socket, socket.socket]) -> None:
    receiver, sender = pair
    batch = Batch(receiver)
    sender.send(b"x" * 5000)
    sender.send(b"next")
    assert batch.receive() == 2
    assert batch.lengths == [SLOT_BYTES, 4]


def test_a_closed_socket_is_an_error(pair: tuple[socket.socket, socket.socket]) -> None:
    receiver, _ = pair
    batch = Batch(receiver)
    receiver.close()
    with pytest.raises(OSError, match="recvmmsg"):
        batch.receive()
