"""How fast a recording starts: recorder start → joined, and kubectl apply → first packet on the real cluster.

The first is `isotrack-recorder capture`, as the kubelet runs it, against a LiveKit server on loopback: from the start of the
process until its control socket says Armed. The second is what a user waits for: from `kubectl apply` of a Recording of a
running call, image on the node, until the kernel stamped the first media packet (`firstPacketAtMs` of the report). Both
clocks are this machine's.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import time
import uuid
from pathlib import Path

from isotrack_api.intent import Intent, LiveKitSource, RecordingRef
from isotrack_dev.demo_place import own_stack
from isotrack_dev.progress import for_terminal
from isotrack_dev.servers import LiveKitInfo, livekit_server
from isotrack_recorder.control import SOCKET_NAME, State, decode
from isotrack_recorder.sources.livekit.access import MintedTokens
from support.cluster import Cluster, Object, Tenant, fresh_name, tenant_objects
from support.people import Person

RECORDER = Path(sys.executable).with_name("isotrack-recorder")
WAIT_SECONDS = 60


def recorder_start_to_joined(runs: int, folder: Path) -> list[float]:
    """Seconds from the start of the process until it is in the call, one value per run."""
    with livekit_server(folder / "livekit") as server:
        return [_join(server, folder / f"join-{number}") for number in range(runs)]


def _join(server: LiveKitInfo, folder: Path) -> float:
    run = folder / "run"
    run.mkdir(parents=True)
    room, identity, token = fresh_name("bench"), "isotrack-bench", folder / "token"
    token.write_text(MintedTokens(server.api_key, server.api_secret, room, identity).current())
    intent = Intent(
        recording=RecordingRef(namespace="bench", name="join", uid=str(uuid.uuid4())),
        call_id=room,
        source=LiveKitSource(url=server.url, identity=identity),
        folder="bench/join",
    )
    environment = {
        "PATH": os.environ["PATH"],
        "ISOTRACK_INTENT": intent.to_json(),
        "ISOTRACK_TOKEN_FILE": str(token),
        "ISOTRACK_SPOOL": str(folder / "spool"),
        "ISOTRACK_RUN": str(run),
    }
    with (folder / "log").open("wb") as log:
        began = time.monotonic()
        process = subprocess.Popen([RECORDER, "capture"], env=environment, stdout=log, stderr=log)
    try:
        _await_armed(run / SOCKET_NAME, process)
        return time.monotonic() - began
    finally:
        process.kill()
        process.wait()


def _await_armed(path: Path, process: subprocess.Popen[bytes]) -> None:
    """Return when the recorder says that it is in the call."""
    deadline = time.monotonic() + WAIT_SECONDS
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(WAIT_SECONDS)
        while connection.connect_ex(str(path)):
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("bench: the recorder did not start: see its log")
            time.sleep(0.005)
        with connection.makefile("rb") as lines:
            for line in lines:
                message = decode(line)
                if isinstance(message, State) and message.phase == "Armed":
                    return
    raise SystemExit("bench: the recorder hung up before it was in the call")


def apply_to_first_packet(runs: int, folder: Path) -> list[float]:
    """Seconds from kubectl apply until the first media packet, one value per run, on a stack of its own."""
    with own_stack("bench", for_terminal(), keep=False) as place:
        assert place.stack is not None
        info = place.stack.info()
        cluster = Cluster(info.kubeconfig, str(info.kubectl), info.environment)
        namespace = fresh_name("bench")
        cluster.apply(*tenant_objects(cluster, namespace, place.operator_namespace))
        tenant = Tenant(cluster, namespace, folder)
        with tenant.people("call", Person(identity="alice")) as people:
            people.join("alice")
            return [_record(tenant, f"run-{number}") for number in range(runs)]


def _record(tenant: Tenant, name: str) -> float:
    began = time.time()
    tenant.record(name, of="call")
    recording = tenant.wait_capturing(name)
    job = recording["status"]["attempts"][-1]["job"]

    def has_first_packet(report: Object) -> bool:
        return "firstPacketAtMs" in report.get("status", {})

    kind = "recordingreports.isotrack.dev"
    report = tenant.cluster.wait(kind, job, tenant.namespace, has_first_packet, "the first packet")
    tenant.patch(name, desiredState="Stopped")
    tenant.wait_finished(name)
    return float(report["status"]["firstPacketAtMs"]) / 1000 - began


def row(what: str, values: list[float]) -> str:
    """One line of the table: minimum, median, maximum in seconds."""
    return f"{what:42}{min(values):8.2f}{statistics.median(values):8.2f}{max(values):8.2f}   ({len(values)} runs)"
