"""How long reading may wait."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotrack_recorder.webrtc.pump import AT_ONCE_NS, MIN_PAUSE_NS, PACKET_COST_BYTES, PausePolicy

MS = 1_000_000
ROOMY = 8 << 20
USUAL = 212_992
"""A usual net.core.rmem_default."""


def policy(buffer: int) -> PausePolicy:
    return PausePolicy(max_pause_ns=40 * MS, calm_pause_ns=100 * MS, buffer_bytes=buffer)


@pytest.mark.parametrize(
    ("participants", "buffer", "pause_ms"),
    [
        pytest.param(1, ROOMY, (100, 100), id="one-person-is-read-seldom"),
        pytest.param(2, ROOMY, (100, 100), id="two-people-are-read-seldom"),
        pytest.param(10, ROOMY, (100, 100), id="ten-people-are-read-seldom"),
        pytest.param(40, ROOMY, (95, 100), id="a-large-call-waits-as-long-as-repair-allows"),
        pytest.param(100, ROOMY, (38, 40), id="a-quarter-of-the-buffer-is-the-most-that-gathers"),
        pytest.param(100, 4 * ROOMY, (43, 44), id="more-than-is-worth-a-wake-up-comes-sooner"),
        pytest.param(1, USUAL, (40, 40), id="a-buffer-that-a-key-frame-could-fill-allows-no-long-pause"),
        pytest.param(40, USUAL, (2, 3), id="a-small-buffer-shortens-the-pause"),
    ],
)
def test_pause(participants: int, buffer: int, pause_ms: tuple[int, int]) -> None:
    """Each 720p participant sends 234 packets a second."""
    pause = policy(buffer).pause_ns(packets=participants * 234 // 25, since_last_ns=40 * MS)
    assert pause_ms[0] * MS <= pause <= pause_ms[1] * MS


def test_what_is_left_in_the_socket_is_read_without_delay() -> None:
    assert policy(ROOMY).pause_ns(packets=512, since_last_ns=0) == AT_ONCE_NS


def test_silence_waits_for_the_socket() -> None:
    assert policy(ROOMY).pause_ns(packets=0, since_last_ns=20 * MS) == 0


@given(st.integers(1, 10_000), st.integers(1, 10**10), st.integers(10_000, 1 << 26))
def test_a_pause_fills_at_most_a_quarter_of_the_buffer(packets: int, since: int, buffer: int) -> None:
    pause = policy(buffer).pause_ns(packets, since)
    assert MIN_PAUSE_NS <= pause <= 100 * MS
    rate = packets / max(since, MIN_PAUSE_NS)
    assert pause == MIN_PAUSE_NS or pause * rate * PACKET_COST_BYTES <= buffer / 4 + 1
