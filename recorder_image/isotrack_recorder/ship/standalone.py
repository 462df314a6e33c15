"""Finish a recording without a cluster: deliver what its shipper has not, and leave nothing behind that was for the case of a crash."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

from isotrack_api.intent import Intent
from isotrack_recorder.errors import ConfigError

from .checkpoints import Checkpoints
from .commit import read_recovered
from .credentials import CredentialSource
from .deliver import AFTER_STOP_SECONDS, OVER, Delivered, Delivery, Watchers
from .lanes import Lanes
from .layout import Layout, layout_of
from .recover import Recovery
from .retry import Patience
from .s3 import S3Store
from .store import Store


async def finish_recording(spool: Path, intent: Intent, credentials: CredentialSource, watchers: Watchers) -> Delivered:
    """Ship a spool whose capture is over. May be repeated: what is in the bucket already stays as it is.

    Raises:
        ConfigError: somebody finished it from its checkpoints, and tidied up: what went out in parts is not there any more.
        StorageRefusedError, StorageError: not everything could be shipped; the spool still holds it.
    """
    layout = layout_of(intent)
    assert intent.storage is not None
    patience = Patience(in_a_row=AFTER_STOP_SECONDS)
    with closing(Lanes()) as lanes:
        try:
            store = S3Store(intent.storage, credentials, patience, watchers.storage)
            await lanes.request(_check_nobody_did, store, layout, intent)
            delivery = Delivery(spool, intent, store, lanes, watchers)
            checkpoints = await lanes.request(Checkpoints, spool, intent, store)
            if checkpoints.enabled:
                delivery.copied = lambda: checkpoints.sent
            delivered = await delivery.finish(OVER)
            if delivery.gave_up:
                await checkpoints.flush(lanes)  # of them the rest is made
            # NB: without checkpoints, too: a shipper may have died as it tried the storage, and left what it tried it with.
            recovery = Recovery(store, lanes, layout, spool / "ship" / "recovery", intent)
            return replace(delivered, recording=await recovery.finalise() or delivered.recording)
        finally:
            patience.end_within(0)  # NB: when we are cancelled, threads go on until they ask whether there is time left


def _check_nobody_did(store: Store, layout: Layout, intent: Intent) -> None:
    recovered = read_recovered(store, layout)
    if recovered is not None and intent.attempt in recovered.attempts:
        raise ConfigError(
            f"{layout.uri(layout.root)} was finished from its checkpoints already: only seconds before the crash are not in it, and "
            "nothing is left to do here but to remove this folder"
        )
