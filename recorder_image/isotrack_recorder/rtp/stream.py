"""Order and repair of one SSRC: sequence numbers, holes, retransmissions, receiver statistics.

A Stream is made at the first packet of an SSRC and lives until its track ends or another SSRC takes over. Packets in
order go straight to the assembler. Behind a hole they are held, the missing ones are asked for again (RFC 4585 NACK,
answers come as RTX, RFC 4588, or as plain repeats), and when the hole is older than the hold time it counts as lost
and everything up to the next hole goes on. Holding is bounded by time, never by a count of packets alone: a rate that
nobody foresaw must not turn into loss. Where nobody repeats anything, holding is for packets that others overtook, and is
shorter: until a hole is given up, no key frame is asked for.

Sequence numbers are extended to plain integers that never run over; they start one cycle up, so that packets from
before the first stay positive.
"""

from __future__ import annotations

from typing import Final

from isotrack_recorder.codecs.base import Octets
from isotrack_recorder.rtp.assembler import Assembler
from isotrack_recorder.rtp.rtcp import ReportBlock

# RFC 3550 appendix A.1 calls these MAX_DROPOUT and MAX_MISORDER; ours is wider, retransmissions come late
MAX_JUMP: Final = 3000
MAX_HELD: Final = 4096
"""Packets behind a hole: at 8,000 packets per second what the hold time allows; a bound on hostile senders."""
MAX_MISSING: Final = 1000
"""Holes beyond this are not repaired but skipped: asking for so much would make a congested path worse."""
MAX_REMEMBERED: Final = 1024
"""Abandoned sequence numbers that are still told from duplicates when they come after all."""
MIN_PATIENCE_NS: Final = 5_000_000
"""A packet may overtake another by this much before we ask for it; more where requests turn out to be premature."""
MAX_PATIENCE_NS: Final = 100_000_000
"""A fifth of the usual hold time: a repeat, and a second one, must still come in time."""
MIN_RETRY_NS: Final = 20_000_000
MAX_TRIES: Final = 10
REORDER_NS: Final = 150_000_000
"""A packet that others overtook comes this late at most, until one is seen that came later."""
BEFORE_FIRST: Final = 512
"""A film's first packets may be overtaken, and all that follows is made from them: where the first packet to come does not begin a key
frame, so many before it are waited for, for REORDER_NS."""
NEVER_NS: Final = 1 << 63
FUTILE_HOLES: Final = 4
"""Packets in a row that were asked for several times and never came: nobody repeats anything."""
FUTILE_HOLES_LATER: Final = 16
"""The same where some were repeated before: LiveKit repeats nothing from a request for a key frame on until one passes."""
OVERTAKING: Final = 8
"""Requests whose packets came, one after the other and none without a request, until that is thought to be our doing. Where packets
overtake each other and nobody repeats any, some always come before we ask."""
HOLD_ROUND_TRIPS: Final = 7
"""A long path holds longer than configured: for so many round trips. Five are not enough for three repeats where each may be lost."""
MAX_HOLD_NS: Final = 1_000_000_000
"""It never holds longer than this."""

_Held = tuple[int, int, int, list[Octets], int]
"""Packets that follow each other, as `run` takes them: payload type, timestamp, marker, payloads, arrival of the first."""


class Missing:
    """One packet that others have overtaken."""

    __slots__ = ("asked_ns", "due_ns", "since_ns", "tries")

    def __init__(self, seen_ns: int, patience_ns: int) -> None:
        self.since_ns = seen_ns
        """When the wait for it began: as a later packet showed that it is missing, or, once asked for, with the first request. The
        packet that shows it may have lain in the socket for a while."""
        self.due_ns = seen_ns + patience_ns
        self.asked_ns = 0
        """At first."""
        self.tries = 0


class Stream:
    """See module."""

    __slots__ = (
        "_abandoned",
        "_base",
        "_begins",
        "_cycle",
        "_expected_before",
        "_futile",
        "_held",
        "_highest",
        "_holding",
        "_last_report",
        "_last_report_ns",
        "_missing",
        "_overtaken",
        "_patience_ns",
        "_received_before",
        "_reorder_ns",
        "_restart_at",
        "_take",
        "_take_run",
        "arrival_ns",
        "assembler",
        "gappy",
        "gathers",
        "hold_ns",
        "next",
        "received",
        "rid",
        "rtt_ns",
        "sources",
        "ssrc",
    )

    def __init__(self, assembler: Assembler, hold_ns: int, gappy: set[Stream]) -> None:
        """`gappy` is shared by all streams of a connection: those with holes, which the timer looks after."""
        self.assembler = assembler
        self._take = assembler.take
        self._take_run = assembler.take_run
        self.gathers = assembler.track.video
        """Whether packets come in runs (`run`), as those of a picture do."""
        self.ssrc = assembler.ssrc
        self.sources = [self.ssrc]
        """SSRCs that are, or were, routed here: its own, and those of repeats."""
        self.rid = ""
        """RtpStreamId of its packets (RFC 8852); empty where they carry none, or its SSRC was announced."""
        self.hold_ns = hold_ns
        self.gappy = gappy
        self.next = 0x10000
        """Extended sequence number that is due; never reached by anything missing or held before it."""
        self.received = 0
        """Packets since it began, or began anew: those of before are in the track's totals."""
        self.arrival_ns = 0
        self.rtt_ns = 0
        """From request to retransmission, smoothed; 0 until measured."""
        self._cycle = 0x10000
        """Extended number of 0 as the stream begins, or begins anew."""
        self._base = 0x10000
        self._begins = False
        """Earlier packets than the first one that came are waited for."""
        self._highest = 0xFFFF
        self._held: dict[int, _Held] = {}
        """By the number of the first packet. From `next` to the highest that came, each packet is in here or missing."""
        self._holding = 0
        """Packets in there."""
        self._missing: dict[int, Missing] = {}
        self._abandoned: dict[int, int] = {}
        """Sequence number → when the wait for it began."""
        self._futile = 0
        self._overtaken = 0
        self._reorder_ns = REORDER_NS
        self._patience_ns = MIN_PATIENCE_NS
        self._restart_at = -1
        self._expected_before = 0
        self._received_before = 0
        self._last_report = 0
        self._last_report_ns = 0

    def push(
        self, payload_type: int, sequence: int, timestamp: int, marker: int, payload: Octets, arrival_ns: int
    ) -> None:
        """Take a packet as it came. `marker` is 0 or 1, `sequence` 16 bits, `arrival_ns` CLOCK_MONOTONIC."""
        self.arrival_ns = arrival_ns
        due = self.next
        if sequence == due & 0xFFFF and self.received:
            self.received += 1
            self.next = due + 1
            self._take(payload_type, timestamp, marker, payload, arrival_ns)
            if self._missing:
                self._fill(due, arrival_ns)
                self._release()
            return
        self._out_of_order(payload_type, sequence, timestamp, marker, payload, arrival_ns)

    def run(
        self,
        payload_type: int,
        sequence: int,
        timestamp: int,
        marker: int,
        payloads: list[Octets],
        began_ns: int,
        ended_ns: int,
    ) -> None:
        """Take packets at once that are a run of one timestamp, none of them empty: the first has this number, each other the next one.

        Does what `push` does with each of them. The marker is the last one's, the others have none. The first came at `began_ns`, the
        last at `ended_ns`, moments later. The list is given away.
        """
        if not self.received:
            self._begin(sequence, payload_type, payloads[0], began_ns)
        due = self.next
        if sequence == due & 0xFFFF and not self._missing:
            self.arrival_ns = ended_ns
            self.received += len(payloads)
            self.next = due + len(payloads)
            self._take_run(payload_type, timestamp, marker, payloads, began_ns)
            return
        last = len(payloads) - 1
        distance = _signed(sequence - due)
        if (
            due + distance > max(due - 1, self._highest)
            and distance + last < MAX_JUMP
            and self._holding + last < MAX_HELD
        ):
            # Behind a hole: nearly all that is held
            self.arrival_ns = ended_ns
            self.received += len(payloads)
            self._hold(due + distance, (payload_type, timestamp, marker, payloads, began_ns))
            return
        for index, payload in enumerate(payloads):
            at_ns = ended_ns if index == last else began_ns
            self.push(payload_type, sequence + index, timestamp, marker if index == last else 0, payload, at_ns)

    def turn(self, sequence: int, timestamp: int, rotation: int) -> None:
        """Take what a packet says of how its picture is turned, before the packet itself. Degrees clockwise."""
        # One that is not in order is noted in any case: what it must be compared with is still to come
        if sequence != self.next & 0xFFFF or self.assembler.turns(rotation):
            self.assembler.turn(timestamp, rotation)

    def repair(
        self, payload_type: int, sequence: int, timestamp: int, marker: int, payload: Octets, arrival_ns: int
    ) -> None:
        """Take a retransmission, already unwrapped to what it repeats."""
        distance = _signed(sequence - self.next)
        if not self.received or abs(distance) >= MAX_JUMP:
            return
        missing = self._missing.get(self.next + distance)
        if missing is not None:
            self._recovered(missing, arrival_ns)
        received = self.received
        self.push(payload_type, sequence, timestamp, marker, payload, arrival_ns)
        self.received = received  # statistics of a source leave retransmissions out: they are another stream

    def asks(self, now_ns: int) -> list[int]:
        """16-bit sequence numbers to ask for now, oldest first: those that can still come in time."""
        last_ns = now_ns + self.rtt_ns - self._hold_ns()
        repaired = self._is_repaired()
        due: list[int] = []
        for sequence, missing in self._missing.items():
            if missing.due_ns <= now_ns and missing.tries < MAX_TRIES:
                if missing.tries and missing.since_ns < last_ns:
                    continue
                if not missing.tries and repaired:
                    missing.since_ns = now_ns
                if not missing.tries:
                    missing.asked_ns = now_ns
                missing.due_ns = now_ns + _pause_ns(self.rtt_ns, missing.tries)
                missing.tries += 1
                due.append(sequence & 0xFFFF)
        self.assembler.track.counters.nacks += len(due)
        return due

    def expire(self, now_ns: int) -> None:
        """Give up on holes that are older than the hold time."""
        hold_ns = self._hold_ns()
        while self._missing:
            oldest = next(iter(self._missing.values()))
            if now_ns - oldest.since_ns < hold_ns:
                return
            self._abandon(now_ns)

    @property
    def repair_ns(self) -> int:
        """How long a packet that is missed from now on would be waited for; 0 where nobody repeats any."""
        return self._hold_ns() if self._is_repaired() else 0

    def _hold_ns(self) -> int:
        hold_ns = min(MAX_HOLD_NS, max(self.hold_ns, HOLD_ROUND_TRIPS * self.rtt_ns))
        return hold_ns if self._is_repaired() else min(hold_ns, self._reorder_ns)

    def _is_repaired(self) -> bool:
        """Whether somebody answers when we ask for packets, as far as is known."""
        form = self.assembler.form
        holes = FUTILE_HOLES_LATER if self.rtt_ns else FUTILE_HOLES
        return self._futile < holes and (form is None or form.nack)

    def flush(self, now_ns: int) -> None:
        """Give up on all holes: everything held goes on."""
        while self._missing:
            self._abandon(now_ns)

    def sender_report(self, ntp: int, timestamp: int, arrival_ns: int) -> None:
        """Take the sender's statement of time (RFC 3550 section 6.4.1)."""
        self._last_report = ntp >> 16 & 0xFFFFFFFF
        self._last_report_ns = arrival_ns
        self.assembler.report(ntp, timestamp, arrival_ns)

    def report_block(self, now_ns: int) -> ReportBlock:
        """What a receiver report says of this source since the last one (RFC 3550 appendix A.3)."""
        highest = max(self.next - 1, self._highest)
        expected = highest - self._base + 1
        expected_now = expected - self._expected_before
        lost_now = expected_now - (self.received - self._received_before)
        self._expected_before, self._received_before = expected, self.received
        fraction = min(255, (lost_now << 8) // expected_now) if expected_now > 0 and lost_now > 0 else 0
        return ReportBlock(
            ssrc=self.ssrc,
            fraction_lost=fraction,
            lost=max(-0x800000, min(0x7FFFFF, expected - self.received)),
            highest=highest - 0x10000 & 0xFFFFFFFF,
            jitter=int(self.assembler.jitter) & 0xFFFFFFFF,
            last_report=self._last_report,
            delay=(now_ns - self._last_report_ns) * 65536 // 1_000_000_000 & 0xFFFFFFFF if self._last_report else 0,
        )

    def _out_of_order(
        self, payload_type: int, sequence: int, timestamp: int, marker: int, payload: Octets, arrival_ns: int
    ) -> None:
        if not self.received:
            self._begin(sequence, payload_type, payload, arrival_ns)
            if not self._begins:
                self.received = 1
                self.next += 1
                self._take(payload_type, timestamp, marker, payload, arrival_ns)
                return
        distance = _signed(sequence - self.next)
        extended = self.next + distance
        if abs(distance) >= MAX_JUMP:
            if sequence != self._restart_at:  # RFC 3550 appendix A.1: two in a row make a restart, one is a stray
                self._restart_at = (sequence + 1) & 0xFFFF
                return
            self._restart(arrival_ns)
            self.push(payload_type, sequence, timestamp, marker, payload, arrival_ns)
            return
        self.received += 1
        if distance < 0:
            counters = self.assembler.track.counters
            since_ns = self._abandoned.pop(extended, None)
            if since_ns is not None:
                counters.late += 1
                self._came_late(arrival_ns - since_ns)
            else:
                self._repeated()
        elif extended <= self._highest and extended not in self._missing:
            self._repeated()
        else:
            self._hold(extended, (payload_type, timestamp, marker, [payload], arrival_ns))

    def _hold(self, extended: int, packets: _Held) -> None:
        """Hold what does not come in order: one packet, or a run behind all that came so far."""
        *_, payloads, arrival_ns = packets
        highest = max(self.next - 1, self._highest)
        if extended > highest:
            for sequence in range(highest + 1, extended):
                self._missing[sequence] = Missing(arrival_ns, self._patience_ns)
            self._highest = extended + len(payloads) - 1
        else:
            self._fill(extended, arrival_ns)
        self._held[extended] = packets
        self._holding += len(payloads)
        self.gappy.add(self)
        while self._holding > MAX_HELD or len(self._missing) > MAX_MISSING:
            self._abandon(arrival_ns)

    def _fill(self, sequence: int, arrival_ns: int) -> None:
        """A missing packet came: overtaken by others, or because we asked."""
        if self._begins and sequence < self._base:
            self._begin_earlier(sequence, arrival_ns)
            return
        missing = self._missing.pop(sequence, None)
        if missing is None or self.assembler.track.line.repairs_of:
            return  # where there is RTX, what comes in the stream itself was only late
        if not missing.tries:
            self._overtaken = OVERTAKING
        elif self._overtaken:
            self._overtaken -= 1  # late, or our doing: nobody knows, so it tells nothing of round trips and repeats
            self.assembler.track.counters.recovered += 1
        else:
            self._recovered(missing, arrival_ns)

    def _came_late(self, late_ns: int) -> None:
        """A packet came after it was given up: hold longer. What comes later than we ever hold is another matter (a blackout)."""
        if late_ns <= self.hold_ns:
            self._futile = 0
            self._reorder_ns = max(self._reorder_ns, late_ns * 5 // 4)

    def _recovered(self, missing: Missing, arrival_ns: int) -> None:
        self._futile = 0
        self.assembler.track.counters.recovered += 1
        self._patience_ns -= (self._patience_ns - MIN_PATIENCE_NS) // 64
        if missing.tries:
            # From the first request: nobody knows which one was answered. To leave those with more than one out (Karn) would measure quick
            # answers only, and nothing at all on paths that are longer than our pauses; too long a time costs a little patience
            sample = max(0, arrival_ns - missing.asked_ns)
            self.rtt_ns += (sample - self.rtt_ns) // 8 if self.rtt_ns else sample

    def _repeated(self) -> None:
        """A packet came twice: most likely it was on its way when we asked for it, so wait longer with the next one."""
        self.received -= 1
        counters = self.assembler.track.counters
        counters.duplicates += 1
        if counters.nacks:
            self._futile = 0
            self._patience_ns = min(MAX_PATIENCE_NS, self._patience_ns * 5 // 4)

    def _release(self) -> None:
        """Hand on what is held without a hole before it."""
        held = self._held
        while (packets := held.pop(self.next, None)) is not None:
            payload_type, timestamp, marker, payloads, arrival_ns = packets
            self.next += len(payloads)
            self._holding -= len(payloads)
            if len(payloads) > 1:
                self._take_run(payload_type, timestamp, marker, payloads, arrival_ns)
            else:
                self._take(payload_type, timestamp, marker, payloads[0], arrival_ns)
        if not self._missing:
            self.gappy.discard(self)

    def _abandon(self, now_ns: int) -> None:
        """Count the oldest hole as lost."""
        if self._begins:
            self._begin_now()
            return
        behind = self.next
        while (missing := self._missing.pop(behind, None)) is not None:
            self._abandoned[behind] = missing.since_ns
            self._futile += missing.tries > 1
            behind += 1
        while len(self._abandoned) > MAX_REMEMBERED:
            del self._abandoned[next(iter(self._abandoned))]
        self.assembler.lost(behind - self.next, now_ns)
        self.next = behind
        self._release()

    def _begin(self, sequence: int, payload_type: int, payload: Octets, arrival_ns: int) -> None:
        """Take the first packet's number, and wait for those before it where they may be on their way."""
        self._start(self._cycle + sequence)
        self._begins = not self.assembler.begins_film(payload_type, payload)
        if self._begins:
            self.next -= BEFORE_FIRST
            since_ns = arrival_ns - self._hold_ns() + REORDER_NS
            for number in range(self.next, self._base):
                self._missing[number] = missing = Missing(since_ns, 0)
                missing.due_ns = NEVER_NS  # it may not exist
            self.gappy.add(self)

    def _begin_earlier(self, sequence: int, arrival_ns: int) -> None:
        """Another packet is the first one: those between it and the one that was are missing as any others."""
        del self._missing[sequence]
        for number in range(sequence + 1, self._base):
            self._missing[number] = Missing(arrival_ns, self._patience_ns)
        self._base = sequence
        self._begins = sequence > self.next

    def _begin_now(self) -> None:
        """Nothing comes from before the first packet."""
        self._begins = False
        for number in range(self.next, self._base):
            del self._missing[number]
        self.next = self._base
        self._release()

    def _start(self, extended: int) -> None:
        self.next = self._base = extended
        self._highest = extended - 1
        self._expected_before = self._received_before = self.received = 0

    def _restart(self, now_ns: int) -> None:
        """The sender began anew."""
        self.flush(now_ns)
        self.assembler.restarted(now_ns)
        self._abandoned.clear()
        self._restart_at = -1
        self._cycle = (max(self.next, self._highest) >> 16) + 1 << 16
        self.assembler.track.counters.packets += self.received
        self.received = 0


class Repair:
    """Route of an RTX SSRC: unwraps what it carries into the stream that it repairs (RFC 4588 section 4)."""

    __slots__ = ("_payload_types", "_stream")

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._payload_types = stream.assembler.track.line.repairs_of

    def push(
        self,
        payload_type: int,
        sequence: int,  # noqa: ARG002 - an RTX stream counts for itself
        timestamp: int,
        marker: int,
        payload: Octets,
        arrival_ns: int,
    ) -> None:
        """Take an RTX packet: its payload begins with the original sequence number. Padding is passed over."""
        original = self._payload_types.get(payload_type)
        if original is not None and len(payload) >= 2:
            number = payload[0] << 8 | payload[1]
            self._stream.repair(original, number, timestamp, marker, payload[2:], arrival_ns)

    def turn(self, sequence: int, timestamp: int, rotation: int) -> None:  # noqa: ARG002 - as in `push`
        """Take what a repeat says of how its picture is turned; its timestamp is that of the packet that it repeats."""
        self._stream.assembler.turn(timestamp, rotation)

    def repairs(self, stream: Stream) -> bool:
        """Whether it belongs to this stream."""
        return self._stream is stream


def _pause_ns(rtt_ns: int, tries: int) -> int:
    """Nanoseconds until a packet that was asked for so many times before is asked for once more.

    Three fifths of a round trip, and each time a tenth more: requests get lost too, and LiveKit, which repeats a packet three times at
    most and 100 ms apart, passes over those that come early. Before a round trip was measured (0), half as much again each time.
    """
    first_ns, growth = (max(MIN_RETRY_NS, rtt_ns * 3 // 5), 1.1) if rtt_ns else (MIN_RETRY_NS, 1.5)
    return int(first_ns * growth**tries)


def _signed(difference: int) -> int:
    """Take a difference of 16-bit values as the nearest step."""
    return ((difference + 0x8000) & 0xFFFF) - 0x8000
