"""Command line of the local stack: parse, do, map errors to exit codes.

Results (paths, names, JSON) go to stdout, progress and errors to stderr. Ctrl-C and SIGTERM during `up` take down what
was started.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from . import images, tools
from .addresses import Addresses
from .deploy import deploy_operator
from .errors import DevError, UsageError
from .paths import states_dir
from .progress import for_terminal
from .record import NO_SLOT
from .stack import Stack

EXAMPLES = """examples:
  python -m isotrack_dev up                        cluster, SFU and object store; then, in a shell:
  source "$(python -m isotrack_dev env)"           KUBECONFIG, LIVEKIT_URL, S3_ENDPOINT, AWS_… of the stack
  python -m isotrack_dev up --operator             with the operator of this checkout in it; again after a change
  python -m isotrack_dev logs kubelet -f
  python -m isotrack_dev up --name second          another one beside it
  python -m isotrack_dev down

environment:
  ISOTRACK_CACHE   binaries, images, wheels; default: isotrack in $XDG_CACHE_HOME or ~/.cache
  ISOTRACK_STATE   a folder per stack: keys, logs; default: isotrack in $XDG_STATE_HOME or ~/.local/state

exit codes: 0 done · 1 failed · 64 no such stack or component · 69 something is missing on this machine, the text says
what · 70 a build failed · 75 a server did not start · 130 interrupted
"""


def build_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m isotrack_dev",
        description="The real parts that isotrack is developed and tested against: a Kubernetes cluster, LiveKit, S3.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    stack = argparse.ArgumentParser(add_help=False)
    stack.add_argument("--name", default="dev", help="which stack; up to 24 of a-z, 0-9 and - (default: dev)")
    stack.add_argument(
        "--state", type=Path, metavar="DIR", help="its folder (default: the name, below $ISOTRACK_STATE)"
    )
    output = argparse.ArgumentParser(add_help=False)
    output.add_argument("--json", action="store_true", help="write the result as JSON, and no progress")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(
        name: str, run: Callable[[argparse.Namespace], int], text: str, *parents: argparse.ArgumentParser
    ) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", parents=list(parents))
        added.set_defaults(run=run)
        return added

    up = command("up", _up, "start a stack and wait until its node is ready", stack, output)
    up.add_argument("--images", action="store_true", help="build our images and load them into the node")
    up.add_argument("--nodes", type=int, choices=(1, 2), default=1, help="how many (default: 1)")
    up.add_argument("--operator", action="store_true", help="and install the custom resources and the operator")
    command("down", _down, "end a stack and remove every trace of it", stack)
    status = command("status", _status, "show all stacks, or one in detail; code 1 when that one does not run", output)
    status.add_argument("--name", help="which stack (default: all)")
    status.add_argument("--state", type=Path, metavar="DIR", help="its folder, with --name")
    logs = command("logs", _logs, "show a component's log", stack)
    logs.add_argument(
        "component", metavar="COMPONENT", help="etcd, kube-apiserver, kubelet, containerd, livekit, s3, …"
    )
    logs.add_argument("-f", "--follow", action="store_true", help="go on until interrupted")
    logs.add_argument("-n", "--lines", type=int, default=100, metavar="N", help="how many lines (default: 100)")
    command("kubeconfig", _kubeconfig, "print the path of a stack's kubeconfig", stack)
    command("env", _env, "print the path of a stack's shell settings", stack)
    demo = command("demo", _demo, "record a call of two synthetic people and show the files")
    demo.add_argument("--name", default="demo", help="which stack it uses; up to 24 of a-z, 0-9 and - (default: demo)")
    demo.add_argument("--keep", action="store_true", help="leave the stack running afterwards")
    build = command(
        "build", _build, "build the pinned programs that are not built yet, and print where they are", output
    )
    build.add_argument("programs", nargs="*", metavar="PROGRAM", help=f"of {', '.join(tools.PROGRAMS)} (default: all)")
    made = command(
        "images", _images, "build our container images where sources have changed, and print their names", output
    )
    made.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(images.KINDS)} (default: all)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    parser = build_parser()
    args = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        run: Callable[[argparse.Namespace], int] = args.run
        return run(args)
    except DevError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _interrupt(number: int, frame: object) -> None:  # noqa: ARG001 - signal's own signature
    raise KeyboardInterrupt


def _stack(args: argparse.Namespace, *, quiet: bool = False) -> Stack:
    return Stack(args.name, args.state, for_terminal(quiet))


def _up(args: argparse.Namespace) -> int:
    stack = _stack(args, quiet=args.json)
    started = time.monotonic()
    built = images.ensure(list(images.KINDS), stack.progress) if args.images or args.operator else {}
    archives = [image.archive for image in built.values()]
    info = stack.up(archives)
    if args.nodes == 2:
        stack.add_node(archives)
    if args.operator:
        deploy_operator(stack.kubectl, built["operator"].name, built["recorder"].name, stack.progress)
    facts = {
        "name": info.name,
        "node": info.node,
        "address": info.address,
        "kubeconfig": str(info.kubeconfig),
        "env": str(stack.layout.environment),
        "kubectl": str(info.kubectl),
        "images": {name: image.name for name, image in built.items()},
    }
    if args.json:
        print(json.dumps(facts))
        return 0
    print(f"stack {info.name} is up after {time.monotonic() - started:.1f} s")
    for name in ("LIVEKIT_URL", "S3_ENDPOINT", "S3_BUCKET"):
        print(f"  {name}={info.environment[name]}")
    for image in built.values():
        print(f"  image {image.name}")
    print(f"next: source {stack.layout.environment} && {info.kubectl} get pods -A")
    return 0


def _down(args: argparse.Namespace) -> int:
    _stack(args).down()
    return 0


def _status(args: argparse.Namespace) -> int:
    folder = states_dir()
    names = [args.name] if args.name else sorted(path.parent.name for path in folder.glob("*/stack.json"))
    found = [describe(Stack(name, args.state if args.name else None)) for name in names]
    if args.json:
        print(json.dumps([asdict(one) for one in found]))
        return 0
    if not found:
        print(f"no stack in {folder}")
    for one in found:
        print(f"{one.name}: {one.state}" + (f", node {one.address}" if one.address else ""))
        if args.name:
            for name, state in one.components.items():
                print(f"  {name:24} {state}")
    return 0 if not args.name or found[0].state == "running" else 1


@dataclass(frozen=True, slots=True)
class Status:
    """What is known of a stack, without secrets."""

    name: str
    state: str
    """`running`, `degraded` (a server has ended), `dead` (only its folder is left) or `absent`."""
    folder: str
    address: str | None = None
    components: Mapping[str, str] = field(default_factory=dict)


def describe(stack: Stack) -> Status:
    """Look at a stack's record and processes."""
    record, folder = stack.record, str(stack.layout.state)
    if record is None:
        return Status(stack.name, "absent", folder)
    servers = {name: f"running, pid {one.pid}" if one.alive else "ended" for name, one in record.servers.items()}
    if not record.namespaces.alive:
        return Status(stack.name, "dead", folder, None, servers)
    whole = servers and all(server.alive for server in record.servers.values())
    address = None if record.slot == NO_SLOT else str(Addresses(record.slot).node)
    return Status(stack.name, "running" if whole else "degraded", folder, address, servers)


def _logs(args: argparse.Namespace) -> int:
    path = _stack(args).log(args.component)
    return subprocess.run(["tail", "-n", str(args.lines), *(["-F"] if args.follow else []), str(path)]).returncode


def _kubeconfig(args: argparse.Namespace) -> int:
    print(_stack(args).info().kubeconfig)
    return 0


def _env(args: argparse.Namespace) -> int:
    stack = _stack(args)
    stack.info()  # or the file would be that of a dead stack
    print(stack.layout.environment)
    return 0


def _known(wanted: Sequence[str], known: Iterable[str], what: str) -> list[str]:
    names = list(known)
    for name in wanted:
        if name not in names:
            raise UsageError(f"no {what} is called {name[:40]!r}; there are: {', '.join(names)}")
    return list(wanted) or names


def _demo(args: argparse.Namespace) -> int:
    from . import demo  # loads what no other command needs

    return demo.run(args.name, for_terminal(), keep=args.keep)


def _build(args: argparse.Namespace) -> int:
    wanted = _known(args.programs, tools.PROGRAMS, "program")
    paths = tools.ensure(wanted, for_terminal(args.json))
    found = {name: str(path) for name, path in paths.items()}
    print(json.dumps(found) if args.json else "\n".join(found.values()))
    return 0


def _images(args: argparse.Namespace) -> int:
    built = images.ensure(_known(args.kinds, images.KINDS, "image"), for_terminal(args.json))
    found = {name: {"name": image.name, "archive": str(image.archive)} for name, image in built.items()}
    print(json.dumps(found) if args.json else "\n".join(image.name for image in built.values()))
    return 0
