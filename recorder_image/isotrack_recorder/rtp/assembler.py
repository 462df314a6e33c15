"""Make frames of the ordered packets of one SSRC, place them on that SSRC's extended clock, hand them to the track's sink.

An Assembler lives as long as its Stream. It is told of each packet in order (`take`) and of packets that will never
come (`lost`). Audio: a packet is a frame. Video: the packets of one timestamp up to the marker are a frame; one that
lacks a packet, or does not parse, is dropped whole, the frames behind it are kept and flagged. Until the first key
frame nothing is delivered. A gap is reported once, with the first whole frame behind it. Pictures that are made from
missing ones (`rtp.dependence`) are delivered and flagged.

The clock: 32-bit timestamps are unwrapped by the nearest step (RFC 3550 section 5.1 wraps freely), from the first
packet's own value. When the sender's timestamps leave the pace of arrival by more than `MAX_CLOCK_STEP_NS`, or run
backwards, it changed its base (an SFU does at unmute): the frame is flagged as a discontinuity and
the sink told, as for a new SSRC; extended timestamps go on from where they were.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from isotrack_recorder.codecs.base import Depacketizer, Frame, Octets, PictureId, never_whole
from isotrack_recorder.errors import ParseError
from isotrack_recorder.media import TrackSink
from isotrack_recorder.rtp.dependence import Dependence
from isotrack_recorder.rtp.levels import LevelMeter
from isotrack_recorder.rtp.lines import PayloadFormat
from isotrack_recorder.rtp.track import Track
from isotrack_recorder.spool.records import MAX_FRAME_BYTES, Flag

MAX_CLOCK_STEP_NS: Final = 5_000_000_000
"""More than a network stalls without a new connection; smaller steps are left to sender reports."""
MAX_FRAME_PACKETS: Final = 16_384
"""16 MiB in packets of 1 KiB: bounds what a frame without end may hold."""
MAX_WAITING_REPORTS: Final = 8
MAX_TURNS: Final = 128
"""Turns that wait for their frames: what a camera that says it with each frame says within the longest hold, twice over."""
UNKNOWN: Final = 1 << 16
"""How many packets of a sender that began anew may be missing."""

_KEY, _AFTER_GAP, _DISCONTINUITY = int(Flag.KEY), int(Flag.AFTER_GAP), int(Flag.DISCONTINUITY)
_UNDECODABLE = int(Flag.UNDECODABLE)


class Assembler:
    """What audio and video share: clock, gaps, delivery."""

    __slots__ = (
        "_announced",
        "_arrival",
        "_damaged",
        "_delivered",
        "_depacketizer",
        "_lost",
        "_lost_at",
        "_max_step",
        "_new_base",
        "_payload_type",
        "_rate",
        "_reports",
        "_ticks_per_ns",
        "_timestamp",
        "_turned",
        "_turns",
        "_video",
        "_waits_for_key",
        "extended",
        "form",
        "jitter",
        "rotation",
        "ssrc",
        "takes_over",
        "track",
    )

    def __init__(self, track: Track, ssrc: int) -> None:
        self.track = track
        self.ssrc = ssrc
        self.extended = 0
        """Extended timestamp of the newest packet in order."""
        self.jitter = 0.0
        """Interarrival jitter in ticks (RFC 3550 section 6.4.1), measured once per frame."""
        self.rotation = 0
        """Degrees clockwise for display, of the newest frame that was delivered."""
        self.takes_over = False
        """Another source of the track flowed until this one came: pictures that cannot be kept for want of a key frame are missing."""
        self._turns: dict[int, int] = {}
        """Timestamp → degrees, as packets said it whose frames may still be held back."""
        self._turned = 0
        """Timestamp of the turn that holds now."""
        self._payload_type = -1
        self.form: PayloadFormat | None = None
        """Of the newest packet; None before the first."""
        self._depacketizer: Depacketizer | None = None
        self._video = track.video
        self._rate = 0
        self._ticks_per_ns = 0.0
        self._max_step = 0.0
        self._timestamp = -1
        self._arrival = 0
        self._lost = 0
        self._lost_at = 0
        self._damaged = False
        self._announced = False
        self._new_base = True
        self._delivered = 0
        self._waits_for_key = True
        self._reports: list[tuple[int, int, int]] = []

    def take(self, payload_type: int, timestamp: int, marker: int, payload: Octets, arrival_ns: int) -> None:
        """Take the next packet in order. Empty payloads (padding) only fill a sequence number."""
        raise NotImplementedError

    def take_run(self, payload_type: int, timestamp: int, marker: int, payloads: list[Octets], arrival_ns: int) -> None:
        """Take several packets as `take` does, none of them empty; the last has the marker, if there is one."""
        raise NotImplementedError

    def begins_film(self, payload_type: int, payload: Octets) -> bool:  # noqa: ARG002 - sound can begin anywhere
        """Whether a stream is likely to begin with this payload: nothing that matters was sent before it."""
        return True

    def lost(self, packets: int, at_ns: int) -> None:
        """The next `packets` will never come."""
        self.track.counters.lost += packets
        self._lost += packets
        self._lost_at = at_ns

    def restarted(self, at_ns: int) -> None:
        """The sender began anew: how much was lost in between is unknown."""
        self.lost(1, at_ns)
        self._without(UNKNOWN)

    def finish(self) -> None:
        """The stream is over: report a gap that no frame followed."""
        sink = self.track.sink
        if self._lost and self._announced and sink is not None:
            sink.gap(self._lost, self._delivered, max(self._delivered, self.extended), self._lost_at)
        self._lost = 0

    def hear(self, octet: int, at_ns: int) -> None:
        """Take what a packet says of its loudness (RFC 6464); of sound only."""

    def turns(self, rotation: int) -> bool:
        """Whether this rotation, of the next packet in order, is news."""
        return bool(self._turns) or rotation != self.rotation

    def turn(self, timestamp: int, rotation: int) -> None:
        """Take what a packet says of how its picture is turned, before `take` gets it; later packets may have been told of earlier."""
        if len(self._turns) >= MAX_TURNS:
            del self._turns[next(iter(self._turns))]
        self._turns[timestamp] = rotation

    def _apply_turns(self) -> None:
        """Turn to what was said with this frame, else with the newest one before it; that may be one that never became whole."""
        for timestamp, rotation in list(self._turns.items()):
            ahead = _signed(timestamp - self._timestamp)
            if 0 < ahead <= self._max_step:
                continue  # of a frame that is held back
            del self._turns[timestamp]
            overtaken = -self._max_step <= _signed(timestamp - self._turned) < 0
            if not ahead or (-self._max_step <= ahead < 0 and not overtaken):
                self.rotation, self._turned = rotation, timestamp

    def report(self, ntp: int, timestamp: int, arrival_ns: int) -> None:
        """Take a sender report; those that come before the first frame wait for it."""
        if not self._announced:
            del self._reports[: -MAX_WAITING_REPORTS + 1]
            self._reports.append((ntp, timestamp, arrival_ns))
            return
        sink = self.track.sink
        if sink is not None:
            sink.sender_report(ntp, self.extended + _signed(timestamp - self._timestamp), arrival_ns)

    def _advance(self, timestamp: int, arrival_ns: int) -> None:
        """Move the clock to a new timestamp."""
        before = self._timestamp
        if before < 0:
            self.extended = timestamp
        else:
            step = timestamp - before
            if not 0 <= step < 0x8000_0000:
                step = _signed(step)
            self.extended += step
            away = abs(step - (arrival_ns - self._arrival) * self._ticks_per_ns)
            jitter = self.jitter
            self.jitter = jitter + (away - jitter) / 16
            if away > self._max_step or step < 0:
                self._new_base = True
                self.jitter = 0.0
        self._timestamp = timestamp
        self._arrival = arrival_ns

    def _switch(self, payload_type: int) -> bool:
        """Read another payload type from now on; False where it was not negotiated."""
        found = self.track.line.formats.get(payload_type)
        if found is None:
            return False
        self._payload_type = payload_type
        self.form = found
        self._depacketizer = found.spec.make(found.codec.fmtp)
        self._rate = found.codec.clock_rate
        self._ticks_per_ns = self._rate / 1e9
        self._max_step = MAX_CLOCK_STEP_NS * self._rate / 1e9
        self._waits_for_key = True
        return True

    def _assemble(self, payloads: list[Octets], arrival_ns: int) -> None:
        """Depacketize one whole frame and deliver it."""
        assert self._depacketizer is not None
        try:
            frame = self._depacketizer.frame(payloads)
        except ParseError:
            self._broken()
        else:
            self._keep(frame, payloads[0], arrival_ns)

    def _broken(self) -> None:
        """A frame does not parse, or is larger than any that we keep."""
        self.track.counters.damaged += 1
        self._damaged = True
        self._without(1)

    def _keep(self, frame: Frame, payload: Octets, arrival_ns: int) -> None:
        """Deliver a frame that began with this payload, if it is one of a participant."""
        if frame.filler:
            self.track.counters.filler += 1
        elif len(frame.data) > MAX_FRAME_BYTES:
            self._broken()
        elif frame.data:
            self._deliver(frame, arrival_ns, self._lacking(payload, key=frame.key))

    def _deliver(self, frame: Frame, arrival_ns: int, lacking: int) -> None:
        data, key, width, height, *_ = frame
        track = self.track
        sink = track.sink
        if sink is None:
            return
        if self._waits_for_key:
            if not key:
                track.want_key()
                self._damaged = self.takes_over or self._announced
                return
            self._waits_for_key = False
        flags = _KEY if key else lacking
        timestamp = self.extended
        if self._new_base:
            self._begin_base(sink, timestamp)
            flags |= _DISCONTINUITY
        if self._turns:
            self._apply_turns()
        if width or self.rotation != track.rotation:
            if not width:  # a camera may turn between key frames
                width, height = track.width, track.height
            if width and track.resize(width, height, self.rotation):
                sink.size(timestamp, width, height, self.rotation)
        if self._lost:
            sink.gap(self._lost, self._delivered, timestamp, self._lost_at)
            self._lost = 0
            flags |= _AFTER_GAP
        elif self._damaged:
            flags |= _AFTER_GAP
        self._damaged = False
        self._delivered = timestamp
        counters = track.counters
        counters.frames += 1
        counters.bytes += len(data)
        if key and self._video:
            track.key_frame(arrival_ns)
        sink.frame(timestamp, arrival_ns, flags, data)

    def _begin_base(self, sink: TrackSink, timestamp: int) -> None:
        """Tell the sink where frames come from; NB: before size and frame, which the timeline reads against it."""
        assert self.form is not None
        self.track.announce(self.form.codec)
        sink.source_changed(self.ssrc, timestamp)
        self._new_base = False
        if not self._announced:
            self._announced = True
            self._lost = 0  # what was lost before the first frame is a later start, not a gap
            for ntp, ticks, arrival_ns in self._reports:
                self.report(ntp, ticks, arrival_ns)
            self._reports.clear()

    def _without(self, packets: int) -> None:
        """Frames of so many packets at most are missing. Video asks for a key frame; audio needs none."""

    def _lacking(self, payload: Octets, *, key: bool) -> int:  # noqa: ARG002 - sound is made from nothing
        """Flag of the next frame, which begins with this payload: whether it is made from missing ones."""
        return 0


class AudioAssembler(Assembler):
    """Each packet is a frame."""

    __slots__ = ("_is_frame", "_meter")

    def __init__(self, track: Track, ssrc: int) -> None:
        super().__init__(track, ssrc)
        self._is_frame: Callable[[Octets], bool] = never_whole
        self._meter = LevelMeter()

    def hear(self, octet: int, at_ns: int) -> None:
        """See Assembler."""
        told = self._meter.add(octet, at_ns)
        if told is not None and self.track.sink is not None:
            self.track.sink.levels(at_ns, *told)

    def finish(self) -> None:
        """See Assembler; the last second is told, too."""
        super().finish()
        told = self._meter.take()
        if told is not None and self.track.sink is not None:
            self.track.sink.levels(self._arrival, *told)

    def take(  # the marker says where a talk spurt begins: timestamps say it too
        self,
        payload_type: int,
        timestamp: int,
        marker: int,  # noqa: ARG002
        payload: Octets,
        arrival_ns: int,
    ) -> None:
        """See Assembler."""
        if not payload or (payload_type != self._payload_type and not self._change(payload_type)):
            return
        self._advance(timestamp, arrival_ns)
        track = self.track
        sink = track.sink
        if sink is None or self._new_base or self._lost or self._damaged or not self._is_frame(payload):
            self._assemble([payload], arrival_ns)
            return
        # The common case, without a call and an object for each step of the others
        self._delivered = timestamp = self.extended
        counters = track.counters
        counters.frames += 1
        counters.bytes += len(payload)
        sink.frame(timestamp, arrival_ns, _KEY, bytes(payload))

    def take_run(self, payload_type: int, timestamp: int, marker: int, payloads: list[Octets], arrival_ns: int) -> None:
        """See Assembler."""
        for payload in payloads:
            self.take(payload_type, timestamp, marker, payload, arrival_ns)

    def _change(self, payload_type: int) -> bool:
        before = self._rate
        if not self._switch(payload_type):
            return False
        assert self.form is not None
        self._is_frame = self.form.spec.is_frame
        self._new_base = True
        if before and before != self._rate:
            self._timestamp = -1
        return True


class VideoAssembler(Assembler):
    """The packets of one timestamp up to the marker are a frame."""

    __slots__ = (
        "_behind_loss",
        "_check_start",
        "_dependence",
        "_doubtful",
        "_doubtful_at",
        "_first_arrival",
        "_payloads",
        "_skip",
    )

    def __init__(self, track: Track, ssrc: int) -> None:
        super().__init__(track, ssrc)
        self._payloads: list[Octets] = []
        self._first_arrival = 0
        self._check_start = True
        """Packets are missing just before the next one: it may not be the first of its frame."""
        self._behind_loss = False
        """Packets are missing just before the frame in the making."""
        self._skip = -1
        """Timestamp whose packets are dropped because their frame is not whole; -1 = none."""
        self._dependence = Dependence()
        self._doubtful = 0
        """Packets that never came between two frames. Not all packets are of pictures (padding), so the next frame tells whether any of a
        picture is among them."""
        self._doubtful_at = 0

    def take(self, payload_type: int, timestamp: int, marker: int, payload: Octets, arrival_ns: int) -> None:
        """See Assembler."""
        payloads = self._payloads
        # First the common case: one more packet of the frame in the making
        if not (payloads and timestamp == self._timestamp and payload_type == self._payload_type):
            if not payload or not self._first(payload_type, timestamp, payload, arrival_ns):
                return
            payloads = self._payloads
        if payload:
            payloads.append(payload)
            if marker or len(payloads) >= MAX_FRAME_PACKETS:
                self._complete()

    def take_run(self, payload_type: int, timestamp: int, marker: int, payloads: list[Octets], arrival_ns: int) -> None:
        """See Assembler."""
        # What is said of the first packet holds for all: they have its timestamp and its type
        if not (self._payloads and timestamp == self._timestamp and payload_type == self._payload_type):
            if not self._first(payload_type, timestamp, payloads[0], arrival_ns):
                return
            self._payloads = payloads
        else:
            self._payloads += payloads
        if marker or len(self._payloads) >= MAX_FRAME_PACKETS:
            self._complete()

    def begins_film(self, payload_type: int, payload: Octets) -> bool:
        """See Assembler: the first payload of a key frame, as far as it can be told from that alone."""
        form = self.track.line.formats.get(payload_type)
        if form is None:
            return True
        try:
            frame = form.spec.make(form.codec.fmtp).frame([payload])
        except ParseError:
            return False
        return frame.key or bool(frame.width)  # parameter sets alone tell the size

    def lost(self, packets: int, at_ns: int) -> None:
        """See Assembler; the frame in the making lacks its end."""
        self._check_start = True
        if not self._payloads and self._picture_id(self._dependence.newest) is not None:
            self._doubtful += packets
            self._doubtful_at = at_ns
            return
        self._lose(packets, at_ns)

    def finish(self) -> None:
        """See Assembler."""
        self._settle(whole=False)
        super().finish()

    def _lose(self, packets: int, at_ns: int) -> None:
        """Pictures are among the packets that never came, as far as anybody can tell."""
        super().lost(packets, at_ns)
        if self._payloads:
            self._payloads.clear()
            self._skip = self._timestamp
            self.track.counters.damaged += 1
        self._without(packets)

    def _picture_id(self, payload: Octets) -> PictureId | None:
        """Number of the picture that begins with this payload; None where none is known, or it would tell nothing."""
        return self.form.spec.picture_id(payload) if self.form is not None and self._dependence.intact else None

    def _settle(self, *, whole: bool) -> None:
        """It is known now whether pictures are among the packets in doubt."""
        packets, self._doubtful = self._doubtful, 0
        if packets and not whole:
            self._lose(packets, self._doubtful_at)

    def _follows(self, payload: Octets) -> bool:
        """Whether the frame that begins with this payload is the next one after the newest, by their numbers."""
        newest, this = self._picture_id(self._dependence.newest), self._picture_id(payload)
        if newest is None or this is None or newest.modulus != this.modulus or self._doubtful >= this.modulus:
            return False
        return not self._waits_for_key and this.value == (newest.value + 1) % this.modulus

    def _first(self, payload_type: int, timestamp: int, payload: Octets, arrival_ns: int) -> bool:
        """Begin a frame with this payload; False where it is to be dropped."""
        if timestamp == self._skip or (payload_type != self._payload_type and not self._change(payload_type)):
            return False
        if self._payloads:  # a sender that sets no marker
            self._complete()
        self._skip = -1
        self._first_arrival = arrival_ns
        if timestamp != self._timestamp:
            self._advance(timestamp, arrival_ns)
        self._behind_loss = self._check_start
        if self._check_start:
            assert self._depacketizer is not None
            starts = self._depacketizer.starts_frame(payload)
            if self._doubtful:
                whole = starts and self._follows(payload)
                self._settle(whole=whole)
                self._behind_loss = not whole
            if not starts:
                self._skip = timestamp
                self.track.counters.damaged += 1
                return False
            self._check_start = False
        return True

    def _complete(self) -> None:
        payloads, self._payloads = self._payloads, []
        if len(payloads) >= MAX_FRAME_PACKETS:
            self._skip = self._timestamp
            self._broken()
            return
        assert self._depacketizer is not None
        try:
            frame = self._depacketizer.frame(payloads)
        except ParseError:
            self._broken()
            return
        data, key, width, _, filler, borrows = frame
        if borrows and self._behind_loss:
            self._broken()
            return
        track = self.track
        sink = track.sink
        if (
            key
            or width
            or filler
            or not 0 < len(data) <= MAX_FRAME_BYTES
            or sink is None
            or self._waits_for_key
            or self._new_base
            or self._lost
            or self._damaged
            or self._turns
            or not self._dependence.intact
        ):
            self._keep(frame, payloads[0], self._first_arrival)
            return
        # The common case, without a call for each step of the others
        self._dependence.newest = payloads[0]
        self._delivered = timestamp = self.extended
        counters = track.counters
        counters.frames += 1
        counters.bytes += len(data)
        sink.frame(timestamp, self._first_arrival, 0, data)

    def _change(self, payload_type: int) -> bool:
        if self._payloads:
            self._complete()
        before = self._rate
        if not self._switch(payload_type):
            return False
        self._new_base = True
        if before and before != self._rate:
            self._timestamp = -1
        self.track.await_key()
        return True

    def _without(self, packets: int) -> None:
        if self.form is not None:
            self._dependence.lose(packets, self.form.spec.layer)
        self.track.want_key()

    def _lacking(self, payload: Octets, *, key: bool) -> int:
        assert self.form is not None
        return 0 if self._dependence.take(payload, self.form.spec.layer, key=key) else _UNDECODABLE


def _signed(difference: int) -> int:
    """Take a difference of 32-bit values as the nearest step."""
    return ((difference + 0x8000_0000) & 0xFFFF_FFFF) - 0x8000_0000
