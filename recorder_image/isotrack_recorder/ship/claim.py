"""Who is attempt n? The spool whose run is in `attempts/<n>/claim.json`, which is written once.

A Job may start its pod a second time (kubernetes.io, "Jobs": the same program will sometimes be started twice). The second has another
spool under the same number, and so the same names for other files. It finds the claim taken and goes, before it wrote anything.
"""

from __future__ import annotations

import json

from .layout import Layout
from .store import Store

CLAIM_LIMIT = 4096


def claim_attempt(store: Store, layout: Layout, attempt: int, run: str) -> bool:
    """Claim an attempt for a run; False when another run has it. May be repeated.

    Raises:
        StorageError: the storage does not answer, or refuses.
    """
    body = json.dumps({"run": run}).encode() + b"\n"
    key = layout.claim(attempt)
    if store.put_once(key, body, "application/json"):
        return True
    # NB: read it back, because the answer to our own first try may have been lost.
    return store.get(key, CLAIM_LIMIT) == body
