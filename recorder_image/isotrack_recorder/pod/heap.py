"""How this process takes memory from the system."""

from __future__ import annotations

import contextlib
import ctypes
from typing import Final

M_ARENA_MAX: Final = -8
"""Of glibc's malloc.h."""


def share_one_heap() -> None:
    """Have all threads allocate from one heap (mallopt(3)), where the C library has such a thing.

    glibc gives threads heaps of their own; parts come and go in worker threads, and what those heaps once grew to stays.
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)
