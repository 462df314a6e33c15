"""Keep the scheduling of this thread as it is, whatever a library does to it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def kept_scheduling() -> Iterator[None]:
    """Undo changes of policy and priority at the end.

    SVT-AV1, run as root, gives the thread that opens it the highest real-time priority (SCHED_FIFO 99) and leaves it there.
    Every thread that is made later inherits it, and encoders whose threads wait for one another by spinning (libvpx) then
    take all processors for ever.
    """
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, parameters)
