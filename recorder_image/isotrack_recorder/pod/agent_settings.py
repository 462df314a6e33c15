"""Settings of the agent: read once from the environment, then passed down as values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from isotrack_api.intent import Intent, S3Destination
from isotrack_recorder.errors import ConfigError
from isotrack_recorder.settings import PodPaths, read_intent, read_paths
from isotrack_recorder.ship.kube import KubeSettings

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
TERMINATION_LOG: Final = Path("/dev/termination-log")
_POD_SUFFIX: Final = re.compile(r"-[a-z0-9]{5}$")


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSettings:
    """What the agent goes by. Environment prefix: ISOTRACK_."""

    intent: Intent
    paths: PodPaths
    storage: Path = Path("/etc/isotrack/storage")
    """Folder with the storage's credentials; without it workload identity counts. ISOTRACK_STORAGE_CREDENTIALS."""
    termination_log: Path = TERMINATION_LOG
    """Where the kubelet reads the termination message. ISOTRACK_TERMINATION_LOG."""
    kube: KubeSettings | None = None
    """The API server; None outside a cluster: nothing can be relayed or reported then."""
    metrics_port: int = 0
    """Port of /metrics and /healthz on all addresses of the pod; 0 = none. ISOTRACK_METRICS_PORT."""
    grace_seconds: float = 300.0
    """From SIGTERM to SIGKILL: the pod's terminationGracePeriodSeconds. ISOTRACK_GRACE_SECONDS.

    Larger than the truth: the kubelet kills an agent that believes it has time. Smaller: uploads are given up too early.
    """
    grace_margin_seconds: float = 25.0
    """Part of the grace that is kept for what cannot be cut short: one request that is on the way (20 s)."""
    upload_seconds: float = 3600.0
    """For how long the storage may fail in a row after the recording's end, without SIGTERM. ISOTRACK_UPLOAD_SECONDS.

    An hour of outage is worth waiting for. Shorter gives up on files that exist; longer hides a pod that never ends.
    """
    upload_most_seconds: float = 86400.0
    """How long the files may take after the recording's end, however well the storage answers. A day that several pods recorded is
    hundreds of gigabytes, which are fetched, made into files and sent."""
    handover_seconds: float = 15.0
    """How long capture goes on after SIGTERM where nothing is heard of a successor. ISOTRACK_HANDOVER_SECONDS.

    It takes one 2 to 6 s to come. Shorter leaves a gap; longer shortens what is left of the grace period for uploads, where no successor
    comes.
    """
    followed_seconds: float = 40.0
    """The same where a successor was made: until it records all that we do, but so long at most, and not in the last half of the grace.

    A pod that needs an image takes that long. Longer loses more where a pod gets less grace than it was promised: what was captured since
    the last checkpoint. JOINED_EARLIER_NS (`decisions`) is longer.
    """
    round_seconds: float = 2.0
    """How often the spool is looked through for sessions that ended. Each look reads only what is new."""
    stop_seconds: float = 20.0
    """How long the recorder may take to stop after it was told to; then what is in the spool counts."""
    recorder_lost_seconds: float = 180.0
    """How long a recorder may be away before the attempt gives up on it. The kubelet restarts a crashed one at once, then after
    10, 20, 40, 80 s: beyond that another pod is the better try."""
    report_seconds: float = 5.0
    """Shortest time between two reports of mere progress; changes of state are written after a second."""


def read_settings(environ: Mapping[str, str]) -> AgentSettings:
    """Read the environment.

    Raises:
        ConfigError: the intent is missing or wrong, names no storage, or a number is none.
    """
    intent = read_intent(environ)
    if intent.storage is None:
        raise ConfigError("ISOTRACK_INTENT names no storage: an agent has nowhere to ship files to")
    return AgentSettings(
        intent=intent,
        paths=read_paths(environ),
        storage=Path(environ.get("ISOTRACK_STORAGE_CREDENTIALS") or "/etc/isotrack/storage"),
        termination_log=Path(environ.get("ISOTRACK_TERMINATION_LOG") or TERMINATION_LOG),
        kube=_kube(environ, intent),
        metrics_port=_port(environ, "ISOTRACK_METRICS_PORT"),
        grace_seconds=read_seconds(environ, "ISOTRACK_GRACE_SECONDS", 300.0),
        handover_seconds=read_seconds(environ, "ISOTRACK_HANDOVER_SECONDS", 15.0),
        upload_seconds=read_seconds(environ, "ISOTRACK_UPLOAD_SECONDS", 3600.0),
    )


def _kube(environ: Mapping[str, str], intent: Intent) -> KubeSettings | None:
    host, port = environ.get("KUBERNETES_SERVICE_HOST", ""), environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        return None
    account = Path(environ.get("ISOTRACK_SERVICE_ACCOUNT") or SERVICE_ACCOUNT)
    # The report has the Job's name, and a Job's pods are called `<job>-<5 characters>`.
    report = environ.get("ISOTRACK_REPORT") or _POD_SUFFIX.sub("", environ.get("HOSTNAME", ""))
    return KubeSettings(
        server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        token_file=account / "token",
        ca_file=account / "ca.crt",
        namespace=intent.recording.namespace,
        recording=intent.recording.name,
        uid=intent.recording.uid,
        report=report,
    )


def _port(environ: Mapping[str, str], name: str) -> int:
    text = environ.get(name) or "0"
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65535):
        raise ConfigError(f"{name} must be a port from 1 to 65535, or 0 for none")
    return int(text)


def read_destination(environ: Mapping[str, str], name: str) -> S3Destination:
    """Read a storage, as JSON.

    Raises:
        ConfigError: missing, or not a storage of a version that we know.
    """
    text = environ.get(name, "")
    if not text:
        raise ConfigError(f"{name} is not set: it holds a storage as JSON")
    try:
        return S3Destination.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{name} is no storage: {where[:100]}: {first['msg'][:200]}") from None


def read_bytes(environ: Mapping[str, str], name: str) -> int | None:
    """Read a size in bytes; None where it is not given.

    Raises:
        ConfigError: it is none.
    """
    text = environ.get(name)
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 16 and int(text) > 0):
        raise ConfigError(f"{name} must be a number of bytes")
    return int(text)


def read_seconds(environ: Mapping[str, str], name: str, default: float) -> float:
    """Read a time in seconds.

    Raises:
        ConfigError: it is none, or longer than a week.
    """
    text = environ.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 7 * 86400:
        raise ConfigError(f"{name} must be a number of seconds from 0 to 604800")
    return value
