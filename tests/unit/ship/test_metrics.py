"""Metrics: what Prometheus reads of an attempt, and that nobody's name is in it."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isotrack_api.base import SpoolLevel, TrackSource
from isotrack_api.recording_report import StorageReport
from isotrack_recorder.control import SpoolState, State, TrackState, UnrecordedState
from isotrack_recorder.pod.agent_report import Facts
from isotrack_recorder.pod.metrics import FAMILIES, metrics_text
from isotrack_recorder.pod.metrics_server import serve_metrics
from isotrack_recorder.ship.store import Traffic
from isotrack_recorder.spool.room import folder_bytes

DOCS = Path(__file__).resolve().parents[3] / "docs" / "metrics.md"
SAMPLE = re.compile(r"([a-z_]+)(?:\{((?:[a-z_]+=\"(?:[^\"\\\n]|\\[\\n\"])*\",?)*)\})? ([0-9.]+)")
LABEL = re.compile(r"([a-z_]+)=\"((?:[^\"\\\n]|\\[\\n\"])*)\"")
UNESCAPED = {r"\\": "\\", r"\n": "\n", r"\"": '"'}

CAMERA = TrackState(
    track="t0001", track_id="TR_cam", user_id="alice", peer_id="PA_a", name="Alice", source=TrackSource.CAMERA, codec="vp8",
    packets=1000, lost=3, recovered=20, late=1, frames=300, media_bytes=123456, plis=2, size_changes=1, last_packet_age_ms=40,
)  # fmt: skip
STATE = State(phase="Capturing", participants=2, tracks=(CAMERA,))
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parse(text: str) -> tuple[Samples, dict[str, str]]:
    """Read the exposition format (version 0.0.4): samples and types. Refuses what Prometheus would refuse."""
    samples: Samples = {}
    types: dict[str, str] = {}
    assert text.endswith("\n")
    for line in text[:-1].split("\n"):
        if line.startswith("# HELP "):
            assert line.split(" ")[2] not in types, "a family comes once, in one piece"
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            types[name] = kind
        else:
            found = SAMPLE.fullmatch(line)
            assert found, line
            labels = LABEL.findall(found[2] or "")
            plain = frozenset((name, re.sub(r"\\.", lambda m: UNESCAPED[m[0]], value)) for name, value in labels)
            assert found[1] == list(types)[-1], "samples follow their TYPE"
            assert (found[1], plain) not in samples, "a series comes once"
            samples[found[1], plain] = float(found[3])
    return samples, types


def metrics(facts: Facts, traffic: Traffic | None = None, *, up: bool = True) -> Samples:
    return parse(metrics_text(facts, traffic or Traffic(), 4096, recorder_up=up))[0]


def key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return f"isotrack_{name}", frozenset(labels.items())


def test_every_counter_of_a_track_is_there() -> None:
    found = metrics(Facts(STATE))
    labels = {"track": "t0001", "track_id": "TR_cam", "source": "camera"}
    values = {
        name.removeprefix("isotrack_track_"): value
        for (name, at), value in found.items()
        if at == frozenset(labels.items())
    }
    assert values == {
        "packets_total": 1000, "packets_lost_total": 3, "packets_recovered_total": 20, "packets_late_total": 1,
        "frames_total": 300, "media_bytes_total": 123456, "key_frame_requests_total": 2, "size_changes_total": 1,
        "muted": 0, "shed": 0, "last_packet_age_seconds": 0.04,
    }  # fmt: skip


def test_the_attempt_is_summed_up() -> None:
    facts = Facts(STATE, restarts=2, storage=StorageReport(ready=False, reason="StorageRefused", message="no"))
    found = metrics(facts, Traffic(bytes_sent=99, failures=4))
    assert found[key("recorder_up")] == 1
    assert found[key("recorder_phase", phase="Capturing")] == 1
    assert sum(value for (name, _), value in found.items() if name == "isotrack_recorder_phase") == 1
    assert found[key("recorder_restarts_total")] == 2
    assert (found[key("participants")], found[key("tracks")]) == (2, 1)
    assert (found[key("upload_bytes_total")], found[key("upload_failures_total")]) == (99, 4)
    assert (found[key("storage_ready")], found[key("spool_bytes")]) == (0, 4096)


def test_before_the_recorder_has_spoken_there_are_zeros() -> None:
    found = metrics(Facts(None), up=False)
    assert found[key("recorder_up")] == found[key("tracks")] == found[key("files_total")] == 0
    assert key("storage_ready") not in found, "nobody knows yet"


def test_a_track_that_ended_has_no_age_and_is_not_counted() -> None:
    found = metrics(Facts(replace(STATE, tracks=(replace(CAMERA, ended=True),))))
    assert not any(name == "isotrack_track_last_packet_age_seconds" for name, _ in found)
    assert found[key("tracks")] == 0


def test_nobody_is_named() -> None:
    text = metrics_text(Facts(STATE), Traffic(), 0, recorder_up=True)
    assert not re.search(r"alice|PA_a", text, re.IGNORECASE)


def test_a_person_who_is_admitted_again_has_two_series() -> None:
    again = replace(CAMERA, track="t0002")
    metrics(Facts(replace(STATE, tracks=(CAMERA, again))))  # `parse` refuses a repeated one


@given(st.text(st.characters(codec=None), max_size=200))
def test_any_track_id_is_a_legal_label(track_id: str) -> None:
    found = metrics(Facts(replace(STATE, tracks=(replace(CAMERA, track_id=track_id),))))
    shown = {dict(labels).get("track_id") for name, labels in found if name == "isotrack_track_packets_total"}
    assert shown == {track_id[:128].encode("utf-8", "replace").decode()}


def test_a_track_that_cannot_be_recorded_is_told_with_its_cause_and_nobody_named() -> None:
    row = UnrecordedState(track_id="TR_x", user_id="alice", source=TrackSource.CAMERA, reason="Encrypted")
    longer = [replace(row, track_id="T" * 128 + tail) for tail in "ab"]
    facts = Facts(replace(STATE, unrecorded=(row, *longer)))
    found = metrics(facts)
    assert found[key("track_unrecorded", track_id="TR_x", source="camera", reason="Encrypted")] == 1
    assert sum(name == "isotrack_track_unrecorded" for name, _ in found) == 2, "a series comes once"
    assert "alice" not in metrics_text(facts, Traffic(), 0, recorder_up=True)


def test_documentation_and_code_name_the_same_metrics() -> None:
    rows = re.findall(r"^\| `(isotrack_\w+)` \| (\w+) \|", DOCS.read_text(), re.MULTILINE)
    assert rows == [(family.name, family.kind) for family in FAMILIES]
    _, types = parse(metrics_text(Facts(STATE), Traffic(), 0, recorder_up=True))
    assert list(types.items()) == rows


def test_age_of_the_checkpoint_is_there_where_checkpoints_are() -> None:
    assert metrics(Facts(STATE, checkpoint_age_seconds=2.5))[key("checkpoint_age_seconds")] == 2.5
    assert key("checkpoint_age_seconds") not in metrics(Facts(STATE))


def test_capacity_of_the_spool_is_what_the_recorder_says() -> None:
    spool = SpoolState(level=SpoolLevel.FILLING, used=61, capacity=100)
    assert metrics(Facts(replace(STATE, spool=spool)))[key("spool_capacity_bytes")] == 100
    assert key("spool_capacity_bytes") not in metrics(Facts(STATE)), "not looked at yet"


async def test_a_scrape_gets_the_text_and_health_answers(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(7))
    size = folder_bytes(tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serving = asyncio.create_task(serve_metrics(port, tmp_path, lambda measured: f"x {measured}\n"))
    try:
        async with aiohttp.ClientSession() as session, asyncio.timeout(60):
            answer = await _get(session, f"http://127.0.0.1:{port}/metrics")
            assert (await answer.text(), answer.headers["Content-Type"]) == (
                f"x {size}\n",
                "text/plain; version=0.0.4; charset=utf-8",
            )
            assert (await _get(session, f"http://127.0.0.1:{port}/healthz")).status == 200
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


async def _get(session: aiohttp.ClientSession, url: str) -> aiohttp.ClientResponse:
    while True:
        try:
            return await session.get(url)
        except aiohttp.ClientConnectorError:  # not listening yet
            await asyncio.sleep(0.02)


class Heard(logging.Handler):
    """Knows when something was logged."""

    def __init__(self, message: str) -> None:
        super().__init__()
        self.message, self.heard = message, asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage() == self.message:
            self.heard.set()


async def test_a_port_that_is_taken_costs_the_metrics_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "isotrack_recorder.pod.metrics_server")  # whatever a command before us configured
    ear, log = Heard("no metrics: cannot listen"), logging.getLogger("isotrack_recorder.pod.metrics_server")
    log.addHandler(ear)
    with socket.create_server(("0.0.0.0", 0)) as taken:
        serving = asyncio.create_task(serve_metrics(taken.getsockname()[1], tmp_path, lambda _: ""))
        try:
            await asyncio.wait_for(ear.heard.wait(), 60)
            assert not serving.done()
        finally:
            log.removeHandler(ear)
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
