"""The decoding process: `python -m isotrack_recorder.verify.decode FILE CPU_SECONDS` prints a Seen, as JSON, on stdout.

It limits itself before it looks at the file: memory, CPU time, size of what it writes. libav is told that the file is
Matroska (a playlist of that name would make it open other files) and to use one thread. One walk, nothing is kept.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from isotrack_api.base import MediaKind
from isotrack_recorder.codecs.pcm import SILENCE

from .seen import MAX_ERRORS, MAX_HOLES, MAX_TAG, Hole, Seen, SeenError, SeenStream

if TYPE_CHECKING:
    from av.packet import Packet

MEMORY_BYTES: Final = 4 * 1024**3
OUTPUT_BYTES: Final = 16 * 1024**2
STILL_MS: Final = 2000.0
"""Pictures further apart are a gap: shorter pauses are a screen that does not change."""
CONTINUOUS_MS: Final = 40.0
"""Sound may be corrected by 30 ms at a packet, and times are whole milliseconds."""
STRETCH_MS: Final = 100.0
MAX_STREAMS: Final = 16
TAGS: Final = frozenset(("USER_ID", "PEER_ID", "PARTICIPANT", "START_OFFSET_MS", "SOURCE", "TRACK_ID"))
"""Of a file and its tracks those that its entry in the manifest says, too."""

_NAMES: Final = {"hevc": "h265", "pcm_mulaw": "pcmu", "pcm_alaw": "pcma", "adpcm_g722": "g722", "libdav1d": "av1"}
_OPUS_SILENCE: Final = frozenset(
    bytes((config << 3 | stereo, 0xFF, 0xFE)) for config in range(28, 32) for stereo in (0, 4)
)


def main(arguments: list[str]) -> int:
    """Returns 0 whatever the file is like; other codes mean that this process failed."""
    path, cpu_seconds = arguments[0], int(arguments[1])
    for limit, value in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_FSIZE, OUTPUT_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (value, value))
    sys.stdout.write(look_at(path).to_json() + "\n")
    return 0


def look_at(path: str) -> Seen:
    """Walk and decode a file; whatever is wrong with it stands in the result."""
    import av  # libav is loaded in this process alone
    import av.logging

    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture(local=True) as logs, av.open(path, format="matroska") as container:
            if len(container.streams) > MAX_STREAMS:
                return Seen(problem=f"has {len(container.streams)} tracks")
            watched = [_watch(stream) for stream in container.streams]
            problem = _damage(logs) or _walk(container, watched, logs)
            return Seen(
                problem=problem,
                start_ms=(container.start_time or 0) / 1000,
                duration_ms=(container.duration or 0) / 1000,
                tags=_tags(container.metadata),
                streams=tuple(one.result() for one in watched),
            )
    except (av.FFmpegError, ValueError, MemoryError) as error:
        return Seen(problem=_cut(f"cannot be opened: {error}"))


def _watch(stream: Any) -> _Watched:
    context = stream.codec_context
    if context is None or stream.type not in ("audio", "video"):
        return _Watched(MediaKind.VIDEO, f"unknown ({stream.type})", {})
    context.thread_type, context.thread_count = "NONE", 1
    name = context.name.removeprefix("lib")
    kind = MediaKind.AUDIO if stream.type == "audio" else MediaKind.VIDEO
    return _Watched(kind, _NAMES.get(context.name, {"dav1d": "av1"}.get(name, name)), _tags(stream.metadata))


def _tags(metadata: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in metadata.items() if name in TAGS and len(value) <= MAX_TAG}


def _walk(container: Any, watched: list[_Watched], logs: list[tuple[int, str, str]]) -> str:
    """Take each packet; what made the container unreadable, or nothing."""
    import av

    try:
        for packet in container.demux():
            if problem := _damage(logs):
                return problem
            one = watched[packet.stream_index]
            if packet.size:
                one.take(packet)
            one.decode(packet, logs)
    except (av.FFmpegError, MemoryError) as error:
        return _cut(f"breaks off: {error}")
    return _damage(logs)


def _damage(logs: list[tuple[int, str, str]]) -> str:
    """What the demuxer complained about. Decoders and parsers that it asks for advice speak up again when they decode."""
    own = [row for row in logs if row[1].startswith("matroska")]
    logs.clear()
    return _cut(f"is damaged: {_texts(own)}") if own else ""


@dataclass
class _Watched:
    """One track while it is walked."""

    kind: MediaKind
    codec: str
    tags: dict[str, str]
    packets: int = 0
    octets: int = 0
    first_ms: float = 0.0
    last_ms: float = 0.0
    first_key: bool = False
    decoded: int = 0
    samples: int = 0
    rate: int = 1
    silence_ms: float = 0.0
    silences: int = 0
    first_sound_ms: float | None = None
    holes: list[Hole] = field(default_factory=list)
    silent: list[Hole] = field(default_factory=list)
    error_count: int = 0
    errors: list[SeenError] = field(default_factory=list)
    _end_ms: float = 0.0
    _stretch_ms: float = 0.0

    def take(self, packet: Packet[Any]) -> None:
        """Note a packet's place."""
        base = packet.time_base or 0
        at = float((packet.pts or 0) * base * 1000)
        length = float((packet.duration or 0) * base * 1000)
        if not self.packets:
            self.first_ms, self.first_key = at, packet.is_keyframe
        else:
            limit, edge = (STILL_MS, self.last_ms) if self.kind is MediaKind.VIDEO else (CONTINUOUS_MS, self._end_ms)
            if at - edge >= limit and len(self.holes) < MAX_HOLES:
                self.holes.append(Hole(start_ms=edge, end_ms=at))
        self.packets += 1
        self.octets += packet.size
        self.last_ms, self._end_ms = at, at + length
        if self.kind is MediaKind.AUDIO:
            self._listen(bytes(packet), at, length)

    def _listen(self, data: bytes, at: float, length: float) -> None:
        if data in _OPUS_SILENCE if self.codec == "opus" else data.count(SILENCE.get(self.codec, -1)) == len(data):
            self.silence_ms += length
            self.silences += self._stretch_ms < STRETCH_MS <= self._stretch_ms + length
            self._stretch_ms += length
        else:
            self._end_silence(at)
            if self.first_sound_ms is None:
                self.first_sound_ms = at

    def _end_silence(self, at: float) -> None:
        if self._stretch_ms and len(self.silent) < MAX_HOLES:
            self.silent.append(Hole(start_ms=at - self._stretch_ms, end_ms=at))
        self._stretch_ms = 0.0

    def decode(self, packet: Packet[Any], logs: list[tuple[int, str, str]]) -> None:
        """Decode a packet, or with an empty one what the decoder still holds."""
        import av

        try:
            frames: list[Any] = list(packet.decode())
        except av.FFmpegError as error:
            logs.clear()
            self._fail(str(error))
            return
        for frame in frames:
            self.decoded += 1
            if self.kind is MediaKind.AUDIO:
                self.samples, self.rate = self.samples + frame.samples, frame.sample_rate
            elif frame.is_corrupt:
                self._fail("the picture is damaged")
        if logs:
            self._fail(_texts(logs))
            logs.clear()

    def _fail(self, text: str) -> None:
        self.error_count += 1
        if len(self.errors) < MAX_ERRORS:
            self.errors.append(SeenError(at_ms=self.last_ms, text=_cut(text, 200)))

    def result(self) -> SeenStream:
        """What came of it."""
        self._end_silence(self._end_ms)
        return SeenStream(
            kind=self.kind,
            codec=self.codec[:32],
            packets=self.packets,
            bytes=self.octets,
            first_ms=self.first_ms,
            last_ms=self.last_ms,
            first_key=self.first_key,
            decoded=self.decoded,
            decoded_ms=self.samples * 1000 / self.rate,
            silence_ms=self.silence_ms,
            silences=self.silences,
            first_sound_ms=self.first_sound_ms,
            holes=tuple(self.holes),
            silent=tuple(self.silent),
            error_count=self.error_count,
            errors=tuple(self.errors),
            tags=self.tags,
        )


def _texts(logs: list[tuple[int, str, str]]) -> str:
    return "; ".join(f"{name}: {message.strip()}" for _, name, message in logs[:3])


def _cut(text: str, limit: int = 300) -> str:
    return " ".join(text.split())[:limit]


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
