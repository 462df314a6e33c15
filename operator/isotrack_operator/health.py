"""/healthz and /metrics. Unhealthy means: a watch is dead and only a new process helps.

A watch that is silent cannot be told from a quiet cluster by looking at it. So each resync remembers the newest resource version that
its list has seen of each kind; a watch that has not brought that version (or a later one) a minute later is dead. An API server that
does not answer is no reason to be killed: a new process would not reach it either.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

from aiohttp import web

from .errors import ConfigError
from .kinds import Kind

log = logging.getLogger(__name__)

LAG_SECONDS = 60.0


class Health:
    """What is known about the watches, and what was counted."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._watched: dict[Kind, int] = {}
        self._expected: dict[Kind, tuple[int, float]] = {}
        self.counters: Counter[str] = Counter()
        """Prometheus counters by name, labels included."""

    def saw(self, kind: Kind, version: int) -> None:
        """A watch event with this resource version arrived."""
        self._watched[kind] = max(version, self._watched.get(kind, 0))
        expected = self._expected.get(kind)
        if expected is not None and version >= expected[0]:
            del self._expected[kind]

    def listed(self, kind: Kind, version: int) -> None:
        """A list saw this resource version: the watch must bring it soon."""
        if version > self._watched.get(kind, 0) and kind not in self._expected:
            self._expected[kind] = (version, self._clock())

    def dead_watches(self) -> list[str]:
        """Kinds whose watch lags behind a list for too long."""
        now = self._clock()
        return [kind.name for kind, (_, since) in self._expected.items() if now - since > LAG_SECONDS]

    def metrics(self, gauges: dict[str, float]) -> str:
        """Prometheus text format."""
        values = {**self.counters, **gauges}
        names = sorted({name.partition("{")[0] for name in values})
        lines = []
        for name in names:
            lines.append(f"# TYPE {name} {'counter' if name.endswith('_total') else 'gauge'}")
            lines += [f"{key} {value}" for key, value in sorted(values.items()) if key.partition("{")[0] == name]
        return "\n".join(lines) + "\n"


async def serve_health(health: Health, port: int, gauges: Callable[[], dict[str, float]]) -> web.AppRunner:
    """Listen on all addresses (the kubelet asks from outside the pod). The caller cleans the runner up.

    Raises:
        ConfigError: the port is taken.
    """

    async def healthz(_: web.Request) -> web.Response:
        dead = health.dead_watches()
        if dead:
            log.error("watch is dead", extra={"fields": {"kinds": ",".join(dead)}})
        return web.json_response({"deadWatches": dead}, status=503 if dead else 200)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(text=health.metrics(gauges()), content_type="text/plain")

    application = web.Application()
    application.add_routes([web.get("/healthz", healthz), web.get("/metrics", metrics)])
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, port=port).start()
    except OSError as error:
        await runner.cleanup()
        raise ConfigError(f"cannot listen on port {port}: {error.strerror}; see --liveness-port") from error
    return runner
