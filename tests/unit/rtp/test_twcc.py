"""Transport-wide feedback, read back by an independent reading of the draft."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from isotrack_recorder.rtp.twcc import MAX_STATUS_COUNT, TransportLog


def read_feedback(packet: bytes) -> tuple[int, int, dict[int, int]]:
    """Base, feedback count, and sequence number → arrival in units of 250 µs."""
    first, kind, words = struct.unpack_from("!BBH", packet)
    assert first & 0xDF == 0x8F
    assert (kind, len(packet)) == (205, 4 + 4 * words)
    base, count, word = struct.unpack_from("!HHL", packet, 12)
    body = packet[20 : len(packet) - packet[-1]] if first & 0x20 else packet[20:]
    symbols: list[int] = []
    offset = 0
    while len(symbols) < count:
        (chunk,) = struct.unpack_from("!H", body, offset)
        offset += 2
        if not chunk >> 15:
            symbols += [chunk >> 13 & 3] * (chunk & 0x1FFF)
        elif chunk >> 14 & 1:
            symbols += [chunk >> shift & 3 for shift in range(12, -1, -2)]
        else:
            symbols += [chunk >> shift & 1 for shift in range(13, -1, -1)]
    now = (word >> 8) * 256
    arrivals: dict[int, int] = {}
    for index, symbol in enumerate(symbols[:count]):
        if symbol == 1:
            now += body[offset]
            offset += 1
        elif symbol == 2:
            now += struct.unpack_from("!h", body, offset)[0]
            offset += 2
        else:
            continue
        arrivals[(base + index) & 0xFFFF] = now
    assert offset == len(body)
    return base, word & 0xFF, arrivals


@given(
    start=st.integers(0, 0xFFFF),
    at=st.integers(0, 2**40),
    steps=st.dictionaries(st.integers(0, 1500), st.integers(0, 40_000_000), min_size=1, max_size=500),
    seed=st.randoms(use_true_random=False),
)
def test_every_arrival_is_told_once_and_exactly(start: int, at: int, steps: dict[int, int], seed: object) -> None:
    log = TransportLog()
    arrivals = {step: at + step * 100_000 + jitter for step, jitter in steps.items()}
    for step, arrival in arrivals.items():  # in no order: some packets overtake others
        log.add((start + step) & 0xFFFF, arrival)
    told: dict[int, int] = {}
    packets = list(log.build(1, 2))
    for packet in packets:
        assert len(packet) <= 1200
        _, _, found = read_feedback(packet)
        assert not told.keys() & found.keys()
        told |= found
    first = next(iter(arrivals))
    expected = {(start + step) & 0xFFFF: arrival for step, arrival in arrivals.items() if abs(step - first) < 0x8000}
    assert told.keys() == expected.keys()
    cycle = (1 << 24) * 256  # the reference time runs over
    for sequence, arrival in expected.items():
        difference = (told[sequence] - arrival / 250_000 + cycle / 2) % cycle - cycle / 2
        assert abs(difference) <= 1


def test_feedback_is_counted_and_forgets() -> None:
    log = TransportLog()
    log.add(5, 64_000_000)
    (one,) = log.build(1, 2)
    assert list(log.build(1, 2)) == []
    log.add(6, 65_000_000)
    (two,) = log.build(1, 2)
    assert (read_feedback(one)[1], read_feedback(two)[1]) == (0, 1)


def test_repeated_packets_keep_their_first_arrival_and_packets_stay_small() -> None:
    log = TransportLog()
    for sequence in range(600):
        log.add(sequence, 64_000_000 + sequence * 250_000)
    log.add(0, 90_000_000)
    packets = list(log.build(1, 2))
    assert len(packets) == 3
    assert all(len(read_feedback(packet)[2]) <= MAX_STATUS_COUNT for packet in packets)
    assert read_feedback(packets[0])[2][0] == 256
