"""Make docs/reliability.md of the results of a campaign (pure)."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from support.promises import CLUSTER_FAULTS, NODE_LOST_SECONDS, PROCESS_LOST_SECONDS

from .kinds import KINDS, parse_job
from .losses import histogram
from .result import KILLED
from .sites import parse_all
from .stores import CHARACTERS

LOSSES: Final = (
    (
        "recorder",
        "What the death of a recorder costs",
        (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0),
        "It holds the start of a Python process, joining, and a key frame, on a machine on which several trials run at a time.",
    ),
    (
        "pod",
        "What the loss of a pod with its spool costs",
        (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0),
        "It holds the start of two processes; a cluster adds what it takes to notice, and to start a pod.",
    ),
    (
        "handed over",
        "What a hand-over costs",
        (0.0, 0.05, 0.1, 0.2),
        "The SFU lets one of the two be in the call, so a successor that joins puts its predecessor out.",
    ),
)
HEAD: Final = f"""# Reliability

What isotrack promises: **the death of a process loses at most {PROCESS_LOST_SECONDS:g} s of captured media, the loss of a pod with its spool at most {NODE_LOST_SECONDS:g} s (checkpoint interval and 3 s), a storage that fails nothing, and every lost second is declared** in `recording.json`.
This page is written by the harness that tries it (`tests/faults`), from one run of it: `make faults`.

## How it is tried
People in a call on a real LiveKit server send sound and pictures of which every packet and every frame carries a serial. The two processes of a recorder pod (`isotrack-recorder capture` and `agent`) record it to real S3 servers
while they are killed, or while the storage misbehaves; what was killed is started again in place, what was lost with its spool is replaced by a further attempt. Afterwards only what lies in the bucket counts. A recording passes when all of this holds:

- it holds nothing that was not sent, in order, nothing twice, nothing moved on the timeline;
- every serial that is missing lies in a gap that its track declares as a loss (± 100 ms; at the end of what a lost pod left, `complete: false` says it), belongs to a kill, and is no more than that kill may cost;
- there is one `recording.json`, the attempts' manifests agree with it, every file that it lists is there with its SHA-256, and the agent's last words say the same;
- nothing is left over: no unfinished upload, no file that nobody lists;
- no secret and no token is in any log, last word or object.

The Jobs that have no call (finish what a lost pod left, sweep a storage, try one) are killed and run again alike, and so is the process that ships beside `isotrack record --output s3://…`.
The operator is tried on a real API server with the controllers of Jobs and of deletion: it dies before or after one write and is started again, and the Recording has to come to the same end as without, with nothing made twice and nothing (Job, pod, Secret, Lease, finalizer) left behind; the Jobs that try and sweep a storage have to go on one behind the other. Pods are played there; whole recordings on a whole cluster are the last part. There, too, nobody may tell a secret: searched are all logs, every version of every object but Secrets, and what lies in the bucket.

A trial whose fault was not seen to happen proves nothing and does not count as passed; a process that had already ended when it was to be killed is no kill.

Two figures, never one: **lost** is media that had been sent before the process died and is not in the recording; **gap** is the time from the death until media of everybody is recorded again.
"""

FOUND: Final = """## What it has found
Each of these was mended together with a test that had failed before. The two of the operator that are marked were found by reading the code; the failpoints named were tried without the mend, and fail.

| what was wrong | what shows it |
|---|---|
| pictures that a crash cost were declared only from 2 s on | `recorder-killed` |
| what a crash cost as the call ended counted as the sender's silence, or was not declared | `recorder-killed` |
| a crash before anything of a track was on the disk was declared nowhere: its file simply began later | `failpoint`, `capture:after:2:writev spool/iN/tN.N.log` |
| a recorder that was killed again before it was in the call moved the beginning of the gap to that second death | `recorder-killed#10` |
| a pod that was lost within a checkpoint's time of its beginning was told nowhere, and left a checkpoint behind | `pod-lost#4` |
| a signal that came as an agent ended replaced its exit code | `handed-over#1` |
| an agent that died while it probed the storage left a multipart upload behind | `failpoint`, `agent:before:1:s3 ListMultipartUploads attempts/N/probe-ID` |
| a pod that was lost while it probed the storage left an object behind, which nobody else knew of | `pod-lost/ceph#1` |
| an operator that died as it began an attempt left the Recording without its finalizer, and a pod that had started by then without a report (by reading) | `operator-recorded`, `operator:after:1:api POST secrets` |
| a Recording that was stopped before its pod ran ended as `PodLost` where the operator died as it took the Job back (by reading) | `operator-stopped-early`, `operator:after:1:api DELETE jobs` |
| a wall clock that was set by hours kept the agent from the storage, and a recorder that began anew after that was placed hours away | `clock-set` |
| a picture in the midst of which the SFU ended the call was kept as far as it had come, as if it were whole | `failpoint-successor` |
| a second attempt's agent that died as it deleted the checkpoints left another one behind as it began again | `failpoint-successor`, `agent:after:1:s3 DeleteObjects` |
| what `isotrack record` had tried the storage with when its shipper died stayed: an object and an unfinished upload | `failpoint-shipper`, `shipper:before:1:s3 CompleteMultipartUpload attempts/N/probe-ID` |
"""


def render(saved: Mapping[str, Any]) -> str:
    """The whole page."""
    results = saved["results"]
    parts = [
        HEAD,
        _summary(saved),
        _kinds(results),
        *(_losses(results, *row) for row in LOSSES),
        _cluster(saved["cluster"]),
        _failpoints(results),
        _stores(saved),
        _faults(results),
        FOUND,
        _again(saved),
    ]
    return "\n".join(part for part in parts if part)


def _summary(saved: Mapping[str, Any]) -> str:
    results = saved["results"]
    kills = Counter[str]()
    for result in results:
        kills.update(result["kills"])
    failed = [result for result in results if result["findings"]]
    invalid = [result for result in results if result["invalid"] and not result["findings"]]
    return (
        f"## The run\n{len(results)} trials, {sum(result['payloads'] for result in results):,} frames and packets sent, "
        f"{sum(kills.values())} kills ({', '.join(f'{victim} {kills[victim]}' for victim in KILLED if kills[victim])}), {saved['seconds'] / 60:.0f} minutes; "
        f"then the faults of a whole cluster, {saved['cluster'].get('seconds', 0.0) / 60:.0f} minutes. Failed: {len(failed)}. Proved nothing: {len(invalid)}. "
        f"Planned and not done: {len(saved['planned']) - len(results)}.\n"
        + "".join(f"\n- `{result['job']}`: {text}" for result in [*failed] for text in result["findings"][:2])
        + ("\n" if failed else "")
        + _done_again(saved["again"])
    )


def _done_again(rows: Sequence[Mapping[str, Any]]) -> str:
    """What came first of trials that were done once more (--go-on)."""
    if not rows:
        return ""
    failed = [row for row in rows if row["findings"]]
    return (
        f"\nDone again and counted once: {len(rows) - len(failed)} of which nothing was proved, because no fault was seen to happen, "
        f"and {len(failed)} that had failed{':' if failed else '.'}\n"
        + "".join(f"\n- `{row['job']}`: {text.splitlines()[0][:100]}" for row in failed for text in row["findings"][:2])
        + ("\n" if failed else "")
    )


def _kinds(results: Sequence[Mapping[str, Any]]) -> str:
    lines = ["## What was done", "| what | trials | kills | may be lost | most lost |", "|---|---|---|---|---|"]
    for name, kind in KINDS.items():
        rows = [result for result in results if result["kind"] == name]
        if not rows:
            continue
        kills = sum(sum(row["kills"].values()) for row in rows)
        most = max((loss["lost"] for row in rows for loss in row["losses"]), default=0.0)
        bound = _bound(kind.bounds.lost_seconds)
        lost = f"{most:.2f} s" if kind.media else "no media in it"
        lines.append(f"| {kind.what} | {len(rows)} | {kills or '–'} | {bound} | {lost} |")
    return "\n".join(lines) + "\n"


def _losses(results: Sequence[Mapping[str, Any]], victim: str, title: str, edges: Sequence[float], note: str) -> str:
    rows = [loss for result in results for loss in result["losses"] if loss["victim"] == victim]
    if not rows:
        return ""
    lost = [loss["lost"] for loss in rows]
    gaps = sorted(loss["gap"] for loss in rows if loss["gap"] > 0)
    most = f"> {edges[-1]:g}", sum(value > edges[-1] for value in lost)
    bars = [(f"{low:g} – {high:g}", count) for (low, high), count in zip(pairwise(edges), histogram(lost, edges))]
    lines = [
        f"## {title}",
        f"Of {len(rows)} (several in a row, with nothing recorded between them, are one):",
        "",
        "| seconds lost | times | |",
        "|---|---|---|",
        *(f"| {label} | {count} | {'█' * round(40 * count / len(lost))} |" for label, count in [*bars, most]),
        "",
        f"Most: {max(lost):.2f} s; median {statistics.median(lost):.2f} s.",
    ]
    if len(gaps) > 1:
        p95 = gaps[min(len(gaps) - 1, int(0.95 * len(gaps)))]
        lines.append(
            f"Gap until media of everybody is recorded again: median {statistics.median(gaps):.2f} s, p95 {p95:.2f} s, "
            f"longest {gaps[-1]:.2f} s, over {len(gaps)}. {note}"
        )
    return "\n".join(lines) + "\n"


def _cluster(cluster: Mapping[str, Any]) -> str:
    if not cluster:
        return ""
    lines = [
        "## Faults of a whole cluster",
        "A real Kubernetes with a second node, the chart's operator, and recordings of it (`tests/cluster`); costs by the serials of pictures.",
        "A figure beyond its bound (`tests/support/promises.py`) fails its test, and is marked.",
        "",
        "| fault | times | may be lost | most lost | gap may be | longest gap |",
        "|---|---|---|---|---|---|",
    ]
    for fault in dict.fromkeys(row["fault"] for row in cluster["costs"]):
        rows = [row for row in cluster["costs"] if row["fault"] == fault]
        promise = CLUSTER_FAULTS[fault]
        lost = _figure(max(row["lost"] for row in rows), promise.lost)
        gaps = [row["gap"] for row in rows if row["gap"] is not None]
        gap = _figure(max(gaps), promise.gap) if gaps else "nobody was to go on"
        lines.append(
            f"| {fault} | {len(rows)} | {_bound(promise.lost)} | {lost} | {_bound(promise.gap, 'none')} | {gap} |"
        )
    passed = [test["name"] for test in cluster["tests"] if test["outcome"] == "passed"]
    lines += ["", f"{len(passed)} of {len(cluster['tests'])} tests passed:", ""]
    for test in cluster["tests"]:
        verdict = "" if test["outcome"] == "passed" else f" ✗ {test['outcome']}"
        lines.append(f"- {test['name'].removeprefix('test_').replace('_', ' ')}{verdict}")
    return "\n".join(lines) + "\n"


def _bound(seconds: float | None, zero: str = "nothing") -> str:
    """What a fault may cost."""
    if seconds is None:
        return "–"
    return f"{seconds:g} s" if seconds else zero


def _figure(seconds: float, bound: float | None) -> str:
    """What it did cost, marked where that is more."""
    return f"{seconds:.2f} s{' ✗' if bound is not None and seconds > bound else ''}"


def _stores(saved: Mapping[str, Any]) -> str:
    jobs = [(parse_job(result["job"]), result) for result in saved["results"]]
    recordings = [(job.store, result) for job, result in jobs if KINDS[job.kind].media]
    lines = [
        "## S3 servers",
        "| server | what is special about it | recordings | kills | storage faults | most lost |",
        "|---|---|---|---|---|---|",
    ]
    for store, character in CHARACTERS.items():
        rows = [result for where, result in recordings if where == store]
        if store in saved["missing"]:
            lines.append(f"| {store} | not to be had here: {saved['missing'][store]} | 0 | – | – | – |")
        elif rows:
            kills = sum(sum(row["kills"].values()) for row in rows)
            faults = sum(sum(row["faults"].values()) for row in rows if row["kind"].startswith("storage-"))
            most = max((loss["lost"] for row in rows for loss in row["losses"]), default=0.0)
            lines.append(f"| {store} | {character} | {len(rows)} | {kills} | {faults} | {most:.2f} s |")
    return "\n".join(lines) + "\n"


def _failpoints(results: Sequence[Mapping[str, Any]]) -> str:
    rows = [result for result in results if "@" in result["job"]]
    if not rows:
        return ""
    sites: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for failpoint in parse_all(parse_job(row["job"]).detail):
            command = ", ".join(filter(None, (failpoint.command, KINDS[row["kind"]].scene)))
            passed = row["faults"].get(str(failpoint)) and not row["findings"] and not row["invalid"]
            entry = f"{failpoint.side} {failpoint.nth}{'' if passed else ' ✗'}"
            sites.setdefault((command, failpoint.site), []).append(entry)
    lines = [
        "## Failpoints",
        "Each line is a call of the running process that changes something which outlives it; the process was killed there, once per entry (before, after or within the nth passage), and the recording had to come out right.",
        "",
        "| process | call | killed |",
        "|---|---|---|",
        *(f"| {command} | `{site}` | {', '.join(sides)} |" for (command, site), sides in sites.items()),
    ]
    return "\n".join(lines) + "\n"


def _faults(results: Sequence[Mapping[str, Any]]) -> str:
    counts = Counter[str]()
    for result in results:
        if result["kind"].startswith("storage-"):
            counts.update(result["faults"])
    if not counts:
        return ""
    listed = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    return f"## Storage faults seen to happen\n{listed}.\n"


def _again(saved: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in saved["versions"].items())
    return (
        f"## Again\nSeed {saved['seed']}; {versions}.\n\n"
        "```console\n"
        f"$ {saved['command']}\n"
        "$ make faults ARGS='--seed 2 --cluster --report'  # other kills at other times\n"
        "$ make faults ARGS='--list'                       # names all trials\n"
        "$ make faults ARGS='--only recorder-killed#7'     # one of them again: the same kills at the same times\n"
        "$ .venv/bin/pytest tests/cluster -m faults        # the slow faults of a cluster alone\n"
        "```\n\n"
        "`make test` does a small share of it. What did not pass is kept in `.faults/` with logs, traces and spools.\n"
    )
