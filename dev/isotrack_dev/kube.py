"""Ask an API server: the few requests that starting a stack needs, over the standard library.

Not a client for anything else: tests and people have kubectl and the Kubernetes client library.
"""

from __future__ import annotations

import http.client
import json
import ssl
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any


class Api:
    """An API server and the certificate that we show it. Holds no connection between requests."""

    def __init__(self, address: IPv4Address, port: int, ca: Path, certificate: Path, key: Path) -> None:
        self._address, self._port = str(address), port
        self._tls = ssl.create_default_context(cafile=str(ca))
        self._tls.load_cert_chain(certificate, key)

    def get(self, path: str, seconds: float = 5) -> tuple[int, bytes]:
        """GET `path`: status and body; status 0 when nobody answers."""
        connection = http.client.HTTPSConnection(self._address, self._port, timeout=seconds, context=self._tls)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read(1 << 22)
        except (OSError, http.client.HTTPException):
            return 0, b""
        finally:
            connection.close()

    def exists(self, path: str) -> bool:
        """Whether the object at `path` is there."""
        return self.get(path)[0] == http.HTTPStatus.OK

    def ready(self) -> bool:
        """Whether the server says that it is ready."""
        return self.exists("/readyz")

    def node_ready(self, node: str) -> bool:
        """Whether the node's Ready condition is True and nothing keeps pods away from it."""
        status, body = self.get(f"/api/v1/nodes/{node}")
        if status != http.HTTPStatus.OK:
            return False
        found: dict[str, Any] = json.loads(body)
        conditions = found.get("status", {}).get("conditions", [])
        ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
        return ready and not found.get("spec", {}).get("taints")
