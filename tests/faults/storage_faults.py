"""Trials in which the storage misbehaves: a proxy stands between the agent and the real S3 server."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from urllib.parse import urlsplit

from isotrack_recorder.pod.agent import LET_IN
from support.fault_proxy import (
    ANSWER_CUT,
    ANSWER_LOST,
    DENIED,
    INTERNAL_ERROR,
    LATENCY,
    NO_BUCKET,
    REQUEST_CUT,
    RESET,
    SLOW,
    UNAVAILABLE,
    FaultProxy,
)
from support.looped import looped
from support.waiting import until

from .evidence import Evidence
from .gather import Done
from .pods import END_SECONDS, Pod
from .trial import Place, concluded, recorded, start

FAULTS: Final = (RESET, ANSWER_LOST, REQUEST_CUT, ANSWER_CUT, LATENCY, SLOW, INTERNAL_ERROR, UNAVAILABLE)
REFUSALS: Final = (DENIED, NO_BUCKET)
RENEW_SECONDS: Final = 0.4
CUT_AFTER: Final = 200
"""Bytes: inside the head of a request, and of an answer."""


class _Proxy:
    """A FaultProxy in another thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, proxy: FaultProxy) -> None:
        self._loop, self._proxy = loop, proxy
        self.url = proxy.url

    def expect(self, faults: list[str]) -> None:
        """Of the next connections."""
        self._loop.call_soon_threadsafe(self._proxy.faults.extend, faults)

    def renew(self) -> None:
        """Break the connections that are open while faults are waiting for new ones."""
        if self._proxy.faults:
            self._loop.call_soon_threadsafe(self._proxy.drop)

    def always(self, fault: str) -> None:
        """Of all connections from now on; `""` = none."""

        def change() -> None:
            self._proxy.always = fault
            self._proxy.drop()

        self._loop.call_soon_threadsafe(change)

    def fired(self, fault: str) -> int:
        """How often a fault took effect."""
        return self._proxy.fired[fault]


@contextmanager
def _proxy_before(place: Place) -> Iterator[_Proxy]:
    server = urlsplit(place.s3.endpoint)
    assert server.hostname
    assert server.port
    proxy = FaultProxy(server.hostname, server.port)
    proxy.cut_after = CUT_AFTER
    with looped(proxy) as (loop, _):
        yield _Proxy(loop, proxy)


@contextmanager
def _pod_behind_proxy(place: Place, room: str) -> Iterator[tuple[_Proxy, Pod]]:
    with (
        _proxy_before(place) as proxy,
        Pod(place.folder / room, place.livekit, place.s3, room, endpoint=proxy.url) as pod,
    ):
        yield proxy, pod


def break_storage(place: Place, room: str, seed: int) -> Evidence:
    """Each fault once in a random order, half of them while the agent begins, the others while it ships."""
    chance = random.Random(seed)
    order = chance.sample(FAULTS, len(FAULTS))
    half = len(order) // 2
    with _pod_behind_proxy(place, room) as (proxy, pod):

        def look() -> bool:
            """Keep new connections coming, which take the next fault each."""
            proxy.renew()
            return pod.agent.has_ended

        proxy.expect(order[:half])
        with place.studio.publishing(room) as ledger:
            start(pod)
            began = recorded(pod, look)
            time.sleep(chance.uniform(2.0, 4.0))
            proxy.expect(order[half:])
            ended = place.end_call(room)
        until(look, "the agent's end", seconds=END_SECONDS, interval=RENEW_SECONDS)
        fired = {fault: proxy.fired(fault) for fault in FAULTS}
        return concluded(place, Done([pod], ledger, (began, ended), faults=fired))


def outlast(place: Place, room: str, seed: int, faults: tuple[str, ...], seconds: tuple[float, float]) -> Evidence:
    """One of these faults meets every connection for so long (least, most) in the middle of a call, which goes on for a while then."""
    chance = random.Random(seed)
    fault = faults[seed % len(faults)]
    with _pod_behind_proxy(place, room) as (proxy, pod):
        with place.studio.publishing(room) as ledger:
            start(pod)
            began = recorded(pod)
            if (
                fault in REFUSALS
            ):  # NB: who is refused from the start says so and ends, for that is a mistake of those who set it up
                until((pod.spool / LET_IN).exists, "the storage took the agent", seconds=END_SECONDS)
            time.sleep(chance.uniform(1.0, 3.0))
            proxy.always(fault)
            time.sleep(chance.uniform(*seconds))
            proxy.always("")
            time.sleep(chance.uniform(4.0, 8.0))
            ended = place.end_call(room)
        return concluded(place, Done([pod], ledger, (began, ended), faults={fault: proxy.fired(fault)}))


def stop_storage(place: Place, room: str, seed: int) -> Evidence:
    """Every connection is reset for a while, from some moment of the call until some time after its end."""
    chance = random.Random(seed)
    with _pod_behind_proxy(place, room) as (proxy, pod):
        with place.studio.publishing(room) as ledger:
            start(pod)
            began = recorded(pod)
            time.sleep(chance.uniform(0.0, 2.0))
            proxy.always(RESET)
            time.sleep(chance.uniform(1.0, 3.0))
            ended = place.end_call(room)
        time.sleep(chance.uniform(1.0, 8.0))
        proxy.always("")
        return concluded(place, Done([pod], ledger, (began, ended), faults={RESET: proxy.fired(RESET)}))
