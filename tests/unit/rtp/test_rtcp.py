"""RTCP as we write and read it."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotrack_recorder.rtp.rtcp import (
    Bye,
    Dlrr,
    ReferenceTime,
    ReportBlock,
    SenderReport,
    build_extended_report,
    build_fir,
    build_nacks,
    build_pli,
    build_receiver_reports,
    build_remb,
    parse_compound,
    together,
)


def read_nacks(packets: list[bytes]) -> list[int]:
    found: list[int] = []
    for packet in packets:
        first, kind, words = struct.unpack_from("!BBH", packet)
        assert (first, kind, len(packet)) == (0x81, 205, 4 * words + 4)
        for offset in range(12, len(packet), 4):
            packet_id, following = struct.unpack_from("!HH", packet, offset)
            found.append(packet_id)
            found += [(packet_id + 1 + bit) & 0xFFFF for bit in range(16) if following >> bit & 1]
    return found


@given(start=st.integers(0, 0xFFFF), steps=st.sets(st.integers(0, 3000), min_size=1, max_size=400))
def test_nacks_ask_for_exactly_the_missing_from_any_start(start: int, steps: set[int]) -> None:
    wanted = [(start + step) & 0xFFFF for step in sorted(steps)]
    packets = list(build_nacks(1, 2, wanted))
    assert read_nacks(packets) == wanted
    assert all(len(packet) <= 1200 for packet in packets)


def test_nothing_missing_writes_nothing() -> None:
    assert list(build_nacks(1, 2, [])) == []


@given(words=st.lists(st.integers(3, 300), max_size=40))
def test_requests_of_many_streams_share_as_few_datagrams_as_pass_any_path(words: list[int]) -> None:
    packets = [bytes((number, *[0] * (4 * size - 1))) for number, size in enumerate(words)]
    datagrams = list(together(packets))
    assert b"".join(datagrams) == b"".join(packets)
    assert all(0 < len(datagram) <= 1200 for datagram in datagrams)
    assert all(len(one) + 4 * words[other[0]] > 1200 for one, other in pairwise(datagrams))


def test_receiver_report_has_blocks_of_thirty_one_and_a_name_in_each() -> None:
    blocks = [ReportBlock(n, 5, -1 if n == 0 else n, 0x10002, 7, 0xAABBCCDD, 65536) for n in range(40)]
    first, second = build_receiver_reports(9, blocks, "us@here")
    assert first[:8] == struct.pack("!BBHL", 0x80 | 31, 201, 1 + 31 * 6, 9)
    assert first[8:32] == struct.pack("!LLLLLL", 0, 5 << 24 | 0xFFFFFF, 0x10002, 7, 0xAABBCCDD, 65536)
    assert second[0] == 0x80 | 9
    description = first[8 + 31 * 24 :]
    assert description[:4] == struct.pack("!BBH", 0x81, 202, len(description) // 4 - 1)
    assert description[4:17] == struct.pack("!LBB", 9, 1, 7) + b"us@here"
    assert description[17] == 0
    assert max(len(first), len(second)) <= 1200


def test_report_without_sources_is_still_a_report() -> None:
    (packet,) = build_receiver_reports(9, [], "x")
    assert packet[:8] == struct.pack("!BBHL", 0x80, 201, 1, 9)


def test_key_frame_requests() -> None:
    assert build_pli(1, 2) == struct.pack("!BBHLL", 0x81, 206, 2, 1, 2)
    assert build_fir(1, 2, 258) == struct.pack("!BBHLLLB3x", 0x84, 206, 4, 1, 0, 2, 2)


@pytest.mark.parametrize("rate", [1, 250_000, 100_000_000, 0x3FFFF, 0x40000, 10_000_000_000])
def test_remb_states_the_rate_to_eighteen_bits(rate: int) -> None:
    (packet,) = build_remb(1, rate, [2, 3])
    assert packet[:16] == struct.pack("!BBHLL", 0x8F, 206, 6, 1, 0) + b"REMB"
    (value, *sources) = struct.unpack("!3L", packet[16:])
    assert value >> 24 == 2
    assert sources == [2, 3]
    stated = (value & 0x3FFFF) << (value >> 18 & 0x3F)
    assert stated <= rate < stated + (1 << (value >> 18 & 0x3F))


def test_remb_of_many_sources_is_split() -> None:
    packets = list(build_remb(1, 1000, range(1, 601)))
    assert [len(packet) for packet in packets] == [20 + 4 * 250, 20 + 4 * 250, 20 + 4 * 100]


def test_sender_report_with_profile_extension_and_unknown_neighbours_is_read() -> None:
    report = struct.pack("!BBHLQLLL", 0x80, 200, 8, 7, 0x1122334455667788, 99, 3, 4) + bytes(8)
    unknown = struct.pack("!BBHL", 0x80, 207, 1, 0)
    bye = struct.pack("!BBHLL", 0x82, 203, 2, 7, 8)
    assert list(parse_compound(unknown + report + bye)) == [
        SenderReport(7, 0x1122334455667788, 99, 3, 4),
        Bye((7, 8)),
    ]


@given(st.binary(max_size=200))
def test_junk_reads_as_nothing_or_something_but_never_fails(data: bytes) -> None:
    for packet in parse_compound(data):
        assert isinstance(packet, SenderReport | Bye | ReferenceTime | Dlrr)


@given(ntp=st.integers(0, 2**64 - 1), told=st.lists(st.tuples(*[st.integers(0, 2**32 - 1)] * 3), max_size=200))
def test_an_extended_report_reads_as_it_was_written(ntp: int, told: list[tuple[int, int, int]]) -> None:
    rows = [Dlrr(*row) for row in told]
    packet = build_extended_report(9, ntp, rows)
    assert packet[:12] == struct.pack("!BBHLBBH", 0x80, 207, len(packet) // 4 - 1, 9, 4, 0, 2)
    assert list(parse_compound(packet)) == [ReferenceTime(9, ntp), *rows[:90]]
    assert len(packet) <= 1200


def test_unknown_blocks_of_an_extended_report_are_passed_over() -> None:
    loss = struct.pack("!BBHLHH", 1, 0, 2, 5, 1, 2)
    delays = struct.pack("!BBHLLL", 5, 0, 3, 1, 2, 3)
    torn = struct.pack("!BBHL", 5, 0, 9, 4)
    body = struct.pack("!L", 9) + loss + delays + torn
    packet = struct.pack("!BBH", 0x80, 207, len(body) // 4) + body
    bye = struct.pack("!BBHL", 0x81, 203, 1, 7)
    assert list(parse_compound(packet + bye)) == [Dlrr(1, 2, 3), Bye((7,))]


@given(st.integers(0, 255), st.integers(198, 208), st.integers(0, 40), st.binary(max_size=160))
def test_headers_that_lie_about_their_length_do_no_harm(first: int, kind: int, words: int, body: bytes) -> None:
    list(parse_compound(struct.pack("!BBH", first, kind, words) + body))
