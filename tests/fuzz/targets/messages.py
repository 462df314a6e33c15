"""What other processes say: the recorder's control socket, a pod's last words."""

from __future__ import annotations

from collections.abc import Iterator

from fuzz.harness import Harness, as_text
from isotrack_operator.view import parse_termination
from isotrack_recorder.control import decode, encode
from isotrack_recorder.errors import ParseError

_JSON = tuple(text.encode() for text in ("null", "true", "1e999", "NaN", "[" * 1500, '{"":' * 1500, '"\\ud800"', "-1"))
_CONTROL = (b'"type":"', b"state", b"command", b"hello", b'"desired":"', b'"userIds":[', b'"tracks":[{', b'"callSid":"')
_TERMINATION = (b'"stopReason":"', b'"manifestUri":"', b'"files":', b'"complete":', b'"endedAt":"', b'"epochMs":')


def harnesses() -> Iterator[Harness]:
    """All of this module."""
    yield Harness("control", fuzz_control, tokens=_JSON + _CONTROL, text=True)
    yield Harness("termination", fuzz_termination, tokens=_JSON + _TERMINATION, text=True)


def fuzz_control(data: bytes) -> None:
    """A line is a message, unknown, or a ParseError; a message reads the same when it is written again."""
    try:
        message = decode(data)
    except ParseError:
        return
    if message is not None:
        assert decode(encode(message)) == message


def fuzz_termination(data: bytes) -> None:
    """Last words are read or ignored; what is read is bounded (a condition and a status field take them)."""
    words = parse_termination(as_text(data))
    if words is not None:
        assert len(words.reason) <= 63
        assert len(words.message) <= 1000
        assert len(words.manifest_uri) <= 2048
        assert words.files is None or 0 <= words.files <= 2**53
