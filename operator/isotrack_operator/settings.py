"""Settings of the operator, read once from options and environment. A frozen value that is passed down."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .errors import ConfigError

NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")

MAX_SWEEP_SECONDS = 86400
MAX_SWEEP_WATCH_SECONDS = 3600
MAX_CHECK_SECONDS = 604800
MAX_PULL_SECRETS = 16
MAX_NAME_BYTES = 253
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All of them."""

    recorder_image: str
    """Image of recorder pods unless the class names one. ISOTRACK_RECORDER_IMAGE."""
    recorder_pull_secrets: tuple[str, ...] = ()
    """Names of Secrets to pull it with, or the image that a class names. ISOTRACK_RECORDER_PULL_SECRETS, between commas.

    Each is looked for in the namespace of the pod: the Recording's, and the operator's for sweeps and checks of storages. The
    kubelet pulls without one that is not there.
    """
    namespace: str
    """The operator's own namespace: SFU credentials and claims live here. ISOTRACK_NAMESPACE, else that of the pod."""
    liveness_port: int | None = 8080
    """Port of /healthz and /metrics; None = do not listen."""
    resync_seconds: float = 300.0
    """How often everything is listed and reconciled anew. It heals what a missed event left; shorter costs the API server."""
    room_poll_seconds: float = 2.0
    """How often the SFU is asked for calls that Recordings wait for: the first words of a call that begins are lost meanwhile.

    One request per class and round, whatever the number of Recordings.
    """
    sweep_seconds: float = 600.0
    """How often buckets are looked through for recordings that nobody finished; 0 = never. ISOTRACK_SWEEP_SECONDS.

    Each time is a pod and a listing of the bucket's folders. A recording counts as abandoned after ten silent minutes.
    """
    sweep_watch_seconds: float = 90.0
    """For how long nothing may come to such a recording while the sweep watches it. ISOTRACK_SWEEP_WATCH_SECONDS.

    After an outage of the storage everything looks silent, and an agent may pause for half a minute before it tries again. Shorter is
    for tests.
    """
    storage_check_seconds: float = 21600.0
    """How often a storage that works is tried again; 0 = storages are never tried. ISOTRACK_STORAGE_CHECK_SECONDS.

    Each time is a pod for two seconds. What is wrong meanwhile, recordings notice when they start.
    """
    workers: int = 32
    """Reconciles at once. They wait for the API server most of the time."""
    request_seconds: float = 30.0
    """Longest time for one request to the API server."""
    instance: str = field(default_factory=socket.gethostname)
    """Name of this process in Events."""


def load_settings(
    environment: Mapping[str, str] = os.environ,
    *,
    recorder_image: str | None = None,
    recorder_pull_secrets: str | None = None,
    namespace: str | None = None,
    liveness_port: int | None = 8080,
    resync_seconds: float = 300.0,
    room_poll_seconds: float = 2.0,
    sweep_seconds: float | None = None,
    sweep_watch_seconds: float | None = None,
    storage_check_seconds: float | None = None,
) -> Settings:
    """Options first, then the environment, then the pod.

    Raises:
        ConfigError: something that has no default is missing, or means nothing.
    """
    image = recorder_image or environment.get("ISOTRACK_RECORDER_IMAGE", "")
    if not image:
        raise ConfigError("no recorder image: give --recorder-image or set ISOTRACK_RECORDER_IMAGE")
    own = namespace or environment.get("ISOTRACK_NAMESPACE", "")
    if not own and NAMESPACE_FILE.exists():
        own = NAMESPACE_FILE.read_text(encoding="ascii").strip()
    if not own:
        raise ConfigError("no namespace: give --namespace or set ISOTRACK_NAMESPACE to where the SFU's credentials are")
    return Settings(
        recorder_image=image,
        recorder_pull_secrets=_pull_secrets(environment, recorder_pull_secrets),
        namespace=own,
        liveness_port=liveness_port,
        resync_seconds=resync_seconds,
        room_poll_seconds=room_poll_seconds,
        sweep_seconds=_seconds(environment, "SWEEP_SECONDS", sweep_seconds, 600.0, MAX_SWEEP_SECONDS),
        sweep_watch_seconds=_seconds(
            environment, "SWEEP_WATCH_SECONDS", sweep_watch_seconds, 90.0, MAX_SWEEP_WATCH_SECONDS
        ),
        storage_check_seconds=_seconds(
            environment, "STORAGE_CHECK_SECONDS", storage_check_seconds, 21600.0, MAX_CHECK_SECONDS
        ),
    )


def _pull_secrets(environment: Mapping[str, str], option: str | None) -> tuple[str, ...]:
    given = environment.get("ISOTRACK_RECORDER_PULL_SECRETS", "") if option is None else option
    names = tuple(name for part in given.split(",") if (name := part.strip()))
    if len(names) > MAX_PULL_SECRETS or not all(
        len(name) <= MAX_NAME_BYTES and _NAME.fullmatch(name) for name in names
    ):
        raise ConfigError(
            "--recorder-pull-secrets and ISOTRACK_RECORDER_PULL_SECRETS are names of Secrets between commas, "
            f"{MAX_PULL_SECRETS} at most"
        )
    return names


def _seconds(environment: Mapping[str, str], name: str, option: float | None, default: float, maximum: int) -> float:
    try:
        value = float(environment.get(f"ISOTRACK_{name}") or default) if option is None else option
    except ValueError:
        value = -1.0
    if not 0 <= value <= maximum:  # NB: as it stands it refuses NaN, too
        option_name = "--" + name.lower().replace("_", "-")
        raise ConfigError(f"{option_name} and ISOTRACK_{name} are seconds from 0 to {maximum}")
    return value
