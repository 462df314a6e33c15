"""Where a packet goes, by its SSRC; how an unknown SSRC finds its m-line.

Announced SSRCs are routed when the session description names them. An unknown one is found by its MID header
extension, else by a payload type that only one m-line uses (RFC 8843 section 9.2; of m-lines without announced sources: what is
still on its way from somebody who left must not end up with who stays). Of RTX it is also found which stream of the m-line it
repairs: repairs: by SSRC where a group of the description says it, else by RepairedRtpStreamId (RFC 8852), else the one that flows.

Packets of nowhere are parked, a hundred at most and for two seconds, until a description explains them: signalling and media take
different ways, and either may be first. Tables are bounded: an SFU that invents SSRCs can fill them, not the memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple, Protocol

from isotrack_recorder.codecs.base import Octets
from isotrack_recorder.rtp.lines import MediaLine

MAX_SSRCS: Final = 8192
MAX_PARKED: Final = 100
MAX_PARKED_NS: Final = 2_000_000_000
"""What no description explains for longer came of somebody who left."""


class Route(Protocol):
    """Takes the packets of one SSRC."""

    def push(
        self, payload_type: int, sequence: int, timestamp: int, marker: int, payload: Octets, arrival_ns: int
    ) -> None:
        """Take one packet; must not keep `payload` unless it owns it, must not raise."""


class Parked(NamedTuple):
    """A whole packet whose SSRC nobody knows yet."""

    data: bytes
    arrival_ns: int
    ssrc: int


class Dropping:
    """Route of what is not wanted of a track."""

    __slots__ = ("track_id",)

    def __init__(self, track_id: str) -> None:
        self.track_id = track_id

    def push(self, *_: object) -> None:
        """Drop."""


class LineFinder:
    """Finds the m-line of an unknown SSRC."""

    __slots__ = ("_by_mid", "_by_payload_type", "_by_ssrc")

    def __init__(self, lines: Iterable[MediaLine] = ()) -> None:
        self._by_mid: dict[str, MediaLine] = {}
        self._by_ssrc: dict[int, MediaLine] = {}
        self._by_payload_type: dict[int, MediaLine | None] = {}
        for line in lines:
            self._by_mid[line.mid] = line
            self._by_ssrc.update(dict.fromkeys((*line.ssrcs, *line.repair_ssrcs), line))
            if line.ssrcs:
                continue
            for payload_type in (*line.formats, *line.repairs_of):
                taken = payload_type in self._by_payload_type
                self._by_payload_type[payload_type] = None if taken else line

    def find(self, ssrc: int, mid: str | None, payload_type: int) -> MediaLine | None:
        """What was announced first, then MID; a payload type decides only where it is unique and there is no MID."""
        if ssrc in self._by_ssrc:
            return self._by_ssrc[ssrc]
        if mid is not None:
            return self._by_mid.get(mid)
        return self._by_payload_type.get(payload_type)


class Router:
    """The tables of one connection."""

    __slots__ = ("_parked", "routes", "unrouted")

    def __init__(self) -> None:
        self.routes: dict[int, Route] = {}
        """Read by the packet loop at each packet."""
        self.unrouted = 0
        """Packets that found no place, not even a parking place."""
        self._parked: list[Parked] = []

    def set(self, ssrc: int, route: Route) -> bool:
        """Route an SSRC; False where the table is full."""
        if len(self.routes) >= MAX_SSRCS and ssrc not in self.routes:
            return False
        self.routes[ssrc] = route
        return True

    def remove(self, ssrcs: Iterable[int]) -> None:
        """Forget SSRCs."""
        for ssrc in ssrcs:
            self.routes.pop(ssrc, None)

    def drop(self, ssrc: int, track_id: str) -> bool:
        """Drop an SSRC of this track; False where the table is full."""
        return self.set(ssrc, Dropping(track_id))

    def forget_dropped(self, track_id: str) -> None:
        """What was dropped of this track is unknown again: it finds its place anew with its next packet."""
        self.remove(
            [s for s, route in self.routes.items() if isinstance(route, Dropping) and route.track_id == track_id]
        )

    def park(self, data: bytes, arrival_ns: int, ssrc: int) -> None:
        """Keep a packet that nobody knows; beyond the bounds it is dropped."""
        if self._parked and arrival_ns - self._parked[0].arrival_ns > MAX_PARKED_NS:
            self._parked = self.unpark(arrival_ns)
        if len(self._parked) < MAX_PARKED:
            self._parked.append(Parked(data, arrival_ns, ssrc))
        else:
            self.unrouted += 1

    def unpark(self, now_ns: int) -> list[Parked]:
        """Take out all parked packets that are not too old, in the order of their arrival."""
        parked, self._parked = self._parked, []
        young = [packet for packet in parked if now_ns - packet.arrival_ns <= MAX_PARKED_NS]
        self.unrouted += len(parked) - len(young)
        return young

    def repairs(self, pairs: Mapping[int, int], ssrc: int) -> list[int]:
        """RTX SSRCs among `pairs` (RTX → media) that repair `ssrc`."""
        return [repair for repair, media in pairs.items() if media == ssrc]
