"""What a fault may cost: the figures that tests hold recordings to, and that docs/reliability.md puts beside what was measured.

Two numbers, never one: captured media that is lost, and time until capture goes on. The first is the promise; where the second is no
promise of the product's, it tells a slow machine from somebody who waits for a timeout.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from isotrack_api.base import DEFAULT_CHECKPOINT_SECONDS

PROCESS_LOST_SECONDS: Final = 1.0
"""What the death of a recorder may lose of what it had received."""
NODE_LOST_SECONDS: Final = DEFAULT_CHECKPOINT_SECONDS + 3.0
"""What the loss of a pod with its spool may: what came after the last checkpoint, and what that takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What one fault may cost, in seconds."""

    lost: float
    """Captured media."""
    gap: float | None
    """Until capture goes on; None where nobody is to go on."""


CLUSTER_FAULTS: Final[Mapping[str, Promise]] = MappingProxyType(
    {
        # Both pods record until the successor has everything.
        "node drained": Promise(lost=0, gap=0),
        # Kubernetes calls a node dead after 40 to 50 s of silence; the successor starts at once then.
        "node died": Promise(lost=NODE_LOST_SECONDS, gap=90),
        "node died, stopped before anybody went on": Promise(lost=NODE_LOST_SECONDS, gap=None),
        "API server away for three minutes": Promise(lost=0, gap=0),
        "namespace deleted": Promise(lost=0, gap=None),
        "pod evicted": Promise(lost=0, gap=0),
        "pod evicted, no place for another, stopped": Promise(lost=0, gap=0),
        # Joined, subscribed, and the first key frame has come. It takes a second; the kubelet would let it wait for ten.
        "recorder process killed": Promise(lost=PROCESS_LOST_SECONDS, gap=5),
        # It takes 2 to 6 s here where a container has to come anew; more than this, and somebody waits for a timeout.
        "recorder container killed": Promise(lost=PROCESS_LOST_SECONDS, gap=20),
        # The kernel ends the process, or all of its container: as above.
        "recorder out of memory": Promise(lost=PROCESS_LOST_SECONDS, gap=20),
        "agent killed": Promise(lost=0, gap=0),
        "Recording deleted": Promise(lost=0, gap=None),
        "everything deleted without an operator, then swept": Promise(lost=NODE_LOST_SECONDS, gap=None),
    }
)
"""Faults of a whole cluster (`tests/cluster`), in the words of the report."""
