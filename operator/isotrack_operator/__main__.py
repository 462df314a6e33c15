"""`isotrack-operator`: a thin shell around the runtime and its watches."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

from .cluster import connect
from .errors import ClusterError, OperatorError
from .health import serve_health
from .logs import set_up_logging
from .runtime import Runtime
from .settings import Settings, load_settings

log = logging.getLogger(__name__)

EXAMPLES = """\
examples:
  isotrack-operator run
      in a pod: service account, namespace and recorder image come from the pod
  isotrack-operator run --kubeconfig ~/.kube/config --namespace isotrack-system \\
      --recorder-image registry.example.com/isotrack-recorder:0.1.0 --log-format text
      outside of the cluster, for development

exit codes: 0 stopped, 1 failed (start it again), 64 wrong options, missing CRDs or no access to Kubernetes
"""


def build_parser() -> argparse.ArgumentParser:
    """Options of all commands."""
    parser = argparse.ArgumentParser(
        prog="isotrack-operator",
        description="Turns Recordings into running recorder pods and keeps their status true.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"isotrack-operator {version('isotrack')}")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser(
        "run",
        help="watch and reconcile until SIGTERM",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument("--kubeconfig", help="login file; else the pod's service account, KUBECONFIG, ~/.kube/config")
    run.add_argument("--namespace", help="where SFU credentials and claims are [ISOTRACK_NAMESPACE, else the pod's]")
    run.add_argument("--recorder-image", help="image of recorder pods [ISOTRACK_RECORDER_IMAGE]")
    run.add_argument(
        "--recorder-pull-secrets",
        help="Secrets to pull it with, between commas, in the pods' namespaces [ISOTRACK_RECORDER_PULL_SECRETS]",
    )
    run.add_argument("--liveness-port", type=int, default=8080, help="/healthz and /metrics; 0 = off (default: 8080)")
    run.add_argument(
        "--resync-seconds", type=float, default=300.0, help="how often everything is looked at (default: 300)"
    )
    run.add_argument(
        "--room-poll-seconds", type=float, default=2.0, help="how often awaited calls are looked for (default: 2)"
    )
    run.add_argument(
        "--sweep-seconds",
        type=float,
        help="how often abandoned recordings are looked for; 0 = never [ISOTRACK_SWEEP_SECONDS, 600]",
    )
    run.add_argument(
        "--sweep-watch-seconds",
        type=float,
        help="how long they are watched before they are finished [ISOTRACK_SWEEP_WATCH_SECONDS, 90]",
    )
    run.add_argument(
        "--storage-check-seconds",
        type=float,
        help="how often storages with an operatorSecretName are tried; 0 = never [ISOTRACK_STORAGE_CHECK_SECONDS, 21600]",
    )
    run.add_argument("--log-format", choices=["json", "text"], default=os.environ.get("ISOTRACK_LOG_FORMAT", "json"))
    run.add_argument("--log-level", default=os.environ.get("ISOTRACK_LOG_LEVEL", "info"), choices=["debug", "info", "warning", "error"])  # fmt: skip
    return parser


async def run(settings: Settings, kubeconfig: str | None) -> None:
    """Run the operator until it is told to stop.

    Raises:
        OperatorError: it cannot start, or lost what it needs.
    """
    from .handlers import watch  # kopf, which nothing but this command needs

    cluster = await connect(kubeconfig, settings.request_seconds)
    runtime = Runtime(cluster, settings)
    server = None
    try:
        if settings.liveness_port:
            server = await serve_health(runtime.health, settings.liveness_port, runtime.gauges)
        await runtime.prime()
        log.info("operator started", extra={"fields": {"namespace": settings.namespace}})
        async with asyncio.TaskGroup() as tasks:
            running = asyncio.Event()
            work = tasks.create_task(runtime.run(running), name="runtime")
            # NB: only then. What begins after kopf it takes for its own, and waits for it at the end.
            await running.wait()
            await watch(runtime)  # returns after SIGTERM
            work.cancel()
    finally:
        if server is not None:
            await server.cleanup()
        await cluster.close()
    log.info("operator stopped")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `isotrack-operator`. Returns an exit code from the tree in `errors`."""
    args = build_parser().parse_args(argv)
    set_up_logging(args.log_format, args.log_level)
    try:
        settings = load_settings(
            os.environ,
            recorder_image=args.recorder_image,
            recorder_pull_secrets=args.recorder_pull_secrets,
            namespace=args.namespace,
            liveness_port=args.liveness_port or None,
            resync_seconds=args.resync_seconds,
            room_poll_seconds=args.room_poll_seconds,
            sweep_seconds=args.sweep_seconds,
            sweep_watch_seconds=args.sweep_watch_seconds,
            storage_check_seconds=args.storage_check_seconds,
        )
        asyncio.run(run(settings, args.kubeconfig))
    except OperatorError as error:
        again = "the API server is needed: " if isinstance(error, ClusterError) else ""
        sys.stderr.write(f"isotrack-operator: {again}{error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
