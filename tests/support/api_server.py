"""One Recording and one RecordingReport behind HTTP, for faults that a real API server cannot be made to show at a given moment:
away for a while, access taken away, watches that break off. What a real one accepts is tested on a real one (tests/cluster)."""

from __future__ import annotations

import asyncio
import datetime
import json
import ssl
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Self

from aiohttp import web

from isotrack_dev.pki import Authority
from isotrack_recorder.ship.kube import KubeSettings

NAMESPACE, NAME, REPORT = "team-a", "standup", "standup-01234567-a1"
NEXT_REPORT = "standup-01234567-a2"
UID = "0123456789abcdef"
_PATH = f"/apis/isotrack.dev/v1alpha1/namespaces/{NAMESPACE}"


class ApiServer:
    """Serves get, watch and apply of two objects on loopback."""

    def __init__(self, folder: Path, *, tls: bool = False, port: int = 0) -> None:
        """Tokens and, under TLS, the authority's certificate lie in `folder` as in a pod's service account."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        (folder / "token").write_text("token-1")
        self._port = port
        self._tls = _server_context(folder) if tls else None
        self._version = 1
        self._changed = asyncio.Condition()
        self._runner: web.AppRunner | None = None
        self._events: list[tuple[int, dict[str, Any]]] = []
        self._watching: list[web.Request] = []
        self.recording: dict[str, Any] = {
            "metadata": {"name": NAME, "uid": UID, "resourceVersion": "1"},
            "spec": {"className": "default", "call": {"id": "team-a-standup"}},
        }
        self.reports: list[dict[str, Any]] = []
        """Status of each apply."""
        self.tokens: list[str] = []
        self.refuse: int = 0
        """HTTP status to answer everything with."""
        self.refuse_watches: int = 0
        """HTTP status to answer watches with."""
        self.successor: dict[str, Any] | None = None
        """Status of the next attempt's report; None = there is none."""
        self.namespace: dict[str, Any] = {"metadata": {"name": NAMESPACE}}
        self.watches = 0
        self.reads = 0
        self.gone = False
        """The next watch is told that its version is too old."""
        self.slow = ""
        """Phase of reports that take effect only once `release` is set; `held` tells of the first."""
        self.held, self.release = asyncio.Event(), asyncio.Event()

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get(f"{_PATH}/recordings/{NAME}", self._get)
        app.router.add_get(f"{_PATH}/recordings", self._watch)
        app.router.add_get(f"/api/v1/namespaces/{NAMESPACE}", self._get_namespace)
        app.router.add_get(f"{_PATH}/recordingreports/{NEXT_REPORT}", self._get_successor)
        app.router.add_patch(f"{_PATH}/recordingreports/{REPORT}/status", self._apply)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port, ssl_context=self._tls).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    @property
    def settings(self) -> KubeSettings:
        """How a client reaches it."""
        assert self._runner is not None
        port = self._runner.addresses[0][1]
        return KubeSettings(
            server=f"{'https' if self._tls else 'http'}://127.0.0.1:{port}",
            token_file=self._folder / "token",
            ca_file=self._folder / "ca.crt",
            namespace=NAMESPACE,
            recording=NAME,
            uid=UID,
            report=REPORT,
        )

    async def change(self, kind: str = "MODIFIED", **parts: dict[str, Any]) -> None:
        """Merge `metadata`, `spec`, `status` into the Recording and tell all watches."""
        async with self._changed:
            self._version += 1
            for part, values in parts.items():
                self.recording[part] = {**self.recording.get(part, {}), **values}
            self.recording["metadata"]["resourceVersion"] = str(self._version)
            event = {"type": kind, "object": json.loads(json.dumps(self.recording))}
            self._events.append((self._version, event))
            self._changed.notify_all()

    async def reported(self, phase: str, *, seconds: float = 60) -> dict[str, Any]:
        """The newest report, once it shows `phase`."""
        return await self.reported_that(lambda report: report.get("phase") == phase, seconds=seconds)

    async def reported_that(self, holds: Callable[[dict[str, Any]], object], *, seconds: float = 60) -> dict[str, Any]:
        """The newest report, once something holds of it."""
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(lambda: bool(self.reports) and bool(holds(self.reports[-1])))
        return self.reports[-1]

    async def watched(self, count: int, *, seconds: float = 60) -> None:
        """Return once `count` watches have begun."""
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(lambda: self.watches >= count)

    def break_watches(self) -> None:
        """Hang up on all watches that have begun so far, in mid-sentence."""
        for request in self._watching:
            if request.transport is not None:
                request.transport.abort()
        self._watching.clear()

    async def read(self, count: int, *, seconds: float = 60) -> None:
        """Return once the Recording has been read `count` times."""
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(lambda: self.reads >= count)

    def _refusal(self, request: web.Request) -> web.Response | None:
        self.tokens.append(request.headers.get("Authorization", ""))
        return web.json_response({"message": "refused by the test"}, status=self.refuse) if self.refuse else None

    async def _get(self, request: web.Request) -> web.Response:
        answer = self._refusal(request) or web.json_response(self.recording)
        async with self._changed:
            self.reads += 1
            self._changed.notify_all()
        return answer

    async def _get_namespace(self, request: web.Request) -> web.Response:
        return self._refusal(request) or web.json_response(self.namespace)

    async def _get_successor(self, request: web.Request) -> web.Response:
        if self.successor is None:
            return self._refusal(request) or web.json_response({"message": "not found"}, status=404)
        spec = {"recordingUid": UID, "attempt": 2}
        body = {"apiVersion": "isotrack.dev/v1alpha1", "kind": "RecordingReport", "metadata": {"name": NEXT_REPORT}}
        return self._refusal(request) or web.json_response({**body, "spec": spec, "status": self.successor})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        refusal = self._refusal(request)
        if refusal:
            return refusal
        if self.refuse_watches:
            return web.json_response({"message": "refused by the test"}, status=self.refuse_watches)
        assert request.query["fieldSelector"] == f"metadata.name={NAME}"
        answer = web.StreamResponse()
        await answer.prepare(request)
        self._watching.append(request)
        async with self._changed:
            self.watches += 1
            self._changed.notify_all()
        seen = int(request.query["resourceVersion"])
        if self.gone:
            self.gone = False
            await answer.write(json.dumps({"type": "ERROR", "object": {"code": 410}}).encode() + b"\n")
            return answer
        bookmark = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(seen)}}}
        await answer.write(json.dumps(bookmark).encode() + b"\n")
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda seen=seen: self._version > seen)  # type: ignore[misc]
                due = [event for version, event in self._events if version > seen]
                seen = self._version
            for event in due:
                line = json.dumps(event).encode() + b"\n"
                try:
                    await answer.write(line[:20])  # events come in pieces
                    await answer.write(line[20:])
                except ConnectionResetError:
                    return answer  # who watched has died

    async def _apply(self, request: web.Request) -> web.Response:
        refusal = self._refusal(request)
        if refusal:
            return refusal
        assert request.query["fieldManager"] == "agent"
        assert request.headers["Content-Type"] == "application/apply-patch+yaml"
        body = await request.json()
        assert (body["kind"], body["metadata"]["name"]) == ("RecordingReport", REPORT)
        if body["status"]["phase"] == self.slow:
            self.held.set()
            await self.release.wait()
        async with self._changed:
            self.reports.append(body["status"])
            self._changed.notify_all()
        return web.json_response(body)


def _server_context(folder: Path) -> ssl.SSLContext:
    authority = Authority(datetime.datetime.now(datetime.UTC))
    pair = authority.server("api", [IPv4Address("127.0.0.1")], [])
    (folder / "ca.crt").write_text(authority.certificate)
    (folder / "server.crt").write_text(pair.certificate)
    (folder / "server.key").write_text(pair.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    return context
