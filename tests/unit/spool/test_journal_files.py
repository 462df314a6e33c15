"""Journals in segments, and what is left of those that were given back."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isotrack_recorder.earlier import read_earlier
from isotrack_recorder.ship.reclaim import reclaim_journals
from isotrack_recorder.spool.facts import SpoolFacts
from isotrack_recorder.spool.journal import encode_line
from isotrack_recorder.spool.journal_files import PAST_NAME, JournalReader, journal_numbers, journal_path
from isotrack_recorder.spool.past import Taken, abridge, give_back_journal
from isotrack_recorder.spool.reader import Spool
from isotrack_recorder.spool.writer import SpoolWriter

SECOND = 1_000_000_000
LOGS = ("t0001", "t0002")


def a_call(seconds: int) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Events of a call of two tracks."""
    yield "start", 0, {"version": 1, "wall_ns": 60 * SECOND, "attempt": 1, "recording_uid": "0123456789abcdef"}
    yield "call", 1, {"call_id": "x", "call_sid": "RM_1"}
    yield "armed", 2, {}
    for log in LOGS:
        row = {"track": log, "track_id": log, "peer_id": "PA_a", "user_id": "a", "source": "camera", "kind": "video"}
        yield "track", 3, row
        yield "codec", 3, {"track": log, "codec": "vp8", "clock_rate": 90_000, "channels": 1}
        yield "ssrc", 3, {"track": log, "ssrc": 1, "timestamp": 0}
    for second, log in itertools.product(range(1, seconds), LOGS):
        at = second * SECOND
        yield "report", at, {"track": log, "ntp": at, "timestamp": at}
        if second % 5 == 0:
            yield "counters", at, {"track": log, "packets": second * 100}
        if second % 7 == 0:
            yield "gap", at, {"track": log, "packets": 1, "after": at - 2, "before": at}
        if second % 11 == 0:
            yield ("muted" if second % 2 else "unmuted"), at, {"track": log}


def write(spool: Path, seconds: int, segment_bytes: int) -> Path:
    """A journal as the recorder writes it; its folder."""
    writer = SpoolWriter(spool, segment_bytes)
    for event, at, fields in a_call(seconds):
        writer.journal(event, at, **fields)
        writer.flush()
    writer.close()
    return writer.folder


def lay(spool: Path, seconds: int, segment_bytes: int) -> Path:
    """The same files without a writer."""
    folder = spool / "i0001"
    folder.mkdir(parents=True)
    contents = [b""]
    for line in itertools.starmap(encode_line, a_call(seconds)):
        if len(contents[-1]) >= segment_bytes:
            contents.append(b"")
        contents[-1] += line
    for number, content in enumerate(contents, 1):
        journal_path(folder, number).write_bytes(content)
    return folder


def facts_of(spool: Path) -> SpoolFacts:
    reader = Spool(spool)
    reader.refresh()
    return reader.facts


@contextmanager
def a_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def without(facts: SpoolFacts, before_ns: int) -> SpoolFacts:
    """The same facts without reports and gaps of the time before."""
    for track in facts.tracks.values():
        rows = [row for row in track.reports if row[0] >= before_ns]
        track.abridged = False
        for name, kind, place in (("arrivals", "q", 0), ("ntps", "Q", 1), ("ticks", "q", 2)):
            setattr(track.reports, name, array(kind, [row[place] for row in rows]))
        track.losses = [loss for loss in track.losses if loss.before >= before_ns]
    return facts


def test_a_journal_of_many_segments_says_the_same_as_one(tmp_path: Path) -> None:
    one, many = write(tmp_path / "one", 60, 1 << 20), write(tmp_path / "many", 60, 1000)
    laid = lay(tmp_path / "laid", 60, 1000)
    assert {path.name: path.read_bytes() for path in laid.iterdir()} == {
        path.name: path.read_bytes() for path in many.iterdir()
    }
    assert journal_numbers(one) == [1]
    numbers = journal_numbers(many)
    assert len(numbers) > 5
    assert b"".join(journal_path(many, n).read_bytes() for n in numbers) == journal_path(one, 1).read_bytes()
    assert all(1000 <= journal_path(many, n).stat().st_size < 1200 for n in numbers[:-1])
    assert facts_of(tmp_path / "many") == facts_of(tmp_path / "one")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 6000))
def test_a_journal_cut_anywhere_reads_up_to_its_last_whole_line(cut: int) -> None:
    with a_folder() as folder:
        journal = lay(folder, 40, 700)
        written = [(journal_path(journal, n), journal_path(journal, n).read_bytes()) for n in journal_numbers(journal)]
        left = cut
        for path, content in written:
            path.write_bytes(content[:left])
            if not left:
                path.unlink()
            left = max(0, left - len(content))
        lines = b"".join(content for _, content in written)[:cut].split(b"\n")[:-1]
        assert [encode_line(e.pop("e"), e.pop("at"), {k: v for k, v in e.items() if k != "crc"})[:-1]
                for e in JournalReader(journal).events()] == lines  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 70), min_size=1, max_size=5), st.integers(300, 3000))
def test_what_is_left_tells_everything_that_was_not_taken(times: list[int], segment_bytes: int) -> None:
    """However often, and however far, segments are given back."""
    with a_folder() as folder:
        journal = lay(folder, 70, segment_bytes)
        truth, until = facts_of(folder), 0
        for second in sorted(times):
            newest = journal_numbers(journal)[-1]
            before = sum(path.stat().st_size for path in journal.iterdir())
            taken = Taken(second * SECOND, second * SECOND)
            freed = give_back_journal(journal, newest - 1, dict.fromkeys(LOGS, taken))
            assert before - sum(path.stat().st_size for path in journal.iterdir()) == freed
            until = second if journal_numbers(journal) == [newest] else until
        found = facts_of(folder)
        for track, whole in zip(found.tracks.values(), truth.tracks.values(), strict=True):
            assert list(track.reports) == list(whole.reports)[len(whole.reports) - len(track.reports) :]
            assert set(whole.losses) - set(track.losses) <= {
                loss for loss in whole.losses if loss.before < until * SECOND
            }
            assert track.abridged is (len(track.reports) < len(whole.reports))
        last = max(times) * SECOND
        assert without(found, last) == without(truth, last)


def test_a_giving_back_that_was_cut_off_changes_nothing(tmp_path: Path) -> None:
    """Killed between the past's coming and the segments' going, or before."""
    journal = lay(tmp_path / "spool", 60, 1000)
    copy = tmp_path / "copy"
    shutil.copytree(journal, copy)
    give_back_journal(journal, 4, dict.fromkeys(LOGS, Taken(15 * SECOND, 0)))
    after = facts_of(tmp_path / "spool")
    for number in range(1, 5):
        shutil.copyfile(journal_path(copy, number), journal_path(journal, number))
    assert facts_of(tmp_path / "spool") == after
    give_back_journal(journal, 4, dict.fromkeys(LOGS, Taken(15 * SECOND, 0)))
    assert facts_of(tmp_path / "spool") == after
    assert journal_numbers(journal)[0] == 5
    (journal / PAST_NAME).with_suffix(".past.new").write_bytes(b"torn")
    assert facts_of(tmp_path / "spool") == after


def test_a_full_disk_leaves_the_journal_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = lay(tmp_path, 60, 1000)
    before = {path.name: path.read_bytes() for path in journal.iterdir()}

    def no_room(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_room)
    spool = Spool(tmp_path)
    spool.refresh()
    assert reclaim_journals(tmp_path, spool.journals(), spool.facts.tracks, {}, None) == 0
    assert {path.name: path.read_bytes() for path in journal.iterdir()} == before


def test_what_cannot_be_made_small_is_not_written_again_and_again(tmp_path: Path) -> None:
    journal = lay(tmp_path, 60, 1000)
    assert give_back_journal(journal, 6, {}) > 0, "older totals, at least"
    past = (journal / PAST_NAME).stat()
    assert give_back_journal(journal, 7, {}) == 0
    assert ((journal / PAST_NAME).stat().st_mtime_ns, journal_numbers(journal)[0]) == (past.st_mtime_ns, 7)


def test_a_recorder_that_starts_again_finds_what_was_before(tmp_path: Path) -> None:
    journal = lay(tmp_path, 60, 1000)
    whole = read_earlier(tmp_path)
    assert whole.call_sid == "RM_1"
    give_back_journal(journal, journal_numbers(journal)[-2], dict.fromkeys(LOGS, Taken(60 * SECOND, 0)))
    assert read_earlier(tmp_path) == whole


def test_a_reader_goes_on_while_segments_before_it_go_away(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path, 1000)
    reader = Spool(tmp_path)
    for event, at, fields in a_call(60):
        writer.journal(event, at, **fields)
        writer.flush()
        reader.refresh()
        give_back_journal(writer.folder, reader.journals()["i0001"] - 1, {})
    writer.close()
    reader.refresh()
    lay(tmp_path / "whole", 60, 1 << 20)
    assert reader.facts == facts_of(tmp_path / "whole")


@pytest.mark.parametrize("content", [b"", b"nonsense\n", b"\xff" * 100, encode_line("past", 0, {"through": -1})])
def test_a_damaged_past_is_no_error(tmp_path: Path, content: bytes) -> None:
    journal = lay(tmp_path, 60, 1000)
    give_back_journal(journal, 4, {})
    (journal / PAST_NAME).write_bytes(content)
    assert facts_of(tmp_path).incarnations == 0


def test_lines_of_no_sense_are_kept_or_left_out_but_upset_nothing() -> None:
    lines = [
        encode_line("report", 5, {"track": ["t0001"]}),
        b'{"e":["report"],"at":"soon"}\n',
        encode_line("report", 5, {"track": "t0001"}).replace(b":5,", b':"5",'),
        encode_line("report", 5, {"track": "t0001"}),
    ]
    left = list(abridge(lines, {"t0001": Taken(9, 9)}))
    unread = encode_line("unread", 5, {"since_ns": 5})
    assert left == [lines[0], unread, encode_line("abridged", 5, {"track": "t0001"})]


def test_what_a_damaged_line_leaves_unknown_is_told_from_the_past_too(tmp_path: Path) -> None:
    folder = write(tmp_path, 30, 1024)
    path = journal_path(folder, 2)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], *(b"\0" * len(line) for line in lines[1:4]), *lines[4:]]))
    before = facts_of(tmp_path)
    [span] = before.unread
    assert span.end_ns is not None
    assert 0 < span.start_ns < span.end_ns < 30 * SECOND
    assert give_back_journal(folder, 3, {}) > 0
    assert facts_of(tmp_path).unread == [span]
