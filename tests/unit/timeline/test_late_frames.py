"""Frames that were repaired arrive after their successors: arrivals run back, the timeline does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from isotrack_recorder.finalise.local import finish_local
from isotrack_recorder.timeline.index import DISCONTINUITY, Indexer
from support.media import opus_packets
from support.spools import Call, Sender, an_intent, tone


def test_buckets_never_run_back_in_time() -> None:
    indexer = Indexer(48_000)
    ticks = [0, 960, 3_000_000_000, 3_000_000_960]
    arrivals = [2_980_000_000, 3_010_000_000, 2_995_000_000, 3_015_000_000]
    assert indexer.add(ticks, arrivals, [0, 0, DISCONTINUITY, 0], 0, 3) == 4
    indexer.close()
    assert [bucket.second for bucket in indexer.buckets] == [2, 3, 3]


def test_a_new_base_behind_a_repaired_packet_goes_on_where_it_belongs(tmp_path: Path) -> None:
    """The last packet before an unmute came by retransmission, after the first one of the new base."""
    call = Call(tmp_path / "spool")
    call.person("PA_a", "alice", left=8.0)
    call.track("t0001", "PA_a", "alice", "microphone", "opus", 0.5, ended=7.0)
    repaired = Sender(transit=0.0, jitter=lambda number: 0.03 if number == 99 else 0.0)
    call.frames("t0001", repaired, 48_000, tone(opus_packets(100), 1.0), base=100_000)
    early = Sender(transit=0.0, jitter=lambda number: -0.005 if number == 0 else 0.0)
    call.frames("t0001", early, 48_000, tone(opus_packets(200), 3.0), base=3_000_000_000)
    call.write(stop=9.0)
    (file,) = finish_local(call.spool, an_intent(), tmp_path / "out").files
    assert file.tracks[0].frames == 300
    assert file.duration_ms == pytest.approx(6_000, abs=40)
