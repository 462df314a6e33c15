"""A share of `make fuzz` that runs with every test run, and proof that the engine finds what it is there to find."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fuzz import campaign, engine
from fuzz.harness import CORPUS, MAX_BYTES, Harness, join, parts
from fuzz.mutate import Mutator
from fuzz.targets import all_harnesses
from isotrack_recorder.codecs.registry import CODECS
from isotrack_recorder.errors import ParseError

HARNESSES = all_harnesses()
INPUTS = 3000


@pytest.mark.parametrize("name", HARNESSES)
def test_the_corpus_shows_no_defect(name: str) -> None:
    """What fuzzing found once lies in the corpus beside the seeds."""
    for data in HARNESSES[name].seeds():
        HARNESSES[name].fuzz(data)


@pytest.mark.parametrize("name", HARNESSES)
def test_mutations_show_no_defect(name: str) -> None:
    harness = HARNESSES[name]
    outcome = engine.run(harness, inputs=max(1, round(INPUTS * harness.share)), seconds=None, seed=20260101, extra=[])
    assert not outcome.findings, "\n".join(f"{f.title}\n{f.trace}\n{f.data!r}" for f in outcome.findings.values())


def test_each_folder_of_the_corpus_has_its_harness() -> None:
    assert {path.name for path in CORPUS.iterdir()} <= set(HARNESSES)


@pytest.mark.parametrize("name", [name for name in CODECS if (CORPUS / f"codec-{name}").is_dir()])
def test_seeds_of_a_codec_are_media(name: str) -> None:
    """Seeds that all end in ParseError would fuzz nothing but the first check."""
    keys = 0
    for data in HARNESSES[f"codec-{name}"].seeds():
        depacketizer, payloads = CODECS[name].make(""), []
        for piece, ends in list(parts(data))[1:]:
            payloads.append(piece)
            if ends:
                try:
                    keys += depacketizer.frame(payloads).key
                except ParseError:
                    continue
                finally:
                    payloads = []
    assert keys


# -- the engine --------------------------------------------------------------------------------------------------------


def _hidden(data: bytes) -> None:
    """Fails deep inside: each step is a line of its own that coverage can see."""
    if data[:1] == b"\x07":  # noqa: SIM102
        if data[1:2] == b"\x3f":  # noqa: SIM102
            if data[2:3] == b"\x1f":
                raise IndexError("deep")


def _endless(data: bytes) -> None:
    while data:
        pass


def run(fuzz: Callable[[bytes], None], inputs: int, *, seed: int = 1) -> engine.Outcome:
    harness = Harness("planted", fuzz, max_bytes=8)
    return engine.run(harness, inputs=inputs, seconds=None, seed=seed, extra=[bytes(8)])


def test_coverage_leads_to_what_chance_alone_does_not_find(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "TRACE_EVERY", 2)
    monkeypatch.setattr(engine, "OURS", ())
    assert not run(_hidden, 60_000).findings
    monkeypatch.setattr(engine, "OURS", ("test_fuzz_smoke",))
    (found,) = run(_hidden, 60_000).findings.values()
    assert found.title.startswith("IndexError")
    assert found.data[:3] == b"\x07\x3f\x1f"


def test_an_endless_input_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "HANG_SECONDS", 0.05)
    outcome = run(_endless, 2)
    assert [found.title.split()[0] for found in outcome.findings.values()] == ["HangError"]


def test_one_defect_is_reported_once() -> None:
    def fail(data: bytes) -> None:
        raise KeyError(data)

    assert len(run(fail, 500).findings) == 1


def test_equal_seeds_make_equal_inputs() -> None:
    tried: list[list[bytes]] = [[], []]
    for inputs in tried:
        run(inputs.append, 500)
    assert tried[0] == tried[1]
    assert len(set(tried[0])) > 300


def test_inputs_keep_to_the_longest_length() -> None:
    mutator = Mutator(7, 32, (b"token" * 10,), text=True)
    assert max(len(mutator.make([b"x" * 30])) for _ in range(2000)) <= 32


def test_parts_take_apart_what_join_put_together() -> None:
    pieces = [b"", b"a", b"bc" * 500]
    assert list(parts(join(*pieces, marked=frozenset({1})))) == [(b"", False), (b"a", True), (b"bc" * 500, False)]


def test_a_process_that_dies_leaves_its_input(tmp_path: Path) -> None:
    slot = engine.Slot(tmp_path / "in-hand", MAX_BYTES)
    slot.put(b"longer input")
    slot.put(b"short")
    assert engine.Slot.read(tmp_path / "in-hand") == b"short"


def test_a_campaign_keeps_reproducers_and_says_how_to_repeat_them(tmp_path: Path) -> None:
    settings = campaign.Settings(inputs=200, seconds=None, seed=1, engine="mutate", folder=tmp_path)
    (result,) = campaign.run_campaign([HARNESSES["rtcp"]], settings, jobs=1)
    assert (result.name, result.inputs, result.findings) == ("rtcp", 200, ())
    assert result.coverage > 5


@pytest.mark.parametrize(
    ("body", "patience", "ended"),
    [
        pytest.param("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", 60, "ended with -11", id="crashed"),
        pytest.param("import time; time.sleep(600)", 5, "ended with -9", id="silent"),
    ],
)
def test_a_worker_that_dies_or_falls_silent_is_a_finding_with_its_input(
    body: str, patience: int, ended: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It imports nothing before its report: on a busy machine that alone would be a long silence."""
    program = tmp_path / "worker"
    slot = tmp_path / "rtcp" / "in-hand"
    report = '{"inputs": 7, "corpus": 0, "lines": 3, "findings": []}'
    in_hand = engine.Slot(tmp_path / "slot", 64)
    in_hand.put(b"in hand")
    kept = f"open({str(slot)!r}, 'wb').write({(tmp_path / 'slot').read_bytes()!r})"
    program.write_text(f"#!{sys.executable}\n{kept}\nprint({report!r}, flush=True)\n{body}\n")
    program.chmod(0o700)
    monkeypatch.setattr(campaign, "STALL_SECONDS", patience)
    monkeypatch.setattr(campaign.sys, "executable", str(program))
    settings = campaign.Settings(inputs=200, seconds=None, seed=1, engine="mutate", folder=tmp_path)
    (result,) = campaign.run_campaign([HARNESSES["rtcp"]], settings, jobs=1)
    ((title, path),) = result.findings
    assert ended in title
    assert (result.inputs, path.read_bytes()) == (7, b"in hand")
