"""Who is in the room and what they publish: signalling messages folded into a state, each step yielding events.

Pure: `fold(roster, message) -> (roster, events)`. Every text in a message comes from people we do not know, so ids and
names are cut to the lengths that journal and manifest allow; over-long ids keep a digest, so that two never become one.
A rejoin folds its JoinResponse over the state of before: only what differs becomes an event.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Final

from livekit.protocol import models, rtc

from isotrack_api.words import MediaKind, TrackSource
from isotrack_recorder.sources.base import (
    Event,
    ParticipantLeft,
    ParticipantSeen,
    TrackEnded,
    TrackMuted,
    TrackRefused,
    TrackSeen,
)

MAX_USER_ID: Final = 256
MAX_PEER_ID: Final = 128
MAX_TRACK_ID: Final = 128
MAX_NAME: Final = 256
MAX_PARTICIPANTS: Final = 5000
MAX_TRACKS: Final = 100
"""Per participant."""

_NOT_HUMAN: Final = frozenset((models.ParticipantInfo.EGRESS, models.ParticipantInfo.AGENT))
_SOURCES: Final = MappingProxyType(
    {
        models.TrackSource.CAMERA: TrackSource.CAMERA,
        models.TrackSource.MICROPHONE: TrackSource.MICROPHONE,
        models.TrackSource.SCREEN_SHARE: TrackSource.SCREENSHARE,
        models.TrackSource.SCREEN_SHARE_AUDIO: TrackSource.SCREENSHARE_AUDIO,
    }
)
_KIND_OF_SOURCE: Final = MappingProxyType(
    {
        TrackSource.CAMERA: MediaKind.VIDEO,
        TrackSource.SCREENSHARE: MediaKind.VIDEO,
        TrackSource.MICROPHONE: MediaKind.AUDIO,
        TrackSource.SCREENSHARE_AUDIO: MediaKind.AUDIO,
    }
)
_BY_KIND: Final = MappingProxyType({MediaKind.AUDIO: TrackSource.MICROPHONE, MediaKind.VIDEO: TrackSource.CAMERA})


@dataclass(frozen=True, slots=True)
class Peer:
    """One participant session and its tracks (track id → muted)."""

    seen: ParticipantSeen
    version: int
    joined_ms: int
    """By the server's clock; 0 where it does not say."""
    tracks: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Roster:
    """Everybody but ourselves, by session id."""

    peers: Mapping[str, Peer] = field(default_factory=dict)
    own_id: str = ""
    """Our own session id, which updates mention as well."""

    @property
    def user_ids(self) -> frozenset[str]:
        """Of people in the room."""
        return frozenset(peer.seen.user_id for peer in self.peers.values() if peer.seen.human)

    def owner_of(self, track_id: str) -> str | None:
        """Session that publishes a track."""
        return next((peer_id for peer_id, peer in self.peers.items() if track_id in peer.tracks), None)

    @property
    def owners(self) -> Mapping[str, str]:
        """Track id → session that publishes it."""
        return {track_id: peer_id for peer_id, peer in self.peers.items() for track_id in peer.tracks}


def fold(roster: Roster, message: rtc.SignalResponse) -> tuple[Roster, tuple[Event, ...]]:
    """Take one message into account. Messages that say nothing of the room's people change nothing."""
    kind = message.WhichOneof("message")
    if kind == "join":
        return _fold_join(roster, message.join)
    if kind == "update":
        return _fold_update(roster, message.update.participants)
    if kind == "mute":
        return _fold_mute(roster, message.mute)
    if kind == "subscription_response":
        return roster, _refusal(message.subscription_response)
    return roster, ()


def people_in(join: rtc.JoinResponse) -> frozenset[str]:
    """User ids of the people whom we met on joining."""
    return fold(Roster(), rtc.SignalResponse(join=join))[0].user_ids


def _fold_join(roster: Roster, join: rtc.JoinResponse) -> tuple[Roster, tuple[Event, ...]]:
    # NB: versions restart with the server's memory of a participant, so a join beats everything known before.
    known = {peer_id: replace(peer, version=-1) for peer_id, peer in roster.peers.items()}
    changes = _Changes(Roster(known, own_id=_bounded(join.participant.sid, MAX_PEER_ID)))
    present = {_bounded(info.sid, MAX_PEER_ID) for info in join.other_participants}
    for peer_id in [peer_id for peer_id in known if peer_id not in present]:
        changes.remove(peer_id, "left while we were disconnected")
    changes.take(join.other_participants)
    return changes.folded()


def _fold_update(roster: Roster, infos: Iterable[models.ParticipantInfo]) -> tuple[Roster, tuple[Event, ...]]:
    changes = _Changes(roster)
    changes.take(infos)
    return changes.folded()


class _Changes:
    """A roster in the making: what one message tells of many people costs one copy of it."""

    def __init__(self, roster: Roster) -> None:
        self._own_id = roster.own_id
        self._peers = dict(roster.peers)
        self._sessions: dict[str, list[str]] | None = None
        """User id → sessions; from the first newcomer on."""
        self._events: list[Event] = []

    def folded(self) -> tuple[Roster, tuple[Event, ...]]:
        """What came of it."""
        return Roster(self._peers, self._own_id), tuple(self._events)

    def take(self, infos: Iterable[models.ParticipantInfo]) -> None:
        """Take what the server says of participants."""
        for info in infos:
            peer_id = _bounded(info.sid, MAX_PEER_ID)
            if not peer_id or not info.identity or peer_id == self._own_id:
                continue
            if info.state == models.ParticipantInfo.DISCONNECTED:
                self.remove(peer_id, reason_name(info.disconnect_reason))
            else:
                self._take_present(peer_id, info)

    def remove(self, peer_id: str, reason: str) -> None:
        """A session is over."""
        peer = self._peers.pop(peer_id, None)
        if peer is not None:
            if self._sessions is not None:
                self._sessions[peer.seen.user_id].remove(peer_id)
            self._events += (TrackEnded(track_id, "left") for track_id in peer.tracks)
            self._events.append(ParticipantLeft(peer_id, reason))

    def _take_present(self, peer_id: str, info: models.ParticipantInfo) -> None:
        """Add or update one participant."""
        peer = self._peers.get(peer_id) or self._add(peer_id, info)
        if peer is None or info.version < peer.version:
            return  # overtaken on its way
        tracks: dict[str, bool] = {}
        for track in info.tracks[:MAX_TRACKS]:
            track_id = _bounded(track.sid, MAX_TRACK_ID)
            kind = _kind(track)
            if not track_id or kind is None:
                continue
            tracks[track_id] = track.muted
            if track_id not in peer.tracks:
                self._events.append(_track_seen(track_id, peer_id, kind, track))
            elif peer.tracks[track_id] != track.muted:
                self._events.append(TrackMuted(track_id, track.muted))
        self._events += (TrackEnded(track_id, "unpublished") for track_id in peer.tracks if track_id not in tracks)
        self._peers[peer_id] = replace(peer, version=info.version, tracks=tracks)

    def _add(self, peer_id: str, info: models.ParticipantInfo) -> Peer | None:
        """A session that we did not know; None where it is none of ours, or overtaken on its way."""
        if len(self._peers) >= MAX_PARTICIPANTS or _is_recorder(info):
            return None
        peer = Peer(_seen(peer_id, info), -1, info.joined_at_ms or info.joined_at * 1000)
        sessions = self._sessions_of(peer.seen.user_id)
        if any(self._peers[other].joined_ms > peer.joined_ms for other in sessions):
            return None
        # A room has each identity once, and LiveKit does not tell others of a session that another one of the same person replaced (a
        # page that was loaded again): it only tells of the new one.
        for other in tuple(sessions):
            self.remove(other, reason_name(models.DisconnectReason.DUPLICATE_IDENTITY))
        sessions.append(peer_id)
        self._peers[peer_id] = peer
        self._events.append(peer.seen)
        return peer

    def _sessions_of(self, user_id: str) -> list[str]:
        if self._sessions is None:
            self._sessions = {}
            for peer_id, peer in self._peers.items():
                self._sessions.setdefault(peer.seen.user_id, []).append(peer_id)
        return self._sessions.setdefault(user_id, [])


def _fold_mute(roster: Roster, mute: rtc.MuteTrackRequest) -> tuple[Roster, tuple[Event, ...]]:
    track_id = _bounded(mute.sid, MAX_TRACK_ID)
    peer_id = roster.owner_of(track_id)
    if peer_id is None or roster.peers[peer_id].tracks[track_id] == mute.muted:
        return roster, ()
    peer = roster.peers[peer_id]
    peer = replace(peer, tracks={**peer.tracks, track_id: mute.muted})
    return replace(roster, peers={**roster.peers, peer_id: peer}), (TrackMuted(track_id, mute.muted),)


def _refusal(response: rtc.SubscriptionResponse) -> tuple[Event, ...]:
    track_id = _bounded(response.track_sid, MAX_TRACK_ID)
    if response.err == models.SubscriptionError.SE_CODEC_UNSUPPORTED:
        return (TrackRefused(track_id, "CodecUnsupported", "the SFU has no codec in common with us"),)
    if response.err == models.SubscriptionError.SE_TRACK_NOTFOUND:
        return (TrackRefused(track_id, "SubscriptionRefused", "the SFU does not find the track"),)
    return (TrackRefused(track_id, "SubscriptionRefused", "the SFU could not subscribe us to it"),)


def _seen(peer_id: str, info: models.ParticipantInfo) -> ParticipantSeen:
    human = info.kind not in _NOT_HUMAN and not info.permission.hidden and not info.permission.agent
    return ParticipantSeen(peer_id, _bounded(info.identity, MAX_USER_ID), info.name[:MAX_NAME], human)


def _is_recorder(info: models.ParticipantInfo) -> bool:
    """Other recorders are nobody: they publish nothing and may be hidden from people."""
    return info.kind == models.ParticipantInfo.EGRESS or info.permission.recorder


def _track_seen(track_id: str, peer_id: str, kind: MediaKind, track: models.TrackInfo) -> TrackSeen:
    source = _SOURCES.get(track.source)
    if source is None or _KIND_OF_SOURCE[source] != kind:
        source = _BY_KIND[kind]  # unknown sources count by kind
    encrypted = track.encryption != models.Encryption.NONE
    return TrackSeen(track_id, peer_id, source, kind, encrypted, track.muted)


def _kind(track: models.TrackInfo) -> MediaKind | None:
    if track.type == models.TrackType.AUDIO:
        return MediaKind.AUDIO
    return MediaKind.VIDEO if track.type == models.TrackType.VIDEO else None


def reason_name(reason: int) -> str:
    """LiveKit's own word for a DisconnectReason; newer servers may know more of them than we."""
    known = models.DisconnectReason.DESCRIPTOR.values_by_number.get(reason)
    return known.name if known else f"REASON_{reason}"


def _bounded(text: str, limit: int) -> str:
    """Cut an id to `limit` characters so that different ids stay different."""
    if len(text) <= limit:
        return text
    return f"{text[: limit - 17]}~{hashlib.sha256(text.encode()).hexdigest()[:16]}"
