"""Many harnesses, each in a process of its own, several at once.

    .fuzz/<harness>/corpus/     inputs that reached something new, kept for the next campaign
    .fuzz/<harness>/findings/   reproducers, with their traces beside them

A worker that dies (a crash in native code, the kernel's memory killer) or makes no progress is a finding as well.
"""

from __future__ import annotations

import concurrent.futures
import json
import os
import re
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from . import engine
from .harness import CORPUS, Harness

ATHERIS_HANG_SECONDS: Final = 10
STALL_SECONDS: Final = 300
"""Wall clock without news of a worker: its own watchdog must have failed."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a campaign does with each harness."""

    inputs: int
    seconds: float | None
    seed: int
    engine: str
    """atheris or mutate."""
    folder: Path


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one harness."""

    name: str
    inputs: int
    seconds: float
    corpus: int
    """New inputs."""
    coverage: int
    """Lines (own engine) or edges and branches (atheris) reached."""
    findings: tuple[tuple[str, Path], ...]
    """Titles and reproducers."""


def run_campaign(harnesses: list[Harness], settings: Settings, jobs: int) -> Iterator[Result]:
    """Fuzz each harness; yields results as they come."""
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(_run, harness, settings) for harness in harnesses]
        for future in concurrent.futures.as_completed(futures):
            yield future.result()


def _run(harness: Harness, settings: Settings) -> Result:
    (settings.folder / harness.name / "corpus").mkdir(parents=True, exist_ok=True)
    (settings.folder / harness.name / "findings").mkdir(exist_ok=True)
    return (_run_atheris if settings.engine == "atheris" else _run_own)(harness, settings)


def _budget(harness: Harness, settings: Settings) -> int:
    return max(1, round(settings.inputs * harness.share))


# -- own engine --------------------------------------------------------------------------------------------------------


def _run_own(harness: Harness, settings: Settings) -> Result:
    """Start `worker` and watch it."""
    folder = settings.folder / harness.name
    slot = folder / "in-hand"
    seconds = [] if settings.seconds is None else ["--seconds", str(settings.seconds)]
    command = [sys.executable, "-m", "fuzz.campaign", harness.name, str(_budget(harness, settings)), str(settings.seed)]
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as errors:
        with subprocess.Popen([*command, str(folder), *seconds], stdout=subprocess.PIPE, stderr=errors) as process:
            last = _follow(process)
        if process.returncode != 0:
            errors.seek(0)
            said = errors.read(100_000)
            title = f"the process ended with {process.returncode}: {said.strip()[-200:]}"
            path = _keep(folder, engine.Slot.read(slot) if slot.exists() else b"", title, said)
            last["findings"].append([title, str(path)])
    slot.unlink(missing_ok=True)
    findings = tuple((title, Path(path)) for title, path in last["findings"])
    spent = time.monotonic() - started
    return Result(harness.name, last["inputs"], spent, last["corpus"], last["lines"], findings)


def _follow(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Read a worker's reports to its end, its newest one is the result. A worker that falls silent is ended."""
    last: dict[str, Any] = {"inputs": 0, "corpus": 0, "lines": 0, "findings": []}
    assert process.stdout is not None
    buffer = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            if not selector.select(STALL_SECONDS):
                process.kill()
                return last
            data = os.read(process.stdout.fileno(), 65536)
            if not data:
                return last
            *lines, buffer = (buffer + data).split(b"\n")
            if lines:
                last = json.loads(lines[-1])


def _keep(folder: Path, data: bytes, title: str, trace: str) -> Path:
    path = folder / "findings" / engine.name_of(data)
    path.write_bytes(data)
    path.with_suffix(".txt").write_text(f"{title}\n\n{trace}")
    return path


def worker(arguments: list[str]) -> int:
    """Body of a worker process: `HARNESS INPUTS SEED FOLDER [--seconds S]`; prints a line of JSON every second."""
    from .targets import all_harnesses

    name, inputs, seed, place, *rest = arguments
    harness, folder = all_harnesses()[name], Path(place)
    engine.limit_memory()
    known = [path.read_bytes() for path in sorted((folder / "corpus").iterdir())]
    outcome = engine.run(
        harness,
        inputs=int(inputs),
        seconds=float(rest[1]) if rest else None,
        seed=int(seed),
        extra=known,
        slot=engine.Slot(folder / "in-hand", harness.max_bytes),
        report=lambda running: _tell(running, []),
    )
    for data in outcome.corpus:
        (folder / "corpus" / engine.name_of(data)).write_bytes(data)
    findings = [
        (found.title, str(_keep(folder, found.data, found.title, found.trace))) for found in outcome.findings.values()
    ]
    _tell(outcome, findings)
    return 0


def _tell(outcome: engine.Outcome, findings: list[tuple[str, str]]) -> None:
    row = {"inputs": outcome.inputs, "corpus": len(outcome.corpus), "lines": outcome.lines, "findings": findings}
    sys.stdout.write(json.dumps(row) + "\n")
    sys.stdout.flush()


# -- atheris -----------------------------------------------------------------------------------------------------------


def _run_atheris(harness: Harness, settings: Settings) -> Result:
    folder = settings.folder / harness.name
    before = len(list((folder / "corpus").iterdir()))
    seeds = [str(CORPUS / harness.name)] if (CORPUS / harness.name).is_dir() else []
    budget = _budget(harness, settings)
    with tempfile.NamedTemporaryFile("w", suffix=".dict") as words:
        words.writelines(f'"{_escaped(token[:64])}"\n' for token in harness.tokens)
        words.flush()
        flags = [
            f"-runs={budget}",
            f"-max_len={harness.max_bytes}",
            f"-seed={settings.seed}",
            f"-timeout={ATHERIS_HANG_SECONDS}",
            f"-rss_limit_mb={engine.MEMORY_BYTES // 1024**2}",
            f"-artifact_prefix={folder / 'findings'}{os.sep}",
            "-print_final_stats=1",
            *([f"-max_total_time={settings.seconds:.0f}"] if settings.seconds is not None else []),
            *([f"-dict={words.name}"] if harness.tokens else []),
            str(folder / "corpus"),
            *seeds,
        ]
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "fuzz.libfuzzer", harness.name, *flags],
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
        )
    output = done.stdout + done.stderr
    findings = []
    if done.returncode != 0:
        found = re.search(r"Test unit written to (\S+)", output)
        cause = re.search(r"^(\w[\w.]*(?:Error|Exception)[^\n]*|ERROR: libFuzzer: [^\n]*)", output, re.MULTILINE)
        title = (cause[1] if cause else f"the process ended with {done.returncode}: {output[-200:]}")[:200]
        path = Path(found[1]) if found else folder / "findings" / "none"
        path.with_name(path.name + ".txt").write_text(output[-20_000:])
        findings.append((title, path))
    inputs = _last_number(r"stat::number_of_executed_units:\s*(\d+)", output) or _last_number(r"^#(\d+)\s", output)
    coverage = _last_number(r"\bcov: (\d+)", output)
    corpus = len(list((folder / "corpus").iterdir())) - before
    return Result(harness.name, inputs, time.monotonic() - started, corpus, coverage, tuple(findings))


def _escaped(token: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in token)


def _last_number(pattern: str, text: str) -> int:
    found = re.findall(pattern, text, re.MULTILINE)
    return int(found[-1]) if found else 0


if __name__ == "__main__":
    raise SystemExit(worker(sys.argv[1:]))
