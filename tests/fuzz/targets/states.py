"""What an agent that was killed left for the next one: states of sessions, and the ledger of what is in the bucket."""

from __future__ import annotations

import functools
import json
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from fuzz.harness import Harness
from isotrack_recorder.errors import ParseError
from isotrack_recorder.finalise.saved import SessionState
from isotrack_recorder.finalise.session import SessionStream
from isotrack_recorder.ship.ledger import LEDGER_NAME, Ledger
from isotrack_recorder.ship.store import MAX_PARTS, PART_BYTES, Part
from isotrack_recorder.spool import facts
from isotrack_recorder.spool.reader import Spool
from support.rtp import vp8_frame
from support.spools import SECOND, Call, Sender, an_intent, steady

PEER = "PA_a"
_INTENT = an_intent()
_LONGEST_NS = 120 * SECOND
"""Of a call: silence of days would be correct, and take minutes."""
_MOST_TURNS = 20
_MOST_BYTES = 64 * 1024 * 1024
_TOKENS = tuple(
    token.encode()
    for token in (
        *("9223372036854775807", "-9223372036854775808", "5000000000000", "5040000000000", "null", "true", "1e400", "[]", "{}"),
        *('"opus"', '"vp8"', '"pcmu"', '"h264"', '"audio"', '"video"', '"i0001/t0001"', '"i0001/t0002"', '"../../recording.json"'),
        *('"group":', '"spell":', '"decided":', '"number":', '"position":', '"hole_end":', '"offset":', '"cluster":', '"knots":'),
    )
)  # fmt: skip
_LEDGER_TOKENS = (
    b'{"part":{',
    b'{"file":{',
    b'{"upload":{',
    b'"number":',
    b'"name":"a.mkv"',
    b"1e400",
    b"null",
    b"[" * 1500,
    b"\n",
)


def harnesses() -> Iterator[Harness]:
    """All of this module."""
    yield Harness("session-state", fuzz_state, max_bytes=16384, share=0.02, tokens=_TOKENS, text=True)
    yield Harness("ledger", fuzz_ledger, share=0.2, tokens=_LEDGER_TOKENS, text=True)


class Extent:
    """A FileSink that keeps nothing, and takes no more than such a call can make."""

    def __init__(self) -> None:
        self.bytes = 0
        self.names: set[str] = set()
        self.low = self.high = 0

    def write(self, name: str, offset: int, data: bytes) -> None:
        """See FileSink. Only noted: what is raised here would be taken for a fault of the state."""
        self.names.add(name)
        self.low, self.high = min(self.low, offset), max(self.high, offset)
        self.bytes += len(data)

    def check(self) -> None:
        """No other place than that of a file, and no more than such a call can make."""
        assert all(name.isascii() and not set(name) & set("/\\ \0") and not name.startswith(".") for name in self.names)
        assert self.low == 0
        assert self.high <= MAX_PARTS * PART_BYTES
        assert self.bytes <= _MOST_BYTES


@functools.cache
def _files() -> dict[str, bytes]:
    """The spool of a call of 40 s with sound, a mute, pictures and a loss."""
    with _folder() as place:
        call = Call(place)
        call.person(PEER, "alice", left=40)
        call.track("t0001", PEER, "alice", "microphone", "opus", 0.1)
        call.track("t0002", PEER, "alice", "camera", "vp8", 0.2)
        sound = steady(((b"\xf8\xff\xfe", True) for _ in range(180)), 0.5, 0.2)
        call.frames("t0001", Sender(), 48_000, sound, reports=range(2, 38, 5))
        film = steady(((vp8_frame(n, key=n % 20 == 0, size=60), n % 20 == 0) for n in range(70)), 0.6, 0.5)
        call.frames("t0002", Sender(), 90_000, film, reports=range(3, 38, 5), lost=[25])
        call.event("muted", 20, track="t0001")
        call.event("unmuted", 24, track="t0001")
        call.write(stop=40)
        return {path.name: path.read_bytes() for path in (place / "i0001").iterdir()}


@contextmanager
def _folder() -> Iterator[Path]:
    """Gone afterwards: workers of a test run end without a goodbye, and nothing may be left behind them."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="fuzz-state-", dir=memory if memory.is_dir() else None) as place:
        yield Path(place)


@contextmanager
def spool() -> Iterator[Spool]:
    """The call, as a process that begins finds it."""
    with _folder() as place:
        (place / "i0001").mkdir()
        for name, content in _files().items():
            (place / "i0001" / name).write_bytes(content)
        found = Spool(place)
        found.refresh()
        yield found


def states() -> Iterator[tuple[str, bytes]]:
    """What is saved in the middle of it, and behind its end."""
    with spool() as call:
        stream = SessionStream(call, _INTENT, SessionState(PEER), Extent())
        yield "begun", stream.save()
        for groups in (2, 3):
            stream.advance(whole=False, most_groups=groups)
            yield f"group-{stream.state.group}", stream.save()
        stream.advance(whole=True)
        yield "over", stream.save()


def fuzz_state(data: bytes) -> None:
    """A state that anybody wrote is refused, now or as soon as it contradicts itself; or files are made, as long as the call."""
    with patch.object(facts, "MAX_CALL_NS", _LONGEST_NS), spool() as call:
        sink = Extent()
        try:
            stream = SessionStream.restore(call, _INTENT, data, sink)
        except ParseError:
            return
        SessionStream.restore(call, _INTENT, stream.save(), sink)
        try:
            _go_on(stream)
        except ParseError:
            return
        finally:
            sink.check()
        assert stream.state.over
        stream.save()
        stream.positions()


def _go_on(stream: SessionStream) -> None:
    for _ in range(_MOST_TURNS):
        if not stream.advance(whole=True, most_groups=12):
            return
    raise AssertionError("it takes more turns than such a call has groups")


def fuzz_ledger(data: bytes) -> None:
    """Lines as they are, and each line with a checksum that fits: what is no fact is passed over, what follows is kept."""
    for content in (data, b"".join(b"%08x %s\n" % (zlib.crc32(line), line) for line in data.split(b"\n"))):
        with _folder() as place:
            (place / LEDGER_NAME).write_bytes(content)
            ledger = Ledger(place)
            ledger.add_upload("ours.mkv", "u")
            ledger.add_part("ours.mkv", Part(2, "e", 5, bytes(16), 7, bytes(32)))
            again = Ledger(place)
            upload = again.upload("ours.mkv")
            assert upload is not None
            assert list(upload.parts) == [2]
            assert again.files == ledger.files
            for name, file in again.files.items():
                assert file.name == name
                json.loads(file.to_json())
