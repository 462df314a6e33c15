"""All Kubernetes I/O: plain JSON objects in, plain JSON objects out, errors of our own tree. The only module that imports the client.

Of the official client (`kubernetes.aio`) we use the configuration and the transport, not the generated models: bodies come from
`builders`, and parsing thousands of pods into models would cost more than all the rest. One connection pool per Cluster, which lives
as long as the process. Writes name the object's uid or resourceVersion wherever a namesake or a stale read would do harm.
"""

# mypy: disable-error-code="no-untyped-call"
# The client is only partly annotated; what comes back from it is checked here.

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio import config as kube_config
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration

from .errors import (
    AlreadyExistsError,
    ClusterError,
    ConfigError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    cut,
)
from .kinds import EVENT, SECRET, Kind, kind_of
from .view import Object

FIELD_MANAGER = "isotrack-operator"
PAGE = 500
MAX_CONNECTIONS = 64
_APPLY = "application/apply-patch+yaml"  # JSON is YAML
_MERGE = "application/merge-patch+json"
_JSON = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """How to reach the API server, for the watches that another library runs."""

    server: str
    ca_path: str | None
    verify: bool
    certificate_path: str | None
    key_path: str | None
    token: str | None


class Cluster:
    """A connection to the API server. Make it with `connect`."""

    def __init__(self, configuration: Configuration, request_seconds: float) -> None:
        configuration.connection_pool_maxsize = MAX_CONNECTIONS
        self._configuration = configuration
        self._client = ApiClient(configuration)
        self._timeout = aiohttp.ClientTimeout(total=request_seconds)
        self.version = (0, 0)
        """Of the API server, (major, minor), as `read_version` found it last."""

    async def credentials(self) -> Credentials:
        """Where the API server is and how we log in; a projected token is read anew."""
        found = self._configuration
        value = (await found.auth_settings()).get("BearerToken", {}).get("value")
        return Credentials(
            server=found.host,
            ca_path=found.ssl_ca_cert,
            verify=bool(found.verify_ssl),
            certificate_path=found.cert_file,
            key_path=found.key_file,
            token=value.split(" ", 1)[1] if value else None,  # "Bearer <token>"
        )

    async def read_version(self) -> tuple[int, int]:
        """Ask for the API server's version; `version` has it from then on. Control planes are upgraded while we run."""
        found = await self._request("GET", "/version")
        self.version = version_number(found.get("major")), version_number(found.get("minor"))
        return self.version

    # -- reading --------------------------------------------------------------------------------------------------------------

    async def get(self, kind: Kind, namespace: str | None, name: str) -> dict[str, Any]:
        """One object.

        Raises:
            NotFoundError: there is none.
        """
        return await self._request("GET", kind.path(namespace, name))

    async def find(self, kind: Kind, namespace: str | None, name: str) -> dict[str, Any] | None:
        """One object, or None."""
        try:
            return await self.get(kind, namespace, name)
        except NotFoundError:
            return None

    async def pages(self, kind: Kind, selector: str = "") -> AsyncIterator[list[dict[str, Any]]]:
        """All objects of a kind in all namespaces, by pages."""
        token = ""
        while True:
            query = {"limit": str(PAGE), "labelSelector": selector, "continue": token}
            found = await self._request("GET", kind.path(), {key: value for key, value in query.items() if value})
            yield found.get("items") or []
            token = (found.get("metadata") or {}).get("continue") or ""
            if not token:
                return

    async def has_secret(self, namespace: str, name: str) -> bool | None:
        """Whether a Secret exists, asked without the right to read any: by creating it as a dry run.

        Returns:
            None when admission or quota refuses the question.
        """
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace}}
        try:
            await self._request("POST", SECRET.path(namespace), {"dryRun": "All"}, body)
        except AlreadyExistsError:
            return True
        except ClusterError as error:
            if error.is_refusal or isinstance(error, ConflictError):
                return None
            raise
        return False

    # -- writing --------------------------------------------------------------------------------------------------------------

    async def create(self, body: Object) -> dict[str, Any]:
        """Create an object.

        Raises:
            AlreadyExistsError: one of this name is there.
        """
        kind, namespace, _ = _place(body)
        return await self._request("POST", kind.path(namespace), {"fieldManager": FIELD_MANAGER}, body)

    async def ensure(self, body: Object) -> None:
        """Create an object unless one of this name is there."""
        with contextlib.suppress(AlreadyExistsError):
            await self.create(body)

    async def apply(self, body: Object, subresource: str | None = None) -> dict[str, Any]:
        """Server-side apply: our fields are as given, those of others stay. A uid in the metadata keeps it from creating anew."""
        kind, namespace, name = _place(body)
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        return await self._request("PATCH", kind.path(namespace, name, subresource), query, body, _APPLY)

    async def merge(self, kind: Kind, namespace: str | None, name: str, patch: Object) -> dict[str, Any]:
        """JSON merge patch; put the resourceVersion into its metadata to make it conditional."""
        query = {"fieldManager": FIELD_MANAGER}
        return await self._request("PATCH", kind.path(namespace, name), query, patch, _MERGE)

    async def replace(self, body: Object) -> dict[str, Any]:
        """Update an object that was read: its resourceVersion makes it conditional.

        Raises:
            ConflictError: it changed meanwhile.
        """
        kind, namespace, name = _place(body)
        return await self._request("PUT", kind.path(namespace, name), {"fieldManager": FIELD_MANAGER}, body)

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str | None = None) -> None:
        """Delete an object (with this uid), its dependants in the background; gone already is fine."""
        options: dict[str, Any] = {"propagationPolicy": "Background"}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        with contextlib.suppress(NotFoundError, ConflictError):
            await self._request("DELETE", kind.path(namespace, name), {}, options)

    async def announce(self, event: Object) -> None:
        """Create an Event. They are for people: one that cannot be written holds nothing up."""
        with contextlib.suppress(ClusterError):
            await self._request("POST", EVENT.path(event["metadata"]["namespace"]), {}, event)

    async def close(self) -> None:
        """Give the connections back."""
        await self._client.close()

    async def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Object | None = None,
        content_type: str = _JSON,
    ) -> dict[str, Any]:
        url = self._configuration.host + path + (f"?{urlencode(query)}" if query else "")
        headers = {"Accept": _JSON, "Content-Type": content_type, "User-Agent": FIELD_MANAGER}
        await self._client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        try:
            response = await self._client.rest_client.request(
                method, url, headers=headers, body=body, _request_timeout=self._timeout
            )
            text = await response.read()
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise ClusterError(f"{method} {path}: the API server does not answer: {cut(error)}") from error
        try:
            value = json.loads(text)
        except ValueError as error:
            raise ClusterError(f"{method} {path}: HTTP {response.status} without JSON", response.status) from error
        if not 200 <= response.status <= 299:
            raise _translated(f"{method} {path}", response.status, value)
        return dict(value)


async def connect(kubeconfig: str | None, request_seconds: float) -> Cluster:
    """Log in as the pod's service account, or with a kubeconfig file (given, KUBECONFIG, ~/.kube/config).

    Raises:
        ConfigError: neither works.
    """
    configuration = Configuration()
    try:
        if kubeconfig is None:
            try:
                kube_config.load_incluster_config(configuration)
            except kube_config.ConfigException:
                await kube_config.load_kube_config(client_configuration=configuration)
        else:
            await kube_config.load_kube_config(config_file=kubeconfig, client_configuration=configuration)
    except (kube_config.ConfigException, OSError) as error:
        raise ConfigError(f"no access to Kubernetes: {cut(error)}") from error
    return Cluster(configuration, request_seconds)


def version_number(text: object) -> int:
    """The digits that a version begins with: some providers say "35+"."""
    found = re.match(r"\d{1,4}", str(text))
    return int(found.group()) if found else 0


def _place(body: Object) -> tuple[Kind, str | None, str]:
    metadata = body["metadata"]
    return kind_of(body["apiVersion"], body["kind"]), metadata.get("namespace"), metadata["name"]


def _translated(what: str, status: int, value: object) -> ClusterError:
    """The error of a Status object (Kubernetes API conventions, response status kind)."""
    said: Mapping[str, Any] = value if isinstance(value, dict) else {}
    message = f"{what}: {cut(said.get('message') or status)}"
    if status == 404:
        return NotFoundError(message, status)
    if status == 403:
        return ForbiddenError(message, status)
    if status == 409:
        kind = AlreadyExistsError if said.get("reason") == "AlreadyExists" else ConflictError
        return kind(message, status)
    return ClusterError(message, status)
