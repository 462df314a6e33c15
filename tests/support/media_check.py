"""Measure a recorded file: who is in it, which instants, at which times, and whether anything is broken.

Decodes with PyAV and, as a second opinion, the ffmpeg and ffprobe programs; it knows nothing of the recorder. What was
sent comes from the publishers' ledger. Times are seconds; `at` counts from the file's zero, `zero` is where that lies
on the publishers' clock.
"""

from __future__ import annotations

import json
import math
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
from av.audio.stream import AudioStream
from av.video.stream import VideoStream
from numpy.typing import NDArray

from .ledger import Sent
from .signs import BEEP_SECONDS, BEEPS, MAX_PEOPLE, SAMPLE_RATE, Sign, beep_hz, is_flash, read, tone_hz
from .units import unit_digest

Floats = NDArray[np.float32]
HOP: Final = 240
"""Samples between two looks at the spectrum: 5 ms."""
WINDOW: Final = 960
LATE_SECONDS: Final = 0.03
"""A beep that its publisher gave to libwebrtc later than this (a machine under load) tells nothing about the recorder."""
QUIET: Final = 0.003
"""RMS of full scale below which 20 ms count as silence; the steady tone has 0.14."""


@dataclass(frozen=True, slots=True)
class Beep:
    """A beep that was heard."""

    at: float
    number: int
    """Its second modulo BEEPS."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A decoded picture."""

    at: float
    sign: Sign | None
    flash: bool
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Sound:
    """The audio stream of a file."""

    codec: str
    packets: int
    starts_at: float
    seconds: float
    """Decoded."""
    jumps: tuple[float, ...]
    """Where a decoded frame does not begin where the one before ended (more than 2 ms off)."""
    tone: float
    """Loudest pitch below the beeps, Hz."""
    tones: dict[float, float]
    """Loudness of each person's tone as a share of the loudest."""
    beeps: tuple[Beep, ...]
    silences: tuple[tuple[float, float], ...]
    """Stretches of at least 60 ms: (from, to)."""


@dataclass(frozen=True, slots=True)
class Film:
    """The video stream of a file."""

    codec: str
    starts_with_key: bool
    keys: tuple[float, ...]
    """When there are key frames."""
    pictures: tuple[Shown, ...]
    digests: tuple[str, ...]
    """Of each packet, as `publish.unit_digest` makes them."""

    @property
    def serials(self) -> list[int]:
        """Frame serials in the order shown; unreadable pictures are left out."""
        return [shown.sign.serial for shown in self.pictures if shown.sign]

    @property
    def unreadable(self) -> int:
        """Pictures without a sign."""
        return sum(shown.sign is None for shown in self.pictures)

    @property
    def people(self) -> set[tuple[int, bool]]:
        """Who was seen: (number, screen)."""
        return {(shown.sign.person, shown.sign.screen) for shown in self.pictures if shown.sign}

    @property
    def sizes(self) -> set[tuple[int, int]]:
        """Picture sizes."""
        return {(shown.width, shown.height) for shown in self.pictures}


@dataclass(frozen=True, slots=True)
class Media:
    """One file, measured."""

    path: Path
    container: str
    starts_at: float
    duration: float
    """As the container says."""
    sound: Sound | None
    film: Film | None
    tags: dict[str, str]


def examine(path: Path) -> Media:
    """Decode a file completely and measure it.

    Raises:
        av.FFmpegError: It cannot be opened or decoded.
    """
    with av.open(str(path)) as container:
        streams = container.streams
        film = _film(path, streams.video[0]) if streams.video else None
        sound = _sound(path) if streams.audio else None
        return Media(
            path=path,
            container=container.format.name,
            starts_at=(container.start_time or 0) / av.time_base,
            duration=(container.duration or 0) / av.time_base,
            sound=sound,
            film=film,
            tags=dict(container.metadata),
        )


def loudness(path: Path, hz: float) -> list[float]:
    """How loud a pitch is in each channel of a file's sound on the whole, as a share of full scale."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        channels = len(stream.codec_context.layout.channels)
        resampler = av.AudioResampler(format="fltp", layout=stream.codec_context.layout, rate=SAMPLE_RATE)
        heard = [part.to_ndarray() for frame in container.decode(stream) for part in resampler.resample(frame)]
    samples = np.concatenate(heard, axis=1) if heard else np.zeros((channels, 1), np.float32)
    turn = np.exp(-2j * np.pi * hz / SAMPLE_RATE * np.arange(samples.shape[1]))
    return [float(2 * abs(side @ turn) / samples.shape[1]) for side in samples]


def ffmpeg_errors(path: Path) -> str:
    """What ffmpeg complains about when it decodes the whole file; empty when it is content."""
    # NB: -enc_time_base -1 keeps the file's own times. Otherwise ffmpeg puts pictures on a grid of its guessed frame rate,
    # and complains of itself when a sender's clock trembles and two of them fall on one point.
    command = ["ffmpeg", "-v", "error", "-xerror", "-i", str(path), "-enc_time_base", "-1", "-f", "null", "-"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    return done.stderr.strip() or ("" if done.returncode == 0 else f"exit code {done.returncode}")


def ffprobe(path: Path) -> dict[str, Any]:
    """Format and streams, as ffprobe reports them."""
    command = ["ffprobe", "-v", "error", "-of", "json", "-show_format", "-show_streams", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, stdin=subprocess.DEVNULL)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _film(path: Path, found: VideoStream) -> Film:
    packets, digests = _packets(path, found)
    pictures: list[Shown] = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        for frame in container.decode(stream):
            plane = frame.planes[0]
            rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
            luma = rows[: frame.height, : frame.width]
            pictures.append(Shown(frame.time or 0.0, read(luma), is_flash(luma), frame.width, frame.height))
    name = found.codec_context.name
    keys = tuple(at for at, key in packets if key)
    return Film(name, bool(packets) and packets[0][1], keys, tuple(pictures), tuple(digests))


def _packets(path: Path, found: VideoStream) -> tuple[list[tuple[float, bool]], list[str]]:
    """When each packet is shown and whether it is a key frame, and digests."""
    codec, extradata = found.codec_context.name, found.codec_context.extradata or b""
    packets: list[tuple[float, bool]] = []
    digests: list[str] = []
    with av.open(str(path)) as container:
        for packet in container.demux(container.streams.video[0]):
            if packet.size:
                data = bytes(packet)
                at = {"h264": 4, "hevc": 21}.get(codec)
                if at is not None and extradata[:1] == b"\x01":
                    data = b"".join(b"\0\0\1" + unit for unit in _avcc_units(data, (extradata[at] & 3) + 1))
                assert packet.pts is not None
                packets.append((float(packet.pts * packet.time_base), packet.is_keyframe))
                digests.append(unit_digest(data, codec))
    return packets, digests


def _avcc_units(data: bytes, length_bytes: int) -> Iterator[bytes]:
    """NAL units that are prefixed by their length (ISO/IEC 14496-15 sections 5.3.4.2 and 8.3.4.2)."""
    at = 0
    while at + length_bytes <= len(data):
        size = int.from_bytes(data[at : at + length_bytes], "big")
        yield data[at + length_bytes : at + length_bytes + size]
        at += length_bytes + size


def _sound(path: Path) -> Sound:
    chunks: list[Floats] = []
    jumps: list[float] = []
    first = expected = None
    with av.open(str(path)) as container:
        stream: AudioStream = container.streams.audio[0]
        packets = sum(packet.size > 0 for packet in container.demux(stream))
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        for frame in container.decode(stream):
            at = frame.time or 0.0
            first = at if first is None else first
            if expected is not None and abs(at - expected) > 0.002:
                jumps.append(at)
            expected = at + frame.samples / frame.sample_rate
            chunks.append(_mono(frame))
    samples = np.concatenate(chunks) if chunks else np.zeros(0, np.float32)
    start = first or 0.0
    spectrum = np.abs(np.fft.rfft(samples)) if len(samples) else np.zeros(1)
    pitches = np.fft.rfftfreq(max(len(samples), 1), 1 / SAMPLE_RATE)
    low = spectrum[: np.searchsorted(pitches, 2500.0)]
    return Sound(
        codec=stream.codec_context.name.removeprefix("lib"),
        packets=packets,
        starts_at=start,
        seconds=len(samples) / SAMPLE_RATE,
        jumps=tuple(jumps),
        tone=float(pitches[int(np.argmax(low))]) if len(low) else 0.0,
        tones=_tones(low, pitches),
        beeps=tuple(Beep(start + at, number) for at, number in find_beeps(samples)),
        silences=tuple((start + a, start + b) for a, b in _silences(samples)),
    )


def _mono(frame: av.AudioFrame) -> Floats:
    samples = frame.to_ndarray()
    if frame.sample_rate != SAMPLE_RATE:
        raise AssertionError(f"sample rate {frame.sample_rate}")
    if samples.dtype == np.int16:
        samples = samples.astype(np.float32) / 32768
    channels = len(frame.layout.channels)
    if not frame.format.is_planar:
        samples = samples.reshape(-1, channels).T
    return np.asarray(samples.mean(axis=0), np.float32)


def _tones(low: NDArray[Any], pitches: NDArray[Any]) -> dict[float, float]:
    wanted = [tone_hz(person, screen=screen) for person in range(MAX_PEOPLE) for screen in (False, True)]
    loudest = max(float(low.max(initial=0.0)), 1e-9)
    around = {hz: low[np.searchsorted(pitches, hz - 5) : np.searchsorted(pitches, hz + 5)] for hz in wanted}
    return {hz: float(part.max(initial=0.0)) / loudest for hz, part in around.items()}


def find_beeps(samples: Floats) -> Iterator[tuple[float, int]]:
    """Find beeps and the instant of each: where its envelope first passes half of its height."""
    if len(samples) < WINDOW:
        return
    looks = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP]
    spectrum = np.abs(np.fft.rfft(looks * np.hanning(WINDOW).astype(np.float32), axis=1)) / (WINDOW / 4)
    bins = [round(beep_hz(number) * WINDOW / SAMPLE_RATE) for number in range(BEEPS)]
    loud = spectrum[:, bins]
    number_at, heard = loud.argmax(axis=1), loud.max(axis=1) > 0.2
    edges = np.flatnonzero(np.diff(np.concatenate(([0], heard.astype(np.int8), [0]))))
    for begin, end in zip(edges[::2], edges[1::2], strict=True):
        if (end - begin) * HOP < BEEP_SECONDS / 2 * SAMPLE_RATE:
            continue  # cut off by a join or a loss: a click has every pitch
        number = int(np.bincount(number_at[begin:end]).argmax())
        onset = _onset(samples, int(begin) * HOP + WINDOW // 2, beep_hz(number))
        if onset is not None:
            yield onset, number


def _onset(samples: Floats, around: int, hz: float) -> float | None:
    low, high = max(0, around - 2400), min(len(samples), around + int(BEEP_SECONDS * SAMPLE_RATE))
    turn = np.exp(-2j * np.pi * hz / SAMPLE_RATE * np.arange(low, high))
    smooth = 240  # a whole number of periods of every beep: the steady tone averages out
    envelope = np.abs(np.convolve(samples[low:high] * turn, np.ones(smooth) / smooth, mode="same"))
    over = envelope > envelope.max() / 2
    first = int(over.argmax())
    return None if not over.any() or first == 0 else (low + first) / SAMPLE_RATE


def _silences(samples: Floats) -> Iterator[tuple[float, float]]:
    size = SAMPLE_RATE // 50
    blocks = samples[: len(samples) // size * size].reshape(-1, size)
    quiet = np.sqrt((blocks**2).mean(axis=1)) < QUIET
    edges = np.flatnonzero(np.diff(np.concatenate(([0], quiet.astype(np.int8), [0]))))
    for begin, end in zip(edges[::2], edges[1::2], strict=True):
        if end - begin >= 3:
            yield float(begin) / 50, float(end) / 50


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the file's zero lies on the publishers' clock, as each stream says."""

    by_sound: float | None
    by_film: float | None
    scatter_sound: float
    """95th percentile of how far single beeps lie from `by_sound`."""
    scatter_film: float

    @property
    def zero(self) -> float:
        """By picture where there is one: its instants are the sharper ones."""
        return self.by_film if self.by_film is not None else self.by_sound or 0.0

    @property
    def sound_late(self) -> float:
        """How much later than the pictures sound plays; negative when it is early."""
        assert self.by_film is not None
        assert self.by_sound is not None
        return self.by_film - self.by_sound


def place(media: Media, sound: Sent | None, film: Sent | None, near: float) -> Placement:
    """Compare what is heard and seen with what was sent.

    Args:
        media: The file.
        sound: What the person's sound source sent; None when the file should hold none.
        film: The same for pictures.
        near: Roughly the file's zero on the publishers' clock, within 7 s: beeps count modulo 16.
    """
    by_sound = [zero for _, zero in _zeros_by_sound(media, sound, near)]
    by_film = [zero for _, zero in _zeros_by_film(media, film)]
    zero_s, zero_f = _median(by_sound), _median(by_film)
    return Placement(zero_s, zero_f, _p95(by_sound, zero_s), _p95(by_film, zero_f))


def _zeros_by_sound(media: Media, sound: Sent | None, near: float) -> Iterator[tuple[float, float]]:
    """When each beep is heard, and where the file's zero lies by it."""
    for beep in media.sound.beeps if media.sound and sound else ():
        second = round((near + beep.at - beep.number) / BEEPS) * BEEPS + beep.number
        if sound and sound.beeps.get(second, math.inf) - second < LATE_SECONDS:
            yield beep.at, sound.beeps[second] - beep.at


def _zeros_by_film(media: Media, film: Sent | None) -> Iterator[tuple[float, float]]:
    """When each picture is shown, and where the file's zero lies by it."""
    for shown in media.film.pictures if media.film and film else ():
        if film and shown.sign and shown.sign.serial in film.frames:
            yield shown.at, film.frames[shown.sign.serial].at - shown.at


def sound_after_film(media: Media, sound: Sent, film: Sent, near: float) -> list[float]:
    """Of each beep: how much later it plays than the pictures around it, within half a second; see `place`."""
    pictures = list(_zeros_by_film(media, film))
    found: list[float] = []
    for at, zero in _zeros_by_sound(media, sound, near):
        around = _median([by_film for shown_at, by_film in pictures if abs(shown_at - at) < 0.5])
        found += [] if around is None else [around - zero]
    return found


def beep_after_flash(media: Media, fps: int) -> list[float]:
    """Seconds from each flash to its beep, from the file alone (no ledger)."""
    assert media.sound
    assert media.film
    heard = {beep.number: [b.at for b in media.sound.beeps if b.number == beep.number] for beep in media.sound.beeps}
    found: list[float] = []
    for shown in media.film.pictures:
        if shown.flash and shown.sign and shown.sign.serial % fps == 0:
            near = [at - shown.at for at in heard.get(shown.sign.serial // fps % BEEPS, []) if abs(at - shown.at) < 0.5]
            found += near[:1]
    return found


@dataclass(frozen=True, slots=True)
class Frames:
    """Pictures sent against pictures recorded, between the first and the last recorded one."""

    sent: int
    missing: tuple[int, ...]
    repeated: tuple[int, ...]
    out_of_order: int


def compare_frames(film: Film, sent: Sent) -> Frames:
    """Find pictures that were sent and are not in the file, those that are there twice, and wrong order."""
    serials = film.serials
    if not serials:
        return Frames(len(sent.frames), tuple(sent.frames), (), 0)
    span = [serial for serial in sorted(sent.frames) if serials[0] <= serial <= serials[-1]]
    seen: set[int] = set()
    repeated = [serial for serial in serials if serial in seen or seen.add(serial)]  # type: ignore[func-returns-value]
    return Frames(
        sent=len(span),
        missing=tuple(serial for serial in span if serial not in seen),
        repeated=tuple(repeated),
        out_of_order=sum(later < earlier for earlier, later in pairwise(serials)),
    )


def _median(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if values else None


def _p95(values: Iterable[float], middle: float | None) -> float:
    distances = [abs(value - middle) for value in values] if middle is not None else []
    return float(np.percentile(distances, 95)) if distances else 0.0
