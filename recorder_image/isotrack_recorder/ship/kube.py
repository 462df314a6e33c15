"""The agent's conversations with the API server: its own Recording is watched, its own RecordingReport is written; an agent whose pod
is to go reads the report of its successor.

Nothing waits for them. A pod whose API server is away records, uploads and ends as well as any other; what it was told last
goes on to hold. A library would cost more memory than the agent has (tens of megabytes of models) for two requests.

    get ──▶ watch (bookmarks) ──▶ … ──▶ connection ends ──▶ watch from the newest resourceVersion
     ▲                                                        │ 410 Gone, or an error
     └──────────────── pause, full jitter ────────────────────┘

The projected token is read for every request (the kubelet renews it), the authority with every new session. A watch that breaks
makes the next request begin one; what is on its way over the old one comes to its end there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from pydantic import ValidationError

from isotrack_api.recording import DesiredState
from isotrack_api.recording_report import RecordingReport, ReportStatus
from isotrack_api.resource import API_VERSION

from .retry import full_jitter

if TYPE_CHECKING:
    import aiohttp

log = logging.getLogger(__name__)

FIELD_MANAGER: Final = "agent"
REQUEST_SECONDS: Final = 10.0
WATCH_SECONDS: Final = 240
SILENCE_SECONDS: Final = 90.0
"""Bookmarks come about every minute; a watch that is silent for longer may be dead without knowing it."""
CALM_SECONDS: Final = 30.0
"""A watch that lasted for longer was one."""
MAX_OBJECT_BYTES: Final = 4 * 1024 * 1024
MAX_USER_IDS: Final = 100


class KubeError(Exception):
    """A request to the API server failed. Not of the recorder's error tree: it ends nothing."""

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status
        """HTTP status; 0 when there was no answer."""


@dataclass(frozen=True, slots=True)
class KubeSettings:
    """Where the API server is and who we are."""

    server: str
    """`https://host:port`."""
    token_file: Path
    ca_file: Path
    namespace: str
    recording: str
    uid: str
    """metadata.uid of our Recording; another one of the same name is a different Recording."""
    report: str
    """Name of our RecordingReport."""


@dataclass(frozen=True, slots=True)
class RecordingView:
    """What a Recording asks of its agent."""

    desired: DesiredState = DesiredState.RUNNING
    user_ids: tuple[str, ...] | None = None
    deleted: bool = False


def view_of(value: Mapping[str, Any], uid: str) -> RecordingView:
    """Read a Recording. Pure; what is absent or of an unknown kind counts as not said."""
    metadata, spec, status = (_mapping(value.get(key)) for key in ("metadata", "spec", "status"))
    if metadata.get("deletionTimestamp") or metadata.get("uid") != uid:
        return RecordingView(DesiredState.STOPPED, deleted=True)
    said = str(spec.get("desiredState"))
    desired = DesiredState(said) if said in tuple(DesiredState) else DesiredState.RUNNING
    if status.get("stopRequest"):
        desired = DesiredState.STOPPED  # the operator saw it first; later edits have no effect
    listed = _mapping(spec.get("participants")).get("userIds")
    users = tuple(user for user in listed if isinstance(user, str))[:MAX_USER_IDS] if isinstance(listed, list) else None
    return RecordingView(desired, users)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


@dataclass(slots=True)
class _Line:
    """A session with the API server, and how many requests are on their way over it."""

    session: aiohttp.ClientSession
    users: int = 0


class KubeClient:
    """The agent's way to the API server. Close it when no request is on its way, or use it as an async context manager."""

    def __init__(self, settings: KubeSettings) -> None:
        self._settings = settings
        self._line: _Line | None = None
        self._was_let_in = False
        group = f"{settings.server.rstrip('/')}/apis/{API_VERSION}/namespaces/{settings.namespace}"
        self._namespace = f"{settings.server.rstrip('/')}/api/v1/namespaces/{settings.namespace}"
        self._recordings = f"{group}/recordings"
        self._reports = f"{group}/recordingreports"
        self._report = f"{self._reports}/{settings.report}/status"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Hang up."""
        await self._give_up_line()

    async def recording(self) -> RecordingView:
        """Read our Recording once; a Recording that does not exist any more counts as deleted.

        When we had access before and have none now, our ServiceAccount or Role was collected, and those live exactly as
        long as the Recording: that counts as deleted, too. And so does a namespace that is being deleted: it loses its pods
        first, and its Recordings only when they are gone (Kubernetes 1.33, OrderedNamespaceDeletion).

        Raises:
            KubeError: no answer, or one that says nothing about the Recording.
        """
        try:
            value = await self._get()
        except KubeError as error:
            if error.status == 404 or (error.status in (401, 403) and self._was_let_in):
                return RecordingView(DesiredState.STOPPED, deleted=True)
            raise
        view = view_of(value, self._settings.uid)
        if not view.deleted and await self._namespace_goes():
            return RecordingView(DesiredState.STOPPED, deleted=True)
        return view

    async def watch_recording(self, changed: Callable[[RecordingView], None]) -> None:
        """Call `changed` with the newest view, first and after each change, for ever."""
        failures = 0
        while True:
            began = time.monotonic()
            try:
                value = await self._get()
                changed(view_of(value, self._settings.uid))
                await self._watch_from(str(_mapping(value.get("metadata")).get("resourceVersion", "")), changed)
                await asyncio.sleep(full_jitter(1))
            except KubeError as error:
                if error.status == 404:
                    changed(RecordingView(DesiredState.STOPPED, deleted=True))
                # NB: reading alone is no calm. A watch may be refused each time.
                if time.monotonic() - began > CALM_SECONDS:
                    failures = 0
                if failures == 0:
                    log.warning("API server does not answer", extra={"fields": {"detail": str(error)}})
                failures += 1
                await self._give_up_line()
                await asyncio.sleep(0.2 + full_jitter(failures))

    async def apply_report(self, status: ReportStatus) -> None:
        """Write our report's status by server-side apply.

        Raises:
            KubeError: it was not written (not created yet included).
        """
        body = {
            "apiVersion": API_VERSION,
            "kind": "RecordingReport",
            "metadata": {"name": self._settings.report, "namespace": self._settings.namespace},
            "status": status.model_dump(mode="json", by_alias=True, exclude_none=True),
        }
        await self._request(
            "PATCH",
            self._report,
            params={"fieldManager": FIELD_MANAGER, "force": "true"},
            headers={"Content-Type": "application/apply-patch+yaml"},
            data=json.dumps(body).encode(),
        )

    async def successor(self) -> ReportStatus | None:
        """What the attempt behind ours reports; None when there is none.

        Raises:
            KubeError: no answer, or one that says nothing about it.
        """
        stem, _, number = self._settings.report.rpartition("-a")
        if not number.isdecimal():
            raise KubeError("our report has a name that tells nothing of the next one's")
        try:
            value = _mapping(_parse(await self._request("GET", f"{self._reports}/{stem}-a{int(number) + 1}")))
        except KubeError as error:
            if error.status == 404:
                return None
            raise
        try:
            return RecordingReport.from_object(value).status
        except ValidationError:
            raise KubeError("the successor's report is of a version that we do not know") from None

    # ── plumbing ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _namespace_goes(self) -> bool:
        try:
            value = _mapping(_parse(await self._request("GET", self._namespace)))
        except KubeError:
            return False  # it does not say so; and an older operator has given us no right to ask
        return bool(_mapping(value.get("metadata")).get("deletionTimestamp"))

    async def _get(self) -> Mapping[str, Any]:
        value = _mapping(_parse(await self._request("GET", f"{self._recordings}/{self._settings.recording}")))
        self._was_let_in = True
        return value

    async def _watch_from(self, version: str, changed: Callable[[RecordingView], None]) -> None:
        """Follow the Recording; returns when it must be read afresh."""
        while True:
            async with contextlib.aclosing(self._events(version)) as events:
                async for event in events:
                    value = _mapping(event.get("object"))
                    kind = event.get("type")
                    if kind == "ERROR":  # mostly 410: our version is too old
                        return
                    version = str(_mapping(value.get("metadata")).get("resourceVersion", version))
                    if kind == "DELETED":
                        changed(RecordingView(DesiredState.STOPPED, deleted=True))
                    elif kind in ("ADDED", "MODIFIED"):
                        changed(view_of(value, self._settings.uid))
            await asyncio.sleep(full_jitter(1))  # NB: a broken proxy may end each watch at once; do not spin on it

    async def _events(self, version: str) -> AsyncGenerator[Mapping[str, Any], None]:
        import aiohttp

        params = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "fieldSelector": f"metadata.name={self._settings.recording}",
            "resourceVersion": version,
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        timeout = aiohttp.ClientTimeout(total=WATCH_SECONDS + 30, connect=REQUEST_SECONDS, sock_read=SILENCE_SECONDS)
        try:
            async with (
                self._session() as session,
                session.get(self._recordings, params=params, headers=self._authorization(), timeout=timeout) as answer,
            ):
                if answer.status != 200:
                    raise KubeError(f"watch answered {answer.status}", answer.status)
                pending = b""
                async for chunk in answer.content.iter_any():
                    *lines, pending = (pending + chunk).split(b"\n")
                    if len(pending) > MAX_OBJECT_BYTES:
                        raise KubeError("watch sent an over long event")
                    for line in lines:
                        yield _mapping(_parse(line))
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise KubeError(f"watch broke off: {type(error).__name__}") from None

    async def _request(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
    ) -> bytes:
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
        all_headers = {**self._authorization(), **(headers or {})}
        try:
            async with (
                self._session() as session,
                session.request(method, url, params=params, headers=all_headers, data=data, timeout=timeout) as answer,
            ):
                body = b""
                async for chunk in answer.content.iter_any():
                    body += chunk
                    if len(body) > MAX_OBJECT_BYTES:
                        raise KubeError(f"{method} answered with an over long object")
                if answer.status >= 300:
                    message = str(_mapping(_parse(body, strict=False)).get("message", ""))[:200]
                    raise KubeError(f"{method} answered {answer.status} {message}".rstrip(), answer.status)
                return body
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise KubeError(f"{method} failed: {type(error).__name__}") from None

    @contextlib.asynccontextmanager
    async def _session(self) -> AsyncIterator[aiohttp.ClientSession]:
        """The session for one request, open until that is over."""
        line = self._line = self._line or self._new_line()
        line.users += 1
        try:
            yield line.session
        finally:
            line.users -= 1
            if line is not self._line:
                await _close_unless_used(line)

    def _new_line(self) -> _Line:
        import aiohttp

        secure = self._settings.server.startswith("https://")
        context = ssl.create_default_context(cafile=str(self._settings.ca_file)) if secure else None
        connector = aiohttp.TCPConnector(ssl=context if context is not None else True, limit=4)
        return _Line(aiohttp.ClientSession(connector=connector, headers={"Accept": "application/json"}))

    async def _give_up_line(self) -> None:
        """Have the next request begin a session of its own."""
        line, self._line = self._line, None
        if line is not None:
            await _close_unless_used(line)

    def _authorization(self) -> dict[str, str]:
        try:
            token = self._settings.token_file.read_text().strip()
        except OSError as error:
            raise KubeError(f"the service account's token cannot be read: {type(error).__name__}") from None
        return {"Authorization": f"Bearer {token}"}


async def _close_unless_used(line: _Line) -> None:
    if line.users == 0:
        await line.session.close()


def _parse(data: bytes, *, strict: bool = True) -> object:
    try:
        return json.loads(data)
    except ValueError:
        if strict:
            raise KubeError("the API server sent something that is not JSON") from None
        return {}
