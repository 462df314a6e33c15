"""Orders: what a capture needs to know of its Intent.

A recorder must be in the call within a second, and loading the Intent's model (with pydantic) takes a quarter of that. So what the
model writes is read here without it, as strictly; whatever looks different is left to the model, which takes it or says what is
wrong. Layers and storage are the agent's, which reads the whole intent with the model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

from isotrack_api.words import (
    DEFAULT_EMPTY_TIMEOUT_SECONDS,
    DEFAULT_KEY_FRAME_INTERVAL_SECONDS,
    DEFAULT_MAX_DURATION_SECONDS,
    Quality,
)

from .settings import read_intent

if TYPE_CHECKING:
    from isotrack_api.intent import Intent

REQUIRED: Final = frozenset(("recording", "callId", "source", "folder"))
OPTIONAL: Final = frozenset(
    ("version", "attempt", "callSid", "layers", "userIds", "paused", "limits", "storage", "spoolBytes", "epochMs")
) | {"keyFrameIntervalSeconds"}
"""Members of an Intent."""
_URL: Final = re.compile(r"(ws|wss|http|https)://")
_BYTES_OR_MS: Final = 2**53

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Orders:
    """See the members of the same names in `isotrack_api.intent`."""

    recording_uid: str
    call_id: str
    call_sid: str = ""
    attempt: int = 1
    url: str
    quality: Quality = Quality.HIGH
    user_ids: tuple[str, ...] | None = None
    paused: bool = False
    max_duration_seconds: int = DEFAULT_MAX_DURATION_SECONDS
    empty_timeout_seconds: int = DEFAULT_EMPTY_TIMEOUT_SECONDS
    key_frame_interval_seconds: int = DEFAULT_KEY_FRAME_INTERVAL_SECONDS
    spool_bytes: int | None = None
    epoch_ms: int | None = None


def orders_of(intent: Intent) -> Orders:
    """Take from an intent what a capture needs."""
    return Orders(
        recording_uid=intent.recording.uid,
        call_id=intent.call_id,
        call_sid=intent.call_sid or "",
        attempt=intent.attempt,
        url=intent.source.url,
        quality=intent.source.quality,
        user_ids=intent.user_ids,
        paused=intent.paused,
        max_duration_seconds=intent.limits.max_duration_seconds,
        empty_timeout_seconds=intent.limits.empty_timeout_seconds,
        key_frame_interval_seconds=intent.key_frame_interval_seconds,
        spool_bytes=intent.spool_bytes,
        epoch_ms=intent.epoch_ms,
    )


def read_orders(environ: Mapping[str, str]) -> Orders:
    """Read them from ISOTRACK_INTENT.

    Raises:
        ConfigError: Missing, or not an Intent of a version that we know.
    """
    try:
        return read_as_written(json.loads(environ.get("ISOTRACK_INTENT", "")))
    except (ValueError, RecursionError):  # nested a thousand deep
        return orders_of(read_intent(environ))


def read_as_written(value: object) -> Orders:
    """Read what `Intent.to_json` writes.

    Raises:
        ValueError: It looks different; it may be an intent all the same.
    """
    intent = _closed(value, REQUIRED, OPTIONAL)
    recording = _closed(intent["recording"], {"namespace", "name", "uid"})
    source = _closed(intent["source"], {"url", "identity"}, {"kind", "quality"})
    limits = _closed(intent.get("limits", {}), (), {"maxDurationSeconds", "emptyTimeoutSeconds"})
    _whole(intent.get("version", 1), 1, 1)
    _text(intent["folder"], 0, 512)
    _text(recording["namespace"], 0, 63)
    _text(recording["name"], 0, 253)
    _text(source["identity"], 1, 128)
    url = _text(source["url"], 0, 2048)
    if source.get("kind", "livekit") != "livekit" or not _URL.match(url):
        raise ValueError("another source")
    return Orders(
        recording_uid=_text(recording["uid"], 8, 36),
        call_id=_text(intent["callId"], 1, 256),
        call_sid=_maybe(_text, intent.get("callSid"), 0, 128) or "",
        attempt=_whole(intent.get("attempt", 1), 1, 10_000),
        url=url,
        quality=Quality(source.get("quality", Quality.HIGH)),
        user_ids=_maybe(_texts, intent.get("userIds"), 1, 256),
        paused=_flag(intent.get("paused", False)),
        max_duration_seconds=_whole(limits.get("maxDurationSeconds", DEFAULT_MAX_DURATION_SECONDS), 1, 7 * 86400),
        empty_timeout_seconds=_whole(limits.get("emptyTimeoutSeconds", DEFAULT_EMPTY_TIMEOUT_SECONDS), 0, 86400),
        key_frame_interval_seconds=_whole(
            intent.get("keyFrameIntervalSeconds", DEFAULT_KEY_FRAME_INTERVAL_SECONDS), 0, 3600
        ),
        spool_bytes=_maybe(_whole, intent.get("spoolBytes"), 1, _BYTES_OR_MS),
        epoch_ms=_maybe(_whole, intent.get("epochMs"), 0, _BYTES_OR_MS),
    )


def _closed(value: object, required: Any, optional: Any = ()) -> dict[str, Any]:
    if not isinstance(value, dict) or not set(required) <= set(value) <= {*required, *optional}:
        raise ValueError("other members")
    return value


def _maybe(read: Callable[[object, int, int], _T], value: object, least: int, most: int) -> _T | None:
    return None if value is None else read(value, least, most)


def _whole(value: object, least: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError("another number")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("no flag")
    return value


def _text(value: object, least: int, most: int) -> str:
    if not isinstance(value, str) or not least <= len(value) <= most:
        raise ValueError("another text")
    value.encode()  # half a surrogate pair is no text
    return value


def _texts(value: object, least: int, most: int) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > 100:
        raise ValueError("another list")
    return tuple(_text(one, least, most) for one in value)
