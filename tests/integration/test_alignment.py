"""How well what belongs together lies together: sound and pictures of a person, and people whose clocks differ by hours."""

from __future__ import annotations

import time
from contextlib import ExitStack

import numpy as np
import pytest

from isotrack_api.base import MediaKind
from isotrack_api.manifest import Manifest
from isotrack_dev import requirements
from isotrack_dev.progress import for_terminal
from support.call import Call
from support.encoder import Encoder
from support.ledger import Ledger
from support.media import encode_opus
from support.media_check import beep_after_flash, examine, sound_after_film
from support.people import Cast, People, Person, Picture
from support.raw_publisher import NTP_EPOCH, RawTrack, raw_publisher
from support.recording_check import allowance, check_recording
from support.rtp import OPUS, VP8, vp8_packets
from support.signs import BEEPS, CHUNK, FLASH_SECONDS, SAMPLE_RATE, Sign, draw, play
from support.wall_clock import wrong_by

pytestmark = pytest.mark.realtime

WITHIN_SECONDS = 0.020
"""Sound and pictures of one instant, 95th percentile."""
FPS = 15
HOUR = 3600


def exact_tracks() -> list[RawTrack]:
    """A person whose sound and pictures are of one clock to the sample, beeps and flashes, over and over; pictures take longer."""
    sound = np.concatenate([play(0, position) for position in range(0, BEEPS * SAMPLE_RATE, CHUNK)])
    encoder = Encoder(Picture(fps=FPS, pre_encoded=True))
    pictures = []
    for serial in range(BEEPS * FPS):
        drawn = draw(Sign(0, False, serial), 320, 240, flash=serial / FPS % 1 < FLASH_SECONDS)
        data, _ = encoder.encode(drawn, key=serial % FPS == 0)
        pictures.append(vp8_packets(data, picture_id=serial))
    return [
        RawTrack(MediaKind.AUDIO, OPUS, [[packet] for packet in encode_opus(sound[None])], 50),
        RawTrack(MediaKind.VIDEO, VP8, pictures, FPS, delay=0.08),
    ]


def test_sound_and_pictures_of_an_exact_sender_agree(call: Call) -> None:
    """Whole, not around the middle of a file: libwebrtc's own reports, which are 14 to 35 ms apart, are not in it. An Opus decoder's
    6.5 ms are.
    """
    with raw_publisher(call.server, call.room, "alice", exact_tracks()), call.record() as recorder:
        recorder.recording("alice", "microphone", "camera")
        recorder.wait("report", nth=8)  # of both, every 3 s
        recorder.interrupt()
        assert recorder.ended().code == 0, recorder.stderr
    (file,) = Manifest.model_validate_json((call.output / "recording.json").read_text()).files
    _, *late = beep_after_flash(examine(call.output / file.name), FPS)  # the file may begin amid the first one
    print(f"beeps after their flashes, ms: {[round(seconds * 1000, 1) for seconds in late]}")
    assert len(late) >= 8
    assert np.percentile(np.abs(late), 95) <= WITHIN_SECONDS


def test_people_whose_clocks_are_wrong_by_hours_are_aligned(
    call: Call, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Everybody has a process, and so a libwebrtc, of their own. Bob's clock is three hours slow, Carol's two hours fast."""
    requirements.ensure(["clock"], for_terminal(), tmp_path_factory.mktemp("apt") / "apt.log")
    wrong = {"alice": 0, "bob": -3 * HOUR, "carol": 2 * HOUR}
    cast = Cast(
        people=tuple(
            Person(identity=who, camera=Picture(pre_encoded=who != "bob"), token=call.token(who)) for who in wrong
        )
    )
    zero = time.monotonic()
    with ExitStack() as stack:
        groups: dict[str, People] = {}
        for who, seconds in wrong.items():
            more = wrong_by(seconds) if seconds else {}
            groups[who] = stack.enter_context(call.people(cast, folder=f"people-{who}", more=more, zero=zero))
            groups[who].join(who)
        recorder = stack.enter_context(call.record())
        for who in wrong:
            recorder.recording(who, "microphone", "camera")
        groups["alice"].play(9)
        owners = {event["track"]: event["user_id"] for event in recorder.journal() if event["e"] == "track"}
        reports = [event for event in recorder.journal() if event["e"] == "report"]
        now = time.time()
        recorder.interrupt()
        ended = recorder.ended()
    assert ended.code == 0, ended.stderr
    told = {(owners[report["track"]], round((report["ntp"] / 2**32 - NTP_EPOCH - now) / HOUR)) for report in reports}
    assert told == {(who, seconds // HOUR) for who, seconds in wrong.items()}, "the clocks were wrong"
    ledger = Ledger.load(groups["alice"].ledger)
    for who in ("bob", "carol"):
        ledger.include(Ledger.load(groups[who].ledger))
    recorded = check_recording(call.output, cast, ledger)  # that people lie within 50 ms of one another
    zeros = {checked.file.user_id: checked.call_zero for checked in recorded.files}
    assert set(zeros) == set(wrong)
    scattered = []
    for who in wrong:
        checked = recorded.one(who)
        late = sound_after_film(
            checked.media, ledger.sent(who, "microphone"), ledger.sent(who, "camera"), checked.placement.zero
        )
        middle = float(np.median(late))
        print(f"{who}: call zero {zeros[who]:.4f} s, sound late by {middle * 1000:.1f} ms")
        scattered += [abs(seconds - middle) for seconds in late]
    print(f"95th percentile of {len(scattered)} beeps: {np.percentile(scattered, 95) * 1000:.1f} ms")
    assert len(scattered) > 20
    assert np.percentile(scattered, 95) <= WITHIN_SECONDS + allowance(cast, ledger)
