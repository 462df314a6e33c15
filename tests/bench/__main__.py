"""Compare what recording costs: `python -m bench [--participants 1 2 10 40 100] [--seconds 5] [--json FILE]`.

Every figure of a run comes from the same load on the same machine, minutes apart; ratios are what to read, seconds
belong to the machine. Camera and microphone (VP8, Opus) come from calls of all sizes; with 1 % loss, with H264, and with
sound alone at --other-participants. The floor needs a C compiler and
libsrtp2 (installed as root on Debian), Pion needs Go.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from bench import start
from bench.figures import Figure, fixed_cost, table
from bench.load import KINDS
from bench.media import FPS, prepare
from isotrack_dev import requirements
from isotrack_dev.errors import DevError
from isotrack_dev.progress import for_terminal
from isotrack_dev.tools import ensure

HERE = Path(__file__).parent
RECEIVERS = ["isotrack", "floor", "floor readable", "pion", "mediarecorder"]
START_SECONDS = 60
MEDIARECORDER_SECONDS = 10.0


@dataclass(frozen=True)
class Tools:
    """What was built for this run; None where no receiver wants it."""

    folder: Path
    floor: Path | None
    pion: Path | None


def build_floor(folder: Path) -> Path:
    """Compile floor.c; what that needs is installed or asked for."""
    try:
        requirements.ensure(["bench"], for_terminal(), folder / "apt.log")
    except DevError as error:
        raise SystemExit(f"bench: {error}") from error
    library = folder / "floor.so"
    command = [
        "cc",
        "-O2",
        "-shared",
        "-fPIC",
        "-Wall",
        "-Wextra",
        "-o",
        str(library),
        str(HERE / "floor.c"),
        "-lsrtp2",
    ]
    if subprocess.run(command).returncode:
        raise SystemExit("bench: the C floor cannot be built")
    return library


def build_pion() -> Path:
    """Build the Pion recorder (dev/tools/pion) or find it built."""
    try:
        return ensure(["pion-recorder"], for_terminal())["pion-recorder"]
    except DevError as error:
        raise SystemExit(f"bench: {error}") from error


def runs(options: argparse.Namespace) -> Iterator[tuple[str, str, int]]:
    """Load, receiver and participants of each run."""
    for load in options.loads:
        if load == "vp8":
            sizes, receivers = options.participants, options.only
        elif load == "silent":
            sizes, receivers = [1], [name for name in options.only if name == "isotrack"]
        else:
            sizes = [*([1] if load == "opus" else []), *options.other_participants]
            receivers = [name for name in options.only if name in ("isotrack", "floor", "pion")]
        for participants in sizes:
            for receiver in receivers:
                if receiver != "mediarecorder" or participants == 1:  # its process cannot hold two
                    yield load, receiver, participants


def run(load: str, receiver: str, participants: int, tools: Tools, options: argparse.Namespace) -> Figure:
    """Start load and receiver, return what they say."""
    name, _, pause = receiver.partition(" ")
    seconds = max(MEDIARECORDER_SECONDS, options.seconds) if name == "mediarecorder" else options.seconds
    socket, output = tools.folder / "load.sock", tools.folder / "output"
    socket.unlink(missing_ok=True)
    output.mkdir()
    command = [sys.executable, "-m", "bench.load", "--socket", str(socket), "--media", str(tools.folder / "media")]
    command += ["--kind", load, "--participants", str(participants), *(["--twcc"] if options.twcc else [])]
    receive = [str(tools.pion)] if name == "pion" else [sys.executable, "-m", "bench.receivers", name]
    receive += ["--socket", str(socket), "--output", str(output), "--seconds", str(seconds)]
    if name == "floor":
        receive += ["--floor", str(tools.floor), *(["--pause", "0"] if pause == "readable" else [])]
    limit = START_SECONDS + 2 * seconds + 30
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=HERE.parent) as loading:
        try:
            done = subprocess.run(receive, stdout=subprocess.PIPE, cwd=HERE.parent, timeout=limit, check=True)
            sent = json.loads(loading.communicate(timeout=30)[0])
        finally:
            loading.kill()
    shutil.rmtree(output)
    found = json.loads(done.stdout)
    cpu, wall, packets, lost = found["cpu_seconds"], found["seconds"], found["packets"], max(0, found.get("lost", 0))
    whole = wall * participants
    recorded = max(found.get("media_seconds", whole * packets / max(1, packets + lost)) or whole, 1 / FPS)
    return Figure(
        load=load,
        receiver=receiver,
        participants=participants,
        cpu_seconds_per_participant_minute=round(cpu / recorded * 60, 4),
        microseconds_per_packet=round(cpu / max(1, packets) * 1e6, 2) if packets else 0.0,
        core_percent=round(100 * cpu / wall, 2),
        rss_mb=found["rss_mb"],
        packets_per_second=round(packets / wall),
        lost=lost,
        recovered=found.get("recovered", 0),
        recorded_percent=round(100 * recorded / whole, 1),
        stall_ms=found.get("stall_ms"),
        stall_cpu_ms=found.get("stall_cpu_ms"),
        load_latest_ms=sent["latest_ms"],
    )


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--participants", type=int, nargs="+", default=[1, 2, 10, 40, 100])
    parser.add_argument("--other-participants", type=int, nargs="+", default=[40], help="sizes for loads but vp8")
    parser.add_argument("--loads", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--seconds", type=float, default=5, help="counted in each run, after 2 s to get warm")
    parser.add_argument("--only", nargs="*", choices=RECEIVERS, default=RECEIVERS, help="receivers (none: only starts)")
    parser.add_argument("--twcc", action="store_true", help="transport-wide feedback instead of REMB alone")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--starts", type=int, default=5, metavar="N", help="runs of each start-up time (0 = none)")
    parser.add_argument("--no-cluster", action="store_true", help="leave out kubectl apply to first packet")
    options = parser.parse_args()
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="isotrack-bench-") as name:
        folder = Path(name)
        tools = Tools(
            folder,
            build_floor(folder) if any(name.startswith("floor") for name in options.only) else None,
            build_pion() if "pion" in options.only else None,
        )
        if options.only:
            prepare(folder / "media")
        for load, receiver, participants in runs(options):
            figures.append(run(load, receiver, participants, tools, options))
            sys.stderr.write(f"bench: {figures[-1]}\n")
        starts: dict[str, list[float]] = {}
        if options.starts:
            starts["recorder start to joined"] = start.recorder_start_to_joined(options.starts, folder / "joins")
        if options.starts and not options.no_cluster:
            (folder / "cluster").mkdir()
            starts["kubectl apply to first packet"] = start.apply_to_first_packet(options.starts, folder / "cluster")
    sys.stdout.write(table(figures) + "\n")
    for receiver in options.only:
        fit = fixed_cost(figures, receiver)
        if fit is not None:
            sys.stdout.write(
                f"{receiver}: a process costs {fit[0]:.2f} CPU-s a minute, and {fit[1]:.3f} a person (up to ten)\n"
            )
    if starts:
        sys.stdout.write(f"\n{'seconds':42}{'min':>8}{'median':>8}{'max':>8}\n")
        sys.stdout.write("".join(f"{start.row(what, values)}\n" for what, values in starts.items()))
    if options.json:
        found = {"figures": [asdict(figure) for figure in figures], "starts": starts}
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
