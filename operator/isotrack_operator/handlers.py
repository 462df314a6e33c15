"""All of kopf: watches of five kinds become events of the Runtime. Nothing else of kopf is used.

Only raw event handlers are registered, so kopf writes nothing (no annotations, no finalizers, no Events) and runs no handler twice.
It brings what a watch needs: reconnects, bookmarks, a time-out for silent streams, and a crash instead of a zombie when a watch ends
for good.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import kopf

from .builders import names
from .cluster import Cluster
from .kinds import JOB, POD, WATCHED, Kind
from .runtime import Runtime

LOGIN_VALID = timedelta(minutes=10)
"""Projected tokens live for an hour and are renewed in their file after 80 % of it."""


class Backoffs:
    """Pauses before requests are tried again: growing, jittered, without end (kopf iterates it anew for each request)."""

    def __iter__(self) -> Iterator[float]:
        pause = 0.5
        while True:
            yield pause * random.uniform(0.5, 1.0)
            pause = min(pause * 2, 10.0)


def watch_settings() -> kopf.OperatorSettings:
    """What differs from kopf's defaults, and why."""
    settings = kopf.OperatorSettings()
    settings.scanning.disabled = True  # our kinds are known; no right to watch CRDs is needed
    settings.posting.enabled = False  # we write our own Events
    settings.posting.loggers = False
    settings.watching.chunk_size = 500  # bounds the memory of the first list
    settings.watching.label_selectors["batch", "v1", "jobs"] = names.SELECTOR
    settings.watching.label_selectors["", "v1", "pods"] = names.SELECTOR
    settings.networking.request_timeout = 30.0  # the default of five minutes would stall a watch's reconnect
    settings.networking.error_backoffs = Backoffs()  # an Iterable that begins anew each time
    settings.queueing.idle_timeout = 1.0  # seconds that a worker lingers per object
    settings.process.ultimate_exiting_timeout = 20.0  # below the pod's grace period
    settings.peering.standalone = True
    return settings


def registry_for(runtime: Runtime) -> kopf.OperatorRegistry:
    """Handlers that feed a runtime."""
    registry = kopf.OperatorRegistry()

    async def login(**_: Any) -> kopf.ConnectionInfo:
        return await connection_info(runtime.cluster)

    kopf.on.login(registry=registry)(login)
    for kind in WATCHED:
        _watch(registry, runtime, kind)
    return registry


def _watch(registry: kopf.OperatorRegistry, runtime: Runtime, kind: Kind) -> None:
    async def saw(event: Any, **_: Any) -> None:
        body = event["object"]
        # Selectors of the server are repeated here: kopf may run without them while it falls back.
        if kind in (JOB, POD) and (body["metadata"].get("labels") or {}).get(names.MANAGED_BY) != names.MANAGER:
            return
        runtime.saw(kind, dict(body), deleted=event["type"] == "DELETED")

    kopf.on.event(kind.group, kind.version, kind.plural, id=f"saw-{kind.plural}", registry=registry)(saw)


async def connection_info(cluster: Cluster) -> kopf.ConnectionInfo:
    """The login of our own client, for kopf's watches."""
    found = await cluster.credentials()
    return kopf.ConnectionInfo(
        server=found.server,
        ca_path=found.ca_path,
        insecure=not found.verify,
        certificate_path=found.certificate_path,
        private_key_path=found.key_path,
        scheme="Bearer" if found.token else None,
        token=found.token,
        expiration=datetime.now(UTC) + LOGIN_VALID if found.token else None,
    )


async def watch(runtime: Runtime) -> None:
    """Watch until SIGTERM or SIGINT. A watch that ends for good raises."""
    # NB: without a stop_flag: kopf leaves a task on it behind, and waits five seconds for that at the end.
    await kopf.operator(registry=registry_for(runtime), settings=watch_settings(), clusterwide=True, standalone=True)
