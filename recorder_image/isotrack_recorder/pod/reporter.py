"""Write the RecordingReport of one attempt while it runs, and once more at its end. An API server that is away costs nothing but the
report."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Final

from isotrack_api.recording_report import ReportStatus
from isotrack_recorder.ship.kube import KubeClient, KubeError
from isotrack_recorder.ship.retry import full_jitter

from .agent_report import Facts, report_of, transition_of
from .tasks import set_within

log = logging.getLogger(__name__)

ASK_SECONDS: Final = 3.0
"""For the one question at SIGTERM, for a report that is still on its way at the end, and for the last one: nobody waits for the API
server longer."""
SIGN_OF_LIFE_SECONDS: Final = 60.0
"""A report is written this often even if nothing changes."""


class Reporter:
    """Tells the API server what is true of an attempt.

    Args:
        facts: What is true at that moment.
        wake: Set when something changed.
        seconds: Between two reports of progress.
    """

    def __init__(self, kube: KubeClient, facts: Callable[[], Facts], wake: asyncio.Event, seconds: float) -> None:
        self._kube = kube
        self._facts = facts
        self._wake = wake
        self._seconds = seconds
        self._telling = asyncio.Lock()
        """One report at a time: of two that are on their way together, the older one may take effect last."""

    async def run(self) -> None:
        """Write changes of state after a second, progress every few seconds, until cancelled."""
        failures = 0
        written: ReportStatus | None = None
        written_at = 0.0
        while True:
            async with self._telling:
                self._wake.clear()
                status = report_of(self._facts(), time.time_ns() // 1_000_000)
                if _is_worth_writing(status, written, time.monotonic() - written_at, self._seconds):
                    try:
                        await self._kube.apply_report(status)
                        written, failures, written_at = status, 0, time.monotonic()
                    except KubeError as error:
                        failures += 1
                        if failures == 1:
                            log.warning("report was not written", extra={"fields": {"detail": str(error)}})
            await asyncio.sleep(1.0 + (full_jitter(failures) if failures else 0))
            if not failures:
                await set_within(self._wake, self._seconds)

    async def conclude(self, facts: Facts) -> None:
        """Write the last report."""
        with contextlib.suppress(TimeoutError):  # one that hangs is not waited for
            async with asyncio.timeout(ASK_SECONDS):
                await self._telling.acquire()  # for good: nothing is told behind this
        try:
            status = report_of(facts, time.time_ns() // 1_000_000)
            async with asyncio.timeout(ASK_SECONDS):
                await self._kube.apply_report(status)
        except (KubeError, TimeoutError):
            log.warning("last report was not written")
        except Exception:
            log.exception("last report could not be made")


def _is_worth_writing(status: ReportStatus, written: ReportStatus | None, age: float, pause: float) -> bool:
    """Changes of state at once, progress after a pause, and a sign of life now and then."""
    if written is None or transition_of(status) != transition_of(written) or age >= SIGN_OF_LIFE_SECONDS:
        return True
    return age >= pause and status.model_copy(update={"last_update": written.last_update}) != written
