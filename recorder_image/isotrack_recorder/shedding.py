"""What a capture gives up at the moment so that its spool never overflows: measured on a beat, decided by `spool.watermarks`."""

from __future__ import annotations

import logging
from collections.abc import Callable

from isotrack_api.words import SpoolLevel, TrackSource

from .spool.watermarks import NOTHING_KNOWN, Usage, is_shed, level_of

log = logging.getLogger(__name__)


class Shedding:
    """The level of one spool over time. `measure` looks at the disk; where it cannot, the last figures hold."""

    def __init__(self, measure: Callable[[], Usage]) -> None:
        self._measure = measure
        self._taken = 0
        self.usage = NOTHING_KNOWN
        self.level = SpoolLevel.CLEAR

    def look(self, taken: int) -> bool:
        """Measure again, and tell whether the level changed.

        Args:
            taken: Bytes that the spool's writer has taken so far. What came since the last look will come once more before the
                next one, so it counts as if it lay there: a fast call must not jump over the last watermark.
        """
        growth, self._taken = taken - self._taken, taken
        try:
            self.usage = self._measure()
        except OSError as error:
            log.warning("room of the spool is unknown", extra={"fields": {"why": error.strerror}})
        before, self.level = self.level, level_of(self.usage.grown_by(growth).ratio, self.level)
        if self.level is not before:
            fields = {"room": self.level, "used": self.usage.used, "capacity": self.usage.capacity}
            log.warning("room of the spool changed", extra={"fields": fields})
        return self.level is not before

    def sheds(self, source: TrackSource) -> bool:
        """Whether tracks of this source are not received now."""
        return is_shed(source, self.level)
