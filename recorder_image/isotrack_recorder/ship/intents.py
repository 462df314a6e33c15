"""What a recording was to be, as its folder tells: `intent.json`, and once more with each attempt's number."""

from __future__ import annotations

import logging
from typing import Final

from pydantic import ValidationError

from isotrack_api.intent import Intent

from .commit import attempt_keys
from .layout import Layout
from .store import Store

log = logging.getLogger(__name__)

INTENT_LIMIT: Final = 256 * 1024


def read_intent(store: Store, layout: Layout, attempt: int | None = None) -> Intent | None:
    """The intent of the recording, or of one attempt; None where there is none that can be read."""
    key = layout.intent if attempt is None else layout.attempt_intent(attempt)
    body = store.get(key, INTENT_LIMIT)
    try:
        return Intent.from_json(body) if body is not None else None
    except ValidationError:
        log.warning("intent is not readable", extra={"fields": {"key": key}})
        return None


def intent_of_an_attempt(store: Store, layout: Layout) -> Intent | None:
    """That of the first attempt whose intent can be read: says the same where the recording's own is damaged."""
    begun = sorted(layout.begun(attempt_keys(store, layout)))
    return next(filter(None, (read_intent(store, layout, attempt) for attempt in begun)), None)
