"""An SFU that goes over to another simulcast layer in the middle of a call: the file goes on, and the manifest says when."""

from __future__ import annotations

from itertools import pairwise

import pytest
from livekit.protocol import models, rtc

from support.call import Call
from support.ledger import Ledger
from support.path import path_to
from support.people import Person, Picture
from support.recording_check import check_recording

pytestmark = pytest.mark.realtime

SECONDS = 6
"""Between two changes: a layer is entered at its next key frame, which LiveKit asks for once a second at most."""


def test_a_switch_of_simulcast_layers_is_listed_and_costs_nothing(call: Call) -> None:
    """The SFU sends the lower layer for a while: smaller pictures in the same file, all decodable, in order."""
    camera = Picture(width=640, height=480, simulcast=True, bitrate=1_500_000)
    alice = Person(identity="alice", camera=camera)
    with (
        path_to(call.server.url) as path,
        call.people([alice]) as people,
        call.recorded(people, "alice", options=["--url", path.url]) as recorder,
    ):
        people.play(SECONDS)
        for quality in (models.VideoQuality.LOW, models.VideoQuality.HIGH):
            sid = Ledger.load(people.ledger).event("published", "alice", "camera")["sid"]
            setting = rtc.UpdateTrackSettings(track_sids=[sid], quality=quality)
            path.say(rtc.SignalRequest(track_setting=setting))
            people.play(SECONDS)
        recorder.interrupt()
        ended = recorder.ended()
    assert ended.code == 0, ended.stderr
    verified = call.isotrack("verify", str(call.output))
    assert verified.code == 0, verified.stdout
    checked = check_recording(call.output, people.cast, Ledger.load(people.ledger)).one("alice")
    film = checked.media.film
    assert film is not None
    (track,) = (track for track in checked.file.tracks if track.kind == "video")
    # A publisher short of CPU makes all its layers smaller: told apart by comparison. Who has only begun sends the lower ones first
    widths = [size.width for size in track.sizes]
    assert len(widths) >= 3, widths
    assert widths[-3] > widths[-2] < widths[-1], widths
    seen = [(film.pictures[0].at, film.pictures[0].width)]
    seen += [(after.at, after.width) for before, after in pairwise(film.pictures) if after.width != before.width]
    listed = [((size.at_ms - checked.file.start_offset_ms) / 1000, size.width) for size in track.sizes]
    assert [width for _, width in listed] == [width for _, width in seen]
    assert all(abs(told - at) < 0.005 for (told, _), (at, _) in zip(listed, seen, strict=True)), (listed, seen)
    assert track.gaps == ()
