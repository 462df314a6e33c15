"""What goes over the control socket, and what is taken from it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from isotrack_api.words import SpoolLevel, StopReason, TrackSource
from isotrack_recorder.control import (
    Command,
    Hello,
    SpoolState,
    State,
    TrackState,
    UnrecordedState,
    decode,
    encode,
    read_command,
)
from isotrack_recorder.errors import ParseError

TRACK = TrackState(
    track="t0001", track_id="TR", user_id="ålice", peer_id="PA", source=TrackSource.CAMERA, packets=2**53, width=640
)
STATE = State(
    phase="Stopped",
    stop_reason=StopReason.CALL_ENDED,
    armed_at_ms=1,
    spool=SpoolState(level=SpoolLevel.CAMERA_SHED, used=8, capacity=10),
    tracks=(TRACK,),
    unrecorded=(UnrecordedState(track_id="T", user_id="b", source=TrackSource.MICROPHONE, reason="Encrypted"),),
)
COMMAND = Command(desired="Stopped", stop_reason=StopReason.DELETED, user_ids=("ålice", "bob"))


@pytest.mark.parametrize(
    "message",
    [Hello(role="agent"), Hello(role="recorder", incarnation=3), Command(), COMMAND, State(phase="Joining"), STATE],
)
def test_a_message_is_read_as_it_was_written(message: Hello | Command | State) -> None:
    line = encode(message)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode(line) == message
    assert read_command(line) == (message if isinstance(message, Command) else None)


def test_members_have_the_names_and_places_of_the_contract() -> None:
    assert json.loads(encode(COMMAND)) == {
        "type": "command",
        "desired": "Stopped",
        "stopReason": "Deleted",
        "userIds": ["ålice", "bob"],
    }
    told = json.loads(encode(STATE))
    assert (told["type"], told["phase"], told["armedAtMs"]) == ("state", "Stopped", 1)
    assert told["spool"] == {"level": "CameraShed", "used": 8, "capacity": 10}
    assert told["tracks"][0]["mediaBytes"] == 0
    assert "firstPacketAtMs" not in told, "absent members are left out"


@pytest.mark.parametrize("line", [b"null", b"[]", b"{}", b'{"type":"new"}', b'{"type":[]}', b'{"type":null}'])
def test_what_is_not_known_is_skipped(line: bytes) -> None:
    assert decode(line) is None
    assert read_command(line) is None


def test_unknown_members_are_skipped() -> None:
    assert decode(b'{"type":"command","desired":"Paused","more":1}') == Command(desired="Paused")
    assert decode(b'{"type":"state","phase":"Armed","more":1}') == State(phase="Armed")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[" * 100_000,
        b'{"type":"command","desired":"Sleeping"}',
        b'{"type":"command","desired":[]}',
        b'{"type":"command","stopReason":"Tired"}',
        b'{"type":"command","stopReason":{}}',
        b'{"type":"command","userIds":"alice"}',
        b'{"type":"command","userIds":[1]}',
        b'{"type":"command","userIds":[""]}',
        b'{"type":"command","userIds":["\\ud800"]}',
        json.dumps({"type": "command", "userIds": ["a"] * 101}).encode(),
        json.dumps({"type": "command", "userIds": ["a" * 257]}).encode(),
    ],
)
def test_a_command_that_is_none_is_refused_by_either_end(line: bytes) -> None:
    for read in (decode, read_command):
        with pytest.raises(ParseError):
            read(line)


@pytest.mark.parametrize(
    "change",
    [
        {"phase": "Sleeping"},
        {"armedAtMs": -1},
        {"armedAtMs": 2**53 + 1},
        {"participants": -1},
        {"tracks": [{}]},
        {"tracks": [{"track": "t", "trackId": "T", "userId": "", "peerId": "P", "source": "camera"}]},
        {"tracks": [{"track": "t", "trackId": "T", "userId": "a" * 257, "peerId": "P", "source": "camera"}]},
        {"tracks": [{"track": "t", "trackId": "T", "userId": "a", "peerId": "P" * 129, "source": "camera"}]},
        {"tracks": [{"track": "t", "trackId": "T", "userId": "a", "peerId": "P", "source": "hologram"}]},
        {"unrecorded": [{"trackId": "T", "userId": "a", "source": "camera", "reason": "r" * 65}]},
        {"unrecorded": [{"trackId": "T" * 129, "userId": "a", "source": "camera", "reason": "r"}]},
        {"spool": {"used": -1}},
    ],
)
def test_the_agent_holds_a_recorder_to_the_bounds(change: dict[str, Any]) -> None:
    """It parses bytes from the network; what it says goes into reports."""
    with pytest.raises(ParseError):
        decode(json.dumps({"type": "state", "phase": "Armed", **change}).encode())
