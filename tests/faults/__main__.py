"""`python -m faults`: break recordings, and prove that what is promised holds."""

from __future__ import annotations

import argparse
import faulthandler
import shutil
import signal
import sys
import time
from itertools import chain
from pathlib import Path

from isotrack_dev.paths import REPOSITORY

from .campaign import Asked, failpoint_jobs, jobs_elsewhere, random_jobs, run_jobs
from .cluster import break_cluster
from .kinds import KINDS, parse_job
from .record import Record
from .report import render
from .result import Result
from .stores import STORES
from .trial import Place, servers

REPORT = REPOSITORY / "docs" / "reliability.md"


def build_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"default: all of {', '.join(KINDS)}")
    parser.add_argument("--kills", type=int, default=200, help="at random times, in a whole campaign (default: 200)")
    parser.add_argument("--failpoints", type=int, metavar="N", help="of each kind of call, by chance (default: all)")
    parser.add_argument("--trials", type=int, metavar="N", help="of each other kind, at most")
    parser.add_argument("--stores", nargs="+", choices=[*STORES], default=[*STORES], help="S3 servers (default: all)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--at-once", type=int, default=3, metavar="N", help="trials side by side (default: 3)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no further trial after so long")
    parser.add_argument("--folder", type=Path, default=Path(".faults"), help="for what did not pass (default: .faults)")
    parser.add_argument(
        "--go-on", action="store_true", help="with the campaign in the folder: do what has not passed yet"
    )
    parser.add_argument("--only", nargs="+", metavar="JOB", help="only these trials, as a campaign names them")
    parser.add_argument("--list", action="store_true", help="name the trials that would be done, and do none")
    parser.add_argument("--cluster", action="store_true", help="then break a whole cluster, too (as root)")
    parser.add_argument(
        "--report", action="store_true", help=f"write docs/{REPORT.name} of this run, which is a whole one"
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """0 when everything passed, 1 when something failed, 2 when something proved nothing or was not done."""
    parser = build_parser()
    options = parser.parse_args(argv)
    if unknown := set(options.kinds) - set(KINDS):
        parser.error(f"no such kind: {', '.join(unknown)}")
    partial = bool(options.kinds or options.only or options.failpoints or options.trials)
    if options.report and (partial or not options.cluster):
        parser.error(
            "--report is of one whole run: it goes with --cluster, --seed, --kills, --at-once, --folder, and --go-on with such a run"
        )
    began, folder = time.monotonic(), options.folder.resolve()
    if not options.go_on and not options.list:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / "stores", ignore_errors=True)  # of servers that were killed: some do not start with it
    record = _record(folder, options)
    record.whole = record.whole and not partial
    if options.report and not record.whole:
        parser.error("--report is of one whole run, which the one in the folder was not")
    faulthandler.enable()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what runs ends in good order, or its processes would stay
    with servers(folder, options.stores, with_operator=_needs_operator(record, options)) as place:
        record.missing = dict(place.stores.missing)
        _plan(record, options, place)
        if options.list:
            print("\n".join(map(str, record.due(tuple(options.kinds or KINDS)))))
            return 0
        _run(record, options, place, began)
    if options.cluster and (not record.cluster or record.cluster["failed"]):
        record.cluster = break_cluster(folder / "cluster", record.cluster)
        record.write()
    if options.report:
        REPORT.write_text(render(record.values()))
        print(f"written: {REPORT.relative_to(REPOSITORY)}")
    if any(row["findings"] for row in record.results.values()) or (record.cluster and record.cluster["failed"]):
        return 1
    return 2 if record.due(tuple(KINDS)) or (options.cluster and not record.cluster) else 0


def _record(folder: Path, options: argparse.Namespace) -> Record:
    results = folder / "results.json"
    if results.exists() and options.go_on:
        return Record.read(results)
    command = "make faults" + (f" ARGS='--seed {options.seed} --cluster --report'" if options.seed != 1 else "")
    return Record(results, command, options.seed, whole=True)


def _needs_operator(record: Record, options: argparse.Namespace) -> bool:
    named = [parse_job(text).kind for text in [*record.planned, *(options.only or ())]]
    kinds = named if options.only or options.go_on else options.kinds or KINDS
    return any("operator" in KINDS[kind].fails for kind in kinds)


def _plan(record: Record, options: argparse.Namespace, place: Place) -> None:
    if options.only:
        record.plan(map(parse_job, options.only))
        return
    planned = {parse_job(text).kind for text in record.planned}
    new = tuple(kind for kind in options.kinds or KINDS if kind not in planned)
    asked = Asked(record.seed, options.kills, new, options.failpoints, options.trials)
    record.plan(chain(random_jobs(asked), jobs_elsewhere(asked, [*place.stores.infos]), failpoint_jobs(place, asked)))


def _run(record: Record, options: argparse.Namespace, place: Place, began: float) -> None:
    before = record.seconds
    due = record.due(tuple(options.kinds or KINDS))
    print(f"{len(due)} trials, {options.at_once} at a time, seed {record.seed}", flush=True)
    for name, reason in record.missing.items():
        print(f"not on {name}: {reason}", flush=True)
    for result in run_jobs(place, due, options.at_once, began + options.seconds):
        record.add(result)
        record.seconds = before + time.monotonic() - began
        record.write()
        _print(result)
    rows = record.results.values()
    kills = sum(sum(row["kills"].values()) for row in rows)
    lost = max((loss["lost"] for row in rows for loss in row["losses"]), default=0.0)
    passed = len(record.planned) - len(record.due(tuple(KINDS)))
    print(f"{passed} of {len(record.planned)} passed, {kills} processes killed, most lost {lost:.2f} s", flush=True)


def _print(result: Result) -> None:
    killed = " ".join(f"{victim}×{count}" for victim, count in result.kills.items())
    lost = max((loss.lost for loss in result.losses), default=0.0)
    print(f"{result.verdict:7} {result.seconds:5.1f} s  lost {lost:4.2f} s  {killed:24} {result.job}", flush=True)
    if result.verdict != "passed":
        for text in (*result.findings, *result.invalid):
            print(f"        {text}")
        print(f"        left in {result.folder}\n        again: python -m faults --only '{result.job}'", flush=True)


if __name__ == "__main__":
    sys.exit(main())
