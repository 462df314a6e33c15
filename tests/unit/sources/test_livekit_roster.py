"""Signalling messages folded into who is there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from livekit.protocol import models, rtc

from isotrack_api.base import MediaKind, TrackSource
from isotrack_recorder.sources.base import (
    Event,
    ParticipantLeft,
    ParticipantSeen,
    TrackEnded,
    TrackMuted,
    TrackRefused,
    TrackSeen,
)
from isotrack_recorder.sources.livekit.roster import MAX_PEER_ID, MAX_USER_ID, Roster, fold

CAMERA = models.TrackInfo(
    sid="TR_cam", type=models.TrackType.VIDEO, source=models.TrackSource.CAMERA, mime_type="video/VP8"
)
MICROPHONE = models.TrackInfo(
    sid="TR_mic", type=models.TrackType.AUDIO, source=models.TrackSource.MICROPHONE, mime_type="audio/red"
)


def person(sid: str, identity: str = "alice", *tracks: models.TrackInfo, **fields: object) -> models.ParticipantInfo:
    """A participant that is present."""
    state = fields.pop("state", models.ParticipantInfo.ACTIVE)
    return models.ParticipantInfo(sid=sid, identity=identity, tracks=tracks, state=state, **fields)  # type: ignore[arg-type]


def joined(*others: models.ParticipantInfo) -> rtc.SignalResponse:
    """The server's answer to a join."""
    own = models.ParticipantInfo(sid="PA_own", identity="isotrack")
    return rtc.SignalResponse(join=rtc.JoinResponse(participant=own, other_participants=others))


def updated(*infos: models.ParticipantInfo) -> rtc.SignalResponse:
    """News of participants."""
    return rtc.SignalResponse(update=rtc.ParticipantUpdate(participants=infos))


def after(*messages: rtc.SignalResponse) -> tuple[Roster, tuple[Event, ...]]:
    """Fold all messages; the events are those of the last one."""
    roster = Roster()
    events: tuple[Event, ...] = ()
    for message in messages:
        roster, events = fold(roster, message)
    return roster, events


SEEN_ALICE = ParticipantSeen("PA_a", "alice", "", human=True)
SEEN_CAMERA = TrackSeen("TR_cam", "PA_a", TrackSource.CAMERA, MediaKind.VIDEO, False, False)
SEEN_MICROPHONE = TrackSeen("TR_mic", "PA_a", TrackSource.MICROPHONE, MediaKind.AUDIO, False, False)
MUTED_CAMERA = models.TrackInfo()
MUTED_CAMERA.CopyFrom(CAMERA)
MUTED_CAMERA.muted = True
GONE = models.ParticipantInfo.DISCONNECTED


@pytest.mark.parametrize(
    ("messages", "events"),
    [
        pytest.param([joined()], (), id="empty room"),
        pytest.param([joined(person("PA_a", "alice", CAMERA))], (SEEN_ALICE, SEEN_CAMERA), id="was there before us"),
        pytest.param([joined(), updated(person("PA_a"))], (SEEN_ALICE,), id="joins later"),
        pytest.param(
            [joined(person("PA_a")), updated(person("PA_a", "alice", MICROPHONE))], (SEEN_MICROPHONE,), id="publishes"
        ),
        pytest.param([joined(person("PA_a")), updated(person("PA_a"))], (), id="nothing new"),
        pytest.param(
            [joined(person("PA_a", "alice", CAMERA)), updated(person("PA_a"))],
            (TrackEnded("TR_cam", "unpublished"),),
            id="unpublishes",
        ),
        pytest.param(
            [joined(person("PA_a", "alice", CAMERA)), updated(person("PA_a", "alice", MUTED_CAMERA))],
            (TrackMuted("TR_cam", True),),
            id="mutes",
        ),
        pytest.param(
            [
                joined(person("PA_a", "alice", CAMERA)),
                rtc.SignalResponse(mute=rtc.MuteTrackRequest(sid="TR_cam", muted=True)),
            ],
            (TrackMuted("TR_cam", True),),
            id="is muted by the server",
        ),
        pytest.param(
            [
                joined(person("PA_a", "alice", CAMERA)),
                updated(
                    person("PA_a", state=GONE, disconnect_reason=models.DisconnectReason.CLIENT_INITIATED),
                ),
            ],
            (TrackEnded("TR_cam", "left"), ParticipantLeft("PA_a", "CLIENT_INITIATED")),
            id="leaves",
        ),
        pytest.param(
            [joined(person("PA_a")), updated(person("PA_a", state=GONE, disconnect_reason=99))],
            (ParticipantLeft("PA_a", "REASON_99"),),
            id="leaves for a reason that we do not know",
        ),
        pytest.param([joined(), updated(person("PA_b", state=GONE))], (), id="somebody unknown leaves"),
        pytest.param(
            [joined(person("PA_a", "alice", CAMERA)), joined(person("PA_a", "alice", CAMERA))],
            (),
            id="same after rejoin",
        ),
        pytest.param(
            [joined(person("PA_a", "alice", CAMERA)), joined()],
            (TrackEnded("TR_cam", "left"), ParticipantLeft("PA_a", "left while we were disconnected")),
            id="left while we were away",
        ),
        pytest.param(
            [joined(person("PA_a", version=7)), joined(person("PA_a", "alice", CAMERA, version=1))],
            (SEEN_CAMERA,),
            id="a rejoin beats versions",
        ),
        pytest.param(
            [joined(person("PA_a", version=7)), updated(person("PA_a", "alice", CAMERA, version=6))],
            (),
            id="overtaken update",
        ),
        pytest.param([joined(), updated(person("PA_own", "isotrack"))], (), id="ourselves"),
        pytest.param([joined(person("PA_e", kind=models.ParticipantInfo.EGRESS))], (), id="another recorder"),
        pytest.param(
            [joined(person("PA_g", kind=models.ParticipantInfo.AGENT))],
            (ParticipantSeen("PA_g", "alice", "", human=False),),
            id="an agent is no human",
        ),
        pytest.param(
            [joined(person("PA_h", permission=models.ParticipantPermission(hidden=True)))],
            (ParticipantSeen("PA_h", "alice", "", human=False),),
            id="hidden is no human",
        ),
        pytest.param(
            [joined(person("PA_s", kind=models.ParticipantInfo.SIP))],
            (ParticipantSeen("PA_s", "alice", "", human=True),),
            id="a caller by telephone is human",
        ),
        pytest.param(
            [
                rtc.SignalResponse(
                    subscription_response=rtc.SubscriptionResponse(
                        track_sid="TR_x", err=models.SubscriptionError.SE_CODEC_UNSUPPORTED
                    )
                )
            ],
            (TrackRefused("TR_x", "CodecUnsupported", "the SFU has no codec in common with us"),),
            id="no common codec",
        ),
        pytest.param(
            [rtc.SignalResponse(subscription_response=rtc.SubscriptionResponse(track_sid="TR_x"))],
            (TrackRefused("TR_x", "SubscriptionRefused", "the SFU could not subscribe us to it"),),
            id="refused without a cause",
        ),
    ],
)
def test_messages_become_events(messages: list[rtc.SignalResponse], events: tuple[Event, ...]) -> None:
    assert after(*messages)[1] == events


@pytest.mark.parametrize(
    ("source", "kind", "expected"),
    [
        (models.TrackSource.SCREEN_SHARE, models.TrackType.VIDEO, TrackSource.SCREENSHARE),
        (models.TrackSource.SCREEN_SHARE_AUDIO, models.TrackType.AUDIO, TrackSource.SCREENSHARE_AUDIO),
        (models.TrackSource.UNKNOWN, models.TrackType.AUDIO, TrackSource.MICROPHONE),
        (models.TrackSource.UNKNOWN, models.TrackType.VIDEO, TrackSource.CAMERA),
        (models.TrackSource.CAMERA, models.TrackType.AUDIO, TrackSource.MICROPHONE),
        (99, models.TrackType.VIDEO, TrackSource.CAMERA),
    ],
)
def test_sources_follow_the_kind_where_they_do_not_fit(source: int, kind: int, expected: TrackSource) -> None:
    """A publisher can claim anything; a microphone that sends pictures would be muxed as sound."""
    track = models.TrackInfo(sid="TR_x", type=kind, source=source)  # type: ignore[arg-type]
    _, events = after(joined(person("PA_a", "alice", track)))
    assert isinstance(events[1], TrackSeen)
    assert events[1].source == expected


def test_data_tracks_and_nameless_things_are_not_seen() -> None:
    data = models.TrackInfo(sid="TR_d", type=models.TrackType.DATA)
    nameless = models.TrackInfo(type=models.TrackType.VIDEO)
    _, events = after(joined(person("PA_a", "alice", data, nameless), person(""), person("PA_b", "")))
    assert events == (SEEN_ALICE,)


@given(st.text(min_size=1, max_size=600), st.text(min_size=1, max_size=600), st.text(max_size=600))
def test_foreign_texts_are_bounded_and_stay_distinct(sid: str, identity: str, name: str) -> None:
    first, second = person("P" + sid, identity, name=name), person("P" + sid + "x", identity + "x", name=name)
    _, events = after(joined(first, second))
    seen = [event for event in events if isinstance(event, ParticipantSeen)]
    assert len({event.peer_id for event in seen}) == len({event.user_id for event in seen}) == 2
    assert all(len(event.peer_id) <= MAX_PEER_ID and len(event.user_id) <= MAX_USER_ID for event in seen)
    assert all(len(event.name) <= 256 for event in seen)


@given(st.lists(st.binary(max_size=80), max_size=20))
def test_any_message_that_parses_folds(blobs: list[bytes]) -> None:
    """Newer servers send what we do not know; nothing of it may end a capture."""
    roster = Roster()
    for blob in blobs:
        try:
            message = rtc.SignalResponse.FromString(blob)
        except Exception:  # noqa: BLE001, S112 - protobuf's own errors; not what is tested
            continue
        roster, _ = fold(roster, message)
    assert len(roster.user_ids) <= len(roster.peers)


@pytest.mark.parametrize(
    ("encryption", "encrypted"),
    [(models.Encryption.NONE, False), (models.Encryption.GCM, True), (models.Encryption.CUSTOM, True), (9, True)],
    ids=["none", "gcm", "custom", "not known yet"],
)
@pytest.mark.parametrize("track", [CAMERA, MICROPHONE], ids=["camera", "microphone"])
def test_an_encrypted_track_is_told_as_such(track: models.TrackInfo, encryption: int, encrypted: bool) -> None:
    """Nobody gave us the key: its frames would be noise."""
    info = models.TrackInfo()
    info.CopyFrom(track)
    info.encryption = encryption  # type: ignore[assignment]
    _, events = after(joined(person("PA_a", "alice", info)))
    (seen,) = (event for event in events if isinstance(event, TrackSeen))
    assert seen.encrypted == encrypted


def test_a_session_of_the_same_person_replaces_the_one_before() -> None:
    """Somebody loads the page again: LiveKit ends the older session and tells nobody, only that there is a new one."""
    again = models.TrackInfo()
    again.CopyFrom(CAMERA)
    again.sid = "TR_again"
    roster, events = after(
        joined(person("PA_a", "alice", CAMERA, joined_at=100, joined_at_ms=100_200), person("PA_b", "bob")),
        updated(person("PA_c", "alice", again, joined_at=100, joined_at_ms=100_900)),
    )
    assert events == (
        TrackEnded("TR_cam", "left"),
        ParticipantLeft("PA_a", "DUPLICATE_IDENTITY"),
        ParticipantSeen("PA_c", "alice", "", human=True),
        TrackSeen("TR_again", "PA_c", TrackSource.CAMERA, MediaKind.VIDEO, False, False),
    )
    assert roster.peers.keys() == {"PA_b", "PA_c"}


def test_news_of_a_session_that_was_replaced_does_not_bring_it_back() -> None:
    """What a server says of the older session may be on its way when the newer one is known already."""
    older = person("PA_a", "alice", CAMERA, joined_at_ms=100_200)
    roster, events = after(joined(person("PA_c", "alice", joined_at_ms=100_900)), updated(older))
    assert events == ()
    assert roster.peers.keys() == {"PA_c"}
