"""Keep delivering a spool while it grows: what is due goes out, what is covered is given back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from isotrack_recorder.errors import IsotrackError

from .deliver import Delivery
from .retry import full_jitter

log = logging.getLogger(__name__)


async def keep_delivering(
    delivery: Delivery,
    checkpointed: Callable[[], Mapping[str, int] | None],
    over: asyncio.Future[Any],
    *,
    round_seconds: float,
    delivered: Callable[[], None],
) -> None:
    """Deliver what is due until `over` is done. A round that fails is repeated: the spool keeps what is not delivered.

    Args:
        checkpointed: As for `Delivery.reclaim`, at that moment.
        round_seconds: Between two rounds.
        delivered: Called when files were finished.
    """
    failures = 0
    while not over.done():
        try:
            try:
                if await delivery.round():
                    delivered()
            except Exception:
                # NB: the same behind a round that failed. A session that fails each time must not keep others' media on the disk.
                await delivery.reclaim(checkpointed())
                raise
            await delivery.reclaim(checkpointed())
            failures = 0
        except IsotrackError as error:
            failures += 1
            if failures == 1:
                log.warning("delivery failed for now", extra={"fields": {"detail": str(error)}})
        except Exception:  # capture goes on; at its end the same would be told as a failure
            failures += 1
            log.exception("delivery failed")
        pause = round_seconds + (full_jitter(failures) if failures else 0)
        await asyncio.wait((over,), timeout=pause)
