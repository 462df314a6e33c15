"""Which pictures behind a loss are made from what is missing.

A picture is made from earlier ones, back to a key frame. So behind a loss none can be trusted until the next key frame, but where
the payload format tells of temporal layers: those of layer 0 are numbered and need layer 0 alone, so the one whose number
follows that of the last good one is good; frames of a higher layer are good again once one says that it needs nothing but that
(RFC 7741 section 4.2, RFC 9628 section 4.2). A Dependence lives as long as its Assembler and is told of each loss and each frame.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from isotrack_recorder.codecs.base import Layer, Octets

_NUMBERS: Final = 256
"""Of frames of layer 0, before they repeat."""
_LAYERS: Final = 8


class Dependence:
    """See module."""

    __slots__ = ("_base", "_good", "_lost", "intact", "newest")

    def __init__(self) -> None:
        self.intact = True
        """Nothing was lost since the last key frame: any frame has all that it is made from, and `take` only notes it as `newest`."""
        self.newest: Octets = b""
        """First payload of the newest frame while nothing was lost."""
        self._base: int | None = None
        """Number of the last good frame of layer 0, once something was lost; None: a key frame alone helps."""
        self._lost = 0
        """Packets since that frame: a bound on how many frames of layer 0 are among them."""
        self._good: set[int] = set()
        """Higher layers of which nothing that is still needed is missing."""

    def lose(self, packets: int, layer_of: Callable[[Octets], Layer | None]) -> None:
        """Frames of so many packets at most never came."""
        if self.intact:
            layer = layer_of(self.newest)
            self._base = None if layer is None else layer.base
            self.intact, self._lost = False, 0
        self._lost += packets
        self._good.clear()

    def take(self, payload: Octets, layer_of: Callable[[Octets], Layer | None], *, key: bool) -> bool:
        """Whether the next frame, which begins with this payload, has all that it is made from."""
        if key or self.intact:
            self.intact = True
            self.newest = payload
            return True
        if self._base is None or self._lost >= _NUMBERS:
            return False
        layer = layer_of(payload)
        if layer is None or (not layer.temporal and layer.base != (self._base + 1) % _NUMBERS):
            self._base = None
            return False
        if not layer.temporal:
            self._base, self._lost = layer.base, 0
        elif layer.base != self._base:
            return False
        elif layer.sync:
            self._good.add(layer.temporal)
        elif any(lower not in self._good for lower in range(1, layer.temporal + 1)):
            return False
        if layer.opens:
            self._good.update(range(layer.temporal + 1, _LAYERS))
        return True
