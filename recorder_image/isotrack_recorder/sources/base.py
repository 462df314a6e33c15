"""What capture sees of an SFU, whichever it is: events that tell who is there, commands that choose what to receive.

A Source joins one call, stays in it through reconnects, and owns the media connection (`webrtc.session`), whose frames go
to the SourceHandler's sinks. Events and sink calls come from the event loop's thread, in the order in which things
happened, and handlers neither block nor raise. One Source serves one capture: it ends when `run` returns.

    run() ──> Joined ─> ParticipantSeen … ─> Ready ─┬─> ParticipantSeen, TrackSeen, TrackMuted … ─> CallEnded | Removed | Fenced ──> run returns
                                                    └─> Disconnected ─> Joined ─> Reconnected ─┘            (leave() ends it without an event)
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from isotrack_api.words import MediaKind, TrackSource
from isotrack_recorder.media import MediaListener, TrackCounters


@dataclass(frozen=True, slots=True)
class Joined:
    """The SFU let us in (again). Who is there follows at once, before Ready, as events of their own: who does not is not there."""

    call_sid: str
    """Session of the call as the SFU names it: the same room name may come again with another session."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The media connection of the first join stands: whatever is subscribed to arrives from now on."""


@dataclass(frozen=True, slots=True)
class ParticipantSeen:
    """A session of a participant is in the call."""

    peer_id: str
    user_id: str
    name: str
    human: bool
    """False for agents, egress and recorders: they do not keep a call alive."""


@dataclass(frozen=True, slots=True)
class ParticipantLeft:
    """That session is over. Its tracks ended before, each with its own event."""

    peer_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class TrackSeen:
    """A participant publishes a track. Nothing of it arrives before `subscribe`."""

    track_id: str
    peer_id: str
    source: TrackSource
    kind: MediaKind
    encrypted: bool
    """End to end: frames would be noise to us."""
    muted: bool


@dataclass(frozen=True, slots=True)
class TrackMuted:
    """The publisher muted (or unmuted) a track."""

    track_id: str
    muted: bool


@dataclass(frozen=True, slots=True)
class TrackEnded:
    """A track is gone: unpublished, or its participant left."""

    track_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class TrackRefused:
    """The SFU will not send a track that was subscribed to."""

    track_id: str
    reason: str
    """As in the manifest: CodecUnsupported or SubscriptionRefused."""
    message: str


@dataclass(frozen=True, slots=True)
class Disconnected:
    """Connection lost; the source joins again by itself."""

    reason: str


@dataclass(frozen=True, slots=True)
class Reconnected:
    """The media connection stands again."""


@dataclass(frozen=True, slots=True)
class CallEnded:
    """The call is over."""

    reason: str


@dataclass(frozen=True, slots=True)
class Removed:
    """The SFU or a moderator put us out."""

    reason: str


@dataclass(frozen=True, slots=True)
class Fenced:
    """Somebody joined under our identity: a newer attempt has taken over."""


Event = (
    Joined
    | Ready
    | ParticipantSeen
    | ParticipantLeft
    | TrackSeen
    | TrackMuted
    | TrackEnded
    | TrackRefused
    | Disconnected
    | Reconnected
    | CallEnded
    | Removed
    | Fenced
)


class SourceHandler(MediaListener, Protocol):
    """Hears of everything in the call and says which tracks are kept."""

    def on_event(self, event: Event) -> None:
        """Take one event. Commands may be given from inside."""


class MediaConnection(Protocol):
    """What a source needs of the WebRTC connection under it; `webrtc.session.MediaSession` is one."""

    @property
    def connected(self) -> asyncio.Event:
        """Set when ICE and DTLS stand."""
        ...

    @property
    def closed(self) -> asyncio.Future[str]:
        """Done, with the reason, when the connection is lost or closed."""
        ...

    async def handle_offer(self, sdp: str, mid_to_track_id: Mapping[str, str]) -> str:
        """Answer an offer. Raises ParseError when it is malformed."""
        ...

    async def add_candidate(self, candidate: str) -> None:
        """Take an ICE candidate of the other side (value of the candidate attribute, RFC 8839); "" = there are no more."""

    def forget_track(self, track_id: str) -> None:
        """Hand what is held of the track to its sink, then drop its packets."""

    def reconsider(self) -> None:
        """Ask the listener again about tracks that it did not want."""

    def request_key_frame(self, track_id: str) -> None:
        """Ask the publisher for a key frame."""

    def counters(self) -> Mapping[str, TrackCounters]:
        """Totals per track id of this connection."""
        ...

    def totals_of(self, track_id: str) -> TrackCounters | None:
        """The same of one track; None where nothing is known of it."""
        ...

    async def settle(self, seconds: float) -> None:
        """Wait until no packet is missing, `seconds` at most: what was asked for may still come."""

    def receive(self) -> None:
        """Take what has come, now instead of after the pause between two reads."""

    def flush(self) -> None:
        """Give up reordering: everything held goes to the sinks."""

    async def close(self) -> None:
        """End the connection. May be called more than once."""


class Source(Protocol):
    """One call at one SFU."""

    async def run(self) -> None:
        """Join and stay until the call ends, we are put out, or `leave`. Never returns while it could still deliver.

        Raises:
            SourceRefusedError: The SFU does not let us in.
            CallNotFoundError: There is no such call.
            SourceError: The SFU cannot be reached, at first or for too long after a loss.
        """

    def subscribe(self, track_ids: Iterable[str]) -> None:
        """Want these tracks from now on, over reconnects too."""

    def unsubscribe(self, track_ids: Iterable[str]) -> None:
        """Stop receiving these tracks: what arrives of them after this call is dropped."""

    def request_key_frame(self, track_id: str) -> None:
        """Ask the publisher for a key frame."""

    def counters(self) -> Mapping[str, TrackCounters]:
        """Totals per track id since its first packet, over reconnects."""
        ...

    def totals_of(self, track_id: str) -> TrackCounters | None:
        """The same of one track, without a walk over all; None where nothing is known of it."""
        ...

    def receive(self) -> None:
        """Hand over what has come so far, if it lies anywhere."""

    def flush(self) -> None:
        """Give up waiting for late packets: frames held back go to their sinks."""

    async def leave(self) -> None:
        """Say goodbye; `run` returns. Frames held back have reached their sinks when this returns."""
