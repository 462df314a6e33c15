"""Play a file in Chromium, as a person would who opens a link to it: headless, nothing shown, from beginning to end.

A page of one element asks this module's server for the file and tells it what became of it. Playing is hurried; what counts is that
the browser accepts the file, knows its length before it has seen its end, can go to the middle, and decodes every picture.
"""

from __future__ import annotations

import http.server
import json
import queue
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PAGE = b"""<!doctype html><video id=v muted preload=auto src=media></video><script>
const told = {};
const tell = () => fetch('told', {method: 'POST', body: JSON.stringify(told)});
const wait = name => new Promise((good, bad) => {
  v.addEventListener(name, good, {once: true});
  v.addEventListener('error', () => bad(v.error.message), {once: true});
});
(async () => {
  try {
    if (v.readyState < 1) await wait('loadedmetadata');
    Object.assign(told, {duration: v.duration, width: v.videoWidth, height: v.videoHeight});
    const middle = wait('seeked'); v.currentTime = v.duration / 2; await middle;
    told.middle = v.currentTime;
    const begin = wait('seeked'); v.currentTime = 0; await begin;
    const before = v.getVideoPlaybackQuality().totalVideoFrames;
    v.playbackRate = 4;
    const end = wait('ended'); await v.play(); await end;
    const quality = v.getVideoPlaybackQuality();
    Object.assign(told, {end: v.currentTime, frames: quality.totalVideoFrames - before, corrupted: quality.corruptedVideoFrames,
                         sound: v.webkitAudioDecodedByteCount});
  } catch (error) { told.error = String(error); }
  tell();
})();
</script>"""


@dataclass(frozen=True, slots=True)
class Played:
    """What Chromium says of a file."""

    duration: float
    """Before playing, in seconds."""
    width: int
    height: int
    middle: float
    """Where it went when told to go to half of the duration."""
    end: float
    """Where playing ended."""
    frames: int
    """Pictures decoded from the beginning to the end; it may leave out some when hurried."""
    corrupted: int
    sound: int
    """Bytes of sound decoded."""


def play(program: str, path: Path, folder: Path, seconds: float = 120) -> Played:
    """Open a file and play it.

    Args:
        program: Of Chromium.
        path: The file.
        folder: For the browser's profile.
    Raises:
        AssertionError: Chromium does not take the file, or says nothing in time.
    """
    with _serving(path) as (port, told):
        command = [
            program,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-extensions",
            "--mute-audio",
        ]
        command += [
            "--disable-dev-shm-usage",
            "--autoplay-policy=no-user-gesture-required",
            "--disable-background-networking",
        ]
        command += [f"--user-data-dir={folder}", "--remote-debugging-port=0", f"http://127.0.0.1:{port}/"]
        with (folder.parent / "chromium.log").open("wb") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            said = told.get(timeout=seconds)
        except queue.Empty:
            raise AssertionError(f"Chromium says nothing of {path.name} within {seconds:g} s") from None
        finally:
            process.terminate()
            process.wait(60)
    assert "error" not in said, f"{path.name}: {said}"
    return Played(**said)


@contextmanager
def _serving(path: Path) -> Iterator[tuple[int, queue.Queue[dict[str, Any]]]]:
    """A page that plays the file, and what it says."""
    content = path.read_bytes()
    told: queue.Queue[dict[str, Any]] = queue.Queue()
    kind = "video/webm" if path.suffix == ".webm" else "video/x-matroska"

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            if self.path == "/":
                self._answer(200, "text/html", _PAGE)
            elif self.path != "/media":
                self._answer(404, "text/plain", b"")
            elif found := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
                begin, end = int(found[1]), min(int(found[2] or len(content) - 1), len(content) - 1)
                self._answer(206, kind, content[begin : end + 1], f"bytes {begin}-{end}/{len(content)}")
            else:
                self._answer(200, kind, content)

        def do_POST(self) -> None:
            told.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self._answer(200, "text/plain", b"")

        def _answer(self, status: int, content_type: str, body: bytes, content_range: str = "") -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Accept-Ranges", "bytes")
            if content_range:
                self.send_header("Content-Range", content_range)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing on stderr."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, name="page", daemon=True)
    thread.start()
    try:
        yield server.server_address[1], told
    finally:
        server.shutdown()
        server.server_close()
