"""The measuring tools against files whose truth is known: each fault that they look for is put in once."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.ledger import Sent, SentFrame
from support.media_check import beep_after_flash, compare_frames, examine, ffmpeg_errors, find_beeps, place
from support.signs import CHUNK, FLASH_SECONDS, SAMPLE_RATE, Sign, draw, is_flash, play, read, tone_hz
from support.units import unit_digest

FPS, SECONDS, PERSON = 15, 5, 3
FIRST_SECOND = 20
"""The file begins at this instant of the publishers' clock: the beeps' count has wrapped around."""


def write_file(path: Path, *, sound_late: float = 0.0, leave_out: frozenset[int] = frozenset()) -> Sent:
    """Write five seconds of person 3 with faults, and return what was "sent"."""
    sent = Sent()
    with av.open(str(path), "w") as container:
        video = container.add_stream("libvpx", rate=FPS, options={"deadline": "realtime", "cpu-used": "8"})
        video.width, video.height, video.pix_fmt, video.time_base = 320, 240, "yuv420p", Fraction(1, 1000)
        audio = container.add_stream("libopus", rate=SAMPLE_RATE, layout="mono")
        for slot in range(FIRST_SECOND * FPS, (FIRST_SECOND + SECONDS) * FPS):
            sent.frames[slot] = SentFrame(slot, slot / FPS, None)
            if slot in leave_out:
                continue
            picture = draw(Sign(PERSON, False, slot), 320, 240, flash=slot / FPS % 1 < FLASH_SECONDS)
            frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
            frame.pts, frame.time_base = round((slot / FPS - FIRST_SECOND) * 1000), Fraction(1, 1000)
            container.mux(video.encode(frame))
        late = round(sound_late * SAMPLE_RATE)
        sound = [
            play(PERSON, position)
            for position in range(FIRST_SECOND * SAMPLE_RATE, (FIRST_SECOND + SECONDS) * SAMPLE_RATE, CHUNK)
        ]
        samples = np.concatenate([np.zeros(late, np.int16), *sound])
        for index in range(0, len(samples) - CHUNK + 1, CHUNK):
            heard = av.AudioFrame.from_ndarray(samples[None, index : index + CHUNK], format="s16", layout="mono")
            heard.sample_rate, heard.pts = SAMPLE_RATE, index
            container.mux(audio.encode(heard))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
    sent.beeps.update({second: float(second) for second in range(FIRST_SECOND, FIRST_SECOND + SECONDS)})
    return sent


@pytest.mark.parametrize(("cut_ms", "counted"), [(0, True), (20, True), (40, False), (55, False)])
def test_a_beep_of_which_little_is_left_counts_no_second(cut_ms: int, counted: bool) -> None:
    """A track that begins in the middle of one, or a loss: a click has every pitch."""
    sound = np.concatenate([play(PERSON, position) for position in range(SAMPLE_RATE, 3 * SAMPLE_RATE, CHUNK)])
    left = sound[cut_ms * SAMPLE_RATE // 1000 :].astype(np.float32) / 32768
    assert [second for _, second in find_beeps(left)] == ([1, 2] if counted else [2])


@pytest.mark.usefixtures("ffmpeg")
def test_a_clean_file_is_told_by_its_person_and_instants(tmp_path: Path) -> None:
    sent = write_file(tmp_path / "clean.mkv")
    media = examine(tmp_path / "clean.mkv")
    assert media.sound
    assert media.film
    assert media.film.people == {(PERSON, False)}
    assert media.sound.tone == pytest.approx(tone_hz(PERSON), abs=1)
    assert media.film.starts_with_key
    assert not media.film.unreadable
    assert not media.sound.silences
    assert compare_frames(media.film, sent).missing == ()
    placed = place(media, sent, sent, near=FIRST_SECOND + 3)
    assert placed.zero == pytest.approx(FIRST_SECOND, abs=0.002)
    assert abs(placed.sound_late) < 0.008
    assert ffmpeg_errors(media.path) == ""


@pytest.mark.parametrize("late", [0.02, 0.1, 0.3])
def test_late_sound_is_measured(tmp_path: Path, late: float) -> None:
    sent = write_file(tmp_path / "late.mkv", sound_late=late)
    media = examine(tmp_path / "late.mkv")
    assert place(media, sent, sent, near=FIRST_SECOND).sound_late == pytest.approx(late, abs=0.004)
    assert np.median(beep_after_flash(media, FPS)) == pytest.approx(late, abs=0.004)


def test_missing_pictures_are_named(tmp_path: Path) -> None:
    gone = frozenset({FIRST_SECOND * FPS + 17, FIRST_SECOND * FPS + 40})
    sent = write_file(tmp_path / "gaps.mkv", leave_out=gone)
    film = examine(tmp_path / "gaps.mkv").film
    assert film
    assert compare_frames(film, sent).missing == tuple(sorted(gone))


@pytest.mark.usefixtures("ffmpeg")
def test_a_damaged_file_is_complained_about(tmp_path: Path) -> None:
    path = tmp_path / "damaged.mkv"
    write_file(path)
    data = bytearray(path.read_bytes())
    half = len(data) // 2
    data[half : half + 3000] = bytes(value ^ 0x5A for value in data[half : half + 3000])
    path.write_bytes(data)
    assert ffmpeg_errors(path)


@given(person=st.integers(0, 15), screen=st.booleans(), serial=st.integers(0, 0x1FFFF), flash=st.booleans())
def test_a_picture_reads_back_at_any_size(person: int, screen: bool, serial: int, flash: bool) -> None:
    sign = Sign(person, screen, serial)
    for width, height in ((160, 120), (320, 240), (480, 268)):
        luma = draw(sign, width, height, flash=flash)[:height]
        assert read(luma) == sign
        assert is_flash(luma) == flash


@pytest.mark.parametrize("level", [0, 16, 128, 235, 255])
def test_a_plain_picture_is_no_sign(level: int) -> None:
    """Black pictures come from a muted camera."""
    assert read(np.full((240, 320), level, np.uint8)) is None


def test_h264_digest_ignores_framing_and_parameter_sets() -> None:
    idr, sps = b"\x65abc", b"\x67params"
    assert unit_digest(b"\0\0\0\1" + sps + b"\0\0\0\1" + idr, "h264") == unit_digest(b"\0\0\1" + idr, "h264")
    assert unit_digest(b"\0\0\1" + idr, "h264") != unit_digest(b"\0\0\1" + idr + b"x", "h264")
