"""A security token service that trusts a cluster: AssumeRoleWithWebIdentity, with tokens that the API server itself vouches for.

moto gives credentials for any token, and, once it checks signatures, to nobody who has none. In front of it, this one does what AWS does:
it takes only tokens of the cluster that were made for its audience (asked with a TokenReview), notes whose they were, and signs.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from .rawkube import RawKube

REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
MAX_BODY = 64 * 1024


@dataclass
class TokenService:
    """A running one."""

    endpoint: str
    audience: str
    subjects: set[str] = field(default_factory=set)
    """Whose tokens were changed for credentials."""
    refusals: int = 0


def _subject(kubeconfig: Path, token: str, audience: str) -> str | None:
    """Who the cluster says a token is for, where it is one of its own for this audience."""
    review = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": token, "audiences": [audience]},
    }
    with RawKube(kubeconfig) as kube:
        answer = kube.request("POST", REVIEWS, review)
    assert answer.ok, answer.message
    status = answer.body["status"]
    return str(status["user"]["username"]) if status.get("authenticated") else None


@contextmanager
def token_service(
    address: str, behind: str, key: tuple[str, str], kubeconfig: Path, audience: str
) -> Iterator[TokenService]:
    """Serve on `address`; whom the cluster vouches for gets credentials from moto at the URL `behind`, asked with this key."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(min(int(self.headers.get("Content-Length") or 0), MAX_BODY))
            form = parse_qs(body.decode())
            subject = None
            if form.get("Action") == ["AssumeRoleWithWebIdentity"]:
                subject = _subject(kubeconfig, form["WebIdentityToken"][0], audience)
            if subject is None:
                service.refusals += 1
                self._answer(400, REFUSAL)
                return
            service.subjects.add(subject)
            self._answer(*self._forwarded(body))

        def _forwarded(self, body: bytes) -> tuple[int, bytes]:
            request = AWSRequest("POST", f"{behind}/", {"Content-Type": self.headers["Content-Type"]}, body)
            SigV4Auth(Credentials(*key), "sts", "us-east-1").add_auth(request)
            connection = http.client.HTTPConnection(urlsplit(behind).netloc, timeout=60)
            try:
                connection.request("POST", "/", body, dict(request.headers))
                answer = connection.getresponse()
                return answer.status, answer.read()
            finally:
                connection.close()

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "text/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing: requests hold tokens."""

    server = ThreadingHTTPServer((address, 0), Handler)
    service = TokenService(f"http://{address}:{server.server_address[1]}", audience)
    thread = threading.Thread(target=server.serve_forever, name="token-service", daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


REFUSAL = b"""<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>
<Code>InvalidIdentityToken</Code><Message>Incorrect token audience</Message></Error></ErrorResponse>"""
