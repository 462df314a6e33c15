"""Check a finished recording, folder and manifest, against what the people of the call sent.

`check_recording` asserts what must hold of every recording, however it came about; it returns what was measured per
file, so that a test can go on with what is special to it. Limits are those of the promise (docs/recording.md) plus what
libwebrtc itself adds: its sender reports put sound 14 to 26 ms after pictures of the same instant, and an Opus decoder
adds 6.5 ms. Where the publishers had no processor in time, which their ledger tells, limits are wider by as much.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from isotrack_api.base import MediaKind, StreamKind
from isotrack_api.manifest import GapReason, Manifest, ManifestFile
from isotrack_recorder.checksums import FileSums

from .ledger import Ledger, Sent
from .media_check import Film, Media, Placement, compare_frames, examine, ffmpeg_errors, ffprobe, place
from .people import Cast, Picture
from .signs import tone_hz

FFMPEG_NAMES = {"h265": "hevc"}
LOST_BY_ENCODER = 0.15
"""libwebrtc's encoders leave out pictures when they start, and when the machine is busy. Pre-encoded pictures, which they do
not touch, must all be there."""

NOT_RECEIVED = (GapReason.PAUSED, GapReason.CRASHED, GapReason.DISCONNECTED, GapReason.MUTED, GapReason.SHED)
"""Declared reasons for pictures that are missing. `Lost` is none: on these networks nothing gets lost."""
GAP_EDGE_MS = 150.0


@dataclass(frozen=True, slots=True)
class Limits:
    """How far media may lie from where it was sent, in seconds."""

    sound_late: tuple[float, float]
    """Sound after the pictures of the same instant: earliest and latest."""
    between_people: float
    scatter: float
    """95th percentile of single pictures and beeps against their file's middle."""
    stitched: float
    """The same of a file over two pods: each places what it received by its own arrivals."""

    def wider_by(self, seconds: float) -> Limits:
        """The same for senders who were so late."""
        earliest, latest = self.sound_late
        return Limits(
            sound_late=(earliest - seconds, latest + seconds),
            between_people=self.between_people + seconds,
            scatter=self.scatter + seconds,
            stitched=self.stitched + seconds,
        )


ONE_CALL = Limits(sound_late=(-0.010, 0.050), between_people=0.050, scatter=0.035, stitched=0.050)
BESIDE_A_CLUSTER = Limits(sound_late=(-0.050, 0.120), between_people=0.100, scatter=0.070, stitched=0.100)
"""Beside pods that start and other calls: a sender and an SFU that wait for a processor report late, and no receiver can tell.
Exact placement is what tests of one call judge."""


USUALLY_LATE = 0.015
"""Pictures of all people are drawn one after the other by one process."""
MOST_LATE = 0.100
"""More than this is allowed to nobody: it would hide what the recorder gets wrong."""


def allowance(cast: Cast, ledger: Ledger) -> float:
    """Seconds by which the publishers were later than usual: what they gave to libwebrtc late, it may have sent and reported late."""
    late: list[float] = []
    for (who, what), sent in ledger.sources.items():
        person = cast.people[cast.number(who)]
        picture = person.screen if what.startswith("screenshare") else person.camera
        late += sent.lateness(picture.fps if picture else 1)
    usual = float(np.percentile(late, 95)) if late else 0.0
    return min(MOST_LATE, max(0.0, usual - USUALLY_LATE))


@dataclass(frozen=True, slots=True)
class Checked:
    """One file that is as it should be."""

    file: ManifestFile
    media: Media
    placement: Placement

    @property
    def switches(self) -> int:
        """How often the pictures changed their size."""
        return sum(len(track.sizes) - 1 for track in self.file.tracks if track.sizes)

    @property
    def call_zero(self) -> float:
        """The call's zero on the publishers' clock, as this file has it."""
        return self.placement.zero - self.file.start_offset_ms / 1000


@dataclass(frozen=True, slots=True)
class Recorded:
    """A whole recording that is as it should be."""

    manifest: Manifest
    files: tuple[Checked, ...]

    def of(self, who: str, output_type: str | None = None) -> list[Checked]:
        """Files of a person, by start."""
        found = [c for c in self.files if c.file.user_id == who and output_type in (None, c.file.output_type)]
        return sorted(found, key=lambda checked: checked.file.start_offset_ms)

    def one(self, who: str, output_type: str | None = None) -> Checked:
        """The only such file."""
        found = self.of(who, output_type)
        assert len(found) == 1, f"{who} {output_type}: {[checked.file.name for checked in found]}"
        return found[0]


def check_recording(folder: Path, cast: Cast, ledger: Ledger, limits: Limits = ONE_CALL) -> Recorded:
    """Measure every file of a recording and assert what must always hold.

    Raises:
        AssertionError: With the file's name and what is wrong with it.
    """
    manifest = Manifest.model_validate_json((folder / "recording.json").read_text())
    limits = limits.wider_by(allowance(cast, ledger))
    started = datetime.fromisoformat(manifest.started_at).timestamp() - ledger.wall
    checked = tuple(_check_file(folder, file, cast, ledger, started, limits) for file in manifest.files)
    names = [file.name for file in manifest.files]
    assert len(set(names)) == len(names), names
    zeros = {entry.file.name: round(entry.call_zero, 4) for entry in checked}
    if zeros:
        spread = max(zeros.values()) - min(zeros.values())
        assert spread <= limits.between_people, f"files of one call lie {spread * 1000:.0f} ms apart: {zeros}"
    return Recorded(manifest, checked)


def _check_file(
    folder: Path, file: ManifestFile, cast: Cast, ledger: Ledger, call_zero: float, limits: Limits
) -> Checked:
    path = folder / file.name
    assert path.resolve().is_relative_to(folder.resolve()), file.name
    data = path.read_bytes()
    assert len(data) == file.bytes, file.name
    sums = FileSums(file.part_bytes)
    sums.update(data)
    digest = sums.digest()
    assert f"{digest.crc32:08x}" == file.crc32, file.name
    assert (digest.sha256 if file.sha256 else digest.parts_sha256) == (file.sha256 or file.parts_sha256), file.name
    assert (errors := ffmpeg_errors(path)) == "", f"{file.name}: ffmpeg: {errors}"
    probed = {stream["codec_name"] for stream in ffprobe(path)["streams"]}
    assert probed == {FFMPEG_NAMES.get(track.codec, track.codec) for track in file.tracks}, file.name
    media = examine(path)
    assert abs(media.starts_at) < 0.0005, f"{file.name} starts at {media.starts_at}"
    _check_duration(file, media)
    screen = file.output_type.stream_kind is StreamKind.SCREENSHARE
    sound = ledger.sent(file.user_id, "screenshare_audio" if screen else "microphone")
    film = ledger.sent(file.user_id, "screenshare" if screen else "camera")
    person = cast.number(file.user_id)
    placement = place(media, sound, film, call_zero + file.start_offset_ms / 1000)
    checked = Checked(file, media, placement)
    if media.sound:
        _check_sound(file.name, media, tone_hz(person, screen=screen))
    if media.film:
        _check_film(checked, media.film, (person, screen), film, _picture(cast, person, screen=screen))
    _check_placement(file, placement, limits)
    return checked


def _check_duration(file: ManifestFile, media: Media) -> None:
    """Container, manifest and decoded media must tell the same length."""
    ends = [media.sound.starts_at + media.sound.seconds] if media.sound else []
    if media.film and media.film.pictures:
        ends.append(media.film.pictures[-1].at)
    end = max(ends)
    assert end - 0.05 <= media.duration <= end + 0.5, f"{file.name}: duration {media.duration}, media ends at {end}"
    assert abs(media.duration - file.duration_ms / 1000) <= 0.05, (
        f"{file.name}: {media.duration} and {file.duration_ms}"
    )


def _check_sound(name: str, media: Media, tone: float) -> None:
    sound = media.sound
    assert sound
    assert sound.codec == "opus", name
    assert sound.jumps == (), f"{name}: sound is not continuous at {sound.jumps[:5]}"
    assert abs(sound.tone - tone) < 2, f"{name}: tone of {sound.tone} Hz instead of {tone}"
    others = {hz: loud for hz, loud in sound.tones.items() if abs(hz - tone) > 1 and loud > 0.1}
    assert not others, f"{name}: other people's tones: {others}"


def _check_film(checked: Checked, film: Film, who: tuple[int, bool], sent: Sent, picture: Picture) -> None:
    name = checked.file.name
    assert film.starts_with_key, f"{name}: the first frame is no key frame"
    assert film.people == {who}, f"{name}: pictures of {film.people} instead of {who}"
    frames = compare_frames(film, sent)
    # Where an SFU goes over to another layer, it may send the same picture in both.
    twice = checked.switches if picture.simulcast else 0
    assert len(frames.repeated) <= twice, f"{name}: repeated {frames.repeated[:10]}"
    assert not frames.out_of_order, f"{name}: {frames.out_of_order} pictures out of order"
    missing = [serial for serial in frames.missing if not _is_declared(checked, sent.frames[serial].at)]
    missing = [serial for serial in missing if not sent.was_hurried(serial, picture.fps)]
    allowed = 0 if picture.pre_encoded else 2 + int(frames.sent * LOST_BY_ENCODER)
    assert len(missing) <= allowed, f"{name}: {len(missing)} of {frames.sent} missing: {missing[:20]}"
    if picture.pre_encoded:
        # Of every frame that is shown: the very bytes that its sender made.
        sent_bytes = [sent.frames[serial].digest for serial in film.serials]
        assert list(film.digests) == sent_bytes, f"{name}: frames differ from what was sent"


def _is_declared(checked: Checked, instant: float) -> bool:
    """Whether the manifest says that pictures of this instant (of the publishers' clock) are not there, and why."""
    at_ms = (instant - checked.call_zero) * 1000
    gaps = [gap for track in checked.file.tracks for gap in track.gaps if track.kind is MediaKind.VIDEO]
    return any(
        gap.start_ms - GAP_EDGE_MS <= at_ms <= gap.start_ms + gap.duration_ms + GAP_EDGE_MS
        for gap in gaps
        if gap.reason in NOT_RECEIVED
    )


def _check_placement(file: ManifestFile, placement: Placement, limits: Limits) -> None:
    name = file.name
    allowed = limits.scatter if file.attempt == 1 else limits.stitched
    assert placement.scatter_film <= allowed, f"{name}: pictures scatter by {placement.scatter_film:.3f} s"
    assert placement.scatter_sound <= allowed, f"{name}: beeps scatter by {placement.scatter_sound:.3f} s"
    if placement.by_film is not None and placement.by_sound is not None:
        low, high = limits.sound_late
        assert low <= placement.sound_late <= high, f"{name}: sound is {placement.sound_late * 1000:.0f} ms late"


def _picture(cast: Cast, person: int, *, screen: bool) -> Picture:
    who = cast.people[person]
    picture = who.screen if screen else who.camera
    assert picture is not None, f"{who.identity} has no camera"
    return picture
