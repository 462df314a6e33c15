"""The RTP plane of one connection: decrypted packets in, frames to the sinks of the tracks, feedback out.

    datagram → rtp() → Router → Stream (order, repair) → Assembler (frames, clock) → TrackSink
               rtcp()                                        ↑ codecs
               tick() → NACK, PLI, TWCC, RR, XR, REMB

The plane does no I/O and reads no clock: the transport gives it bytes and times and sends what `tick` returns. It is
told the m-lines after each offer (`bind`), asks the MediaListener for a sink for each new track, and keeps tracks by
id. The packet loop (`batch`) makes no object and no coroutine per packet, and hands packets of one picture that follow each
other to their stream at once; a packet that cannot be read is counted, whatever it breaks stays in its stream, and nothing is
logged per packet.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter, ne
from typing import Final

from isotrack_api.words import MediaKind
from isotrack_recorder.codecs.base import Octets
from isotrack_recorder.errors import ParseError
from isotrack_recorder.media import MediaListener, TrackCounters
from isotrack_recorder.rtp.assembler import AudioAssembler, VideoAssembler
from isotrack_recorder.rtp.feedback import Feedback, FeedbackSettings
from isotrack_recorder.rtp.lines import ExtensionIds, MediaLine
from isotrack_recorder.rtp.packet import HEADER, MARKER, Buffer, Header, iterate_extensions
from isotrack_recorder.rtp.router import LineFinder, Route, Router
from isotrack_recorder.rtp.rtcp import Bye, Dlrr, SenderReport, parse_compound
from isotrack_recorder.rtp.stream import Repair, Stream
from isotrack_recorder.rtp.track import Track

log = logging.getLogger(__name__)

MAX_TRACKS: Final = 2000
FEEDBACK_WAIT_NS: Final = 45_000_000
"""Where transport-wide feedback is due every 50 ms."""
ALERT_WAIT_NS: Final = 100_000_000
"""While packets are missing, or on a path that lost some lately: requests and repeats wait this long at most. Less would bring back no
more pictures, neither on short paths nor where a round trip takes 350 ms (tests/unit/rtp/test_lossy_path.py); nobody watches."""
ALERT_NS: Final = 10_000_000_000
CALM_WAIT_NS: Final = 200_000_000
"""On a clean path: a first loss is asked for this late, about what a far path takes anyway; SFUs remember more."""
PLAIN, EXTENDED = 0x80, 0x90
"""First octets of usual packets: neither padding nor contributing sources, without or with an extension."""
_read_header: Final = HEADER.unpack_from
_source_of: Final = itemgetter(3)
_first_of: Final = itemgetter(0)
_second_of: Final = itemgetter(1)


@dataclass(slots=True)
class PlaneCounters:
    """Running totals of one connection."""

    malformed: int = 0
    """Did not parse, or made a stream fail."""
    refused: int = 0
    """Failed authentication (SRTP)."""
    reports: int = 0
    """RTCP datagrams."""


class Plane:
    """See module."""

    def __init__(
        self,
        listener: MediaListener,
        settings: FeedbackSettings,
        audio_hold_ns: int,
        video_hold_ns: int,
    ) -> None:
        self.counters = PlaneCounters()
        self._listener = listener
        self._holds = {MediaKind.AUDIO: audio_hold_ns, MediaKind.VIDEO: video_hold_ns}
        self._router = Router()
        self._routes = self._router.routes
        self._finder = LineFinder()
        self._extensions = ExtensionIds()
        self._transport_cc = 0
        self._reads_extensions = False
        self._orientation = 0
        self._audio_level = 0
        self._tracks: dict[str, Track] = {}
        self._active: dict[str, Stream] = {}
        self._streams: dict[int, Stream] = {}
        self._past: dict[str, TrackCounters] = {}
        self._wanting: set[Track] = set()
        self._gappy: set[Stream] = set()
        self._feedback = Feedback(settings)
        self._key_interval_ns = settings.key_interval_ns
        self._alert_until = 0

    # -- m-lines -------------------------------------------------------------------------------------------------------

    def bind(self, lines: Sequence[MediaLine], extensions: ExtensionIds, now_ns: int) -> None:
        """Take the m-lines that carry tracks now; all others have ended.

        An m-line that an SFU uses again for another track, or with another SSRC, is taken as that.
        """
        self._extensions = extensions
        self._transport_cc = extensions.transport_cc
        self._reads_extensions = bool(extensions.transport_cc or extensions.orientation or extensions.audio_level)
        self._orientation = extensions.orientation
        self._audio_level = extensions.audio_level
        known = {track.line.mid: track for track in self._tracks.values()}
        current = {line.track_id: line for line in lines[:MAX_TRACKS]}
        for track in known.values():
            line = current.get(track.line.track_id)
            if line is None or line.mid != track.line.mid:
                self._end(track, now_ns)
        for line in current.values():
            found = self._tracks.get(line.track_id)
            if found is None:
                self._open(line, now_ns)
            elif found.sink is None or found.line != line:
                self._rebind(found, line, now_ns)
        self._finder = LineFinder(current.values())
        self._feedback.configure(current.values())
        for parked in self._router.unpark(now_ns):
            self.rtp(parked.data, 0, len(parked.data), parked.arrival_ns)

    def _open(self, line: MediaLine, now_ns: int) -> None:
        track = Track(line, self._listener.open_track(line.track_id, line.kind), self._wanting, self._key_interval_ns)
        past = self._past.pop(line.track_id, None)
        if past is not None:
            track.counters = past
        self._tracks[line.track_id] = track
        self._route(track, now_ns)

    def _rebind(self, track: Track, line: MediaLine, now_ns: int) -> None:
        gone = set(track.line.ssrcs) | set(track.line.repair_ssrcs)
        gone -= set(line.ssrcs) | set(line.repair_ssrcs)
        self._router.remove(gone)
        track.line = line
        stream = self._active.get(line.track_id)
        if stream is not None and stream.ssrc in gone:
            self._retire(stream, now_ns)
        if track.sink is None:
            self._want(track)
        self._route(track, now_ns)

    def _want(self, track: Track) -> bool:
        """Ask the listener for the sink of a track that has none."""
        track.sink = self._listener.open_track(track.line.track_id, track.line.kind)
        if track.sink is not None:
            # NB: of sources that no description announces nobody else would ever take them back.
            self._router.forget_dropped(track.line.track_id)
        return track.sink is not None

    def _route(self, track: Track, now_ns: int) -> None:
        """Point the announced SSRCs of a track to it, or to nowhere where it is not wanted."""
        line = track.line
        if track.sink is None:
            for ssrc in (*line.ssrcs, *line.repair_ssrcs):
                self._router.drop(ssrc, line.track_id)
            return
        # One source flows at a time: further ones that are announced (simulcast) get their turn when they send
        for ssrc in line.ssrcs[:1]:
            if not isinstance(self._routes.get(ssrc), Stream):
                self._begin(track, ssrc, now_ns)
        track.await_key()

    def _begin(self, track: Track, ssrc: int, now_ns: int, rid: str = "") -> None:
        """Make the stream of an SSRC. It takes the track over: an earlier one is done with and stays so."""
        line = track.line
        assembler = VideoAssembler(track, ssrc) if track.video else AudioAssembler(track, ssrc)
        stream = Stream(assembler, self._holds[line.kind], self._gappy)
        stream.rid = rid
        if not self._router.set(ssrc, stream):
            return
        active = self._active.get(line.track_id)
        if active is not None:
            assembler.takes_over = active.received > 0
            self._retire(active, now_ns)
            self._router.drop(active.ssrc, line.track_id)  # or two that flow at once would take turns
        self._streams[ssrc] = stream
        self._active[line.track_id] = stream
        for repair in self._router.repairs(line.repair_ssrcs, ssrc):
            self._repair(repair, stream)

    def _repair(self, ssrc: int, stream: Stream) -> bool:
        """Route an SSRC of repeats to the stream that they are of; False where the table is full."""
        if not self._router.set(ssrc, Repair(stream)):
            return False
        stream.sources.append(ssrc)
        return True

    def _retire(self, stream: Stream, now_ns: int) -> None:
        self._give_up(stream, now_ns)
        self._count(stream)
        self._gappy.discard(stream)
        self._streams.pop(stream.ssrc, None)
        self._router.remove([ssrc for ssrc in stream.sources if _belongs(self._routes.get(ssrc), stream)])
        track_id = stream.assembler.track.line.track_id
        if self._active.get(track_id) is stream:
            del self._active[track_id]

    def _count(self, stream: Stream) -> None:
        """Move what a stream counted into its track's totals."""
        counters = stream.assembler.track.counters
        counters.packets += stream.received
        counters.last_packet_ns = max(counters.last_packet_ns, stream.arrival_ns)
        stream.received = 0

    def _end(self, track: Track, now_ns: int) -> None:
        self._forget(track, now_ns)
        self._router.remove((*track.line.ssrcs, *track.line.repair_ssrcs))
        self._router.forget_dropped(track.line.track_id)
        del self._tracks[track.line.track_id]
        while len(self._past) >= MAX_TRACKS:
            del self._past[next(iter(self._past))]
        self._past[track.line.track_id] = track.counters

    def _forget(self, track: Track, now_ns: int) -> None:
        stream = self._active.get(track.line.track_id)
        if stream is not None:
            self._retire(stream, now_ns)
        track.close()

    # -- what the source asks ------------------------------------------------------------------------------------------

    def forget_track(self, track_id: str, now_ns: int) -> None:
        """Give what is held of a track to its sink; its packets are dropped from now on."""
        track = self._tracks.get(track_id)
        if track is not None and track.sink is not None:
            self._forget(track, now_ns)
            self._route(track, now_ns)

    def reconsider(self, now_ns: int) -> None:
        """Ask the listener again for tracks that it did not want."""
        for track in list(self._tracks.values()):
            if track.sink is None and self._want(track):
                self._route(track, now_ns)

    def request_key_frame(self, track_id: str) -> None:
        """Ask the sender of a video track for a key frame; rate-limited."""
        track = self._tracks.get(track_id)
        if track is not None:
            track.want_key()

    @property
    def lacks_packets(self) -> bool:
        """Whether packets are missing that may still come."""
        return bool(self._gappy)

    def flush(self, now_ns: int) -> None:
        """Give up reordering on all streams."""
        for stream in list(self._streams.values()):
            self._give_up(stream, now_ns)

    def _give_up(self, stream: Stream, now_ns: int) -> None:
        """Hand on all that a stream holds."""
        try:
            stream.flush(now_ns)
            stream.assembler.finish()
        except Exception:  # noqa: BLE001 - see _failed
            self._failed(stream.ssrc)

    def track_counters(self) -> Mapping[str, TrackCounters]:
        """Running totals by track id, those of ended tracks included."""
        return self._past | {track_id: self._totals(track) for track_id, track in self._tracks.items()}

    def totals_of(self, track_id: str) -> TrackCounters | None:
        """The same of one track; None where nothing is known of it."""
        track = self._tracks.get(track_id)
        return self._past.get(track_id) if track is None else self._totals(track)

    def _totals(self, track: Track) -> TrackCounters:
        counters = replace(track.counters)
        stream = self._active.get(track.line.track_id)
        if stream is not None:
            counters.packets += stream.received
            counters.last_packet_ns = max(counters.last_packet_ns, stream.arrival_ns)
        return counters

    # -- packets -------------------------------------------------------------------------------------------------------

    def rtp(self, data: Buffer, start: int, end: int, arrival_ns: int) -> None:
        """Take the decrypted RTP packet `data[start:end]`, at least 12 bytes; nothing of `data` is kept."""
        header = _read_header(data, start)
        try:
            self._push(data, start, end, arrival_ns, header, self._routes.get(header[4]))
        except (ParseError, IndexError):
            self.counters.malformed += 1
        except Exception:  # noqa: BLE001 - see _failed
            self._failed(header[4])

    def batch(
        self,
        data: Buffer,
        starts: Iterable[int],
        ends: Iterable[int],
        arrivals: Iterable[int],
        headers: Iterable[Header],
    ) -> None:
        """Take packets as `rtp` does, those of each source in their order; `headers` are their first bytes, read.

        All lists end with the shortest.
        """
        headers = list(headers)
        sources = list(map(_source_of, headers))
        packets: Iterable[tuple[Header, int, int, int]] = zip(headers, starts, ends, arrivals)
        if self._is_mixed(sources):
            packets = map(_second_of, sorted(zip(sources, packets), key=_first_of))
        find = self._routes.get
        reads_extensions = self._reads_extensions
        # Nearly all packets of video go on with the frame of the packet before: the same source and timestamp, the next number.
        # Those are gathered to a run, so that what a stream does per packet is done once per run; this loop is all that each costs.
        stream: Stream | None = None  # whose run is in the making; None = there is none
        payloads: list[Octets] = []
        run_kind = run_sequence = run_timestamp = run_ssrc = run_words = offset = -1
        following = -1  # number of the next packet of the run; -1 = there is none
        is_plain = False
        began_ns = latest_ns = 0
        for (kind, sequence, timestamp, ssrc, words), start, end, arrival_ns in packets:
            if (
                sequence == following
                and timestamp == run_timestamp
                and ssrc == run_ssrc
                and (words == run_words or is_plain)
                and (payload := data[start + offset : end])
            ):
                if kind == run_kind:
                    payloads.append(payload)
                    latest_ns = arrival_ns
                    following = sequence + 1  # of the 65536th packet none: the run ends there
                    continue
                if kind == run_kind | MARKER:
                    assert stream is not None
                    payloads.append(payload)
                    self._run(stream, run_kind, run_sequence, timestamp, 1, payloads, began_ns, arrival_ns)
                    stream, following = None, -1
                    continue
            if stream is not None:
                self._run(stream, run_kind, run_sequence, run_timestamp, 0, payloads, began_ns, latest_ns)
                stream, following = None, -1
            is_plain = kind >> 8 == PLAIN
            if is_plain:
                offset = 12
            elif kind >> 8 == EXTENDED and not reads_extensions:
                offset = 16 + (words << 2)
            else:
                offset = len(data)
            payload = data[start + offset : end]
            route = find(ssrc)
            try:
                if not payload or route is None:
                    self._push(data, start, end, arrival_ns, _read_header(data, start), route)
                elif kind & MARKER or not isinstance(route, Stream) or not route.gathers:
                    route.push(kind & 0x7F, sequence, timestamp, kind >> 7 & 1, payload, arrival_ns)
                else:
                    stream, payloads, began_ns, latest_ns = route, [payload], arrival_ns, arrival_ns
                    run_kind, run_sequence, run_timestamp, run_ssrc, run_words = kind, sequence, timestamp, ssrc, words
                    following = sequence + 1
            except (ParseError, IndexError):
                self.counters.malformed += 1
            except Exception:  # noqa: BLE001 - see _failed
                self._failed(ssrc)
        if stream is not None:
            self._run(stream, run_kind, run_sequence, run_timestamp, 0, payloads, began_ns, latest_ns)

    def _is_mixed(self, sources: list[int]) -> bool:
        """Whether packets of many senders lie so much between each other that sorting them by source pays: runs get longer.

        Senders pace the packets of a picture over some 15 ms, so in a large call most lie between others'. A source that is not known
        yet may take a track over from another one (simulcast): then the order among sources counts.
        """
        distinct = set(sources)
        return sum(map(ne, sources, sources[1:])) > 2 * len(distinct) and self._routes.keys() >= distinct

    def _run(
        self,
        stream: Stream,
        kind: int,
        sequence: int,
        timestamp: int,
        marker: int,
        payloads: list[Octets],
        began_ns: int,
        ended_ns: int,
    ) -> None:
        """Hand a run to its stream."""
        try:
            stream.run(kind & 0x7F, sequence, timestamp, marker, payloads, began_ns, ended_ns)
        except (ParseError, IndexError):
            self.counters.malformed += 1
        except Exception:  # noqa: BLE001 - see _failed
            self._failed(stream.ssrc)

    def _push(
        self,
        data: Buffer,
        start: int,
        end: int,
        arrival_ns: int,
        header: tuple[int, int, int, int, int],
        route: Route | None,
    ) -> None:
        """Take one packet of any shape: padding, contributing sources, extensions that are read, an unknown source."""
        first, second, sequence, timestamp, ssrc = header
        if route is None:
            self._unknown(data, start, end, arrival_ns, ssrc)
            return
        offset = start + 12 + ((first & 0x0F) << 2)  # as payload_bounds, without its call
        if first & 0x10:
            if self._reads_extensions:
                self._read_extensions(data, start, end, arrival_ns, route, sequence, timestamp)
            offset += 4 + ((data[offset + 2] << 8 | data[offset + 3]) << 2)
        if first & 0x20:
            end -= data[end - 1] or end
        if offset > end:
            self.counters.malformed += 1
            return
        route.push(second & 0x7F, sequence, timestamp, second >> 7, data[offset:end], arrival_ns)

    def _failed(self, ssrc: int) -> None:
        # NB: one stream's defect must not stop the others, and a defect is told once, not at each packet
        if not self.counters.malformed:
            log.exception("packet failed", extra={"fields": {"ssrc": ssrc}})
        self.counters.malformed += 1

    def _read_extensions(
        self, data: Buffer, start: int, end: int, arrival_ns: int, route: Route, sequence: int, timestamp: int
    ) -> None:
        for number, at, size in iterate_extensions(data, start, end):
            if number == self._transport_cc and size == 2:
                self._feedback.transport.add(data[at] << 8 | data[at + 1], arrival_ns)
            elif number == self._audio_level and size and isinstance(route, Stream):
                route.assembler.hear(data[at], arrival_ns)
            elif number == self._orientation and size and isinstance(route, (Stream, Repair)):
                # 3GPP TS 26.114 section 7.4.5: the low two bits turn the picture clockwise by quarters
                route.turn(sequence, timestamp, (data[at] & 3) * 90)

    def _unknown(self, data: Buffer, start: int, end: int, arrival_ns: int, ssrc: int) -> None:
        """Find the m-line of a new SSRC, or park the packet."""
        payload_type = data[start + 1] & 0x7F
        ids = self._extensions
        told = {number: data[at : at + size] for number, at, size in iterate_extensions(data, start, end)}
        mid, rid, repaired = (
            bytes(told[number]).decode("ascii", "replace") if number in told else None
            for number in (ids.mid, ids.rid, ids.repaired_rid)
        )
        line = self._finder.find(ssrc, mid, payload_type)
        track = self._tracks.get(line.track_id) if line is not None else None
        if line is None or track is None:
            self._router.park(bytes(data[start:end]), arrival_ns, ssrc)
            return
        if track.sink is None:
            routed = self._router.drop(ssrc, line.track_id)
        elif payload_type in line.repairs_of:
            active = self._active.get(line.track_id)
            # Repairs of an encoding that does not flow (simulcast) would end up as packets of the one that does
            repairs = active is not None and (repaired is None or active.rid in ("", repaired))
            routed = repairs and active is not None and self._repair(ssrc, active)
        elif payload_type in line.formats:
            self._begin(track, ssrc, arrival_ns, rid or "")
            routed = ssrc in self._routes
            track.await_key()
        else:
            routed = False
        if routed:
            self.rtp(data, start, end, arrival_ns)
        else:
            self._router.unrouted += 1

    def rtcp(self, data: Octets, arrival_ns: int) -> None:
        """Take one decrypted RTCP datagram."""
        self.counters.reports += 1
        for packet in parse_compound(data):
            if isinstance(packet, SenderReport):
                stream = self._streams.get(packet.ssrc)
                if stream is not None:
                    stream.sender_report(packet.ntp, packet.timestamp, arrival_ns)
            elif isinstance(packet, Bye):
                for ssrc in packet.ssrcs:
                    stream = self._streams.get(ssrc)
                    if stream is not None:
                        self._give_up(stream, arrival_ns)
            elif isinstance(packet, Dlrr):
                self._feedback.take_delay(packet, arrival_ns)
            else:
                self._feedback.take_time(packet, arrival_ns)

    # -- time ----------------------------------------------------------------------------------------------------------

    def tick(self, now_ns: int, send: Callable[[bytes], None]) -> int:
        """Give up old holes and send the feedback that is due. Cheap when nothing is: call it after each batch.

        Returns:
            How many nanoseconds reading may pause for all that repair and feedback need; while `lacks_packets` it is to be called
            again by then even when none come.
        """
        for stream in list(self._gappy):
            try:
                stream.expire(now_ns)
            except Exception:  # noqa: BLE001 - see _failed
                self._failed(stream.ssrc)
        self._feedback.run(now_ns, send, self._streams.values(), self._gappy, self._wanting, self._active)
        if self._gappy:
            self._alert_until = now_ns + ALERT_NS
        wait_ns = ALERT_WAIT_NS if now_ns < self._alert_until else CALM_WAIT_NS
        return min(wait_ns, FEEDBACK_WAIT_NS) if self._transport_cc else wait_ns

    def refused(self) -> None:
        """Count a packet that failed authentication."""
        self.counters.refused += 1


def _belongs(route: object, stream: Stream) -> bool:
    return route is stream or (isinstance(route, Repair) and route.repairs(stream))
