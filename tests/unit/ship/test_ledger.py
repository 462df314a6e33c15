"""What an agent that was killed still knows."""

from __future__ import annotations

import hashlib
import itertools
import tempfile
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isotrack_recorder.ship.ledger import LEDGER_NAME, Ledger
from isotrack_recorder.ship.store import Part
from support.manifests import a_file


def a_part(number: int) -> Part:
    return Part(number, f"etag-{number}", 5000, bytes(16), 77, hashlib.sha256(bytes([number])).digest())


def test_files_survive_the_process(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.add_file(a_file(name="a.mkv"))
    ledger.add_file(a_file(name="b.mkv"))
    ledger.add_file(a_file(name="a.mkv", bytes=7))
    again = Ledger(tmp_path).files
    assert {name: file.bytes for name, file in again.items()} == {"a.mkv": 7, "b.mkv": again["b.mkv"].bytes}


def test_acknowledged_parts_survive_the_process(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.add_upload("a.mkv", "upload-1")
    for number in (2, 3):
        ledger.add_part("a.mkv", a_part(number))
    again = Ledger(tmp_path).upload("a.mkv")
    assert again is not None
    assert again.upload_id == "upload-1"
    assert again.parts == {2: a_part(2), 3: a_part(3)}
    assert Ledger(tmp_path).has_part("a.mkv", 3)
    assert not Ledger(tmp_path).has_part("a.mkv", 4)
    assert not Ledger(tmp_path).has_part("b.mkv", 3)


def test_parts_of_an_upload_that_was_given_up_count_no_more(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.add_upload("a.mkv", "upload-1")
    ledger.add_part("a.mkv", a_part(2))
    ledger.forget_upload("a.mkv")
    assert Ledger(tmp_path).upload("a.mkv") is None
    ledger.add_upload("a.mkv", "upload-2")
    upload = Ledger(tmp_path).upload("a.mkv")
    assert upload is not None
    assert (upload.upload_id, upload.parts) == ("upload-2", {})


@settings(deadline=None)
@given(st.lists(st.one_of(st.integers(1, 12), st.sampled_from(["begin", "forget"])), max_size=40))
def test_the_first_missing_part_is_that_of_the_present_upload(acts: list[int | str]) -> None:
    """Whoever looks for what is to be sent looks from there on: behind a day's file lie thousands of parts."""
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder))
        ledger.add_upload("a.mkv", "upload-1")
        known = set[int]()
        for act in acts:
            if isinstance(act, int) and ledger.upload("a.mkv") is not None:
                ledger.add_part("a.mkv", a_part(act))
                known.add(act)
            elif act == "forget":
                ledger.forget_upload("a.mkv")
                known = set()
            elif act == "begin":
                ledger.add_upload("a.mkv", "upload-2")
                known = set()
        first = next(number for number in itertools.count(2) if number not in known)
        assert ledger.first_missing("a.mkv") == Ledger(Path(folder)).first_missing("a.mkv") == first


def test_a_finished_file_has_no_upload(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.add_upload("a.mkv", "upload-1")
    ledger.add_file(a_file(name="a.mkv"))
    assert Ledger(tmp_path).upload("a.mkv") is None


@pytest.mark.parametrize("fact", ['{"part":{"name":"a","number":1e400}}', "[" * 100_000, '{"part":7}', "7", '"file"'])
def test_a_line_that_is_no_fact_under_a_right_checksum_is_passed_over(tmp_path: Path, fact: str) -> None:
    (tmp_path / LEDGER_NAME).write_bytes(b"%08x %s\n" % (zlib.crc32(fact.encode()), fact.encode()))
    Ledger(tmp_path).add_file(a_file(name="b.mkv"))
    assert list(Ledger(tmp_path).files) == ["b.mkv"]


def test_a_full_disk_makes_it_forgetful_but_not_fail(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ship")
    (tmp_path / "ship" / LEDGER_NAME).symlink_to("/dev/full")
    ledger.add_file(a_file(name="a.mkv"))
    assert list(ledger.files) == ["a.mkv"]


def test_a_line_after_a_torn_one_is_kept(tmp_path: Path) -> None:
    Ledger(tmp_path).add_file(a_file(name="a.mkv"))
    path = tmp_path / LEDGER_NAME
    path.write_bytes(path.read_bytes()[:-20])
    ledger = Ledger(tmp_path)
    assert not ledger.files
    ledger.add_file(a_file(name="b.mkv"))
    assert list(Ledger(tmp_path).files) == ["b.mkv"]


@settings(max_examples=60)
@given(cut=st.integers(0, 3000), junk=st.binary(max_size=40))
def test_a_damaged_ledger_never_claims_what_was_not_written(tmp_path_factory: object, cut: int, junk: bytes) -> None:
    folder = tmp_path_factory.mktemp("ledger")  # type: ignore[attr-defined]
    ledger = Ledger(folder)
    ledger.add_upload("c.mkv", "upload-1")
    for number in (2, 3):
        ledger.add_part("c.mkv", a_part(number))
    for name in ("a.mkv", "b.mkv"):
        ledger.add_file(a_file(name=name))
    path = folder / LEDGER_NAME
    path.write_bytes(path.read_bytes()[:cut] + junk)
    again = Ledger(folder)
    assert set(again.files) <= {"a.mkv", "b.mkv"}
    assert all(file == a_file(name=name) for name, file in again.files.items())
    upload = again.upload("c.mkv")
    assert upload is None or all(part == a_part(number) for number, part in upload.parts.items())
