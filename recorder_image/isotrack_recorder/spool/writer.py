"""Write the spool: frames and facts gather in memory and go to disk together, at most half a second later.

A SpoolWriter owns one incarnation folder for the life of one process: the journal and one TrackLog per track. `append`
and `journal` only queue; `flush_soon`, called by one timer of the owner, has everything queued handed to the kernel with one
gathered write per file. That is enough to survive the death of the process (the page cache stays); nothing is fsynced.
The writing is done by one thread: a disk that stalls for seconds (the kernel makes writers wait when too much is dirty) must
not keep the event loop from its sockets, which hold less. Memory is bounded: a track that queues more than
`MAX_QUEUED_BYTES` is flushed at once, and from `MAX_PENDING_BYTES` on the loop waits with the disk after all.

A write that fails (disk full) leaves each file ending in a whole record: what was torn is cut off again. From then on
nothing more is taken, and `failure` tells why; the journal can still say so, because a small file that was reserved at
the start is given back to the disk first.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

from .journal import MAX_LINE_BYTES, encode_line
from .journal_files import journal_path
from .records import HEADER, MAGIC, MAX_FRAME_BYTES, encode_header

T = TypeVar("T")

SEGMENT_BYTES: Final = 32 * 1024 * 1024
MAX_QUEUED_BYTES: Final = 4 * 1024 * 1024
MAX_PENDING_BYTES: Final = 64 * 1024 * 1024
"""Flushed, but not written yet: three seconds of a hundred people with cameras."""
RESERVE_BYTES: Final = 256 * 1024
_HEADER_BYTES: Final = HEADER.size
_IOV_MAX: Final = 1000
"""Buffers per writev; Linux takes 1024 (UIO_MAXIOV)."""


def write_all(fd: int, buffers: Sequence[bytes]) -> None:
    """Write all of `buffers` in order, however many calls it takes.

    Raises:
        OSError: Some of it may have been written.
    """
    for start in range(0, len(buffers), _IOV_MAX):
        batch = buffers[start : start + _IOV_MAX]
        total = sum(map(len, batch))
        written = os.writev(fd, batch)
        if written < total:  # a signal or a nearly full disk: the rest byte by byte offset
            rest = memoryview(b"".join(batch))[written:]
            while rest:
                rest = rest[os.write(fd, rest) :]


class _AppendFile:
    """A file that always ends where its last whole write ended."""

    __slots__ = ("_fd", "size")

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self.size = 0

    def append(self, buffers: Sequence[bytes]) -> None:
        """Write everything or nothing; OSError when it was nothing."""
        try:
            write_all(self._fd, buffers)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self.size)
            raise
        self.size += sum(map(len, buffers))

    def close(self) -> None:
        os.close(self._fd)


class _Journal:
    """The facts, in segments like the frames. In the writing thread."""

    def __init__(self, folder: Path, segment_bytes: int) -> None:
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._number = 1
        self._file = _AppendFile(journal_path(folder, 1))

    def append(self, lines: Sequence[bytes]) -> None:
        """Write everything or nothing; OSError when it was nothing."""
        if self._file.size >= self._segment_bytes:
            following = _AppendFile(journal_path(self._folder, self._number + 1))
            self._file.close()
            self._file, self._number = following, self._number + 1
        self._file.append(lines)

    def close(self) -> None:
        """Close the segment."""
        self._file.close()


class TrackLog:
    """Frames of one track, in segments of about `segment_bytes`. The first segment is made with the first frame.

    `append` belongs to the event loop's thread, everything that touches the file to the writing thread.
    """

    __slots__ = (
        "_file",
        "_handed_bytes",
        "_handed_frames",
        "_queue",
        "_segment",
        "_writer",
        "name",
        "queued",
        "released",
    )

    def __init__(self, writer: SpoolWriter, name: str) -> None:
        self.name = name
        self.released = False
        """The track is over: nothing more is taken, and its file is closed with the next flush."""
        self._writer = writer
        self._file: _AppendFile | None = None
        self._segment = 0
        self._queue: list[bytes] = []
        self.queued = 0
        """Bytes of the queue."""
        self._handed_frames = 0
        self._handed_bytes = 0
        """Of what is queued no more."""

    @property
    def frames(self) -> int:
        """Frames taken, written or still queued."""
        return self._handed_frames + len(self._queue) // 2

    @property
    def media_bytes(self) -> int:
        """What was in them."""
        return self._handed_bytes + self.queued - len(self._queue) // 2 * _HEADER_BYTES

    def append(self, timestamp: int, arrival_ns: int, flags: int, frame: bytes) -> None:
        """Queue one frame (fields as in `records`). Frames beyond 16 MiB are not taken."""
        size = len(frame)
        if size > MAX_FRAME_BYTES or self.released or self._writer.failure is not None:
            return
        self._queue += (encode_header(timestamp, arrival_ns, flags, frame), frame)
        self.queued = queued = self.queued + size + _HEADER_BYTES
        if queued > MAX_QUEUED_BYTES:
            self._writer.flush_soon()

    def take_queue(self) -> list[bytes]:
        """Hand over what is queued. For the SpoolWriter only, which writes the journal before."""
        self._handed_frames, self._handed_bytes = self.frames, self.media_bytes
        queue, self._queue, self.queued = self._queue, [], 0
        return queue

    def write(self, queue: list[bytes]) -> None:
        """Hand frames to the kernel. In the writing thread."""
        if self._file is not None and self._file.size >= self._writer.segment_bytes:
            self._file.close()
            self._file = None
        if self._file is None:
            self._segment += 1
            self._file = _AppendFile(self._writer.folder / f"{self.name}.{self._segment:06}.log")
            queue.insert(0, MAGIC)
        self._file.append(queue)

    def close(self) -> None:
        """Close the segment. In the writing thread, behind the last write."""
        if self._file is not None:
            self._file.close()
            self._file = None


class _Batch(NamedTuple):
    """What one flush took out of the queues."""

    lines: list[bytes]
    frames: list[tuple[TrackLog, list[bytes]]]
    over: list[TrackLog]


class SpoolWriter:
    """The one writer of one incarnation. `spool` is made where it is missing. Segments are closed at `segment_bytes`.

    Raises:
        OSError: The folder cannot be made or written.
    """

    def __init__(self, spool: Path, segment_bytes: int = SEGMENT_BYTES) -> None:
        spool.mkdir(parents=True, exist_ok=True)
        self.segment_bytes = segment_bytes
        self._taken = 0
        self.incarnation, self.folder = _make_incarnation(spool)
        self.failure: OSError | None = None
        """Why nothing is taken any more."""
        self._closed = False
        self._opened = 0
        self._tracks: list[TrackLog] = []
        """Logs of tracks that are not over."""
        self._lines: list[bytes] = []
        self._unwritten: list[bytes] = []
        """Facts that a full disk did not take: tried once more at the end, when there is the reserve's room."""
        self._reserve: Path | None = self.folder / "reserve"
        _allocate(self._reserve)
        self._journal = _Journal(self.folder, segment_bytes)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._handed = 0
        """`taken` at the newest flush."""
        self._pending: deque[tuple[Future[None], int]] = deque()
        """Flushes on their way, with their bytes; oldest first, as the one thread writes them."""

    @property
    def taken(self) -> int:
        """Bytes of frames and facts taken so far, written or still queued. Added up here: frames come more often than somebody asks."""
        return self._taken + sum(track.queued for track in self._tracks)

    def open_track(self) -> TrackLog:
        """Begin the log of one more track, named t0001, t0002, …"""
        self._opened += 1
        log = TrackLog(self, f"t{self._opened:04}")
        self._tracks.append(log)
        return log

    def journal(self, event: str, at_ns: int, **fields: object) -> None:
        """Queue one journal line (`journal` lists events and fields). A line beyond 64 KiB is not taken."""
        line = encode_line(event, at_ns, fields)
        if len(line) <= MAX_LINE_BYTES:
            self._lines.append(line)
            self._taken += len(line)

    def flush_soon(self) -> None:
        """Have everything queued written by the writing thread.

        Returns at once, unless so much waits for a disk that stalls that memory would run out: then it waits with the disk.
        """
        self._hand_over()
        while self._pending and sum(size for _, size in self._pending) > MAX_PENDING_BYTES:
            self._pending[0][0].result()
            self._forget_written()

    def flush(self) -> None:
        """Hand everything queued to the kernel before returning. Failing sets `failure` instead of raising."""
        self._hand_over()
        self.await_written()

    def await_written(self) -> None:
        """Return when the flushes so far are written."""
        while self._pending:
            self._pending.popleft()[0].result()

    def aside(self, work: Callable[[], T]) -> Future[T]:
        """Have the writing thread do something behind the flushes so far: what asks the disk may wait for it. Not after `close`."""
        return self._thread.submit(work)

    def close(self) -> None:
        """Flush and close all files. Nothing is taken afterwards; flushing once more does nothing."""
        self.flush()
        self._closed = True
        self._thread.submit(self._close_files).result()
        self._thread.shutdown()

    def _hand_over(self) -> None:
        if self._closed:
            return
        self._taken = self.taken
        queues = ((track, track.take_queue()) for track in self._tracks)
        batch = _Batch(
            self._lines,
            [(track, queue) for track, queue in queues if queue],
            [track for track in self._tracks if track.released],
        )
        self._lines = []
        if batch.over:
            self._tracks = [track for track in self._tracks if not track.released]
        size, self._handed = self._taken - self._handed, self._taken
        self._forget_written()
        self._pending.append((self._thread.submit(self._write, batch), size))

    def _forget_written(self) -> None:
        while self._pending and self._pending[0][0].done():
            self._pending.popleft()[0].result()

    # In the writing thread

    def _write(self, batch: _Batch) -> None:
        self._unwritten += batch.lines
        try:
            # NB: facts before frames: a reader of a torn spool then knows codec and SSRC of every frame it finds.
            self._write_lines()
            if self.failure is None:
                for track, queue in batch.frames:
                    track.write(queue)
        except OSError as error:
            self._give_back_reserve()
            self.failure = self.failure or error
        for (
            track
        ) in batch.over:  # tracks come and go by the thousand; each open file counts against the process's limit
            track.close()

    def _close_files(self) -> None:
        if self.failure is not None:
            with contextlib.suppress(OSError):
                self._write_lines()
        for track in self._tracks:
            track.close()
        self._journal.close()
        self._give_back_reserve()

    def _write_lines(self) -> None:
        if self._unwritten:
            self._journal.append(self._unwritten)
            self._unwritten = []

    def _give_back_reserve(self) -> None:
        if self._reserve is not None:
            self._reserve.unlink(missing_ok=True)
            self._reserve = None


def _make_incarnation(spool: Path) -> tuple[int, Path]:
    """Make the next `i<n>` folder; two processes at once get two folders."""
    number = 1 + max((int(path.name[1:]) for path in spool.glob("i[0-9][0-9][0-9][0-9]")), default=0)
    while True:
        folder = spool / f"i{number:04}"
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            number += 1
        else:
            return number, folder


def _allocate(path: Path) -> None:
    """Take `RESERVE_BYTES` of real disk space."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, RESERVE_BYTES)
    finally:
        os.close(fd)
