"""As many people as a large call has: each is recorded for themselves."""

from __future__ import annotations

import struct

import pytest

from isotrack_api.base import MediaKind
from isotrack_api.manifest import GapReason, Manifest
from isotrack_recorder.matroska.reader import blocks, read_file
from support.call import Call
from support.raw_publisher import RawTrack, raw_publishers
from support.rtp import OPUS, VP8, vp8_frame

pytestmark = pytest.mark.realtime

PEOPLE = 200
SOUNDS_PER_SECOND, PICTURES_PER_SECOND = 10, 2
OPUS_100_MS = b"\x0b\x05"
"""RFC 6716 section 3.2.5: SILK, narrow band, mono, five frames of 20 ms and of one size."""


def identity_of(person: int) -> str:
    return f"person-{person:03}"


def sounds(person: int) -> list[bytes]:
    """Packets that tell their person."""
    return [OPUS_100_MS + struct.pack("!HH", person, number) + bytes(11) for number in range(SOUNDS_PER_SECOND)]


def pictures(person: int) -> list[bytes]:
    """Frames that tell their person; the first is a key frame."""
    return [vp8_frame(person << 8 | number, key=not number) for number in range(5 * PICTURES_PER_SECOND)]


def test_two_hundred_people_are_recorded_each_for_themselves(call: Call) -> None:
    people = {
        identity_of(person): [
            RawTrack(MediaKind.AUDIO, OPUS, [[packet] for packet in sounds(person)], SOUNDS_PER_SECOND),
            RawTrack(MediaKind.VIDEO, VP8, [[b"\x10" + frame] for frame in pictures(person)], PICTURES_PER_SECOND),
        ]
        for person in range(PEOPLE)
    }
    with call.record() as recorder, raw_publishers(call.server, call.room, people):
        recorder.wait("codec", nth=2 * PEOPLE, seconds=120)
        recorder.wait("counters", nth=8 * PEOPLE, seconds=120)
        recorder.interrupt()
        ended = recorder.ended(120)
    assert ended.code == 0, ended.stderr
    manifest = Manifest.model_validate_json((call.output / "recording.json").read_text())
    assert manifest.complete
    assert sorted(file.user_id for file in manifest.files) == sorted(people)
    for file in manifest.files:
        person = int(file.user_id[-3:])
        assert sorted(track.codec for track in file.tracks) == ["opus", "vp8"], file.name
        assert not [gap for track in file.tracks for gap in track.gaps if gap.reason is GapReason.LOST], file.name
        content = (call.output / file.name).read_bytes()
        found = read_file(content)
        heard, seen = (
            [block.data for block in blocks(content, found) if block.track == track.number]
            for kind in (2, 1)
            for track in found.tracks
            if track.type == kind
        )
        assert {data for data in heard if len(data) == len(sounds(0)[0])} <= set(sounds(person)), file.name
        assert set(seen) <= set(pictures(person)), file.name
        assert len(seen) > 2 * PICTURES_PER_SECOND, file.name
