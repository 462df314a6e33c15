"""Schedules, names of failpoints, and the report: what a campaign decides and says without doing anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faults.__main__ import main
from faults.campaign import RANDOM_KINDS, Asked, jobs_elsewhere, random_jobs
from faults.clocks import steps
from faults.kinds import KINDS, Job, parse_job
from faults.plans import random_kills
from faults.pods import VICTIMS
from faults.publisher import asks_for_key_frame
from faults.record import Record
from faults.report import render
from faults.result import KILLED, Result
from faults.runner import close_segments_at, fired_at
from faults.sites import (
    MARK,
    Failpoint,
    failpoints,
    new_failpoints,
    operator_failpoints,
    parse,
    parse_all,
    plain,
    side_by_side,
    write_of,
)
from faults.stores import STORES, USUAL
from isotrack_recorder.spool import watermarks
from support.golden import Golden


@given(st.integers(0, 2**32))
def test_a_seed_is_a_plan(seed: int) -> None:
    plan = random_kills(seed, ("capture", "agent"), 6, 2)
    assert plan == random_kills(seed, ("capture", "agent"), 6, 2)
    assert {step.command for step in plan.during} == {"capture", "agent"}
    assert (len(plan.during), len(plan.after_end)) == (6, 2)
    assert all(0 < step.after < 4 for step in (*plan.during, *plan.after_end))


@pytest.mark.parametrize("kills", [0, 10, 200])
def test_a_campaign_plans_as_many_kills_as_are_asked_for(kills: int) -> None:
    jobs = random_jobs(Asked(seed=5, kills=kills))
    planned = sum(KINDS[job.kind].kills for job in jobs)
    assert kills <= planned < kills + 10
    assert len({str(job) for job in jobs}) == len(jobs)
    if kills == 200:
        assert {job.kind for job in jobs if KINDS[job.kind].kills} == set(RANDOM_KINDS)


def test_a_job_is_repeated_by_its_name() -> None:
    job = Job("failpoint", 7, "agent:before:2:s3 PutObject attempts/N/intent.json")
    assert parse_job(str(job)) == job
    assert parse_job("agent-killed#3") == Job("agent-killed", 3)
    assert parse_job("storage-breaks/ceph#4") == Job("storage-breaks", 4, store="ceph")
    assert str(Job("storage-breaks", 4, store="ceph")) == "storage-breaks/ceph#4"
    with pytest.raises(ValueError, match="no such kind"):
        parse_job("nobody-killed#3")
    with pytest.raises(ValueError, match="no such S3 server"):
        parse_job("storage-breaks/tape#3")


def test_every_further_server_gets_its_share_of_storage_faults_and_kills() -> None:
    jobs = jobs_elsewhere(Asked(seed=1, kills=200), [*STORES])
    assert {job.store for job in jobs} == set(STORES) - {USUAL}
    for store in set(STORES) - {USUAL}:
        assert {job.kind for job in jobs if job.store == store} >= {"storage-breaks", "storage-away", "agent-killed"}
    assert len({str(job) for job in jobs}) == len(jobs)
    assert jobs_elsewhere(Asked(seed=1, kills=200), [USUAL]) == []


def test_processes_die_side_by_side_each_at_its_own_failpoint() -> None:
    of_capture = [Failpoint("capture", "before", n, "rename run/token") for n in (1, 2)]
    of_agent = [Failpoint("agent", "after", 1, "s3 PutObject recording.json")]
    details = side_by_side(of_capture, of_agent)
    assert details == [f"{of_capture[0]} + {of_agent[0]}", str(of_capture[1])]
    assert parse_all(details[0]) == (of_capture[0], of_agent[0])
    assert parse_all("") == ()


@pytest.mark.parametrize(
    ("method", "url", "site"),
    [
        ("POST", "/apis/batch/v1/namespaces/a/jobs?fieldManager=x", "api POST jobs"),
        ("PATCH", "/apis/isotrack.dev/v1alpha1/namespaces/a/recordings/b/status", "api PATCH recordings/status"),
        ("PATCH", "/apis/isotrack.dev/v1alpha1/namespaces/a/recordings/b", "api PATCH recordings"),
        ("PATCH", "/apis/isotrack.dev/v1alpha1/recordingclasses/c/status", "api PATCH recordingclasses/status"),
        ("DELETE", "/apis/coordination.k8s.io/v1/namespaces/a/leases/b", "api DELETE leases"),
        ("POST", "/api/v1/namespaces/a/secrets", "api POST secrets"),
        ("DELETE", "/api/v1/namespaces/a", "api DELETE namespaces"),
        ("POST", "/api/v1/namespaces/a/secrets?dryRun=All", ""),
        ("GET", "/api/v1/namespaces/a/secrets/b", ""),
        ("POST", "/twirp/livekit.RoomService/ListRooms", ""),
    ],
)
def test_a_write_to_the_api_server_is_named_by_what_it_writes(method: str, url: str, site: str) -> None:
    assert write_of(method, f"https://127.0.0.1:6443{url}") == site


def test_the_operator_dies_at_every_write_behind_the_mark() -> None:
    status, event = "api PATCH recordings/status", "api POST events"
    passed = ["api POST jobs", status, event, MARK, "api POST jobs", status, event, event, status]
    found = [str(failpoint) for failpoint in operator_failpoints(passed)]
    assert found == [
        f"operator:{side}:{what}"
        for what in (f"2:{passed[0]}", f"2:{status}", f"2:{event}", f"3:{status}")
        for side in ("before", "after")
    ]
    assert len(operator_failpoints([one for one in passed if one != MARK])) == 2 * 7


def test_every_process_that_has_failpoints_has_a_name_and_is_counted() -> None:
    assert {process for kind in KINDS.values() for process in kind.fails} <= VICTIMS.keys()
    assert set(VICTIMS.values()) < set(KILLED)


def test_a_process_dies_of_its_failpoint_once() -> None:
    assert fired_at("fsync x\n") is None
    assert fired_at("fsync x\nfired 17.5\nfsync x\n") == 17.5


def test_the_runner_can_make_segments_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a short call would give nothing of its spool back."""
    for name in ("MIN_SEGMENT_BYTES", "MAX_SEGMENT_BYTES"):
        monkeypatch.setattr(watermarks, name, getattr(watermarks, name))
    close_segments_at(4096)
    assert {watermarks.segment_bytes(capacity) for capacity in (0, 2**30, 2**50)} == {4096}


def test_a_further_scenario_tries_what_is_new_in_it() -> None:
    """Sites that nobody else passes; and those that it passes behind its mark only, where they do something else."""
    known = set(failpoints("agent", ["s3 PutObject a", "s3 PutObject recording.json", "fsync x"]))
    passed = ["s3 PutObject a", "s3 GetObject b", "fsync x", MARK, "fsync x", "s3 PutObject recording.json"]
    found = [str(failpoint) for failpoint in new_failpoints("agent", passed, known)]
    assert found == [
        f"agent:{side}:{nth}:{site}"
        for nth, site in ((1, "s3 GetObject b"), (2, "fsync x"), (1, "s3 PutObject recording.json"))
        for side in ("before", "after")
    ]
    assert new_failpoints("agent", ["fsync x", "s3 PutObject a"], known) == []


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("spool/i0001/t0012.000001.log", "spool/iN/tN.N.log"),
        ("attempts/12/manifest.json", "attempts/N/manifest.json"),
        ("attempts/1/checkpoints/0123456789abcdef/00000007.ckpt", "attempts/N/checkpoints/ID/N.ckpt"),
        ("default_alice_PA_1_peer_audio_1.mkv", "FILE"),
        ("run/.token.new", "run/.token.new"),
        ("attempts/1/probe-3f6a90d2", "attempts/N/probe-ID"),
        ("spool/ship/recovery/tmp4qx_t8y6/0123456789abcdef/i0001", "spool/ship/recovery/tmpID/ID/iN"),
        ("spool/ship/recovery/recovery-h1dhf0_x/spool", "spool/ship/recovery/recovery-ID/spool"),
        ("spool/ship/recovery", "spool/ship/recovery"),
    ],
)
def test_a_site_is_named_without_what_differs_from_run_to_run(path: str, name: str) -> None:
    assert plain(path) == name


def test_failpoints_are_both_sides_of_two_passages_and_the_middle_of_writes() -> None:
    found = failpoints("capture", ["rename run/token", "writev spool/iN/journal.ndjson"] * 3 + ["fsync x"])
    assert [str(failpoint) for failpoint in found if failpoint.site == "rename run/token"] == [
        "capture:before:1:rename run/token",
        "capture:after:1:rename run/token",
        "capture:before:2:rename run/token",
        "capture:after:2:rename run/token",
    ]
    assert {failpoint.side for failpoint in found if failpoint.site.startswith("writev")} == {"before", "torn", "after"}
    assert [failpoint.nth for failpoint in found if failpoint.site == "fsync x"] == [1, 1]
    assert all(parse(str(failpoint)) == failpoint for failpoint in found)
    assert parse("agent:after:1:s3 GetObject a:b") == Failpoint("agent", "after", 1, "s3 GetObject a:b")


@pytest.mark.parametrize(
    ("compound", "asks"),
    [
        (bytes.fromhex("80c90001 00000001 81ce0002 00000001 00000002"), True),
        (bytes.fromhex("84ce0002 00000001 00000002"), True),
        (bytes.fromhex("80c90001 00000001 8fce0002 00000001 00000002"), False),
        (b"\x81", False),
        (b"", False),
    ],
    ids=["report-and-pli", "fir", "report-and-remb", "cut-off", "empty"],
)
def test_a_key_frame_request_is_found_in_a_compound(compound: bytes, asks: bool) -> None:
    assert asks_for_key_frame(compound) is asks


def a_result(job: str, **values: Any) -> dict[str, Any]:
    defaults: dict[str, Any] = {
        "kind": job.partition("#")[0],
        "job": job,
        "seconds": 10.0,
        "kills": {},
        "faults": {},
        "losses": [],
        "payloads": 1000,
        "findings": [],
        "invalid": [],
        "folder": "",
    }
    return {**defaults, **values}


def test_a_campaign_goes_on_with_what_has_not_passed(tmp_path: Path) -> None:
    record = Record(tmp_path / "results.json", "make faults", 1)
    jobs = [Job("recorder-killed", 1), Job("agent-killed", 2), Job("both-killed", 3)]
    record.plan([*jobs, jobs[0]])
    record.add(Result(kind="recorder-killed", job=str(jobs[0]), seconds=1.0))
    record.add(Result(kind="agent-killed", job=str(jobs[1]), seconds=1.0, findings=("twice",)))
    record.write()
    again = Record.read(tmp_path / "results.json")
    assert again.due(tuple(KINDS)) == jobs[1:]
    assert again.due(("both-killed",)) == jobs[2:]
    again.add(Result(kind="agent-killed", job=str(jobs[1]), seconds=1.0))
    assert again.due(tuple(KINDS)) == jobs[2:]
    first = [{"job": str(jobs[1]), "findings": ["twice"], "invalid": []}]
    assert again.values() == {**record.values(), "results": again.values()["results"], "again": first}


def test_a_clock_that_was_set_is_seen_in_what_a_process_says() -> None:
    calm = ["writev spool/iN/tN.N.log 1000.5", "writev spool/iN/tN.N.log 1003.0"]
    assert steps("\n".join(calm)) == 0
    assert steps("\n".join([*calm, "rename run/token 4603.5", "fsync x -2596.0"])) == 2


@pytest.mark.parametrize(
    "words", [["--report"], ["--report", "--cluster", "--go-on"], ["pod-lost", "--report", "--cluster"]]
)
def test_a_report_is_of_one_whole_run(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Record(tmp_path / "results.json", "make faults", 1).write()
    with pytest.raises(SystemExit):
        main([*words, "--folder", str(tmp_path)])
    assert "one whole run" in capsys.readouterr().err


def test_the_report_matches_golden(golden: Golden) -> None:
    losses = [{"victim": "recorder", "kills": 1, "lost": lost, "gap": 1.0 + lost} for lost in (0.05, 0.31, 0.48)]
    results = [
        a_result("recorder-killed#1", kills={"recorder": 3}, losses=losses),
        a_result(
            "failpoint#1@capture:before:1:rename run/token + agent:after:1:api PATCH recordingreports/status",
            kills={"recorder": 1, "agent": 1},
            faults={"capture:before:1:rename run/token": 1, "agent:after:1:api PATCH recordingreports/status": 1},
        ),
        a_result("failpoint#1@capture:after:1:rename run/token", invalid=["not seen"]),
        a_result("failpoint#1@agent:after:1:s3 PutObject FILE", kills={"agent": 1}, findings=["twice: bob's 7"]),
        a_result(
            "failpoint-successor#1@agent:before:1:s3 PutObject FILE",
            kills={"agent": 1, "pod": 1},
            faults={"agent:before:1:s3 PutObject FILE": 1},
        ),
        a_result(
            "failpoint-check#1@check:after:1:s3 DeleteObject isotrack-check/ID/probe-ID",
            kills={"checker": 1},
            payloads=0,
            faults={"check:after:1:s3 DeleteObject isotrack-check/ID/probe-ID": 1},
        ),
        a_result("storage-breaks#1", faults={"reset": 2, "slow": 1}),
        a_result("storage-breaks/rclone#1", faults={"reset": 3}),
        a_result(
            "operator-lost#1@operator:before:2:api POST jobs",
            kills={"operator": 1},
            payloads=0,
            faults={"operator:before:2:api POST jobs": 1},
        ),
    ]
    saved = {
        "command": "make faults",
        "seed": 1,
        "seconds": 300.0,
        "versions": {"isotrack": "0.1.0", "livekit-server": "1.13.5"},
        "planned": [*(result["job"] for result in results), "agent-killed#2"],
        "results": results,
        "missing": {"ceph": "missing programs: radosgw"},
        "cluster": {
            "tests": [
                {"name": "test_a_drained_node_hands_the_call_to_another", "outcome": "passed"},
                {"name": "test_an_evicted_pod_gets_a_successor", "outcome": "failed"},
            ],
            "costs": [
                {"fault": "node drained", "lost": 0.0, "gap": 1.5},
                {"fault": "recorder process killed", "lost": 0.4, "gap": 1.5},
                {"fault": "recorder process killed", "lost": 1.2, "gap": 0.5},
                {"fault": "node died, stopped before anybody went on", "lost": 4.2, "gap": None},
            ],
            "failed": ["test_an_evicted_pod_gets_a_successor"],
            "seconds": 400.0,
        },
        "again": [
            {"job": "storage-breaks#1", "findings": [], "invalid": ["slow was not seen to happen"]},
            {"job": "recorder-killed#1", "findings": ["trial: it ended with 1\nits log"], "invalid": []},
        ],
    }
    golden.check("reliability.md", render(saved))
