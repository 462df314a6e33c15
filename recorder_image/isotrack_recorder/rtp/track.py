"""One track of the SFU on one m-line: its sink, its running totals, its need of key frames.

A file can be cut and sought at key frames only, and a publisher that nobody asks makes one. So each track is due for a key frame
`key_interval_ns` after the last one that the clock asked for, or a share of that, different for each track, after one that came for
another reason: tracks that begin together (at a join) drift apart, and publishers that make key frames by themselves are left alone.

A Track is made when an m-line begins to carry it and lives until the m-line carries something else or goes silent;
streams (SSRCs) come and go inside it. Without a sink it is unwanted, and its packets are dropped.
"""

from __future__ import annotations

import zlib
from typing import Final

from isotrack_api.words import MediaKind
from isotrack_recorder.media import CodecInfo, TrackCounters, TrackSink
from isotrack_recorder.rtp.lines import MediaLine

KEY_RETRY_NS: Final = 300_000_000
"""Pause between the first key frame requests, or one and a half round trips where that is more. A request or its answer may be
lost, and what is shown meanwhile is damaged: of a second, this leaves time for two more."""
KEY_REPAIR_NS: Final = 1_100_000_000
"""The same where lost packets are repeated. LiveKit repeats none from a request on until a key frame passes, and passes requests on to the
publisher a second apart: a second request within that second is answered by nobody, and until the next one nothing is repaired."""
KEY_RETRY_TRIES: Final = 3
"""So many at that pace; each further pause is half as long again, up to KEY_RETRY_LATER_NS."""
KEY_RETRY_LATER_NS: Final = 1_000_000_000
KEY_RETRY_SLOW_NS: Final = 5_000_000_000
KEY_FAST_TRIES: Final = 10
"""After so many requests a publisher of whom nothing comes is likely muted; the slow pace remains for the case that it is not."""


class Track:
    """See module."""

    __slots__ = (
        "_announced",
        "_await_from",
        "_key_awaited",
        "_key_by_clock",
        "_key_interval_ns",
        "_key_next",
        "_key_sent",
        "_key_tries",
        "_wanting",
        "counters",
        "height",
        "line",
        "rotation",
        "sink",
        "width",
    )

    def __init__(self, line: MediaLine, sink: TrackSink | None, wanting: set[Track], key_interval_ns: int = 0) -> None:
        """`wanting` is shared by all tracks of a connection: those that need a key frame. `key_interval_ns` 0 = never by the clock."""
        self.line = line
        self.sink = sink
        self.counters = TrackCounters()
        self._wanting = wanting
        self._announced: CodecInfo | None = None
        self.width = self.height = self.rotation = 0
        """Of the newest picture; 0x0 before the first key frame."""
        self._key_sent: int | None = None
        self._key_awaited = False
        self._await_from: int | None = None
        self._key_tries = 0
        self._key_interval_ns = key_interval_ns
        self._key_next = 0
        self._key_by_clock = False

    @property
    def video(self) -> bool:
        """Whether key frames and frame assembly apply."""
        return self.line.kind is MediaKind.VIDEO

    def announce(self, codec: CodecInfo) -> None:
        """Tell the sink the codec where it is not what was told last."""
        if codec != self._announced and self.sink is not None:
            self._announced = codec
            self.sink.codec(codec)

    def resize(self, width: int, height: int, rotation: int) -> bool:
        """Note the size of pictures from here on; True where it is new."""
        if width == self.width and height == self.height and rotation == self.rotation:
            return False
        counters = self.counters
        if self.width:
            counters.size_changes += 1
        self.width, self.height, self.rotation = width, height, rotation
        counters.width, counters.height = width, height
        return True

    def want_key(self) -> None:
        """Ask for a key frame at the next feedback (but for a pause after the last request) and until one comes."""
        self._key_awaited = False
        if self.sink is not None and self.video and self not in self._wanting:
            self._key_tries = 0
            self._wanting.add(self)

    def await_key(self) -> None:
        """A source begins, most likely with a key frame. One is asked for where something else comes first, or none within the usual
        pause, counted from the next feedback on: until then there may be no connection."""
        if self._key_awaited or self not in self._wanting:
            self.want_key()
            self._key_awaited, self._await_from = self in self._wanting, None

    def want_key_by_clock(self, now_ns: int) -> None:
        """Ask for a key frame where the last one is too long ago. For tracks whose packets come: others would ask in vain."""
        if self._key_next and now_ns >= self._key_next and self not in self._wanting:
            self._key_by_clock = True
            self.want_key()

    def key_frame(self, at_ns: int) -> None:
        """One came."""
        if self.video:
            self.counters.key_frames += 1
            self._wanting.discard(self)
            self._key_awaited = False
            if self._key_interval_ns:
                wait = self._key_interval_ns if self._key_by_clock else self._first_wait_ns()
                self._key_next = at_ns + wait
                self._key_by_clock = False

    def _first_wait_ns(self) -> int:
        """Between half of the interval and all of it, the same for a track at each run."""
        return self._key_interval_ns * (0x1_0000 + (zlib.crc32(self.line.track_id.encode()) & 0xFFFF)) // 0x2_0000

    def key_request_due(self, now_ns: int, rtt_ns: int, repair_ns: int = 0, *, flows: bool = False) -> bool:
        """Tell whether to send a request now, and count it as sent.

        `flows`: packets of it come. `rtt_ns` 0 = not measured. `repair_ns` is how long packets that are missing now may still be repeated: one of them may be of the
        key frame; 0 where nobody repeats any.
        """
        if self._key_awaited and self._await_from is None:
            self._await_from = now_ns
        before = self._await_from if self._key_awaited else self._key_sent
        if before is not None and now_ns - before < self._key_pause_ns(rtt_ns, repair_ns, flows=flows):
            return False
        self._key_tries += 1
        self._key_sent = now_ns
        self._key_awaited = False
        self.counters.plis += 1
        return True

    def _key_pause_ns(self, rtt_ns: int, repair_ns: int, *, flows: bool) -> int:
        """From the last request to the next; a key frame that came in between makes the next one a first one."""
        if self._key_tries >= KEY_FAST_TRIES and not flows:
            return KEY_RETRY_SLOW_NS
        longer = max(0, self._key_tries - KEY_RETRY_TRIES)
        pause: int = max(KEY_RETRY_NS, rtt_ns * 3 // 2) * 3**longer // 2**longer
        pause = min(KEY_RETRY_LATER_NS, pause)
        return max(pause, KEY_REPAIR_NS, repair_ns + rtt_ns * 3 // 2) if repair_ns else pause

    def close(self) -> None:
        """No packet comes any more."""
        self._wanting.discard(self)
        self._key_awaited = False
        self._key_next = 0
        self.sink = None
        self._announced = None
        self.width = self.height = self.rotation = 0
