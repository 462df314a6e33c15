"""One subscriber connection to an SFU: the SFU offers, we answer, its media reaches the listener's sinks.

A MediaSession is made inside a running event loop, lives for one ICE + DTLS connection and is never used again: after
a loss the source makes a new one and joins anew. The first offer gathers candidates, is answered, and starts the
handshakes in a task that the session owns; each offer says which tracks flow on which m-lines from then on.
Offers must come one after another, as signalling delivers them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from isotrack_api.words import MediaKind
from isotrack_recorder.codecs.registry import find_codec
from isotrack_recorder.errors import ParseError
from isotrack_recorder.media import CodecInfo, MediaListener, TrackCounters
from isotrack_recorder.rtp.feedback import FeedbackSettings
from isotrack_recorder.rtp.lines import ExtensionIds, MediaLine, PayloadFormat
from isotrack_recorder.rtp.plane import Plane
from isotrack_recorder.webrtc.addresses import choose_addresses, host_addresses
from isotrack_recorder.webrtc.answer import (
    EXT_AUDIO_LEVEL,
    EXT_MID,
    EXT_REPAIRED_RID,
    EXT_RID,
    EXT_TRANSPORT_CC,
    EXT_VIDEO_ORIENTATION,
    AnswerWriter,
    Plan,
    plan_answer,
)
from isotrack_recorder.webrtc.sdp import IceParameters, Offer, OfferReader, Section
from isotrack_recorder.webrtc.transport import Transport, TransportSettings

log = logging.getLogger(__name__)

_CANCEL_AGAIN_SECONDS: Final = 0.1
_SETTLE_STEP_SECONDS: Final = 0.02
IDLE_TICK_NS: Final = 250_000_000
MAX_EARLY_CANDIDATES: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaSettings:
    """How media is received."""

    addresses: tuple[str, ...] = ()
    """Local addresses to offer; empty = chosen (webrtc.addresses)."""
    receive_buffer_bytes: int = 8 * 1024 * 1024
    """Asked of the kernel for the socket. 256 KiB, a usual default, hold 24 ms of forty 720p participants: each longer
    pause of the process loses packets. Without CAP_NET_ADMIN net.core.rmem_max of the node limits it."""
    max_pause_seconds: float = 0.04
    """Longest pause between two reads where the receive buffer is small. Shorter ones cost CPU, longer ones delay
    retransmission requests and feedback; arrival times are the kernel's and exact either way."""
    calm_pause_seconds: float = 0.2
    """The same where the buffer holds what comes meanwhile, on a path that loses nothing (rtp.plane bounds it on others): each wake-up
    costs the process more than the first packets it takes. What a killed process loses does not grow with it: `receive` is called
    before each flush of the spool."""
    audio_hold_seconds: float = 0.5
    """How long audio waits for a missing packet. Nobody listens live: waiting costs nothing but memory, and what a killed process
    loses. At least seven round trips where they are known, at most 1 s."""
    video_hold_seconds: float = 0.5
    """The same for video."""
    ask_for_sound: bool = True
    """Ask for missing sound also where the SFU does not offer NACK. LiveKit answers such requests, but offers them only for tracks
    that are published without RED, which few are. An SFU that does not know them passes over them."""
    connect_timeout_seconds: float = 20.0
    """From the first answer until ICE and DTLS are up."""
    remb_bits_per_second: int = 100_000_000
    """See FeedbackSettings."""
    key_frame_interval_seconds: float = 0.0
    """Longest time between two key frames of a video track that flows; 0 = they are asked for only when one is needed."""


class MediaSession:
    """See module."""

    def __init__(self, listener: MediaListener, settings: MediaSettings | None = None) -> None:
        self._listener = listener
        self._settings = settings or MediaSettings()
        self._plane = Plane(
            listener,
            FeedbackSettings(
                remb_bits_per_second=self._settings.remb_bits_per_second,
                key_interval_ns=int(self._settings.key_frame_interval_seconds * 1e9),
            ),
            audio_hold_ns=int(self._settings.audio_hold_seconds * 1e9),
            video_hold_ns=int(self._settings.video_hold_seconds * 1e9),
        )
        self.connected = asyncio.Event()
        """ICE and DTLS are up: packets can flow."""
        self.closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Done, with the reason, when the connection is lost or was closed."""
        self._transport: Transport | None = None
        self._writer: AnswerWriter | None = None
        self._remote: IceParameters | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._early: list[str] = []
        self._reader = OfferReader()
        self._plans: tuple[Plan, ...] = ()
        """Of the newest offer."""
        self._lines: dict[str, tuple[Plan, MediaLine]] = {}
        """By mid: what the newest offer's m-lines that carry tracks were made into."""
        self._unsupported: set[str] = set()

    async def handle_offer(self, sdp: str, mid_to_track_id: Mapping[str, str]) -> str:
        """Answer an offer and receive what it describes.

        Args:
            mid_to_track_id: The SFU's own mapping; m-lines that it leaves out are named by their msid.
        Raises:
            ParseError: The offer cannot be read, or lacks ICE credentials or a fingerprint.
        """
        offer = self._reader.read(sdp)
        self._plans = plans = plan_answer(offer, self._plans)
        if self._transport is None:
            await self._open(offer, plans)
        elif self._remote is not None and (ice := _credentials(offer, plans)) is not None and ice != self._remote:
            self._lost("the SFU asked for an ICE restart")  # aioice cannot; joining anew does the same
        assert self._writer is not None
        for plan in plans:
            await self._take_candidates(plan.section.candidates)
        if offer.end_of_candidates:
            await self.add_candidate("")
        self._bind(plans, mid_to_track_id)
        return self._writer.write(offer, plans)

    async def add_candidate(self, candidate: str) -> None:
        """Take a candidate of the SFU, with or without "candidate:" before it; "" = there are no more.

        Raises:
            ParseError: Not an RFC 8839 candidate.
        """
        text = candidate.strip().removeprefix("a=").removeprefix("candidate:")
        if self._transport is not None:
            await self._transport.add_candidate(text)
        elif len(self._early) < MAX_EARLY_CANDIDATES:
            self._early.append(text)

    async def _take_candidates(self, candidates: Iterable[str]) -> None:
        """Take candidates that came with an offer, or before it; one that cannot be read must not cost the call."""
        for candidate in candidates:
            with contextlib.suppress(ParseError):
                await self.add_candidate(candidate)

    def forget_track(self, track_id: str) -> None:
        """A track is unpublished or unsubscribed: what is held goes to its sink, later packets are dropped."""
        self._touch()  # what the kernel holds of it came before
        self._plane.forget_track(track_id, time.monotonic_ns())

    def reconsider(self) -> None:
        """The listener may have changed its mind: ask it again for the tracks that it did not want."""
        self._plane.reconsider(time.monotonic_ns())
        self._touch()

    def request_key_frame(self, track_id: str) -> None:
        """Ask the sender of a video track for a key frame, once a second at most, until one comes."""
        self._plane.request_key_frame(track_id)
        self._touch()

    def counters(self) -> Mapping[str, TrackCounters]:
        """Running totals by track id, of all tracks of this connection."""
        return self._plane.track_counters()

    def totals_of(self, track_id: str) -> TrackCounters | None:
        """The same of one track; None where nothing is known of it."""
        return self._plane.totals_of(track_id)

    def receive(self) -> None:
        """Take what has come, now instead of after the pause. Nothing before the first read, which has others' packets to wait for."""
        if self._transport is not None and self._transport.reads:
            self._touch()

    def flush(self) -> None:
        """Give up reordering: everything that is held goes to the sinks now."""
        self._touch()
        self._plane.flush(time.monotonic_ns())

    async def settle(self, seconds: float) -> None:
        """Wait until no packet is missing, `seconds` at most: what was asked for may still come."""
        until_ns = time.monotonic_ns() + int(seconds * 1e9)
        self._touch()
        while self._plane.lacks_packets and not self.closed.done() and time.monotonic_ns() < until_ns:  # noqa: ASYNC110 - the plane has no loop
            await asyncio.sleep(_SETTLE_STEP_SECONDS)

    async def close(self) -> None:
        """Flush, say goodbye, release sockets and tasks. May be called more than once."""
        self.flush()
        try:
            while self._connecting is not None and not self._connecting.done():
                # More than once: `asyncio.wait_for` of Python 3.11, in which DTLS waits, forgets one that comes along with a datagram
                self._connecting.cancel()
                # NB: awaiting the task itself would take our own cancellation for its
                await asyncio.wait((self._connecting,), timeout=_CANCEL_AGAIN_SECONDS)
        finally:
            if self._transport is not None:
                await self._transport.close()
            if not self.closed.done():
                self.closed.set_result("closed")

    async def _open(self, offer: Offer, plans: tuple[Plan, ...]) -> None:
        section = _transport_section(offer, plans)
        if section is None or section.ice is None or not section.fingerprints:
            raise ParseError("offer lacks ICE credentials or a certificate fingerprint")
        remote = [
            candidate.split()[4] for s in offer.sections for candidate in s.candidates if candidate.count(" ") > 4
        ]
        remote += [candidate.split()[4] for candidate in self._early if candidate.count(" ") > 4]
        settings = TransportSettings(
            addresses=self._settings.addresses or choose_addresses(host_addresses(), remote),
            receive_buffer_bytes=self._settings.receive_buffer_bytes,
            max_pause_ns=int(self._settings.max_pause_seconds * 1e9),
            calm_pause_ns=int(self._settings.calm_pause_seconds * 1e9),
            idle_tick_ns=IDLE_TICK_NS,
        )
        setup = "passive" if section.setup == "active" else "active"
        self._transport = Transport(self._plane, settings, self._lost)
        self._remote = section.ice
        self._writer = AnswerWriter(await self._transport.gather(setup), secrets.randbits(62))
        await self._take_candidates(self._early)
        self._early.clear()
        self._connecting = asyncio.create_task(self._connect(section, lite=offer.ice_lite, setup=setup), name="connect")

    async def _connect(self, section: Section, *, lite: bool, setup: str) -> None:
        assert self._transport is not None
        assert section.ice is not None
        try:
            async with asyncio.timeout(self._settings.connect_timeout_seconds):
                up = await self._transport.connect(section.ice, section.fingerprints, lite=lite, setup=setup)
        except TimeoutError:
            self._lost("no connection within the time limit")
            return
        except Exception:
            # NB: told at once, and to nobody else: what this task ends with would be raised to whoever closes the session.
            log.exception("media connection failed")
            self._lost("ICE or DTLS failed")
            return
        if not up:
            self._lost("ICE or DTLS failed")
            return
        log.info("media connected", extra={"fields": {"batched": self._transport.drained}})
        self.connected.set()

    def _bind(self, plans: tuple[Plan, ...], mid_to_track_id: Mapping[str, str]) -> None:
        ids: dict[str, int] = {}
        before, self._lines = self._lines, {}
        for plan in plans:
            track_id = _track_id(plan.section, mid_to_track_id)
            if plan.unsupported and track_id and track_id not in self._unsupported:
                assert plan.section.kind is not None
                self._unsupported.add(track_id)
                names = ",".join(dict.fromkeys(codec.name for codec in plan.section.codecs))
                self._listener.track_unsupported(track_id, plan.section.kind, names[:200])
            if plan.receives:
                ids.update({uri: number for number, uri in plan.extensions.items()})
                if track_id:
                    known, line = before.get(plan.section.mid, (None, None))
                    if line is None or known is not plan or line.track_id != track_id:
                        line = _media_line(plan, track_id, ask_for_sound=self._settings.ask_for_sound)
                    self._lines[line.mid] = plan, line
        extensions = ExtensionIds(
            mid=ids.get(EXT_MID, 0),
            rid=ids.get(EXT_RID, 0),
            repaired_rid=ids.get(EXT_REPAIRED_RID, 0),
            transport_cc=ids.get(EXT_TRANSPORT_CC, 0),
            orientation=ids.get(EXT_VIDEO_ORIENTATION, 0),
            audio_level=ids.get(EXT_AUDIO_LEVEL, 0),
        )
        self._plane.bind([line for _, line in self._lines.values()], extensions, time.monotonic_ns())
        self._touch()

    def _touch(self) -> None:
        if self._transport is not None and self.connected.is_set():
            self._transport.touch()

    def _lost(self, reason: str) -> None:
        if not self.closed.done():
            log.info("media connection lost", extra={"fields": {"reason": reason}})
            self.closed.set_result(reason)


def _transport_section(offer: Offer, plans: tuple[Plan, ...]) -> Section | None:
    """The m-line whose transport carries the bundle: the first of it (RFC 8843 section 7.2)."""
    accepted = [plan.section for plan in plans if plan.accepted]
    bundled = [section for section in accepted if section.mid in offer.bundle]
    candidates = bundled or accepted[:1]
    return next((section for section in candidates if section.ice is not None and section.fingerprints), None)


def _credentials(offer: Offer, plans: tuple[Plan, ...]) -> IceParameters | None:
    section = _transport_section(offer, plans)
    return section.ice if section is not None else None


def _track_id(section: Section, mid_to_track_id: Mapping[str, str]) -> str:
    """The SFU's name of the track on an m-line; empty where it has none."""
    return mid_to_track_id.get(section.mid) or section.track_id or section.stream_id.partition("|")[2]


def _media_line(plan: Plan, track_id: str, *, ask_for_sound: bool) -> MediaLine:
    section = plan.section
    assert section.kind is not None
    asks = ask_for_sound and section.kind is MediaKind.AUDIO
    formats: dict[int, PayloadFormat] = {}
    for codec in plan.codecs:
        spec = find_codec(codec.name, section.kind, codec.clock_rate, codec.fmtp)
        if spec is not None:
            formats[codec.payload_type] = PayloadFormat(
                codec=CodecInfo(codec.name, codec.clock_rate, codec.channels, codec.fmtp),
                spec=spec,
                nack=asks or "nack" in codec.feedback,
                pli="nack pli" in codec.feedback,
                fir="ccm fir" in codec.feedback,
                remb="goog-remb" in codec.feedback,
            )
    return MediaLine(
        mid=section.mid,
        track_id=track_id,
        kind=section.kind,
        formats=formats,
        repairs_of={
            codec.payload_type: codec.apt for codec in plan.codecs if codec.name == "rtx" and codec.apt is not None
        },
        ssrcs=tuple(ssrc for ssrc in section.ssrcs if ssrc not in section.repairs),
        repair_ssrcs=dict(section.repairs),
        measures=bool(section.rcvr_rtt) or any("rrtr" in codec.feedback for codec in plan.codecs),
    )
