"""When a receiver says what (RFC 4585, RFC 3550 section 6): one schedule for all streams of a connection.

Losses are asked for as soon as a batch of packets showed them, those of all streams in one datagram, key frames when a track wants one, transport-wide
feedback every 50 ms, reports, the bandwidth estimate and requests for regular key frames every second. The estimate (REMB) is one constant for the
whole connection: a recorder wants the top layer and leaves adaptation to the SFU, and per-track estimates would be
taken for the connection's. Where it was negotiated, extended reports measure the round trip.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from isotrack_recorder.rtp.lines import MediaLine
from isotrack_recorder.rtp.rtcp import (
    MAX_DLRR,
    Dlrr,
    ReferenceTime,
    build_extended_report,
    build_fir,
    build_nacks,
    build_pli,
    build_receiver_reports,
    build_remb,
    together,
)
from isotrack_recorder.rtp.stream import Stream
from isotrack_recorder.rtp.track import Track
from isotrack_recorder.rtp.twcc import TransportLog

REPORT_NS: Final = 1_000_000_000
TRANSPORT_NS: Final = 50_000_000
FLOWING_NS: Final = 2 * REPORT_NS
"""A source whose last packet is younger sends."""
MAX_RTT_NS: Final = 10_000_000_000
"""What is said to have taken longer was no round trip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedbackSettings:
    """What we say of ourselves."""

    remb_bits_per_second: int = 100_000_000
    """Stated to SFUs that estimate by REMB. One connection carries all tracks of a call: below their sum, an SFU
    lowers layers; far above what the path takes, it must learn that from losses."""
    key_interval_ns: int = 0
    """Longest time between two key frames of a track that flows (rtp.track). 0 = they are asked for only when one is needed."""


class Feedback:
    """See module."""

    __slots__ = (
        "_cname",
        "_fir_count",
        "_measures",
        "_remb",
        "_remb_bps",
        "_report_due",
        "_ssrc",
        "_times",
        "_transport_due",
        "rtt_ns",
        "transport",
    )

    def __init__(self, settings: FeedbackSettings) -> None:
        self.transport = TransportLog()
        self._remb_bps = settings.remb_bits_per_second
        self._ssrc = secrets.randbelow(0xFFFFFFFF) + 1
        self._cname = secrets.token_urlsafe(12)
        self._remb = False
        self._measures = False
        self._times: dict[int, tuple[int, int]] = {}
        """SSRC → its last reference time (middle 32 bits) and when it came."""
        self.rtt_ns = 0
        """Measured by extended reports; 0 = not yet."""
        self._fir_count = 0
        self._report_due = 0
        self._transport_due = 0

    def configure(self, lines: Iterable[MediaLine]) -> None:
        """Take what was negotiated; the next reports go out at once, so that an SFU learns of new sources."""
        lines = tuple(lines)
        self._remb = any(form.remb for line in lines for form in line.formats.values())
        self._measures = any(line.measures for line in lines)
        self._report_due = 0

    def take_time(self, report: ReferenceTime, arrival_ns: int) -> None:
        """Remember what another receiver's clock said; it is told back with the next reports."""
        if self._measures and (report.ssrc in self._times or len(self._times) < MAX_DLRR):
            self._times[report.ssrc] = (report.ntp >> 16 & 0xFFFFFFFF, arrival_ns)

    def take_delay(self, report: Dlrr, arrival_ns: int) -> None:
        """Take the answer to our reference time."""
        if self._measures and report.ssrc == self._ssrc and report.last:
            units = (_ntp(arrival_ns) >> 16) - report.last - report.delay & 0xFFFFFFFF
            rtt_ns = units * 1_000_000_000 >> 16
            if rtt_ns <= MAX_RTT_NS:
                self.rtt_ns = rtt_ns

    def run(
        self,
        now_ns: int,
        send: Callable[[bytes], None],
        streams: Collection[Stream],
        gappy: Iterable[Stream],
        wanting: Iterable[Track],
        active: Mapping[str, Stream],
    ) -> None:
        """Send what is due."""
        reports = now_ns >= self._report_due and bool(streams)
        if reports:
            for stream in streams:
                if now_ns - stream.arrival_ns < FLOWING_NS:
                    stream.assembler.track.want_key_by_clock(now_ns)
        for datagram in together(packet for stream in gappy for packet in self._requests(stream, now_ns)):
            send(datagram)
        for track in wanting:
            self._request_key(track, active.get(track.line.track_id), now_ns, send)
        if now_ns >= self._transport_due:
            self._transport_due = now_ns + TRANSPORT_NS
            for packet in self.transport.build(self._ssrc, next((stream.ssrc for stream in streams), 0)):
                send(packet)
        if reports:
            self._report_due = now_ns + REPORT_NS
            self._report(streams, now_ns, send)

    def _requests(self, stream: Stream, now_ns: int) -> Iterator[bytes]:
        form = stream.assembler.form
        if form is not None and form.nack:
            yield from build_nacks(self._ssrc, stream.ssrc, stream.asks(now_ns))

    def _request_key(self, track: Track, stream: Stream | None, now_ns: int, send: Callable[[bytes], None]) -> None:
        ssrc = stream.ssrc if stream is not None else next(iter(track.line.ssrcs), 0)
        rtt_ns = max(self.rtt_ns, stream.rtt_ns if stream is not None else 0)
        repair_ns = stream.repair_ns if stream is not None else 0
        flows = stream is not None and now_ns - stream.arrival_ns < FLOWING_NS
        if not ssrc or not track.key_request_due(now_ns, rtt_ns, repair_ns, flows=flows):
            return
        forms = track.line.formats.values()
        if not any(form.pli for form in forms) and any(form.fir for form in forms):
            self._fir_count += 1
            send(build_fir(self._ssrc, ssrc, self._fir_count))
        else:
            send(build_pli(self._ssrc, ssrc))

    def _report(self, streams: Collection[Stream], now_ns: int, send: Callable[[bytes], None]) -> None:
        heard = [stream for stream in streams if stream.received]
        for packet in build_receiver_reports(self._ssrc, [s.report_block(now_ns) for s in heard], self._cname):
            send(packet)
        if self._measures:
            told = [Dlrr(ssrc, last, _units(now_ns - came_ns)) for ssrc, (last, came_ns) in self._times.items()]
            self._times.clear()
            send(build_extended_report(self._ssrc, _ntp(now_ns), told))
        if self._remb:
            video = [stream.ssrc for stream in streams if stream.assembler.track.video]
            for packet in build_remb(self._ssrc, self._remb_bps, video):
                send(packet)


def _ntp(now_ns: int) -> int:
    """A time of our clock in the format of NTP: 64 bits, the upper 32 count seconds. Nobody but us compares it."""
    return (now_ns << 32) // 1_000_000_000 & 0xFFFF_FFFF_FFFF_FFFF


def _units(ns: int) -> int:
    """1/65536 s, 32 bits."""
    return max(0, ns << 16) // 1_000_000_000 & 0xFFFFFFFF
