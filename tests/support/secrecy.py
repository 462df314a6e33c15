"""Search what was said and stored for what must not be in it. One function for trials of every kind, so that all search alike."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import quote

_JWT: Final = re.compile(rb"eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}")
"""RFC 7519: header and claims are JSON objects, so both begin with `{"` in base64url. Join tokens and the API server's are such."""


def told_secrets(outputs: Mapping[str, bytes], secrets: Mapping[str, str]) -> Iterator[str]:
    """A text for each secret in each output, and for everything that looks like a token.

    Args:
        outputs: Logs, objects, messages: content by name.
        secrets: What must not be in them, by what it is; as a Secret (base64) or a URL would show it, too.
    """
    forms = {what: _forms(secret) for what, secret in secrets.items()}
    for name, content in outputs.items():
        yield from (f"{name} holds {what}" for what, shown in forms.items() if any(one in content for one in shown))
        if _JWT.search(content):
            yield f"{name} holds a token"


def _forms(secret: str) -> set[bytes]:
    assert secret, "every text holds an empty one"
    plain = secret.encode()
    return {plain, base64.b64encode(plain).rstrip(b"="), quote(secret, safe="").encode()}
