"""Times in a spool: another boot has another clock, and no time lies outside of what a call can take."""

from __future__ import annotations

from pathlib import Path

import pytest

import support.spools as spools
from isotrack_api.manifest import Manifest
from isotrack_recorder.finalise.local import finish_local
from isotrack_recorder.spool.facts import MAX_CALL_NS
from isotrack_recorder.spool.reader import Spool
from support.media import opus_packets
from support.spools import MONO_NS, SECOND, WALL_NS, Call, Sender, an_intent, tone


def talk(call: Call, at: float) -> None:
    """Two seconds of Alice's microphone."""
    call.person("PA_a", "alice", at)
    call.track("t0001", "PA_a", "alice", "microphone", "opus", at)
    call.frames("t0001", Sender(), 48_000, tone(opus_packets(100), at), reports=[at + 1])


def finish(call: Call, tmp_path: Path) -> Manifest:
    return finish_local(call.spool, an_intent(), tmp_path / "out")


@pytest.mark.parametrize("clock_ns", [100 * SECOND, MONO_NS + 3 * SECOND], ids=["another-boot", "wall-clock-set"])
def test_frames_of_a_process_with_another_clock_lie_where_its_journal_says(
    clock_ns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of the second process began anew, or the wall clock was set between the two."""
    first = Call(tmp_path / "spool")
    talk(first, 1.0)
    first.write()
    monkeypatch.setattr(spools, "MONO_NS", clock_ns)
    second = Call(tmp_path / "spool", incarnation=2, started=10.0)
    talk(second, 11.0)
    second.event("participant_left", 14.0, peer_id="PA_a", reason="left")
    second.write(stop=15.0)
    (file,) = finish(second, tmp_path).files
    (track,) = file.tracks
    assert track.frames == 200
    assert (track.start_ms, track.end_ms) == (pytest.approx(1_030, abs=20), pytest.approx(13_030, abs=20))


@pytest.mark.parametrize("event", ["stop", "track_ended", "participant_left", "muted"])
def test_what_claims_to_be_later_than_any_call_is_skipped(event: str, tmp_path: Path) -> None:
    """It would be filled with silence up to there."""
    call = Call(tmp_path / "spool")
    talk(call, 1.0)
    call.event(event, 1e9, track="t0001", peer_id="PA_a", reason="Requested", message="")
    call.write()
    (file,) = finish(call, tmp_path).files
    assert file.duration_ms == pytest.approx(2_000, abs=50)


@pytest.mark.parametrize("arrival_ns", [0, (1 << 63) - 1], ids=["before", "after"])
def test_a_record_outside_of_any_call_is_moved_to_its_edge(arrival_ns: int, tmp_path: Path) -> None:
    call = Call(tmp_path / "spool")
    talk(call, 1.0)
    call.record("t0001", 960, arrival_ns, 0, b"\xf8\xff\xfe")
    call.write(stop=5.0)
    spool = Spool(call.spool)
    spool.refresh()
    (key,) = spool.facts.tracks
    arrivals = {record.arrival_ns for record, _ in spool.frames(key)}
    assert min(arrivals) >= MONO_NS
    assert max(arrivals) <= MONO_NS + MAX_CALL_NS


@pytest.mark.parametrize("wall_ns", [-1, 1 << 62, 10**40, "x", None, 1.5])
def test_an_impossible_wall_clock_costs_the_date_alone(wall_ns: object, tmp_path: Path) -> None:
    call = Call(tmp_path / "spool")
    talk(call, 1.0)
    assert call._events[0][2] == "start"
    call._events[0][3]["wall_ns"] = wall_ns
    call.write(stop=5.0)
    manifest = finish(call, tmp_path)
    assert manifest.started_at.startswith("1970-01-01")
    assert manifest.files[0].tracks[0].frames == 100


def test_a_possible_wall_clock_dates_the_recording(tmp_path: Path) -> None:
    call = Call(tmp_path / "spool")
    talk(call, 1.0)
    call.write(stop=5.0)
    assert WALL_NS == 1_760_000_000 * SECOND
    assert finish(call, tmp_path).started_at.startswith("2025-10-09T08:53:20")
