"""What earlier processes left in the spool."""

from __future__ import annotations

from pathlib import Path

from isotrack_recorder.control import MAX_UNRECORDED
from isotrack_recorder.earlier import Earlier, read_earlier
from isotrack_recorder.spool.writer import SpoolWriter


def test_no_spool_means_nothing_was_before(tmp_path: Path) -> None:
    assert read_earlier(tmp_path / "missing") == Earlier()


def test_facts_are_taken_over_all_incarnations(tmp_path: Path) -> None:
    """The call as last seen, the first time that anything could be captured, on the wall clock."""
    first, second = SpoolWriter(tmp_path), SpoolWriter(tmp_path)
    first.journal("start", 1_000_000_000, wall_ns=50_000_000_000, boot="b1")
    first.journal("call", 2_000_000_000, call_id="x", call_sid="RM_1")
    first.journal("armed", 3_500_000_000)
    first.close()
    second.journal("start", 9_000_000_000, wall_ns=58_000_000_000)
    second.journal("armed", 9_500_000_000)
    second.close()
    assert read_earlier(tmp_path) == Earlier(call_sid="RM_1", armed_at_ms=52_500, armed_ns=3_500_000_000, boot="b1")


def test_clocks_that_no_line_pairs_tell_no_time(tmp_path: Path) -> None:
    spool = SpoolWriter(tmp_path)
    spool.journal("start", 1_000_000_000, wall_ns="hostile", boot="b1")
    spool.journal("armed", 3_500_000_000)
    spool.close()
    assert read_earlier(tmp_path).armed_at_ms is None


def test_a_torn_journal_is_read_up_to_the_tear(tmp_path: Path) -> None:
    spool = SpoolWriter(tmp_path)
    spool.journal("start", 1, wall_ns=1)
    spool.journal("call", 2, call_sid="RM_1")
    spool.journal("stop", 3, reason="Requested")
    spool.close()
    path = spool.folder / "journal.ndjson"
    path.write_bytes(path.read_bytes()[:-5])
    assert read_earlier(tmp_path) == Earlier(call_sid="RM_1")


def test_tracks_that_could_not_be_recorded_are_remembered_once_each(tmp_path: Path) -> None:
    """Their people may have left before the next process comes: nobody else would tell of them."""
    row = {"track_id": "TR_1", "peer_id": "PA", "user_id": "alice", "source": "camera", "message": "m"}
    spool = SpoolWriter(tmp_path)
    for change in ({}, {"reason": "Encrypted"}, {"track_id": "TR_2", "source": "hologram"}):
        spool.journal("unrecorded", 1, **{**row, "reason": "CodecUnsupported", **change})
    for number in range(MAX_UNRECORDED):
        spool.journal("unrecorded", 1, **{**row, "track_id": f"TR_x{number}", "reason": "Encrypted"})
    spool.close()
    found = read_earlier(tmp_path).unrecorded
    assert [(seen.track_id, seen.reason) for seen in found[:2]] == [
        ("TR_1", "CodecUnsupported"),
        ("TR_x0", "Encrypted"),
    ]
    assert len(found) == MAX_UNRECORDED
