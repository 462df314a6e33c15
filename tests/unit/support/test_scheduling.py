"""Encoders leave the scheduling of the test run alone."""

from __future__ import annotations

import os

from support.encoder import Encoder
from support.media import video_frames
from support.people import Picture
from support.signs import Sign, draw


def scheduling() -> tuple[int, int]:
    return os.sched_getscheduler(0), os.sched_getparam(0).sched_priority


def test_encoding_av1_leaves_the_priority_of_the_thread_alone() -> None:
    before = scheduling()
    video_frames(2, "av1")
    assert scheduling() == before
    pixels = draw(Sign(1, False, 1), 320, 240, flash=False)
    Encoder(Picture(codec="av1", width=320, height=240, pre_encoded=True)).encode(pixels, key=True)
    assert scheduling() == before
