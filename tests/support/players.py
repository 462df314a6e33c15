"""What programs that read Matroska each in its own way have to say against a file.

ffmpeg decodes it (libavformat), mkvmerge copies it (libebml and libmatroska), mpv plays it (a demuxer of its own, ffmpeg's decoders),
VLC plays it (a demuxer on libmatroska, packetizers and some decoders of its own). None of them shows or sounds anything. What they
say about the machine (no time, no display) is not about the file and left out.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

_SECONDS: Final = 120
_NOBODY: Final = 65534
_MPV_NOTHING_LEFT: Final = "No video or audio streams selected."
"""Of a file of one kind, when that is not to be played."""
_VLC_LINE: Final = re.compile(r"\[[0-9a-f]+\] (\w+) (demux|decoder|packetizer|input|stream) (error|warning): (.*)")
_VLC_ALWAYS: Final = frozenset(("mkv: find KaxCues FIXME", "mkv: EOF", "mkv: cannot get block EOF?"))
"""Of every file in Matroska, whoever wrote it, VLC says so when it comes to Cues and to the end."""
VLC_KNOWS_NO_G722: Final = frozenset(
    (
        "VLC: mkv: Unrecognized wf tag: 0x28f",
        "VLC: main: Unidentified codec",
        "VLC: main: could not identify codec",
        "VLC: main: VLC could not identify the audio or video codec",
    )
)
"""In Matroska: its table of formats (`A_MS/ACM`) has none for it."""


def complaints(path: Path) -> list[str]:
    """What is said against a file by all but VLC; ffmpeg guesses the layout of any G.711."""
    return [*_ffmpeg(path), *_mkvmerge(path), *_mpv(path)]


def complaints_of_vlc(path: Path) -> list[str]:
    """What VLC says against a file. Of AV1 in spatial layers it shows nothing, and waits for ever."""
    return [*_vlc(path)]


def _ffmpeg(path: Path) -> Iterator[str]:
    done = _run("ffmpeg", "-v", "warning", "-nostdin", "-i", path, "-enc_time_base", "-1", "-f", "null", "-")
    yield from (line for line in done.stderr.splitlines() if not line.startswith("Guessed Channel Layout"))
    yield from _failed(done)


def _mkvmerge(path: Path) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        done = _run("mkvmerge", "-o", Path(folder, "copy.mkv"), path)
    yield from (line for line in done.stdout.splitlines() if line.startswith(("Warning", "Error")))
    yield from _failed(done)


def _mpv(path: Path) -> Iterator[str]:
    """Sound and pictures one after the other: how well they keep together depends on the machine's load."""
    played = False
    for what in ("--no-video", "--no-audio"):
        quiet = ("--no-config", "--quiet", "--msg-level=all=warn", "--vo=null", "--ao=null", "--ao-null-untimed")
        done = _run("mpv", *quiet, "--untimed", "--load-scripts=no", "--ytdl=no", what, path)
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line]
        if lines != [_MPV_NOTHING_LEFT]:
            played = True
            yield from (f"mpv {what}: {line}" for line in lines)
            yield from _failed(done)
    if not played:
        yield "mpv finds neither sound nor pictures"


def _vlc(path: Path) -> Iterator[str]:
    """VLC does not run as root, so it is given the open file: others may not come to where it lies."""
    command = ["vlc", "-I", "dummy", "--no-color", "--verbose=2", "--aout=dummy", "--vout=dummy", "--rate=4"]
    command += ["--no-metadata-network-access", "--play-and-exit", "fd://0", "vlc://quit"]
    if os.geteuid() == 0:
        command = ["setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups", *command]
    with path.open("rb") as file:
        environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": "/nonexistent"}
        done = subprocess.run(command, stdin=file, capture_output=True, text=True, timeout=_SECONDS, env=environment)
    for line in done.stderr.splitlines():
        found = _VLC_LINE.match(line)
        if found is not None:
            said = f"{found[1]}: {found[4].strip()}"
            if said not in _VLC_ALWAYS and " late" not in said:  # late: the machine has other things to do
                yield f"VLC: {said}"
    if " debug: EOF reached" not in done.stderr:
        yield f"VLC did not come to the end: {done.stderr[-1000:]}"
    yield from _failed(done)


def _run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS)


def _failed(done: subprocess.CompletedProcess[str]) -> Sequence[str]:
    return [f"{done.args[0]}: {done.returncode}"] if done.returncode else []
