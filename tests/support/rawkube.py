"""A bare client of the Kubernetes API for tests: what was sent is what the test says, what came back is all of it.

Client libraries convert, retry and drop `Warning` headers; a test of the contract wants none of that.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

import yaml

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the API server said."""

    status: int
    body: Mapping[str, Any]
    warnings: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the request succeeded."""
        return self.status < 300

    @property
    def message(self) -> str:
        """Text of a refusal."""
        return str(self.body.get("message", ""))


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach an API server, and who one is there."""

    server: str
    tls: ssl.SSLContext
    headers: Mapping[str, str]


def access_of(kubeconfig: Path, token: str | None = None) -> Access:
    """What a kubeconfig's current context says. With `token`, that identity instead of the one in the file."""
    config = yaml.safe_load(kubeconfig.read_text())
    context = _named(config["contexts"], config["current-context"], "context")
    cluster = _named(config["clusters"], context["cluster"], "cluster")
    user = _named(config["users"], context["user"], "user") if token is None else {"token": token}
    base = kubeconfig.parent
    tls = ssl.create_default_context(cadata=_text(cluster, "certificate-authority", base))
    if "client-certificate" in user or "client-certificate-data" in user:
        with tempfile.NamedTemporaryFile("w", suffix=".pem") as pem:
            pem.write(_text(user, "client-certificate", base) + "\n" + _text(user, "client-key", base))
            pem.flush()
            tls.load_cert_chain(pem.name)
    return Access(cluster["server"], tls, {"Authorization": f"Bearer {user['token']}"} if "token" in user else {})


class RawKube:
    """One connection, made from a kubeconfig's current context. Close it, or use it as a context manager."""

    def __init__(self, kubeconfig: Path, token: str | None = None) -> None:
        """With `token`, that identity is used instead of the one in the file."""
        access = access_of(kubeconfig, token)
        url = urlsplit(access.server)
        assert url.hostname
        self._connection = http.client.HTTPSConnection(url.hostname, url.port or 443, context=access.tls, timeout=60)
        self._headers = access.headers

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def request(self, method: str, path: str, body: object = None, *, content_type: str = JSON, **query: str) -> Answer:
        """Send one request."""
        target = f"{path}?{urlencode(query)}" if query else path
        data = None if body is None else json.dumps(body).encode()
        headers = {**self._headers, "Content-Type": content_type, "Accept": JSON}
        self._connection.request(method, target, data, headers)
        response = self._connection.getresponse()
        warnings = tuple(_warning_text(value) for value in response.headers.get_all("Warning") or ())
        raw = response.read()
        try:
            parsed = json.loads(raw) if raw else {}
        except ValueError:
            parsed = {"message": raw.decode(errors="replace")}
        return Answer(response.status, parsed, warnings)


def _named(entries: list[dict[str, Any]], name: str, kind: str) -> dict[str, Any]:
    found: dict[str, Any] = next(entry[kind] for entry in entries if entry["name"] == name)
    return found


def _text(entry: Mapping[str, str], key: str, base: Path) -> str:
    if f"{key}-data" in entry:
        return base64.b64decode(entry[f"{key}-data"]).decode()
    return (base / entry[key]).read_text()


def _warning_text(header: str) -> str:
    # RFC 7234 section 5.5: warn-code SP warn-agent SP quoted-string
    match = re.fullmatch(r'\d{3} \S+ "(.*)"', header, re.DOTALL)
    return match[1].replace('\\"', '"') if match else header
