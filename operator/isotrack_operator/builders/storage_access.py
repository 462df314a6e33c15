"""What a pod needs to be somebody to a storage: volumes, variables, a service account. Nothing of it reaches the recorder container.

secretName    the Secret as files
ambient       nothing of ours: the platform adds it to the pods of that service account
webIdentity   a token of that service account for the role's audience, and where to change it for credentials

Beside each of them, where the endpoint's authority is one's own: its certificates as a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from isotrack_api.credentials import DEFAULT_AUDIENCE, CaCertificate, StorageCredentials, WebIdentity

from . import names
from .parts import escaped, mount, variable

STORAGE = "/etc/isotrack/storage"
WEB_IDENTITY = "/etc/isotrack/web-identity"
AUTHORITY = "/etc/isotrack/storage-ca"
CA_KEY = "ca.crt"
TOKEN_SECONDS = 3600
SKIP_CONTAINERS = "eks.amazonaws.com/skip-containers"
"""Containers that EKS gives no credentials to: a list of names with commas (amazon-eks-pod-identity-webhook)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageAccess:
    """Parts of a pod."""

    account: str | None = None
    """ServiceAccount that the pod must run as."""
    volumes: tuple[dict[str, Any], ...] = ()
    mounts: tuple[dict[str, Any], ...] = ()
    """Of the container that goes to the storage."""
    environment: tuple[dict[str, Any], ...] = ()
    """Of the same container."""


def access_to(credentials: StorageCredentials, session: str, ca: CaCertificate | None = None) -> StorageAccess:
    """Parts of a pod that goes to a storage with these credentials.

    Args:
        session: What logs of the storage's owner call it, where it takes on a role: 2 to 64 of letters, digits and -.
        ca: Whom it trusts there, where that is not a public authority.
    """
    access = _as_who(credentials, session)
    return access if ca is None else _trusting(access, credentials, ca)


def _trusting(access: StorageAccess, credentials: StorageCredentials, ca: CaCertificate) -> StorageAccess:
    items = [{"key": ca.key or CA_KEY, "path": CA_KEY}]
    where: dict[str, Any] = (
        {"configMap": {"name": ca.config_map_name, "defaultMode": 0o440, "items": items}}
        if ca.config_map_name is not None
        else {"secret": {"secretName": ca.secret_name, "defaultMode": 0o440, "items": items}}
    )
    # NB: the client library goes to the token service by itself, and knows its authority by this variable only; that of AWS is public.
    own_service = credentials.web_identity is not None and credentials.web_identity.sts_endpoint is not None
    told = (variable("AWS_CA_BUNDLE", f"{AUTHORITY}/{CA_KEY}"),) if own_service else ()
    return replace(
        access,
        volumes=(*access.volumes, {"name": "storage-ca", **where}),
        mounts=(*access.mounts, mount("storage-ca", AUTHORITY, read_only=True)),
        environment=(*access.environment, *told),
    )


def _as_who(credentials: StorageCredentials, session: str) -> StorageAccess:
    if credentials.secret_name is not None:
        return access_by_secret(credentials.secret_name)
    if credentials.web_identity is not None:
        return _by_role(credentials.web_identity, session)
    return StorageAccess(account=credentials.service_account_name)


def access_by_secret(name: str) -> StorageAccess:
    """Parts of a pod that has this Secret of its namespace."""
    return StorageAccess(
        volumes=({"name": "storage", "secret": {"secretName": name, "defaultMode": 0o440}},),
        mounts=(mount("storage", STORAGE, read_only=True),),
    )


def _by_role(identity: WebIdentity, session: str) -> StorageAccess:
    token = {
        "audience": identity.audience or DEFAULT_AUDIENCE,
        "expirationSeconds": TOKEN_SECONDS,
        "path": "token",
    }
    # Names that all AWS libraries know.
    environment = [
        variable("AWS_ROLE_ARN", escaped(identity.role_arn)),
        variable("AWS_ROLE_SESSION_NAME", session),
        variable("AWS_WEB_IDENTITY_TOKEN_FILE", f"{WEB_IDENTITY}/token"),
    ]
    if identity.sts_endpoint is not None:
        environment.append(variable("AWS_ENDPOINT_URL_STS", escaped(identity.sts_endpoint)))
    return StorageAccess(
        account=identity.service_account_name,
        volumes=(
            {
                "name": "web-identity",
                "projected": {"defaultMode": 0o440, "sources": [{"serviceAccountToken": token}]},
            },
        ),
        mounts=(mount("web-identity", WEB_IDENTITY, read_only=True),),
        environment=tuple(environment),
    )


def annotations_for(credentials: StorageCredentials, annotations: Mapping[str, str]) -> dict[str, str]:
    """Annotations of a recorder pod, and what keeps the platform from giving the recorder container credentials, too."""
    if credentials.service_account_name is None:
        return dict(annotations)
    told = [name.strip() for name in annotations.get(SKIP_CONTAINERS, "").split(",") if name.strip()]
    return {**annotations, SKIP_CONTAINERS: ",".join(dict.fromkeys([*told, names.RECORDER]))}
