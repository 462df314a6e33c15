"""Where frames are placed, against senders whose clocks and ways are known."""

from __future__ import annotations

import bisect
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest

from isotrack_recorder.timeline.index import DISCONTINUITY, Indexer
from isotrack_recorder.timeline.placement import SECOND
from isotrack_recorder.timeline.reports import Report
from isotrack_recorder.timeline.session import GROUP_SECONDS, LOOK_AHEAD_SECONDS
from support.whole_timeline import LogClock, Placer, RtpMap, place_tracks

MS = 1_000_000
START = 5_000 * SECOND
END = 1 << 40
"""A second behind everything."""
"""Receiver's clock at second 0 of the call."""


@dataclass(frozen=True)
class Stream:
    """One log: frames captured at `at` seconds, over a way and clocks with known faults."""

    rate: int
    at: Sequence[float]
    reports: Sequence[float] = ()
    transit_ms: float = 30.0
    wall_error: float = 0.0
    drift_ppm: float = 0.0
    base: int = 1_000_000
    not_before: float = 0.0
    discontinuities: frozenset[int] = frozenset()
    rebased: tuple[float, float] | None = None
    """(second, seconds): from then on ticks are shifted, as an SFU does at unmute."""
    counted: float = 0.0
    """Seconds per frame by which ticks count samples, whatever the time: the sender may stand still. 0 = they do not."""
    wall_set: tuple[float, float] = (0.0, 0.0)
    """(second, seconds): from then on the sender's wall clock is ahead by so much more."""
    wall_drift_ppm: float = 0.0
    """By which the sender's wall clock runs fast."""
    report_noise_ms: float = 0.0
    """Reports are made up to so much before or after the instant that they state, and travel up to so much longer than frames."""
    outage: tuple[float, float] = (0.0, 0.0)
    """Nothing arrives within; all of it comes at once afterwards."""
    longer: tuple[float, float] = (0.0, 0.0)
    """(second, milliseconds): the way takes so much longer from then on."""
    jitter: float = 1.0
    """Times the 20 ms by which frames come late."""

    def ticks(self, at: float) -> int:
        if self.counted:
            number = bisect.bisect_right(self.at, at + 1e-9) - 1
            return self.base + round((number * self.counted + at - self.at[max(number, 0)]) * self.rate)
        shift = self.rebased[1] if self.rebased and at >= self.rebased[0] else 0.0
        return self.base + round((at + shift) * self.rate * (1 + self.drift_ppm / 1e6))

    def way_ms(self, at: float) -> float:
        return self.transit_ms + (self.longer[1] if at >= self.longer[0] else 0.0)

    def arrival(self, number: int) -> int:
        jitter_ms = (number * 37 % 23) * 0.9 if number % 5 else 0.0
        way_ms = self.way_ms(self.at[number]) + jitter_ms * self.jitter
        at = max(self.at[number] + way_ms / 1000, self.not_before)
        if self.outage[0] <= at < self.outage[1]:
            at = self.outage[1] + number * 1e-5
        return START + round(at * SECOND)

    def clock(self, until: float = 1e9) -> LogClock:
        indexer = Indexer(self.rate)
        numbers = [number for number in range(len(self.at)) if self.arrival(number) <= START + until * SECOND]
        ticks, arrivals = [self.ticks(self.at[n]) for n in numbers], [self.arrival(n) for n in numbers]
        indexer.add(ticks, arrivals, [DISCONTINUITY * (n in self.discontinuities) for n in numbers], 0, END)
        indexer.close()
        return LogClock(self.rate, indexer.buckets, [self.report(at) for at in self.reports if at <= until])

    def report(self, at: float) -> Report:
        noise = random.Random(round(at * 1000))
        late, off = (noise.uniform(low, 1) * self.report_noise_ms / 1000 for low in (0, -1))
        wall = at * (1 + self.wall_drift_ppm / 1e6) + self.wall_error + self.wall_set[1] * (at >= self.wall_set[0])
        return Report(
            START + round((at + self.way_ms(at) / 1000 + 0.003 + late) * SECOND),
            round((1_760_000_000 + wall) * 2**32),
            self.ticks(at + off),
        )

    def errors_ms(self, clock: RtpMap) -> list[float]:
        """Place minus capture, of each frame; a perfect timeline makes it one constant."""
        placer = Placer(clock)
        return [(placer.place(number, self.ticks(at)) - START) / MS - at * 1000 for number, at in enumerate(self.at)]


def every(step: float, start: float, end: float) -> list[float]:
    return [start + number * step for number in range(int((end - start) / step))]


def audio(end: float = 60, **changes: object) -> Stream:
    return replace(Stream(48_000, every(0.02, 0.5, end), every(5.0, 2.1, end)), **changes)  # type: ignore[arg-type]


def video(end: float = 60, **changes: object) -> Stream:
    default = Stream(90_000, every(1 / 30, 0.6, end), every(1.0, 1.2, end), transit_ms=45.0, base=77)
    return replace(default, **changes)  # type: ignore[arg-type]


def p95(values: Sequence[float]) -> float:
    return sorted(values)[int(len(values) * 0.95)]


def av_offset_ms(sound: Stream, picture: Stream, after: float = 0.0) -> float:
    """95th percentile of |sound - picture| of the same instant."""
    maps = place_tracks([sound.clock(), picture.clock()])
    heard = dict(zip((round(at, 1) for at in sound.at), sound.errors_ms(maps[0])))
    seen = zip(picture.at, picture.errors_ms(maps[1]))
    return p95([abs(heard[round(at, 1)] - error) for at, error in seen if round(at, 1) in heard and at >= after])


@pytest.mark.parametrize(
    ("sound", "picture", "limit_ms"),
    [
        pytest.param(audio(), video(), 3.0, id="good-clocks"),
        pytest.param(audio(wall_error=7200.0), video(wall_error=7200.0), 3.0, id="wall-clock-two-hours-ahead"),
        pytest.param(audio(wall_error=-4e8), video(wall_error=-4e8), 3.0, id="wall-clock-years-behind"),
        pytest.param(audio(drift_ppm=200), video(drift_ppm=-200), 6.0, id="rtp-clocks-drift-apart"),
        pytest.param(audio(reports=every(5, 6, 60)), video(reports=every(1, 6, 60)), 3.0, id="first-report-after-6s"),
        pytest.param(audio(not_before=0.95), video(), 3.0, id="backlog-of-sound-at-subscribe"),
        pytest.param(audio(), video(not_before=1.4), 3.0, id="backlog-of-pictures-at-subscribe"),
        pytest.param(audio(), video(transit_ms=180.0), 3.0, id="pictures-travel-longer"),
        pytest.param(audio(reports=()), video(reports=()), 20.0, id="no-reports-at-all"),
        pytest.param(audio(base=2**32 - 40_000), video(base=2**32 - 9_000), 3.0, id="ticks-around-a-wrap"),
        pytest.param(audio(), video(at=every(1.0, 0.6, 60)), 3.0, id="one-picture-a-second"),
        pytest.param(audio(jitter=3), video(at=every(1.0, 0.6, 60), jitter=3), 3.0, id="one-picture-a-second-over-a-rough-way"),
        pytest.param(audio(jitter=3), video(at=every(2.0, 0.6, 60), jitter=3), 15.0, id="one-in-two-seconds-over-a-rough-way"),
    ],
)  # fmt: skip
def test_sound_and_picture_of_one_instant_lie_together(sound: Stream, picture: Stream, limit_ms: float) -> None:
    """20 ms at the 95th percentile is the promise; with reports it is far better."""
    assert av_offset_ms(sound, picture) <= limit_ms


def test_late_reports_correct_the_place_without_a_jump() -> None:
    """Reports that come later than the look-ahead move a running stream by at most 1 ms per second."""
    sound, picture = audio(120, reports=every(5, 30, 120)), video(120, reports=every(1, 30, 120), transit_ms=90.0)
    maps = place_tracks([sound.clock(), picture.clock()])
    errors = picture.errors_ms(maps[1])
    steps = [abs(b - a) for a, b in itertools.pairwise(errors)]
    assert max(steps) <= 1.001 / 30 + 0.01
    assert av_offset_ms(sound, picture, after=110) <= 3.0


@pytest.mark.parametrize("drift", [-200.0, -50.0, 0.0, 50.0, 200.0])
def test_drift_is_followed_and_reported(drift: float) -> None:
    """An hour at 200 ppm would be 720 ms."""
    sound = audio(600, drift_ppm=drift)
    (clock,) = place_tracks([sound.clock()])
    errors = sound.errors_ms(clock)
    assert max(errors) - min(errors) <= 5.0
    assert clock.clock == "reports"
    assert clock.drift_ppm == pytest.approx(drift, abs=10)


def test_what_reports_move_is_no_drift_of_a_clock() -> None:
    """Sound is told of late, so pictures are found to travel longer and are moved 1 ms per second: they run true all the same."""
    sound, picture = audio(65, reports=every(5, 20, 65)), video(65, transit_ms=60.0)
    _, clock = place_tracks([sound.clock(), picture.clock()])
    errors = picture.errors_ms(clock)
    assert max(errors) - min(errors) >= 10.0
    assert clock.drift_ppm == pytest.approx(0.0, abs=50)


@pytest.mark.parametrize("drift", [-200.0, 0.0, 200.0])
def test_a_drift_of_a_short_call_is_told_in_full(drift: float) -> None:
    (clock,) = place_tracks([audio(60, drift_ppm=drift).clock()])
    assert clock.drift_ppm == pytest.approx(drift, abs=50)


@pytest.mark.parametrize(
    ("sound", "picture", "wall"),
    [
        pytest.param(200.0, 200.0, 200.0, id="machine-fast"),
        pytest.param(200.0, -200.0, 0.0, id="apart"),
    ],
)
def test_three_hours_of_drift_are_followed_and_reported(sound: float, picture: float, wall: float) -> None:
    """2.2 s by the end, with reports that are off by up to 10 ms. Few frames: only one in a second counts."""
    end = 3 * 3600.0
    common = Stream(0, (), report_noise_ms=10.0, wall_error=7200.0, wall_drift_ppm=wall)
    microphone = replace(common, rate=48_000, at=every(0.4, 0.6, end), reports=every(5, 2.1, end), drift_ppm=sound)
    camera = replace(
        common,
        rate=90_000,
        at=every(0.4, 0.6, end),
        reports=every(5, 1.2, end),
        drift_ppm=picture,
        transit_ms=60.0,
        base=77,
    )
    maps = place_tracks([microphone.clock(), camera.clock()])
    heard, seen = microphone.errors_ms(maps[0]), camera.errors_ms(maps[1])
    assert p95([abs(a - b) for a, b in zip(heard, seen)]) <= 20
    for errors in (heard, seen):
        assert p95(errors) - min(errors) <= 20
    assert [found.drift_ppm for found in maps] == [pytest.approx(sound, abs=3), pytest.approx(picture, abs=3)]
    assert [found.clock for found in maps] == ["reports", "reports"]


@pytest.mark.parametrize("seconds", [0.1, 0.15, -0.15, 0.4, -0.4, 0.9, -0.9, 2.0, 7200.0, -7200.0])
@pytest.mark.parametrize("every_seconds", [1.0, 5.0])
def test_a_wall_clock_that_is_set_in_mid_call_moves_nothing(every_seconds: float, seconds: float) -> None:
    """Half a second is what time synchronisation corrects by a step. For a while the reports of sound tell mostly of the clock before,
    those of pictures of the one after, or the other way round.
    """
    common = {"wall_set": (60.0, seconds), "report_noise_ms": 10.0}
    sound = audio(150, **common)
    picture = video(150, reports=every(every_seconds, 1.2, 150), transit_ms=80.0, **common)
    maps = place_tracks([sound.clock(), picture.clock()])
    heard, seen = sound.errors_ms(maps[0]), picture.errors_ms(maps[1])
    at_instant = dict(zip((round(at, 1) for at in sound.at), heard))
    apart = [abs(at_instant[round(at, 1)] - error) for at, error in zip(picture.at, seen) if round(at, 1) in at_instant]
    assert p95(apart) <= 20
    assert max(apart) <= 30
    assert max(max(errors) - min(errors) for errors in (heard, seen)) <= 30


def test_participants_with_wrong_clocks_share_the_timeline() -> None:
    """Two people hear the same beep: their files agree within 50 ms although one clock is hours off."""
    alice, bob = audio(wall_error=3600.0, transit_ms=20.0), audio(wall_error=-50.0, transit_ms=45.0)
    (map_a,), (map_b,) = place_tracks([alice.clock()]), place_tracks([bob.clock()])
    difference = [abs(a - b) for a, b in zip(alice.errors_ms(map_a), bob.errors_ms(map_b))]
    assert max(difference) <= 50


def test_silence_may_hide_a_new_base_of_timestamps() -> None:
    """LiveKit shifts timestamps at unmute; the reports behind the pause tell by how much."""
    at = every(0.02, 0.5, 20) + every(0.02, 35, 60)
    sound = audio(at=at, reports=[2.0, 7.0, 12.0, 17.0, 38.0, 43.0, 48.0], rebased=(30.0, -0.3))
    maps = place_tracks([sound.clock(), video().clock()])
    errors = sound.errors_ms(maps[0])
    assert max(errors) - min(errors) <= 5.0


def test_a_camera_that_was_muted_for_a_second_may_come_back_with_another_base() -> None:
    """Of thirty pictures a second one missing for a second is a pause; of one picture a second it is none."""
    picture = video(at=[*every(1 / 30, 0.6, 20), *every(1 / 30, 21, 60)], rebased=(20.5, 0.04))
    assert av_offset_ms(audio(), picture, after=21) <= 3.0


def test_a_new_ssrc_is_anchored_anew() -> None:
    """A republished stream begins with ticks that have nothing to do with the old ones."""
    first, second = every(0.02, 0.5, 20), every(0.02, 25, 60)
    sound = audio(at=first + second, discontinuities=frozenset((0, len(first))), rebased=(22.0, 9999.0))
    maps = place_tracks([sound.clock(), video().clock()])
    errors = sound.errors_ms(maps[0])
    assert max(errors) - min(errors) <= 5.0


def test_an_unannounced_jump_of_ticks_is_a_new_base() -> None:
    """Whatever an SFU does to timestamps, arrival bounds where a frame can lie."""
    sound = audio(rebased=(30.0, 40_000.0), reports=())
    (clock,) = place_tracks([sound.clock()])
    errors = sound.errors_ms(clock)
    assert max(errors) - min(errors) <= 25


@pytest.mark.parametrize("reports", [every(5.0, 2.1, 60), ()], ids=["reports", "no-reports"])
@pytest.mark.parametrize("length", [0.15, 0.6, 1.5, 5.0])
def test_sound_of_a_sender_that_stood_still_comes_later(length: float, reports: Sequence[float]) -> None:
    """Its samples go on without a gap in ticks; only arrivals and reports tell that time has passed."""
    sound = audio(at=every(0.02, 0.5, 20) + every(0.02, 20 + length, 60), counted=0.02, reports=reports)
    (clock,) = place_tracks([sound.clock()])
    errors = sound.errors_ms(clock)
    assert max(errors) - min(errors) <= 8


@pytest.mark.parametrize("reports", [every(5.0, 2.1, 60), ()], ids=["reports", "no-reports"])
@pytest.mark.parametrize("length", [0.2, 0.6, 1.5])
def test_a_blocked_way_moves_nothing(length: float, reports: Sequence[float]) -> None:
    """What was held up arrives in a burst; it belongs where it was sent."""
    sound = audio(outage=(20.0, 20 + length), reports=reports)
    (clock,) = place_tracks([sound.clock()])
    errors = sound.errors_ms(clock)
    assert max(errors) - min(errors) <= 8


def test_sound_of_an_overloaded_sender_stays_with_its_pictures() -> None:
    """Many short stalls, each below notice, for twenty seconds: two seconds in the end."""
    at = every(0.02, 0.5, 15) + [15 + n * 0.022 for n in range(910)] + every(0.02, 35.1, 60)
    sound = audio(at=at, counted=0.02)
    maps = place_tracks([sound.clock(), video().clock()])
    errors = sound.errors_ms(maps[0])
    before = [error for moment, error in zip(at, errors, strict=True) if moment < 14]
    after = [error for moment, error in zip(at, errors, strict=True) if moment > 40]
    during = [error for moment, error in zip(at, errors, strict=True)]
    assert max(before + after) - min(before + after) <= 30
    assert max(during) - min(during) <= 600


def test_sound_that_is_pushed_out_after_a_long_stall_comes_back_to_its_arrival() -> None:
    """A minute later nobody must wait for sound that came long ago."""
    stalled = [20 + n * 0.04 for n in range(750)]  # half speed for thirty seconds: behind by fifteen
    hurried = [50 + n * 0.01 for n in range(1500)]  # double speed for fifteen: caught up
    at = every(0.02, 0.5, 20) + stalled + hurried + every(0.02, 65, 90)
    sound = audio(at=at, counted=0.02, reports=every(3, 2, 90))
    (clock,) = place_tracks([sound.clock()])
    errors = dict(zip(at, sound.errors_ms(clock), strict=True))
    assert max(abs(error - 30) for moment, error in errors.items() if moment > 75) <= 250


def continued(stream: Stream, made: Sequence[float], passed_on: Sequence[float]) -> list[Report]:
    """As LiveKit tells: in its own time, and what the publisher's newest report would say had ticks run on."""
    found = []
    for at in passed_on:
        newest = max((moment for moment in made if moment < at), default=None)
        if newest is not None:
            ticks = stream.ticks(newest) + round((at - newest) * stream.rate)
            found.append(Report(START + round((at + 0.002) * SECOND), round((1_760_000_000 + at) * 2**32), ticks))
    return found


@pytest.mark.parametrize("first_made", [1.0, 2.0, 3.0, 4.0, 5.0])
@pytest.mark.parametrize("begins", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("behind", [0.4, 0.6])
def test_reports_of_a_sender_that_stood_still_move_no_pictures(behind: float, begins: float, first_made: float) -> None:
    """A client that is overloaded as it joins: sound falls behind and is pushed out 1.5 s later. Its reports from in between are passed
    on when it has caught up; they say that sound came before it was sent, so pictures would be half a second late."""
    slow = [begins + n * (0.02 + behind / 50) for n in range(50)]
    held = every(0.02, begins + 1 + behind, begins + 2.5 + behind)
    hurried = [held[-1] + 0.02 + n * 0.006 for n in range(round(behind / 0.014))]
    at = [*every(0.02, 0.5, begins), *slow, *held, *hurried]
    at += every(0.02, at[-1] + 0.02, 40)
    sound, picture = audio(40, at=at, counted=0.02), video(40)
    logs = [
        replace(stream.clock(), reports=continued(stream, every(step, first_made % step, 40), every(3, 2, 40)))
        for stream, step in ((sound, 5.0), (picture, 1.0))
    ]
    _, clock = place_tracks(logs)
    errors = picture.errors_ms(clock)
    assert max(errors) - min(errors) <= 25


def test_pictures_are_never_hurried_for_what_reports_say() -> None:
    """Should reports find out late that pictures travel half a second longer, they are moved as ever: nobody sees it."""
    sound, picture = audio(60, reports=every(3, 30, 60)), video(60, transit_ms=530.0)
    errors = picture.errors_ms(place_tracks([sound.clock(), picture.clock()])[1])
    steps = [abs(b - a) for a, b in itertools.pairwise(errors)]
    assert max(steps) <= 1.001 / 30 + 0.01


@pytest.mark.parametrize("ntp", [0, 1, 2**64 - 1, 12345 << 32])
def test_hostile_reports_do_not_move_frames_far_from_their_arrival(ntp: int) -> None:
    """A sender may report anything; its files stay on the call's timeline."""
    sound = audio()
    clock = sound.clock()
    mad = [report._replace(ntp=ntp, ticks=report.ticks * (1 + n % 3)) for n, report in enumerate(clock.reports)]
    (placed,) = place_tracks([replace(clock, reports=mad)])
    placer = Placer(placed)
    for number, at in enumerate(sound.at):
        assert -11_000 * MS <= placer.place(number, sound.ticks(at)) - sound.arrival(number) <= 1_000 * MS


def test_one_wild_report_is_an_outlier() -> None:
    sound = audio(60, reports=every(3, 2, 60))
    clock = sound.clock()
    wild = [report._replace(ntp=report.ntp + (2**32 if n == 7 else 0)) for n, report in enumerate(clock.reports)]
    (placed,) = place_tracks([replace(clock, reports=wild)])
    errors = sound.errors_ms(placed)
    assert max(errors) - min(errors) <= 3.0


@pytest.mark.parametrize("until", [12.0, 20.5, 26.2, 29.9, 33.3, 47.9])
@pytest.mark.parametrize(
    "sound",
    [
        pytest.param(audio(drift_ppm=120), id="drift"),
        pytest.param(audio(at=every(0.02, 0.5, 15) + every(0.022, 15, 60), counted=0.02), id="overload"),
        pytest.param(audio(at=every(0.02, 0.5, 20) + every(0.02, 24, 60), rebased=(22, -0.4)), id="pause"),
    ],
)
def test_places_never_change_when_more_arrives(sound: Stream, until: float) -> None:
    """Muxing may follow some seconds behind the call: what it wrote stays right."""
    picture = video(not_before=1.4)
    early = place_tracks([sound.clock(until), picture.clock(until)])
    late = place_tracks([sound.clock(), picture.clock()])
    settled = START + (until - LOOK_AHEAD_SECONDS - GROUP_SECONDS - 1) * SECOND
    for stream, before, after in zip((sound, picture), early, late):
        first, second = Placer(before), Placer(after)
        for number, at in enumerate(stream.at):
            if stream.arrival(number) < settled:
                assert first.place(number, stream.ticks(at)) == second.place(number, stream.ticks(at))


def test_time_never_runs_back() -> None:
    """Through bursts, pauses, new bases and drift."""
    at = every(0.02, 0.5, 10) + every(0.02, 10.6, 20) + every(0.02, 21.5, 40)
    sound = audio(at=at, discontinuities=frozenset((300, 301, 800)), rebased=(21.0, -1.5), not_before=1.0)
    maps = place_tracks([sound.clock(), video().clock()])
    placer = Placer(maps[0])
    places = [placer.place(number, sound.ticks(moment)) for number, moment in enumerate(at)]
    assert all(a < b for a, b in itertools.pairwise(places))


def test_an_empty_log_has_an_empty_map() -> None:
    assert place_tracks([LogClock(48_000, (), ())])[0].knots == ()


@pytest.mark.parametrize("ms", [100.0, 240.0, -25.0])
@pytest.mark.parametrize("at", [2.0, 3.0, 12.0])
def test_a_way_that_changes_as_a_call_begins_does_not_part_sound_from_pictures(at: float, ms: float) -> None:
    """The few reports from before the change and those from after it speak of two ways, and logs do not have them at one time."""
    sound = audio(40, reports=every(5.0, 0.9, 40), longer=(at, ms))
    picture = video(40, reports=every(1.0, 0.8, 40), longer=(at, ms))
    assert av_offset_ms(sound, picture) < 20


@pytest.mark.parametrize("ms", [100.0, -25.0])
@pytest.mark.parametrize("silent", ["sound", "pictures"])
def test_what_comes_back_after_a_way_has_changed_lies_beside_what_went_on(silent: str, ms: float) -> None:
    """The one is still on its way to where the longer way puts it, 1 ms per second, and the other may jump."""
    way = (4.0, ms)
    sound, picture = audio(60, longer=way), video(60, longer=way)

    def paused(stream: Stream) -> Stream:
        return replace(stream, at=[at for at in stream.at if not 30 <= at < 33])

    sound, picture = (paused(sound), picture) if silent == "sound" else (sound, paused(picture))
    assert av_offset_ms(sound, picture, after=33) < 20


def test_a_track_that_is_new_after_a_way_has_changed_lies_beside_what_was_there() -> None:
    """A camera is switched on half a minute after the way became longer."""
    way = (4.0, 100.0)
    sound = audio(60, longer=way)
    picture = video(60, at=every(1 / 30, 30.0, 60), reports=every(1.0, 31.2, 60), longer=way)
    assert av_offset_ms(sound, picture, after=31) < 20
