"""Recovery from a storage that is far away: what is read does not wait for the way there and back each time."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from urllib.parse import urlsplit

from isotrack_dev.servers import S3Info
from isotrack_recorder.ship.checkpoints import Checkpoints
from isotrack_recorder.ship.lanes import READS_AT_ONCE
from isotrack_recorder.ship.layout import layout_of
from isotrack_recorder.ship.rebuild import Chain, fetch, find_runs, follow
from support.fault_proxy import DISTANCE, FaultProxy
from support.live_spool import LiveSpool
from support.shipping import a_shipping_intent
from support.stores import a_store, destination, write_secret

CHECKPOINTS = 80
LATENCY = 0.1


async def test_checkpoints_are_read_ahead_from_a_storage_that_is_far_away(s3: S3Info, tmp_path: Path) -> None:
    secret = write_secret(tmp_path / "storage", s3.access_key, s3.secret_key)
    intent = a_shipping_intent(storage=destination(s3, prefix="far"))
    layout = layout_of(intent)
    call = LiveSpool(tmp_path / "spool", segment_bytes=32_768)
    checkpoints = Checkpoints(call.path, intent, a_store(s3, secret))
    for number in range(CHECKPOINTS):
        call.run((number + 1) / 4)
        await asyncio.to_thread(checkpoints.ship)
    call.stop()
    place = tmp_path / "again"
    place.mkdir()
    url = urlsplit(s3.endpoint)
    assert url.hostname
    assert url.port
    async with FaultProxy(url.hostname, url.port) as proxy:
        proxy.always, proxy.latency_seconds = DISTANCE, LATENCY
        store = a_store(s3, secret, endpoint=proxy.url)

        def rebuild() -> tuple[Chain, float, float]:
            [run] = find_runs(store.list_objects(layout.attempts), layout)
            began = time.monotonic()
            chain = follow(store, layout, run, place)
            followed = time.monotonic()
            assert fetch(store, layout, chain, lambda path: place / path)
            return chain, followed - began, time.monotonic() - followed

        chain, following, fetching = await asyncio.to_thread(rebuild)
        assert proxy.fired[DISTANCE] >= 2 * CHECKPOINTS
        assert READS_AT_ONCE // 2 < proxy.most_at_once <= 2 * READS_AT_ONCE, "an ended one may linger"
    assert chain.length == CHECKPOINTS
    one_by_one = CHECKPOINTS * LATENCY
    assert following < one_by_one / 2
    assert fetching < one_by_one / 2
    copied = {name: (call.path / name).read_bytes()[:size] for name, size in checkpoints.sent.items()}
    assert {name: (place / name).read_bytes() for name in copied} == copied
