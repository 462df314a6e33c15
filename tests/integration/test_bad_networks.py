"""What a bad path, or an SFU that goes away, costs: nothing where it can be repaired, else what the manifest says and no more."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path as FilePath

import av
import pytest

from isotrack_api.base import MediaKind
from isotrack_api.manifest import GapReason, Manifest, ManifestTrack, StopReason
from isotrack_dev.servers import LiveKitInfo, S3Info, free_port, livekit_server
from support.call import Call, a_call
from support.command import Ended, RecordCommand
from support.environment import of_sfu
from support.ledger import Ledger, Sent
from support.path import Conditions, Path, path_to
from support.people import People, Person, Picture
from support.recording_check import check_recording
from support.units import unit_digest

pytestmark = pytest.mark.realtime

ALICE = Person(identity="alice", camera=Picture(fps=30, bitrate=1_000_000, pre_encoded=True))
SETTLE_SECONDS = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What happens on the way to one recorder. Seconds count from the moment at which everybody is recorded."""

    lasts: int
    """Seconds until it is stopped."""
    conditions: Conditions = field(default_factory=Conditions)
    declined: tuple[str, ...] = ()
    dark: int = 0
    """Length of a blackout that begins at `DARK_FROM`."""


DARK_FROM = 4
BLACKOUTS = (6, 12, 30)
COURSES = {
    "loss": Course(lasts=40, conditions=Conditions(loss=0.05, jitter=0.1)),
    "unrepaired": Course(lasts=30, conditions=Conditions(loss=0.05, burst=4, jitter=0.1), declined=("rtx", "nack")),
    **{
        f"blackout-{seconds}": Course(lasts=DARK_FROM + seconds + SETTLE_SECONDS + 3, dark=seconds)
        for seconds in BLACKOUTS
    },
}


@dataclass(slots=True)
class Recording:
    """One recorder on its path, and how it ended."""

    call: Call
    people: People
    path: Path
    command: RecordCommand
    ended: Ended | None = None

    def follow(self, course: Course, second: int) -> None:
        """Do what is due at this second."""
        if course.dark and second == DARK_FROM:
            self.path.conditions = Conditions(blackout=True)
        if course.dark and second == DARK_FROM + course.dark:
            self.path.conditions = Conditions()
        if second == course.lasts:
            self.command.interrupt()


@pytest.fixture
def recorded(ffmpeg: None, livekit: LiveKitInfo, s3: S3Info, tmp_path: FilePath) -> Callable[..., list[Recording]]:
    """Record Alice on paths of these courses, side by side in one call."""

    def record(*names: str) -> list[Recording]:
        call = a_call(names[0], tmp_path, livekit, s3)
        found: list[Recording] = []
        with ExitStack() as stack:
            people = stack.enter_context(call.people([ALICE]))
            people.join("alice")
            for name in names:
                course, own = COURSES[name], replace(call, folder=tmp_path / f"recorder-{name}")
                path = stack.enter_context(path_to(livekit.url, course.conditions, declined=course.declined))
                command = stack.enter_context(own.record("--url", path.url))
                # One after the other: a start takes a processor's second
                command.recording("alice", "microphone", "camera")
                found.append(Recording(own, people, path, command))
            for second in range(1, max(COURSES[name].lasts for name in names) + 1):
                people.play(1)
                for name, recording in zip(names, found, strict=True):
                    recording.follow(COURSES[name], second)
            for recording in found:
                recording.ended = recording.command.ended()
        return found

    return record


@dataclass(frozen=True, slots=True)
class Result:
    """A recording of Alice with one file."""

    manifest: Manifest
    path: FilePath
    sent: Sent
    tracks: dict[MediaKind, ManifestTrack]

    @classmethod
    def of(cls, recording: Recording) -> Result:
        """Of a recording that has ended in good order."""
        call, people = recording.call, recording.people
        assert recording.ended is not None
        assert recording.ended.code == 0, recording.ended.stderr
        verified = call.isotrack("verify", str(call.output))
        assert verified.code == 0, verified.stdout
        manifest = Manifest.model_validate_json((call.output / "recording.json").read_text())
        (file,) = manifest.files
        sent = Ledger.load(people.ledger).sent("alice", "camera")
        return cls(manifest, call.output / file.name, sent, {track.kind: track for track in file.tracks})

    def pictures(self) -> list[tuple[float, int, bool]]:
        """Seconds of the file, serial and whether it is a key frame, of each picture in it, decodable or not."""
        serials = {frame.digest: serial for serial, frame in self.sent.frames.items()}
        with av.open(str(self.path)) as media:
            packets = [packet for packet in media.demux(video=0) if packet.size]
            return [
                (float(packet.pts * packet.time_base), serials[unit_digest(bytes(packet), "vp8")], packet.is_keyframe)
                for packet in packets
                if packet.pts is not None and packet.time_base is not None
            ]

    def missing(self) -> list[tuple[float, float]]:
        """Stretches of the file from the last picture before missing ones to the first one after them."""
        return [
            (a[0], b[0])
            for a, b in pairwise(self.pictures())
            if any(n in self.sent.frames for n in range(a[1] + 1, b[1]))
        ]

    def misdeclared(self) -> list[tuple[float, float]]:
        """Missing stretches and declared ones that do not tell the same within 100 ms."""
        told = self._told(lambda reason: reason is not GapReason.DAMAGED, joined=0.01)
        missing = self.missing()
        hidden = [
            m for m in missing if m[1] - m[0] > 0.1 and not any(t[0] - 0.1 <= m[0] and m[1] <= t[1] + 0.1 for t in told)
        ]
        begins, ends = [m[0] for m in missing], [m[1] for m in missing]
        invented = [
            t
            for t in told
            if min((abs(t[0] - begin) for begin in begins), default=1.0) > 0.1
            or min((abs(t[1] - end) for end in ends), default=1.0) > 0.1
        ]
        return hidden + invented

    def _told(self, wanted: Callable[[GapReason], bool], *, joined: float) -> list[tuple[float, float]]:
        """Declared gaps of the pictures, in seconds of the file; neighbours with less than `joined` between them are one."""
        zero = self.manifest.files[0].start_offset_ms
        rows = [gap for gap in self.tracks[MediaKind.VIDEO].gaps if wanted(gap.reason)]
        return _joined([((g.start_ms - zero) / 1000, (g.start_ms - zero + g.duration_ms) / 1000) for g in rows], joined)

    def misjudged(self) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
        """Stretches of pictures made from missing ones, as serials tell and as declared; nothing where they agree within 100 ms."""
        pictures = self.pictures()
        found: list[tuple[float, float]] = []
        begin: float | None = None
        for before, now in pairwise(pictures):
            gone = any(number in self.sent.frames for number in range(before[1] + 1, now[1]))
            if begin is not None and (now[2] or gone):
                found.append((begin, before[0] if gone else now[0]))
                begin = None
            if gone and not now[2]:
                begin = now[0]
        if begin is not None:
            found.append((begin, pictures[-1][0]))
        told = self._told(lambda reason: reason is GapReason.DAMAGED, joined=0.01)
        return ([], []) if _within(found, told) and _within(told, found) else (found, told)

    def displacement(self) -> float:
        """How far single pictures lie from where most of them say that the file's zero is, in seconds; none that Alice was late with."""
        fps = ALICE.camera.fps if ALICE.camera else 0
        known = [(at, serial) for at, serial, _ in self.pictures() if not self.sent.was_hurried(serial, fps)]
        zeros = sorted(self.sent.frames[serial].at - at for at, serial in known)
        assert len(zeros) > 100
        middle = zeros[len(zeros) // 2]
        return max(middle - zeros[0], zeros[-1] - middle)


def _joined(stretches: list[tuple[float, float]], within: float) -> list[tuple[float, float]]:
    """Make one of neighbours with less than `within` seconds between them."""
    found: list[tuple[float, float]] = []
    for start, end in stretches:
        begin = found.pop()[0] if found and start - found[-1][1] < within else start
        found.append((begin, end))
    return found


def _within(inner: list[tuple[float, float]], outer: list[tuple[float, float]]) -> bool:
    """Whether each stretch lies in one of the others, give or take 100 ms at either end."""
    wide = _joined([(start - 0.1, end + 0.1) for start, end in outer], 0.0)
    return all(any(start <= a and b <= end for start, end in wide) for a, b in inner)


def test_loss_and_jitter_are_repaired_by_retransmission(recorded: Callable[..., list[Recording]]) -> None:
    """5 % of all datagrams are lost each way, and many overtake each other. See tests/unit/rtp/test_lossy_path.py for ten minutes of it."""
    (recording,) = recorded("loss")
    assert recording.path.dropped > 100
    result = Result.of(recording)
    pictures = result.pictures()
    sent = sum(pictures[0][1] <= serial <= pictures[-1][1] for serial in result.sent.frames)
    assert sent > 1000
    assert sent - len(pictures) <= sent // 1000, result.missing()
    film, sound = result.tracks[MediaKind.VIDEO], result.tracks[MediaKind.AUDIO]
    assert film.packets_recovered > 20
    assert sound.packets_recovered > 50
    # Of sound, too; what was still to be repeated at the end is lost
    assert sound.packets_lost <= 4 + sound.packets // 1000


def test_what_nobody_repairs_is_declared_and_a_key_frame_follows(recorded: Callable[..., list[Recording]]) -> None:
    """Bursts of loss on a path whose SFU repeats nothing. Alone: requests of others would bring key frames, too."""
    (recording,) = recorded("unrepaired")
    result = Result.of(recording)
    missing = result.missing()
    assert len(missing) > 5
    assert result.misdeclared() == []
    assert result.misjudged() == ([], [])
    assert result.tracks[MediaKind.VIDEO].packets_lost > 10
    keys = [at for at, _, key in result.pictures() if key]
    ends = [end for _, end in missing if end < result.pictures()[-1][0] - 2]
    waits = [next(key for key in keys if key >= end) - end for end in ends]
    # A request or the key frame itself may be lost, and is asked for again; LiveKit passes on one request a second
    assert sorted(waits)[len(waits) // 2] < 1


def test_a_blackout_leaves_at_most_a_declared_gap(recorded: Callable[..., list[Recording]]) -> None:
    """Short ones are repaired from what the SFU remembers; longer ones need a new connection, and no new files."""
    recordings = recorded(*(f"blackout-{seconds}" for seconds in BLACKOUTS))
    for seconds, recording in zip(BLACKOUTS, recordings, strict=True):
        result = Result.of(recording)
        assert result.misdeclared() == [], seconds
        assert result.misjudged() == ([], []), seconds
        assert sum(end - begin for begin, end in result.missing()) < seconds + 4
        assert result.displacement() < 0.1, seconds
        sound = result.tracks[MediaKind.AUDIO].gaps
        assert sum(gap.duration_ms for gap in sound) < (seconds + 4) * 1000
        assert {gap.reason for gap in sound} <= {GapReason.LOST, GapReason.DISCONNECTED}
        assert result.manifest.lost_ms > 0, seconds


def test_a_restarted_sfu_is_followed(call: Call) -> None:
    """LiveKit is killed and comes back without a memory; people come back by themselves, under new sessions."""
    port, udp = free_port("127.0.0.1"), free_port("127.0.0.1")
    state = call.folder / "sfu"
    with ExitStack() as second, livekit_server(state, port=port, udp_port=udp) as first:
        own = replace(
            call,
            server=first,
            environment={**call.environment, **of_sfu(first)},
        )
        with own.people([ALICE]) as people, own.recorded(people, "alice") as recorder:
            people.play(5)
            os.kill(first.pid, signal.SIGKILL)
            recorder.wait("disconnected")
            people.play(4)
            keys = first.api_key, first.api_secret
            second.enter_context(livekit_server(state, port=port, udp_port=udp, keys=keys))
            recorder.wait("reconnected", seconds=60)
            recorder.recording("alice", "microphone", "camera", nth=2)
            people.play(SETTLE_SECONDS)
            recorder.interrupt()
            ended = recorder.ended()
        assert ended.code == 0, ended.stderr
    recorded = check_recording(call.output, people.cast, Ledger.load(people.ledger))
    assert recorded.manifest.stop_reason is StopReason.REQUESTED
    before, after = recorded.of("alice")
    assert before.file.peer_id != after.file.peer_id
    assert after.file.duration_ms > (SETTLE_SECONDS - 2) * 1000
