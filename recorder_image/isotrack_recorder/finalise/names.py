"""File names: a template filled with what strangers chose, made harmless and unique.

Values are normalised (NFC) and percent-encoded but for unreserved characters (RFC 3986 section 2.3), so no separator,
space or control character survives and different values stay different. Where that could fail, because normalising
or cutting changed a value, a hash of the original follows. A placeholder takes at most 100 bytes, a name 255.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

MAX_VALUE_BYTES: Final = 100
MAX_NAME_BYTES: Final = 255
"""What common file systems take for one name."""
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")


def file_name(template: str, values: Mapping[str, str], suffixes: str, extension: str) -> str:
    """Fill a template.

    Args:
        template: Checked before (`isotrack_api.templates`); an unknown placeholder stays as it is, encoded.
        values: What the placeholders stand for, as received from outside.
        suffixes: Made by us, such as `_p2`; kept whole.
        extension: Without dot.
    """
    stem = _PLACEHOLDER.sub(lambda match: encode_value(values.get(match[1], match[0])), template)
    if stem.startswith("."):
        stem = f"%2E{stem[1:]}"
    end = f"{suffixes}.{extension}"
    if len(stem) + len(end) > MAX_NAME_BYTES:
        stem = _cut(stem, MAX_NAME_BYTES - len(end), stem)
    return stem + end


def encode_value(value: str) -> str:
    """Make one value harmless: ASCII, at most 100 bytes, different for different values."""
    clean = value.encode("utf-8", "replace").decode()
    normal = unicodedata.normalize("NFC", clean)
    encoded = quote(normal, safe="")
    if normal == value and len(encoded) <= MAX_VALUE_BYTES:
        return encoded
    return _cut(encoded, MAX_VALUE_BYTES, value)


def _cut(encoded: str, limit: int, original: str) -> str:
    """At most `limit` bytes, ending in a hash of the original; no percent triplet is split."""
    digest = hashlib.sha256(original.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    kept = encoded[: limit - len(digest) - 1]
    percent = kept.rfind("%", len(kept) - 2)
    return f"{kept if percent < 0 else kept[:percent]}-{digest}"
